"""What a run ran on, in words: without it no number means anything."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pynetdicom

from airflow_provider_varian import __version__
from benchmarks import disk


def described(disk_folder: Path, memory_folder: Path) -> dict[str, str]:
    """Describe it, by name.

    :param disk_folder: where durable things are written.
    :param memory_folder: where the others are.
    """
    small, large = (1000 * disk.fsync_seconds(disk_folder, size) for size in (20_000, 500_000))
    one, five, fifteen = os.getloadavg()
    return {
        "Processor": f"{os.cpu_count()} cores, {_processor()}",
        "Memory": f"{_memory_gb():.0f} GB",
        "System": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "This project": __version__,
        "pynetdicom, pydicom": f"{pynetdicom.__version__}, {pydicom.__version__}",
        "DCMTK": _dcmtk(),
        "Disk": f"{disk.file_system(disk_folder)}; a lone fsync takes {small:.2f} ms (20 KB), {large:.2f} ms (0.5 MB)",
        "Without fsync": f"in {disk.file_system(memory_folder)}",
        "Load at the start": f"{one:.1f} (1 minute), {five:.1f} (5), {fifteen:.1f} (15)",
        "Begun": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3


def _dcmtk() -> str:
    said = subprocess.run(["storescp", "--version"], capture_output=True, text=True, check=False).stdout.split()
    return said[2] if len(said) > 2 else "unknown"
