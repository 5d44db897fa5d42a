"""What all tests share: an Airflow of their own, and peers that are really there."""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from support.airflow_process import SHARED
from support.no_skips import pytest_make_collect_report, pytest_runtest_makereport
from support.one_folder import pytest_xdist_make_scheduler

# Hooks, which pytest finds by their names here.
__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport", "pytest_xdist_make_scheduler"]

# Before anything imports Airflow: a home of our own, no examples, quiet, loopback only.
_HOME = Path(tempfile.mkdtemp(prefix="airflow-home-"))
os.environ["AIRFLOW_HOME"] = str(_HOME)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{_HOME / 'airflow.db'}"
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(Path(__file__).parent.parent / "dags")
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "INFO"
os.environ["AIRFLOW__CORE__FERNET_KEY"] = base64.urlsafe_b64encode(os.urandom(32)).decode()
for name in [name for name in os.environ if name.startswith("AIRFLOW_CONN_")]:
    del os.environ[name]


# And what the processes of one run share. The first of them makes it, and the others find its name.
_IS_FIRST = SHARED not in os.environ
if _IS_FIRST:
    os.environ[SHARED] = tempfile.mkdtemp(prefix="dicom-tests-")


def pytest_sessionfinish() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)
    if _IS_FIRST:
        shutil.rmtree(os.environ[SHARED], ignore_errors=True)


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is not None:
        return path
    pytest.skip(f"{name} is not installed: make peers")


@pytest.fixture(scope="session")
def program():
    """Return the path of an installed program; where it is missing, skip, which fails in CI."""
    return _program
