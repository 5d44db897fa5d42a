"""What is durable is measured on a disk, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import disk
from benchmarks.processes import ContestantError


def test_a_folder_in_memory_is_refused():
    shared = disk.memory_folder()
    if shared is None:
        pytest.skip("this system has no folder in memory")
    assert disk.file_system(shared) in disk.IN_MEMORY
    with pytest.raises(ContestantError, match="an fsync does nothing"):
        disk.check_durable(shared)


def test_the_innermost_mount_is_the_one_that_counts():
    assert disk.file_system(Path("/proc/self")) == "proc"
    assert disk.file_system(Path("/")) != "proc"


def test_a_lone_fsync_is_timed_and_leaves_nothing(tmp_path):
    assert 0 < disk.fsync_seconds(tmp_path, 1000, tries=2) < 60
    assert list(tmp_path.iterdir()) == []
