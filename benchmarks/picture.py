"""The picture of a run: what has a goal in time, as bars beside the reference's 1, on a scale of powers of two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.ours import NAME
from benchmarks.results import Report, Spread, Table

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

#: Everything is drawn so much larger, for screens with fine pixels.
_SCALE: Final = 2
_WIDTH: Final = 1000 * _SCALE
_LEFT: Final = 390 * _SCALE
_RIGHT: Final = 130 * _SCALE
_MARGIN: Final = 20 * _SCALE
_INDENT: Final = 14 * _SCALE
_LINE: Final = 24 * _SCALE
_BAR: Final = 13 * _SCALE
_HEADING: Final = 32 * _SCALE
_TEXT: Final = 13 * _SCALE

_INK: Final = (40, 44, 52)
_PALE: Final = (120, 125, 135)
_GRID: Final = (228, 230, 235)
_MET: Final = (46, 125, 90)
_NOT_MET: Final = (196, 84, 50)

_PARTS: Final[Mapping[str, str]] = {
    "receive": "Receiving by C-STORE, like for like",
    "durable": "Receiving by C-STORE, durable",
    "at-once": "Several associations at once, like for like",
    "move": "Receiving by C-MOVE, like for like",
    "get": "C-GET, like for like",
    "retrieve": "Retrieval with account and hashes, durable",
    "find": "C-FIND",
    "send": "Sending by C-STORE",
}


@dataclass(frozen=True, slots=True)
class _Bar:
    label: str
    ratio: Spread
    goal: float

    @property
    def met(self) -> bool:
        return self.ratio.median <= self.goal


def draw(report: Report, target: Path) -> None:
    """Write the PNG.

    :param target: where it goes.
    """
    from PIL import Image, ImageDraw, ImageFont

    groups = _groups(report)
    height = 2 * _MARGIN + 2 * _LINE + _HEADING + sum(_HEADING + _LINE * len(bars) for bars in groups.values())
    image = Image.new("RGB", (_WIDTH, height), "white")
    axis = _Axis([bar for bars in groups.values() for bar in bars])
    _Picture(ImageDraw.Draw(image), ImageFont.load_default(_TEXT), axis, height).draw(groups)
    image.save(target, optimize=True)


def _groups(report: Report) -> dict[str, list[_Bar]]:
    """Return the bars under their headings."""
    groups: dict[str, list[_Bar]] = {}
    for table in report.tables:
        heading = f"{_PARTS.get(table.section, table.section)}, against {table.reference}"
        if bars := _bars(table):
            groups.setdefault(heading, []).extend(bars)
    return groups


def _bars(table: Table) -> list[_Bar]:
    return [
        _Bar(table.short if row.name == NAME else f"{table.short}: {row.name}", row.ratio, row.goal.bound)
        for row in table.rows
        if row.goal is not None and row.goal.measure == "ratio" and row.ratio is not None
    ]


class _Axis:
    """Ratios to pixels, each doubling the same way."""

    def __init__(self, bars: Sequence[_Bar]) -> None:
        values = [1.0, *(value for bar in bars for value in (bar.ratio.least, bar.ratio.most, bar.goal))]
        self._low = math.floor(math.log2(min(values))) - 0.2
        self._high = math.ceil(math.log2(max(values))) + 0.2

    def __call__(self, ratio: float) -> float:
        part = (math.log2(ratio) - self._low) / (self._high - self._low)
        return _LEFT + part * (_WIDTH - _LEFT - _RIGHT)

    def ticks(self) -> Iterator[float]:
        """Yield the powers of two in sight."""
        yield from (2.0**power for power in range(math.ceil(self._low), math.floor(self._high) + 1))


class _Picture:
    def __init__(self, pen: ImageDraw, font: FreeTypeFont | ImageFont, axis: _Axis, height: int) -> None:
        self._pen, self._font, self._axis, self._height = pen, font, axis, height

    def draw(self, groups: Mapping[str, Sequence[_Bar]]) -> None:
        """Draw everything."""
        self._text(
            _MARGIN, _MARGIN, "Our time over the reference's in the same run: 1 is as fast, less is faster", _INK
        )
        self._legend(_MARGIN + _LINE)
        top = _MARGIN + 2 * _LINE + _HEADING
        self._grid(top)
        for heading, bars in groups.items():
            self._text(_MARGIN, top + 8 * _SCALE, heading, _INK)
            top += _HEADING
            for bar in bars:
                self._bar(bar, top)
                top += _LINE

    def _legend(self, top: float) -> None:
        left = float(_MARGIN)
        for colour, words in ((_MET, "goal met"), (_NOT_MET, "goal not met")):
            self._pen.rectangle((left, top + 2 * _SCALE, left + _BAR, top + 2 * _SCALE + _BAR), fill=colour)
            self._text(left + 1.5 * _BAR, top, words, _INK)
            left += 130 * _SCALE
        self._text(left, top, "black mark: the goal; thin line: smallest to largest of all rounds", _PALE)

    def _grid(self, top: float) -> None:
        for tick in self._axis.ticks():
            at = self._axis(tick)
            self._pen.line((at, top, at, self._height - _MARGIN), fill=_INK if tick == 1 else _GRID, width=_SCALE)
            label = f"{tick:g}" if tick >= 1 else f"1/{1 / tick:g}"
            self._text(at - self._font.getlength(label) / 2, top - _LINE * 0.8, label, _PALE)

    def _bar(self, bar: _Bar, top: float) -> None:
        axis, ratio, upper = self._axis, bar.ratio, top + 2 * _SCALE
        self._text(_MARGIN + _INDENT, top, self._cut(bar.label), _PALE)
        left, right = sorted((axis(1.0), axis(ratio.median)))
        self._pen.rectangle((left, upper, max(right, left + _SCALE), upper + _BAR), fill=_MET if bar.met else _NOT_MET)
        middle = upper + _BAR / 2
        self._pen.line((axis(ratio.least), middle, axis(ratio.most), middle), fill=_INK, width=_SCALE)
        at = axis(bar.goal)
        self._pen.rectangle((at - _SCALE, upper - 3 * _SCALE, at + _SCALE, upper + _BAR + 3 * _SCALE), fill="black")
        self._text(_WIDTH - _RIGHT + _INDENT, top, f"{ratio.median:.2f}  (goal {bar.goal:g})", _INK)

    def _cut(self, words: str) -> str:
        """Return words that end before the bars begin."""
        room = _LEFT - _MARGIN - 2 * _INDENT
        if self._font.getlength(words) <= room:
            return words
        while self._font.getlength(f"{words}...") > room:
            words = words[:-1]
        return f"{words}..."

    def _text(self, left: float, top: float, words: str, colour: tuple[int, int, int]) -> None:
        self._pen.text((left, top), words, fill=colour, font=self._font)
