"""Putting one query to a peer, by however many requests its profile needs.

Lists of UIDs asked one by one, the hierarchy walked, Patient IDs asked by pattern, optional keys that
the peer ignores asked for empty, and each answer's length looked at (semantics 13 to 15). What is
yielded here may still miss the query: :mod:`.find` judges it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from pydicom.datadict import tag_for_keyword

from airflow_provider_varian.dimse.answers import Answered
from airflow_provider_varian.dimse.find import FindMatch, iter_matches
from airflow_provider_varian.dimse.lasting import LastingAssociation
from airflow_provider_varian.errors import CroppedAnswerError, PeerFailureError, QueryError
from airflow_provider_varian.query.level import UNIQUE_KEYS, Level
from airflow_provider_varian.query.model import REQUIRED_KEYS, InformationModel, model_for
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.query.query import Key, Query
from airflow_provider_varian.query.values import python_encodings, read
from airflow_provider_varian.query.verdict import Verdict
from airflow_provider_varian.query.walk import walk

log = logging.getLogger(__name__)

STEP: Final = "C-FIND"
#: From here on a round count is worth a word: nobody limits a list to fewer.
_SMALLEST_ROUND_COUNT: Final = 100

_UNIQUE_TAGS: Final = {level: tag_for_keyword(keyword) or 0 for level, keyword in UNIQUE_KEYS.items()}

_T = TypeVar("_T")


@contextmanager
def ending(rows: Iterator[_T]) -> Iterator[Iterator[_T]]:
    """Close an iterator at the end of the block: a request under way is cancelled then."""
    try:
        yield rows
    finally:
        close = getattr(rows, "close", None)
        if close is not None:
            close()


def unique_value(dataset: Answered, level: Level) -> str:
    """Return the unique key of a level as an answer gives it; empty when it does not."""
    values = read(dataset, _UNIQUE_TAGS[level])
    return str(values[0]) if values else ""


class Asker:
    """Puts queries to a peer over one association, or over several with the peer's quiet hours between them.

    :param association: an open association with contexts for C-FIND.
    :param profile: the peer's habits.
    :param log_level: at which each request is logged.
    """

    def __init__(self, association: LastingAssociation, profile: Profile, *, log_level: int = logging.INFO) -> None:
        self.association = association
        self._log_level = log_level
        self.peer = association.peer
        self.profile = profile
        #: Python's encodings for answers that name no character set.
        self.assumed = python_encodings(tuple((self.peer.assume_character_set or "").split("\\")))
        #: Sentences about answers that may have been cropped.
        self.warnings: list[str] = []
        #: Whether a pattern found what the exact Patient ID did not.
        self.found_by_pattern = False
        self._counts: dict[int, Query] = {}

    def model_of(self, query: Query) -> InformationModel:
        """Return the information model in which a query is asked.

        :raises QueryError: when profile or connection rule it out.
        """
        if query.level is Level.PATIENT and not self.profile.patient_level:
            raise QueryError(
                "the peer answers nothing at PATIENT level", peer=self.peer.name, hint="Ask at STUDY level"
            )
        return model_for(query.level, self.peer.information_model)

    def ask(self, query: Query) -> Iterator[Answered]:
        """Yield what the peer answers to a query.

        :raises CroppedAnswerError: the query is too broad, or the answer ends at a known limit.
        :raises QueryError: nothing selects at the top of a hierarchy that has to be walked.
        """
        model = self.model_of(query)
        parts = self._one_by_one(query)
        seen: set[str] = set()
        for part in parts:
            if self.profile.relational_queries:
                rows = self._asked(part, model)
            else:
                rows = walk(part, model, lambda step: self._matching(step, model), self.assumed)
            with ending(rows):
                if len(parts) == 1:
                    yield from rows
                    return
                for dataset in rows:
                    uid = unique_value(dataset, query.level)
                    if uid and uid in seen:
                        continue
                    seen.add(uid)
                    yield dataset

    def _one_by_one(self, query: Query) -> list[Query]:
        """Split lists of UIDs where the profile does not allow them (semantics 15)."""
        if self.profile.uid_lists:
            return [query]
        queries = [query]
        for key in query.keys:
            if len(key.values) > 1 and key.vr == "UI":
                queries = [part.with_key(Key(key.keyword, "UI", (uid,))) for part in queries for uid in key.values]
        return queries

    def _matching(self, query: Query, model: InformationModel) -> Iterator[Answered]:
        """Ask one level of a walk: below what does not match nothing is looked for."""
        matcher = query.matcher()
        with ending(self._asked(query, model)) as rows:
            for dataset in rows:
                if matcher.match(dataset, self.assumed) is not Verdict.MISS:
                    yield dataset

    def _asked(self, query: Query, model: InformationModel) -> Iterator[Answered]:
        """Ask, and ask by pattern when an exact Patient ID that the profile lists finds nothing (semantics 14)."""
        key = query.get("PatientID")
        pattern = self.profile.patient_id_patterns.get(key.values[0]) if key and key.values else None
        if pattern is None:
            yield from self._trusted(query, model)
            return
        matcher, found = query.matcher(), False
        for sent in (query, query.with_key(Key("PatientID", "LO", (pattern,)))):
            with ending(self._trusted(sent, model)) as rows:
                for dataset in rows:
                    found = found or matcher.match(dataset, self.assumed) is not Verdict.MISS
                    yield dataset
            if found:
                self.found_by_pattern = self.found_by_pattern or sent is not query
                return

    def _trusted(self, query: Query, model: InformationModel) -> Iterator[Answered]:
        """Ask, and ask again when the peer says that it ignored optional keys (status 0xFF01).

        It may then send our own values back as its answer. So those keys are asked for empty, and
        what comes can only be its own.
        """
        optional = {key.keyword for key in query.matching_keys if key.keyword not in REQUIRED_KEYS}
        optional -= self.profile.unreliable_matching_keys
        seen: set[str] = set()
        with ending(self._sent(query, model, frozenset())) as matches:
            for match in matches:
                if optional:
                    if not match.optional_keys_supported:
                        break
                    seen.add(unique_value(match.answer, query.level))
                yield match.answer
            else:
                return
        log.info("%s does not match on optional keys: they are compared here", self.peer.name)
        with ending(self._sent(query, model, frozenset(optional))) as matches:
            for match in matches:
                uid = unique_value(match.answer, query.level)
                if not uid or uid not in seen:
                    yield match.answer

    def _sent(self, query: Query, model: InformationModel, unsent: frozenset[str]) -> Iterator[FindMatch]:
        """Send one request, when the peer may be asked, and count its matches."""
        association = self.association.next()
        log.log(self._log_level, "C-FIND to %s: %s", self.peer.name, query.keyword_summary())
        identifier = query.identifier(unsent=unsent | self.profile.unreliable_matching_keys)
        count = 0
        try:
            with ending(iter_matches(association, model.find_uid, identifier)) as matches:
                for match in matches:
                    count += 1
                    yield match
        except PeerFailureError as error:
            if error.status in self.profile.too_broad_statuses:
                raise CroppedAnswerError(
                    f"the query is too broad for the peer: {query.keyword_summary()}",
                    peer=self.peer.name,
                    step=STEP,
                    status=error.status,
                    hint="Narrow it by PatientID, StudyInstanceUID or a shorter range of dates",
                ) from error
            raise
        self._look_at_count(query, count)

    def _look_at_count(self, query: Query, count: int) -> None:
        """Judge a finished answer by its length: a crop that ends in success leaves no other trace (semantics 13)."""
        if count in self.profile.known_caps:
            raise CroppedAnswerError(
                f"the answer ends at {count} matches, where the peer is known to stop: {query.keyword_summary()}",
                peer=self.peer.name,
                step=STEP,
                hint="Ask for less at a time, e.g. by a shorter range of dates or study by study",
            )
        if count < _SMALLEST_ROUND_COUNT:
            return
        if count % _SMALLEST_ROUND_COUNT == 0 or count & (count - 1) == 0:
            self._warn(f"{count} matches is a round number: the peer may have stopped at a limit of its own")
        elif self._counts.setdefault(count, query) != query:
            self._warn(
                f"two different queries had {count} matches each: the peer may have stopped at a limit of its own"
            )

    def _warn(self, sentence: str) -> None:
        log.warning("C-FIND with %s: %s", self.peer.name, sentence)
        self.warnings.append(sentence)
