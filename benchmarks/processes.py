"""The contestants as processes: DCMTK's, and ours."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import proc

_TOP: Final = Path(__file__).parents[1]
_PATH: Final = os.pathsep.join(filter(None, (str(_TOP), os.environ.get("PYTHONPATH", ""))))

#: As it is installed: each of its small messages waits 40 ms (Nagle's algorithm against delayed acknowledgement).
STOCK: Final = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"} | {"PYTHONPATH": _PATH}
#: Without that wait, which is what to compare with.
ENVIRONMENT: Final = STOCK | {"TCP_NODELAY": "1"}
_READY_SECONDS: Final = 120.0
_CLIENT_SECONDS: Final = 1800.0


class ContestantError(Exception):
    """A contestant did not do what it was to do; the text says what it did instead."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A client that has come to its end.

    :param seconds: from its start to its end.
    :param cpu_seconds: processor time of it and its children.
    :param peak_mb: largest resident memory, as far as it was seen.
    :param threads: most at a time.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float
    threads: int


def module(name: str, *arguments: object) -> list[str]:
    """Return the command that runs a module of this package."""
    return [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]


def free_port() -> int:
    """Return a port of loopback that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def needed(*programs: str) -> None:
    """End with a sentence when a program is missing."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)} (as root on Debian: make peers)")


@contextmanager
def serving(command: list[str], port: int, log: Path, environment: Mapping[str, str] = ENVIRONMENT) -> Iterator[int]:
    """Run a server until the block ends; yield its process number once its port listens.

    :raises ContestantError: when it never listens.
    """
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=environment)
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while not proc.listens(process.pid, port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ContestantError(f"{command[0]} does not listen: {said(log)}")
            time.sleep(0.02)
        yield process.pid
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process of ours, kindly at first."""
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run(*command: str, environment: Mapping[str, str] = ENVIRONMENT) -> Ended:
    """Run a client to its end; what it says is shown only when it fails.

    :raises ContestantError: when it fails, or does not come to an end.
    """
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        late = threading.Timer(_CLIENT_SECONDS, process.kill)
        late.start()
        try:
            with proc.looked_at(process.pid) as seen:
                _, status, used = os.wait4(process.pid, 0)
                seconds = time.perf_counter() - start
                process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            late.cancel()
            stop(process)
        if process.returncode:
            output.seek(0)
            words = output.read()[-500:].decode(errors="replace").strip()
            raise ContestantError(f"{command[0]} failed ({_ending(process.returncode)}): {words}")
    # Not what wait4() says of memory: that is at least what we had ourselves when the client was started.
    return Ended(seconds, used.ru_utime + used.ru_stime, seen.peak_mb, seen.threads)


def said(log: Path) -> str:
    """Return the end of what a process said."""
    return log.read_text(errors="replace")[-1000:].strip() or "it said nothing"


def _ending(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
