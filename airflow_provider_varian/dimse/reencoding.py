"""A data set in Explicit VR Little Endian as one in Implicit VR Little Endian (PS3.5 A.1, A.2), as slices.

What differs is how elements begin, not their values: so no value is decoded, and text stays what it was even where
its character set is wrong. Native pixels at the end are sent from the file as they lie there.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from airflow_provider_varian.dimse.slices import FileRange, Slice

PIXEL_DATA: Final = 0x7FE00010
_PIXEL_TAG: Final = b"\xe0\x7f\x10\x00"


def as_implicit(path: Path, pixels: FileRange | None) -> list[Slice]:
    """Return the data set of a file in Implicit VR Little Endian.

    :param path: a DICOM file in Explicit VR Little Endian.
    :param pixels: the value of its Pixel Data (7FE0,0010), when that is native and its last element; ``None``:
        the whole data set is read into memory.
    :raises ValueError: when its structure does not allow it; the text quotes no value.
    :raises OSError: when it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            # pydicom's warnings quote the values that they are about.
            warnings.simplefilter("ignore")
            dataset = dcmread(path, stop_before_pixels=pixels is not None)
            _claim_implicit(dataset)
            buffer = DicomBytesIO()
            buffer.is_implicit_VR, buffer.is_little_endian = True, True
            write_dataset(buffer, dataset)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - pydicom raises what it stumbles over, and quotes the value
        raise ValueError(f"it cannot be re-encoded ({type(error).__name__})") from None
    front = buffer.getvalue()
    return [front] if pixels is None else [front, _PIXEL_TAG + pixels.length.to_bytes(4, "little"), pixels]


def _claim_implicit(dataset: Dataset) -> None:
    """Make pydicom write values as it read them, undecoded; sequences alone have their items taken apart."""
    for tag in list(dataset.keys()):
        if dataset.get_item(tag).VR == "SQ":
            for item in dataset[tag].value:
                _claim_implicit(item)
    dataset.set_original_encoding(True, True, dataset.original_character_set)
