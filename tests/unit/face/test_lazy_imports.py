"""Parsing a DAG must not pay for DICOM: no heavy library on the way to the face's modules."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_provider_varian

_HEAVY = ("pynetdicom", "pydicom", "numpy")
_ROOT = Path(airflow_provider_varian.__file__).parent
# The rooms that Airflow may import when it parses a DAG or starts a component; those not built yet hold nothing.
_ROOMS = ("hooks", "operators", "sensors", "triggers", "assets", "links", "notifications", "plugins")
_FACE = sorted(
    module.name
    for room in _ROOMS
    for module in pkgutil.walk_packages([str(_ROOT / room)], f"airflow_provider_varian.{room}.")
)


def _loaded_by(*modules: str) -> dict:
    program = (
        "import importlib, json, sys\n"
        "import airflow.sdk\n"
        "import airflow.providers.common.compat.sdk\n"
        "before = set(sys.modules)\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print('RESULT', json.dumps(sorted(set(sys.modules) - before)))\n"
    )
    return json.loads(_run(program))


def _run(program: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return line.removeprefix("RESULT ")


def test_the_face_is_all_there():
    assert "airflow_provider_varian.hooks.dicom" in _FACE
    assert "airflow_provider_varian.operators.aria" in _FACE


@pytest.fixture(scope="module")
def loaded_by_the_face() -> list[str]:
    return list(_loaded_by(*_FACE))


@pytest.mark.parametrize("heavy", _HEAVY)
def test_importing_every_face_module_loads_no_heavy_library(loaded_by_the_face, heavy):
    assert not [name for name in loaded_by_the_face if name == heavy or name.startswith(f"{heavy}.")]


def test_over_airflow_the_face_loads_little_but_itself(loaded_by_the_face):
    # What parsing a DAG costs beyond Airflow: counted in modules, since time differs from machine to machine.
    foreign = [name for name in loaded_by_the_face if not name.startswith("airflow_provider_varian")]
    assert len(foreign) < 40, foreign


def test_importing_the_face_loads_nothing_of_ours_below_it(loaded_by_the_face):
    """What the rooms below do is imported by the verbs that need it; leaves are pure data."""
    leaves = ("connection_fields", "errors", "get_provider_info", "privacy", "uids", "waiting")
    ours = [name.split(".")[1] for name in loaded_by_the_face if name.startswith("airflow_provider_varian.")]
    assert set(ours) <= {*_ROOMS, *leaves}


def test_metadata_needs_neither_airflow_nor_dicom():
    program = (
        "import json, sys\n"
        "from airflow_provider_varian.get_provider_info import get_provider_info\n"
        "get_provider_info()\n"
        "print('RESULT', json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    loaded = json.loads(_run(program))
    assert not set(loaded) & {"airflow", *_HEAVY}


def test_parsing_the_example_dags_loads_no_heavy_library():
    dags = Path(__file__).parents[3] / "dags"
    program = (
        "import json, runpy, sys\n"
        f"[runpy.run_path(str(path)) for path in map(str, {[str(path) for path in sorted(dags.glob('*.py'))]!r})]\n"
        f"print('RESULT', json.dumps([name for name in {_HEAVY!r} if name in sys.modules]))\n"
    )
    assert json.loads(_run(program)) == []


def test_a_trigger_imports_dicom_in_a_thread_and_not_in_the_loop(monkeypatch):
    """Importing takes half a second, in which no other trigger would run."""
    peer = {"conn_type": "dicom", "host": "127.0.0.1", "port": 1, "extra": {"called_ae_title": "NOBODY"}}
    monkeypatch.setenv("AIRFLOW_CONN_NOBODY", json.dumps(peer))
    program = (
        "import asyncio, json, sys, threading\n"
        "from airflow_provider_varian.triggers.dicom import DicomFindTrigger\n"
        "class Watch:\n"
        "    threads = []\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name in {_HEAVY!r}: self.threads.append(threading.current_thread().name)\n"
        "sys.meta_path.insert(0, Watch())\n"
        "trigger = DicomFindTrigger(\n"
        "    dicom_conn_id='nobody', level='STUDY', keys={'PatientID': ''}, max_transient_failures=0\n"
        ")\n"
        "async def fired(): return (await anext(trigger.run())).payload\n"
        "payload = asyncio.run(fired())\n"
        "print('RESULT', json.dumps([payload['transient'], Watch.threads]))\n"
    )
    transient, threads = json.loads(_run(program))
    assert transient  # it came as far as to call the peer
    assert threads
    assert all(name.startswith("dicom-async") for name in threads)
