"""A spool that cannot take what comes."""

from __future__ import annotations

import errno
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

import pytest
from robustness.attack_receivers import STANDING
from robustness.attack_stage import PATIENT, Attack, Stage, new_uid
from support import lying_pdus as wire
from support.ports import wait_until

#: More than the little file system of these tests has.
_TOO_MUCH: Final = 3 * 1024 * 1024
#: An object may be begun while a quarter of it is free, where that is looked at.
_SMALL: Final = replace(PATIENT, min_free_bytes=512 * 1024)


@contextmanager
def small_file_system(where: Path) -> Iterator[None]:
    """Mount a file system of 2 MiB there, which takes a privilege; without it skip."""
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", where], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system is mounted as root only: {mounted.stderr}")
    try:
        yield
    finally:
        subprocess.run(["umount", where], check=True)


def fills_the_disk(stage: Stage) -> None:
    """Send an object that does not fit; then take the last space away, and give it back."""
    with stage.associated() as peer:
        _refused(peer, _TOO_MUCH)
        filler = stage.receiver.spool / "filler"
        _fill(filler)
        try:
            for filling in (200_000, 10):
                _refused(peer, filling)
        finally:
            filler.unlink()
        # The association lives on, and with space there is success again.
        uid = new_uid()
        peer.send(*wire.store_message(uid))
        assert peer.answer().status == 0
        stage.receiver.acknowledged[uid] = wire.data_set(uid)
        peer.release()


def _refused(peer, filling: int) -> None:
    peer.send(*wire.store_message(new_uid(), filling=filling))
    assert peer.answer().status == 0xA700


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            _write_until_full(file, size)
    assert path.stat().st_size


def _write_until_full(file: BinaryIO, size: int) -> None:
    try:
        while file.write(bytes(size)):
            pass
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def file_size_limit(stage: Stage) -> None:
    """Let the kernel refuse to make files longer, in the middle of an object (setrlimit(2))."""
    pid = stage.receiver.process.pid
    usual = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    with stage.associated() as peer:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (100_000, usual[1]))
        try:
            for _ in range(3):
                _refused(peer, 500_000)
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, usual)
        peer.release()


def no_free_space(stage: Stage) -> None:
    filler = stage.receiver.spool / "filler"
    with stage.associated() as peer:
        filler.write_bytes(bytes(1_800_000))
        try:
            for _ in range(3):
                _refused(peer, 1000)
                peer.send(*wire.message(wire.VERIFICATION_CONTEXT, wire.echo_command()))
                assert peer.answer().status == 0
        finally:
            filler.unlink()
        peer.release()
    wait_until(lambda: _is_taken(stage), what="the space to be noticed")


def _is_taken(stage: Stage) -> bool:
    uid = new_uid()
    with stage.associated() as peer:
        peer.send(*wire.store_message(uid))
        status = peer.answer().status
        peer.release()
    if status == 0:
        stage.receiver.acknowledged[uid] = wire.data_set(uid)
    return status == 0


ROWS: Final = (
    Attack(
        name="disk-full",
        what="a spool on a file system of 2 MiB: an object of 3 MiB, then objects while nothing is free",
        holds="0xA700 each; no fragment; with space again, the same association stores again",
        play=fills_the_disk,
        small_disk=True,
        limits=_SMALL,
    ),
    Attack(
        name="file-too-long",
        what="the system refuses to make a file longer, in the middle of an object (RLIMIT_FSIZE)",
        holds="0xA700; no fragment; then the next object is stored",
        play=file_size_limit,
    ),
    Attack(
        name="little-free-space",
        what="objects while less than `--min-free` is free",
        holds="0xA700 each, before a byte is written; C-ECHO is answered; with space again, objects are stored",
        play=no_free_space,
        ways=(STANDING,),
        small_disk=True,
        limits=_SMALL,
    ),
)
