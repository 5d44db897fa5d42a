"""The contestants as processes: DCMTK's, and ours."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Without it DCMTK waits 40 ms for each message (Nagle's algorithm against delayed acknowledgement).
ENVIRONMENT = os.environ | {"TCP_NODELAY": "1"}
_READY_SECONDS = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")


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
def serving(command: list[str], port: int, log: Path) -> Iterator[int]:
    """Run a server until the block ends; yield its process number once its port listens."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=ENVIRONMENT)
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{command[0]} does not listen: {log.read_text(errors='replace')[-1000:]}")
            time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(*command: str) -> None:
    """Run a client to its end; what it says is shown only when it fails."""
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed: {result.stdout[-500:]}{result.stderr[-500:]}")


def cpu_seconds(process: int) -> float:
    """Return the processor time of a process and of its children that have ended (proc(5))."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(int(each) for each in fields[11:15]) / _TICKS


def resident_mb(process: int) -> float:
    """Return the largest resident memory of a process so far, MB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
