"""The queries and retrieves that real systems put to ARIA (varian-daemon 3), put to the simulator by DCMTK.

What is right is taken from the clinic's facts, not from its search.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import date

import pytest
from pydicom import Dataset, dcmread
from support import dcmtk
from support.ports import free_port
from support.simulated import UNTIL, trusted

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.facts import case_facts, facts, instance_facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

pytestmark = pytest.mark.peers

PLAN_OF = "(300c,0002)[0].(0008,1155)"
STUDY_ROOT, PATIENT_ROOT = "-S", "-P"


@dataclass(frozen=True, kw_only=True)
class Held:
    """One instance that the clinic holds."""

    patient: str
    study: str
    course: str
    series: str
    uid: str
    sop_class: str
    modality: str
    day: date | None = None
    plan: str = ""
    label: str = ""
    beam: int | None = None


@pytest.fixture(scope="module")
def clinic() -> Clinic:
    return Clinic(seed=1, patients=8, days=2, until=UNTIL, matrix=64)


@pytest.fixture(scope="module")
def held(clinic) -> list[Held]:
    """All that the clinic holds, told by its facts."""
    found = []
    for plan in facts(clinic):
        place = {"patient": plan.patient_id, "study": plan.study_instance_uid, "course": plan.course}
        found.append(Held(**place, series=plan.series_instance_uid, uid=plan.sop_instance_uid, sop_class=uids.RT_PLAN,
                          modality="RTPLAN", label=plan.label))  # fmt: skip
        for day in plan.days:
            series = plan.image_series_uid(day)
            found += [
                Held(**place, series=series, uid=image.sop_instance_uid, sop_class=uids.RT_IMAGE, modality="RTIMAGE",
                     day=image.acquired.date(), plan=plan.sop_instance_uid, beam=image.beam)
                for image in plan.images(day)
            ]  # fmt: skip
    for case in case_facts(clinic):
        courses = {
            each.study.uid: each.study.study_id for each in (*case.image_series, *case.structure_sets, *case.plans)
        }
        courses |= {dose.study.uid: dose.study.study_id for plan in case.plans for dose in plan.doses}
        known = {uid: {"day": images.acquired.date()} for images in case.image_series for uid in images.instance_uids}
        for plan in case.plans:
            known[plan.sop_instance_uid] = {"label": plan.label}
            known |= {beam.drr_uid: {"day": plan.planned.date()} for beam in plan.beams}
            own = {"plan": plan.sop_instance_uid}
            known |= {each.sop_instance_uid: own | {"day": each.treated.date()} for each in plan.records}
            known |= {each.sop_instance_uid: own | {"beam": each.beam} for each in plan.doses}
            known |= {each.sop_instance_uid: own | {"day": each.acquired.date()} for each in plan.portal_images}
        known |= {each.sop_instance_uid: {"day": each.acquired.date()} for each in case.strays}
        found += [
            Held(patient=case.patient_id, study=each.study_instance_uid, course=courses[each.study_instance_uid],
                 series=each.series_instance_uid, uid=each.sop_instance_uid, sop_class=each.sop_class_uid,
                 modality=each.modality, **known.get(each.sop_instance_uid, {}))
            for each in instance_facts(clinic, case)
        ]  # fmt: skip
    return found


@pytest.fixture(scope="module")
def whole(held) -> Held:
    """The plan of a patient who has what the table asks for: records, images, doses of plan and beams."""
    for plan in held:
        doses = {each.beam is None for each in held if each.modality == "RTDOSE" and each.plan == plan.uid}
        others = {each.modality for each in held if each.plan == plan.uid}
        if plan.modality == "RTPLAN" and doses == {True, False} and {"RTRECORD", "RTIMAGE"} <= others:
            return plan
    raise AssertionError("no such patient")


@pytest.fixture(scope="module")
def daemon(clinic, program, tmp_path_factory):
    for name in ("storescp", "findscu", "movescu", "getscu", "storescu"):
        program(name)
    port, root = free_port(), tmp_path_factory.mktemp("receiver")
    with (
        dcmtk.storescp(root, ae_title="AIRFLOW", port=port) as (folder, _),
        SimulatedDaemon(clinic, trusted=[trusted(port)], behaviour=Behaviour(get=True)) as running,
    ):
        running.received = folder
        yield running


@pytest.fixture
def call(daemon):
    def run(tool: str, *arguments: str):
        result = dcmtk.run(tool, "-aet", "AIRFLOW", "-aec", "VMSDBD", *arguments, *map(str, daemon.address))
        # findscu says 0 even when it could not ask.
        assert result.returncode == 0, result.stderr
        assert not re.search("^[EF]: ", result.stderr, re.MULTILINE), result.stderr
        return result.stderr

    return run


@pytest.fixture
def find(call, tmp_path):
    def run(model: str, level: str, keys: dict[str, str]) -> list[Dataset]:
        for path in tmp_path.glob("rsp*.dcm"):
            path.unlink()
        call("findscu", model, "-X", "-od", str(tmp_path), *options(level, keys))
        return [dcmread(path, force=True) for path in sorted(tmp_path.glob("rsp*.dcm"))]

    return run


@pytest.fixture
def move(call, daemon):
    def run(model: str, level: str, keys: dict[str, str]) -> set[str]:
        for path in daemon.received.iterdir():
            path.unlink()
        call("movescu", model, "-aem", "AIRFLOW", *options(level, keys))
        return names(daemon.received)

    return run


def options(level: str, keys: dict[str, str]) -> list[str]:
    result = ["-k", f"QueryRetrieveLevel={level}"]
    for key, value in keys.items():
        result += ["-k", f"{key}={value}"]
    return result


def names(folder) -> set[str]:
    """Return the UIDs in the names of DCMTK's files: ``RI.1.2.3.dcm`` of storescp, ``1.2.3`` of getscu."""
    files = [re.sub(r"^[A-Za-z]+\.|\.dcm$", "", path.name) for path in folder.iterdir()]
    assert len(files) == len(set(files))
    return set(files)


def dicom(day: date) -> str:
    return day.strftime("%Y%m%d")


#: A row of the table in varian-daemon 3: its goal, model and level; keys, and whether an instance is meant by them,
#: both of the plan that everything is asked about.
QUERIES = {
    "patients by pattern": (
        PATIENT_ROOT, "PATIENT", "patient",
        lambda p: {"PatientID": f"{p.patient[:-2]}*", "PatientName": "", "(0010,1000)": ""},
        lambda p, each: each.patient.startswith(p.patient[:-2]),
    ),
    "studies of a patient": (
        STUDY_ROOT, "STUDY", "study",
        lambda p: {"PatientID": p.patient, "StudyID": "", "StudyDate": "", "ModalitiesInStudy": ""},
        lambda p, each: each.patient == p.patient,
    ),
    "studies of a patient, by Patient Root": (
        PATIENT_ROOT, "STUDY", "study",
        lambda p: {"PatientID": p.patient},
        lambda p, each: each.patient == p.patient,
    ),
    "series of a study": (
        STUDY_ROOT, "SERIES", "series",
        lambda p: {"StudyInstanceUID": p.study, "Modality": "RTIMAGE", "NumberOfSeriesRelatedInstances": ""},
        lambda p, each: each.study == p.study and each.modality == "RTIMAGE",
    ),
    "series of a patient, no study": (
        STUDY_ROOT, "SERIES", "series",
        lambda p: {"PatientID": p.patient, "Modality": "CT"},
        lambda p, each: each.patient == p.patient and each.modality == "CT",
    ),
    "series of a course": (
        STUDY_ROOT, "SERIES", "series",
        lambda p: {"PatientID": p.patient, "StudyID": p.course, "Modality": "RTDOSE"},
        lambda p, each: (each.patient, each.course, each.modality) == (p.patient, p.course, "RTDOSE"),
    ),
    "series requested keys tried": (
        STUDY_ROOT, "SERIES", "series",
        lambda p: {"PatientID": p.patient} | dict.fromkeys(
            ["SOPClassUID", "Manufacturer", "StationName", "ManufacturerModelName", "DeviceSerialNumber",
             "FrameOfReferenceUID", "OperatorsName", "SoftwareVersions"], ""),
        lambda p, each: each.patient == p.patient,
    ),
    "instances of a series": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"SeriesInstanceUID": p.series, "SOPClassUID": "", "InstanceNumber": "", "ContentDate": ""},
        lambda p, each: each.series == p.series,
    ),
    "a plan by label": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"PatientID": p.patient, "Modality": "RTPLAN", "RTPlanLabel": p.label, "StudyInstanceUID": ""},
        lambda p, each: (each.patient, each.label) == (p.patient, p.label),
    ),
    "all plans of a patient": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"PatientID": p.patient, "SOPClassUID": uids.RT_PLAN, "RTPlanLabel": "", "PlanIntent": ""},
        lambda p, each: (each.patient, each.sop_class) == (p.patient, uids.RT_PLAN),
    ),
    "all plans of a patient, by Patient Root": (
        PATIENT_ROOT, "IMAGE", "uid",
        lambda p: {"PatientID": p.patient, "SOPClassUID": uids.RT_PLAN, "ApprovalStatus": ""},
        lambda p, each: (each.patient, each.sop_class) == (p.patient, uids.RT_PLAN),
    ),
    "plan details": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"SeriesInstanceUID": p.series, "RTPlanLabel": "", "RTPlanDate": "", "NumberOfBeams": ""},
        lambda p, each: each.uid == p.uid,
    ),
    "RT images since a date": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"PatientID": p.patient, "StudyID": p.course, "Modality": "RTIMAGE",
                   "ContentDate": f"{dicom(UNTIL)}-"},
        lambda p, each: (each.patient, each.course, each.modality) == (p.patient, p.course, "RTIMAGE")
        and each.day >= UNTIL,
    ),
    "all RT images of a day, whole clinic": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"SOPClassUID": uids.RT_IMAGE, "AcquisitionDate": f"{dicom(UNTIL)}-{dicom(UNTIL)}", "PatientID": "",
                   "ReferencedSOPInstanceUID": ""},
        lambda p, each: (each.sop_class, each.day) == (uids.RT_IMAGE, UNTIL),
    ),
    "all CT of a day": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"SOPClassUID": uids.CT_IMAGE, "AcquisitionDate": f"{dicom(UNTIL)}-{dicom(UNTIL)}"},
        lambda p, each: (each.sop_class, each.day) == (uids.CT_IMAGE, UNTIL),
    ),
    "patients treated on a day": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"SOPClassUID": uids.RT_BEAMS_TREATMENT_RECORD, "TreatmentDate": dicom(UNTIL), "TreatmentTime": "",
                   "CurrentFractionNumber": ""},
        lambda p, each: (each.modality, each.day) == ("RTRECORD", UNTIL),
    ),
    "patients treated on days, by modality": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"Modality": "RTRECORD", "TreatmentDate": f"20261101-{dicom(UNTIL)}"},
        lambda p, each: each.modality == "RTRECORD",
    ),
    "doses of a plan": (
        PATIENT_ROOT, "IMAGE", "uid",
        lambda p: {"PatientID": p.patient, "StudyInstanceUID": p.study, "SOPClassUID": uids.RT_DOSE,
                   "DoseSummationType": "PLAN"},
        lambda p, each: (each.study, each.modality, each.beam) == (p.study, "RTDOSE", None),
    ),
    "doses of a plan's beams": (
        PATIENT_ROOT, "IMAGE", "uid",
        lambda p: {"PatientID": p.patient, "StudyInstanceUID": p.study, "SOPClassUID": uids.RT_DOSE,
                   "DoseSummationType": "BEAM"},
        lambda p, each: each.study == p.study and each.modality == "RTDOSE" and each.beam is not None,
    ),
}  # fmt: skip
UNIQUE = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID", "uid": "SOPInstanceUID"}


@pytest.mark.parametrize("goal", QUERIES)
def test_findscu_gets_the_very_set(find, held, whole, goal):
    model, level, unique, keys, means = QUERIES[goal]
    asked = keys(whole)
    rows = find(model, level, {UNIQUE[unique]: ""} | asked)
    answered = [str(row[UNIQUE[unique]].value) for row in rows]
    assert len(answered) == len(set(answered))
    assert set(answered) == {getattr(each, unique) for each in held if means(whole, each)} != set()
    # What was asked for is in each answer, be it empty.
    assert all(key in row for row in rows for key in asked if "(" not in key)


def test_studies_are_found_by_the_patients_name(find, held, clinic):
    case = next(case for case in case_facts(clinic) if not case.name.isascii())
    keys = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": case.name, "StudyInstanceUID": ""}
    rows = find(STUDY_ROOT, "STUDY", keys)
    assert {row.StudyInstanceUID for row in rows} == {each.study for each in held if each.patient == case.patient_id}


def test_a_label_of_more_than_twelve_characters_finds_nothing_but_the_plan_is_in_the_list(find, held):
    long = next(each for each in held if len(each.label) > 12)
    keys = {"PatientID": long.patient, "Modality": "RTPLAN", "SOPInstanceUID": ""}
    assert find(STUDY_ROOT, "IMAGE", keys | {"RTPlanLabel": long.label}) == []
    assert long.label in {row.RTPlanLabel for row in find(STUDY_ROOT, "IMAGE", keys | {"RTPlanLabel": ""})}


def test_rt_images_of_a_plan_are_found_by_series_then_image(find, held, whole):
    images = [each for each in held if each.modality == "RTIMAGE" and each.plan == whole.uid]
    series, day = images[0].series, images[0].day
    found = find(
        STUDY_ROOT, "SERIES", {"StudyInstanceUID": whole.study, "Modality": "RTIMAGE", "SeriesInstanceUID": ""}
    )
    assert series in {row.SeriesInstanceUID for row in found}
    keys = {"SeriesInstanceUID": series, "AcquisitionDate": dicom(day), "SOPInstanceUID": "", PLAN_OF: ""}
    rows = find(STUDY_ROOT, "IMAGE", keys)
    assert {row.SOPInstanceUID for row in rows} == {each.uid for each in images if each.series == series}
    assert {row.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID for row in rows} == {whole.uid}


@pytest.mark.parametrize("modality", ["RTRECORD", "RTDOSE", "RTIMAGE"])
def test_the_answer_names_the_plan_in_its_sequence_and_flat(find, held, whole, modality):
    one = next(each for each in held if each.modality == modality and each.plan == whole.uid)
    keys = {
        "SOPInstanceUID": one.uid,
        "Modality": modality,
        "PatientID": "",
        "ReferencedSOPInstanceUID": "",
        PLAN_OF: "",
    }
    [row] = find(STUDY_ROOT, "IMAGE", keys)
    assert row.PatientID == one.patient
    assert [str(item.ReferencedSOPInstanceUID) for item in row.ReferencedRTPlanSequence] == [whole.uid]
    assert row.ReferencedSOPInstanceUID == whole.uid


#: A row of the table of C-MOVE identifiers: model and level, keys, and whether an instance is meant.
MOVES = {
    "PATIENT: PatientID": (
        PATIENT_ROOT, "PATIENT", lambda p: {"PatientID": p.patient}, lambda p, each: each.patient == p.patient,
    ),
    "SERIES: PatientID": (
        STUDY_ROOT, "SERIES", lambda p: {"PatientID": p.patient}, lambda p, each: each.patient == p.patient,
    ),
    "STUDY: StudyInstanceUID": (
        STUDY_ROOT, "STUDY", lambda p: {"StudyInstanceUID": p.study}, lambda p, each: each.study == p.study,
    ),
    "STUDY: PatientID": (
        STUDY_ROOT, "STUDY", lambda p: {"PatientID": p.patient}, lambda p, each: each.patient == p.patient,
    ),
    "SERIES: SeriesInstanceUID": (
        STUDY_ROOT, "SERIES", lambda p: {"SeriesInstanceUID": p.series}, lambda p, each: each.series == p.series,
    ),
    "SERIES: SeriesInstanceUID, StudyInstanceUID, by Patient Root": (
        PATIENT_ROOT, "SERIES", lambda p: {"SeriesInstanceUID": p.series, "StudyInstanceUID": p.study},
        lambda p, each: each.series == p.series,
    ),
    "IMAGE: SOPInstanceUID": (
        STUDY_ROOT, "IMAGE", lambda p: {"SOPInstanceUID": p.uid}, lambda p, each: each.uid == p.uid,
    ),
    "IMAGE: SOPInstanceUID, PatientID, by Patient Root": (
        PATIENT_ROOT, "IMAGE", lambda p: {"SOPInstanceUID": p.uid, "PatientID": p.patient},
        lambda p, each: each.uid == p.uid,
    ),
    "IMAGE: SOPInstanceUID, StudyInstanceUID, SeriesInstanceUID, SOPClassUID": (
        STUDY_ROOT, "IMAGE",
        lambda p: {"SOPInstanceUID": p.uid, "StudyInstanceUID": p.study, "SeriesInstanceUID": p.series,
                   "SOPClassUID": p.sop_class},
        lambda p, each: each.uid == p.uid,
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", MOVES)
def test_movescu_gets_the_very_set(move, held, whole, row):
    model, level, keys, means = MOVES[row]
    assert move(model, level, keys(whole)) == {each.uid for each in held if means(whole, each)}


def test_movescu_gets_all_of_a_class_in_a_study_where_other_keys_than_unique_ones_count(daemon, move, held, whole):
    keys = {"SOPClassUID": uids.RT_DOSE, "StudyInstanceUID": whole.study}
    usual = daemon.behaviour
    daemon.behaviour = replace(usual, move_unique_keys_only=False)
    try:
        assert move(STUDY_ROOT, "IMAGE", keys) == {
            each.uid for each in held if (each.study, each.modality) == (whole.study, "RTDOSE")
        }
    finally:
        daemon.behaviour = usual
    # As it is known of others, the class is ignored.
    assert move(STUDY_ROOT, "IMAGE", keys) == {each.uid for each in held if each.study == whole.study}


@pytest.mark.parametrize(
    ("model", "level", "unique"),
    [(PATIENT_ROOT, "PATIENT", "patient"), (STUDY_ROOT, "STUDY", "study"), (STUDY_ROOT, "SERIES", "series"),
     (PATIENT_ROOT, "IMAGE", "uid")],
)  # fmt: skip
def test_getscu_gets_the_very_set(call, held, whole, tmp_path, model, level, unique):
    value = getattr(whole, unique)
    call("getscu", "+B", model, "-od", str(tmp_path), *options(level, {UNIQUE[unique]: value}))
    assert names(tmp_path) == {each.uid for each in held if getattr(each, unique) == value}


def test_storescu_stores_for_a_known_patient_and_for_no_other(daemon, clinic, call, whole, tmp_path):
    call("getscu", "+B", STUDY_ROOT, "-od", str(tmp_path), *options("IMAGE", {"SOPInstanceUID": whole.uid}))
    [path] = tmp_path.iterdir()
    plan = dcmread(path)
    plan.SeriesInstanceUID, plan.SOPInstanceUID, plan.RTPlanLabel = "1.2.3.1", "1.2.3.1.1", "Imported"
    plan.file_meta.MediaStorageSOPInstanceUID = plan.SOPInstanceUID
    # A daemon of its own: the others' holdings stay as they are.
    with SimulatedDaemon(clinic, trusted=[trusted()]) as taking:

        def ask(tool, *arguments, files=()):
            titles = ("-aet", "AIRFLOW", "-aec", "VMSDBD")
            return dcmtk.run(tool, "-d", *titles, *arguments, *map(str, taking.address), *files)

        plan.save_as(path)
        assert ask("storescu", files=[path]).returncode == 0
        keys = {"StudyInstanceUID": whole.study, "RTPlanLabel": "Imported", "SOPInstanceUID": "", "StudyID": ""}
        assert ask("findscu", "-S", "-X", "-od", tmp_path, *options("IMAGE", keys)).returncode == 0
        [answer] = tmp_path.glob("rsp*.dcm")
        row = dcmread(answer)
        assert (row.SOPInstanceUID, row.StudyID) == ("1.2.3.1.1", whole.course)
        plan.PatientID = "NEW_1"
        plan.save_as(path)
        refused = ask("storescu", files=[path]).stderr
    assert "0xc001" in refused
    assert "Automatic Patient Creation is off" in refused
