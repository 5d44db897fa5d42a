"""A data set as slices: bytes in memory and ranges of files, read a piece at a time when they are sent.

A range is read with ``preadv`` into one buffer that is used again and again, so that memory stays flat
whatever the size of the file, and a file that shrinks meanwhile is an error, not a signal that ends the
process (as it would be with ``mmap``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

#: Bytes that are read and sent in one go; they stay in the processor's cache on the way.
BLOCK_BYTES: Final = 512 * 1024


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes of a file.

    :param path: the file.
    :param offset: where the range begins, bytes.
    :param length: its length, bytes.
    :param stamp: what :func:`stamp` says of the file that is meant, so that no other is read in its place; ``None``
        takes any that is long enough.
    """

    path: Path
    offset: int
    length: int
    stamp: tuple[int, int, int] | None = None


Slice = bytes | bytearray | memoryview | FileRange


def stamp(status: os.stat_result) -> tuple[int, int, int]:
    """Return size, time of change and number of a file: another file, or another content, has another stamp."""
    return status.st_size, status.st_mtime_ns, status.st_ino


def length_of(slices: Iterable[Slice]) -> int:
    """Return how many bytes some slices hold together."""
    return sum(each.length if isinstance(each, FileRange) else len(each) for each in slices)


def joined(slices: Iterable[Slice]) -> bytes:
    """Return the bytes of some slices, all in memory.

    :raises OSError: when a file is gone, or shorter than its range.
    """
    with Content(slices) as content:
        parts = []
        while content.left:
            parts += [bytes(part) for part in content.take(BLOCK_BYTES)]
        return b"".join(parts)


class Content:
    """Slices that are open for reading, once, from the front.

    Entering it opens the files and looks at their sizes and stamps: what cannot be sent is known before the
    first byte goes out.

    :param slices: the data set.
    :param buffer: what ranges of files are read into, :data:`BLOCK_BYTES` long; one of its own when ``None``.
    :raises OSError: on entering, when a file is gone, shorter than its range, or not the one meant.
    """

    def __init__(self, slices: Iterable[Slice], buffer: bytearray | None = None) -> None:
        self._slices: Sequence[Slice] = tuple(slices)
        self.left = length_of(self._slices)
        self._files: dict[Path, int] = {}
        self._opened = ExitStack()
        self._number = 0
        self._done = 0
        self._buffer = None if buffer is None else memoryview(buffer)

    def __enter__(self) -> Self:
        """Open the files."""
        try:
            for each in self._slices:
                if isinstance(each, FileRange):
                    self._open(each)
        except BaseException:
            self._opened.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close them."""
        self._opened.close()

    def take(self, count: int) -> list[memoryview]:
        """Return the next bytes, fewer at the end; valid until the next call.

        :param count: how many, :data:`BLOCK_BYTES` at most.
        :raises OSError: when a file has become shorter.
        """
        parts: list[memoryview] = []
        filled = 0
        while count and self.left:
            current = self._slices[self._number]
            size = current.length if isinstance(current, FileRange) else len(current)
            step = min(count, size - self._done)
            if isinstance(current, FileRange):
                if self._buffer is None:
                    self._buffer = memoryview(bytearray(min(BLOCK_BYTES, self.left)))
                part = self._buffer[filled : filled + step]
                self._read(current, part)
                filled += step
            else:
                part = memoryview(current)[self._done : self._done + step]
            if step:
                parts.append(part)
            self._done += step
            self.left -= step
            count -= step
            if self._done == size:
                self._number, self._done = self._number + 1, 0
        return parts

    def _open(self, wanted: FileRange) -> None:
        descriptor = self._files.get(wanted.path)
        if descriptor is None:
            descriptor = os.open(wanted.path, os.O_RDONLY | os.O_CLOEXEC)
            self._opened.callback(os.close, descriptor)
            self._files[wanted.path] = descriptor
        status = os.fstat(descriptor)
        if wanted.stamp is not None and stamp(status) != wanted.stamp:
            raise OSError("a file is not the one any more that was to be sent")
        if status.st_size < wanted.offset + wanted.length:
            raise _shorter()

    def _read(self, wanted: FileRange, part: memoryview) -> None:
        descriptor, offset = self._files[wanted.path], wanted.offset + self._done
        while part:
            count = os.preadv(descriptor, [part], offset)
            if not count:
                raise _shorter()
            part, offset = part[count:], offset + count


def _shorter() -> OSError:
    return OSError("a file is shorter than the part of it that is to be sent")
