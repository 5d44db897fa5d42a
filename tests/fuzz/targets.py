"""What is fuzzed: each parser of bytes that a peer sends, with what must hold for any bytes at all.

A target takes bytes and raises when something does not hold. Every second input is taken as it is; of the others a
right encoding is made first, of the parts that the bytes say, which has to be understood as what it is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from support import lying_pdus as wire

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import association_request
from airflow_provider_varian.dimse.bounds import Bounds, MalformedError
from airflow_provider_varian.dimse.command_set import Command, RetrieveProgress, StoreRequest, StoreResponse
from airflow_provider_varian.dimse.incoming import Incoming
from airflow_provider_varian.dimse.sink import StoreRequest as Received
from airflow_provider_varian.receiver.file_meta import encode_file_meta, read_file_meta
from airflow_provider_varian.receiver.head import DataSetError, parse_head, walk_elements

#: Small, so that inputs of a few hundred bytes come to them.
BOUNDS: Final = Bounds(
    command_set_bytes=200, presentation_contexts=4, transfer_syntaxes=3, user_items=5, association_pdu_bytes=4096
)


class Parts:
    """Bytes, taken as numbers and texts from the front; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def __bool__(self) -> bool:
        return self._place < len(self._data)

    def number(self, below: int) -> int:
        taken = int.from_bytes(self.bytes(4 if below > 0xFFFF else 2 if below > 0xFF else 1), "big")
        return taken % below

    def bytes(self, count: int) -> bytes:
        taken = self._data[self._place : self._place + count]
        self._place += count
        return taken

    def uid(self, longest: int = 64) -> str:
        digits = "".join("0123456789."[byte % 11] for byte in self.bytes(self.number(longest) + 1))
        return digits or "1"

    def title(self) -> str:
        return "".join(chr(0x20 + byte % 0x5F) for byte in self.bytes(16)).replace("\\", "/")


def _is_ours(error: ValueError | DataSetError) -> None:
    """Fail when a message could quote what a peer sent: it goes into logs."""
    text = str(error)
    assert text.isascii()
    assert text.isprintable()


# ------------------------------------------------------------------------------------------- association requests


def association(data: bytes) -> None:
    """Look through an A-ASSOCIATE-RQ, and an A-ASSOCIATE-AC."""
    if not data or data[0] % 2:
        for answer in (False, True):
            whole = _is_sound(data[1:], answer=answer)
            assert not whole or _adds_up(data[1:], 0x21 if answer else 0x20)
        return
    parts = Parts(data[1:])
    count = 1 + parts.number(6)
    numbers = [2 * parts.number(128) + 1 for _ in range(count)]
    contexts = [
        wire.presentation_context(number, parts.uid(), [parts.uid() for _ in range(1 + parts.number(5))])
        for number in numbers
    ]
    many_syntaxes = any(context.count(b"\x40\0\0") > BOUNDS.transfer_syntaxes for context in contexts)
    more = [wire.item(0x60 + parts.number(16), parts.bytes(parts.number(40))) for _ in range(parts.number(6))]
    body = wire.association_body(
        called=parts.title(), calling=parts.title(), contexts=contexts, user=wire.user_information(*more)
    )
    sound = _is_sound(body)
    if count > BOUNDS.presentation_contexts or len(set(numbers)) < count or len(more) + 2 > BOUNDS.user_items:
        assert not sound
    elif not many_syntaxes:  # their head may be in a UID too
        assert sound


def _is_sound(body: bytes, *, answer: bool = False) -> bool:
    found = set()
    for buffer in (body, memoryview(bytearray(body))):
        try:
            association_request.check(buffer, BOUNDS, answer=answer)
            found.add(True)
        except MalformedError as error:
            _is_ours(error)
            found.add(False)
    (sound,) = found
    return sound


def _adds_up(body: bytes, context_kind: int) -> bool:
    """Say whether lengths of items, and of items in them, are true: told by taking apart and putting together."""
    contexts = 0
    for kind, value in _taken_apart(body[68:]):
        if kind == context_kind:
            contexts += 1
            list(_taken_apart(value[4:]))
        if kind == 0x50:
            assert len(list(_taken_apart(value))) <= BOUNDS.user_items
    return len(body) >= 68 and contexts <= BOUNDS.presentation_contexts


def _taken_apart(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, length = struct.unpack(">BxH", data[:4])
        assert len(data) >= 4 + length
        yield kind, data[4 : 4 + length]
        data = data[4 + length :]


# --------------------------------------------------------------------------------------------------------- P-DATA


class _Log:
    """What a parser called, with pieces that follow each other put together."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []

    def begin(self, context_id: int, command: Command) -> None:
        assert not self.calls or self.calls[-1][0] == "end"
        assert len(command.data) <= BOUNDS.command_set_bytes
        self.calls.append(("begin", (context_id, command.data)))

    def data(self, piece: memoryview) -> None:
        assert len(piece)
        name, content = self.calls[-1]
        if name == "data":
            assert isinstance(content, bytearray)
            content += piece
        else:
            assert name == "begin"
            self.calls.append(("data", bytearray(piece)))

    def end(self) -> None:
        assert self.calls
        assert self.calls[-1][0] != "end"
        self.calls.append(("end", None))


def p_data(data: bytes) -> None:
    """Put messages together, whichever way their bytes come."""
    if not data or data[0] % 2:
        pdus = list(_pdus_of(Parts(data[1:])))
    else:
        pdus, expected = _right_messages(Parts(data[1:]))
        assert _calls(pdus, lambda: 1 << 20) == (expected, False)
    whole = _calls(pdus, lambda: 1 << 20)
    assert _calls(pdus, lambda: 1) == whole
    steps = Parts(data * 2)
    assert _calls(pdus, lambda: 1 + steps.number(40)) == whole


def _pdus_of(parts: Parts) -> Iterator[bytes]:
    while parts:
        yield parts.bytes(1 + parts.number(400))


def _right_messages(parts: Parts) -> tuple[list[bytes], list[tuple[str, object]]]:
    """Return PDUs of messages that are as they should be, and what is to be called for them."""
    pdus: list[bytes] = []
    expected: list[tuple[str, object]] = []
    for _ in range(1 + parts.number(3)):
        context = 1 + parts.number(255)
        with_data = parts.number(4) > 0
        command = wire.command_set(
            [wire.number(0x0100, parts.number(0x10000)), wire.number(0x0800, 1 if with_data else wire.NO_DATA_SET)]
        )
        content = parts.bytes(parts.number(300))
        items = _items_of(parts, context, wire.COMMAND, command)
        expected.append(("begin", (context, command)))
        if with_data:
            items += _items_of(parts, context, 0, content)
            expected += [("data", content)] if content else []
        expected.append(("end", None))
        while items:
            count = 1 + parts.number(4)
            pdus.append(b"".join(items[:count]))
            del items[:count]
    return pdus, expected


def _items_of(parts: Parts, context: int, control: int, content: bytes) -> list[bytes]:
    items = []
    while content:
        size = 1 + parts.number(100)
        items.append(wire.pdv(context, control, content[:size]))
        content = content[size:]
    last = items.pop()[6:] if items and parts.number(3) else b""
    return [*items, wire.pdv(context, control | wire.LAST, last)]


def _calls(pdus: list[bytes], step: Callable[[], int]) -> tuple[list[tuple[str, object]], bool]:
    """Feed PDUs so many bytes at a time; return what was called, and whether it ended as malformed."""
    log = _Log()
    incoming = Incoming(BOUNDS, log)
    try:
        for pdu in pdus:
            incoming.begin_pdu(len(pdu))
            _feed(incoming, pdu, step)
            assert incoming.pdu_left == 0
    except MalformedError as error:
        _is_ours(error)
        return log.calls, True
    # A command set that has not ended is within a message too, and has not been told.
    assert incoming.within_message or not log.calls or log.calls[-1][0] == "end"
    return log.calls, False


def _feed(incoming: Incoming, pdu: bytes, step: Callable[[], int]) -> None:
    start = end = 0
    while start < len(pdu):
        end = min(max(end, start) + step(), len(pdu))
        while start < end:
            used = incoming.feed(memoryview(pdu)[start:end])
            assert 0 <= used <= end - start
            start += used
            if not used:
                # It waits for more: for the rest of the head of an item, never of what it has room for.
                assert end - start < 6
                assert end < len(pdu)
                break


# --------------------------------------------------------------------------------------------------- command sets


def command_set(data: bytes) -> None:
    """Read a command set, and what we write."""
    if not data or data[0] % 2:
        _read_command(data[1:])
        return
    parts = Parts(data[1:])
    number = lambda: parts.number(0x10000)  # noqa: E731 - four words for eleven places
    kind = parts.number(3)
    if kind == 0:
        request = StoreRequest(
            sop_class_uid=parts.uid(), sop_instance_uid=parts.uid(), message_id=number(), priority=number(),
            originator=("ATTACKER", number()) if number() % 2 else None,
        )  # fmt: skip
        command = _read_command(request.encoded())
        assert command is not None
        assert (command.sop_class_uid, command.sop_instance_uid) == (request.sop_class_uid, request.sop_instance_uid)
        assert (command.message_id, command.priority) == (request.message_id, request.priority)
        originator = (command.originator_ae_title, command.originator_message_id)
        assert originator == (request.originator or ("", None))
        assert command.has_data_set
    elif kind == 1:
        comment = parts.bytes(80).decode("latin-1")
        response = StoreResponse(
            sop_class_uid=parts.uid(), sop_instance_uid=parts.uid(), responds_to=number(), status=number(),
            error_comment=comment,
        )  # fmt: skip
        command = _read_command(response.encoded())
        assert command is not None
        assert (command.status, command.responds_to) == (response.status, response.responds_to)
        assert len(command.error_comment) <= 64
        assert not command.has_data_set
    else:
        progress = RetrieveProgress(
            command_field=number(), sop_class_uid=parts.uid(), responds_to=number(), status=number(),
            remaining=number(), completed=number(), failed=number(), warning=number(),
        )  # fmt: skip
        command = _read_command(progress.encoded())
        assert command is not None
        assert (command.status, command.responds_to) == (progress.status, progress.responds_to)
        assert command.command_field == progress.command_field


def _read_command(data: bytes) -> Command | None:
    try:
        command = Command(data)
    except ValueError as error:
        _is_ours(error)
        return None
    assert 0 <= command.command_field <= 0xFFFF
    for name in ("message_id", "priority", "originator_message_id"):
        try:
            value = getattr(command, name)
        except ValueError:
            continue
        assert value is None or 0 <= value <= 0xFFFF
    texts = (command.sop_class_uid, command.sop_instance_uid, command.originator_ae_title, command.error_comment)
    assert all(len(text) <= len(data) for text in texts)
    return command


# --------------------------------------------------------------------------------------------------------- data sets


class _InPieces:
    """Bytes that are read as a file is."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, part: slice) -> bytes:
        assert part.stop - part.start <= 16, "a walk reads heads of elements only"
        return self._data[part]


_SYNTAXES: Final = (
    uids.IMPLICIT_VR_LITTLE_ENDIAN,
    uids.EXPLICIT_VR_LITTLE_ENDIAN,
    uids.COMPRESSED_TRANSFER_SYNTAXES[0],
    uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)


def head(data: bytes) -> None:
    """Read the head of a data set, walk over its elements, and read the receipt in front of it."""
    if not data or data[0] % 2:
        syntax = _SYNTAXES[(data[0] if data else 0) // 2 % len(_SYNTAXES)]
        _read_head(data[1:], syntax)
        _read_receipt(data[1:])
        return
    parts = Parts(data[1:])
    count, content = 0, b""
    for _ in range(parts.number(12)):
        count += 1
        content += _element(parts, depth=0)
    assert _walk(content, uids.IMPLICIT_VR_LITTLE_ENDIAN) == count
    received = Received(
        sop_class_uid=parts.uid(), sop_instance_uid=parts.uid(), transfer_syntax_uid=parts.uid(),
        calling_ae_title="CALLING", called_ae_title="CALLED",
    )  # fmt: skip
    file = encode_file_meta(received) + content
    receipt = read_file_meta(file)
    assert file[receipt.data_set_offset :] == content
    assert receipt.sop_instance_uid == received.sop_instance_uid
    assert (receipt.sop_class_uid, receipt.transfer_syntax_uid) == (
        received.sop_class_uid,
        received.transfer_syntax_uid,
    )
    assert (receipt.source_ae_title, receipt.receiving_ae_title) == ("CALLING", "CALLED")


def _element(parts: Parts, depth: int) -> bytes:
    """Return an element of Implicit VR: a value, or a sequence of items with or without a length."""
    tag = 0x00080000 + parts.number(0x10000)
    if depth > 3 or parts.number(3):
        return wire.element(tag, parts.bytes(parts.number(20)))
    items = b""
    for _ in range(parts.number(3)):
        inside = b"".join(_element(parts, depth + 1) for _ in range(parts.number(3)))
        if parts.number(2):
            items += wire.element(0xFFFEE000, inside)
        else:
            items += wire.element(0xFFFEE000, inside, length=0xFFFFFFFF) + wire.element(0xFFFEE00D, b"")
    if parts.number(2):
        return wire.element(tag, items)
    return wire.element(tag, items, length=0xFFFFFFFF) + wire.element(0xFFFEE0DD, b"")


def _read_head(data: bytes, syntax: str) -> None:
    found = []
    for buffer in (data, memoryview(bytearray(data))):
        try:
            uids_found = parse_head(buffer, syntax)
            assert all(len(uid or "") <= 128 for uid in (uids_found.sop_class_uid, uids_found.sop_instance_uid))
            found.append(uids_found)
        except DataSetError as error:
            _is_ours(error)
            found.append(None)
    assert found[0] == found[1]
    whole = _walk(data, syntax)
    assert whole is None or found[0] is not None


def _walk(data: bytes, syntax: str) -> int | None:
    counts = []
    for readable in (data, _InPieces(data)):
        try:
            counts.append(walk_elements(readable, syntax))
        except DataSetError as error:
            _is_ours(error)
            counts.append(None)
    assert counts[0] == counts[1]
    return counts[0]


def _read_receipt(data: bytes) -> None:
    for file in (data, bytes(128) + b"DICM" + data):
        try:
            receipt = read_file_meta(file)
        except DataSetError as error:
            _is_ours(error)
        else:
            assert 0 < receipt.data_set_offset <= len(file)


# ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Target:
    """Something to fuzz.

    :param test: takes bytes, and raises when something does not hold.
    :param modules: what is fuzzed; :mod:`fuzz.corpus` keeps what leads to new lines of these.
    :param runs: how many inputs are tried in each run of the tests.
    :param longest: of an input, bytes.
    """

    test: Callable[[bytes], None]
    modules: tuple[str, ...]
    runs: int
    longest: int = 1024


TARGETS: Final = {
    "association_request": Target(test=association, modules=("dimse.association_request",), runs=100_000),
    "incoming": Target(test=p_data, modules=("dimse.incoming", "dimse.command_set"), runs=2_000, longest=250),
    "command_set": Target(test=command_set, modules=("dimse.command_set",), runs=150_000, longest=512),
    "head": Target(test=head, modules=("receiver.head", "receiver.file_meta"), runs=30_000),
}
