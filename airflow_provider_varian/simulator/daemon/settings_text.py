"""Values as the command line gives them, ``NAME=VALUE``, read by the kind of what they replace."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Final

from airflow_provider_varian.errors import ConfigurationError

#: So many names are told together; of more, the nearest are, and how to see the others.
_MANY: Final = 12
_NEAREST: Final = 3


def read_settings(
    settings: Iterable[str], current: Mapping[str, object], *, kind: str, listing: str = ""
) -> dict[str, Any]:
    """Return the values of settings, each of the type of the value that it replaces.

    :param settings: ``NAME=VALUE`` each.
    :param current: the values that they replace, by name.
    :param kind: what a name is the name of, for messages, e.g. ``"switch of the simulator"``.
    :param listing: the command that lists them, for messages; needed where they are many.
    :raises ConfigurationError: for an unknown name (with the nearest ones) or a value that does not fit.
    """
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if name not in current or not equals:
            raise ConfigurationError(f"{setting!r} is not a {kind}", hint=_meant(name, current, listing))
        changes[name] = _read(name, current[name], text)
    return changes


def written(name: str, value: object) -> str:
    """Return a value as the command line takes it; see :func:`read_settings`.

    :param name: of the setting: a status is written in hexadecimal.
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(value)
    if name.endswith("status"):
        return f"0x{value:04X}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _meant(name: str, known: Mapping[str, object], listing: str) -> str:
    """Return what may have been meant, nearest first, and what else there is."""
    if name in known:
        return f"Write {name}=VALUE"
    near = get_close_matches(name.strip().replace("-", "_"), known, n=_NEAREST)
    meant = f"Did you mean {' or '.join(f'{each}=...' for each in near)}? " if near else ""
    if listing and len(known) > _MANY:
        return f"{meant}All {len(known)} are listed by: {listing}"
    return f"{meant}Known: {', '.join(sorted(known))}"


def _read(name: str, current: object, text: str) -> object:
    kind = type(current)
    if isinstance(current, StrEnum):
        try:
            return kind(text.strip())  # type: ignore[call-arg]
        except ValueError:
            raise ConfigurationError(
                f"{text!r} does not fit {name}",
                hint=f"{name} is one of {', '.join(list(kind))}",  # type: ignore[call-overload]
            ) from None
    try:
        return _READERS[kind](text.strip())
    except (KeyError, ValueError):
        raise ConfigurationError(f"{text!r} does not fit {name}", hint=f"{name} takes {_KINDS[kind]}") from None


def _switch(text: str) -> bool:
    return {"on": True, "true": True, "1": True, "yes": True, "off": False, "false": False, "0": False, "no": False}[
        text.lower()
    ]


def _number(text: str) -> int:
    number = int(text, 0)
    if number < 0:
        raise ValueError(text)
    return number


def _real(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError(text)
    return number


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_READERS: Final[dict[type, Callable[[str], object]]] = {
    bool: _switch,
    int: _number,
    float: _real,
    tuple: _names,
    str: str,
}
_KINDS: Final = {
    bool: "on or off",
    int: "a whole number",
    float: "a number from 0",
    tuple: "a list with commas",
    str: "text",
}
