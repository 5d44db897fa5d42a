"""What Linux says of a process: processor time, resident memory, threads (proc(5))."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_LOOK_SECONDS: Final = 0.02
#: The states of a TCP socket.
_LISTEN: Final = "0A"
_ESTABLISHED: Final = "01"
#: Held by a thread that looks, so that a process is never forked with one in the middle of something.
_looking: Final = threading.Lock()
os.register_at_fork(before=_looking.acquire, after_in_parent=_looking.release, after_in_child=_looking.release)
#: Written to ``clear_refs``, it makes the peak of resident memory begin anew.
_FORGET_PEAK: Final = "5"


@dataclass(slots=True)
class Usage:
    """What a process used meanwhile.

    :param cpu_seconds: processor time, its children's too.
    :param peak_mb: largest resident memory.
    :param growth_mb: by how much that is more than at the start.
    :param threads: most at a time, its children's too.
    """

    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    growth_mb: float = 0.0
    threads: int = 0


@contextmanager
def watched(process: int) -> Iterator[Usage]:
    """Watch a process within a block; what is yielded is filled when the block ends."""
    # Where it is not permitted, the peak is that of the process's life.
    with contextlib.suppress(OSError):
        Path(f"/proc/{process}/clear_refs").write_text(_FORGET_PEAK)
    resident, cpu = _megabytes(process, "VmRSS"), cpu_seconds(process)
    with looked_at(process) as usage:
        yield usage
    usage.cpu_seconds = cpu_seconds(process) - cpu
    usage.growth_mb = max(0.0, usage.peak_mb - resident)


@contextmanager
def looked_at(process: int) -> Iterator[Usage]:
    """Look at the memory and threads of a process now and then, also when it ends meanwhile."""
    usage, over = Usage(), threading.Event()

    def look() -> None:
        with _looking:
            usage.peak_mb = max(usage.peak_mb, _megabytes(process, "VmHWM"))
            family = (process, *_children(process))
            usage.threads = max(usage.threads, sum(int(_status(each, "Threads") or 0) for each in family))

    def keep_looking() -> None:
        while not over.wait(_LOOK_SECONDS):
            look()

    look()
    thread = threading.Thread(target=keep_looking, name="looks", daemon=True)
    thread.start()
    try:
        yield usage
    finally:
        over.set()
        thread.join()
        look()


def cpu_seconds(process: int) -> float:
    """Return the processor time of a process and of its children, living ones and those it has waited for."""
    return sum(_own_cpu_seconds(each) for each in (process, *_children(process)))


def listens(process: int, port: int) -> bool:
    """Say whether a process listens on a TCP port, it and no other that was faster to take the port."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    try:
        return any(os.readlink(each) in sockets for each in Path(f"/proc/{process}/fd").iterdir())
    except OSError:
        return False  # it has closed one meanwhile, or has ended


def resident_mb(process: int) -> float:
    """Return the largest resident memory of a process so far, MB."""
    return _megabytes(process, "VmHWM")


def resident_now_mb(process: int) -> float:
    """Return the resident memory of a process, MB."""
    return _megabytes(process, "VmRSS")


def connections_to(port: int) -> int:
    """Return how many connections stand that were made to a TCP port of this machine."""
    count = 0
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                count += fields[3] == _ESTABLISHED and int(fields[2].rpartition(":")[2], 16) == port
    return count


def _own_cpu_seconds(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(each) for each in fields[11:15]) / _TICKS


def _listening(port: int) -> Iterator[str]:
    """Yield the numbers of the sockets that listen on a port."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _children(process: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def _megabytes(process: int, name: str) -> float:
    return int((_status(process, name) or "0").split()[0]) / 1024


def _status(process: int, name: str) -> str:
    """Return a line of the status of a process; empty when it has none."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:")), "")
