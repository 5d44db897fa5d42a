"""How much of a machine's QA patient a daemon has to answer: counted from the clinic's facts, not from its answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import pytest
from support.simulated import UNTIL, uids_of

from airflow_provider_varian.simulator.facts import PlanFact, facts


@dataclass(frozen=True)
class QAPatient:
    plan_facts: tuple[PlanFact, ...]

    @property
    def studies(self) -> int:
        return len({fact.course for fact in self.plan_facts})

    @property
    def plans(self) -> int:
        return len(self.plan_facts)

    @property
    def series(self) -> int:
        return sum(1 + len(fact.days) for fact in self.plan_facts)

    @property
    def instances(self) -> int:
        return sum(1 + sum(len(fact.images(day)) for day in fact.days) for fact in self.plan_facts)

    def images_on(self, day: date) -> int:
        return sum(len(fact.images(day)) for fact in self.plan_facts)

    def course(self, course: str) -> QAPatient:
        return QAPatient(tuple(fact for fact in self.plan_facts if fact.course == course))


@pytest.fixture
def plan(plans):
    """The plan of a machine that most of these tests retrieve images of."""
    return plans["QA", "WL_10MV"]


@pytest.fixture
def series(plan):
    """The series of its ten images of the last day."""
    return plan.image_series_uid(UNTIL)


@pytest.fixture
def wanted(plan):
    """Their SOP Instance UIDs, in order."""
    return uids_of(plan)


@pytest.fixture
def machine_qa(clinic):
    """Return what there is of a machine's QA patient."""

    def patient(patient_id: str = "QA_TB_WL") -> QAPatient:
        return QAPatient(tuple(fact for fact in facts(clinic) if fact.patient_id == patient_id))

    return patient
