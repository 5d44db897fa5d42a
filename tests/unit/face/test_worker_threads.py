"""The threads of a triggerer do not get into each other's way while they import what they need."""

from __future__ import annotations

import subprocess
import sys

#: Each thread says which of the libraries it found whole when its first work began.
_PROGRAM = """
import sys
from airflow_provider_varian.hooks.worker_threads import WORKERS, shared_pool

def whole():
    return [name for name in ("pydicom", "pynetdicom") if not sys.modules[name].__spec__._initializing]

assert "pydicom" not in sys.modules
for found in [shared_pool().submit(whole) for _ in range(WORKERS)]:
    print(found.result())
"""


def test_the_libraries_are_whole_before_a_thread_works():
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['pydicom', 'pynetdicom']"] * 8
