"""Plan sets of generated patients, found through the simulated daemon, held against the oracle plan by plan.

The oracle reads files: all that the daemon holds of a patient and exports. The resolver asks and retrieves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

import pytest
from support import chance_patient
from support.oracle import judge
from support.oracle_data import save_all
from support.plan_sets import Search, said_by, search_of, true_of, written
from support.ports import free_port
from support.short_clinic import ShortClinic
from support.simulated import peer_of, trusted

from airflow_provider_varian.aria.plan_set import Completeness
from airflow_provider_varian.aria.profile import ARIA
from airflow_provider_varian.simulator.clinic.irregularities import ALL, Irregularity, irregularities_of
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.facts import instance_facts
from airflow_provider_varian.simulator.holdings.data_directory import DataDirectory
from airflow_provider_varian.simulator.holdings.tree import Export

UNTIL = date(2026, 7, 31)
#: Nothing grows while it is listed, and nothing comes late.
QUICK = replace(ARIA, stable_counts=1, stable_interval_seconds=0.0, settle_seconds=0.05)
#: After that many neighbours each irregularity has had its turn.
CYCLE = 2 * len(Irregularity)
#: So many tests share the patients.
PARTS = 4


def made(patients: int) -> ShortClinic:
    return ShortClinic(seed=3, patients=patients, days=1, until=UNTIL, matrix=16)


def covering(clinic: ShortClinic) -> list[int]:
    """Choose few patients who together have each irregularity, and one who has none."""
    has = {number: irregularities_of(clinic.identity, number, ALL) for number in clinic.clinical_numbers}
    chosen, left = [next(number for number, found in has.items() if not found)], set(ALL)
    while left:
        best = max(has, key=lambda number: len(has[number] & left))
        chosen.append(best)
        left -= has[best]
    return chosen


@dataclass
class Served:
    """A daemon, and the port that it sends to."""

    clinic: ShortClinic
    daemon: SimulatedDaemon
    port: int
    method: str = "move"

    def search(self, patient_id: str, root) -> Search:
        return searching(self.daemon, self.port, patient_id, root, self.method)


def searching(daemon, port, patient_id, root, method="get") -> Search:
    peer = peer_of(daemon, receiver_host="127.0.0.1", receiver_port=port)
    return search_of(peer, QUICK, patient_id, root, method=method)


@pytest.fixture(scope="module")
def served():
    """A daemon that knows C-GET, which takes less time than a receiver for each batch."""
    clinic, port = made(CYCLE), free_port()
    with SimulatedDaemon(clinic, trusted=[trusted(port)], behaviour=Behaviour(get=True)) as daemon:
        yield Served(clinic, daemon, port, "get")


def compare(served: Served, number: int, root) -> Search:
    """Hold the plan sets of a patient against the oracle; return what they were found with."""
    case = served.clinic.case(number)
    truth_folder = root / "truth"
    truth_folder.mkdir(parents=True)
    findings = judge(written(served.clinic, case.patient_id, truth_folder))
    search = served.search(case.patient_id, root)
    exports = {each.sop_instance_uid: each.export for each in instance_facts(served.clinic, case)}
    for plan in case.plans:
        uid = plan.sop_instance_uid
        found = search.whole(uid)
        refused = {each.sop_instance_uid for each in found.not_exportable}
        images = {each.sop_instance_uid for each in plan.portal_images}
        assert refused == {each for each in {uid, *images} if exports.get(each, Export.NORMAL) is not Export.NORMAL}
        if uid not in findings.plans:
            assert uid in refused
            assert (found.completeness, found.held) == (Completeness.INCOMPLETE, ())
            continue
        expected = true_of(findings.plans[uid], findings, verdict="incomplete" if refused else None)
        assert said_by(found) == expected, (number, uid)
        assert (found.label, found.course) == (plan.label, plan.study.study_id)
    return search


def test_the_few_patients_have_each_irregularity(served):
    numbers = covering(served.clinic)
    assert frozenset().union(*(served.clinic.case(number).irregularities for number in numbers)) == ALL
    assert len(numbers) < CYCLE / 2


@pytest.mark.parametrize("part", range(PARTS))
def test_plan_sets_with_each_irregularity(served, part, tmp_path):
    for number in covering(served.clinic)[part::PARTS]:
        compare(served, number, tmp_path / str(number))


def by_chance(seed, root, *, shared: bool) -> None:
    """Hold the plan sets of a patient whose objects name each other at random against the oracle.

    :param shared: find them with one chart; else with one each, which knows nothing yet.
    """
    folder = root / "truth"
    folder.mkdir(parents=True)
    findings = judge(save_all(chance_patient.objects(seed), folder))
    port = free_port()
    with SimulatedDaemon(DataDirectory(folder), trusted=[trusted(port)], behaviour=Behaviour(get=True)) as daemon:
        search = searching(daemon, port, chance_patient.PATIENT_ID, root)
        for uid, plan in findings.plans.items():
            if not shared:
                search = searching(daemon, port, chance_patient.PATIENT_ID, root / uid)
            found, expected = said_by(search.whole(uid)), true_of(plan, findings)
            for name, said in found.items():
                assert said == expected[name], (seed, uid, name)


@pytest.mark.parametrize("seed", range(6))
def test_plan_sets_by_chance(seed, tmp_path):
    by_chance(seed, tmp_path, shared=bool(seed % 2))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_plan_sets_by_chance(tmp_path):
    for seed in range(2000, 2150):
        by_chance(seed, tmp_path / str(seed), shared=bool(seed % 2))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_plan_sets_of_two_hundred_patients(tmp_path):
    clinic, port = made(200), free_port()
    with SimulatedDaemon(clinic, trusted=[trusted(port)]) as daemon:
        for number in clinic.clinical_numbers:
            compare(Served(clinic, daemon, port), number, tmp_path / str(number))
