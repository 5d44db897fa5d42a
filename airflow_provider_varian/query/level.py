"""Query/Retrieve levels and their unique keys (PS3.4 C.6.1.1 and C.6.2.1). Standard library only."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from airflow_provider_varian.errors import QueryError


class Level(StrEnum):
    """The values of Query/Retrieve Level (0008,0052), from the whole to the part."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"

    @property
    def depth(self) -> int:
        """0 for PATIENT to 3 for IMAGE."""
        return LEVELS.index(self)

    @property
    def unique_key(self) -> str:
        """Keyword of the unique key of this level."""
        return UNIQUE_KEYS[self]

    def through(self, deepest: Level) -> tuple[Level, ...]:
        """Return the levels from this one down to ``deepest``, both included."""
        return LEVELS[self.depth : deepest.depth + 1]

    @classmethod
    def parse(cls, value: object) -> Level:
        """Read a level as people type it.

        :param value: a :class:`Level` or its name in any case.
        :raises QueryError: when it is missing or not one of the four.
        """
        text = value.strip().upper() if isinstance(value, str) else ""
        if text in cls.__members__:
            return cls(text)
        known = ", ".join(LEVELS)
        if value is None or not text:
            raise QueryError("the query/retrieve level is missing", hint=f"Give one of {known}")
        near = get_close_matches(text, LEVELS, n=1)
        raise QueryError(
            f"{value!r} is not a query/retrieve level",
            hint=f"Did you mean {near[0]}? The levels are {known}" if near else f"The levels are {known}",
        )


LEVELS: Final = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE)

UNIQUE_KEYS: Final = MappingProxyType(
    {
        Level.PATIENT: "PatientID",
        Level.STUDY: "StudyInstanceUID",
        Level.SERIES: "SeriesInstanceUID",
        Level.IMAGE: "SOPInstanceUID",
    }
)

LEVEL_OF_UNIQUE_KEY: Final = MappingProxyType({key: level for level, key in UNIQUE_KEYS.items()})


def deepest_level(keywords: Iterable[str]) -> Level | None:
    """Return the level of the deepest unique key among some keywords; None when there is none.

    :param keywords: DICOM keywords; others than unique keys do not count.
    """
    named = set(keywords)
    return next((level for level in reversed(LEVELS) if UNIQUE_KEYS[level] in named), None)
