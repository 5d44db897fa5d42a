"""Kill -9 at random moments while DCMTK sends: what it was told 0x0000 for is there, whole, whenever the kill struck.

That an object is on the disk by then, and not only in the page cache that outlives the process, is proved by
``tests/integration/test_durability.py``; here it is that no moment leaves less, or something that is not whole.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from robustness.attack_receivers import STANDING, WAYS, Receiver, kill, running
from robustness.attack_stage import PATIENT
from support import dcmtk
from support import lying_pdus as wire
from support.attacker import connected
from support.datasets import wire_bytes
from support.ports import wait_until

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.sink import StoreRequest
from airflow_provider_varian.receiver.file_meta import encode_file_meta

pytestmark = pytest.mark.peers

_ROOT = "1.2.826.0.1.3680043.10.1511.78"
#: How many files one storescu is given; a command line has room for far more.
_AT_ONCE = 1000


def make_objects(folder: Path, count: int) -> dict[str, bytes]:
    """Write so many DICOM files; return their data sets by SOP Instance UID, which are their names too."""
    made = {}
    folder.mkdir()
    for number in range(1, count + 1):
        uid = f"{_ROOT}.{number}"
        # From a few bytes to more than three P-DATA-TF PDUs.
        made[uid] = wire.data_set(uid, filling=100 + number * 7919 % 60_000)
        meta = encode_file_meta(
            StoreRequest(
                sop_class_uid=uids.RT_IMAGE, sop_instance_uid=uid, transfer_syntax_uid=uids.IMPLICIT_VR_LITTLE_ENDIAN
            )
        )
        (folder / uid).write_bytes(meta + made[uid])
    return made


@contextmanager
def sending(program: str, receiver: Receiver, folder: Path, names: list[str]) -> Iterator[Iterator[str]]:
    """Send files with DCMTK, in their order; yield the UIDs of those that were acknowledged, as it hears of it."""
    command = [program, "-v", "-xi", "-aec", "AIRFLOW", "127.0.0.1", str(receiver.address[1]), *names]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder, env=dcmtk.ENVIRONMENT
    )
    try:
        yield _acknowledged(process)
    finally:
        process.kill()
        assert process.stdout is not None
        process.stdout.close()
        process.wait()


def _acknowledged(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    sent = ""
    for line in process.stdout:
        if found := re.search(r"Sending file: (\S+)", line):
            sent = found[1]
        elif "Received Store Response (Success)" in line:
            assert sent
            yield sent
            sent = ""


@contextmanager
def half_an_object(receiver: Receiver) -> Iterator[None]:
    """Have another peer in the middle of an object meanwhile, so that each kill leaves a fragment."""
    with connected(receiver.address) as peer:
        assert peer.associate() is None
        peer.send(*wire.store_message(f"{_ROOT}.0.1", filling=40_000)[:2])
        wait_until(receiver.fragments, what="a fragment")
        yield


def check(receiver: Receiver, made: dict[str, bytes], acknowledged: set[str]) -> None:
    """Fail unless what was acknowledged is there, and whatever is there is whole."""
    stored = receiver.stored()
    assert acknowledged <= stored.keys()
    assert stored.keys() <= made.keys()
    for uid, paths in stored.items():
        assert {wire_bytes(path) for path in paths} == {made[uid]}


def kill_and_kill_again(way: str, tmp_path: Path, storescu: str, *, count: int, kills: int, seed: int) -> None:
    dice = random.Random(seed)
    made = make_objects(tmp_path / "files", count)
    acknowledged: set[str] = set()
    struck = 0
    while len(acknowledged) < count:
        with running(way, tmp_path / "jail", limits=PATIENT) as receiver:
            assert receiver.fragments() == [], "what the one before left is swept"
            rest = [uid for uid in made if uid not in acknowledged]
            # Soon enough for the others to come too; when all have, the rest goes through.
            due = dice.randint(1, len(rest) // (kills - struck + 1)) if struck < kills else 0
            with half_an_object(receiver), sending(storescu, receiver, tmp_path / "files", rest[:_AT_ONCE]) as told:
                for number, uid in enumerate(told, 1):
                    acknowledged.add(uid)
                    if number == due:
                        time.sleep(dice.random() * 0.01)  # somewhere within the objects that follow
                        kill(receiver)
                        struck += 1
            check(receiver, made, acknowledged)
            assert receiver.process.poll() in (None, -9)
    assert struck >= kills
    print(f"{way}: {count} objects, {struck} kills, seed {seed}, each acknowledged object there and whole")


@pytest.mark.timeout(200)
@pytest.mark.parametrize("way", WAYS)
def test_what_was_acknowledged_survives_two_kills(way, tmp_path, program):
    kill_and_kill_again(way, tmp_path, program("storescu"), count=240, kills=2, seed=20261121)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", WAYS)
def test_what_was_acknowledged_of_five_thousand_survives_thirty_kills(way, tmp_path, program):
    seed = int(os.environ.get("CHAOS_SEED", "1"))
    kill_and_kill_again(way, tmp_path, program("storescu"), count=5000, kills=30, seed=seed)


def test_an_acknowledged_object_that_is_lost_or_cut_is_found_out(tmp_path, program):
    made = make_objects(tmp_path / "files", 3)
    with running(STANDING, tmp_path / "jail", limits=PATIENT) as receiver:
        with sending(program("storescu"), receiver, tmp_path / "files", list(made)) as told:
            acknowledged = set(told)
        assert acknowledged == made.keys()
        check(receiver, made, acknowledged)
        (path,) = receiver.stored()[f"{_ROOT}.2"]
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(AssertionError):
            check(receiver, made, acknowledged)
        path.unlink()
        with pytest.raises(AssertionError):
            check(receiver, made, acknowledged)
