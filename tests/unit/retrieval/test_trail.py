"""The audit trail of work: what is asked for, what comes and what leaves, told before it is done; nothing in secret."""

from __future__ import annotations

import logging
import socket

import pytest
from pydicom.dataset import Dataset
from support.archive import ROOT, Archive, rt_image
from support.audit_schema import (
    action,
    checked,
    detail,
    details,
    event,
    failure,
    objects,
    participant,
    query,
    sop_classes,
    study,
)
from support.dicom_files import image_file
from support.identifiers import forms_of, found_in
from support.ports import free_port
from support.quiet import BEFORE, QUIET, WITHIN, Clock
from support.storage_peer import StoragePeer

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import (
    AuditUnavailableError,
    CancelledError,
    OutOfResourcesError,
    PeerUnreachableError,
)
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.query.query import Query
from airflow_provider_varian.receiver.audit_xml import Us
from airflow_provider_varian.receiver.observer import Refusal
from airflow_provider_varian.retrieval import trail as trails
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.retrieval.selection import select
from airflow_provider_varian.retrieval.store import store_files
from airflow_provider_varian.retrieval.third_party import move_to_third_party
from airflow_provider_varian.retrieval.trail import Asking, Retrieving, WorkTrail
from airflow_provider_varian.retrieval.trail_exports import Moving, Storing
from airflow_provider_varian.retrieval.trail_messages import Requestor, without_identities
from airflow_provider_varian.uids import RT_IMAGE, STUDY_ROOT_FIND
from airflow_provider_varian.waiting import Waiting

QUERY, BEGIN, TRANSFERRED, EXPORT = "110112", "110102", "110104", "110106"
SOURCE, DESTINATION, LAUNCHER, APPLICATION, MEDIA = "110153", "110152", "110151", "110150", "110154"
STUDY = f"{ROOT}.1"
PEER = Peer(host="10.1.2.3", port=104, called_ae_title="VMSDBD", calling_ae_title="AIRFLOW", timezone="Europe/Zurich")
PROFILE = Profile(name="plain", relational_queries=True, stable_counts=1, stable_interval_seconds=0.0)
REQUESTOR = Requestor(user_id="dag_id=qa, run_id=r-1, task_id=get", user_name="physicist")


class Sink:
    """Keeps messages, checked against the schema; is down when it is told to be."""

    name = "the sink"

    def __init__(self):
        self.messages = []
        self.down = None
        self.at_write = lambda: None

    def write(self, messages):
        self.at_write()
        if self.down is not None:
            raise self.down
        self.messages += [checked(message.xml) for message in messages]
        self.warned = [message.warns for message in messages]

    def close(self):
        pass

    @property
    def events(self):
        return [event(message) for message in self.messages]


@pytest.fixture
def sink():
    return Sink()


@pytest.fixture
def trail(sink):
    return WorkTrail(sink, REQUESTOR, us=Us(ae_titles=("AIRFLOW",), host="worker1", process=77))


# ---------------------------------------------------------------------------------------------------------- queries


def asked(trail, sink, level=Level.IMAGE, **keys):
    Asking(trail)(PEER, Query.build(level, keys, timezone="Europe/Zurich"))
    (message,) = sink.messages
    return message


def test_a_query_names_who_asks_whom_for_whom_and_what(trail, sink):
    message = asked(trail, sink, Modality="RTPLAN", StudyInstanceUID="1.2.3", StudyDate="20260101-20260131")
    assert (event(message), action(message)) == (QUERY, "E")
    us, peer, requestor = (participant(message, role) for role in (SOURCE, DESTINATION, LAUNCHER))
    assert (us["UserID"], us["AlternativeUserID"], us["NetworkAccessPointID"]) == ("77", "AETITLES=AIRFLOW", "worker1")
    assert (peer["UserID"], peer["AlternativeUserID"]) == ("VMSDBD", "AETITLES=VMSDBD")
    assert (peer["NetworkAccessPointID"], peer["NetworkAccessPointTypeCode"]) == ("10.1.2.3", "2")
    assert (requestor["UserID"], requestor["UserName"]) == ("dag_id=qa, run_id=r-1, task_id=get", "physicist")
    assert [each["UserIsRequestor"] for each in (us, peer, requestor)] == ["false", "false", "true"]
    assert objects(message)["110181"].attrib["ParticipantObjectID"] == STUDY_ROOT_FIND
    told = query(message)
    assert (told.Modality, told.StudyInstanceUID, told.StudyDate) == ("RTPLAN", "1.2.3", "20260101-20260131")
    assert told.QueryRetrieveLevel == "IMAGE"
    assert details(message) == {"TransferSyntax": "1.2.840.10008.1.2.1"}


def test_what_could_name_a_patient_is_withheld_and_said_to_be(trail, sink):
    message = asked(
        trail,
        sink,
        PatientID="12345",
        PatientName="Müller^Anna",
        PatientBirthDate="19700102",
        StudyID="C1 MUELLER",
        RTPlanLabel="",
        RequestAttributesSequence={"ScheduledProcedureStepID": "MUELLER2", "StudyInstanceUID": "1.2.9"},
    )
    told = query(message)
    assert (told.PatientID, told.PatientName, told.StudyID) == ("withheld", "withheld", "withheld")
    assert "PatientBirthDate" in told
    assert not told.PatientBirthDate
    assert not told.RTPlanLabel, "what is only asked for is no condition"
    (item,) = told.RequestAttributesSequence
    assert (item.ScheduledProcedureStepID, item.StudyInstanceUID) == ("withheld", "1.2.9")
    withheld = details(message)["Withheld Keys"]
    assert set(withheld.split(", ")) == {
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "StudyID",
        "ScheduledProcedureStepID",
    }
    text = str(sink.messages) + "".join(each.text or "" for each in message.iter()) + str(told)
    assert found_in(text.encode(), forms_of("12345", "Müller^Anna")) == []


@pytest.mark.parametrize("vr", ["LO", "PN", "SH", "LT", "ST", "UT", "UC", "OB", "UN"])
def test_no_text_or_byte_of_any_kind_is_told(vr):
    identifier = Dataset()
    identifier.add_new(0x00091001, vr, b"ANNA" if vr in ("OB", "UN") else "ANNA")
    told, withheld = without_identities(identifier)
    assert "ANNA" not in str(told)
    assert len(withheld) == 1


def test_a_query_that_is_put_again_is_told_once(trail, sink, clinic):
    asking = Asking(trail)
    request = select(
        clinic.peer,
        None,
        {"Modality": "RTIMAGE", "PatientID": "QA_TB_WL"},
        profile=clinic.profile,
        on_query=asking,
    )
    assert sink.events == [QUERY]
    finds = clinic.archive.finds
    request.relist()
    assert clinic.archive.finds > finds
    assert sink.events == [QUERY]
    asking(clinic.peer, Query.build(Level.IMAGE, {"Modality": "CT"}))
    assert sink.events == [QUERY, QUERY]


def test_a_query_is_told_before_the_peer_hears_of_it_and_not_asked_when_it_cannot_be(trail, sink, clinic):
    seen = []
    sink.at_write = lambda: seen.append(clinic.archive.finds)
    keys = {"Modality": "RTIMAGE"}
    select(clinic.peer, None, keys, profile=clinic.profile, on_query=Asking(trail))
    assert seen == [0]
    sink.down = OSError(28, "No space left on device")
    before = clinic.archive.finds
    with pytest.raises(AuditUnavailableError, match="cannot be written to the sink: No space left"):
        select(clinic.peer, None, keys, profile=clinic.profile, on_query=Asking(trail))
    assert clinic.archive.finds == before


def test_without_a_trail_nothing_is_told():
    Asking(None)(PEER, Query.build(Level.IMAGE, {"Modality": "CT"}))
    with Retrieving(None, PEER), Moving(None, PEER, "X"), Storing(None, PEER):
        pass


# ------------------------------------------------------------------------------------------------------- retrievals


@pytest.fixture
def retrieve(clinic, trail):
    def run(request=None, **settings):
        peer = settings.get("peer", clinic.peer)
        with Retrieving(trail, peer, on_change=settings.pop("on_change", None)) as told:
            return clinic.run(request, on_change=told.changed, on_query=Asking(trail), observer=told, **settings)

    return run


def test_a_retrieval_is_a_query_a_beginning_and_an_end(clinic, retrieve, sink):
    changes = []
    assert retrieve(on_change=changes.append).outcome == "complete"
    assert sink.events == [QUERY, BEGIN, TRANSFERRED]
    assert changes
    _, begin, end = sink.messages
    assert (study(begin), study(end)) == (STUDY, STUDY)
    assert (sop_classes(begin), sop_classes(end)) == ({}, {RT_IMAGE: 5})
    assert (action(end), failure(end)) == ("C", "")
    for message in (begin, end):
        source, destination = participant(message, SOURCE), participant(message, DESTINATION)
        assert (source["UserID"], source["NetworkAccessPointID"]) == ("VMSDBD", "127.0.0.1")
        assert (destination["UserID"], destination["AlternativeUserID"]) == ("77", "AETITLES=AIRFLOW")
        assert participant(message, LAUNCHER)["UserIsRequestor"] == "true"
        assert objects(message)["2"].attrib["ParticipantObjectID"] == "withheld"


def test_what_is_about_to_be_asked_for_is_told_before(clinic, retrieve, sink):
    clinic.archive.on_move = lambda: seen.append(list(sink.events))
    seen = []
    retrieve()
    assert seen == [[QUERY, BEGIN]]


def test_a_rerun_of_what_is_held_moves_nothing_and_tells_of_nothing(retrieve, sink):
    retrieve()
    del sink.messages[:]
    retrieve(retrieval_id="r-2")
    assert sink.events == [QUERY]


def test_what_did_not_come_is_a_message_of_its_own(clinic, retrieve, sink):
    lost = f"{ROOT}.1.1.3"
    clinic.archive.delivers = lambda level, uid: uid != lost
    assert retrieve().outcome == "partial"
    good, bad = sorted((each for each in sink.messages if event(each) == TRANSFERRED), key=failure)
    assert (sop_classes(good), failure(good)) == ({RT_IMAGE: 4}, "")
    assert (sop_classes(bad), failure(bad), action(bad)) == ({RT_IMAGE: 1}, "not retrieved: missing", "R")
    assert sink.warned == [False, True]


def test_studies_are_told_apart(clinic, retrieve, sink):
    other = rt_image(9, study=f"{ROOT}.2", series=f"{ROOT}.2.1")
    clinic.archive.instances[other.SOPInstanceUID] = other
    retrieve(clinic.images(1, 2, 9))
    assert [(event(each), study(each)) for each in sink.messages] == [
        (BEGIN, STUDY),
        (BEGIN, f"{ROOT}.2"),
        (TRANSFERRED, STUDY),
        (TRANSFERRED, f"{ROOT}.2"),
    ]
    assert [sop_classes(each) for each in sink.messages[2:]] == [{RT_IMAGE: 2}, {RT_IMAGE: 1}]


def test_a_retrieval_that_an_error_ends_has_an_end_that_names_it(clinic, retrieve, sink):
    clinic.archive.move_status = 0xA701
    with pytest.raises(OutOfResourcesError):
        retrieve(clinic.images(1))
    begin, end = sink.messages
    assert (event(begin), event(end)) == (BEGIN, TRANSFERRED)
    assert failure(end) == "ended by OutOfResourcesError, status 0xA701"
    assert sop_classes(end) == {RT_IMAGE: 1}


def test_a_retrieval_that_is_cancelled_has_an_end(clinic, retrieve, sink):
    cancellation = Cancellation()
    clinic.archive.on_move = cancellation.cancel
    with pytest.raises(CancelledError):
        retrieve(clinic.images(1), cancellation=cancellation)
    assert failure(sink.messages[-1]) == "cancelled"


def test_a_retrieval_that_is_put_off_has_an_end_that_is_no_failure_of_anybody(clinic, retrieve, sink, monkeypatch):
    clock = Clock(monkeypatch, BEFORE)
    clinic.archive.on_sent = lambda uid: setattr(clock, "now", WITHIN)
    peer = clinic.archive.peer(receiver_port=clinic.port, deferred_as="aria", **QUIET)
    with pytest.raises(Waiting):
        retrieve(clinic.images(1, 2), peer=peer, profile=Profile(name="one", settle_seconds=0.1, uid_lists=False))
    assert failure(sink.messages[-1]) == "put off: the task goes on later"


def test_no_peer_at_all_is_told_too(clinic, retrieve, sink):
    peer = Peer(host="127.0.0.1", port=free_port(), called_ae_title="VMSDBD", receiver_port=clinic.port)
    with pytest.raises(PeerUnreachableError):
        retrieve(clinic.images(1), peer=peer)
    assert sink.events == [BEGIN, TRANSFERRED]
    assert failure(sink.messages[-1]) == "ended by PeerUnreachableError"


def test_nothing_is_asked_for_when_the_trail_takes_nothing(clinic, retrieve, sink):
    sink.down = OSError(111, "Connection refused")
    with pytest.raises(AuditUnavailableError, match="Connection refused"):
        retrieve(clinic.images(1))
    assert clinic.archive.requests == []
    assert not list(clinic.root.rglob("*.dcm"))


def test_what_came_is_kept_when_the_trail_does_not_take_its_end(clinic, retrieve, sink):
    def fail_later():
        sink.down = OSError(5, "Input/output error") if BEGIN in sink.events else None

    sink.at_write = fail_later
    with pytest.raises(AuditUnavailableError, match="1 messages cannot be written"):
        retrieve()
    assert len(list(clinic.root.rglob("*.dcm"))) == 5
    sink.down, sink.at_write = None, lambda: None
    assert retrieve().outcome == "complete"
    assert sink.events.count(TRANSFERRED) == 0


def test_what_ended_the_work_comes_before_the_trail_that_takes_nothing(clinic, retrieve, sink, caplog):
    def fail_later():
        sink.down = OSError(5, "Input/output error") if BEGIN in sink.events else None

    sink.at_write = fail_later
    clinic.archive.move_status = 0xA701
    with pytest.raises(OutOfResourcesError):
        retrieve(clinic.images(1))
    assert "audit: 1 messages cannot be written to the sink: Input/output error" in caplog.text


def test_a_dry_run_is_a_query_alone(retrieve, sink):
    retrieve(dry_run=True)
    assert sink.events == [QUERY]


def test_nothing_of_the_trail_is_logged(retrieve, caplog):
    with caplog.at_level(logging.DEBUG, logger="airflow_provider_varian"):
        retrieve()
    assert "AuditMessage" not in caplog.text
    assert "dag_id=qa" not in caplog.text
    assert "physicist" not in caplog.text


def test_who_the_receiver_of_a_task_refuses_is_an_alert(trail, sink):
    with Retrieving(trail, PEER) as told:
        for _ in range(3):
            told.refused("10.6.6.6", Refusal.NETWORK)
        told.refused("10.6.6.6", Refusal.TOO_MANY_CONNECTIONS)
        told.refused("10.6.6.6", Refusal.STOPPING)
    first, second = sink.messages
    assert (event(first), detail(first)) == ("110113/110126", "refused: network, 3 times")
    assert (event(second), detail(second)) == ("110113/110147", "refused: too-many-connections")
    assert objects(first)["110182"].attrib["ParticipantObjectID"] == "10.6.6.6"
    assert participant(first, LAUNCHER)["UserID"] == REQUESTOR.user_id


def test_a_flood_of_refusals_is_bounded(trail, sink, monkeypatch):
    monkeypatch.setattr(trails, "_MAXIMUM_REFUSALS", 3)
    with Retrieving(trail, PEER) as told:
        for number in range(10):
            told.refused(f"10.6.6.{number}", Refusal.TLS)
    assert len(sink.messages) == 4
    assert detail(sink.messages[-1]) == "refused: tls, 7 times"
    assert objects(sink.messages[-1])["110182"].attrib["ParticipantObjectID"] == "unknown"


def test_a_stranger_at_the_port_of_a_task_is_an_alert(clinic, retrieve, sink):
    def knock():
        # The peer of this connection is 127.0.0.1; this machine has other addresses on its loopback.
        with socket.socket() as stranger:
            stranger.bind(("127.0.0.2", 0))
            stranger.connect(("127.0.0.1", clinic.port))
            stranger.settimeout(10)
            assert stranger.recv(1) == b""

    clinic.archive.on_move = knock
    retrieve(clinic.images(1))
    (alert,) = [each for each in sink.messages if event(each).startswith("110113")]
    assert detail(alert) == "refused: network"
    assert objects(alert)["110182"].attrib["ParticipantObjectID"] == "127.0.0.2"


# ---------------------------------------------------------------------------------------------------------- exports


@pytest.fixture
def move(trail, tmp_path):
    with Archive([rt_image(n) for n in range(3)]) as source:
        source.destinations["RESEARCH"] = ("127.0.0.1", free_port())
        source.store = lambda instances, **_: source.sent.extend(str(ds.SOPInstanceUID) for ds in instances)

        def run(**settings):
            peer = source.peer()
            request = RetrievalRequest(level=Level.SERIES, keys={"SeriesInstanceUID": f"{ROOT}.1.1"})
            defaults = {"destination": "RESEARCH", "profile": PROFILE}
            with Moving(trail, peer, "RESEARCH") as told:
                return move_to_third_party(
                    peer, request, on_account=told.changed, on_query=Asking(trail), **(defaults | settings)
                )

        run.source = source
        yield run


def test_a_move_to_a_third_party_is_an_export(move, sink):
    assert move().outcome == "reported"
    assert sink.events == [QUERY, BEGIN, EXPORT]
    _, begin, end = sink.messages
    assert (study(begin), study(end), sop_classes(end), failure(end)) == (STUDY, STUDY, {RT_IMAGE: 3}, "")
    for message in (begin, end):
        assert participant(message, SOURCE)["UserID"] == "VMSDBD"
        assert participant(message, DESTINATION)["AlternativeUserID"] == "AETITLES=RESEARCH"
        assert participant(message, APPLICATION)["UserID"] == "77"
        assert participant(message, LAUNCHER)["UserID"] == REQUESTOR.user_id
    assert participant(end, MEDIA)["UserID"] == "RESEARCH"
    (medium,) = end.iter("MediaType")
    assert medium.attrib["csd-code"] == "110037"


def test_a_move_that_fails_is_an_export_that_failed(move, sink):
    move.source.move_status = 0xA701
    with pytest.raises(OutOfResourcesError):
        move()
    assert sink.events == [QUERY, BEGIN, EXPORT]
    assert failure(sink.messages[-1]) == "ended by OutOfResourcesError, status 0xA701"


def test_nothing_is_moved_when_the_trail_takes_nothing(move, sink):
    def fail_later():
        sink.down = OSError(28, "No space left on device") if QUERY in sink.events else None

    sink.at_write = fail_later
    with pytest.raises(AuditUnavailableError):
        move()
    assert move.source.requests == []


def test_a_move_that_is_done_already_tells_of_no_other(move, sink, tmp_path):
    kept = {"manifest_root": tmp_path, "retrieval_id": "m-1"}
    move(**kept)
    del sink.messages[:]
    move(**kept)
    assert sink.events == [QUERY]


@pytest.fixture
def store(trail, tmp_path):
    with StoragePeer() as storage:

        def run(*files, **settings):
            peer = storage.peer(allow_store=True)
            with Storing(trail, peer) as told:
                return store_files(
                    peer, list(files), store_id="s-1", destination=None, on_change=told.changed, **settings
                )

        run.storage = storage
        yield run


def test_storing_at_a_peer_is_an_export(store, sink, tmp_path):
    for number in (1, 2, 3):
        image_file(tmp_path / "files", number)
    seen = []
    store.storage.answer = lambda uid: seen.append(list(sink.events)) or 0x0000
    assert store(tmp_path / "files").outcome == "complete"
    assert seen == [[BEGIN]] * 3, "told before the first of them goes"
    begin, end = sink.messages
    assert (event(end), study(begin), study(end)) == (EXPORT, STUDY, STUDY)
    assert (sop_classes(end), failure(end)) == ({RT_IMAGE: 3}, "")
    assert participant(end, SOURCE)["UserID"] == "77"
    assert participant(end, DESTINATION)["UserID"] == "STORAGE"
    assert participant(end, MEDIA)["UserID"] == f"STORAGE@127.0.0.1:{store.storage.port}"


def test_what_a_peer_does_not_take_is_told_apart(store, sink, tmp_path):
    for number in (1, 2):
        image_file(tmp_path / "files", number)
    store.storage.answer = lambda uid: 0xA900 if uid.endswith(".2") else 0x0000
    store(tmp_path / "files")
    good, bad = sorted((each for each in sink.messages if event(each) == EXPORT), key=failure)
    assert (sop_classes(good), sop_classes(bad)) == ({RT_IMAGE: 1}, {RT_IMAGE: 1})
    assert failure(bad) == "not stored: failed"


def test_nothing_is_stored_when_the_trail_takes_nothing(store, sink, tmp_path):
    image_file(tmp_path / "files", 1)
    sink.down = OSError(28, "No space left on device")
    with pytest.raises(AuditUnavailableError):
        store(tmp_path / "files")
    assert store.storage.associations == 0
