from __future__ import annotations

import io

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from support.simulated import UNTIL, identifier

from airflow_provider_varian import uids
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.holdings.imported import Imported
from airflow_provider_varian.simulator.holdings.synthetic import Clinic
from airflow_provider_varian.simulator.holdings.tree import Search, walk
from airflow_provider_varian.simulator.run import SimulatorOptions


def file_of(number, *, patient, study="1.2.3", sop_class=uids.MR_IMAGE) -> bytes:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, f"{study}.1.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, f"{study}.1"
    ds.PatientID, ds.PatientName = patient, "Neu^One"
    ds.AcquisitionDate = "19990101"
    ds.PixelData = bytes(8)
    ds["PixelData"].VR = "OW"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uids.IMPLICIT_VR_LITTLE_ENDIAN
    content = io.BytesIO()
    ds.save_as(content, enforce_file_format=True)
    return content.getvalue()


def keep(imported, content):
    imported.keep(dcmread(io.BytesIO(content)), content)


def found(holdings, level, **keys):
    search = Search(level, identifier(level.value, **keys))
    return [tuple(node.uid for node in chain) for chain in walk(holdings, search)]


@pytest.fixture
def clinic():
    return Clinic(patients=2, days=2, until=UNTIL, matrix=64)


@pytest.fixture
def imported():
    return Imported()


@pytest.fixture
def served(imported, clinic):
    return imported.over(clinic)


def test_sop_classes_are_those_of_both(imported, served, clinic):
    assert served.sop_classes() == clinic.sop_classes()
    keep(imported, file_of(1, patient="NEW_1"))
    assert served.sop_classes() == clinic.sop_classes() | {uids.MR_IMAGE}


def test_a_patient_with_own_and_imported_objects_is_one(imported, served):
    own = found(served, Level.STUDY, PatientID="QA_TB_WL")
    keep(imported, file_of(1, patient="QA_TB_WL"))
    assert found(served, Level.PATIENT, PatientID="QA_TB_WL") == [("QA_TB_WL",)]
    assert found(served, Level.STUDY, PatientID="QA_TB_WL") == [*own, ("QA_TB_WL", "1.2.3")]


def test_a_uid_that_came_with_an_import_leads_to_its_patient(imported, served):
    keep(imported, file_of(1, patient="QA_TB_WL"))
    keep(imported, file_of(1, patient="NEW_1", study="1.2.9"))
    assert found(served, Level.IMAGE, SOPInstanceUID="1.2.3.1.1") == [("QA_TB_WL", "1.2.3", "1.2.3.1", "1.2.3.1.1")]
    assert found(served, Level.SERIES, StudyInstanceUID="1.2.9") == [("NEW_1", "1.2.9", "1.2.9.1")]


def test_an_import_is_found_by_a_date_at_which_the_clinic_had_nothing(imported, served):
    keep(imported, file_of(1, patient="QA_TB_WL"))
    [clinical] = {chain[0] for chain in found(served, Level.PATIENT) if "QA" not in chain[0]} & {
        chain[0] for chain in found(served, Level.STUDY, StudyID="C1")[:1]
    }
    keep(imported, file_of(1, patient=clinical, study="1.2.9"))
    assert {chain[0] for chain in found(served, Level.IMAGE, AcquisitionDate="19990101")} == {"QA_TB_WL", clinical}


def test_an_id_that_looks_like_a_pattern_is_nobody_elses(imported, served):
    assert served.patient("QA*") is None
    keep(imported, file_of(1, patient="QA*"))
    assert served.patient("QA*").uid == "QA*"
    assert len(found(served, Level.STUDY, PatientID="QA_TB_WL")) == 2


def test_the_whole_object_comes_out_of_memory_or_folder(imported, clinic, tmp_path):
    for kept in (imported, Imported(tmp_path / "folder")):
        keep(kept, file_of(1, patient="NEW_1"))
        [chain] = walk(kept.over(clinic), Search(Level.IMAGE, identifier("IMAGE", PatientID="NEW_1")))
        assert chain[-1].fetch().PixelData == bytes(8)
        assert "PixelData" not in chain[-1].values()
        assert (chain[-1].file is None) == (kept is imported)


def test_a_folder_is_read_and_what_is_not_an_import_passed_over(clinic, tmp_path):
    (tmp_path / "1.dcm").write_bytes(file_of(1, patient="NEW_1"))
    (tmp_path / "2.dcm").write_bytes(file_of(2, patient=""))
    (tmp_path / "3.dcm").write_bytes(b"not DICOM")
    (tmp_path / "4.part").write_bytes(file_of(4, patient="NEW_1"))
    served = Imported(tmp_path).over(clinic)
    assert [chain[-1] for chain in found(served, Level.IMAGE, StudyInstanceUID="1.2.3")] == ["1.2.3.1.1"]


@pytest.mark.parametrize("left", [1, 7, 8, 15])
def test_a_file_in_the_folder_that_was_cut_short_is_not_served(clinic, tmp_path, caplog, left):
    content = file_of(1, patient="NEW_1")
    (tmp_path / "1.dcm").write_bytes(content[: content.rindex(b"\xe0\x7f\x10\0") + left])
    (tmp_path / "2.dcm").write_bytes(file_of(2, patient="NEW_1"))
    served = Imported(tmp_path).over(clinic)
    assert [chain[-1] for chain in found(served, Level.IMAGE, StudyInstanceUID="1.2.3")] == ["1.2.3.1.2"]
    assert "1 files of imports are cut short" in caplog.text


def test_a_folder_that_cannot_be_had_is_a_matter_of_configuration(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot hold what is imported"):
        SimulatorOptions(imports=tmp_path / "file", until=UNTIL).daemon()
    SimulatorOptions(imports=tmp_path / "a" / "b", until=UNTIL).daemon()
    assert (tmp_path / "a" / "b").is_dir()
