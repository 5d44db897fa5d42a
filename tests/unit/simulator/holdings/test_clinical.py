"""The clinical patients in the tree: what is found of them, how quickly, and that it is what is sent."""

from __future__ import annotations

import io
from datetime import date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from pydicom import dcmwrite
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from support.simulated import identifier

from airflow_provider_varian import uids
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.clinic.calendar import FIRST_CLINICAL, planning_day
from airflow_provider_varian.simulator.clinic.cases import as_of
from airflow_provider_varian.simulator.clinic.irregularities import ALL, Irregularity
from airflow_provider_varian.simulator.daemon.answers import answer
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.facts import case_facts, instance_facts
from airflow_provider_varian.simulator.holdings import case_series, synthetic
from airflow_provider_varian.simulator.holdings.synthetic import Clinic
from airflow_provider_varian.simulator.holdings.tree import Export, Search, instances_below, level_of, walk

UNTIL = date(2026, 7, 31)
SIZE = 2 * len(Irregularity)
#: Answered flat, sent in a sequence.
FLAT = ("NumberOfBeams", "CurrentFractionNumber", "TreatmentDeliveryType", "TreatmentTerminationStatus")


def found(clinic, level, **keys):
    return list(walk(clinic, Search(Level(level), identifier("", **keys))))


def whole(clinic, case):
    (patient,) = found(clinic, "PATIENT", PatientID=case.patient_id)
    return list(instances_below(patient))


def da(day):
    return day.strftime("%Y%m%d")


@pytest.fixture(scope="module")
def clinic():
    """A clinic that has each irregularity, nearly all of it treated."""
    return Clinic(seed=3, patients=SIZE + 30, days=1, until=UNTIL, matrix=40)


@pytest.fixture(scope="module")
def cases(clinic):
    return list(case_facts(clinic))


@pytest.fixture(scope="module")
def having(cases):
    """Return the first planned patient with an irregularity."""
    return lambda irregularity: next(case for case in cases if irregularity in case.irregularities)


def test_the_clinic_has_those_who_were_planned_last(clinic, cases):
    days = [planning_day(case.number) for case in cases]
    assert len(cases) == SIZE + 30
    assert max(days) == UNTIL
    assert days == sorted(days)
    listed = found(clinic, "PATIENT")
    assert [chain[0].uid for chain in listed[2:]] == [case.patient_id for case in cases]
    assert [chain[0].values()["PatientName"] for chain in listed[2:]] == [case.name for case in cases]


def test_the_first_patients_of_all_are_fewer_than_were_asked_for():
    clinic = Clinic(patients=10, until=date(1601, 1, 4))
    assert list(clinic.clinical_numbers) == [FIRST_CLINICAL + number for number in range(4)]


def test_no_clinical_patients_is_a_clinic_too():
    clinic = Clinic(patients=0, until=UNTIL)
    assert len(found(clinic, "PATIENT")) == 2
    assert clinic.sop_classes() == {uids.RT_PLAN, uids.RT_IMAGE}


def test_what_is_told_beside_the_wire_is_what_is_held(clinic, cases):
    for case in cases[::7]:
        held = {
            (study.uid, series.uid, instance.uid, instance.sop_class_uid, series.values()["Modality"])
            for _, study, series, instance in whole(clinic, case)
        }
        told = {
            (
                fact.study_instance_uid,
                fact.series_instance_uid,
                fact.sop_instance_uid,
                fact.sop_class_uid,
                fact.modality,
            )
            for fact in instance_facts(clinic, case)
        }
        assert held == told
        assert {plan.sop_instance_uid for plan in case.plans} <= {uid for _, _, uid, *_ in held}


def test_every_patient_is_found_by_id_study_series_and_instance(clinic, cases):
    for case in cases[::5]:
        chain = whole(clinic, case)[-1]
        for level, key, node in zip(
            ("STUDY", "SERIES", "IMAGE"),
            ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
            chain[1:],
            strict=True,
        ):
            (hit,) = found(clinic, level, **{key: node.uid})
            assert [each.uid for each in hit] == [each.uid for each in chain][: len(hit)]


def test_a_uid_with_a_leading_zero_is_found_answered_and_written_without_a_warning(clinic, having):
    case = having(Irregularity.LEADING_ZERO_UID)
    uid = case.plans[0].doses[0].sop_instance_uid
    keys = identifier("", Modality="RTDOSE")
    keys.add(DataElement(0x00080018, "UI", uid, validation_mode=IGNORE))
    (chain,) = walk(clinic, Search(Level.IMAGE, keys))
    row = answer(chain, keys, Behaviour(), "VMSDBD")
    assert row.SOPInstanceUID == uid
    ds = chain[-1].fetch()
    assert ds.SOPInstanceUID == uid
    written = io.BytesIO()
    dcmwrite(written, ds, implicit_vr=True, little_endian=True)
    assert uid.encode() in written.getvalue()


def test_an_id_finds_its_patient_and_no_other_that_is_like_it(clinic, having):
    for irregularity in (Irregularity.PATIENT_ID_IN_OTHER_CASE, Irregularity.PATIENT_ID_ONE_LONGER):
        case = having(irregularity)
        assert [chain[0].uid for chain in found(clinic, "PATIENT", PatientID=case.patient_id)] == [case.patient_id]
    longer = having(Irregularity.PATIENT_ID_ONE_LONGER).patient_id
    assert len(found(clinic, "PATIENT", PatientID=f"{longer[:-1]}*")) == 2


@pytest.mark.parametrize(
    ("keyword", "level"),
    [
        ("TreatmentDate", "IMAGE"), ("AcquisitionDate", "IMAGE"), ("ContentDate", "IMAGE"), ("RTPlanDate", "IMAGE"),
        ("StructureSetDate", "IMAGE"), ("ReviewDate", "IMAGE"), ("SeriesDate", "SERIES"), ("StudyDate", "STUDY"),
    ],
)  # fmt: skip
def test_nothing_that_a_date_asks_for_is_passed_over(keyword, level, monkeypatch):
    clinic = Clinic(seed=3, patients=9, days=1, until=UNTIL, matrix=40)
    ago = [da(UNTIL - timedelta(days=days)) for days in range(10)]
    ranges = [ago[1], ago[8], f"{ago[5]}-{ago[3]}", f"{ago[3]}-", f"-{ago[8]}"]
    quick = [{chain[-1].uid for chain in found(clinic, level, **{keyword: days})} for days in ranges]
    assert sum(map(bool, quick)) > 2
    monkeypatch.setattr(Search, "may_lie_below", lambda *_: True)
    monkeypatch.setattr(Search, "may_hold", lambda *_: True)
    assert quick == [{chain[-1].uid for chain in found(clinic, level, **{keyword: days})} for days in ranges]


def test_a_days_query_over_a_large_clinic_makes_up_only_who_can_have_been_there(monkeypatch):
    clinic = Clinic(seed=3, patients=1000, days=1, until=UNTIL, matrix=40)
    day = UNTIL - timedelta(days=400)
    made = []
    real = synthetic.make_case
    monkeypatch.setattr(
        synthetic, "make_case", lambda identity, number, *rest: made.append(number) or real(identity, number, *rest)
    )
    rows = found(clinic, "IMAGE", SOPClassUID=uids.RT_BEAMS_TREATMENT_RECORD, TreatmentDate=da(day))
    assert 10 < len(rows) < 50
    assert len(made) < 100
    before, after = (planning_day(number) for number in (made[0], made[-1]))
    assert before < day
    assert after < day
    made.clear()
    assert len(found(clinic, "PATIENT", PatientName="*")) == 1002
    assert made == [], "names are made without the case"


def test_the_records_of_a_day_are_those_of_the_cases(clinic, cases):
    day = UNTIL - timedelta(days=10)
    told = {
        record.sop_instance_uid
        for case in cases for plan in case.plans for record in plan.records if record.treated.date() == day
    }  # fmt: skip
    for keys in ({"Modality": "RTRECORD"}, {"SOPClassUID": uids.RT_BEAMS_TREATMENT_RECORD}, {}):
        rows = found(clinic, "IMAGE", TreatmentDate=f"{da(day)}-{da(day)}", **keys)
        assert {row[-1].uid for row in rows} == told
    assert told


def test_what_is_answered_is_what_is_sent(clinic, cases):
    seen = set()
    for case in cases:
        for patient, study, series, instance in whole(clinic, case):
            kind = (instance.sop_class_uid, series.values()["SeriesDescription"][:5], instance.export)
            if kind in seen:
                continue
            seen.add(kind)
            sent = instance.fetch()
            for node in (patient, study, series, instance):
                for keyword in node.values():
                    if level_of(keyword) is node.level and keyword not in {"PatientName", *FLAT}:
                        told = synthetic.data_set({keyword: node.values()[keyword]})
                        assert sent[keyword] == told[keyword], (keyword, node.level)
            assert (sent.SOPInstanceUID, sent.SOPClassUID) == (instance.uid, instance.sop_class_uid)
            assert sent.Modality == series.values()["Modality"]
            assert sent.PatientName in (case.name, case.former_name)
            assert all(sent[keyword].value == value for keyword, value in series.shared().items())
    assert {sop_class_uid for sop_class_uid, *_ in seen} == clinic.sop_classes()


def test_the_images_of_a_series_say_the_same_of_it_whenever_each_was_taken(clinic, cases):
    case = next(case for case in cases if case.plans[0].portal_images)
    rows = found(clinic, "IMAGE", SeriesInstanceUID=case.plans[0].portal_images[0].series_uid)
    sent = [row[-1].fetch() for row in rows]
    assert len(sent) > 1
    assert len({each.AcquisitionTime for each in sent}) == len(sent)
    assert len({(each.SeriesDate, each.SeriesTime, each.SeriesDescription) for each in sent}) == 1
    assert sent[0].SeriesTime == rows[-1][-2].values()["SeriesTime"]


def test_what_lies_in_a_sequence_is_answered_flat_and_not_sent_so(clinic, having):
    case = having(Irregularity.SPLIT_FRACTION)
    rows = found(clinic, "IMAGE", PatientID=case.patient_id, Modality="RTRECORD", CurrentFractionNumber="2")
    assert [row[-1].uid for row in rows] == [each.sop_instance_uid for each in case.plans[0].records[1:3]]
    sent = rows[0][-1].fetch()
    beam = sent.TreatmentSessionBeamSequence[0]
    for keyword in FLAT[1:]:
        assert rows[0][-1].values()[keyword] == beam[keyword].value
        assert keyword not in sent
    (row,) = found(clinic, "IMAGE", SOPInstanceUID=case.plans[0].sop_instance_uid)
    sent = row[-1].fetch()
    assert row[-1].values()["NumberOfBeams"] == len(sent.BeamSequence)
    assert "NumberOfBeams" not in sent


def test_a_search_below_a_clinical_patient_renders_nothing(clinic, cases, monkeypatch):
    def refuse(*_):
        raise AssertionError("pixels were rendered")

    for name in ("ct_pixels", "dose_pixels", "portal_pixels", "drr_pixels"):
        monkeypatch.setattr(case_series, name, refuse)
    case = next(case for case in cases if Irregularity.DRRS in case.irregularities)
    rows = found(clinic, "IMAGE", PatientID=case.patient_id, PatientPosition="HFS", InstanceNumber="")
    assert rows
    with pytest.raises(AssertionError, match="rendered"):
        next(row for row in rows if row[-1].sop_class_uid == uids.CT_IMAGE)[-1].fetch()


def test_classes_held_follow_the_irregularities(clinic):
    plain = Clinic(seed=3, patients=30, days=1, until=UNTIL, matrix=40, irregularities=frozenset())
    held = {row[-1].sop_class_uid for row in found(plain, "IMAGE")}
    assert held == plain.sop_classes()
    assert clinic.sop_classes() - held == {uids.SPATIAL_REGISTRATION, uids.VARIAN_HALCYON_RT_PLAN}


def test_how_what_cannot_be_exported_is_marked(clinic, having):
    case = having(Irregularity.PLAN_WITHOUT_BEAMS)
    marks = {chain[-1].uid: chain[-1].export for chain in whole(clinic, case)}
    bare = {plan.sop_instance_uid for plan in case.plans if not plan.beams}
    assert {uid for uid, export in marks.items() if export is Export.FAILS} == bare
    case = having(Irregularity.SERIES_NOT_MOVABLE)
    lost = {series.uid for _, _, series, _ in whole(clinic, case) if series.export is Export.NOT_FOUND}
    assert lost == case.unmovable
    assert {fact.export for fact in instance_facts(clinic, case) if fact.series_instance_uid in lost} == {
        Export.NOT_FOUND
    }


def test_a_series_without_instances_is_listed_with_all_its_attributes(clinic, having):
    case = having(Irregularity.EMPTY_SERIES)
    (empty,) = case.empty_series
    (chain,) = found(clinic, "SERIES", SeriesInstanceUID=empty.series_uid)
    values = chain[-1].values()
    assert (values["Modality"], values["SeriesDescription"]) == ("RTIMAGE", "MV")
    assert values["SeriesDate"] == da(empty.made)
    assert "Manufacturer" not in values
    assert list(instances_below(chain)) == []


def test_a_slice_that_is_missing_is_not_held_and_leaves_its_gap(clinic, having):
    case = having(Irregularity.CT_SLICE_MISSING)
    images = case.image_series[0]
    (gap,) = images.missing
    rows = found(clinic, "IMAGE", SeriesInstanceUID=images.series_uid)
    assert [row[-1].uid for row in rows] == [uid for index, uid in enumerate(images.instance_uids) if index != gap]
    heights = [float(row[-1].values()["ImagePositionPatient"][2]) for row in rows]
    steps = {round(above - below, 3) for below, above in pairwise(heights)}
    assert steps == {images.slice_mm, 2 * images.slice_mm}


def test_objects_of_the_scanners_study_bear_the_former_name(clinic, having):
    case = having(Irregularity.NAME_CHANGED)
    assert case.former_name != case.name
    names = {}
    for patient, study, _, instance in whole(clinic, case):
        names.setdefault(study.values()["StudyDescription"], set()).add(str(instance.fetch().PatientName))
        assert patient.values()["PatientName"] == case.name
    assert names == {"RT Planning CT": {case.former_name}, "ARIA RadOnc Study": {case.name}}


def test_two_courses_have_studies_of_their_own(clinic, having):
    case = having(Irregularity.SAME_LABEL_IN_TWO_COURSES)
    label = case.plans[0].label
    rows = found(clinic, "IMAGE", PatientID=case.patient_id, Modality="RTPLAN", RTPlanLabel=label)
    assert sorted(row[1].values()["StudyID"] for row in rows) == ["C1", "C2"]


def test_what_comes_later_does_not_exist_yet_and_nothing_changes_but_the_approval():
    early = Clinic(seed=3, patients=40, days=1, until=UNTIL - timedelta(days=30), matrix=40)
    late = Clinic(seed=3, patients=80, days=9, until=UNTIL, matrix=40)
    grown = 0
    for case in list(case_facts(early))[::3]:
        after = late.case(case.number)
        assert as_of(after, early.today) == case
        now, then = ({chain[-1].uid: chain[-1] for chain in whole(each, case)} for each in (early, late))
        assert now.keys() <= then.keys()
        grown += len(then) - len(now)
        last = list(now)[-1]
        assert now[last].fetch() == then[last].fetch()
    assert grown > 200


def test_the_clinic_moves_on_at_midnight_in_its_zone(monkeypatch):
    class Clock(datetime):
        moment = datetime(2026, 7, 30, 15, 59, tzinfo=ZoneInfo("UTC"))

        @classmethod
        def now(cls, tz=None):
            return cls.moment.astimezone(tz)

    monkeypatch.setattr(synthetic, "datetime", Clock)
    clinic = Clinic(seed=3, patients=30, days=1, matrix=40, timezone=ZoneInfo("Asia/Singapore"))
    before = {row[-1].uid for row in found(clinic, "IMAGE", Modality="RTRECORD")}
    assert clinic.today == date(2026, 7, 30)
    Clock.moment += timedelta(minutes=1)
    assert clinic.today == date(2026, 7, 31)
    today = {row[-1].uid for row in found(clinic, "IMAGE", Modality="RTRECORD", TreatmentDate="20260731")}
    assert today
    assert not today & before
    assert planning_day(clinic.clinical_numbers[-1]) == clinic.today
    assert len(clinic.clinical_numbers) == 30


def test_irregularities_may_be_replaced_while_it_runs():
    clinic = Clinic(seed=3, patients=SIZE, days=1, until=UNTIL, matrix=40)
    number, odd = next(
        (case.number, case.patient_id)
        for case in case_facts(clinic)
        if Irregularity.PATIENT_ID_WITH_DOLLAR in case.irregularities
    )
    assert found(clinic, "STUDY", PatientID=odd)
    clinic.irregularities = frozenset()
    assert not any(case.irregularities for case in case_facts(clinic))
    assert not found(clinic, "STUDY", PatientID=odd)
    plain = clinic.case(number).patient_id
    assert [chain[0].uid for chain in found(clinic, "PATIENT", PatientID=plain)] == [plain]
    clinic.irregularities = ALL
    assert clinic.case(number).patient_id == odd


def test_cases_are_kept_up_to_a_bound():
    clinic = Clinic(seed=3, patients=200, days=1, until=UNTIL, matrix=40)
    found(clinic, "STUDY")
    kept = clinic._case.cache_info()
    assert (kept.misses, kept.currsize) == (200, kept.maxsize)
    assert kept.maxsize < 200
