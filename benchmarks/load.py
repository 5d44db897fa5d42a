"""Objects as messages that are ready to be sent: whoever receives them is measured, not who sends them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from airflow_provider_varian.dimse import framing
from airflow_provider_varian.dimse.command_set import StoreRequest
from airflow_provider_varian.dimse.slices import Content, FileRange, Slice, joined
from airflow_provider_varian.receiver.file_meta import FileMeta, read_file_meta
from benchmarks import arrived
from benchmarks.data import Study

#: What is larger is read from its file while it is sent, a piece at a time.
_IN_MEMORY_BYTES: Final = 128 * 1024 * 1024
_META_BYTES: Final = 4096

#: One message: buffers to be sent one after the other.
Message = Iterable[bytes]


class Load(Protocol):
    """Objects to be sent."""

    @property
    def count(self) -> int:
        """How many."""

    @property
    def size(self) -> int:
        """How many bytes all data sets have."""

    @property
    def sop_classes(self) -> Sequence[str]:
        """Their SOP classes, each once."""

    def messages(self, max_pdu: int, contexts: Sequence[int]) -> Iterable[Message]:
        """Give each object as a C-STORE-RQ with its data set, framed.

        :param max_pdu: the largest PDU that the other side takes; 0: no limit.
        :param contexts: presentation context IDs, in the order of ``sop_classes``.
        """

    def data_sets(self) -> Iterable[bytes]:
        """Give the data sets themselves."""

    def digests(self) -> arrived.Digests:
        """Return what should arrive."""


@dataclass(frozen=True, slots=True)
class _Object:
    meta: FileMeta
    content: Slice

    @property
    def size(self) -> int:
        return self.content.length if isinstance(self.content, FileRange) else len(self.content)

    def message(self, number: int, context: int, max_pdu: int) -> Message:
        """Return it ready in memory, or made each time that it is sent."""
        framed = partial(self._framed, number, context, max_pdu)
        return _MadeAnew(framed) if isinstance(self.content, FileRange) else [b"".join(framed())]

    def _framed(self, number: int, context: int, max_pdu: int) -> Iterator[bytes]:
        meta = self.meta
        request = StoreRequest(
            sop_class_uid=meta.sop_class_uid, sop_instance_uid=meta.sop_instance_uid, message_id=number % 0xFFFF + 1
        )
        with Content([self.content]) as content:
            for buffers in framing.message(context, request.encoded(), content, framing.fragment_size(max_pdu)):
                yield b"".join(buffers)


class FilesLoad:
    """The objects of some files, in memory but for very large ones.

    :param files: DICOM files.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        self._objects = [_read(path) for path in files]
        self._prepared: dict[tuple[int, tuple[int, ...]], list[Message]] = {}

    @property
    def count(self) -> int:
        """How many."""
        return len(self._objects)

    @property
    def size(self) -> int:
        """How many bytes all data sets have."""
        return sum(each.size for each in self._objects)

    @property
    def sop_classes(self) -> Sequence[str]:
        """Their SOP classes, each once."""
        return tuple(dict.fromkeys(each.meta.sop_class_uid for each in self._objects))

    def messages(self, max_pdu: int, contexts: Sequence[int]) -> Iterable[Message]:
        """Give the messages; built once for each size of PDU, and kept."""
        ids = dict(zip(self.sop_classes, contexts, strict=True))
        wanted = (max_pdu, tuple(contexts))
        if wanted not in self._prepared:
            self._prepared.clear()
            self._prepared[wanted] = [
                each.message(number, ids[each.meta.sop_class_uid], max_pdu) for number, each in enumerate(self._objects)
            ]
        return self._prepared[wanted]

    def data_sets(self) -> Iterable[bytes]:
        """Give the data sets, one in memory at a time where they are large."""
        return (joined([each.content]) for each in self._objects)

    def digests(self) -> arrived.Digests:
        """Return what should arrive."""
        return arrived.in_files(self.files)


class CopiesLoad:
    """One object many times, each time under another SOP Instance UID, made while it is sent.

    :param file: the object.
    :param count: how many.
    """

    def __init__(self, file: Path, count: int) -> None:
        self._object = _read(file)
        self._data_set = joined([self._object.content])
        self._numbers = range(count)

    def part(self, number: int) -> CopiesLoad:
        """Return one of them alone."""
        part = copy(self)
        part._numbers = self._numbers[number : number + 1]
        return part

    @property
    def count(self) -> int:
        """How many."""
        return len(self._numbers)

    @property
    def size(self) -> int:
        """How many bytes all data sets have."""
        return self.count * len(self._data_set)

    @property
    def sop_classes(self) -> Sequence[str]:
        """Their one SOP class."""
        return (self._object.meta.sop_class_uid,)

    def messages(self, max_pdu: int, contexts: Sequence[int]) -> Iterable[Message]:
        """Give the messages, one at a time."""
        size = framing.fragment_size(max_pdu)
        for number in self._numbers:
            uid, data_set = self._copy(number)
            request = StoreRequest(
                sop_class_uid=self.sop_classes[0], sop_instance_uid=uid, message_id=number % 0xFFFF + 1
            )
            with Content([data_set]) as content:
                parts = [b"".join(each) for each in framing.message(contexts[0], request.encoded(), content, size)]
            yield parts

    def data_sets(self) -> Iterable[bytes]:
        """Give the data sets, one at a time."""
        return (self._copy(number)[1] for number in self._numbers)

    def digests(self) -> arrived.Digests:
        """Return what should arrive."""
        return arrived.of_data_sets(self.data_sets())

    def _copy(self, number: int) -> tuple[str, bytes]:
        old = self._object.meta.sop_instance_uid
        # As long as the old one, so that no length changes.
        digits = f"{number + 1:0{len(old) - 2}d}"
        new = f"2.{'1' + digits[1:]}"
        return new, self._data_set.replace(old.encode(), new.encode(), 1)


def of_study(study: Study) -> FilesLoad:
    """Return the objects of a study."""
    return FilesLoad(study.files)


def _read(path: Path) -> _Object:
    with path.open("rb") as file:
        meta = read_file_meta(file.read(_META_BYTES))
    size = path.stat().st_size - meta.data_set_offset
    content: Slice = FileRange(path, meta.data_set_offset, size)
    return _Object(meta, content if size > _IN_MEMORY_BYTES else joined([content]))


class _MadeAnew:
    """A message that is made each time that it is sent."""

    def __init__(self, make: Callable[[], Iterator[bytes]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[bytes]:
        return self._make()
