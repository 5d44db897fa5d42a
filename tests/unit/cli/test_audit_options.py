"""The options of the audit trail: what they refuse, and what they hand on."""

from __future__ import annotations

import pytest
from support.certificates import Authority

from airflow_provider_varian.cli import audit_options
from airflow_provider_varian.cli.main import main, parser
from airflow_provider_varian.receiver.audit_sinks import AuditFile


@pytest.fixture
def files(tmp_path):
    authority = Authority()
    issued, other = authority.issue("receiver"), authority.issue("other")
    texts = {"ca": authority.certificate, "certificate": issued.certificate, "key": issued.key, "other": other.key}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "broken").write_text("-----BEGIN CERTIFICATE-----")
    return tmp_path


def told(files, *options):
    return [str(files / option) if (files / option).is_file() else option for option in options]


SYSLOG = ("--audit-syslog", "logs.example.org:7000")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--audit-ca", "ca"], "--audit-ca is given without --audit-syslog"),
        (["--audit-certificate", "certificate"], "--audit-certificate is given without --audit-syslog"),
        (["--audit-private-key", "key"], "--audit-private-key is given without --audit-syslog"),
        ([*SYSLOG, "--audit-certificate", "certificate"], "are not both given"),
        ([*SYSLOG, "--audit-private-key", "key"], "are not both given"),
        ([*SYSLOG, "--audit-ca", "broken"], "--audit-ca is not a certificate"),
        ([*SYSLOG, "--audit-ca", "nowhere"], "--audit-ca: nowhere cannot be read"),
        ([*SYSLOG, "--audit-certificate", "certificate", "--audit-private-key", "other"], "do not fit together"),
        (["--audit-syslog", "logs.example.org:0"], "is not HOST:PORT"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_done(files, capsys, options, words):
    command = ["receive", "--spool", str(files / "spool"), "--host", "127.0.0.1", "--port", "0", *told(files, *options)]
    assert main(command) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("where", "host", "port"),
    [
        ("logs.example.org", "logs.example.org", 6514),
        ("logs.example.org:7000", "logs.example.org", 7000),
        ("[::1]:7000", "::1", 7000),
        ("::1", "::1", 6514),
    ],
)
def test_a_syslog_server_is_called_where_it_is_with_what_it_wants_to_see(files, where, host, port):
    given = ["--audit-ca", "ca", "--audit-certificate", "certificate", "--audit-private-key", "key"]
    arguments = parser().parse_args(["receive", "--spool", "x", "--audit-syslog", where, *told(files, *given)])
    sink = audit_options.audit_sink(arguments)
    assert sink.name == f"syslog server {host}:{port}"
    assert sink._server_name == host
    (authority,) = sink._context.get_ca_certs()
    assert dict(part for (part,) in authority["subject"]) == {"commonName": "Test authority"}


def test_a_file_is_opened_at_once(files):
    arguments = parser().parse_args(["receive", "--spool", "x", "--audit-file", str(files / "audit.xml")])
    sink = audit_options.audit_sink(arguments)
    assert isinstance(sink, AuditFile)
    assert (files / "audit.xml").exists()
    assert audit_options.audit_sink(parser().parse_args(["receive", "--spool", "x"])) is None
