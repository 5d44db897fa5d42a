"""Each parser of a peer's bytes under the fuzzer, and over every input that once led somewhere new."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.corpus import kept, write_out
from fuzz.targets import TARGETS

TOP = Path(__file__).parents[2]

#: In place of a target: four bytes, each of which is only looked at when the one before is right. Chance meets all of
#: them once in four thousand million times; who is led by coverage has them one by one.
_PLANTED = """
import atheris
from fuzz import targets
from fuzz.run import main

@atheris.instrument_func
def planted(data):
    if len(data) > 4:
        if data[1] == 0xD1:
            if data[2] == 0xC0:
                if data[3] == 0x4D:
                    if data[4] == 0x99:
                        raise IndexError("planted")

targets.TARGETS["command_set"] = targets.Target(test=planted, modules=(), runs=1, longest=64)
main()
"""


def fuzz(command: list[str], folder: Path, *options: str, seconds: float) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TOP), str(TOP / "tests")])}
    found = folder / "found"
    found.mkdir()
    options = (f"-artifact_prefix={folder}/", *options)
    return subprocess.run(
        [sys.executable, *command, *options, str(found), str(folder / "kept")],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=environment,
        check=False,
    )


@pytest.fixture
def installed():
    pytest.importorskip("atheris", reason="the fuzzer is not installed (it is there for Linux alone)")


@pytest.mark.parametrize("name", TARGETS)
def test_every_kept_input_holds(name):
    inputs = kept(name)
    assert inputs
    for data in inputs:
        TARGETS[name].test(data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_while_of_fuzzing_finds_nothing(name, tmp_path, installed):
    # Begins at the same place and goes the same way each time: what fails here, fails again.
    write_out(name, tmp_path / "kept")
    options = (f"-runs={TARGETS[name].runs}", "-seed=20261121")
    done = fuzz(["-m", "fuzz.run", name], tmp_path, *options, seconds=110)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {TARGETS[name].runs} runs" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_ten_minutes_of_fuzzing_find_nothing(name, tmp_path, installed):
    write_out(name, tmp_path / "kept")
    seed = os.environ.get("FUZZ_SEED", "0")  # 0: another one each time, which its output names
    done = fuzz(["-m", "fuzz.run", name], tmp_path, "-max_total_time=600", f"-seed={seed}", seconds=900)
    assert done.returncode == 0, done.stderr[-4000:]
    print(f"{name}: {done.stderr.strip().splitlines()[-1]}")


def test_the_fuzzer_finds_what_is_hidden(tmp_path, installed):
    write_out("command_set", tmp_path / "kept")
    done = fuzz(["-c", _PLANTED, "command_set"], tmp_path, "-runs=300000", "-seed=1", seconds=110)
    assert done.returncode != 0
    assert "IndexError: planted" in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("defect of command_set: ")]
    assert bytes.fromhex(line.rpartition(" ")[2])[1:5] == b"\xd1\xc0\x4d\x99"
