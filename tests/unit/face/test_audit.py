"""The audit trail of tasks: off by default, where the configuration says, and for whom Airflow runs the work."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from airflow.sdk.definitions._internal.contextmanager import _CURRENT_CONTEXT
from support.audit_schema import checked, event, participant, query, study
from support.certificates import Authority
from support.dicom_files import image_file
from support.identifiers import forms_of, found_in
from support.storage_peer import StoragePeer

from airflow_provider_varian.errors import AuditUnavailableError, ConfigurationError
from airflow_provider_varian.hooks import audit
from airflow_provider_varian.hooks.dicom import DicomHook
from airflow_provider_varian.operators.dicom import DicomFindOperator
from airflow_provider_varian.operators.retrieve import DicomRetrieveOperator
from airflow_provider_varian.operators.store import DicomStoreOperator
from airflow_provider_varian.receiver.audit_sinks import AuditFile, AuditSyslog

QUERY, BEGIN, TRANSFERRED, EXPORT = "110112", "110102", "110104", "110106"
LAUNCHER = "110151"
PLANS = {"PatientID": "QA_TB_WL", "Modality": "RTPLAN"}


@pytest.fixture
def trail(tmp_path, monkeypatch):
    """A trail in a file; return a function that gives its messages, checked."""
    folder = tmp_path / "audit"
    folder.mkdir(mode=0o700)
    path = folder / "audit.xml"
    monkeypatch.setenv("AIRFLOW__VARIAN__AUDIT", str(path))

    def messages():
        return [checked(line) for line in path.read_text(encoding="utf-8").splitlines()]

    messages.path = path
    return messages


@pytest.fixture
def running(context, monkeypatch):
    """Let Airflow run a task: its context is the current one, and who triggered its run is known."""

    def make(user=None, **instance):
        made = context(**instance)
        made["dag_run"].triggering_user_name = user
        monkeypatch.setattr(made["ti"], "try_number", 2, raising=False)
        _CURRENT_CONTEXT.append(made)
        return made

    yield make
    _CURRENT_CONTEXT.clear()


def events(messages):
    return [event(each) for each in messages]


def test_it_is_off_by_default(aria, context, tmp_path):
    DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS).execute(context())
    assert audit.asking(DicomHook(aria).peer) is None
    assert not (tmp_path / "spool" / "audit").exists()


def test_a_task_is_told_of_with_its_run_and_who_triggered_it(aria, running, trail):
    made = running("physicist", dag_id="daily_qa", run_id="manual__1", task_id="get", map_index=3)
    DicomRetrieveOperator(task_id="get", dicom_conn_id=aria, keys=PLANS).execute(made)
    found = trail()
    assert events(found)[0] == QUERY
    assert set(events(found)) == {QUERY, BEGIN, TRANSFERRED}
    assert events(found).count(BEGIN) == events(found).count(TRANSFERRED) > 0
    for message in found:
        launcher = participant(message, LAUNCHER)
        assert launcher["UserID"] == "dag_id=daily_qa, run_id=manual__1, task_id=get, map_index=3, try_number=2"
        assert (launcher["UserName"], launcher["UserIsRequestor"]) == ("physicist", "true")


def test_a_run_that_the_scheduler_began_has_no_user(aria, running, trail):
    made = running(dag_id="daily_qa", run_id="scheduled__1", task_id="find")
    DicomFindOperator(task_id="find", dicom_conn_id=aria, level="IMAGE", keys=PLANS).execute(made)
    (message,) = trail()
    launcher = participant(message, LAUNCHER)
    assert launcher["UserID"] == "dag_id=daily_qa, run_id=scheduled__1, task_id=find, try_number=2"
    assert "UserName" not in launcher


def test_outside_of_a_task_it_is_the_user_of_the_system(aria, trail):
    import pwd

    DicomHook(aria).find("IMAGE", PLANS)
    (message,) = trail()
    assert participant(message, LAUNCHER)["UserID"] == pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.parametrize("verb", ["find", "iter_find", "find_session", "afind", "select"])
def test_each_way_to_ask_tells_of_the_query_once(aria, daemon, trail, verb):
    hook = DicomHook(aria)
    keys = {**PLANS, "RTPlanLabel": ""}
    if verb == "iter_find":
        list(hook.iter_find("IMAGE", keys))
    elif verb == "find_session":
        with hook.find_session() as session:
            for _ in range(3):
                session.find(hook._query("IMAGE", keys))
    elif verb == "afind":
        asyncio.run(hook.afind("IMAGE", keys))
    else:
        getattr(hook, verb)("IMAGE", {key: value for key, value in keys.items() if value or verb == "find"})
    (message,) = trail()
    assert event(message) == QUERY
    told = query(message)
    assert (told.Modality, told.PatientID, told.QueryRetrieveLevel) == ("RTPLAN", "withheld", "IMAGE")


def test_a_check_of_availability_is_about_nobody(aria, trail):
    DicomHook(aria).ensure_available()
    assert not trail.path.exists() or trail() == []


def test_a_move_to_a_third_party_is_an_export_of_this_task(aria, running, trail):
    running(dag_id="weekly")
    hook = DicomHook(aria)
    with pytest.raises(Exception, match=r".") as raised:
        hook.move(hook.select("IMAGE", PLANS, limit=1), move_destination="NOBODY")
    assert type(raised.value).__name__ != "AuditUnavailableError"
    assert events(trail()) == [QUERY, BEGIN, EXPORT]


def test_storing_is_an_export_of_this_task(connect, running, trail, tmp_path):
    image_file(tmp_path / "export", 1)
    with StoragePeer() as peer:
        pacs = connect("pacs", port=peer.port, called_ae_title="STORAGE", allow_store=True)
        DicomStoreOperator(task_id="s", dicom_conn_id=pacs, files=str(tmp_path / "export")).execute(
            running("doctor", task_id="s")
        )
    begin, end = trail()
    assert (event(begin), event(end)) == (BEGIN, EXPORT)
    assert study(end)
    assert participant(end, LAUNCHER)["UserName"] == "doctor"


def test_no_patient_is_in_the_trail_and_nothing_of_the_trail_in_the_log(aria, running, trail, caplog):
    with caplog.at_level("DEBUG"):
        DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS).execute(running("physicist"))
    (name,) = {each["PatientName"] for each in DicomHook(aria).find("IMAGE", {**PLANS, "PatientName": ""}).answers}
    assert len(name) > 3
    words = [*forms_of("QA_TB_WL", name)]
    text = trail.path.read_bytes() + b"".join(str(query(each)).encode() for each in trail() if event(each) == QUERY)
    assert found_in(text, words) == []
    assert found_in(text + b"QA_TB_WL", words), "the search finds what is there"
    assert "AuditMessage" not in caplog.text
    assert "physicist" not in caplog.text


def test_a_server_that_is_down_fails_no_task_and_loses_no_message(aria, running, trail, monkeypatch, tmp_path, caplog):
    """What it is not told waits in the spool; the next task that reaches it brings it along."""

    def down(self, messages):
        raise ConnectionRefusedError(111, "Connection refused")

    with monkeypatch.context() as patched:
        patched.setattr(AuditFile, "write", down)
        told = DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS).execute(running(task_id="r"))
    assert told["outcome"] == "complete"
    assert trail() == []
    assert "cannot be written: Connection refused" in caplog.text
    waiting = [path for path in (tmp_path / "spool" / "audit").iterdir() if path.suffix == ".json"]
    assert len(waiting) >= 3
    DicomHook(aria).find("IMAGE", {"Modality": "RTIMAGE", "PatientID": "QA_TB_WL"})
    found = trail()
    assert events(found)[0] == events(found)[-1] == QUERY
    assert {BEGIN, TRANSFERRED} <= set(events(found))
    assert len(found) == len(waiting) + 1
    assert "task_id=r" in participant(found[0], LAUNCHER)["UserID"]


def test_where_nothing_can_be_kept_nothing_is_asked(aria, daemon, trail, monkeypatch, tmp_path):
    def down(self, messages):
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(AuditFile, "write", down)
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "audit").write_text("in the way")
    with pytest.raises(AuditUnavailableError) as raised:
        DicomHook(aria).find("IMAGE", PLANS)
    assert raised.value.transient
    assert daemon.counts["C-FIND"] == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"AUDIT": "audit.xml"}, "neither an absolute path nor syslog"),
        ({"AUDIT": "syslog://logs:514"}, "neither an absolute path nor syslog"),
        ({"AUDIT": "/nowhere/at/all/audit.xml"}, "cannot be opened: No such file"),
        ({"AUDIT": "syslog+tls://"}, "names no server"),
        ({"AUDIT": "syslog+tls://logs:port"}, "names no server"),
        ({"AUDIT": "syslog+tls://somebody@logs:6514"}, "names no server"),
        ({"AUDIT": "syslog+tls://logs/path"}, "names no server"),
        ({"AUDIT": "/x/audit.xml", "AUDIT_CA": "/x"}, "audit_ca is set, but audit names no"),
        ({"AUDIT": "syslog+tls://logs", "AUDIT_CA": "/nowhere/ca"}, "audit_ca: /nowhere/ca cannot be read"),
        ({"AUDIT": "syslog+tls://logs", "AUDIT_CERTIFICATE": "/x"}, "are not both set"),
        ({"AUDIT": "syslog+tls://logs", "AUDIT_CA": __file__}, "audit_ca is not what"),
        (
            {"AUDIT": "syslog+tls://logs", "AUDIT_CERTIFICATE": __file__, "AUDIT_PRIVATE_KEY": __file__},
            "audit_certificate and audit_private_key are not what",
        ),
    ],
)
def test_what_is_wrong_with_the_configuration_ends_the_task_before_any_network(
    aria, daemon, monkeypatch, settings, words
):
    for name, value in settings.items():
        monkeypatch.setenv(f"AIRFLOW__VARIAN__{name}", value)
    with pytest.raises(ConfigurationError, match=words):
        DicomHook(aria).find("IMAGE", PLANS)
    assert not daemon.counts


def test_a_file_that_others_may_write_ends_the_task(aria, daemon, trail):
    trail.path.touch()
    trail.path.chmod(0o666)
    with pytest.raises(ConfigurationError, match="may be written by others"):
        DicomHook(aria).find("IMAGE", PLANS)
    assert not daemon.counts


@pytest.mark.parametrize(
    ("where", "host", "port"),
    [("syslog+tls://logs.example.org", "logs.example.org", 6514), ("syslog+tls://[::1]:7000", "::1", 7000)],
)
def test_a_syslog_server_is_called_over_tls(monkeypatch, tmp_path, where, host, port):
    authority = Authority()
    issued = authority.issue("worker")
    for name, text in (("CA", authority.certificate), ("CERTIFICATE", issued.certificate), ("PRIVATE_KEY", issued.key)):
        (tmp_path / name).write_text(text)
        monkeypatch.setenv(f"AIRFLOW__VARIAN__AUDIT_{name}", str(tmp_path / name))
    sink = audit._sink(where)
    assert isinstance(sink, AuditSyslog)
    assert sink.name == f"syslog server {host}:{port}"
    (known,) = sink._context.get_ca_certs()
    assert dict(part for (part,) in known["subject"]) == {"commonName": "Test authority"}


def test_at_a_shell_a_connection_has_the_trail_of_airflow(aria, trail, tmp_path, capsys):
    from airflow_provider_varian.cli.main import main

    keys = ["-k", "PatientID=QA_TB_WL", "-k", "Modality=RTPLAN"]
    assert main(["find", "--conn", aria, "--level", "IMAGE", *keys, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert main(["retrieve", "--conn", aria, "--out", str(tmp_path / "out"), *keys]) == 0
    assert set(events(trail())) == {QUERY, BEGIN, TRANSFERRED}
    before = len(trail())
    other = tmp_path / "audit" / "typed.xml"
    assert main(["find", "--conn", aria, "--level", "IMAGE", *keys, "--audit-file", str(other)]) == 0
    assert len(trail()) == before
    assert event(checked(other.read_text().splitlines()[0])) == QUERY
