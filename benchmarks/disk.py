"""What lies under a folder: its file system, and what one fsync costs there."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Final

from benchmarks.processes import ContestantError

#: On these an fsync does nothing, and a power cut takes everything.
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})


def file_system(folder: Path) -> str:
    """Return the kind of the file system that a folder lies on, e.g. ``ext4``."""
    found, best = "unknown", -1
    real = folder.resolve()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        mounted_on = Path(fields.split()[4].encode().decode("unicode_escape"))
        # The last one mounted on a folder is the one that is seen.
        if real.is_relative_to(mounted_on) and len(mounted_on.parts) >= best:
            found, best = rest.split()[0], len(mounted_on.parts)
    return found


def check_durable(folder: Path) -> None:
    """Refuse a folder in memory.

    :raises ContestantError: says what to do.
    """
    if (kind := file_system(folder)) in IN_MEMORY:
        raise ContestantError(
            f"{folder} is on {kind}, where an fsync does nothing: name a folder on a disk with --disk"
        )


def memory_folder() -> Path | None:
    """Return a folder in memory, where the system has one that we may write to."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and os.access(shared, os.W_OK) and file_system(shared) in IN_MEMORY else None


def free_bytes(folder: Path) -> int:
    """Return how much we may still write there."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def fsync_seconds(folder: Path, size: int, *, tries: int = 20) -> float:
    """Return how long one fsync of a new file takes, with nothing else going on there.

    :param folder: where.
    :param size: of the file, bytes.
    :param tries: how many; the median is what counts.
    """
    content, seconds = os.urandom(size), []
    for number in range(tries):
        path = folder / f"fsync{number}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, content)
            start = time.perf_counter()
            os.fsync(descriptor)
            seconds.append(time.perf_counter() - start)
        finally:
            os.close(descriptor)
            path.unlink()
    return statistics.median(seconds)
