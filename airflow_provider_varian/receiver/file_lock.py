"""A lock that is a file, for processes of one machine: ``flock``, so a kill frees it.

The file is removed when it is let go of. Who has opened it in that moment sees that it is not the one that others find.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


def lock_file(path: Path) -> int | None:
    """Lock a file, which is made when it is not there.

    :return: its descriptor, for :func:`unlock_file`; ``None`` when somebody else has it.
    :raises OSError: when it cannot be opened, or cannot be locked at all.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def unlock_file(path: Path, descriptor: int) -> None:
    """Let go of a file that :func:`lock_file` locked."""
    with suppress(OSError):
        path.unlink()  # while it is held
    os.close(descriptor)
