"""From a connection's settings to a peer, and refusals that say what to type."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_varian.connection_fields import CONNECTION_FIELDS
from airflow_provider_varian.dimse.peer import (
    Peer,
    TlsSettings,
    connection_parts,
    parse_peer_address,
    peer_from_connection,
)
from airflow_provider_varian.errors import ConfigurationError

REQUIRED = {"called_ae_title": "VMSDBD"}


def peer_with(host="aria", port=51402, login=None, password=None, **extra):
    return peer_from_connection(host=host, port=port, login=login, password=password, extra=REQUIRED | extra)


def test_defaults_are_those_of_the_table_and_of_a_peer_made_by_hand():
    peer = peer_with()
    assert peer == Peer(host="aria", port=51402, called_ae_title="VMSDBD")
    for field in CONNECTION_FIELDS:
        if field.default is not None and field.key != "tls":
            assert getattr(peer, field.key) == field.default, field.key


def test_null_and_empty_mean_absent():
    nothing = {field.key: None for field in CONNECTION_FIELDS if not field.required}
    assert peer_with(**nothing) == peer_with()
    assert peer_with(move_destination="", receiver="", timezone="", quiet_hours="", receiver_port="") == peer_with()


def test_an_airflow_connection_keeps_an_empty_login_as_empty_text():
    fields = {"conn_type": "dicom", "host": "aria", "port": 51402, "login": "", "password": ""}
    connection = SimpleNamespace(**fields, extra_dejson=REQUIRED)
    assert peer_from_connection(**connection_parts("aria", connection)) == peer_with()


def test_a_connection_of_another_type_is_refused_by_its_id():
    with pytest.raises(ConfigurationError, match="'a_database' is of type 'postgres', not 'dicom'"):
        connection_parts("a_database", SimpleNamespace(conn_type="postgres"))


def test_values_of_a_connection_uri_come_as_text():
    peer = peer_with(
        receiver_port="11112",
        dimse_timeout="2.5",
        allow_store="true",
        require_user_identity="False",
        profile_overrides='{"uid_lists": true}',
    )
    assert (peer.receiver_port, peer.dimse_timeout, peer.allow_store) == (11112, 2.5, True)
    assert peer.profile_overrides == {"uid_lists": True}


def test_the_move_destination_is_the_calling_title_unless_given():
    assert peer_with(calling_ae_title="AF1").move_destination == "AF1"
    assert peer_with(calling_ae_title="AF1", move_destination="AF2").move_destination == "AF2"


def test_the_name_puts_an_ipv6_address_in_brackets():
    assert peer_with().name == "VMSDBD@aria:51402"
    assert peer_with(host="[2001:db8::1]").name == "VMSDBD@[2001:db8::1]:51402"


@pytest.mark.parametrize("title", ["Db Daemon", "A", "A" * 16, "a-b_c.d", "A@B"])
def test_ae_titles_that_exist_in_the_wild(title):
    assert peer_with(called_ae_title=title).called_ae_title == title


@pytest.mark.parametrize(
    "title", ["", "   ", "A" * 17, "A\\B", "ARIÄ", "A\nB", "A\x7f", 7], ids=lambda value: repr(value)
)
@pytest.mark.parametrize("key", ["called_ae_title", "calling_ae_title", "move_destination"])
def test_ae_titles_that_cannot_be(key, title):
    if key == "move_destination" and title == "":
        return
    with pytest.raises(ConfigurationError, match=key) as caught:
        peer_with(**{key: title})
    assert caught.value.hint


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"caled_ae_title": "X"}, "unknown connection field 'caled_ae_title'. Did you mean 'called_ae_title'?"),
        ({"qqqq": 1}, "Known fields: called_ae_title"),
        ({"receiver_port": 0}, "from 1 to 65535"),
        ({"receiver_port": 70000}, "from 1 to 65535"),
        ({"receiver_port": 1.5}, "whole number"),
        ({"dimse_timeout": 0}, "dimse_timeout"),
        ({"dimse_timeout": "nan"}, "dimse_timeout"),
        ({"dimse_timeout": True}, "dimse_timeout"),
        ({"max_pdu": 0}, "from 4096 to"),
        ({"allow_store": "maybe"}, "true or false"),
        ({"profile": "orthanc"}, "aria, generic"),
        ({"information_model": "series_root"}, "study_root"),
        ({"profile_overrides": "{"}, "not JSON"),
        ({"profile_overrides": "[1]"}, "JSON object"),
        ({"timezone": "Europe/Nowhere"}, "IANA time zone"),
        ({"timezone": "../../etc/passwd"}, "IANA time zone"),
        ({"quiet_hours": {"sunday": ["00:00-01:45"]}}, r"\(timezone\) is missing, although quiet_hours is set"),
        ({"quiet_hours": {"daily": ["00:00-24:00"]}, "timezone": "UTC"}, "leaves no time of the week"),
        ({"quiet_hours": {"daily": ["22:00-12:00", "12:00-22:00"]}, "timezone": "UTC"}, "leaves no time of the week"),
        ({"quiet_hours": {"someday": []}}, "sunday"),
        ({"quiet_hours": {"sunday": "00:00-01:45"}}, "list of windows"),
        ({"quiet_hours": {"sunday": ["0:00-1:45"]}}, "window '0:00-1:45'"),
        ({"quiet_hours": {"sunday": ["00:00-00:00"]}}, "window"),
        ({"quiet_hours": {"sunday": ["25:00-26:00"]}}, "window"),
        ({"tls_certificate": "x"}, '"tls" to true'),
        ({"tls": True, "tls_certificate": "x"}, "tls_private_key.*is missing"),
        ({"tls": True, "tls_private_key": "x"}, "tls_certificate.*is missing"),
        ({"receiver": "x" * 65}, "At most 64"),
        ({"receiver": 3}, "as text"),
        ({"require_user_identity": True}, "login"),
    ],
)
def test_wrong_values_are_refused_by_name(extra, words):
    with pytest.raises(ConfigurationError, match=words):
        peer_with(**extra)


@pytest.mark.parametrize("host", [None, "", "  ", "dicom://aria", "aria:51402", "a b", "aria..example.org", "a" * 64])
def test_wrong_hosts(host):
    with pytest.raises(ConfigurationError, match="host"):
        peer_with(host=host)


@pytest.mark.parametrize("port", [None, 0, -1, 65536, "x"])
def test_wrong_ports(port):
    with pytest.raises(ConfigurationError, match="port"):
        peer_with(port=port)


def test_a_missing_called_title_is_named():
    with pytest.raises(ConfigurationError, match=r"Called AE title.*\(called_ae_title\) is missing"):
        peer_from_connection(host="aria", port=104)


def test_quiet_hours_are_kept():
    hours = {"daily": ["03:50-04:30"], "sunday": ["00:00-01:45", "23:30-24:00"]}
    assert peer_with(quiet_hours=hours, timezone="Europe/Zurich").quiet_hours == {
        "daily": ("03:50-04:30",),
        "sunday": ("00:00-01:45", "23:30-24:00"),
    }


def test_an_aria_login_is_refused_unless_the_profile_allows_it():
    with pytest.raises(ConfigurationError, match="never type an ARIA login"):
        peer_with(login="physics")
    allowed = peer_with(login="physics", profile_overrides={"user_identity": True})
    assert (allowed.user_identity.login, allowed.user_identity.password) == ("physics", None)
    assert peer_with(login="physics", profile="generic").user_identity.login == "physics"


def test_a_passcode_without_tls_is_refused_and_shown_nowhere():
    with pytest.raises(ConfigurationError, match="clear text") as caught:
        peer_with(login="physics", password="s3cret", profile="generic")
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="login is empty"):
        peer_with(password="s3cret")
    peer = peer_with(
        login="physics",
        password="s3cret",
        profile="generic",
        tls=True,
        tls_certificate="CERT",
        tls_private_key="KEY",
        tls_private_key_password="s3cret",
        tls_server_name="aria.example.org",
    )
    assert peer.tls == TlsSettings(
        server_name="aria.example.org", certificate="CERT", private_key="KEY", private_key_password="s3cret"
    )
    assert peer.user_identity.password == "s3cret"
    for secret in ("s3cret", "KEY", "CERT"):
        assert secret not in repr(peer)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("VMSDBD@127.0.0.1:51402", ("VMSDBD", "127.0.0.1", 51402)),
        ("Db Daemon@aria.example.org:104", ("Db Daemon", "aria.example.org", 104)),
        ("A@B@host:104", ("A@B", "host", 104)),
        ("VMSDBD@[2001:db8::1]:104", ("VMSDBD", "2001:db8::1", 104)),
    ],
)
def test_peer_addresses(text, parts):
    assert parse_peer_address(text) == parts


@pytest.mark.parametrize(
    "text",
    ["VMSDBD", "VMSDBD@host", "host:104", "@host:104", "A@:104", "A@host:x", "A@2001:db8::1:104", "A" * 17 + "@h:1"],
)
def test_wrong_peer_addresses(text):
    with pytest.raises(ConfigurationError):
        parse_peer_address(text)
