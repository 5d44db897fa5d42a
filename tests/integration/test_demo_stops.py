"""A demo that is told to stop leaves nothing running."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.ports import wait_until

ROOT = Path(__file__).parents[2]


def _anybody_left(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_demo_that_is_told_to_stop_ends_its_simulator_too(tmp_path, number):
    # A copy, which works in a folder of its own: a demo's results are not the tests' to delete.
    shutil.copytree(ROOT / "demo", tmp_path / "demo", ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "PYTHONUNBUFFERED": "1"}
    demo = subprocess.Popen(
        [sys.executable, "-m", "demo.run"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    watch = threading.Timer(60, demo.kill)
    watch.start()
    try:
        assert demo.stdout.readline().startswith("1/3"), "its simulator listens by now"
        demo.send_signal(number)
        _, err = demo.communicate(timeout=60)
        wait_until(lambda: not _anybody_left(demo.pid), what="all its processes to end")
        assert (demo.returncode, err.strip()) == (1, "stopped")
    finally:
        watch.cancel()
        if _anybody_left(demo.pid):
            os.killpg(demo.pid, signal.SIGKILL)
        demo.communicate()
