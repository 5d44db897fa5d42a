"""What a daemon holds: a tree of patients, studies, series and instances, and the search in it.

The tree is walked from the top and pruned by the keys of each level, so nothing is made that was
not asked for, and upper keys may be missing: queries behave relationally (varian-daemon 1.3).
Pixels are touched by :meth:`Node.fetch` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Final, Protocol

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from airflow_provider_varian import uids
from airflow_provider_varian.query.level import LEVELS, UNIQUE_KEYS, Level
from airflow_provider_varian.query.matching import NOT_KEYS, Matcher, Verdict
from airflow_provider_varian.query.temporal import Span, key_span
from airflow_provider_varian.query.values import encodings_of, read, vr_of
from airflow_provider_varian.simulator.holdings.attributes import Values, element_of, keyword_of, tag_of
from airflow_provider_varian.simulator.holdings.stored_file import StoredFile

#: PS3.10 7.1
_FILE_META: Final = 0x0002

_PATIENT = frozenset(
    {"PatientID", "PatientName", "PatientBirthDate", "PatientSex", "PatientBirthTime", "OtherPatientIDs",
     "IssuerOfPatientID", "EthnicGroup", "PatientComments", "NumberOfPatientRelatedStudies",
     "NumberOfPatientRelatedSeries", "NumberOfPatientRelatedInstances"}
)  # fmt: skip
_STUDY = frozenset(
    {"StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber",
     "ReferringPhysicianName", "ModalitiesInStudy", "SOPClassesInStudy", "NumberOfStudyRelatedSeries",
     "NumberOfStudyRelatedInstances"}
)  # fmt: skip
_SERIES = frozenset(
    {"SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime",
     "OperatorsName", "Manufacturer", "ManufacturerModelName", "StationName", "DeviceSerialNumber",
     "SoftwareVersions", "InstitutionName", "BodyPartExamined", "FrameOfReferenceUID", "ProtocolName",
     "NumberOfSeriesRelatedInstances"}
)  # fmt: skip


def level_of(keyword: str) -> Level:
    """Return the level to which an attribute belongs; what is of no upper level is of the image."""
    if keyword in _PATIENT:
        return Level.PATIENT
    if keyword in _STUDY:
        return Level.STUDY
    return Level.SERIES if keyword in _SERIES else Level.IMAGE


def level_of_tag(tag: BaseTag) -> Level:
    """Return the level to which a tag belongs; see :func:`level_of`."""
    return level_of(keyword_of(tag))


#: First and last day, by keyword; see :class:`Node`.
Spans = Mapping[str, tuple[date, date] | None]


class Export(StrEnum):
    """How the daemon must behave when a series or an instance is to be retrieved (varian-daemon 1.4, quirk 12)."""

    #: It is sent.
    NORMAL = "normal"
    #: Of an instance: its sub-operation fails, and it stands in the failed list (0xB000; 0xA702 when none came).
    FAILS = "fails"
    #: Of a series: listed, but a retrieve that names it ends with 0xC001 and no sub-operation; a retrieve of
    #: something above it goes on without it.
    NOT_FOUND = "not found"


@dataclass(slots=True, kw_only=True)
class Node:
    """One patient, study, series or instance.

    :param level: which of the four.
    :param uid: value of the level's unique key; the Patient ID for a patient.
    :param values: attributes of this level, made when first looked at.
    :param children: what lies below, made at each call.
    :param shared: IMAGE-level attributes that all instances of a series have alike, for pruning.
    :param spans: by keyword, the first and the last day that an attribute of something below can have, for pruning;
        a keyword that is not there says nothing, and ``None`` that nothing below has the attribute.
    :param sop_class_uid: SOP Class UID of an instance.
    :param transfer_syntax: in which an instance is held; what is not compressed can be converted.
    :param fetch: for instances, makes the whole data set, text undecided as to character set.
    :param file: the file of an instance that may be sent as it lies there.
    :param export: how a retrieve of it ends.
    """

    level: Level
    uid: str
    values: Callable[[], Values]
    children: Callable[[], Iterable[Node]] = tuple
    shared: Callable[[], Values] = field(default=dict)
    spans: Callable[[], Spans] = field(default=dict)
    sop_class_uid: str = ""
    transfer_syntax: str = uids.IMPLICIT_VR_LITTLE_ENDIAN
    fetch: Callable[[], Dataset] = Dataset
    file: StoredFile | None = None
    export: Export = Export.NORMAL


#: From the patient down to the level asked for.
Chain = tuple[Node, ...]


class Holdings(Protocol):
    """Anything that a daemon can serve."""

    def patients(self, wanted: Search) -> Iterable[Node]:
        """Return the patients among whom the wanted ones are; all, when nothing narrows it down."""

    def sop_classes(self) -> frozenset[str]:
        """Return the SOP classes of the instances held, for negotiating C-GET."""


class Search:
    """The conditions of one request, sorted by level.

    :param level: Query/Retrieve Level; keys of deeper levels are ignored, as optional keys that a
        server does not know (PS3.4 C.2.2.1.3).
    :param keys: the identifier.
    :raises QueryError: when a key cannot be read.
    """

    def __init__(self, level: Level, keys: Dataset) -> None:
        self.level = level
        self.keys = keys
        by_level: dict[Level, Dataset] = {each: Dataset() for each in LEVELS}
        for element in keys:
            # What the dictionary does not know is an optional key that we do not support; so is file meta
            # information, which some clients put beside a SOP class or instance.
            if element.tag not in NOT_KEYS and element.tag.group != _FILE_META and keyword_of(element.tag):
                by_level[level_of_tag(element.tag)].add(element)
        if "SpecificCharacterSet" in keys:
            for part in by_level.values():
                part.SpecificCharacterSet = keys.SpecificCharacterSet
        self._matchers = {each: Matcher(part) for each, part in by_level.items() if each.depth <= level.depth}
        self._uids = {each: unique_values(keys, each) for each in LEVELS}
        self._days = {
            keyword: span
            for each, part in by_level.items()
            if Level.PATIENT.depth < each.depth <= level.depth
            for keyword, span in _day_spans(part).items()
        }

    def uids(self, level: Level) -> frozenset[str]:
        """Return the values asked for of a level's unique key; empty when it is free or a pattern."""
        return self._uids[level] if level.depth <= self.level.depth else frozenset()

    def keywords(self) -> tuple[str, ...]:
        """Return the keywords on which there is a condition."""
        return tuple(keyword for matcher in self._matchers.values() for keyword in matcher.keywords)

    def accepts(self, node: Node) -> bool:
        """Say whether a node fulfils the keys of its own level."""
        uids = self.uids(node.level)
        if uids and node.level is not Level.PATIENT and node.uid not in uids:
            return False
        return self._fulfils(self._matchers[node.level], node.values)

    def may_hold(self, series: Node) -> bool:
        """Say whether instances of a series can fulfil the IMAGE keys, from what they share."""
        matcher = self._matchers.get(Level.IMAGE)
        if not matcher:
            return True
        shared = series.shared()
        known = Dataset()
        for keyword in matcher.keywords:
            element = element_of(shared, tag_of(keyword))
            if element is not None:
                known.add(element)
        return all(verdict is not Verdict.MISS for verdict in matcher.verdicts(known).values())

    def may_lie_below(self, node: Node) -> bool:
        """Say whether something below a node can have the dates asked for, from its spans."""
        if not self._days:
            return True
        spans = node.spans()
        for keyword, wanted in self._days.items():
            if keyword in spans:
                held = spans[keyword]
                if held is None or not wanted.touches(Span(held[0].toordinal(), held[1].toordinal())):
                    return False
        return True

    def _fulfils(self, matcher: Matcher, values: Callable[[], Values]) -> bool:
        if not matcher:
            return True
        held = values()
        part = Dataset()
        for keyword in matcher.keywords:
            element = element_of(held, tag_of(keyword))
            if element is not None:
                part.add(element)
        # A server knows its data: what it does not hold does not match.
        return matcher.match(part) is Verdict.MATCH


def unique_values(keys: Dataset, level: Level) -> frozenset[str]:
    """Return the values of a level's unique key in an identifier; empty when universal or a pattern."""
    values = [str(value).strip() for value in read(keys, tag_of(UNIQUE_KEYS[level]), encodings_of(keys)) or ()]
    if level is Level.PATIENT and any("*" in value or "?" in value for value in values):
        return frozenset()
    return frozenset(value for value in values if value)


def _day_spans(keys: Dataset) -> dict[str, Span]:
    """Return the days that date keys ask for, by keyword; keys of several values are left out."""
    found = {}
    for element in keys:
        if vr_of(keys, element.tag) != "DA":
            continue
        values = [str(value).strip() for value in read(keys, element.tag, encodings_of(keys)) or ()]
        if len(values) == 1 and values[0]:
            found[keyword_of(element.tag)] = key_span("DA", values[0])
    return found


def walk(holdings: Holdings, search: Search) -> Iterator[Chain]:
    """Yield the chains down to the searched level that fulfil the keys."""
    for patient in holdings.patients(search):
        if search.may_lie_below(patient) and search.accepts(patient):
            yield from _descend((patient,), search)


def instances_below(chain: Chain) -> Iterator[Chain]:
    """Yield the chains of all instances at or below the end of a chain."""
    if chain[-1].level is Level.IMAGE:
        yield chain
        return
    for child in chain[-1].children():
        yield from instances_below((*chain, child))


def _descend(chain: Chain, search: Search) -> Iterator[Chain]:
    last = chain[-1]
    if last.level is search.level:
        yield chain
        return
    if last.level is Level.SERIES and not search.may_hold(last):
        return
    for child in last.children():
        if search.may_lie_below(child) and search.accepts(child):
            yield from _descend((*chain, child), search)
