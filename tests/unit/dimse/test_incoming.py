"""Messages out of P-DATA bytes: whatever the fragmentation, the same messages; whatever is none, an error."""

from __future__ import annotations

import struct
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.raw_peer import build_command

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.bounds import Bounds, MalformedError
from airflow_provider_varian.dimse.incoming import Incoming

COMMAND, DATA, LAST = 1, 0, 2


class Messages:
    """Notes what it is called with."""

    def __init__(self):
        self.done, self.calls = [], []
        self._current = None

    def begin(self, context_id, command):
        self.calls.append("begin")
        self._current = [context_id, command.data, b""]

    def data(self, piece):
        assert len(piece) > 0
        self.calls.append("data")
        self._current[2] += bytes(piece)

    def end(self):
        self.calls.append("end")
        self.done.append(tuple(self._current))


def command(*, data_set=0x0001, number=7, field=0x0001, **more):
    return build_command(command=field, message_id=number, affected_class=uids.RT_IMAGE, data_set=data_set, **more)


def item(flags, data, context_id=1, length=None):
    return struct.pack(">IBB", len(data) + 2 if length is None else length, context_id, flags) + data


def feed(incoming, pdus, cuts=None):
    """Feed the bodies of PDUs; each call gets bytes up to the next cut, counted over all PDUs."""
    wire, lengths = b"".join(pdus), iter([len(pdu) for pdu in pdus])
    ends = sorted({*(cuts or ()), len(wire)})
    position = 0
    for end in ends:
        while position < end:
            if not incoming.pdu_left:
                incoming.begin_pdu(next(lengths))
            used = incoming.feed(memoryview(wire)[position:end])
            position += used
            if not used:
                break
    assert position == len(wire)


@st.composite
def streams(draw):
    """Messages, PDUs that carry them in fragments of any kind, and where TCP cuts them."""
    wanted, fragments = [], []
    for number in range(draw(st.integers(1, 3))):
        context_id = draw(st.sampled_from([1, 3, 255]))
        data = draw(st.one_of(st.none(), st.binary(max_size=60)))
        head = command(number=number, data_set=0x0101 if data is None else 0x0001)
        wanted.append((context_id, head, data or b""))
        for kind, content in ((COMMAND, head), (DATA, data)):
            if content is None:
                continue
            cuts = sorted(draw(st.sets(st.integers(1, max(1, len(content) - 1)), max_size=6)))
            bounds = [0, *(cut for cut in cuts if cut < len(content)), len(content)]
            parts = [content[low:high] for low, high in pairwise(bounds)]
            if draw(st.booleans()) and parts[-1]:
                parts.append(b"")  # the last fragment, and nothing in it
            fragments += [item(kind, part, context_id) for part in parts[:-1]]
            fragments.append(item(kind | LAST, parts[-1], context_id))
    pdus, current = [], b""
    for fragment in fragments:
        current += fragment
        if draw(st.booleans()):
            pdus.append(current)
            current = b""
    pdus += [current] if current else []
    total = sum(map(len, pdus))
    return wanted, pdus, draw(st.one_of(st.just(range(total)), st.sets(st.integers(1, total), max_size=20)))


@given(streams())
def test_any_fragmentation_gives_the_messages_that_were_cut(stream):
    wanted, pdus, cuts = stream
    messages = Messages()
    incoming = Incoming(Bounds(), messages)
    feed(incoming, pdus, cuts)
    assert messages.done == wanted
    assert not incoming.within_message
    assert incoming.pdu_left == 0


@given(st.lists(st.binary(min_size=6, max_size=80), max_size=5), st.binary(max_size=6))
def test_garbage_raises_nothing_but_malformed(bodies, start):
    incoming = Incoming(Bounds(command_set_bytes=64, message_bytes=1), Messages())
    for body in [item(COMMAND | LAST, command())[: 6 + len(start)] + start, *bodies]:
        try:
            incoming.begin_pdu(len(body))
            position = 0
            while position < len(body):
                used = incoming.feed(memoryview(body)[position:])
                assert used > 0
                position += used
        except MalformedError:
            return


def test_data_is_passed_on_as_it_comes_and_a_message_ends_where_it_ends():
    messages = Messages()
    incoming = Incoming(Bounds(), messages)
    pdu = item(COMMAND | LAST, command()) + item(DATA, b"abc") + item(DATA | LAST, b"de") + item(1, b"next")
    incoming.begin_pdu(len(pdu))
    head = len(item(COMMAND | LAST, command())) + 6
    assert incoming.feed(memoryview(pdu)[: head + 2]) == head + 2
    assert messages.calls == ["begin", "data"]
    assert incoming.within_message
    used = incoming.feed(memoryview(pdu)[head + 2 :])
    assert pdu[head + 2 + used :] == item(1, b"next")
    assert messages.calls == ["begin", "data", "data", "data", "end"]
    assert not incoming.within_message


@pytest.mark.parametrize(
    "bodies",
    [
        [item(DATA | LAST, b"data")],
        [item(COMMAND | LAST, command()), item(COMMAND, b"more")],
        [item(COMMAND, command()), item(DATA | LAST, b"data")],
        [item(COMMAND | LAST, command()), item(DATA | LAST, b"data", context_id=3)],
        [item(COMMAND, command()[:9]), item(COMMAND | LAST, command()[9:], context_id=3)],
        [item(COMMAND | LAST, command(), context_id=0)],
        [item(COMMAND, b"")],
        [item(COMMAND | LAST, command()), item(DATA, b"")],
        [item(COMMAND | LAST, b"")],
        [item(COMMAND | LAST, command(), length=len(command()) + 3)],
        [item(COMMAND | LAST, command(), length=0xFFFFFFFF)],
        [item(COMMAND | LAST, command(), length=1)],
        [item(COMMAND | LAST, command(), length=0)],
        [item(COMMAND | LAST, command()) + b"12345"],
        [item(COMMAND | LAST, command())[:5]],
        [b"", item(COMMAND | LAST, command())],
        [item(COMMAND | LAST, command()[:-1])],
        [item(COMMAND | LAST, command() + b"\x08\0\x18\0\0\0\0\0")],
        [item(COMMAND | LAST, struct.pack("<HHIB", 0, 0x0100, 1, 1) + struct.pack("<HHIH", 0, 0x0800, 2, 1))],
        [item(COMMAND | LAST, build_command(message_id=1, data_set=1))],
    ],
    ids=[
        "a data set first",
        "a command within a data set",
        "a data set within a command",
        "another context for the data set",
        "another context for a part of the command",
        "context 0",
        "an empty command fragment",
        "an empty data fragment",
        "an empty command",
        "an item longer than its PDU",
        "an item of 4 GiB",
        "an item without a control header",
        "an item without anything",
        "a PDU that ends within the head of an item",
        "a PDU too short for an item",
        "an empty PDU",
        "a command cut short",
        "an element of another group",
        "a number of one byte",
        "a command without its field",
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_what_is_no_message_is_refused(bodies, step):
    with pytest.raises(MalformedError):
        feed(Incoming(Bounds(), Messages()), bodies, range(step, sum(map(len, bodies)), step))


def test_a_command_set_is_bounded_before_it_is_held():
    incoming = Incoming(Bounds(command_set_bytes=1000), Messages())
    fragment = bytes(600)
    feed(incoming, [item(COMMAND, fragment)])
    incoming.begin_pdu(2000)
    with pytest.raises(MalformedError, match="too long"):
        incoming.feed(memoryview(item(COMMAND, b"", length=403)))


def test_a_claim_of_four_gibibytes_costs_nothing():
    messages = Messages()
    incoming = Incoming(Bounds(), messages)
    feed(incoming, [item(COMMAND | LAST, command())])
    tracemalloc.start()
    incoming.begin_pdu(0xFFFFFFFF)
    incoming.feed(memoryview(item(DATA, b"", length=0xFFFFFFFB)))
    assert tracemalloc.get_traced_memory()[1] < 10_000
    tracemalloc.stop()
    assert incoming.feed(memoryview(b"abc")) == 3


def test_a_command_set_that_repeats_is_read_once():
    commands = []

    class Noting(Messages):
        def begin(self, context_id, command):
            commands.append(command)
            super().begin(context_id, command)

    incoming = Incoming(Bounds(), Noting())
    for number in (7, 7, 8):
        feed(incoming, [item(COMMAND | LAST, command(number=number)) + item(DATA | LAST, b"data")])
    assert commands[0] is commands[1]
    assert [each.message_id for each in commands] == [7, 7, 8]
