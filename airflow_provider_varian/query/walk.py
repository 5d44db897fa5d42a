"""Walking the hierarchy for peers without relational queries (PS3.4 C.4.1.2.1).

A hierarchical C-FIND carries one value for the unique key of each level above its own, and keys of
its own level beside. A query that leaves upper keys out is asked level by level, and what an upper
level answered is handed down to the answers below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from airflow_provider_varian.dimse.answers import Answer, Answered
from airflow_provider_varian.errors import QueryError, UndecidedMatchError
from airflow_provider_varian.query.level import UNIQUE_KEYS, Level
from airflow_provider_varian.query.model import InformationModel, level_of
from airflow_provider_varian.query.query import Key, Query, unique_key
from airflow_provider_varian.query.values import encodings_of, read, vr_of

#: Asks one query of one level and yields the data sets that may match it.
Ask = Callable[[Query], Iterator[Answered]]


def walk(query: Query, model: InformationModel, ask: Ask, inherited: Sequence[str] = ()) -> Iterator[Answered]:
    """Ask a query level by level and yield the data sets of its own level.

    :param query: what is looked for; keys of upper levels select there.
    :param model: where the hierarchy begins.
    :param ask: asks a single level; called with nothing else under way.
    :param inherited: Python's encodings for answers that name no character set.
    :raises QueryError: when nothing selects at the top, which would list the whole archive.
    :raises UndecidedMatchError: when an upper answer lacks its unique key.
    """
    levels = model.top.through(query.level)
    if len(levels) > 1 and not any(key.matching for key in _keys_at(query, levels[0], model)):
        wanted = " or ".join(UNIQUE_KEYS[level] for level in dict.fromkeys((Level.PATIENT, levels[0])))
        raise QueryError(
            f"a query at {query.level} level by {', '.join(k.keyword for k in query.matching_keys) or 'nothing'}"
            " would walk through the whole archive",
            hint=f"Add {wanted}, or set relational_queries to true in profile_overrides if the peer knows them",
        )
    yield from _descend(_Walk(query, model, ask, tuple(inherited)), levels, (), Dataset())


class _Walk:
    def __init__(self, query: Query, model: InformationModel, ask: Ask, inherited: tuple[str, ...]) -> None:
        self.query = query
        self.model = model
        self.ask = ask
        self.inherited = inherited


def _descend(walk_: _Walk, levels: Sequence[Level], fixed: tuple[Key, ...], above: Dataset) -> Iterator[Answered]:
    level, below = levels[0], levels[1:]
    own = _keys_at(walk_.query, level, walk_.model)
    names = {key.keyword for key in fixed}
    asked = walk_.query.at(level, (*fixed, *(key for key in own if key.keyword not in names)))
    if not below:
        for row in walk_.ask(asked):
            yield _handed_down(row, above)
        return
    unique = UNIQUE_KEYS[level]
    given = walk_.query.get(unique)
    if (
        given is not None
        and len(given.values) == 1
        and [key.keyword for key in own] == [unique]
        and unique != "PatientID"
    ):
        # Nothing to learn here: the UID is known and no other key belongs to this level.
        yield from _descend(walk_, below, (*fixed, given), above)
        return
    # All of them first: an association carries one request at a time.
    for row in list(walk_.ask(asked)):
        here = _copied(row, above, walk_.inherited)
        values = read(here, Tag(unique))
        if not values or not str(values[0]):
            raise UndecidedMatchError(
                f"an answer at {level} level lacks {unique}", step="C-FIND", hint="What is below it cannot be asked for"
            )
        yield from _descend(walk_, below, (*fixed, unique_key(level, str(values[0]))), here)


def _keys_at(query: Query, level: Level, model: InformationModel) -> list[Key]:
    """Return the keys that belong to a level; the top level takes those above it too."""
    return [key for key in query.keys if max(level_of(key.keyword).depth, model.top.depth) == level.depth]


def _copied(row: Answered, above: Dataset, inherited: Sequence[str]) -> Dataset:
    """Return the plain values of an answer, decoded, on top of those from above."""
    copy = Dataset()
    copy.update(above)
    encodings = encodings_of(row, inherited)
    tags = row.contents if isinstance(row, Answer) else row.keys()
    for tag in map(Tag, tags):
        values = read(row, tag, encodings)
        vr = vr_of(row, tag)
        if values and vr not in ("SQ", "UN") and tag not in (Tag(0x0008, 0x0005), Tag(0x0008, 0x0052)):
            copy[tag] = DataElement(tag, vr, list(values) if len(values) > 1 else values[0], validation_mode=0)
    return copy


def _handed_down(row: Answered, above: Dataset) -> Answered:
    """Fill what an answer leaves empty with what the levels above said."""
    missing = [tag for tag in above.keys() if not read(row, tag)]  # noqa: SIM118
    if not missing:
        return row
    filled = row.data_set() if isinstance(row, Answer) else row
    for tag in missing:
        filled[tag] = above[tag]
    return filled
