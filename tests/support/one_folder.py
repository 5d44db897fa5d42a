"""How pytest-xdist spreads tests: a file stays in one process, and so does a folder whose tests share an Airflow."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

#: Whose tests stay together, whichever file they are in.
TOGETHER = "tests/integration/standalone"


def scope_of(nodeid: str) -> str:
    """Return what the tests have in common that stay in one process."""
    file = nodeid.partition("::")[0]
    return TOGETHER if PurePosixPath(TOGETHER) in PurePosixPath(file).parents else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Return what spreads the tests with ``--dist loadfile``; other ways are xdist's own."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    return Scheduling(config, log)
