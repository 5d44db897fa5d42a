"""Plan sets of real RT objects, pydicom's own, through real archives: what is named and not there is told.

Neither archive answers sequences or knows relational queries, so the hierarchy is walked and the objects are read.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from support import dcmtk
from support.oracle import judge
from support.plan_sets import said_by, search_of, true_of
from support.ports import free_port

from airflow_provider_varian.aria.plan_set import ALL_ROLES, Completeness, Role, Standing
from airflow_provider_varian.aria.profile import profile_for
from airflow_provider_varian.dimse.peer import peer_from_connection

pytestmark = pytest.mark.peers

REAL_FILES = ("rtplan.dcm", "rtdose.dcm", "rtstruct.dcm", "CT_small.dcm")
PLAN = "1.2.777.777.77.7.7777.7777.20030903150023"
JOINED_PLAN = "1.2.777.777.77.7.7777.7777.1"
NO_STRUCTURE_SET = "1.2.333.444.55.6.7777.88888"
PREDECESSOR = "1.9.999.999.99.9.9999.9999.20030903145128"
STRUCTURE_SET = "1.2.826.0.1.3680043.8.498.2010020400001"
NO_SERIES = "1.2.826.0.1.3680043.8.498.2010020400001.2.1.1"


def real(name):
    dataset = dcmread(get_testdata_file(name, download=False), force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:  # rtstruct.dcm comes without file meta
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    return dataset


def save(dataset, path: Path) -> Path:
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def reference(sop_class_uid, sop_instance_uid) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Write the objects as they are, of a patient each, and again as those of one patient, so that they are joined."""
    alone, joined = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("joined")
    for name in REAL_FILES:
        save(real(name), alone / name)
    plan, dose, structure_set = map(real, REAL_FILES[:3])
    plan.SOPInstanceUID = JOINED_PLAN
    plan.StudyInstanceUID, plan.SeriesInstanceUID = "1.2.777.1", "1.2.777.2"
    # The UID that stands in the dose breaks PS3.5 9.1, and pydicom warns of it when it is looked at.
    plan.ReferencedStructureSetSequence = [reference(structure_set.SOPClassUID, structure_set.SOPInstanceUID)]
    dose.ReferencedRTPlanSequence = [reference(plan.SOPClassUID, JOINED_PLAN)]
    dose.SOPInstanceUID, dose.StudyInstanceUID, dose.SeriesInstanceUID = "1.2.777.3", "1.2.777.4", "1.2.777.5"
    structure_set.StudyInstanceUID, structure_set.SeriesInstanceUID = "1.2.777.6", "1.2.777.7"
    for dataset, name in zip((plan, dose, structure_set), REAL_FILES, strict=False):
        dataset.PatientID = "JOINED"
        save(dataset, joined / name)
    return alone, joined


@pytest.fixture(scope="module", params=["dcmqrscp", "orthanc"])
def archive(request, folders, program, tmp_path_factory):
    for name in ("dcmqrscp", "Orthanc", "storescu"):
        program(name)
    # The structure set is in both folders, under one UID: an archive keeps the second of them.
    files = [each for folder in folders for each in sorted(folder.iterdir())]
    files = [each for each in files if each != folders[0] / "rtstruct.dcm"]
    start = getattr(dcmtk, request.param)
    with start(tmp_path_factory.mktemp(request.param) / "run", files, {"AIRFLOW": free_port()}) as running:
        yield running


@pytest.fixture
def search(archive, tmp_path):
    peer = peer_from_connection(
        host="127.0.0.1",
        port=archive.port,
        extra={
            "called_ae_title": archive.ae_title,
            "calling_ae_title": "AIRFLOW",
            "receiver_host": "127.0.0.1",
            "receiver_port": archive.receiver_port,
            "profile": "generic",
            "profile_overrides": {"stable_counts": 1, "settle_seconds": 0.1},
        },
    )
    return lambda patient_id: search_of(peer, profile_for(peer), patient_id, tmp_path)


def test_a_plan_alone_names_what_is_not_there(search, folders):
    found = search("id00001").whole(PLAN, ALL_ROLES)
    assert found.completeness is Completeness.INCOMPLETE
    assert [each.sop_instance_uid for each in found.held] == [PLAN]
    assert {(each.sop_instance_uid, each.role, each.through) for each in found.missing} == {
        (NO_STRUCTURE_SET, Role.STRUCTURE_SET, ("ReferencedStructureSetSequence",)),
        (PREDECESSOR, Role.PLAN, ("ReferencedRTPlanSequence",)),
    }
    assert found.absent_roles == (Role.IMAGE, Role.PLAN_DOSE)
    findings = judge(folders[0])
    assert said_by(found) == true_of(findings.plans[PLAN], findings)


def test_joined_objects_lead_to_the_series_that_is_not_there(search, folders):
    found = search("JOINED").whole(JOINED_PLAN, ALL_ROLES)
    (structure_set,) = found.members_of(Role.STRUCTURE_SET)
    assert (structure_set.sop_instance_uid, structure_set.standing) == (STRUCTURE_SET, Standing.HELD)
    (series,) = [each for each in found.missing if each.names == "series"]
    assert (series.sop_instance_uid, series.named_by) == (NO_SERIES, (STRUCTURE_SET,))
    (dose,) = found.ambiguous
    assert dose.role is Role.BEAM_DOSE
    findings = judge(folders[1])
    assert said_by(found) == true_of(findings.plans[JOINED_PLAN], findings)
