"""C-FIND as the daemon answers it (PS3.4 C.4.1, varian-daemon 1.3)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import islice
from typing import Final

from pydicom.dataset import Dataset

from airflow_provider_varian.errors import QueryError
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.daemon import character_sets, hierarchy
from airflow_provider_varian.simulator.daemon.answers import answer
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.faults import Step
from airflow_provider_varian.simulator.daemon.selectivity import is_selective
from airflow_provider_varian.simulator.daemon.turn import CutShortError, Turn
from airflow_provider_varian.simulator.daemon.wire import Exchange
from airflow_provider_varian.simulator.holdings.tree import Chain, Holdings, Search, walk

log = logging.getLogger(__name__)

SUCCESS: Final = 0x0000
PENDING: Final = 0xFF00
CANCELLED: Final = 0xFE00
#: PS3.4 C.4.1.1.4: the identifier does not fit the model, e.g. no level or PATIENT in Study Root.
IDENTIFIER_MISMATCH: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000
#: varian-daemon 1.3: a query that is too broad ends so, without rows.
TOO_BROAD: Final = 0xC001

#: A short answer lacks up to this part of its rows (quirk 10).
_MOST_LEFT_OUT: Final = 4

#: Matches that are kept while they are counted.
_MOST_KEPT: Final = 200


class BadIdentifierError(Exception):
    """The identifier cannot be served.

    :param status: status of the final response.
    :param comment: Error Comment; names no values.
    """

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = comment


def read_identifier(exchange: Exchange, behaviour: Behaviour) -> tuple[Level, Dataset]:
    """Return level and keys of a request.

    :raises BadIdentifierError: when it is not decodable, its level is missing or not of the model, or it lacks
        keys of upper levels although the daemon wants them (quirk 4).
    """
    try:
        keys = exchange.identifier()
        text = str(keys.get("QueryRetrieveLevel") or "").strip()
    except Exception as error:  # noqa: BLE001 - anything may stand in a client's bytes
        log.info("An identifier could not be decoded: %s", type(error).__name__)
        raise BadIdentifierError(CANNOT_UNDERSTAND, "Identifier cannot be decoded") from None
    if text not in Level.__members__:
        raise BadIdentifierError(IDENTIFIER_MISMATCH, "Query/Retrieve Level missing or unknown")
    level = Level(text)
    if level not in hierarchy.levels_of(exchange.model_uid):
        raise BadIdentifierError(IDENTIFIER_MISMATCH, f"{level} level is not in this information model")
    relational = behaviour.relational or hierarchy.is_negotiated(exchange.assoc, exchange.model_uid)
    if not relational and hierarchy.lacks_upper_keys(level, keys, exchange.model_uid):
        raise BadIdentifierError(IDENTIFIER_MISMATCH, "A unique key of an upper level is missing")
    return level, keys


def build_search(level: Level, keys: Dataset) -> Search:
    """Read the keys of an identifier.

    :raises BadIdentifierError: when one cannot be read, e.g. a date that is none.
    """
    try:
        return Search(level, keys)
    except QueryError:
        # Its words may quote the value, which does not belong into a log.
        log.info("A key of an identifier could not be read")
        raise BadIdentifierError(IDENTIFIER_MISMATCH, "A key cannot be read") from None


def never_matches(search: Search, behaviour: Behaviour) -> bool:
    """Say whether a habit of the daemon makes a query end with no rows, whatever is held."""
    if search.uids(Level.PATIENT) & set(behaviour.unmatchable_patient_ids):
        return True
    limit = behaviour.plan_label_key_length
    label = str(search.keys.get("RTPlanLabel") or "").strip()
    return bool(limit) and search.level is Level.IMAGE and len(label) > limit


def find(turn: Turn, holdings: Holdings, *, character_set: str, ae_title: str) -> int:
    """Answer a C-FIND; return the number of rows sent.

    :param character_set: of the answers, see :mod:`.character_sets`.
    :param ae_title: the daemon's own, for RetrieveAETitle.
    """
    exchange = turn.exchange
    level, sent, comment = "?", 0, ""
    keywords: tuple[str, ...] = ()
    try:
        turn.reach(Step.REQUEST)
        level, keys = read_identifier(exchange, turn.behaviour)
        search = build_search(level, keys)
        keywords = search.keywords()
        for chain in _rows(turn, search, holdings):
            if turn.ended:
                break
            row = character_sets.apply(answer(chain, keys, turn.behaviour, ae_title), character_set)
            turn.respond(PENDING, identifier=row)
            sent += 1
            turn.tally.add("rows")
            turn.reach(Step.ROW, sent)
        status = CANCELLED if exchange.cancelled else SUCCESS
    except BadIdentifierError as bad:
        status, comment = bad.status, bad.comment
    except CutShortError as cut:
        status = cut.status
    status = turn.conclude(status, comment=comment)
    names = ",".join(keywords) or "none"
    log.info("%s %s keys=%s matches=%d status=0x%04X", exchange.service, level, names, sent, status)
    return sent


def _rows(turn: Turn, search: Search, holdings: Holdings) -> Iterable[Chain]:
    """Return the matches.

    The daemon counts them before it sends the first. A match holds all that was made up for it, so only few are
    kept meanwhile; where there are more, they are looked for a second time, and made one by one as they are sent.

    :raises BadIdentifierError: when there are more than the daemon lists, or it does not even begin.
    """
    behaviour = turn.behaviour
    if never_matches(search, behaviour):
        return ()
    if behaviour.selective_key_needed and not is_selective(search):
        raise BadIdentifierError(TOO_BROAD, "Too few keys")
    found = walk(holdings, search)
    first = list(islice(found, _MOST_KEPT))
    if len(first) < _MOST_KEPT:
        count = len(first)
    else:
        first.clear()
        most = behaviour.row_limit + 1 - _MOST_KEPT if behaviour.row_limit else None
        count = _MOST_KEPT + sum(1 for _ in islice(found, None if most is None else max(0, most)))
    if behaviour.row_limit and count > behaviour.row_limit:
        raise BadIdentifierError(TOO_BROAD, "Too many matches")
    if count and search.level is Level.IMAGE and turn.happens("short answer", behaviour.short_answer_probability):
        count = max(0, count - turn.random("how short").randint(1, 1 + count // _MOST_LEFT_OUT))
    return islice(first or walk(holdings, search), count)
