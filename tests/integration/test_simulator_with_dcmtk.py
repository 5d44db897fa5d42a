"""DCMTK's clients against the simulated daemon, and its objects before DCMTK's and David Clunie's tools."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom import dcmread
from support import dciodvfy, dcmtk
from support.ports import free_port
from support.simulated import UNTIL, trusted

from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.facts import facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def clinic() -> Clinic:
    return Clinic(seed=1, patients=3, days=2, until=UNTIL, matrix=128)


@pytest.fixture(scope="module")
def plans(clinic):
    return {(fact.course, fact.label): fact for fact in facts(clinic)}


@pytest.fixture(scope="module")
def daemon(clinic, program, tmp_path_factory):
    for name in ("storescp", "echoscu", "findscu", "movescu", "getscu"):
        program(name)
    port = free_port()
    entities = [trusted(port), trusted(free_port(), ae_title="DEAD")]
    with SimulatedDaemon(clinic, trusted=entities, behaviour=Behaviour(get=True)) as running:
        running.receiver_port = port
        yield running


@pytest.fixture
def received(daemon, tmp_path):
    with dcmtk.storescp(tmp_path, ae_title="AIRFLOW", port=daemon.receiver_port) as (folder, _):
        yield folder


@pytest.fixture
def call(daemon):
    def run(tool: str, *arguments: str, calling: str = "AIRFLOW", called: str = "VMSDBD"):
        host, port = daemon.address
        return dcmtk.run(tool, "-aet", calling, "-aec", called, *arguments, host, str(port))

    return run


def keys(level: str, **values: str) -> list[str]:
    result = ["-k", f"QueryRetrieveLevel={level}"]
    for keyword, value in values.items():
        result += ["-k", f"{keyword}={value}" if value else keyword]
    return result


def matches(output: str) -> list[str]:
    return re.split(r"Find Response: \d+ \(Pending\)", output)[1:]


def test_echo_works_and_strangers_are_rejected(call):
    assert call("echoscu").returncode == 0
    stranger = call("echoscu", calling="NOBODY")
    assert stranger.returncode != 0
    assert "Calling AE Title Not Recognized" in stranger.stderr
    assert "Called AE Title Not Recognized" in call("echoscu", called="WRONG").stderr


def test_only_implicit_little_endian_is_negotiated(call):
    log = call("echoscu", "-d", "-pts", "4").stderr
    assert "Accepted Transfer Syntax: =LittleEndianImplicit" in log
    assert "DB Svc 16.1" in log
    assert "1.2.246.352.70.2.1.162.2" in log
    assert "Their Max PDU Receive Size:  64234" in log


@pytest.mark.parametrize(
    ("model", "level"), [("-P", "PATIENT"), ("-P", "STUDY"), ("-S", "STUDY"), ("-S", "SERIES"), ("-S", "IMAGE")]
)
def test_findscu_gets_all_levels(call, plans, model, level):
    result = call("findscu", model, *keys(level, PatientID="QA_TB_WL"))
    assert result.returncode == 0, result.stderr
    of_patient = [plan for plan in plans.values() if plan.patient_id == "QA_TB_WL"]
    sessions = [plan.images(day) for plan in of_patient for day in plan.days]
    assert (
        len(matches(result.stderr))
        == {
            "PATIENT": 1,
            "STUDY": len({plan.study_instance_uid for plan in of_patient}),
            "SERIES": len(of_patient) + len(sessions),
            "IMAGE": len(of_patient) + sum(map(len, sessions)),
        }[level]
    )


def test_findscu_finds_a_plan_and_its_images(call, plans):
    plan = plans["QA", "WL_10MV"]
    found = matches(
        call("findscu", "-S", *keys("IMAGE", PatientID="QA_TB_WL", Modality="RTPLAN", RTPlanLabel="WL_10MV"),
             "-k", "SOPInstanceUID").stderr
    )  # fmt: skip
    assert [plan.sop_instance_uid in text for text in found] == [True]
    images = matches(
        call("findscu", "-S", *keys("IMAGE", StudyInstanceUID=plan.study_instance_uid, Modality="RTIMAGE",
             AcquisitionDate="20261120"), "-k", "ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID").stderr
    )  # fmt: skip
    beside = [each for each in plans.values() if each.study_instance_uid == plan.study_instance_uid]
    assert len(images) == sum(len(each.images(UNTIL)) for each in beside)
    assert sum(plan.sop_instance_uid in text for text in images) == len(plan.images(UNTIL)) > 0


def test_movescu_brings_a_series_to_storescp(call, received, plans):
    series = plans["QA", "WL_10MV"].image_series_uid(UNTIL)
    result = call("movescu", "-v", "-S", "-aem", "AIRFLOW", *keys("SERIES", SeriesInstanceUID=series))
    assert result.returncode == 0, result.stderr
    assert "Received Final Move Response (Success)" in result.stderr
    assert len(list(received.iterdir())) == 10


def test_movescu_hears_of_unknown_and_dead_destinations(call, plans):
    series = keys("SERIES", SeriesInstanceUID=plans["QA", "WL_10MV"].image_series_uid(UNTIL))
    assert "MoveDestinationUnknown" in call("movescu", "-S", "-aem", "NOWHERE", *series).stderr
    log = call("movescu", "-d", "-S", "-aem", "DEAD", *series).stderr
    assert re.search(r"Failed Suboperations\s+: 10", log)
    assert "0xa702" in log


def test_getscu_brings_a_series_on_its_own_association(call, plans, tmp_path):
    series = plans["QA", "WL_10MV"].image_series_uid(UNTIL)
    result = call("getscu", "-v", "-S", "-od", str(tmp_path), *keys("SERIES", SeriesInstanceUID=series))
    assert result.returncode == 0, result.stderr
    assert re.search(r"Number of Completed Suboperations : 10", result.stderr)
    assert len(list(tmp_path.iterdir())) == 10


@pytest.fixture(scope="module")
def exported(daemon, plans, tmp_path_factory) -> list[Path]:
    """One plan of each kind with a day's images, as they come out."""
    folder = tmp_path_factory.mktemp("exported")
    host, port = daemon.address
    uids = [plan.sop_instance_uid for plan in plans.values()]
    uids += [image.sop_instance_uid for plan in plans.values() for image in plan.images(UNTIL)]
    for uid in uids:
        result = dcmtk.run("getscu", "-aet", "AIRFLOW", "-aec", "VMSDBD", "+B", "-S", "-od", folder,
                           *keys("IMAGE", SOPInstanceUID=uid), host, port)  # fmt: skip
        assert result.returncode == 0, result.stderr
    files = sorted(folder.iterdir())
    assert len(files) == len(uids)
    return files


def test_dcmdump_reads_what_comes_out(exported, program):
    for path in exported:
        result = dcmtk.run(program("dcmdump"), "-q", path)
        assert (result.returncode, result.stderr) == (0, "")


def test_dciodvfy_finds_no_error_but_its_own(exported, program):
    for path in exported:
        sop_class_uid = dcmread(path, specific_tags=["SOPClassUID"]).SOPClassUID
        assert dciodvfy.judge(program("dciodvfy"), path, sop_class_uid).errors == [], path.name
