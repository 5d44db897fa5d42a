"""Reading the fields of a connection: from whatever a form, a URI or a file gave, to a checked value.

Each refusal names the field as the form does, and says what to type. Standard library only.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from zoneinfo import ZoneInfo

from airflow_provider_varian.connection_fields import FIELDS_BY_KEY, ConnectionField
from airflow_provider_varian.dimse import quiet_hours
from airflow_provider_varian.errors import ConfigurationError

_AE_TITLE_KEYS: Final = frozenset({"called_ae_title", "calling_ae_title", "move_destination"})
_DAYS: Final = (quiet_hours.EVERY_DAY, *quiet_hours.WEEKDAYS)
_HOURS: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|24:00)")
_PEM_KEYS: Final = frozenset({"tls_ca_certificate", "tls_certificate", "tls_private_key"})
_PEM_BLOCK: Final = re.compile(r"(-----BEGIN ([A-Z0-9 ]+)-----)([A-Za-z0-9+/=\s]+)(-----END \2-----)\s*")
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})


def wrong(field: ConnectionField, what: str, hint: str) -> ConfigurationError:
    """Return the error for one field of a connection.

    :param field: the field, named by label and key.
    :param what: what is wrong with it, continuing "field ...".
    :param hint: what to type instead.
    """
    return ConfigurationError(f'connection field "{field.label}" ({field.key}) {what}', step="connection", hint=hint)


def read_fields(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Check all extras of a connection and return a value for each known key, defaults filled in.

    :raises ConfigurationError: for an unknown key, naming the nearest known one, or a wrong value.
    """
    for key in extra:
        if key not in FIELDS_BY_KEY:
            near = difflib.get_close_matches(str(key), FIELDS_BY_KEY, n=1, cutoff=0.5)
            raise ConfigurationError(
                f"unknown connection field {key!r}",
                step="connection",
                hint=f"Did you mean {near[0]!r}?" if near else f"Known fields: {', '.join(FIELDS_BY_KEY)}",
            )
    values = {key: _read_field(field, extra.get(key)) for key, field in FIELDS_BY_KEY.items()}
    if values["quiet_hours"] and not values["timezone"]:
        raise wrong(
            FIELDS_BY_KEY["timezone"],
            "is missing, although quiet_hours is set",
            "Type the zone of the clinic, in whose time quiet hours are meant, e.g. Europe/Zurich",
        )
    return values


def read_host(host: str | None) -> str:
    """Check the host of a connection; brackets around an IPv6 address are taken off."""
    text = (host or "").strip().removeprefix("[").removesuffix("]")
    if not _is_host(text):
        raise ConfigurationError(
            f"connection field host is {'empty' if not text else 'not a host name'}",
            step="connection",
            hint="Type the name or address of the DB Service's machine, without scheme or port",
        )
    if text.count(":") == 1:
        raise ConfigurationError(
            "connection field host contains a port", step="connection", hint="Type the port into its own field"
        )
    return text


def _is_host(text: str) -> bool:
    try:
        text.encode("idna")  # what looking it up does first; an empty or over-long label fails here
    except UnicodeError:
        return False
    return bool(text) and not re.search(r"[\s/@\[\]]", text)


def read_port(port: int | str | None) -> int:
    """Check the port of a connection."""
    try:
        number = int(str(port))
    except ValueError:
        number = 0
    if not 1 <= number <= 65535:
        raise ConfigurationError(
            "connection field port is missing" if port is None else f"connection field port is {port!r}",
            step="connection",
            hint="Type the port of the DB Service, 1 to 65535, as shown in its configuration (often 51402)",
        )
    return number


def read_ae_title(field: ConnectionField, value: Any) -> str:
    """Check an AE title (PS3.5 6.2): 1 to 16 ASCII characters without backslash, blanks inside allowed."""
    text = value.strip(" ") if isinstance(value, str) else ""
    if not text:
        raise wrong(field, "is empty", "Type 1 to 16 characters, exactly as configured in the DB Service")
    if len(text) > 16:
        raise wrong(field, f"has {len(text)} characters", "An AE title has at most 16 characters")
    if "\\" in text or not all(" " <= character <= "~" for character in text):
        raise wrong(field, "has characters that an AE title cannot have", "Use ASCII without backslash and control")
    return text


def _read_field(field: ConnectionField, value: Any) -> Any:
    # Forms send "" for what was left empty. An AE title is the exception: ours has a default, and
    # somebody who clears it must not unknowingly call under that.
    if value is None or (value == "" and (not field.default or field.kind != "string")):
        if field.required:
            raise wrong(field, "is missing", "Type it exactly as configured in the DB Service")
        return _read_special(field, field.default) if field.kind == "object" else field.default
    if field.key in _AE_TITLE_KEYS:
        return read_ae_title(field, value)
    return _read_special(field, _READERS[field.kind](field, value))


def _read_string(field: ConnectionField, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong(field, f"is of type {type(value).__name__}", "Give it as text")
    text = value.strip()
    if field.max_length is not None and len(text) > field.max_length:
        raise wrong(field, f"has {len(text)} characters", f"At most {field.max_length} are allowed")
    return text


def _read_secret(field: ConnectionField, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong(field, f"is of type {type(value).__name__}", "Give it as text")
    return value


def _read_number(field: ConnectionField, value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    low, high = field.minimum, field.maximum
    if (
        not math.isfinite(number)
        or (low is not None and number < low)
        or (high is not None and number > high)
        or (field.kind == "integer" and not number.is_integer())
    ):
        kind = "a whole number" if field.kind == "integer" else "a number"
        raise wrong(field, f"is {value!r}", f"Type {kind} from {low:g} to {high:g}")
    return number


def _read_integer(field: ConnectionField, value: Any) -> int:
    return int(_read_number(field, value))


def _read_boolean(field: ConnectionField, value: Any) -> bool:
    text = str(value).strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise wrong(field, f"is {value!r}", "Type true or false")


def _read_choice(field: ConnectionField, value: Any) -> str:
    text = str(value).strip()
    if text not in field.choices:
        raise wrong(field, f"is {value!r}", f"Type one of: {', '.join(field.choices)}")
    return text


def _read_object(field: ConnectionField, value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise wrong(field, "is not JSON", "Type a JSON object, e.g. {}") from None
    if not isinstance(value, Mapping):
        raise wrong(field, f"is of type {type(value).__name__}", "Type a JSON object, e.g. {}")
    return dict(value)


_READERS: Final[Mapping[str, Callable[[ConnectionField, Any], Any]]] = {
    "string": _read_string,
    "text": _read_secret,
    "password": _read_secret,
    "number": _read_number,
    "integer": _read_integer,
    "boolean": _read_boolean,
    "choice": _read_choice,
    "object": _read_object,
}


def _read_special(field: ConnectionField, value: Any) -> Any:
    """Apply what one field demands beyond its type."""
    if field.key == "profile_overrides":
        return value or {}
    if field.key == "quiet_hours":
        return _quiet_hours(field, value) if value else None
    if field.key == "timezone" and value:
        return _time_zone(field, value)
    if field.key in _PEM_KEYS and value:
        return _with_lines(value)
    return value


def _with_lines(pem: str) -> str:
    """Give PEM text its lines back: a form's field of one line, as that of a secret is, takes them out."""

    def wrapped(block: re.Match[str]) -> str:
        body = "".join(block[3].split())
        return "\n".join([block[1], *(body[at : at + 64] for at in range(0, len(body), 64)), block[4], ""])

    return _PEM_BLOCK.sub(wrapped, pem)


def _time_zone(field: ConnectionField, name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # a missing zone is a KeyError
        raise wrong(field, f"is {name!r}, which is no IANA time zone", "Type e.g. Europe/Zurich") from None
    return name


def _quiet_hours(field: ConnectionField, value: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
    hint = 'Type e.g. {"daily": ["03:50-04:30"], "sunday": ["00:00-01:45"]}'
    for day, windows in value.items():
        if day not in _DAYS:
            raise wrong(field, f"names the day {day!r}", f"Days are: {', '.join(_DAYS)}")
        if not isinstance(windows, list | tuple):
            raise wrong(field, f"has no list of windows for {day}", hint)
        for window in windows:
            if not isinstance(window, str) or not _HOURS.fullmatch(window) or window[:5] == window[6:]:
                raise wrong(field, f"has the window {window!r} for {day}", hint)
    if quiet_hours.covers_week(value):
        raise wrong(field, "leaves no time of the week", hint)
    return {day: tuple(windows) for day, windows in value.items()}
