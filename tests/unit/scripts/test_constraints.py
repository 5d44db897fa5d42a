"""`make constraints`: each working set in its file, and nothing else touched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[3]

#: Stands for uv: writes down what it was asked for, as a constraints file is no more than text to the script.
UV = """#!/bin/sh
echo "asked: $*"
for word in "$@"; do [ "$word" = - ] && cat; done
[ -z "${FAILS_FOR:-}" ] || ! echo "$*" | grep -q -e "$FAILS_FOR"
"""
FILES = ["constraints-qa.txt", "constraints/airflow-3.1.8.txt", "constraints/newest.txt"]


@pytest.fixture
def copy(tmp_path):
    """The Makefile and the script beside a uv that needs no network."""
    for folder in ("scripts", "constraints", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("Makefile", "scripts/constraints"):
        shutil.copy(TOP / name, tmp_path / name)
    (tmp_path / ".venv/bin/uv").write_text(UV)
    (tmp_path / ".venv/bin/uv").chmod(0o755)
    for name in FILES:
        (tmp_path / name).write_text("as it was\n")
    return tmp_path


def make(folder, **environment):
    return subprocess.run(
        ["make", "-C", folder, "constraints"], env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_each_working_set_is_resolved_into_its_file(copy):
    before = {path for path in copy.rglob("*") if path.is_file()}
    assert make(copy).returncode == 0
    assert {path for path in copy.rglob("*") if path.is_file()} == before
    for name in FILES:
        *comment, asked = [line for line in (copy / name).read_text().splitlines() if not line.startswith("pylinac")]
        assert all(line.startswith("# ") for line in comment), "their own heads stay"
        assert comment[-1] == "# Made again with `make constraints`; names and versions only."
        assert comment == [line for line in (TOP / name).read_text().splitlines() if line.startswith("#")]
        for option in ("--universal", "--no-emit-index-url", "--no-annotate", "--python-version 3.11"):
            assert option in asked, name


def test_the_set_of_pylinac_is_made_from_what_is_installed(copy):
    assert make(copy).returncode == 0
    (wanted,) = re.findall(r"(?m)^PYLINAC := (.+)$", (TOP / "Makefile").read_text())
    assert (copy / "constraints-qa.txt").read_text().splitlines()[-1] == wanted
    assert "pyproject.toml" not in (copy / "constraints-qa.txt").read_text()
    assert "-c constraints-qa.txt '$(PYLINAC)'" in (TOP / "Makefile").read_text()


@pytest.mark.parametrize(
    ("fails", "name"), [("--group lint", FILES[2]), ("--exclude-newer", FILES[1]), (" - ", FILES[0])]
)
def test_a_set_that_cannot_be_resolved_leaves_its_file_as_it_was(copy, fails, name):
    assert make(copy, FAILS_FOR=fails).returncode != 0
    assert (copy / name).read_text() == "as it was\n"
