"""Answers as plain mappings that survive :func:`json.dumps`, by keyword, as received."""

from __future__ import annotations

import base64
import math
from collections.abc import Collection, Sequence
from typing import Any, Final

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from airflow_provider_varian.query.values import Value, encodings_of, read, vr_of

#: Elements that describe the message, not what was found.
_ABOUT_THE_MESSAGE: Final = frozenset({Tag(0x0008, 0x0005), Tag(0x0008, 0x0052)})


def to_answer(
    dataset: Dataset, inherited: Sequence[str] = (), *, only: Collection[str] | None = None
) -> dict[str, Any]:
    """Return a data set as a mapping of keywords to JSON values.

    Text is decoded by the data set's character set. DS and IS become numbers where they are some;
    other values stay the text they are, dates and times too. Several values are a list, an
    empty element is None, a sequence is a list of mappings. Attributes without a keyword go by
    their tag in hexadecimal, bytes as base64.

    :param dataset: an answer of a C-FIND, or any other data set.
    :param inherited: Python's encodings when it names no character set.
    :param only: keywords to read, None for all; inside sequences all are read.
    """
    encodings = encodings_of(dataset, inherited)
    named = ((tag, keyword_for_tag(tag) or f"{int(tag):08X}") for tag in sorted(dataset.keys()))
    return {
        name: _json(dataset, tag, encodings)
        for tag, name in named
        if tag not in _ABOUT_THE_MESSAGE and tag.element != 0 and (only is None or name in only)
    }


def _json(dataset: Dataset, tag: BaseTag, encodings: Sequence[str]) -> Any:
    values = read(dataset, tag, encodings)
    vr = vr_of(dataset, tag)
    if vr == "SQ":
        return [to_answer(item, encodings) for item in values or () if isinstance(item, Dataset)]
    plain = [_plain(vr, value) for value in values or ()]
    return (plain[0] if len(plain) == 1 else plain) if plain else None


def _plain(vr: str, value: Value) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, str) and vr in ("DS", "IS"):
        return _number(vr, value)
    if isinstance(value, float) and not math.isfinite(value):
        # JSON has no such numbers.
        return str(value)
    return value


def _number(vr: str, text: str) -> int | float | str | None:
    if not text.strip():
        return None
    try:
        number = int(text) if vr == "IS" else float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text
