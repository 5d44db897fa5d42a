"""Quirks of the DB Daemon that a C-FIND shows (varian-daemon section 4)."""

from __future__ import annotations

from collections import Counter

import pytest
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from support.simulated import UNTIL, identifier, peer_of

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.find import iter_matches
from airflow_provider_varian.errors import PeerFailureError, RefusedByPeerError
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon

TODAY = UNTIL.strftime("%Y%m%d")


@pytest.mark.quirk(4, "relational")
def test_upper_keys_may_be_missing_unless_a_switch_says_otherwise(client, habit, plans, series):
    plan = plans["QA", "WL_10MV"]
    whole = {
        "PatientID": "QA_TB_WL",
        "StudyInstanceUID": plan.study_instance_uid,
        "SeriesInstanceUID": series,
        "SOPInstanceUID": "",
    }
    assert len(client.find("IMAGE", SeriesInstanceUID=series)) == 10
    habit(relational=False)
    with pytest.raises(RefusedByPeerError, match="0xA900"):
        client.find("IMAGE", SeriesInstanceUID=series)
    with pytest.raises(RefusedByPeerError, match="0xA900"):
        client.find("IMAGE", model=uids.PATIENT_ROOT_FIND, **(whole | {"PatientID": "QA_*"}))
    with pytest.raises(RefusedByPeerError, match="0xA900"):
        client.move("SERIES", SeriesInstanceUID=series)
    assert len(client.find("IMAGE", **(whole | {"PatientID": ""}))) == 10, "Study Root begins with the study"
    assert len(client.find("IMAGE", model=uids.PATIENT_ROOT_FIND, **whole)) == 10


@pytest.mark.quirk(4, "relational", "extended_negotiation")
def test_relational_queries_work_where_they_were_negotiated(daemon, habit, series):
    from pynetdicom import AE

    asked = SOPClassExtendedNegotiation()
    asked.sop_class_uid, asked.service_class_application_information = uids.STUDY_ROOT_FIND, b"\x01"

    def final_status():
        ae = AE(ae_title="AIRFLOW")
        ae.add_requested_context(uids.STUDY_ROOT_FIND, uids.IMPLICIT_VR_LITTLE_ENDIAN)
        assoc = ae.associate(*daemon.address, ae_title="VMSDBD", ext_neg=[asked])
        answers = assoc.send_c_find(identifier("IMAGE", SeriesInstanceUID=series), uids.STUDY_ROOT_FIND)
        statuses = [status.Status for status, _ in answers]
        assoc.release()
        return statuses[-1]

    habit(relational=False)
    assert final_status() == 0xA900
    habit(relational=False, extended_negotiation=True)
    assert final_status() == 0x0000


TOO_FEW = [
    ("IMAGE", {}),
    ("IMAGE", {"Modality": "RTIMAGE"}),
    ("IMAGE", {"SOPClassUID": uids.RT_IMAGE}),
    ("IMAGE", {"AcquisitionDate": TODAY}),
    ("IMAGE", {"PatientID": "*", "Modality": "RTPLAN"}),
    ("IMAGE", {"PatientName": "*^*", "RTPlanLabel": "WL_10MV"}),
    ("SERIES", {"PatientID": "", "Modality": "RTPLAN"}),
]
ENOUGH = [
    ("IMAGE", {"Modality": "RTIMAGE", "AcquisitionDate": TODAY}),
    ("IMAGE", {"SOPClassUID": uids.RT_IMAGE, "AcquisitionDate": f"{TODAY}-"}),
    ("IMAGE", {"PatientID": "*B_W?", "Modality": "RTPLAN"}),
    ("SERIES", {"PatientID": "QA_TB_WL"}),
    ("STUDY", {"PatientName": "*"}),
    ("STUDY", {}),
]


@pytest.mark.quirk(5, "selective_key_needed")
@pytest.mark.parametrize(("level", "keys"), TOO_FEW)
def test_too_few_keys_end_in_c001_without_a_row(client, habit, level, keys):
    with pytest.raises(PeerFailureError, match="0xC001"):
        client.find(level, **keys)
    habit(selective_key_needed=False)
    assert client.find(level, **keys)


@pytest.mark.quirk(5, "selective_key_needed")
@pytest.mark.parametrize(("level", "keys"), ENOUGH)
def test_enough_keys_list_the_clinic(client, level, keys):
    assert client.find(level, **keys)


@pytest.mark.quirk(10, "acquisition_seconds")
def test_a_series_grows_image_by_image_while_it_is_acquired(client, daemon, habit, plans, series):
    now = [1000.0]
    daemon.clock = lambda: now[0]

    def listed():
        rows = client.find("IMAGE", SeriesInstanceUID=series)
        (counted,) = client.find("SERIES", SeriesInstanceUID=series, NumberOfSeriesRelatedInstances="")
        assert counted.NumberOfSeriesRelatedInstances == len(rows)
        return len(rows)

    assert listed() == 10
    habit(acquisition_seconds=9.0)
    found = []
    for seconds in (0, 1, 4.5, 8.9, 9, 60):
        now[0] = 1000 + seconds
        found.append(listed())
    assert found == [1, 2, 5, 9, 10, 10]


@pytest.mark.quirk(10, "short_answer_probability")
@pytest.mark.quirk(None, "chance_seed")
def test_an_answer_is_short_now_and_then_by_seed_and_number(clinic, daemon, client, habit, series):
    from dataclasses import replace

    from support.simulated import Client, trusted

    def counts(asking, number=8):
        return [len(asking.find("IMAGE", SeriesInstanceUID=series)) for _ in range(number)]

    assert counts(client, 2) == [10, 10]
    behaviour = replace(daemon.behaviour, short_answer_probability=0.5)
    runs = []
    for seed in (1, 1, 2):
        again = replace(behaviour, chance_seed=seed)
        with SimulatedDaemon(clinic, trusted=[trusted()], behaviour=again) as other:
            runs.append(counts(Client(peer_of(other))))
    first, repeated, another = runs
    assert first == repeated != another
    assert 10 in first
    assert min(first) < 10
    assert min(first) >= 7, "most of it is there"


@pytest.mark.quirk(14, "late_images", "late_images_seconds")
def test_late_images_appear_in_the_series_that_was_listed(client, daemon, habit, receiver, plans, series):
    now = [1000.0]
    daemon.clock = lambda: now[0]
    wanted = [image.sop_instance_uid for image in plans["QA", "WL_10MV"].images(UNTIL)]
    habit(late_images=3, late_images_seconds=600.0)

    def listed():
        return [row.SOPInstanceUID for row in client.find("IMAGE", SeriesInstanceUID=series, SOPInstanceUID="")]

    assert listed() == wanted[:7]
    now[0] += 599
    assert listed() == wanted[:7]
    assert client.find("IMAGE", SOPInstanceUID=wanted[9]) == []
    assert client.move("SERIES", SeriesInstanceUID=series).completed == 7
    plan_series = plans["QA", "WL_10MV"].series_instance_uid
    assert len(client.find("IMAGE", SeriesInstanceUID=plan_series)) == 1, "images alone are late"
    now[0] += 1
    assert listed() == wanted
    assert client.move("IMAGE", SOPInstanceUID=wanted[9]).completed == 1


@pytest.mark.quirk(10, "acquisition_seconds")
@pytest.mark.quirk(14, "late_images", "late_images_seconds")
def test_another_switch_does_not_put_the_clock_back(client, daemon, habit, series):
    now = [1000.0]
    daemon.clock = lambda: now[0]

    def listed():
        return len(client.find("IMAGE", SeriesInstanceUID=series))

    habit(acquisition_seconds=9.0)
    assert listed() == 1
    now[0] += 5
    habit(get=True, row_limit=100)
    assert listed() == 6
    habit(acquisition_seconds=0.0, late_images=3, late_images_seconds=60.0)
    assert listed() == 7, "these are other rules, and time begins anew"
    now[0] += 59
    habit(store=False)
    assert listed() == 7
    now[0] += 1
    habit(store=True)
    assert listed() == 10
    for change in ({"late_images": 4}, {"late_images_seconds": 70.0}, {"acquisition_seconds": 1.0}):
        habit(**change)
        assert listed() < 10, change
        now[0] += 100
        assert listed() == 10


@pytest.mark.quirk(9)
def test_the_study_of_a_course_has_its_name_as_study_id(client):
    rows = client.find("STUDY", PatientID="QA_TB_WL", StudyID="", StudyDescription="")
    assert sorted(row.StudyID for row in rows) == ["QA", "QA_2025"]
    assert {row.StudyDescription for row in rows} == {"ARIA RadOnc Study"}


@pytest.mark.quirk(21)
def test_kv_and_mv_lie_in_one_series_and_ids_have_dollar_blank_and_underscore(client, series):
    rows = client.find("IMAGE", SeriesInstanceUID=series, PrimaryDosimeterUnit="")
    assert Counter(row.PrimaryDosimeterUnit for row in rows) == {"MU": 8, "MINUTE": 2}
    found = client.find("PATIENT", model=uids.PATIENT_ROOT_FIND, PatientID="$QA Halcyon2_2026")
    assert [row.PatientID for row in found] == ["$QA Halcyon2_2026"]


@pytest.mark.quirk(3, "patient_root")
def test_version_8_has_study_root_alone(daemon, client, habit):
    from airflow_provider_varian.errors import ContextRejectedError

    model = uids.PATIENT_ROOT_FIND
    assert client.find("PATIENT", model=model, PatientID="QA_TB_WL")
    habit(patient_root=False)
    with (
        pytest.raises(ContextRejectedError),
        associate(peer_of(daemon), contexts.find(model), step="C-FIND") as association,
    ):
        next(iter_matches(association, model, identifier("PATIENT", PatientID="QA_TB_WL")), None)
    assert client.find("STUDY", PatientID="QA_TB_WL")
