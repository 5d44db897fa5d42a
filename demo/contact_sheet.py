"""A contact sheet of RT Images: one glance says whether what came is what was meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from pydicom import Dataset

THUMBNAIL = 220
CAPTION = 46
MARGIN = 10
COLUMNS = 5


def _around_field(values: np.ndarray) -> np.ndarray:
    """Cut a square around what was irradiated, so that a small field fills its thumbnail."""
    import numpy as np

    low, high = np.percentile(values, (1, 99.9))
    rows, columns = np.nonzero(values > low + 0.3 * (high - low))
    side = int(1.4 * max(np.ptp(rows), np.ptp(columns))) + 2
    middle = (int(rows.mean()), int(columns.mean()))
    (top, left) = (max(0, min(at - side // 2, size - side)) for at, size in zip(middle, values.shape, strict=True))
    return values[top : top + side, left : left + side]


def _thumbnail(dataset: Dataset) -> Image:
    """Render pixel data as an 8-bit thumbnail, stretched between its 1st and 99.9th percentile."""
    import numpy as np
    from PIL import Image

    pixels = np.frombuffer(dataset.PixelData, dtype="<u2").reshape(dataset.Rows, dataset.Columns)
    # Portal images have a negative slope: the more dose, the smaller the stored value.
    values = _around_field(pixels.astype(np.float32) * float(dataset.get("RescaleSlope", 1) or 1))
    low, high = np.percentile(values, (1, 99.9))
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255
    return Image.fromarray(scaled.astype(np.uint8)).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)


def _captions(dataset: Dataset) -> tuple[str, str, str]:
    time = str(dataset.get("AcquisitionTime", "")).ljust(6)
    beam = "kV" if dataset.get("PrimaryDosimeterUnit") == "MINUTE" else "MV"
    gantry = float(dataset.get("GantryAngle") or 0)
    return (
        f"{dataset.get('RadiationMachineName', '')}  {beam}",
        str(dataset.get("RTImageLabel", "")),
        f"{dataset.get('AcquisitionDate', '')} {time[:2]}:{time[2:4]}  gantry {gantry:.0f}",
    )


def contact_sheet(files: Sequence[Path], target: Path) -> None:
    """Write a PNG of all images, in the order given.

    :param files: DICOM files with 16-bit unsigned pixel data.
    :param target: where the PNG goes.
    """
    from PIL import Image, ImageDraw
    from pydicom import dcmread

    rows = -(-len(files) // COLUMNS)
    cell_width, cell_height = THUMBNAIL + MARGIN, THUMBNAIL + CAPTION + MARGIN
    sheet = Image.new("L", (COLUMNS * cell_width + MARGIN, rows * cell_height + MARGIN), 255)
    draw = ImageDraw.Draw(sheet)
    for number, file in enumerate(files):
        dataset = dcmread(file)
        left = MARGIN + number % COLUMNS * cell_width
        top = MARGIN + number // COLUMNS * cell_height
        sheet.paste(_thumbnail(dataset), (left, top))
        for line, text in enumerate(_captions(dataset)):
            draw.text((left, top + THUMBNAIL + 3 + 14 * line), text, fill=0)
    sheet.save(target)
