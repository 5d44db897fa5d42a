"""A few small objects."""

from __future__ import annotations

import pytest

from benchmarks import data


@pytest.fixture(scope="session")
def plans(tmp_path_factory):
    """Return three RT Plans of 20 KB."""
    return data.rt_plans(tmp_path_factory.mktemp("plans"), 3)
