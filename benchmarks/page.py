"""The part of a page that a run writes anew, between two markers; the rest is a person's."""

from __future__ import annotations

from pathlib import Path
from typing import Final

BEGIN: Final = "<!-- measured: begin (make bench writes what follows) -->"
END: Final = "<!-- measured: end -->"


def rewrite(page: Path, measured: str) -> None:
    """Put what was measured between the markers of a page.

    :raises ValueError: when the markers are not there, each once, in their order.
    """
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{page.name} does not have the two markers between which results go")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{measured.strip()}\n\n{END}{after}", encoding="utf-8")
