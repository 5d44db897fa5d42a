"""The weekly export against a daemon that restarts amid it, and what the oracle says should come of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

from pydicom import dcmread
from support.airflow_process import DagRunResult, connection_to, new_home
from support.faulty import Faulty
from support.oracle import judge_files
from support.oracle_files import read_files
from support.plan_sets import said_by, true_of, written
from support.ports import free_port

from airflow_provider_varian.aria.plan_set import PlanSet, Role
from airflow_provider_varian.retrieval.verify import sha256_of
from airflow_provider_varian.simulator.daemon.faults import Fault, Kind, Step
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity

DAG = "weekly_plan_export"
ZONE = ZoneInfo("Europe/Zurich")
#: What the DAG exports.
PARTS = frozenset({Role.PLAN, Role.STRUCTURE_SET, Role.IMAGE, Role.PLAN_DOSE, Role.RECORD})
#: What :func:`said_by` calls them.
_SAID = {
    "structure sets": Role.STRUCTURE_SET,
    "images": Role.IMAGE,
    "plan doses": Role.PLAN_DOSE,
    "records": Role.RECORD,
}
_MODALITIES = frozenset({"RTPLAN", "RTSTRUCT", "CT", "RTDOSE", "RTRECORD"})


@dataclass
class Restarting(Faulty):
    """Holdings whose daemon restarts once, when an object is asked for.

    :param daemon: the daemon.
    :param amid: which objects; none = it does not.
    :param after: how many must have been sent before.
    :param seconds: how long it then refuses to be called; 0 = it turns away the next caller, whenever he comes.
    :ivar refused: how often an object was not exported.
    """

    daemon: SimulatedDaemon | None = None
    amid: frozenset[str] = frozenset()
    after: int = 0
    seconds: float = 0.0
    refused: int = 0

    def _fetched(self, node):
        if node.uid in self.amid and self.daemon.counts["sub-operations"] >= self.after:
            self.amid = frozenset()
            if not self.seconds:
                self.daemon.faults.arm(Fault(kind=Kind.ABORT, step=Step.ASSOCIATION))
            self.daemon.restart(self.seconds, refuses=bool(self.seconds))
        self.refused += self.broken(node.uid)
        return super()._fetched(node)


@contextmanager
def weekly_site(clinic, folder: Path, **environment: str) -> Iterator[SimpleNamespace]:
    """Run a daemon over a clinic, and make an Airflow with a connection to it."""
    port = free_port()
    holdings = Restarting(clinic)
    trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=port)]
    with SimulatedDaemon(holdings, trusted=trusted, timezone=ZONE) as daemon:
        holdings.daemon = daemon
        fields = connection_to(daemon.address[1], receiver_port=port, zone=ZONE)
        home = new_home(folder, connections={"aria": fields})
        home.environment.update(environment)
        yield SimpleNamespace(daemon=daemon, home=home, clinic=clinic, holdings=holdings)


def true_sets(clinic, number: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the oracle says of the plans of a patient, as far as the DAG exports it, in the form of `said_by`.

    A plan that cannot be exported is not among the files that the oracle reads, and not among what is returned.
    """
    case = clinic.case(number)
    folder.mkdir(parents=True)
    files = read_files(written(clinic, case.patient_id, folder))
    findings = judge_files(files)
    return {uid: _parts_of(true_of(plan, findings), files, uid) for uid, plan in findings.plans.items()}


def _parts_of(true: dict[str, Any], files: Any, uid: str) -> dict[str, Any]:
    """Leave out what is of roles that are not exported."""
    parts = {name: true[name] for name in _SAID}
    members = frozenset({uid}).union(*parts.values())
    missing = frozenset(each for each in true["missing"] if members.intersection(each[2]))
    ambiguous = frozenset(each for each in true["ambiguous"] if files.objects[each[0]].modality in _MODALITIES)
    verdict = "incomplete" if missing else "ambiguous" if ambiguous else "complete"
    return {**parts, "all": members, "missing": missing, "ambiguous": ambiguous, "verdict": verdict}


def said_in(storage: Path, uid: str) -> dict[str, Any]:
    """Return what the index in a plan's folder says, in the form of :func:`true_sets`."""
    said = said_by(PlanSet.from_json(index_in(storage, uid)["plan_set"]))
    return {name: said[name] for name in (*_SAID, "all", "missing", "ambiguous", "verdict")}


def index_in(storage: Path, uid: str) -> dict[str, Any]:
    return json.loads((storage / uid / "plan-set.json").read_text())


def assert_folder_is_whole(storage: Path, uid: str, members: Iterable[str]) -> None:
    """Fail unless a plan's folder holds these objects, each as the folder's index says, and nothing else."""
    folder = storage / uid
    objects = index_in(storage, uid)["objects"]
    assert {each["sop_instance_uid"] for each in objects} == set(members)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.dcm")} == {each["path"] for each in objects}
    for each in objects:
        path = folder / each["path"]
        assert (path.stat().st_size, sha256_of(path)) == (each["bytes"], each["sha256"])
        assert str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) == each["sop_instance_uid"]


def told_by(run: DagRunResult) -> dict[str, dict[str, Any]]:
    """Return what the exports of a run told, by plan."""
    return {told["plan_uid"]: told for told in run.xcom("export", "plan_export")}


def tasks_by(run: DagRunResult) -> dict[str, dict[str, Any]]:
    """Return the mapped tasks of a run by the names that Airflow shows: the plans' UIDs."""
    return {task["name"]: task for (task_id, _), task in run.tasks.items() if task_id == "export"}


def lines_of(run: DagRunResult) -> dict[str, dict[str, Any]]:
    """Return the lines of a run's index by plan."""
    (places,) = run.xcom("summary")
    told = json.loads(Path(places["json"].removeprefix("file://")).read_text())
    return {line["plan_uid"]: line for line in told["plans"]}


def objects_in(storage: Path) -> set[str]:
    """Return the objects that came here: in the plans' folders, and in pools."""
    return {path.stem for places in ("[0-9]*/*/*.dcm", ".dicom/pool/*/*/*.dcm") for path in storage.glob(places)}


def without_beams(case, plan: int = 0):
    """Return a patient one of whose plans has an empty Beam Sequence: ARIA lists it and cannot export it."""
    changed = replace(case.plans[plan], beams=())
    return replace(case, plans=tuple(changed if each is case.plans[plan] else each for each in case.plans))
