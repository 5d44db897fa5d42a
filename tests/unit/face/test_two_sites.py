"""Two clinics in two time zones whose patients bear the same IDs, into one destination: nothing is mixed."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from pydicom import dcmread
from support.oracle_data import save
from support.plan_exports import PLAIN, UNTIL, FewPatients, exported, listed, week_of
from support.ports import free_port
from support.simulated import identifier

from airflow_provider_varian.operators.plan_report import write_plan_index
from airflow_provider_varian.operators.plan_rows import read_plans
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.holdings.data_directory import DataDirectory
from airflow_provider_varian.simulator.holdings.tree import Export, Search, instances_below, walk

ZONES = {"east": "Asia/Tokyo", "west": "America/Los_Angeles"}


def _clinic(seed: int, zone: str) -> FewPatients:
    return FewPatients(seed=seed, patients=12, days=1, until=UNTIL, matrix=16, timezone=ZoneInfo(zone))


def _renamed(clinic: FewPatients, patient_id: str, folder: Path) -> DataDirectory:
    """Return what a clinic has of one patient, under another ID."""
    folder.mkdir()
    (patient,) = walk(clinic, Search(Level.PATIENT, identifier("", PatientID=clinic.case(PLAIN).patient_id)))
    for number, chain in enumerate(instances_below(patient)):
        if chain[-1].export is Export.NORMAL:
            dataset = chain[-1].fetch()
            dataset.PatientID = patient_id
            save(dataset, folder / f"{number:05d}.dcm")
    return DataDirectory(folder)


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    clinics = {name: _clinic(seed, zone) for seed, (name, zone) in enumerate(ZONES.items(), start=3)}
    same = clinics["east"].case(PLAIN).patient_id
    with ExitStack() as running:
        made = {}
        for name, zone in ZONES.items():
            port = free_port()
            trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=port)]
            holdings = _renamed(clinics[name], same, tmp_path_factory.mktemp(name) / "files")
            daemon = running.enter_context(SimulatedDaemon(holdings, trusted=trusted, timezone=ZoneInfo(zone)))
            made[name] = SimpleNamespace(clinic=clinics[name], daemon=daemon, port=port)
        yield made


@pytest.fixture
def runs(sites, connect, context):
    """Export one day of both, in one run."""
    told = {}
    for name, site in sites.items():
        connect(
            name,
            port=site.daemon.address[1],
            receiver_host="127.0.0.1",
            receiver_port=site.port,
            timezone=ZONES[name],
            profile_overrides={"settle_seconds": 0.2, "stable_interval_seconds": 0.01},
        )
        at = week_of(context, task_id=f"plans_{name}")
        keys, uri = listed(name, at, first_day="2026-07-20", last_day="2026-07-31", lookback_days=0)
        results = [
            exported(name, week_of(context, task_id=f"export_{name}", map_index=n), row_key=key, rows_uri=uri)
            for n, key in enumerate(keys)
        ]
        written = write_plan_index(week_of(context, task_id=f"summary_{name}"), uri, results, dicom_conn_id=name)
        lines = json.loads(Path(written.json.removeprefix("file://")).read_text())["plans"]
        told[name] = SimpleNamespace(rows=read_plans(uri).plans, lines=lines, results=results)
    return told


def _uid_root(path: Path) -> str:
    """Return the part of a UID that tells one seeded clinic from another."""
    return path.name.split(".")[6]


def test_the_same_ids_are_other_patients(runs, sites, storage):
    patients = {row.patient_id for run in runs.values() for row in run.rows.values()}
    assert len(patients) == 1  # what this is about
    for name, run in runs.items():
        case = sites[name].clinic.case(PLAIN)
        assert {row.plan_uid for row in run.rows.values()} == {plan.sop_instance_uid for plan in case.plans}
        assert {result["outcome"] for result in run.results} == {"complete"}
        for row in run.rows.values():
            files = list((storage / row.plan_uid).rglob("*.dcm"))
            assert {str(dcmread(path, stop_before_pixels=True).PatientName) for path in files} == {case.name}
            assert {_uid_root(path) for path in files} == {_uid_root(Path(row.plan_uid))}
    assert not {line["patient"] for line in runs["east"].lines} & {line["patient"] for line in runs["west"].lines}
