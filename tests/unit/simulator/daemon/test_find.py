from __future__ import annotations

import threading
import weakref
from datetime import date

import pytest
from pydicom import Dataset
from support.ports import wait_until
from support.simulated import UNTIL, Client, as_latin_1, identifier, peer_of, trusted

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.find import iter_matches
from airflow_provider_varian.errors import PeerFailureError, RefusedByPeerError
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.daemon import find_service
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.holdings.tree import Node

TODAY = UNTIL.strftime("%Y%m%d")


@pytest.mark.parametrize("model", [uids.STUDY_ROOT_FIND, uids.PATIENT_ROOT_FIND])
@pytest.mark.parametrize(("level", "what"), [("STUDY", "studies"), ("SERIES", "series"), ("IMAGE", "instances")])
def test_both_models_answer_at_their_levels(client, machine_qa, model, level, what):
    assert len(client.find(level, model=model, PatientID="QA_TB_WL")) == getattr(machine_qa(), what) > 1


def test_the_patient_level_is_patient_roots_alone(client):
    rows = client.find("PATIENT", model=uids.PATIENT_ROOT_FIND, PatientID="", PatientName="")
    assert {"QA_TB_WL", "$QA Halcyon2_2026"} < {row.PatientID for row in rows}
    with pytest.raises(RefusedByPeerError, match="0xA900"):
        client.find("PATIENT", model=uids.STUDY_ROOT_FIND, PatientID="QA_TB_WL")


@pytest.mark.parametrize("level", ["", "VOLUME"])
def test_a_level_that_is_none_is_refused(client, level):
    with pytest.raises(RefusedByPeerError, match="0xA900"):
        client.find(level, PatientID="QA_TB_WL")


def test_queries_are_relational_without_being_asked(client, plans):
    plan = plans["QA", "WL_10MV"]
    by_series = client.find("IMAGE", SeriesInstanceUID=plan.image_series_uid(UNTIL), SOPInstanceUID="")
    assert [row.SOPInstanceUID for row in by_series] == [image.sop_instance_uid for image in plan.images(UNTIL)]
    series = client.find("SERIES", PatientID="QA_TB_WL", Modality="RTPLAN", SeriesInstanceUID="")
    assert plan.series_instance_uid in {row.SeriesInstanceUID for row in series}


def test_a_day_of_the_whole_clinic_is_listed_without_any_patient(client, machine_qa):
    rows = client.find("IMAGE", SOPClassUID=uids.RT_IMAGE, AcquisitionDate=f"{TODAY}-{TODAY}", PatientID="")
    for patient_id in ("QA_TB_WL", "$QA Halcyon2_2026"):
        found = [row for row in rows if row.PatientID == patient_id]
        assert len(found) == machine_qa(patient_id).images_on(UNTIL) > 0


def test_dates_are_matched_as_day_range_and_open_range(client, machine_qa):
    def count(asked):
        return len(client.find("IMAGE", PatientID="QA_TB_WL", Modality="RTIMAGE", AcquisitionDate=asked))

    before, today = (machine_qa().images_on(date(2026, 11, day)) for day in (19, 20))
    found = (count("20261119"), count("20261119-20261120"), count("20261120-"), count("20261121-"))
    assert found == (before, before + today, today, 0)


def test_only_what_is_asked_for_is_answered_filled_or_empty(client, plans):
    plan = plans["QA", "WL_10MV"]
    (row,) = client.find(
        "IMAGE", SOPInstanceUID=plan.sop_instance_uid, RTPlanLabel="", StudyID="", StudyDescription="",
        AcquisitionDate="", ApprovalStatus="", InstanceNumber="",
    )  # fmt: skip
    assert (row.RTPlanLabel, row.StudyID, row.StudyDescription) == ("WL_10MV", "QA", "ARIA RadOnc Study")
    assert row.ApprovalStatus == "APPROVED"
    assert row.AcquisitionDate == ""
    assert "PatientID" not in row
    assert row.QueryRetrieveLevel == "IMAGE"
    assert row.SpecificCharacterSet == "ISO_IR 192"


def test_the_plan_reference_is_answered_in_the_sequence_and_flat(client, plans):
    plan = plans["QA", "WL_10MV"]
    series = plan.image_series_uid(UNTIL)
    item = Dataset()
    item.ReferencedSOPInstanceUID = ""
    for asked in ([], [item]):
        rows = client.find("IMAGE", SeriesInstanceUID=series, ReferencedRTPlanSequence=asked)
        assert {row.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID for row in rows} == {plan.sop_instance_uid}
    assert list(rows[0].ReferencedRTPlanSequence[0].keys()) == [0x00081155]
    rows = client.find("IMAGE", SeriesInstanceUID=series, ReferencedSOPInstanceUID="", PrimaryDosimeterUnit="")
    assert {row.ReferencedSOPInstanceUID for row in rows} == {plan.sop_instance_uid}
    assert [row.PrimaryDosimeterUnit for row in rows] == ["MU"] * 8 + ["MINUTE"] * 2


def test_a_plan_without_that_sequence_answers_it_empty(client, plans):
    (row,) = client.find("IMAGE", SOPInstanceUID=plans["QA", "WL_10MV"].sop_instance_uid, ReferencedRTPlanSequence=[])
    assert len(row.ReferencedRTPlanSequence) == 0


def test_lists_of_uids_are_matched(client, plans):
    wanted = [image.sop_instance_uid for image in plans["QA", "WL_10MV"].images(UNTIL)][:3]
    assert len(client.find("IMAGE", SOPInstanceUID=wanted)) == 3


def test_a_uid_that_is_nowhere_gives_no_row_and_success(client):
    assert client.find("STUDY", StudyInstanceUID="1.2.3.4") == []


def test_keys_below_the_level_are_ignored_and_come_back_empty(client):
    (row, _) = client.find("STUDY", PatientID="QA_TB_WL", AcquisitionDate="19000101")
    assert row.AcquisitionDate == ""


def test_names_match_in_any_script(client, daemon):
    rows = client.find("STUDY", PatientName="*", PatientID="")
    name = next(str(row.PatientName) for row in rows if not str(row.PatientName).isascii())
    assert name in {str(row.PatientName) for row in client.find("STUDY", PatientName=name)}


@pytest.mark.quirk(7, "plan_label_key_length")
def test_a_plan_label_key_over_twelve_characters_never_matches(client, habit):
    patient = {"PatientID": "$QA Halcyon2_2026", "Modality": "RTPLAN"}
    assert len("DailyQA_PF_6FFF") > 12
    assert client.find("IMAGE", RTPlanLabel="DailyQA_PF_6FFF", **patient) == []
    assert {row.RTPlanLabel for row in client.find("IMAGE", RTPlanLabel="", **patient)} == {
        "DailyQA_PF_6FFF",
        "OPEN_6FFF",
        "PDOSE_6FFF",
    }
    assert len(client.find("IMAGE", RTPlanLabel="OPEN_6FFF", **patient)) == 1
    habit(plan_label_key_length=0)
    assert len(client.find("IMAGE", RTPlanLabel="DailyQA_PF_6FFF", **patient)) == 1


@pytest.mark.quirk(6, "unmatchable_patient_ids")
def test_listed_ids_fail_exactly_and_are_found_by_pattern(client, habit):
    assert len(client.find("STUDY", PatientID="$QA Halcyon2_2026")) == 1
    habit(unmatchable_patient_ids=("$QA Halcyon2_2026",))
    assert client.find("STUDY", PatientID="$QA Halcyon2_2026") == []
    (row,) = client.find("STUDY", PatientID="*QA Halcyon2_2026")
    assert row.PatientID == "$QA Halcyon2_2026"


@pytest.mark.quirk(9, "series_date_empty")
def test_series_date_is_empty_at_series_level_only(client, habit, plans):
    series = plans["QA", "WL_10MV"].image_series_uid(UNTIL)

    def dates(level):
        return {row.SeriesDate for row in client.find(level, SeriesInstanceUID=series, SeriesDate="")}

    assert (dates("SERIES"), dates("IMAGE")) == ({""}, {TODAY})
    habit(series_date_empty=False)
    assert dates("SERIES") == {TODAY}


@pytest.mark.quirk(16, "creation_at_export")
def test_the_time_of_an_export_is_not_known_before_it(client, habit, plans):
    uid = plans["QA", "WL_10MV"].images(UNTIL)[0].sop_instance_uid
    assert client.find("IMAGE", SOPInstanceUID=uid, InstanceCreationDate="")[0].InstanceCreationDate == ""
    habit(creation_at_export=False)
    assert client.find("IMAGE", SOPInstanceUID=uid, InstanceCreationDate="")[0].InstanceCreationDate == TODAY


@pytest.mark.quirk(5, "row_limit")
def test_too_many_rows_end_in_c001_without_any(client, habit, machine_qa):
    count = machine_qa().instances
    habit(row_limit=count - 1)
    with pytest.raises(PeerFailureError, match="0xC001"):
        client.find("IMAGE", PatientID="QA_TB_WL")
    habit(row_limit=count)
    assert len(client.find("IMAGE", PatientID="QA_TB_WL")) == count
    habit(row_limit=0)
    assert len(client.find("IMAGE", PatientID="QA_TB_WL")) == count


@pytest.mark.quirk(23)
def test_the_character_set_is_the_clients(client, daemon):
    names = {str(row.PatientName) for row in client.find("STUDY", PatientName="")}
    umlaut = next(name for name in names if "ü" in name)
    daemon.trust([trusted(character_set="ISO_IR 100")])
    rows = client.find("STUDY", PatientName="")
    assert {row.SpecificCharacterSet for row in rows} == {"ISO_IR 100"}
    assert as_latin_1(umlaut) in {str(row.PatientName) for row in rows}
    daemon.trust([trusted(character_set="")])
    assert all("SpecificCharacterSet" not in row for row in client.find("STUDY", PatientName=""))


@pytest.mark.quirk(None, "related_counts")
def test_related_counts_are_filled_or_left_empty(client, habit, machine_qa):
    keys = {"PatientID": "QA_TB_WL", "ModalitiesInStudy": "", "NumberOfStudyRelatedInstances": ""}
    row = max(client.find("STUDY", **keys), key=lambda row: row.NumberOfStudyRelatedInstances)
    assert sorted(row.ModalitiesInStudy) == ["RTIMAGE", "RTPLAN"]
    assert row.NumberOfStudyRelatedInstances == machine_qa().course("QA").instances
    habit(related_counts=False)
    assert {row.NumberOfStudyRelatedInstances for row in client.find("STUDY", **keys)} == {None}


def test_a_cancelled_query_ends_with_fe00(daemon, client, monkeypatch):
    proceed, started = threading.Event(), threading.Event()
    real = find_service.answer

    def slow(*arguments):
        started.set()
        assert proceed.wait(10)
        return real(*arguments)

    monkeypatch.setattr(find_service, "answer", slow)
    seen = []
    respond = find_service.Exchange.respond
    monkeypatch.setattr(
        find_service.Exchange,
        "respond",
        lambda self, status, **rest: seen.append(status) or respond(self, status, **rest),
    )
    others = set(threading.enumerate())  # what another test was cancelled by may lie in a thread that is ending yet
    with associate(peer_of(daemon), contexts.find(uids.STUDY_ROOT_FIND), step="C-FIND") as association:
        rows = iter_matches(association, uids.STUDY_ROOT_FIND, identifier("IMAGE", PatientID="QA_TB_WL"))
        asker = threading.Thread(target=lambda: next(rows, None))
        asker.start()
        assert started.wait(10)
        association.cancel_request()
        (exchange,) = [each for each in set(threading.enumerate()) - others if "AcceptorThread" in each.name]
        wait_until(lambda: exchange.dimse.cancel_req, what="the C-CANCEL to arrive")
        proceed.set()
        asker.join(10)
        rows.close()
    assert seen[-1] == 0xFE00
    assert len(seen) == 2, "one row was under way, none after it"


def test_many_clients_at_once_get_whole_answers(daemon, machine_qa):
    results, errors = [], []

    def ask():
        try:
            results.append(len(Client(peer_of(daemon)).find("IMAGE", PatientID="QA_TB_WL", SOPInstanceUID="")))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert results == [machine_qa().instances] * 8
    assert daemon.counts["C-FIND"] == 8


def test_file_meta_information_is_no_key(client, plans):
    """Orthanc asks for it beside SOP class and instance."""
    plan = plans["QA", "WL_10MV"]
    keys = identifier("IMAGE", SOPInstanceUID=plan.sop_instance_uid, MediaStorageSOPInstanceUID=plan.sop_instance_uid)
    assert [row.SOPInstanceUID for row in client.find_with(keys)] == [plan.sop_instance_uid]


def test_a_request_that_goes_wrong_is_answered_and_logged_without_values(client, daemon, monkeypatch, simulator_log):
    name = "Müller^Jürgen"

    def fail(*_):
        raise RuntimeError(name)

    monkeypatch.setattr(daemon.holdings, "patients", fail)
    with pytest.raises(PeerFailureError, match="0xC000"):
        client.find("STUDY", PatientID="QA_TB_WL")
    assert "C-FIND could not be served: RuntimeError" in simulator_log.text
    assert "find_service.py" in simulator_log.text
    assert name not in simulator_log.text
    monkeypatch.undo()
    assert len(client.find("STUDY", PatientID="QA_TB_WL")) == 2


def test_the_log_names_keys_and_counts_but_no_identifier(client, simulator_log, machine_qa):
    client.find("IMAGE", PatientID="QA_TB_WL", PatientName="Müller*", Modality="RTPLAN")
    client.find("IMAGE", PatientID="QA_TB_WL", Modality="RTPLAN")
    with pytest.raises(RefusedByPeerError):
        client.find("STUDY", StudyDate="QA_TB_WL"[:8])
    text = simulator_log.text
    assert f"C-FIND IMAGE keys=PatientID,Modality matches={machine_qa().plans} status=0x0000" in text
    assert "QA_TB_WL" not in text
    assert "ller" not in text


class Crowd:
    """Holdings of many patients, who know how many of them were there at once at most."""

    def __init__(self, number):
        self.number = number
        self.alive = weakref.WeakSet()
        self.most_alive = self.made = 0

    def sop_classes(self):
        return frozenset()

    def patients(self, _):
        for number in range(self.number):
            patient = Person(f"P{number:04}")
            self.alive.add(patient)
            self.made += 1
            self.most_alive = max(self.most_alive, len(self.alive))
            yield Node(level=Level.PATIENT, uid=patient.patient_id, values=patient.values)


class Person:
    def __init__(self, patient_id):
        self.patient_id = patient_id

    def values(self):
        return {"PatientID": self.patient_id}


@pytest.mark.quirk(5, "row_limit")
@pytest.mark.parametrize(
    ("number", "limit", "made"), [(900, 450, 451), (450, 450, 900), (450, 0, 900), (199, 450, 199), (199, 100, 199)]
)
def test_matches_are_counted_without_being_kept(number, limit, made):
    crowd = Crowd(number)
    with SimulatedDaemon(crowd, trusted=[trusted()], behaviour=Behaviour(row_limit=limit)) as daemon:
        client = Client(peer_of(daemon))
        if 0 < limit < number:
            with pytest.raises(PeerFailureError, match="0xC001"):
                client.find("PATIENT", model=uids.PATIENT_ROOT_FIND, PatientID="P*")
        else:
            rows = client.find("PATIENT", model=uids.PATIENT_ROOT_FIND, PatientID="P*")
            assert [row.PatientID for row in rows] == [f"P{each:04}" for each in range(number)]
    assert crowd.made == made
    assert crowd.most_alive <= 210, "some are kept, not all"
