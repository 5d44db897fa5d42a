"""The audit trail: messages as PS3.15 has them, few of them, and nothing that waits for them."""

from __future__ import annotations

import itertools
import logging
import time

import pytest
from support.audit_schema import checked, detail, event, objects, participant, sop_classes, study
from support.ports import wait_until

from airflow_provider_varian.dimse.sink import StoreRequest
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.receiver import audit
from airflow_provider_varian.receiver.audit import AuditTrail
from airflow_provider_varian.receiver.observer import AssociationFacts, Ending, Refusal
from airflow_provider_varian.receiver.upkeep import Removed
from airflow_provider_varian.uids import CT_IMAGE, IMPLICIT_VR_LITTLE_ENDIAN, RT_IMAGE, RT_PLAN

START, STOP, BEGIN, TRANSFERRED, DELETED = "110100/110120", "110100/110121", "110102", "110104", "110103"
NODE_AUTHENTICATION, ACCESS_CONTROL, RECORDING_STOPPED = "110113/110126", "110113/110147", "110113/110133"
SOURCE, DESTINATION, APPLICATION = "110153", "110152", "110150"
STUDY = "1.2.3"


class Sink:
    """Keeps messages; is down when it is told to be."""

    name = "the sink"

    def __init__(self):
        self.messages = []
        self.batches = []
        self.down = None
        self.closed = 0

    def write(self, messages):
        if self.down is not None:
            raise self.down
        self.batches.append(len(messages))
        self.messages += messages

    def close(self):
        self.closed += 1

    def take(self):
        """Return the messages that came since the last look, checked against the schema."""
        found, self.messages = [checked(message.xml) for message in self.messages], []
        return found


@pytest.fixture
def sink():
    return Sink()


@pytest.fixture
def trail(sink):
    return AuditTrail(sink, ae_titles=["AIRFLOW", "AIRFLOW2"])


@pytest.fixture
def told(trail, sink):
    """Let the trail look at what it was told, and return the messages."""

    def look():
        trail._round()
        return sink.take()

    return look


def facts(number=1, source="10.1.2.3", calling="VMSDBD", called="AIRFLOW", subject=""):
    return AssociationFacts(
        number=number, source_address=source, calling_ae_title=calling, called_ae_title=called, tls_subject=subject
    )


def request(sop_class=RT_IMAGE, uid="1.2.3.4"):
    return StoreRequest(sop_class_uid=sop_class, sop_instance_uid=uid, transfer_syntax_uid=IMPLICIT_VR_LITTLE_ENDIAN)


def stored(trail, *, who=None, sop_class=RT_IMAGE, study_uid=STUDY, times=1):
    for _ in range(times):
        trail.stored(who or facts(), request(sop_class), 1000, 0.1, study_uid)


def test_objects_of_a_study_are_two_messages_however_many_they_are(trail, told):
    stored(trail, times=300)
    stored(trail, sop_class=RT_PLAN, times=2)
    (begin,) = told()
    assert (event(begin), study(begin), sop_classes(begin)) == (BEGIN, STUDY, {})
    assert begin.find("EventIdentification").attrib["EventActionCode"] == "E"
    stored(trail, sop_class=CT_IMAGE)
    assert told() == []
    trail.ended(facts(), Ending.RELEASED)
    (end,) = told()
    assert (event(end), study(end)) == (TRANSFERRED, STUDY)
    assert sop_classes(end) == {RT_IMAGE: 300, RT_PLAN: 2, CT_IMAGE: 1}
    identification = end.find("EventIdentification").attrib
    assert (identification["EventActionCode"], identification["EventOutcomeIndicator"]) == ("R", "0")


def test_who_sent_and_who_received_are_named(trail, told):
    who = facts(subject="CN=aria-db,O=Clinic")
    stored(trail, who=who)
    trail.ended(who, Ending.RELEASED)
    for message in told():
        source = participant(message, SOURCE)
        assert source["UserID"] == "VMSDBD"
        assert source["AlternativeUserID"] == "AETITLES=VMSDBD"
        assert source["UserName"] == "CN=aria-db,O=Clinic"
        assert (source["NetworkAccessPointID"], source["NetworkAccessPointTypeCode"]) == ("10.1.2.3", "2")
        assert source["UserIsRequestor"] == "true"
        destination = participant(message, DESTINATION)
        assert destination["AlternativeUserID"] == "AETITLES=AIRFLOW"
        assert destination["UserIsRequestor"] == "false"


def test_the_patient_is_there_and_nothing_is_told_of_him(trail, told):
    stored(trail)
    trail.ended(facts(), Ending.RELEASED)
    for message in told():
        patient = objects(message)["2"]
        assert patient.attrib["ParticipantObjectID"] == "withheld"
        assert patient.find("ParticipantObjectName").text == "withheld"
        assert patient.attrib["ParticipantObjectTypeCode"] == "1"
        assert patient.attrib["ParticipantObjectTypeCodeRole"] == "1"


def test_studies_and_associations_are_told_apart(trail, told):
    who = [facts(1), facts(2, "10.1.2.4", "OTHER")]
    for number, (peer, uid) in enumerate(itertools.product(who, ("1.1", "1.2"))):
        stored(trail, who=peer, study_uid=uid, times=number + 1)
    assert [event(message) for message in told()] == [BEGIN] * 4
    trail.ended(who[1], Ending.CUT)
    found = told()
    assert {(participant(message, SOURCE)["UserID"], study(message)) for message in found} == {
        ("OTHER", "1.1"),
        ("OTHER", "1.2"),
    }
    assert [sum(sop_classes(message).values()) for message in found] == [3, 4]
    trail.ended(who[0], Ending.RELEASED)
    assert [sum(sop_classes(message).values()) for message in told()] == [1, 2]


def test_what_was_not_stored_is_a_message_of_its_own_that_says_why(trail, told):
    stored(trail)
    trail.not_stored(facts(), request(), 0xA700, "no space")
    trail.not_stored(facts(), request(CT_IMAGE), 0xA700, "no space")
    trail.not_stored(facts(), request("../../etc"), None, "cut")
    trail.ended(facts(), Ending.CUT)
    begin, good, bad = told()
    assert (event(begin), event(good), event(bad)) == (BEGIN, TRANSFERRED, TRANSFERRED)
    assert sop_classes(good) == {RT_IMAGE: 1}
    assert bad.find("EventIdentification").attrib["EventOutcomeIndicator"] == "4"
    assert bad.find("EventIdentification/EventOutcomeDescription").text == "not stored; 0xA700: 2, not answered: 1"
    assert sop_classes(bad) == {RT_IMAGE: 1, CT_IMAGE: 1, "other": 1}
    assert study(bad) == "unknown"


def test_a_study_that_is_no_uid_is_not_repeated(trail, told):
    stored(trail, study_uid="<script>")
    (begin,) = told()
    assert study(begin) == "unknown"


def test_a_long_association_is_told_of_while_it_goes_on(trail, told, monkeypatch):
    monkeypatch.setattr(audit, "BATCH_OBJECTS", 10)
    stored(trail, times=25)
    assert [event(message) for message in told()] == [BEGIN, TRANSFERRED, BEGIN, TRANSFERRED, BEGIN]
    monkeypatch.setattr(audit, "BATCH_SECONDS", 0.0)
    (rest,) = told()
    assert sop_classes(rest) == {RT_IMAGE: 5}


def test_studies_without_number_are_told_of_before_they_fill_memory(trail, told, monkeypatch):
    monkeypatch.setattr(audit, "_MAXIMUM_BATCHES", 3)
    for number in range(5):
        stored(trail, study_uid=f"1.2.{number}")
    found = told()
    assert [study(message) for message in found if event(message) == TRANSFERRED] == ["1.2.0", "1.2.1"]
    assert len(trail._batches) == 3


def test_a_refusal_is_an_alert_that_says_who_and_why(trail, told):
    trail.refused("10.6.6.6", Refusal.NETWORK)
    (alert,) = told()
    assert event(alert) == NODE_AUTHENTICATION
    assert objects(alert)["110182"].attrib["ParticipantObjectID"] == "10.6.6.6"
    assert detail(alert) == "refused: network"
    assert alert.find("EventIdentification").attrib["EventOutcomeIndicator"] == "4"
    assert participant(alert, APPLICATION)["AlternativeUserID"] == "AETITLES=AIRFLOW;AIRFLOW2"


@pytest.mark.parametrize("reason", list(Refusal))
def test_each_reason_is_told(trail, told, reason):
    trail.refused("10.6.6.6", reason)
    found = told()
    if reason is Refusal.STOPPING:
        assert found == []
        return
    identity = {Refusal.NETWORK, Refusal.CALLED_AE_TITLE, Refusal.CALLING_AE_TITLE, Refusal.TLS}
    assert [event(message) for message in found] == [NODE_AUTHENTICATION if reason in identity else ACCESS_CONTROL]


def test_a_flood_of_refusals_is_one_alert_a_minute(trail, told, sink, monkeypatch):
    for _ in range(1000):
        trail.refused("10.6.6.6", Refusal.NETWORK)
    assert [detail(message) for message in told()] == ["refused: network"]
    assert told() == []
    monkeypatch.setattr(audit, "_ALERT_SECONDS", 0.0)
    assert [detail(message) for message in told()] == ["refused: network, 999 more times"]
    assert told() == []
    assert trail._alerts == {}


def test_a_flood_from_everywhere_is_bounded(trail, told):
    for number in range(3000):
        trail.refused(f"10.6.{number >> 8}.{number & 255}", Refusal.TLS)
    assert len(told()) == 1001
    assert len(trail._alerts) == 1001


def removed(number, study_uid=STUDY):
    return Removed(
        sop_instance_uid=f"1.9.{number}", sop_class_uid=RT_IMAGE, study_instance_uid=study_uid, size=1, age_seconds=1.0
    )


def test_what_was_swept_is_told_by_study(trail, told):
    for number in range(3):
        trail.removed(removed(number))
    trail.removed(removed(3, ""))
    first, second = told()
    assert (event(first), study(first), sop_classes(first)) == (DELETED, STUDY, {RT_IMAGE: 3})
    assert first.find("EventIdentification").attrib["EventActionCode"] == "D"
    assert study(second) == "unknown"
    assert told() == []


def test_start_and_stop_are_told_and_what_waits_comes_before_the_stop(trail, sink):
    trail.start()
    wait_until(lambda: sink.messages, what="the first message")
    stored(trail)
    trail.refused("10.6.6.6", Refusal.TLS)
    trail.stop()
    trail.stop()
    messages = sink.take()
    assert [event(message) for message in messages] == [START, BEGIN, NODE_AUTHENTICATION, TRANSFERRED, STOP]
    assert sink.closed == 1
    assert participant(messages[0], APPLICATION)["AlternativeUserID"] == "AETITLES=AIRFLOW;AIRFLOW2"


@pytest.mark.parametrize("error", [OSError(111, "Connection refused"), ConfigurationError("may be written by others")])
def test_a_sink_that_is_down_is_counted_and_gets_everything_later(trail, sink, told, monkeypatch, error, caplog):
    sink.down = error
    clock = [1000.0]
    monkeypatch.setattr(audit.time, "monotonic", lambda: clock[0])
    for _ in range(5):
        stored(trail)
        told()
    assert trail.failures == 1, "it is not tried again before its time"
    assert "1 wait: " + (getattr(error, "strerror", None) or error.explanation) in trail.trouble()
    clock[0] += 1.5
    told()
    clock[0] += 1.5
    told()
    assert trail.failures == 2
    sink.down = None
    clock[0] += 100
    trail.ended(facts(), Ending.RELEASED)
    begin, end = told()
    assert (event(begin), event(end), sop_classes(end)) == (BEGIN, TRANSFERRED, {RT_IMAGE: 5})
    assert trail.trouble() is None
    assert trail.written == 2
    assert caplog.text.count("It is tried again") == 1


def test_what_finds_no_room_is_counted_and_said(trail, sink, told, monkeypatch):
    monkeypatch.setattr(audit, "MAXIMUM_MESSAGES", 3)
    sink.down = OSError(5, "Input/output error")
    for number in range(5):
        stored(trail, study_uid=f"1.2.{number}")
    told()
    assert trail.dropped == 2
    sink.down = None
    trail._attempt_at = 0.0
    *kept, gap = told()
    assert [study(message) for message in kept] == ["1.2.0", "1.2.1", "1.2.2"]
    assert event(gap) == RECORDING_STOPPED
    assert detail(gap) == "2 events are not in the trail: there was no room for them"
    assert told() == []


def test_events_are_bounded_too(trail, monkeypatch):
    monkeypatch.setattr(audit, "MAXIMUM_EVENTS", 10)
    stored(trail, times=25)
    assert len(trail._events) == 10
    assert trail.dropped == 15


def test_messages_are_handed_over_in_bounded_batches(trail, sink, told):
    for number in range(250):
        stored(trail, study_uid=f"1.2.{number}")
    told()
    assert sink.batches == [100, 100, 50]


def test_a_sink_that_is_down_at_the_end_does_not_hold_it_up(trail, sink, caplog):
    sink.down = OSError(111, "Connection refused")
    trail.start()
    stored(trail)
    begun = time.monotonic()
    trail.stop()
    assert time.monotonic() - begun < 20
    assert "messages could not be written to the sink" in caplog.text
    assert sink.closed == 1


def test_nothing_that_an_object_causes_takes_long_or_waits_for_the_sink(trail):
    who, what = facts(), request()
    before = time.thread_time()
    for _ in range(2000):
        trail.stored(who, what, 1000, 0.1, STUDY)
    # About a microsecond on an idle machine.
    assert (time.thread_time() - before) / 2000 < 100e-6


def test_nothing_of_the_trail_is_logged(trail, sink, told, caplog):
    with caplog.at_level(logging.DEBUG):
        stored(trail)
        trail.ended(facts(), Ending.RELEASED)
        assert len(told()) == 2
    assert STUDY not in caplog.text
    assert "VMSDBD" not in caplog.text
