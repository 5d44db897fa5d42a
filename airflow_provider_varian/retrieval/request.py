"""What to retrieve: a level with its unique keys, and which instances should come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_varian.errors import QueryError
from airflow_provider_varian.query.level import LEVEL_OF_UNIQUE_KEY, Level
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.uids import is_uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """An instance that the peer lists, or that is known by name.

    :param sop_instance_uid: which.
    :param sop_class_uid: decides what is offered in a C-GET; empty when unknown.
    :param study_instance_uid: needed by peers without relational queries; empty when unknown.
    :param series_instance_uid: likewise.
    :param values: what the peer said of it by keyword, for the layout.
    :param found_by_pattern: the peer found it by a pattern, not by the exact ID.
    """

    sop_instance_uid: str
    sop_class_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    found_by_pattern: bool = False

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any], *, found_by_pattern: bool = False) -> Expected:
        """Make one of an answer of an IMAGE level C-FIND."""
        return cls(
            sop_instance_uid=str(answer.get("SOPInstanceUID") or ""),
            sop_class_uid=str(answer.get("SOPClassUID") or ""),
            study_instance_uid=str(answer.get("StudyInstanceUID") or ""),
            series_instance_uid=str(answer.get("SeriesInstanceUID") or ""),
            values=answer,
            found_by_pattern=found_by_pattern,
        )

    def entry(self) -> Entry:
        """Return its line in the ledger."""
        return Entry(
            sop_instance_uid=self.sop_instance_uid,
            sop_class_uid=self.sop_class_uid,
            study_instance_uid=self.study_instance_uid,
            series_instance_uid=self.series_instance_uid,
            found_by_pattern=self.found_by_pattern,
        )


@dataclass(frozen=True, slots=True)
class Relisted:
    """An answer with what to know of it.

    :param instances: what is listed.
    :param warnings: in sentences without identifiers.
    """

    instances: Sequence[Expected]
    warnings: Sequence[str] = ()


def with_uids(instances: Iterable[Expected], warnings: Iterable[str] = ()) -> Relisted:
    """Leave out answers whose SOP Instance UID is none: there is nothing to ask for, and it may not become a path.

    :param instances: what the peer listed.
    :param warnings: what is known of the list already; that some were left out is added.
    """
    listed = list(instances)
    named = tuple(item for item in listed if is_uid(item.sop_instance_uid))
    if len(named) == len(listed):
        return Relisted(named, tuple(warnings))
    words = (
        f"{len(listed) - len(named)} of {len(listed)} listed instances have no usable SOP Instance UID: "
        "they cannot be retrieved, and are in no count"
    )
    return Relisted(named, (*warnings, words))


#: Puts the question again that ``expected`` is the answer to.
Relist = Callable[[], Sequence[Expected] | Relisted]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalRequest:
    """What to retrieve.

    :param level: the query/retrieve level to ask at.
    :param keys: unique keys of that level and of those above, by keyword (semantics 15); a UID may be
        several, in a list. May be empty at IMAGE level when ``expected`` names the instances, and when there
        are none.
    :param expected: the instances that should come; ``None``: an IMAGE level C-FIND says so; empty: nothing
        fits what was asked for.
    :param minimum: how many must exist at least; fewer make the outcome ``short``.
    :param limit: take so many at most; when there are more the outcome is ``limited``.
    :param limited: a limit was hit already when ``expected`` was made.
    :param warnings: what to know of how it was made, in sentences without identifiers.
    :param relist: puts the question again that ``expected`` answers, for the re-check after the transfer
        (:mod:`.recheck`). Without it instances that were given by name are not looked for again; without
        ``expected`` the keys are listed again.
    :raises QueryError: when the keys do not fit the level.
    """

    level: Level
    keys: Mapping[str, str | Sequence[str]] = field(default_factory=dict, repr=False)
    expected: tuple[Expected, ...] | None = None
    minimum: int | None = None
    limit: int | None = None
    limited: bool = False
    warnings: tuple[str, ...] = ()
    relist: Relist | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for keyword, value in self.keys.items():
            self._check(keyword, value)
        # Instances known by name are asked for by name; nothing at all is not asked for.
        named = self.expected is not None and (self.level is Level.IMAGE or not self.expected)
        if self.level.unique_key not in self.keys and not named:
            raise QueryError(
                f"a retrieval at {self.level} level needs the key {self.level.unique_key}",
                hint="Give it, or select by C-FIND first",
            )
        for expected in self.expected or ():
            if not is_uid(expected.sop_instance_uid):
                raise QueryError("an expected instance has no SOP Instance UID")
        if self.limit is not None and self.limit < 1:
            raise QueryError("a limit is at least 1")

    def _check(self, keyword: str, value: str | Sequence[str]) -> None:
        level = LEVEL_OF_UNIQUE_KEY.get(keyword)
        if level is None or level.depth > self.level.depth:
            raise QueryError(
                f"{keyword} cannot be a key of a retrieval at {self.level} level",
                hint="Unique keys of the level and of those above it only (PS3.4 C.4.2.1.4.1); select by C-FIND first",
            )
        values = texts(value)
        if not values or (level is Level.PATIENT and len(values) > 1):
            raise QueryError(f"the key {keyword} needs a value" if not values else f"{keyword} takes one value")
        if level is not Level.PATIENT and not all(is_uid(uid) for uid in values):
            raise QueryError(f"the key {keyword} is not a UID", hint="Digits and single dots, at most 64 characters")

    def summary(self) -> dict[str, Any]:
        """Describe it for the manifest: UIDs by keyword, other keys by name only (design 6)."""
        uids = {key: list(texts(value)) for key, value in self.keys.items() if key.endswith("InstanceUID")}
        return {
            "level": str(self.level),
            "uids": uids,
            "keys_left_out": sorted(set(self.keys) - set(uids)),
            "minimum": self.minimum,
            "limit": self.limit,
        }


def texts(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return the values of a key as a tuple, without empty ones."""
    return tuple(text for text in ((value,) if isinstance(value, str) else value) if text)
