"""The queries and retrieves that real systems put to ARIA (varian-daemon 3), put to the simulator by DCMTK.

What is right is taken from the clinic's facts, not from its search. Rows that Orthanc can express stand in
:mod:`test_simulator_with_orthanc` once more; release 1.10 has no C-GET as a client, so that is DCMTK's alone.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from support import dcmtk
from support.held import Held, all_held, whole_plan
from support.known_queries import (
    MOVES,
    OTHER_PATIENT_IDS,
    PATIENT_ROOT,
    PLAN_OF,
    QUERIES,
    SAID,
    STUDY_ROOT,
    UNIQUE,
    dicom,
    empty,
)
from support.ports import free_port
from support.simulated import UNTIL, trusted

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.facts import case_facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def clinic() -> Clinic:
    return Clinic(seed=1, patients=8, days=2, until=UNTIL, matrix=64)


@pytest.fixture(scope="module")
def held(clinic) -> list[Held]:
    return all_held(clinic)


@pytest.fixture(scope="module")
def whole(held) -> Held:
    return whole_plan(held)


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


def tag_of(key: str) -> int:
    """Return the tag of a key as DCMTK takes it: a keyword, or a tag, of an item's element the sequence's."""
    return int(key[1:10].replace(",", ""), 16) if key.startswith("(") else tag_for_keyword(key)


@pytest.mark.parametrize("goal", QUERIES)
def test_findscu_gets_the_very_set(find, held, whole, goal):
    model, level, unique, keys, means = QUERIES[goal]
    asked = keys(whole)
    rows = find(model, level, {UNIQUE[unique]: ""} | asked)
    answered = [str(row[UNIQUE[unique]].value) for row in rows]
    assert len(answered) == len(set(answered))
    assert set(answered) == {getattr(each, unique) for each in held if means(whole, each)} != set()
    # What was asked for is in each answer, be it empty.
    assert all(tag_of(key) in row for row in rows for key in asked)


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
    keys = {"SeriesInstanceUID": series, "AcquisitionDate": dicom(day), PLAN_OF: ""}
    rows = find(STUDY_ROOT, "IMAGE", keys | empty("SOPInstanceUID", "ImageType", "AcquisitionTime"))
    assert {row.SOPInstanceUID: tuple(row.ImageType) for row in rows} == {
        each.uid: each.image_type for each in images if each.series == series
    }
    assert all(row.AcquisitionTime for row in rows)
    assert {row.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID for row in rows} == {whole.uid}


@pytest.mark.parametrize("modality", ["RTRECORD", "RTDOSE", "RTIMAGE"])
def test_the_answer_names_the_plan_in_its_sequence_and_flat(find, held, whole, modality):
    one = next(each for each in held if each.modality == modality and each.plan == whole.uid)
    keys = {
        "SOPInstanceUID": one.uid,
        "Modality": modality,
        PLAN_OF: "",
    }
    [row] = find(STUDY_ROOT, "IMAGE", keys | empty("PatientID", "StudyInstanceUID", "ReferencedSOPInstanceUID"))
    assert (row.PatientID, row.StudyInstanceUID) == (one.patient, one.study)
    assert [str(item.ReferencedSOPInstanceUID) for item in row.ReferencedRTPlanSequence] == [whole.uid]
    assert row.ReferencedSOPInstanceUID == whole.uid


@pytest.mark.parametrize("modality", SAID)
def test_the_answers_say_what_the_clinic_knows(find, held, modality):
    dated, says = SAID[modality]
    expected = {each.uid: says(each) for each in held if each.modality == modality and each.birth_date}
    asked = {"Modality": modality, dated: "20200101-"} | empty("SOPInstanceUID", *next(iter(expected.values())))
    told = {
        row.SOPInstanceUID: {key: said(row, key) for key in expected[row.SOPInstanceUID]}
        for row in find(STUDY_ROOT, "IMAGE", asked)
        if row.SOPInstanceUID in expected  # not the machines'
    }
    assert told == expected != {}


def said(row: Dataset, key: str):
    """Return a value of an answer: several as a tuple, none as the clinic's facts write it."""
    value = row[key].value
    if key == "ImageType":
        return tuple(value)
    return value or ("" if key == "ReferencedSOPInstanceUID" else None)


@pytest.mark.parametrize(
    ("model", "level", "filled", "left_empty"),
    [
        (PATIENT_ROOT, "PATIENT", {"PatientBirthDate": lambda p: dicom(p.birth_date)},
         ["InstitutionName", OTHER_PATIENT_IDS]),
        (STUDY_ROOT, "STUDY", {"StudyID": lambda p: p.course}, ["AccessionNumber"]),
        # SeriesDate: varian-daemon 1.3.
        (STUDY_ROOT, "SERIES", {"SeriesDescription": lambda p: "ARIA RadOnc Plans"},
         ["SeriesDate", "SeriesNumber", "InstitutionName"]),
    ],
)  # fmt: skip
def test_some_keys_are_answered_and_others_come_back_empty(find, whole, model, level, filled, left_empty):
    own = {UNIQUE[level.lower()]: getattr(whole, level.lower())}
    [row] = find(model, level, own | empty(*filled, *left_empty))
    assert {key: row[key].value for key in filled} == {key: value(whole) for key, value in filled.items()}
    assert [key for key in left_empty if row[tag_of(key)].value] == []


@pytest.mark.parametrize("row", MOVES)
def test_movescu_gets_the_very_set(move, held, whole, row):
    model, level, keys, means = MOVES[row]
    assert move(model, level, keys(whole)) == {each.uid for each in held if means(whole, each)}


@pytest.mark.parametrize(
    ("model", "level", "keys", "means"),
    [
        (STUDY_ROOT, "IMAGE", lambda p: {"SOPClassUID": uids.RT_DOSE, "StudyInstanceUID": p.study},
         lambda p, each: (each.study, each.modality) == (p.study, "RTDOSE")),
        (PATIENT_ROOT, "PATIENT", lambda p: {"PatientID": p.patient, "Modality": "RTPLAN"},
         lambda p, each: each.patient == p.patient),
        (STUDY_ROOT, "SERIES", lambda p: {"PatientID": p.patient, "Modality": "RTPLAN"},
         lambda p, each: (each.patient, each.modality) == (p.patient, "RTPLAN")),
    ],
    ids=["a class in a study", "PATIENT level ends at the patient", "a modality of a patient"],
)  # fmt: skip
def test_movescu_where_other_keys_than_unique_ones_count(daemon, move, held, whole, model, level, keys, means):
    usual = daemon.behaviour
    daemon.behaviour = replace(usual, move_unique_keys_only=False)
    try:
        assert move(model, level, keys(whole)) == {each.uid for each in held if means(whole, each)}
    finally:
        daemon.behaviour = usual


def test_movescu_gets_a_whole_study_although_it_names_a_class(move, held, whole):
    keys = {"SOPClassUID": uids.RT_DOSE, "StudyInstanceUID": whole.study}
    assert move(STUDY_ROOT, "IMAGE", keys) == {each.uid for each in held if each.study == whole.study}


@pytest.mark.parametrize("row", MOVES)
def test_getscu_gets_the_very_set(call, held, whole, tmp_path, row):
    model, level, keys, means = MOVES[row]
    call("getscu", "+B", model, "-od", str(tmp_path), *options(level, keys(whole)))
    assert names(tmp_path) == {each.uid for each in held if means(whole, each)}


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
