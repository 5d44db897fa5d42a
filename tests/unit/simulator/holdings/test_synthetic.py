from __future__ import annotations

import time
from datetime import date, datetime, timedelta
from datetime import time as clock
from zoneinfo import ZoneInfo

import pytest
from support.simulated import UNTIL, identifier

from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.clinic.linacs import LINACS
from airflow_provider_varian.simulator.facts import facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic
from airflow_provider_varian.simulator.holdings.tree import Search, walk
from airflow_provider_varian.simulator.objects import rt_image


def found(clinic, level, **keys):
    return list(walk(clinic, Search(Level(level), identifier("", **keys))))


def uids_of(chains):
    return {chain[-1].uid for chain in chains}


def test_the_fixed_facts_hold(clinic):
    told = {(fact.machine, fact.patient_id, fact.course, fact.label, len(fact.beams)) for fact in facts(clinic)}
    assert told == {
        ("TrueBeam1", "QA_TB_WL", "QA", "WL_10MV", 8),
        ("TrueBeam1", "QA_TB_WL", "QA", "PF_6MV", 1),
        ("TrueBeam1", "QA_TB_WL", "QA", "OPEN_6MV", 1),
        ("TrueBeam1", "QA_TB_WL", "QA", "T2_DRGS", 2),
        ("TrueBeam1", "QA_TB_WL", "QA", "T3_MLCS", 2),
        ("TrueBeam1", "QA_TB_WL", "QA_2025", "PF_6MV", 1),
        ("Halcyon2", "$QA Halcyon2_2026", "QA", "DailyQA_PF_6FFF", 1),
        ("Halcyon2", "$QA Halcyon2_2026", "QA", "OPEN_6FFF", 1),
        ("Halcyon2", "$QA Halcyon2_2026", "QA", "PDOSE_6FFF", 1),
    }


def test_each_day_has_its_images_between_half_past_six_and_a_quarter_past_seven(clinic, plans):
    counts = dict.fromkeys(("PF_6MV", "OPEN_6MV", "DailyQA_PF_6FFF", "OPEN_6FFF", "PDOSE_6FFF"), (1, 0))
    counts["WL_10MV"] = (8, 2)
    for (course, label), plan in plans.items():
        if course != "QA" or label in ("T2_DRGS", "T3_MLCS"):
            continue
        assert plan.days == (UNTIL - timedelta(2), UNTIL - timedelta(1), UNTIL)
        for day in plan.days:
            images = plan.images(day)
            assert (sum(not image.kv for image in images), sum(image.kv for image in images)) == counts[label]
            assert all(image.acquired.date() == day for image in images)
            assert all(clock(6, 30) <= image.acquired.time() <= clock(7, 15) for image in images)
            assert [image.acquired for image in images] == sorted(image.acquired for image in images)


def test_what_is_told_beside_the_wire_is_what_is_held(clinic, plans):
    for plan in plans.values():
        rows = found(clinic, "IMAGE", StudyInstanceUID=plan.study_instance_uid, SOPInstanceUID=plan.sop_instance_uid)
        assert [row[-1].values()["RTPlanLabel"] for row in rows] == [plan.label]
        assert [row[-2].uid for row in rows] == [plan.series_instance_uid]
        for day in plan.days:
            rows = found(clinic, "IMAGE", SeriesInstanceUID=plan.image_series_uid(day))
            assert [row[-1].uid for row in rows] == [image.sop_instance_uid for image in plan.images(day)]


def test_megavoltage_and_kilovoltage_images_of_a_session_share_one_series(clinic, plans):
    rows = found(clinic, "IMAGE", SeriesInstanceUID=plans["QA", "WL_10MV"].image_series_uid(UNTIL))
    units = [row[-1].values()["PrimaryDosimeterUnit"] for row in rows]
    assert units == ["MU"] * 8 + ["MINUTE"] * 2


def test_one_plan_has_acquired_portal_dose_and_the_others_portal_images(clinic, plans):
    for (_, label), plan in plans.items():
        for day in plan.days:
            rows = found(clinic, "IMAGE", SeriesInstanceUID=plan.image_series_uid(day))
            kinds = {tuple(row[-1].values()["ImageType"][3:]) for row in rows}
            assert kinds == {("ACQUIRED_DOSE",) if label == "PDOSE_6FFF" else ()}


def test_a_label_stands_in_two_courses_of_one_patient(clinic):
    rows = found(clinic, "IMAGE", PatientID="QA_TB_WL", Modality="RTPLAN", RTPlanLabel="PF_6MV")
    assert {row[1].values()["StudyID"] for row in rows} == {"QA", "QA_2025"}
    assert len(uids_of(rows)) == 2


def test_objects_do_not_depend_on_what_was_asked_first_or_on_the_window():
    one = Clinic(seed=4, patients=3, days=3, until=UNTIL, matrix=32)
    two = Clinic(seed=4, patients=9, days=20, until=UNTIL + timedelta(5), matrix=32)
    found(two, "IMAGE", Modality="RTPLAN")
    day = UNTIL.strftime("%Y%m%d")
    first, second = (
        {chain[-1].uid: chain[-1] for chain in found(clinic, "IMAGE", AcquisitionDate=day)} for clinic in (one, two)
    )
    assert first
    assert first.keys() <= second.keys(), "the larger clinic has more patients who had images that day"
    for uid, instance in first.items():
        assert instance.fetch() == second[uid].fetch()


def test_another_seed_gives_other_objects(clinic):
    other = Clinic(seed=2, patients=5, days=3, until=UNTIL, matrix=64)
    assert not uids_of(found(clinic, "IMAGE")) & uids_of(found(other, "IMAGE"))


def test_clinical_patients_have_names_that_bite_and_ids_of_their_own():
    clinic = Clinic(patients=300, days=1, until=UNTIL)
    values = [chain[0].values() for chain in found(clinic, "PATIENT")]
    assert len({each["PatientID"] for each in values}) == 302
    names = " ".join(each["PatientName"] for each in values)
    assert "ü" in names
    assert "山" in names


def test_a_large_clinic_starts_at_once_and_finds_by_id_and_uid():
    start = time.thread_time()  # of this thread: what else the machine does is not counted
    clinic = Clinic(patients=10_000, days=30, until=UNTIL)
    assert time.thread_time() - start < 0.5
    last = found(clinic, "PATIENT")[-1][0]
    study = found(clinic, "STUDY", PatientID=last.uid)[0][-1]
    made = []
    clinic._clinical_patient = lambda number, make=clinic._clinical_patient: made.append(number) or make(number)
    assert found(clinic, "STUDY", StudyInstanceUID=study.uid)[0][0].uid == last.uid
    assert found(clinic, "PATIENT", PatientID=last.uid)[0][0].uid == last.uid
    assert made == [clinic.clinical_numbers[-1]] * 2, "only the patient that was asked for is made up"


def test_a_search_renders_no_pixels(clinic, plans, monkeypatch):
    def refuse(*_):
        raise AssertionError("pixels were rendered")

    monkeypatch.setattr(rt_image, "pixel_data", refuse)
    keys = {"Modality": "RTIMAGE", "AcquisitionDate": "20261119-20261120", "PrimaryDosimeterUnit": "MU"}
    rows = [row for linac in LINACS for row in found(clinic, "IMAGE", PatientID=linac.patient_id, **keys)]
    days = (UNTIL - timedelta(1), UNTIL)
    assert len(rows) == sum(not image.kv for plan in plans.values() for day in days for image in plan.images(day)) > 20
    with pytest.raises(AssertionError, match="rendered"):
        rows[0][-1].fetch()


def test_only_the_sessions_of_the_day_asked_for_are_looked_into(clinic, monkeypatch):
    looked = []
    real = rt_image.image_values
    monkeypatch.setattr(rt_image, "image_values", lambda made, *rest: looked.append(made.day) or real(made, *rest))
    found(clinic, "IMAGE", Modality="RTIMAGE", AcquisitionDate=UNTIL.strftime("%Y%m%d"))
    assert set(looked) == {UNTIL}


def test_the_window_ends_today_in_the_clinics_zone():
    clinic = Clinic(days=2, timezone=ZoneInfo("Pacific/Kiritimati"))
    before = datetime.now(ZoneInfo("Pacific/Kiritimati")).date()
    last = clinic.days[-1]
    after = datetime.now(ZoneInfo("Pacific/Kiritimati")).date()
    assert before <= last <= after
    assert clinic.days[0] == last - timedelta(1)


def test_sessions_of_an_old_course_are_not_in_the_future():
    clinic = Clinic(days=3, until=date(2025, 11, 10))
    old = next(fact for fact in facts(clinic) if fact.course == "QA_2025")
    assert old.days == (date(2025, 11, 3),)
