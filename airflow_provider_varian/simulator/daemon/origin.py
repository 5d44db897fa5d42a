"""Where an error came from, for a log that has one line for each thing that happens."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Final

_FRAMES: Final = 6


def origin(error: BaseException) -> str:
    """Return the innermost places of an error's traceback in one line, the one that raised it first.

    The error's own words, which may quote a patient, are not among it.
    """
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    places = (f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return " < ".join(places) or "an unknown place"
