"""What the receiver acknowledges is on the disk by then: proved by the system calls it makes (semantics 30).

A kill proves nothing here, since the page cache outlives the process. So a real receiver runs under ``strace``, DCMTK
sends it an object, and the order of the calls is checked. Receivers that leave out a sync must fail the same check.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import dcmtk
from support.archive import rt_image, sendable

pytestmark = pytest.mark.peers

ROOT = Path(__file__).parents[2]
TRACED = "write,writev,fsync,fdatasync,rename,renameat,renameat2,link,linkat,mkdir,mkdirat,sendto,sendmsg"
UID = str(rt_image(1).SOPInstanceUID)

#: A receiver does not sync files, or folders, when it is a mutant.
SYNC = """
import os, stat, sys

really = os.fsync
mutant = sys.argv[2]

def fsync(descriptor):
    is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    if mutant == "none" or (mutant == "files" and is_folder) or (mutant == "folders" and not is_folder):
        really(descriptor)

os.fsync = fsync
"""

#: Receivers over a spool, until their standard input ends: as tasks run one, and as it stands.
IN_TASK = """
from pathlib import Path
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.receiver.in_task import InTaskReceiver
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink

peer = Peer(host="127.0.0.1", port=104, called_ae_title="PEER", receiver_host="127.0.0.1", receiver_port=0)
with SpoolSink(Spool(Path(sys.argv[1]))) as sink, InTaskReceiver(peer, sink) as receiver:
    print("listening on {}:{}".format(*receiver.address), flush=True)
    sys.stdin.read()
"""
STANDING = """
import signal, threading
from airflow_provider_varian.cli.main import main

def stop():
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=stop, daemon=True).start()
sys.exit(main(["receive", "--host", "127.0.0.1", "--port", "0", "--spool", sys.argv[1]]))
"""


@dataclass(frozen=True)
class Call:
    """A system call that succeeded; it began and ended at these lines of the trace."""

    name: str
    arguments: str
    began: int
    ended: int


def calls_of(trace: str) -> list[Call]:
    """Parse what ``strace -f`` wrote; calls of several threads may interrupt each other."""
    calls, unfinished = [], {}
    for number, line in enumerate(trace.splitlines()):
        thread, _, text = line.partition(" ")
        text, began = text.strip(), number
        if text.endswith("<unfinished ...>"):
            unfinished[thread] = (text.removesuffix("<unfinished ...>"), number)
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>", text):
            head, began = unfinished.pop(thread)
            text = head + text[resumed.end() :]
        if parsed := re.match(r"(\w+)\((.*)\)\s+= \d+", text):
            calls.append(Call(parsed[1], parsed[2], began, number))
    return calls


def check_durable(trace: str, spool: Path) -> None:
    """Fail unless the object was durable under its final name before its sender was answered."""
    calls = calls_of(trace)
    renames = [call for call in calls if call.name.startswith(("rename", "link")) and f"{UID}." in call.arguments]
    assert len(renames) == 1, "one rename to the final name"
    (rename,) = renames
    fragment, final = (Path(path) for path in re.findall(r'"([^"]+)"', rename.arguments))
    assert final.is_relative_to(spool / "new")

    # A PDU begins with its type; 04 is P-DATA-TF (PS3.8 9.3.1), and C-STORE-RSP is the only one that we send.
    answers = [
        call for call in calls if call.name.startswith("send") and re.search(r'<(?:socket|TCP).*?"\\4', call.arguments)
    ]
    assert len(answers) == 1, "one answer"
    answer = answers[0].began

    writes = [call for call in calls if call.name in {"write", "writev"} and f"<{fragment}>" in call.arguments]
    assert writes, "the fragment is written"
    last_write = max(call.ended for call in writes)
    assert _synced(calls, fragment, after=last_write, before=rename.began), "the file is synced before it is renamed"
    assert rename.ended < answer, "it has its final name before the answer"
    folder = final.parent
    assert _synced(calls, folder, after=rename.ended, before=answer), "its folder is synced before the answer"
    (made,) = (call for call in calls if call.name.startswith("mkdir") and f'"{folder}"' in call.arguments)
    assert _synced(calls, folder.parent, after=made.ended, before=answer), "so is the folder of a new folder"


def _synced(calls: list[Call], path: Path, *, after: int, before: int) -> bool:
    syncs = [call for call in calls if call.name in {"fsync", "fdatasync"} and f"<{path}>" in call.arguments]
    return any(after < call.began and call.ended < before for call in syncs)


@pytest.fixture(params=[IN_TASK, STANDING], ids=["in-task", "standing"])
def traced(request, tmp_path, program):
    """Return a function that has a receiver take one object, and returns its trace and its spool."""
    strace, storescu = program("strace"), program("storescu")
    image = tmp_path / "image.dcm"
    sendable(rt_image(1)).save_as(image, enforce_file_format=True)

    def run(mutant: str = "none") -> tuple[str, Path]:
        spool, trace = tmp_path / "spool", tmp_path / "trace"
        command = [strace, "-f", "-y", "-e", f"trace={TRACED}", "-o", str(trace)]
        command += [sys.executable, "-c", SYNC + request.param, str(spool), mutant]
        receiver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
                                    start_new_session=True)  # fmt: skip
        try:
            port = receiver.stdout.readline().strip().rpartition(":")[2]
            assert port, "the receiver did not start"
            sent = dcmtk.run(storescu, "-aec", "AIRFLOW", "127.0.0.1", port, image)
            assert sent.returncode == 0, sent.stderr
            receiver.communicate(timeout=60)  # the end of its input ends it
        finally:
            # strace and what it runs: that would live on by itself.
            with suppress(ProcessLookupError):
                os.killpg(receiver.pid, signal.SIGKILL)
            receiver.communicate()
        assert receiver.returncode == 0
        assert len(list(spool.glob(f"new/*/{UID}.*.dcm"))) == 1
        return trace.read_text(), spool

    return run


def test_an_object_is_durable_under_its_final_name_before_its_sender_is_answered(traced):
    trace, spool = traced()
    check_durable(trace, spool)


@pytest.mark.parametrize(
    ("unsynced", "message"),
    [("files", "the file is synced before it is renamed"), ("folders", "its folder is synced before the answer")],
)
def test_a_receiver_that_does_not_sync_is_found_out(traced, unsynced, message):
    trace, spool = traced(unsynced)
    with pytest.raises(AssertionError, match=message):
        check_durable(trace, spool)


def test_an_answer_that_comes_too_early_is_found_out(traced):
    trace, spool = traced()
    lines = trace.splitlines()
    (answer,) = (line for line in lines if re.search(r'send\w+\(\d+<(?:socket|TCP).*?"\\4', line))
    lines.remove(answer)
    rename = next(number for number, line in enumerate(lines) if "rename" in line and f"{UID}." in line)
    for early in (rename, rename + 1):
        with pytest.raises(AssertionError, match="before the answer"):
            check_durable("\n".join([*lines[:early], answer, *lines[early:]]), spool)
