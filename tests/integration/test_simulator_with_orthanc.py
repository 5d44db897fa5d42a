"""Orthanc as a client of the simulator: its C-FIND, C-MOVE and C-STORE over its REST interface.

Release 1.10 has no C-GET as a client: retrieving by C-GET is DCMTK's alone (:mod:`test_simulator_queries`). It leaves
dates and DoseSummationType out of its queries at IMAGE level, which are left to DCMTK as well.
"""

from __future__ import annotations

import io
import re
import urllib.error

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from support.held import all_held, whole_plan
from support.known_queries import QUERIES, UNIQUE
from support.orthanc_rest import orthanc_with_rest
from support.ports import free_port
from support.simulated import UNTIL, trusted

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.facts import case_facts, instance_facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def clinic() -> Clinic:
    return Clinic(seed=1, patients=8, days=2, until=UNTIL, matrix=64)


@pytest.fixture(scope="module")
def served(clinic, program, tmp_path_factory):
    """The simulator and Orthanc, which know each other."""
    program("Orthanc")
    port = free_port()
    with (
        SimulatedDaemon(clinic, trusted=[trusted(port, ae_title="ORTHANC")]) as daemon,
        orthanc_with_rest(
            tmp_path_factory.mktemp("orthanc"), dicom_port=port, http_port=free_port(),
            simulator=(daemon.ae_title, *daemon.address),
        ) as orthanc,
    ):  # fmt: skip
        yield daemon, orthanc


@pytest.fixture
def orthanc(served):
    served[1].forget()
    return served[1]


@pytest.fixture(scope="module")
def case(clinic):
    """A patient with a dose, and with plans of the class that Orthanc knows."""
    return next(
        case
        for case in case_facts(clinic)
        if any(plan.doses for plan in case.plans) and {plan.sop_class_uid for plan in case.plans} == {uids.RT_PLAN}
    )


@pytest.fixture(scope="module")
def held(clinic, case):
    return instance_facts(clinic, case)


@pytest.fixture(scope="module")
def everything(clinic):
    return all_held(clinic)


@pytest.fixture(scope="module")
def whole(everything):
    return whole_plan(everything)


KEY = {"Patient": "PatientID", "Study": "StudyInstanceUID", "Series": "SeriesInstanceUID", "Instance": "SOPInstanceUID"}


def test_orthanc_gets_an_echo(orthanc):
    assert orthanc.ask("/modalities/simulator/echo", {}) is not None


#: Rows of the table in varian-daemon 3 that Orthanc cannot express, or that another row is for it.
NOT_FOR_ORTHANC = {
    goal for goal in QUERIES if re.search(" since | days?\\b|^doses of|by Patient Root$", goal)
}  # fmt: skip
LEVEL = {"PATIENT": "Patient", "STUDY": "Study", "SERIES": "Series", "IMAGE": "Instance"}


def value(case, each, level):
    return {
        "Patient": case.patient_id,
        "Study": each.study_instance_uid,
        "Series": each.series_instance_uid,
        "Instance": each.sop_instance_uid,
    }[level]


@pytest.mark.parametrize("goal", sorted(QUERIES.keys() - NOT_FOR_ORTHANC))
def test_a_query_of_orthancs_gets_the_very_set(orthanc, everything, whole, goal):
    _, level, unique, keys, means = QUERIES[goal]
    # It knows no sequences, and writes tags without brackets.
    asked = {key.strip("()"): wanted for key, wanted in keys(whole).items() if "[" not in key}
    _, answers = orthanc.query(LEVEL[level], {UNIQUE[unique]: ""} | asked)
    found = [answer[UNIQUE[unique]] for answer in answers]
    assert len(found) == len(set(found))
    assert set(found) == {getattr(each, unique) for each in everything if means(whole, each)} != set()


def test_orthanc_finds_the_doses_of_a_study(orthanc, everything, whole):
    keys = {"PatientID": whole.patient, "StudyInstanceUID": whole.study, "SOPClassUID": uids.RT_DOSE}
    _, answers = orthanc.query("Instance", keys | {"SOPInstanceUID": "", "DoseSummationType": ""})
    assert {answer["SOPInstanceUID"] for answer in answers} == {
        each.uid for each in everything if (each.study, each.modality) == (whole.study, "RTDOSE")
    }


def test_orthanc_finds_the_studies_of_a_name(orthanc, clinic, everything):
    case = next(case for case in case_facts(clinic) if not case.name.isascii())
    _, answers = orthanc.query("Study", {"PatientName": case.name, "StudyInstanceUID": ""})
    assert {each["StudyInstanceUID"] for each in answers} == {
        each.study for each in everything if each.patient == case.patient_id
    }


# Orthanc asks the Study Root to move at PATIENT level, too, and there is none in it (PS3.4 C.6.2.1).
@pytest.mark.parametrize("level", ["Study", "Series", "Instance"])
def test_orthanc_retrieves_what_it_found(orthanc, case, held, level):
    plan = next(each for each in held if each.sop_instance_uid == case.plans[0].sop_instance_uid)
    wanted = value(case, plan, level)
    path, answers = orthanc.query(level, {KEY[level]: wanted})
    assert len(answers) == 1
    orthanc.ask(f"{path}/retrieve", {"TargetAet": "ORTHANC", "Synchronous": True})
    expected = {each.sop_instance_uid for each in held if value(case, each, level) == wanted}
    assert set(orthanc.instances()) == expected


def test_orthanc_stores_to_the_simulator_for_a_known_patient_and_for_no_other(served, orthanc, case):
    daemon, _ = served
    ids = {}
    for patient, number in ((case.patient_id, 1), ("NEW_1", 2)):
        note = Dataset()
        note.SOPClassUID, note.SOPInstanceUID = uids.RT_PLAN, f"1.2.3.1.{number}"
        note.StudyInstanceUID, note.SeriesInstanceUID = f"1.2.3.{number}", f"1.2.3.1{number}"
        note.SpecificCharacterSet = "ISO_IR 192"
        note.PatientID, note.PatientName, note.Modality = patient, case.name, "RTPLAN"
        note.file_meta = FileMetaDataset()
        note.file_meta.TransferSyntaxUID = uids.EXPLICIT_VR_LITTLE_ENDIAN
        content = io.BytesIO()
        note.save_as(content, enforce_file_format=True)
        ids[patient] = orthanc.ask("/instances", content.getvalue())["ID"]
    done = orthanc.ask("/modalities/simulator/store", {"Resources": [ids[case.patient_id]], "Synchronous": True})
    assert done["FailedInstancesCount"] == 0
    with pytest.raises(urllib.error.HTTPError):
        orthanc.ask("/modalities/simulator/store", {"Resources": [ids["NEW_1"]], "Synchronous": True})
    assert (daemon.counts["C-STORE"], daemon.counts["imported"]) == (2, 1)
    found = [orthanc.query("Study", {"StudyInstanceUID": f"1.2.3.{number}", "PatientID": ""})[1] for number in (1, 2)]
    assert [[answer["PatientID"] for answer in answers] for answers in found] == [[case.patient_id], []]
