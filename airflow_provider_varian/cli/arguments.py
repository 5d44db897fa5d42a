"""Types of single options, for argparse: a wrong value is wrong usage, and the message says what is right."""

from __future__ import annotations

import ipaddress
from argparse import ArgumentTypeError
from datetime import date
from zoneinfo import ZoneInfo


def not_negative(text: str) -> int:
    """Return a whole number from zero."""
    return _whole(text, 0, "is not a whole number from 0")


def positive(text: str) -> int:
    """Return a whole number from one."""
    return _whole(text, 1, "is not a whole number from 1")


def share(text: str) -> float:
    """Return a number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= 1.0:
        raise ArgumentTypeError(f"{text!r} is not a share from 0 to 1, e.g. 0.1")
    return number


def seconds(text: str) -> float:
    """Return a number of seconds from zero."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a number of seconds from 0")
    return number


def days(text: str) -> float:
    """Return a number of days from zero."""
    try:
        return seconds(text)
    except ArgumentTypeError:
        raise ArgumentTypeError(f"{text!r} is not a number of days from 0") from None


def port_number(text: str) -> int:
    """Return a TCP port; 0 stands for a free one."""
    number = _whole(text, 0, "is not a port, 0 to 65535")
    if number > 65535:
        raise ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return number


def ae_title(text: str) -> str:
    """Return an AE title (PS3.5 6.2): 1 to 16 ASCII characters without backslash, blanks inside allowed."""
    title = text.strip(" ")
    if not 0 < len(title) <= 16 or "\\" in title or not all(" " <= char <= "~" for char in title):
        raise ArgumentTypeError(f"{text!r} is not an AE title: 1 to 16 ASCII characters, without backslash")
    return title


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return an IP address, or a network in the notation of CIDR."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not an address or a network such as 10.1.2.3 or 10.1.0.0/16") from None


def size(text: str) -> int:
    """Return a number of bytes: ``1048576``, or with a unit of 1024: ``512K``, ``64M``, ``8G``, ``1T``."""
    unit = text[-1:].upper()
    power = " KMGT".find(unit) if unit.isalpha() else 0
    digits = text[:-1] if power > 0 else text
    if power < 0 or not digits.isascii() or not digits.isdigit():
        raise ArgumentTypeError(f"{text!r} is not a number of bytes such as 1048576, 512M or 8G")
    return int(digits) << (10 * power)


def listening_address(text: str) -> tuple[str | None, int]:
    """Return ``PORT`` or ``HOST:PORT`` as host, if one is given, and port; an IPv6 address stands in brackets."""
    host, colon, port = text.rpartition(":")
    if colon and not host:
        raise ArgumentTypeError(f"{text!r} is neither PORT nor HOST:PORT")
    return (host.removeprefix("[").removesuffix("]") if colon else None), port_number(port)


def iso_date(text: str) -> date:
    """Return a date written as ``YYYY-MM-DD`` or ``YYYYMMDD``."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a date such as 2026-01-31") from None


def time_zone(text: str) -> ZoneInfo:
    """Return a time zone by its IANA name."""
    try:
        return ZoneInfo(text)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise ArgumentTypeError(f"{text!r} is not a time zone such as Europe/Zurich") from None


def _whole(text: str, least: int, wrong: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise ArgumentTypeError(f"{text!r} {wrong}")
    return number
