"""One clinical patient, made once: his objects do not change."""

from __future__ import annotations

from collections import defaultdict

import pytest
from pydicom import Dataset
from support.cases import make_case, objects_of, whole

from airflow_provider_varian.simulator.clinic.case import Case
from airflow_provider_varian.simulator.clinic.identity import Identity


@pytest.fixture(scope="session")
def identity() -> Identity:
    return Identity(1)


@pytest.fixture(scope="session")
def case() -> Case:
    return make_case()


@pytest.fixture(scope="session")
def made(case, identity) -> dict[str, list[Dataset]]:
    """Every object of the patient, by what it is."""
    found = defaultdict(list)
    for each in objects_of(case, identity):
        found[each.kind].append(whole(case, each))
    return dict(found)
