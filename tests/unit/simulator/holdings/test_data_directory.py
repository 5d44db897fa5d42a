from __future__ import annotations

import io
import zlib

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit
from support.simulated import Client, peer_of, receiving, trusted

from airflow_provider_varian import uids
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.holdings.data_directory import DataDirectory
from airflow_provider_varian.simulator.holdings.tree import Search


def dataset(number, *, patient="P1", study="1.2.3", series="1.2.3.4", syntax=ExplicitVRLittleEndian):
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = uids.CT_IMAGE, f"{series}.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientID, ds.PatientName, ds.Modality = patient, "Müller^Jürgen", "CT"
    ds.StudyDate, ds.InstanceNumber = "20260102", str(number)
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.9"
    ds.ReferencedImageSequence = [item]
    ds.Rows = ds.Columns = 4
    ds.BitsAllocated, ds.PixelRepresentation, ds.SamplesPerPixel = 16, 0, 1
    ds.SmallestImagePixelValue = 3
    ds.add_new(0x00090010, "LO", "OURS")
    ds.add_new(0x00091001, "UT", "x" * 9000)
    ds.PixelData = bytes(range(32))
    ds["PixelData"].VR = "OW"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    return ds


def write(folder, name, ds):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "a/1.dcm", dataset(1))
    write(tmp_path, "a/2", dataset(2, syntax=ImplicitVRLittleEndian))
    write(tmp_path, "b/3.dcm", dataset(3, patient="P2", study="1.2.5", series="1.2.5.1"))
    write(tmp_path, "copy.dcm", dataset(1))
    (tmp_path / "notes.txt").write_text("not DICOM")
    write(tmp_path, "big.dcm", dataset(9, syntax=ExplicitVRBigEndian))
    return tmp_path


@pytest.fixture
def served(folder):
    with receiving() as receiver, SimulatedDaemon(DataDirectory(folder), trusted=[trusted(receiver.port)]) as daemon:
        yield Client(peer_of(daemon)), receiver, daemon


def test_files_are_found_at_all_levels(served):
    client, _, _ = served
    patients = client.find("PATIENT", model=uids.PATIENT_ROOT_FIND, PatientID="", PatientName="")
    assert sorted(row.PatientID for row in patients) == ["P1", "P2"]
    assert {str(row.PatientName) for row in patients} == {"Müller^Jürgen"}
    assert {row.SpecificCharacterSet for row in patients} == {"ISO_IR 192"}
    assert [row.StudyInstanceUID for row in client.find("STUDY", PatientID="P2", StudyInstanceUID="")] == ["1.2.5"]
    assert len(client.find("SERIES", Modality="CT", StudyDate="20260102")) == 2
    rows = client.find("IMAGE", SeriesInstanceUID="1.2.3.4", SOPInstanceUID="", InstanceNumber="", Rows="")
    assert [(row.SOPInstanceUID, row.InstanceNumber, row.Rows) for row in rows] == [
        ("1.2.3.4.1", 1, 4),
        ("1.2.3.4.2", 2, 4),
    ]
    assert len(client.find("IMAGE", Modality="CT", StudyDate="20260101-20260103", InstanceNumber="3")) == 1


def test_files_are_sent_in_implicit_little_endian_element_by_element(served, folder):
    client, receiver, _ = served
    assert client.move("PATIENT", model=uids.PATIENT_ROOT_MOVE, PatientID="P1").completed == 2
    assert {each.transfer_syntax for each in receiver.stored} == {uids.IMPLICIT_VR_LITTLE_ENDIAN}
    for each, name in zip(receiver.stored, ("a/1.dcm", "a/2"), strict=True):
        original, received = dcmread(folder / name), each.dataset
        assert str(received.PatientName) == "Müller^Jürgen"
        assert received.SpecificCharacterSet == "ISO_IR 192"
        assert received.PixelData == original.PixelData
        assert received.SmallestImagePixelValue == 3
        assert received[0x00091001].value in ("x" * 9000, b"x" * 9000)
        assert received.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.9"


def test_what_is_compressed_is_sent_as_it_is_or_fails(tmp_path):
    from pydicom.encaps import encapsulate

    ds = dataset(1, syntax=JPEGBaseline8Bit)
    ds.PixelData = encapsulate([b"\xff\xd8 jpeg \xff\xd9"])
    ds["PixelData"].is_undefined_length = True
    write(tmp_path, "1.dcm", ds)
    with receiving() as receiver:
        for behaviour, expected in ((Behaviour(), (0xA702, 0)), (Behaviour(implicit_only=False), (0xA702, 0))):
            with SimulatedDaemon(
                DataDirectory(tmp_path), trusted=[trusted(receiver.port)], behaviour=behaviour
            ) as daemon:
                report = Client(peer_of(daemon)).move("SERIES", SeriesInstanceUID="1.2.3.4")
                # The receiver of these tests takes nothing compressed, so that neither can succeed.
                assert (report.status, report.completed) == expected
                assert report.failed_sop_instance_uids == ("1.2.3.4.1",)


def test_a_file_that_is_gone_fails_its_instance(served, folder):
    client, _, _ = served
    (folder / "a/1.dcm").unlink()
    report = client.move("SERIES", SeriesInstanceUID="1.2.3.4")
    assert (report.status, report.completed, report.failed_sop_instance_uids) == (0xB000, 1, ("1.2.3.4.1",))


def test_the_classes_held_are_told(folder):
    assert DataDirectory(folder).sop_classes() == {uids.CT_IMAGE}


def test_a_folder_that_cannot_be_served_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="not a folder"):
        DataDirectory(tmp_path / "absent")
    (tmp_path / "bad.dcm").write_bytes(b"\0" * 128 + b"DICM" + zlib.compress(io.BytesIO(b"x" * 100).getvalue()))
    with pytest.raises(ConfigurationError, match="no DICOM file"):
        DataDirectory(tmp_path)


CUTS = [1, 4, 7, 8, 8 + 31]


@pytest.mark.parametrize("left", CUTS)
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_file_that_was_cut_short_is_not_served(tmp_path, caplog, syntax, left):
    """So many bytes are left of its last element, the pixels: of 8 or 12 in its head, and 32."""
    write(tmp_path, "2.dcm", dataset(2))
    content = write(tmp_path, "1.dcm", dataset(1, syntax=syntax)).read_bytes()
    pixels = content.rindex(b"\xe0\x7f\x10\0")
    (tmp_path / "1.dcm").write_bytes(content[: pixels + left])
    (patient,) = DataDirectory(tmp_path).patients(Search(Level.PATIENT, Dataset()))
    (series,) = [series for study in patient.children() for series in study.children()]
    assert [instance.uid for instance in series.children()] == ["1.2.3.4.2"]
    assert "1 files are cut short, and not served" in caplog.text
    (tmp_path / "2.dcm").unlink()
    with pytest.raises(ConfigurationError, match="no DICOM file"):
        DataDirectory(tmp_path)


def test_a_whole_copy_of_a_file_that_was_cut_short_is_served(tmp_path):
    content = write(tmp_path, "2.dcm", dataset(1)).read_bytes()
    (tmp_path / "1.dcm").write_bytes(content[:-1])
    assert DataDirectory(tmp_path).sop_classes() == {uids.CT_IMAGE}
