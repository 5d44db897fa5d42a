"""C-FIND as the daemon answers it (PS3.4 C.4.1, varian-daemon 1.3)."""

from __future__ import annotations

import logging
from itertools import islice
from typing import Final

from pydicom.dataset import Dataset

from airflow_provider_varian import uids
from airflow_provider_varian.errors import QueryError
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.daemon import character_sets
from airflow_provider_varian.simulator.daemon.answers import answer
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
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

_STUDY_ROOT: Final = frozenset({uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_MOVE, uids.STUDY_ROOT_GET})


class BadIdentifierError(Exception):
    """The identifier cannot be served.

    :param status: status of the final response.
    :param comment: Error Comment; names no values.
    """

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = comment


def read_identifier(exchange: Exchange) -> tuple[Level, Dataset]:
    """Return level and keys of a request.

    :raises BadIdentifierError: when it is not decodable or its level is missing or not of the model.
    """
    try:
        keys = exchange.identifier()
        text = str(keys.get("QueryRetrieveLevel") or "").strip()
    except Exception as error:  # noqa: BLE001 - anything may stand in a client's bytes
        log.info("An identifier could not be decoded: %s", type(error).__name__)
        raise BadIdentifierError(CANNOT_UNDERSTAND, "Identifier cannot be decoded") from None
    if text not in Level.__members__:
        raise BadIdentifierError(IDENTIFIER_MISMATCH, "Query/Retrieve Level missing or unknown")
    if text == Level.PATIENT and exchange.model_uid in _STUDY_ROOT:
        raise BadIdentifierError(IDENTIFIER_MISMATCH, "PATIENT level is not in Study Root")
    return Level(text), keys


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


def find(exchange: Exchange, holdings: Holdings, behaviour: Behaviour, *, character_set: str, ae_title: str) -> int:
    """Answer a C-FIND; return the number of rows sent.

    :param character_set: of the answers, see :mod:`.character_sets`.
    :param ae_title: the daemon's own, for RetrieveAETitle.
    """
    try:
        level, keys = read_identifier(exchange)
        search = build_search(level, keys)
    except BadIdentifierError as bad:
        exchange.respond(bad.status, comment=bad.comment)
        _note(exchange, "?", (), 0, bad.status)
        return 0
    rows = _rows(search, holdings, behaviour)
    if rows is None:
        exchange.respond(TOO_BROAD, comment="Too many matches")
        _note(exchange, level, search.keywords(), 0, TOO_BROAD)
        return 0
    sent = 0
    for chain in rows:
        if exchange.cancelled or exchange.broken:
            break
        row = character_sets.apply(answer(chain, keys, behaviour, ae_title), character_set)
        exchange.respond(PENDING, identifier=row)
        sent += 1
    status = CANCELLED if sent < len(rows) and exchange.cancelled else SUCCESS
    exchange.respond(status)
    _note(exchange, level, search.keywords(), sent, status)
    return sent


def _rows(search: Search, holdings: Holdings, behaviour: Behaviour) -> list[Chain] | None:
    """Return the matches; ``None`` when there are more than the daemon lists."""
    if never_matches(search, behaviour):
        return []
    limit = behaviour.row_limit
    rows = list(islice(walk(holdings, search), limit + 1 if limit else None))
    return None if limit and len(rows) > limit else rows


def _note(exchange: Exchange, level: str, keywords: tuple[str, ...], rows: int, status: int) -> None:
    names = ",".join(keywords) or "none"
    log.info("%s %s keys=%s matches=%d status=0x%04X", exchange.service, level, names, rows, status)
