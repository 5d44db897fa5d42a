"""Asking a query that is too broad for the peer in parts, until each part is whole (semantics 13).

The DB Daemon ends a query that would list too much with 0xC001 and no row; other peers crop. What is split here is
asked again by halves of its range of dates, down to a day, and then by the last characters of a key. The parts
together are what was asked for, merged without duplicates; what no part can cover is named in a warning. Where nothing
is left to split by, the error says so: never is a cropped list returned.
"""

from __future__ import annotations

import logging
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Protocol

from pydicom.datadict import dictionary_VR, tag_for_keyword

from airflow_provider_varian.errors import CroppedAnswerError, OutOfResourcesError, QueryError
from airflow_provider_varian.query.asking import STEP
from airflow_provider_varian.query.find import FindResult, FindSession, OnUndecided
from airflow_provider_varian.query.matching import WILDCARD_VRS
from airflow_provider_varian.query.query import Key, Query
from airflow_provider_varian.query.temporal import key_span

log = logging.getLogger(__name__)

#: In which an ID may end: ASCII that is printed, without wildcards (``*``, ``?``), the backslash that separates
#: values, and the blank, which pads (PS3.5 6.2).
PRINTABLE: Final = (
    string.digits
    + string.ascii_uppercase
    + string.ascii_lowercase
    + "".join(sorted(set(string.punctuation) - set("*?\\")))
)
#: Requests after which a query is given up: a peer that calls everything too broad must not be asked for ever.
MOST_REQUESTS: Final = 5000


class Split(Protocol):
    """A way to split a query."""

    @property
    def keyword(self) -> str:
        """The key that the parts differ in."""

    def parts(self, query: Query) -> list[Query]:
        """Return queries that together ask for the same; nothing when the query cannot be split this way (any more)."""

    def remainder(self) -> str:
        """Say what the parts may leave out; empty when nothing."""


@dataclass(frozen=True, slots=True)
class ByDate:
    """By halves of a range of dates, down to a day.

    What has no date is not in the range either, so nothing is left out.

    :param keyword: a key of VR DA with a range in the query; one without an end cannot be halved.
    """

    keyword: str

    def parts(self, query: Query) -> list[Query]:
        """Return the two halves; see :class:`Split`."""
        key = query.get(self.keyword)
        if key is None or not key.values or key.vr != "DA":
            return []
        span = key_span("DA", key.values[0])
        if span.low is None or span.high is None or span.low == span.high:
            return []
        middle = (span.low + span.high) // 2
        halves = ((span.low, middle), (middle + 1, span.high))
        return [query.with_key(Key(self.keyword, "DA", (_range(first, last),))) for first, last in halves]

    def remainder(self) -> str:
        """Return nothing; see :class:`Split`."""
        return ""


@dataclass(frozen=True, slots=True)
class BySuffix:
    """By the last characters of a key: ``*0``, ``*1``, and where that is too broad ``*00``, ``*10`` and so on.

    :param keyword: a key that the peer is known to match with wildcards, and that is never empty.
    :param characters: in which values may end. Values that end otherwise, in a letter with an accent for example, are
        not asked for, and a warning says so.
    :param depth: how many characters at most.
    :raises QueryError: when the key knows no wildcards, or the numbers are none.
    """

    keyword: str = "PatientID"
    characters: str = PRINTABLE
    depth: int = 4

    def __post_init__(self) -> None:
        if self._vr not in WILDCARD_VRS - {"PN"}:
            raise QueryError(f"{self.keyword} knows no wildcards, so it cannot be split by its last characters")
        if not self.characters or set("*?\\ ") & set(self.characters) or self.depth < 1:
            raise QueryError("a split by last characters takes a depth from 1, and characters but for * ? \\ and blank")

    @property
    def _vr(self) -> str:
        return str(dictionary_VR(self.keyword)) if tag_for_keyword(self.keyword) is not None else ""

    def parts(self, query: Query) -> list[Query]:
        """Return a query per character; see :class:`Split`."""
        key = query.get(self.keyword)
        pattern = key.values[0] if key is not None and key.values else "*"
        suffix = pattern.removeprefix("*")
        if not pattern.startswith("*") or set("*?") & set(suffix) or (key is not None and key.literal):
            return []
        if len(suffix) >= self.depth:
            return []
        # A blank pads at the end, and stands for itself before other characters.
        characters = self.characters + " " if suffix else self.characters
        values = [f"*{character}{suffix}" for character in dict.fromkeys(characters)]
        # The suffix may be the whole value.
        values += [suffix] if suffix else []
        return [query.with_key(Key(self.keyword, self._vr, (value,))) for value in values]

    def remainder(self) -> str:
        """Return what no part asks for; see :class:`Split`."""
        return (
            f"the peer found the query too broad, so it was asked in parts by the last characters of {self.keyword}: "
            f"what ends in another than the {len(set(self.characters))} that were asked for may be missing"
        )


def find_whole(
    session: FindSession, query: Query, *, by: Sequence[Split], undecided: OnUndecided = "error"
) -> FindResult:
    """Ask a query, in parts where the peer calls it too broad or crops the answer.

    That it does shows by a status of the profile (0xC001 of the DB Daemon), by 0xA700, by 0xFE00 that nobody asked
    for, or by a number of matches at which the peer is known to stop.

    :param session: an open session.
    :param query: what to ask for.
    :param by: ways to split it, tried in this order; the keys must be known to match, which a profile may deny.
    :param undecided: ``error`` or ``keep`` answers that stay undecided, as in
        :meth:`~airflow_provider_varian.query.find.FindSession.find`.
    :return: all matches, each once.
    :raises CroppedAnswerError: the peer does not list a part whole that cannot be split further.
    :raises OutOfResourcesError: likewise, when it said 0xA700: it may be able to later.
    :raises DicomError: what :meth:`~airflow_provider_varian.query.find.FindSession.find` raises else.
    """
    return _Splitter(session, by, undecided).whole(query)


class _Splitter:
    def __init__(self, session: FindSession, by: Sequence[Split], undecided: OnUndecided) -> None:
        self._session = session
        # What the peer does not match on splits nothing: each part would be as broad as the whole.
        self._by = [each for each in by if each.keyword not in session.profile.unreliable_matching_keys]
        self._undecided = undecided
        self._requests = 0
        self._left_out: dict[str, None] = {}

    def whole(self, query: Query) -> FindResult:
        results = self._ask(query)
        if len(results) == 1:
            return results[0]
        log.info("%s was asked in %d parts", query.keyword_summary(), len(results))
        answers = _each_once(query, (answer for result in results for answer in result.answers))
        open_ones = _each_once(query, (answer for result in results for answer in result.undecided))
        unique = query.level.unique_key
        decided = {answer.get(unique) for answer in answers}
        warnings = (warning for result in results for warning in result.warnings)
        return FindResult(
            answers=answers,
            undecided=[answer for answer in open_ones if not answer.get(unique) or answer[unique] not in decided],
            model=results[0].model,
            warnings=list(dict.fromkeys((*warnings, *self._left_out))),
            found_by_pattern=any(result.found_by_pattern for result in results),
        )

    def _ask(self, query: Query) -> list[FindResult]:
        """Ask, and where it is too broad its parts, one after the other."""
        self._requests += 1
        try:
            return [self._session.find(query, undecided=self._undecided)]
        except (CroppedAnswerError, OutOfResourcesError) as error:
            parts = self._parts(query, error)
        return [result for part in parts for result in self._ask(part)]

    def _parts(self, query: Query, error: CroppedAnswerError | OutOfResourcesError) -> list[Query]:
        for way in self._by:
            parts = way.parts(query)
            if not parts:
                continue
            if self._requests + len(parts) > MOST_REQUESTS:
                raise self._too_broad(f"{self._requests} requests were made for parts of it", error) from error
            remainder = way.remainder()
            if remainder:
                self._left_out[remainder] = None
            return parts
        if self._requests == 1:
            raise error
        raise self._too_broad(f"a part of it cannot be split further: {query.keyword_summary()}", error) from error

    def _too_broad(self, why: str, error: CroppedAnswerError | OutOfResourcesError) -> Exception:
        return type(error)(
            f"the peer does not list the whole answer, although it was asked in parts; {why}",
            peer=self._session.peer.name,
            step=STEP,
            status=error.status,
            hint="Ask for less at a time: fewer days, or one patient or study",
        )


def _each_once(query: Query, answers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return answers in their order, each entity of the query's level once; those that name none all stay."""
    unique = query.level.unique_key
    seen: set[Any] = set()
    kept: list[dict[str, Any]] = []
    for answer in answers:
        uid = answer.get(unique)
        if uid and uid in seen:
            continue
        seen.add(uid)
        kept.append(answer)
    return kept


def _range(first: int, last: int) -> str:
    """Write days, as ordinals, as a DA key."""
    low, high = (date.fromordinal(day).strftime("%Y%m%d") for day in (first, last))
    return low if first == last else f"{low}-{high}"
