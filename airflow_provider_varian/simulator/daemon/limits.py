"""What the simulator's settings may be: checked when they are set, since a wrong one would show in a client first."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_varian.errors import ConfigurationError

#: Character sets of what is exported; empty for none named.
CHARACTER_SETS: Final = ("ISO_IR 192", "ISO_IR 100", "")
#: A week: none of the daemon's times is longer, and each can be waited for.
_MOST_SECONDS: Final = 604_800


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What a setting may be.

    :param allowed: in words.
    :param fits: says whether a value is.
    :param shown: how a value is told.
    """

    allowed: str
    fits: Callable[[Any], bool]
    shown: str = "{!r}"

    def check(self, name: str, value: object) -> None:
        """Refuse a value that does not fit.

        :param name: of the setting.
        :raises ConfigurationError: naming setting, value and what is allowed.
        """
        if not self.fits(value):
            raise ConfigurationError(
                f"{self.shown.format(value)} does not fit {name}", hint=f"{name} is {self.allowed}"
            )


def between(least: Any, most: Any, what: str = "a number") -> Limit:
    """Return the limit of a number or a date, both ends included."""
    return Limit(allowed=f"{what} from {least} to {most}", fits=lambda value: least <= value <= most, shown="{}")


def is_ae_title(text: str) -> bool:
    """Say whether a text can stand as an AE title (PS3.5 6.2): 1 to 16 ASCII characters, no control, no backslash."""
    return len(text) <= 16 and bool(text.strip(" ")) and "\\" not in text and all(" " <= each <= "~" for each in text)


def _is_character_set_of_a_client(entry: str) -> bool:
    title, colon, character_set = entry.rpartition(":")
    return bool(colon) and is_ae_title(title.strip()) and character_set.strip() in CHARACTER_SETS


_AE_TITLE: Final = "1 to 16 characters: ASCII without backslash and control characters, not only blanks"

AE_TITLE: Final = Limit(allowed=_AE_TITLE, fits=is_ae_title)
AE_TITLE_OR_EMPTY: Final = Limit(allowed=f"{_AE_TITLE}, or empty", fits=lambda text: not text or is_ae_title(text))
CHARACTER_SET: Final = Limit(allowed="ISO_IR 192, ISO_IR 100 or empty", fits=lambda text: text in CHARACTER_SETS)
CLIENT_CHARACTER_SETS: Final = Limit(
    allowed="AET:CHARACTER SET, with commas; a character set is ISO_IR 192, ISO_IR 100 or empty",
    fits=lambda entries: all(_is_character_set_of_a_client(entry) for entry in entries),
)
#: PS3.7 E.1: Status (0000,0900) is an unsigned short.
STATUS: Final = Limit(
    allowed="a status from 0x0000 to 0xFFFF", fits=lambda status: 0 <= status <= 0xFFFF, shown="{:#06x}"
)
SECONDS: Final = between(0, _MOST_SECONDS, "a number of seconds")
SHARE: Final = between(0, 1)
NOT_NEGATIVE: Final = Limit(allowed="a whole number from 0", fits=lambda number: number >= 0)
FROM_ONE: Final = Limit(allowed="a whole number from 1", fits=lambda number: number >= 1)
#: PS3.8 D.1: 0 says that there is no limit. Less than the lower bound is no daemon's, and holds no command set.
MAX_PDU: Final = Limit(
    allowed="0 for no limit, or a number of bytes from 1024 to 4294967295",
    fits=lambda size: size == 0 or 1024 <= size <= 0xFFFFFFFF,
)
_UID: Final = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*")
#: PS3.5 9.1
UID_TEXT: Final = Limit(
    allowed="a UID: at most 64 characters, numbers without leading zeros between single dots",
    fits=lambda text: len(text) <= 64 and _UID.fullmatch(text) is not None,
)
#: PS3.7 D.3.3.2.3
VERSION_NAME: Final = Limit(
    allowed="1 to 16 characters: ASCII without control characters, not only blanks",
    fits=lambda text: 1 <= len(text) <= 16 and all(" " <= each <= "~" for each in text) and bool(text.strip()),
)
#: PS3.8 Table 9-21: the reasons that each source of a rejection has.
_REASONS: Final = {1: (1, 2, 3, 7), 2: (1, 2), 3: (1, 2)}
_REJECTION: Final = (
    "result/source/reason of PS3.8 Table 9-21: result 1 (permanent) or 2 (transient); source 1 with reason 1, 2, 3 "
    "or 7, source 2 or 3 with reason 1 or 2; e.g. 2/3/2"
)


def read_rejection(name: str, text: str) -> tuple[int, int, int]:
    """Return result, source and reason of a rejection (PS3.8 9.3.4).

    :param name: of the setting.
    :raises ConfigurationError: when there is no such rejection.
    """
    try:
        result, source, reason = (int(part) for part in text.split("/"))
    except ValueError:
        result = source = reason = 0
    if result not in (1, 2) or reason not in _REASONS.get(source, ()):
        raise ConfigurationError(f"{text!r} does not fit {name}", hint=f"{name} is {_REJECTION}")
    return result, source, reason
