"""Seeded objects to measure with: CT slices of half a megabyte, and RT Plans of some twenty kilobytes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
RT_PLAN = "1.2.840.10008.5.1.4.1.1.481.5"
_ROOT = "1.2.826.0.1.3680043.10.1499"


@dataclass(frozen=True)
class Study:
    """Files of one study.

    :param name: for tables.
    :param uid: Study Instance UID.
    """

    name: str
    uid: str
    files: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(path.stat().st_size for path in self.files)


def ct_slices(folder: Path, count: int) -> Study:
    """Write CT slices of 512 x 512 pixels, 16 bits each."""
    chance = random.Random(1)
    noise = chance.randbytes(512 * 512 * 2)
    uid = f"{_ROOT}.1"
    files = []
    for number in range(1, count + 1):
        ds = _head(CT_IMAGE, uid, number, "CT")
        ds.ImageType, ds.SliceThickness, ds.KVP = ["ORIGINAL", "PRIMARY", "AXIAL"], "2.0", "120"
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [-250, -250, 2 * number], [1, 0, 0, 0, 1, 0]
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.Rows, ds.Columns = 1, "MONOCHROME2", 512, 512
        ds.PixelSpacing, ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = [1, 1], 16, 16, 15, 0
        ds.RescaleIntercept, ds.RescaleSlope = "-1024", "1"
        start = 2 * number
        ds.PixelData = noise[start:] + noise[:start]
        ds["PixelData"].VR = "OW"
        files.append(_write(folder, f"CT{number}.dcm", ds))
    return Study(f"{count} CT slices", uid, tuple(files))


def rt_plans(folder: Path, count: int) -> Study:
    """Write RT Plans with nested sequences."""
    chance = random.Random(2)
    uid = f"{_ROOT}.2"
    files = []
    for number in range(1, count + 1):
        ds = _head(RT_PLAN, uid, number, "RTPLAN")
        ds.RTPlanLabel, ds.RTPlanDate, ds.RTPlanTime, ds.RTPlanGeometry = f"PLAN{number}", "20260102", "0930", "PATIENT"
        ds.BeamSequence = Sequence([_beam(chance, beam) for beam in (1, 2)])
        files.append(_write(folder, f"RP{number}.dcm", ds))
    return Study(f"{count} RT Plans", uid, tuple(files))


def _beam(chance: random.Random, number: int) -> Dataset:
    beam = Dataset()
    beam.BeamNumber, beam.BeamName, beam.BeamType, beam.RadiationType = number, f"ARC {number}", "DYNAMIC", "PHOTON"
    points = []
    for index in range(9):
        leaves = Dataset()
        leaves.RTBeamLimitingDeviceType = "MLCX"
        leaves.LeafJawPositions = [round(chance.uniform(-100, 100), 2) for _ in range(160)]
        point = Dataset()
        point.ControlPointIndex, point.GantryAngle = index, 180.0 + index
        point.BeamLimitingDevicePositionSequence = Sequence([leaves])
        point.CumulativeMetersetWeight = round(index / 8, 6)
        points.append(point)
    beam.NumberOfControlPoints, beam.ControlPointSequence = len(points), Sequence(points)
    return beam


def _head(sop_class_uid: str, study_uid: str, number: int, modality: str) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class_uid, f"{study_uid}.1.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = study_uid, f"{study_uid}.1", modality
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "BENCHMARK^SERVING", "BENCH", "", ""
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20260102", "0900", "1", ""
    ds.InstanceCreationDate, ds.InstanceCreationTime = "20260102", "0901"
    ds.SeriesNumber, ds.InstanceNumber, ds.ReferringPhysicianName = "1", str(number), ""
    return ds


def _write(folder: Path, name: str, ds: Dataset) -> Path:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    path = folder / name
    ds.save_as(path, enforce_file_format=True)
    return path
