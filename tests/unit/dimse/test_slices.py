"""Slices: the bytes in their order, from memory and files, and PDUs that hold them."""

from __future__ import annotations

import os
import struct

import pytest

from airflow_provider_varian.dimse import framing
from airflow_provider_varian.dimse.slices import BLOCK_BYTES, Content, FileRange, joined, length_of, stamp


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 5000)
    return path


def test_slices_are_joined_in_order(file):
    slices = [b"head", FileRange(file, 10, 5), memoryview(b"mid"), FileRange(file, 0, 0), b"", bytearray(b"tail")]
    assert length_of(slices) == 16
    assert joined(slices) == b"head" + bytes(range(10, 15)) + b"mid" + b"tail"


@pytest.mark.parametrize("own_buffer", [None, bytearray(BLOCK_BYTES)])
@pytest.mark.parametrize("step", [1000, 65536, BLOCK_BYTES])
def test_a_large_range_comes_in_blocks(file, step, own_buffer):
    slices = [b"x" * 1500, FileRange(file, 3, 1_200_000), b"y"]
    parts = []
    with Content(slices, own_buffer) as content:
        while content.left:
            taken = content.take(step)
            assert sum(map(len, taken)) == min(step, 1_201_501 - sum(map(len, parts)))
            parts += [bytes(each) for each in taken]
    assert b"".join(parts) == b"x" * 1500 + file.read_bytes()[3:1_200_003] + b"y"


def test_a_file_that_is_gone_or_short_is_known_before_anything_is_read(file):
    with pytest.raises(OSError, match="shorter"), Content([b"x", FileRange(file, 1_279_999, 2)]):
        pass
    missing = file.with_name("missing")
    with pytest.raises(FileNotFoundError), Content([FileRange(file, 0, 1), FileRange(missing, 0, 1)]):
        pass


@pytest.mark.parametrize("change", ["replaced", "written again", "longer"])
def test_a_file_that_is_not_the_one_meant_is_not_read(file, change):
    meant = stamp(file.stat())
    with Content([FileRange(file, 0, 5, meant)]) as content:
        assert b"".join(content.take(5)) == bytes(range(5))
    if change == "replaced":
        other = file.with_name("other")
        other.write_bytes(file.read_bytes())
        os.utime(other, ns=(meant[1], meant[1]))
        other.replace(file)
    elif change == "written again":
        os.utime(file, ns=(meant[1], meant[1] + 1))
    else:
        with file.open("ab") as end:
            end.write(b"more")
        os.utime(file, ns=(meant[1], meant[1]))
    with pytest.raises(OSError, match="not the one"), Content([FileRange(file, 0, 5, meant)]):
        pass


def test_a_file_that_shrinks_meanwhile_is_an_error(file):
    with Content([FileRange(file, 0, 1_280_000)]) as content:
        content.take(BLOCK_BYTES)
        file.write_bytes(b"short")
        with pytest.raises(OSError, match="shorter"):
            content.take(BLOCK_BYTES)


def framed(content, size, command=b"COMMAND"):
    """Return the PDUs of a message as (flags, fragment), each checked for its lengths."""
    with Content(content) as opened:
        data = b"".join(bytes(each) for buffers in framing.message(5, command, opened, size) for each in buffers)
    pdus = []
    while data:
        kind, _, length, item, context, flags = struct.unpack(">BBIIBB", data[:12])
        assert (kind, context) == (4, 5)
        assert length == item + 4 <= size + 6
        pdus.append((flags, data[12 : 6 + length]))
        data = data[6 + length :]
    return pdus


@pytest.mark.parametrize("length", [1, 2, 999, 1000, 1001, 3000, 300_000])
@pytest.mark.parametrize("size", [1, 64, 1000, 1024])
def test_a_message_is_cut_into_full_fragments(length, size):
    length = min(length, 3000 * size)
    body = bytes(n % 251 for n in range(length))
    pdus = framed([body[: length // 3], body[length // 3 :]], size)
    command = [fragment for flags, fragment in pdus if flags & 1]
    data = [fragment for flags, fragment in pdus if not flags & 1]
    assert (b"".join(command), b"".join(data)) == (b"COMMAND", body)
    assert [flags for flags, _ in pdus] == [1] * (len(command) - 1) + [3] + [0] * (len(data) - 1) + [2]
    assert {len(fragment) for fragment in data[:-1]} <= {size}


def test_a_command_alone_is_a_whole_message():
    (buffers,) = framing.message(1, b"COMMAND", None, 100)
    assert b"".join(buffers) == struct.pack(">BBIIBB", 4, 0, 13, 9, 1, 3) + b"COMMAND"


def test_fragments_are_even_and_bounded():
    assert framing.fragment_size(4096) == 4090
    assert framing.fragment_size(4097) == 4090
    assert framing.fragment_size(7) == 1
    for none in (0, None, 2**32 - 1):
        assert framing.fragment_size(none) == framing.LARGEST_PDU - 6
    with pytest.raises(ValueError, match="too small"):
        framing.fragment_size(6)
