"""Seeded objects to measure with: what a radiotherapy department has, from a plan of 20 KB to a dose of 1 GB."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian

CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
RT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.481.1"
RT_DOSE: Final = "1.2.840.10008.5.1.4.1.1.481.2"
RT_PLAN: Final = "1.2.840.10008.5.1.4.1.1.481.5"
_ROOT: Final = "1.2.826.0.1.3680043.10.1499"
_DOSE_FRAME_BYTES: Final = 512 * 512 * 4


@dataclass(frozen=True)
class Study:
    """Files of one study.

    :param name: for tables.
    :param uid: Study Instance UID.
    :param sop_class_uid: of all of them.
    """

    name: str
    uid: str
    sop_class_uid: str
    files: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(path.stat().st_size for path in self.files)


@dataclass(frozen=True)
class Sizes:
    """How much of everything there is in a run.

    :param plans: RT Plans of 20 KB.
    :param slices: CT slices of 0.5 MB.
    :param images: RT Images of 3.3 MB.
    :param dose_frames: frames of 1 MB of the RT Dose.
    :param giant_frames: frames of 1 MB of the one very large RT Dose; DCMTK's archive takes 1 GiB a study at most.
    :param many: RT Plans that are sent one after the other to see whether memory grows.
    :param associations: one after the other, to see whether they leave anything behind.
    :param answers: of the long C-FIND.
    """

    plans: int = 300
    slices: int = 100
    images: int = 20
    dose_frames: int = 60
    giant_frames: int = 960
    many: int = 20_000
    associations: int = 300
    answers: int = 10_000

    def scaled(self, scale: float) -> Sizes:
        """Return more or less of it; a single object does not become larger, and of each kind there is one at least."""

        def times(count: int) -> int:
            return max(1, round(count * scale))

        return Sizes(
            plans=times(self.plans),
            slices=times(self.slices),
            images=times(self.images),
            dose_frames=min(times(self.dose_frames), self.dose_frames),
            giant_frames=min(times(self.giant_frames), self.giant_frames),
            many=times(self.many),
            associations=times(self.associations),
            answers=times(self.answers),
        )


def ct_slices(folder: Path, count: int) -> Study:
    """Write CT slices of 512 x 512 pixels, 16 bits each."""
    noise = random.Random(1).randbytes(512 * 512 * 2)

    def slice_of(ds: Dataset, number: int) -> None:
        ds.ImageType, ds.SliceThickness, ds.KVP = ["ORIGINAL", "PRIMARY", "AXIAL"], "2.0", "120"
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [-250, -250, 2 * number], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.RescaleIntercept, ds.RescaleSlope = [1, 1], "-1024", "1"
        _pixels(ds, 512, 512, 16, _turned(noise, number))

    return _study(folder, 1, "CT", CT_IMAGE, count, f"{count} CT slices", slice_of)


def rt_plans(folder: Path, count: int) -> Study:
    """Write RT Plans with nested sequences."""
    chance = random.Random(2)

    def plan_of(ds: Dataset, number: int) -> None:
        ds.RTPlanLabel, ds.RTPlanDate, ds.RTPlanTime, ds.RTPlanGeometry = f"PLAN{number}", "20260102", "0930", "PATIENT"
        ds.BeamSequence = Sequence([_beam(chance, beam) for beam in (1, 2)])

    return _study(folder, 2, "RTPLAN", RT_PLAN, count, f"{count} RT Plans", plan_of)


def rt_images(folder: Path, count: int) -> Study:
    """Write portal images of 1280 x 1280 pixels, 16 bits each."""
    noise = random.Random(3).randbytes(1280 * 1280 * 2)

    def image_of(ds: Dataset, number: int) -> None:
        ds.ImageType, ds.RTImageLabel, ds.RTImagePlane = ["ORIGINAL", "PRIMARY", "PORTAL"], f"IMAGE{number}", "NORMAL"
        ds.GantryAngle, ds.RadiationMachineName, ds.RTImageSID = "180", "TB1", "1500"
        _pixels(ds, 1280, 1280, 16, _turned(noise, number))

    return _study(folder, 3, "RTIMAGE", RT_IMAGE, count, f"{count} RT Images", image_of)


def rt_dose(folder: Path, frames: int, *, number: int = 4) -> Study:
    """Write one RT Dose, of so many frames of 512 x 512 pixels, 32 bits each: 1 MB a frame.

    :param number: tells one dose from another.
    """
    noise = random.Random(number).randbytes(_DOSE_FRAME_BYTES)

    def dose_of(ds: Dataset, _: int) -> None:
        ds.DoseUnits, ds.DoseType, ds.DoseSummationType, ds.DoseGridScaling = "GY", "PHYSICAL", "PLAN", "1e-6"
        ds.NumberOfFrames, ds.FrameIncrementPointer = frames, 0x3004000C
        ds.GridFrameOffsetVector = [2 * frame for frame in range(frames)]
        _pixels(ds, 512, 512, 32, noise * frames)

    return _study(folder, number, "RTDOSE", RT_DOSE, 1, f"1 RT Dose of {frames} frames", dose_of)


def _study(
    folder: Path,
    number: int,
    modality: str,
    sop_class_uid: str,
    count: int,
    name: str,
    fill: Callable[[Dataset, int], None],
) -> Study:
    uid = f"{_ROOT}.{number}"
    files = []
    for instance in range(1, count + 1):
        ds = _head(sop_class_uid, uid, instance, modality)
        fill(ds, instance)
        files.append(_write(folder, f"{modality}{number}.{instance}.dcm", ds))
    return Study(name, uid, sop_class_uid, tuple(files))


def _turned(noise: bytes, number: int) -> bytes:
    """Return the same noise, begun elsewhere: no two images are equal."""
    start = 2 * number
    return noise[start:] + noise[:start]


def _pixels(ds: Dataset, rows: int, columns: int, bits: int, pixels: bytes) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.Rows, ds.Columns = 1, "MONOCHROME2", rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits, bits - 1, 0
    ds.PixelData = pixels
    ds["PixelData"].VR = "OW"


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
