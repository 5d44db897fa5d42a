"""Keys as they are typed, ``-k Keyword=value``, into the mapping that a query takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_varian.errors import QueryError
from airflow_provider_varian.query.level import LEVELS, Level, deepest_level

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterable, Mapping


def add_key_arguments(parser: ArgumentParser) -> None:
    """Add ``--level`` and ``-k`` to a verb's parser."""
    parser.add_argument(
        "--level",
        type=str.upper,
        choices=[str(level) for level in LEVELS],
        help="query/retrieve level; default: that of the deepest unique key given, else IMAGE",
    )
    parser.add_argument(
        "-k",
        "--key",
        action="append",
        default=[],
        dest="keys",
        metavar="KEYWORD=VALUE",
        help="a key by its DICOM keyword, repeatable; without a value: ask for it; "
        "Sequence.Keyword=value for a key inside a sequence; a date range as 20260101-20260131; "
        "the same UID key twice: a list",
    )


def parse_keys(typed: Iterable[str]) -> dict[str, Any]:
    """Return the keys that were typed as a mapping by keyword.

    A UID that is given again becomes a list of UIDs. ``A.B=value`` becomes ``{"A": {"B": value}}``.

    :param typed: texts of the form ``Keyword=value``.
    :raises QueryError: a text has no ``=``, no keyword, or contradicts another one.
    """
    keys: dict[str, Any] = {}
    for number, text in enumerate(typed, start=1):
        name, equals, value = text.partition("=")
        path = name.strip().split(".")
        if not equals or not all(path):
            # What was typed may be a patient's ID or name: it is not repeated.
            raise QueryError(
                f"key number {number} is not of the form Keyword=value",
                hint="Write -k PatientID=..., or -k RTPlanLabel= to ask for a value.",
            )
        _insert(keys, path, value)
    return keys


def _insert(keys: dict[str, Any], path: list[str], value: str) -> None:
    *sequences, keyword = path
    for sequence in sequences:
        inner = keys.setdefault(sequence, {})
        if not isinstance(inner, dict):
            raise QueryError(
                f"{sequence} is given both as a whole and by a key inside it",
                hint=f"Keep either {sequence}= or {sequence}.{keyword}=.",
            )
        keys = inner
    if keyword not in keys:
        keys[keyword] = value
    elif isinstance(keys[keyword], dict):
        raise QueryError(
            f"{keyword} is given both as a whole and by a key inside it", hint=f"Keep one form of {keyword}."
        )
    elif "UID" not in keyword:
        # Only UIDs match a list (PS3.4 C.2.2.2.2); two dates must not be mistaken for a range.
        raise QueryError(
            f"{keyword} is given twice", hint="Give one value; a date range is one value: 20260101-20260131."
        )
    else:
        earlier = keys[keyword]
        keys[keyword] = [*earlier, value] if isinstance(earlier, list) else [earlier, value]


def level_of(level: str | None, keys: Mapping[str, Any]) -> Level:
    """Return the level to ask at: the one asked for, else that of the deepest unique key, else IMAGE.

    A patient's ID decides only when nothing below it is asked for: ``PatientID`` alone lists the
    patient, ``PatientID`` with ``Modality`` lists objects.

    :param level: what ``--level`` said, or ``None``.
    :param keys: the keys, with or without values.
    """
    if level is not None:
        return Level.parse(level)
    deepest = deepest_level(keys)
    return Level.IMAGE if deepest is None or (deepest is Level.PATIENT and len(keys) > 1) else deepest


def refuse_keys_without_values(keys: Mapping[str, Any], prefix: str = "") -> None:
    """Refuse keys that would not narrow what is retrieved or moved, inside sequences too.

    :param keys: the keys by keyword.
    :param prefix: what stands before a keyword in the message.
    :raises QueryError: names the first such key.
    """
    for keyword, value in keys.items():
        if isinstance(value, dict):
            refuse_keys_without_values(value, f"{prefix}{keyword}.")
        elif not value or (isinstance(value, list) and not all(value)):
            raise QueryError(
                f"{prefix}{keyword} has no value",
                hint="A key without a value selects nothing; give it one, or leave it out.",
            )
