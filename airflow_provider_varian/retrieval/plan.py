"""Which requests bring what is outstanding: the level that was asked for, then narrower ones.

The first request is the one that the user named. What it did not bring is asked for more narrowly,
because daemons leave out parts of a series and still report success (varian-daemon 1.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from pydicom.dataset import Dataset

from airflow_provider_varian.query.level import LEVEL_OF_UNIQUE_KEY, Level
from airflow_provider_varian.query.model import InformationModel
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.request import RetrievalRequest, texts

#: UIDs in one list: 200 of 64 characters stay far below the 65534 bytes of an explicit VR.
MAX_UIDS: Final = 200

_Patients = Callable[[Entry], tuple[str, ...]]


class Stage(IntEnum):
    """How narrowly to ask, from the widest."""

    AS_ASKED = 0
    SERIES = 1
    IMAGE = 2
    SINGLE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One C-GET or C-MOVE request.

    :param level: its query/retrieve level.
    :param keys: unique keys as pairs of keyword and values.
    :param brings: SOP Instance UIDs of what is outstanding that it should bring.
    """

    level: Level
    keys: tuple[tuple[str, tuple[str, ...]], ...] = field(repr=False)
    brings: tuple[str, ...] = field(repr=False)

    def identifier(self, model: InformationModel) -> Dataset:
        """Return the identifier: level, unique keys, character set where needed (PS3.4 C.4.2.1.4.1)."""
        identifier = Dataset()
        identifier.QueryRetrieveLevel = str(self.level)
        for keyword, values in self.keys:
            if LEVEL_OF_UNIQUE_KEY[keyword].depth < model.top.depth:
                continue
            setattr(identifier, keyword, list(values) if len(values) > 1 else values[0])
            if not all(value.isascii() for value in values):
                identifier.SpecificCharacterSet = "ISO_IR 192"
        return identifier


def stages_of(request: RetrievalRequest) -> tuple[Stage, ...]:
    """Return the stages that make sense for a request, from the widest."""
    if request.level is Level.IMAGE:
        return (Stage.AS_ASKED, Stage.SINGLE)
    if request.level is Level.SERIES:
        return (Stage.AS_ASKED, Stage.IMAGE, Stage.SINGLE)
    return tuple(Stage)


def asks_of(stage: Stage, request: RetrievalRequest, ledger: Ledger, profile: Profile) -> list[Ask]:
    """Return the requests of a stage for what is outstanding; none when nothing is.

    What is here is never asked for again: as soon as a part of the request is here, or a limit holds,
    the images are asked for one by one or in lists.

    :param stage: how narrowly to ask.
    :param request: what the user asked for.
    :param ledger: what is outstanding, and what is here.
    :param profile: whether several UIDs may stand in one key.
    """
    outstanding = ledger.outstanding
    patients = _patients(request)
    size = MAX_UIDS if profile.uid_lists and stage is not Stage.SINGLE else 1
    whole = stage in (Stage.AS_ASKED, Stage.SERIES) and request.level is not Level.IMAGE and not request.limited
    if not whole:
        return list(_by_image(outstanding, patients, size))
    if stage is Stage.SERIES or request.level is Level.SERIES:
        return list(_by_series(outstanding, ledger, patients, size))
    if len(outstanding) < len(ledger.entries):
        return list(_by_image(outstanding, patients, size))
    return whole_asks(request, profile, outstanding) if outstanding else []


def asked_whole(ask: Ask, ledger: Ledger) -> set[str]:
    """Return the UIDs of the series, or of the studies, that a request asks for as a whole."""
    entries = [ledger.entries[uid] for uid in ask.brings]
    if ask.level is Level.IMAGE:
        return set()
    if ask.level is Level.SERIES:
        return {entry.series_instance_uid for entry in entries} - {""}
    return {entry.study_instance_uid for entry in entries} - {""}


def _patient(request: RetrievalRequest) -> tuple[str, ...]:
    """Return the one PatientID, which Patient Root needs at each level; nothing when it is not known."""
    if "PatientID" in request.keys:
        return texts(request.keys["PatientID"])
    known = {str(item.values.get("PatientID") or "") for item in request.expected or ()}
    return tuple(known) if len(known) == 1 and "" not in known else ()


def _patients(request: RetrievalRequest) -> _Patients:
    """Return a function that tells the PatientID of an entry, as far as it is known."""
    one = _patient(request)
    known = {item.sop_instance_uid: str(item.values.get("PatientID") or "") for item in request.expected or ()}

    def patient_of(entry: Entry) -> tuple[str, ...]:
        patient = known.get(entry.sop_instance_uid, "")
        return one or ((patient,) if patient else ())

    return patient_of


def whole_asks(request: RetrievalRequest, profile: Profile, outstanding: Sequence[Entry] = ()) -> list[Ask]:
    """Return the requests that say what the user said, one per value where the peer takes no lists.

    :param request: level and unique keys.
    :param profile: whether several UIDs may stand in one key.
    :param outstanding: what they should bring, where that is known.
    """
    upper = {key: texts(value) for key, value in request.keys.items() if key != request.level.unique_key}
    own = texts(request.keys[request.level.unique_key])
    groups = [own] if profile.uid_lists else [(value,) for value in own]
    return [
        Ask(
            level=request.level,
            keys=_keys({"PatientID": _patient(request), **upper, request.level.unique_key: group}),
            brings=tuple(entry.sop_instance_uid for entry in outstanding if _is_of(entry, request.level, group)),
        )
        for group in groups
    ]


def _is_of(entry: Entry, level: Level, values: tuple[str, ...]) -> bool:
    return level is not Level.STUDY or not entry.study_instance_uid or entry.study_instance_uid in values


def _by_series(outstanding: Sequence[Entry], ledger: Ledger, patients: _Patients, size: int) -> Iterator[Ask]:
    """Ask for whole series where nothing of them is here, else for the images."""
    started = {entry.series_instance_uid for entry in ledger.entries.values() if entry.is_here}
    for (patient, study, series), entries in _groups(outstanding, patients).items():
        if series and series not in started:
            keys = {"PatientID": patient, "StudyInstanceUID": (study,), "SeriesInstanceUID": (series,)}
            yield Ask(level=Level.SERIES, keys=_keys(keys), brings=_uids(entries))
        else:
            yield from _by_image(entries, patients, size)


def _by_image(outstanding: Sequence[Entry], patients: _Patients, size: int) -> Iterator[Ask]:
    for (patient, study, series), entries in _groups(outstanding, patients).items():
        for start in range(0, len(entries), size):
            uids = _uids(entries[start : start + size])
            keys = {
                "PatientID": patient,
                "StudyInstanceUID": (study,),
                "SeriesInstanceUID": (series,),
                "SOPInstanceUID": uids,
            }
            yield Ask(level=Level.IMAGE, keys=_keys(keys), brings=uids)


def _groups(entries: Sequence[Entry], patients: _Patients) -> dict[tuple[tuple[str, ...], str, str], list[Entry]]:
    groups: dict[tuple[tuple[str, ...], str, str], list[Entry]] = {}
    for entry in entries:
        key = (patients(entry), entry.study_instance_uid, entry.series_instance_uid)
        groups.setdefault(key, []).append(entry)
    return groups


def _uids(entries: Sequence[Entry]) -> tuple[str, ...]:
    return tuple(entry.sop_instance_uid for entry in entries)


def _keys(keys: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((keyword, values) for keyword, values in keys.items() if any(values))
