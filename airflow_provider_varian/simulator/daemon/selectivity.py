"""Which queries the daemon finds too broad to begin with (quirk 5, varian-daemon 1.3).

Known are two ends: a list of a whole clinic's day by SOP class or modality and date works, and so does a
pattern such as ``*23`` in a patient's ID; ``*`` alone is answered with 0xC001. Nobody reports a PATIENT or
STUDY query that was refused for its keys: there the number of rows decides alone.
"""

from __future__ import annotations

from typing import Final

from pydicom.datadict import dictionary_VR

from airflow_provider_varian.query.level import LEVELS, Level
from airflow_provider_varian.simulator.holdings.tree import Search

_KINDS_OF_OBJECT: Final = frozenset({"SOPClassUID", "Modality"})
#: Wildcards, and what stands in a name without saying anything.
_SAYS_NOTHING: Final = frozenset("*?^= ")


def is_selective(search: Search) -> bool:
    """Say whether a query names enough for the daemon to begin with it."""
    if not Level.SERIES.depth <= search.level.depth:
        return True
    if any(search.uids(level) for level in LEVELS):
        return True
    if any(_has_a_letter(search, keyword) for keyword in ("PatientID", "PatientName")):
        return True
    keywords = frozenset(search.keywords())
    return bool(keywords & _KINDS_OF_OBJECT) and any(dictionary_VR(each) == "DA" for each in keywords)


def _has_a_letter(search: Search, keyword: str) -> bool:
    value = str(search.keys.get(keyword) or "")
    return any(letter not in _SAYS_NOTHING for letter in value)
