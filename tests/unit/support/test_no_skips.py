"""A test that skips itself has failed in CI, and a module of them has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]

CONFTEST = "from support.no_skips import pytest_make_collect_report, pytest_runtest_makereport"
OF_ALL_KINDS = """
import pytest

def test_in_it():
    pytest.skip("no such program")

@pytest.mark.skip(reason="not now")
def test_marked():
    pass

@pytest.fixture
def program():
    pytest.importorskip("no_such_module", reason="no such module")

def test_by_its_fixture(program):
    pass

@pytest.mark.xfail(strict=True)
def test_that_is_expected_to_fail():
    assert False
"""
WHOLE = "import pytest; pytest.skip('not on this system', allow_module_level=True)"


@pytest.mark.parametrize(
    ("ci", "code", "said"),
    [
        ("true", 1, ["1 failed", "3 errors", "1 xfailed"]),
        ("", 0, ["4 skipped", "1 xfailed"]),
    ],
)
def test_what_skips_itself_fails_in_ci_alone(tmp_path, ci, code, said):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(OF_ALL_KINDS)
    (tmp_path / "test_whole.py").write_text(WHOLE)
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    ran = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(TESTS), "CI": ci, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == code, ran.stdout
    for words in said:
        assert words in ran.stdout
    if ci:
        for reason in ("no such program", "not now", "no such module", "not on this system"):
            assert f"CI skips nothing, and this was: Skipped: {reason}" in ran.stdout
