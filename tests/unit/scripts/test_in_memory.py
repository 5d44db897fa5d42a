"""`scripts/in-memory`: temporary files in memory, where there is room for them, and nothing left of runs that ended."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts/in-memory"

#: Stands for df: as much room as a test says, in the columns of POSIX.
DF = """#!/bin/sh
[ "$1" = -k ] && of=KILOBYTES || of=FILES
eval "echo Filesystem x x x x; echo none \\${TOTAL_$of:-9000000} 0 \\${LEFT_$of:-9000000} 0% /"
"""


@pytest.fixture
def memory(tmp_path):
    """A folder that stands for a file system in memory."""
    folder = tmp_path / "memory"
    folder.mkdir()
    return folder


@pytest.fixture
def run(tmp_path, memory):
    """Run a line of shell by the script, with so much room."""
    (tmp_path / "bin").mkdir()
    df = tmp_path / "bin/df"
    df.write_text(DF)
    df.chmod(df.stat().st_mode | stat.S_IXUSR)

    def run(line, **environment):
        variables = {
            **os.environ,
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "TMPDIR": "/elsewhere",
            "TESTS_MEMORY": str(memory),
            **environment,
        }
        return subprocess.run(
            [SCRIPT, "sh", "-c", line], env=variables, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def test_what_a_run_wrote_goes_with_it(run, memory):
    ended = run('echo text >"$TMPDIR/file" && mkdir "$TMPDIR/folder" && echo "$TMPDIR"')
    assert ended.returncode == 0, ended.stderr
    assert Path(ended.stdout.strip()).parent == memory
    assert list(memory.iterdir()) == []


def test_what_a_run_that_failed_wrote_is_left_and_named_until_the_next(run, memory):
    failed = run('echo text >"$TMPDIR/file"; exit 7')
    assert failed.returncode == 7
    (left,) = memory.iterdir()
    assert (left / "file").read_text() == "text\n"
    assert str(left) in failed.stderr
    assert run("true").returncode == 0
    assert list(memory.iterdir()) == []


def test_what_a_run_writes_that_goes_on_is_left_alone(run, memory):
    # The inner one begins while the outer one runs, and ends before it.
    ended = run(f'echo text >"$TMPDIR/file" && {SCRIPT} sh -c \'echo "$TMPDIR"\' && cat "$TMPDIR/file"')
    assert ended.returncode == 0, ended.stderr
    inner, text = ended.stdout.splitlines()
    assert Path(inner).parent == memory
    assert text == "text"
    assert list(memory.iterdir()) == []


def test_what_is_not_a_folder_of_ours_is_left_alone(run, memory, tmp_path):
    (memory / "dicom-tests.file").write_text("text")
    (memory / "another").mkdir()
    (tmp_path / "target").mkdir()
    (memory / "dicom-tests.link").symlink_to(tmp_path / "target")
    assert run("true").returncode == 0
    assert sorted(path.name for path in memory.iterdir()) == ["another", "dicom-tests.file", "dicom-tests.link"]
    assert (tmp_path / "target").is_dir()


@pytest.mark.parametrize("what", ["KILOBYTES", "FILES"])
def test_without_room_temporary_files_go_where_they_went(run, memory, what):
    ended = run('echo "$TMPDIR"; exit 3', **{f"LEFT_{what}": "400000"})
    assert (ended.returncode, ended.stdout) == (3, "/elsewhere\n")
    assert f"No room in {memory}" in ended.stderr
    assert "400000" in ended.stderr


def test_room_is_looked_for_after_what_is_left_is_removed(run, memory):
    assert run("false").returncode == 1
    run("true", LEFT_FILES="4")
    assert list(memory.iterdir()) == []


@pytest.mark.parametrize("total", ["0", "-"])
def test_a_file_system_that_counts_no_files_has_room_for_any(run, memory, total):
    ended = run('echo "$TMPDIR"', TOTAL_FILES=total, LEFT_FILES=total)
    assert Path(ended.stdout.strip()).parent == memory


@pytest.mark.parametrize("name", ["", "missing", "file"])
def test_no_memory_is_none(run, memory, name):
    (memory / "file").write_text("text")
    ended = run('echo "$TMPDIR"; exit 3', TESTS_MEMORY=str(memory / name) if name else "")
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "/elsewhere\n", "")
