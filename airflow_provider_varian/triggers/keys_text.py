"""Keys of a query as text: in the arguments of a trigger, and to tell equal questions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any, Final

from airflow_provider_varian.errors import QueryError

#: No DICOM keyword begins so: a mapping with it is a moment, not the item of a sequence.
_MOMENTS: Final[dict[str, type[datetime] | type[date] | type[time]]] = {
    "@datetime": datetime,  # before date, of which it is one
    "@date": date,
    "@time": time,
}


def text_of(keys: Mapping[str, Any]) -> str:
    """Return keys as text, the same for equal keys.

    :raises QueryError: a value is of a type that cannot be kept.
    """
    if not isinstance(keys, Mapping):
        raise QueryError("the keys are not a mapping of DICOM keywords to values")
    return json.dumps({str(keyword): _plain(str(keyword), value) for keyword, value in keys.items()}, sort_keys=True)


def keys_of(text: str) -> dict[str, Any]:
    """Return the keys that a text of :func:`text_of` holds."""
    keys: dict[str, Any] = json.loads(text, object_hook=_moment)
    return keys


def _plain(keyword: str, value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    for name, kind in _MOMENTS.items():
        if isinstance(value, kind):
            return {name: value.isoformat()}
    if isinstance(value, Mapping):
        return {str(key): _plain(str(key), each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(keyword, each) for each in value]
    raise QueryError(
        f"a value of {keyword} is a {type(value).__name__}, which cannot be kept while a task waits",
        hint="Give text, a number, a date or time, or lists and mappings of those",
    )


def _moment(found: dict[str, Any]) -> Any:
    if len(found) == 1:
        ((name, value),) = found.items()
        if name in _MOMENTS:
            return _MOMENTS[name].fromisoformat(value)
    return found
