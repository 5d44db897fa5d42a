"""Small DICOM files to be sent."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit
from support.archive import rt_image

IMPLICIT, EXPLICIT, JPEG = ImplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit


def dicom_file(path: Path, ds: Dataset, syntax: str = EXPLICIT, *, preamble: bytes = bytes(128)) -> Path:
    """Write a data set as a DICOM file; return its path."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    file = FileDataset(None, dict(ds.items()), file_meta=meta, preamble=preamble)
    file.save_as(path, enforce_file_format=True)
    return path


def image_file(folder: Path, number: int, syntax: str = EXPLICIT, **attributes) -> Path:
    """Write a small RT Image whose UID ends in its number."""
    return dicom_file(folder / f"{number:04d}.dcm", rt_image(number, **attributes), syntax)


def compressed_file(folder: Path, number: int) -> Path:
    """Write an image whose pixels claim to be JPEG."""
    ds = rt_image(number)
    del ds.PixelData
    ds.add_new(
        "PixelData", "OB", b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\4\0\0\0\xff\xd8\xff\xd9\xfe\xff\xdd\xe0\0\0\0\0"
    )
    ds["PixelData"].is_undefined_length = True
    return dicom_file(folder / f"{number:04d}.dcm", ds, JPEG)
