"""Runs a row of the table of reliability: the daemon as the row says, a retrieval, a retry, and what must hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from robustness.account import Source, check_account, check_nothing_is_left, read_manifest
from robustness.clinic_side import RETRIEVAL_ID, Site, series_request, site
from robustness.small_archive import SmallArchive, SmallSeries
from robustness.table import Row, Told
from support.simulated import MATRIX, UNTIL, trusted

from airflow_provider_varian.errors import DicomError
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.simulator.clinic.irregularities import ALL, Irregularity, irregularities_of
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.facts import InstanceFact, instance_facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic
from airflow_provider_varian.simulator.holdings.tree import Export, Holdings, Search, walk


@dataclass
class Scene:
    """What there is, and what of it is asked for."""

    holdings: Holdings
    request: RetrievalRequest
    source: Source


def scene_of(row: Row) -> Scene:
    if row.scene in list(Irregularity):
        return _irregular(Irregularity(row.scene))
    if row.scene == "study":
        archive = SmallArchive(tuple(SmallSeries(1, number, "RTPLAN", 1) for number in (1, 2, 3)))
        study = RetrievalRequest(level=Level.STUDY, keys={"StudyInstanceUID": archive.series[0].study_uid})
        return Scene(archive, study, archive.source)
    if row.scene == "one-series-of-two":
        archive = SmallArchive((SmallSeries(1, 1, "RTIMAGE", 5), SmallSeries(1, 2, "RTIMAGE", 1)))
    else:
        archive = SmallArchive((SmallSeries(1, 1, "RTIMAGE", 5),))
    request = series_request(archive.series[0].uid)
    if row.scene == "images":
        keys = {"SOPInstanceUID": list(archive.instance_uids[:3])}
        request = RetrievalRequest(level=Level.IMAGE, keys=keys)
    return Scene(archive, request, archive.source)


def _irregular(irregularity: Irregularity) -> Scene:
    """Return the patient of the synthetic clinic who has an irregularity and nothing else."""
    clinic = Clinic(seed=1, patients=2 * len(Irregularity), days=1, until=UNTIL, matrix=MATRIX)
    numbers = clinic.clinical_numbers
    number = next(each for each in numbers if irregularities_of(clinic.identity, each, ALL) == {irregularity})
    facts = instance_facts(clinic, clinic.case(number))
    plans = [fact for fact in facts if fact.modality == "RTPLAN" and fact.export is Export.NORMAL]
    wanted = [*_SERIES_OF[irregularity](facts), plans[0].series_instance_uid]
    if irregularity is Irregularity.EMPTY_SERIES:
        wanted.insert(0, _empty_series(clinic, plans[0].study_instance_uid))
    return Scene(clinic, series_request(*dict.fromkeys(wanted)), lambda uid: _fetched(clinic, uid))


def _series_with(fits: Callable[[InstanceFact], bool]) -> Callable[[tuple[InstanceFact, ...]], list[str]]:
    return lambda facts: [next(fact.series_instance_uid for fact in facts if fits(fact))]


_SERIES_OF = {
    Irregularity.PLAN_WITHOUT_BEAMS: _series_with(lambda fact: fact.export is Export.FAILS),
    Irregularity.SERIES_NOT_MOVABLE: _series_with(lambda fact: fact.export is Export.NOT_FOUND),
    Irregularity.EMPTY_SERIES: lambda facts: [],
    Irregularity.HALCYON_PLAN_CLASS: lambda facts: [],
    Irregularity.LEADING_ZERO_UID: _series_with(lambda fact: fact.modality == "RTDOSE"),
}


def _empty_series(clinic: Clinic, study: str) -> str:
    keys = Dataset()
    keys.StudyInstanceUID = study
    chains = walk(clinic, Search(Level.SERIES, keys))
    return next(chain[-1].uid for chain in chains if not list(chain[-1].children()))


def _fetched(clinic: Clinic, uid: str) -> Dataset:
    keys = Dataset()
    keys.SOPInstanceUID = uid
    ((*_, instance),) = walk(clinic, Search(Level.IMAGE, keys))
    return instance.fetch()


@contextmanager
def staged(row: Row, method: str, folder: Path) -> Iterator[tuple[Site, Scene]]:
    """Run the daemon of a row, with what is to go wrong."""
    scene = scene_of(row)
    with site(folder, scene.holdings) as place:
        daemon = place.daemon
        if row.ticks:
            daemon.clock = lambda: float(daemon.counts["C-FIND"] - 1)
        daemon.behaviour = replace(daemon.behaviour.with_settings(row.switches), get=True)
        if row.trust:
            daemon.trust([TrustedEntity.parse(row.trust)])
        daemon.faults.arm(*row.faults_of(method))
        yield place, scene


def _end(row: Row, place: Site) -> None:
    """Let what went wrong be over, or be put right."""
    daemon = place.daemon
    daemon.faults.disarm()
    if any(text.startswith("restart") for text in (*row.faults, *row.switches)):
        # To restart again, for no time at all, ends it.
        daemon.restart(0.0)
    daemon.trust([trusted(place.port)])
    daemon.behaviour = replace(Behaviour(), get=True)


def try_row(row: Row, method: str, folder: Path) -> None:
    """Retrieve, and retry; check what holds always, and what the row says."""
    first, retry = row.runs[method]
    with staged(row, method, folder) as (place, scene):
        _run(row, method, place, scene, first, put_right=False)
        if not first.errors or first.outcome != "pending":
            struck = place.daemon.counts["faults"]
            assert struck or not row.faults, "the fault has struck"
        if row.after != "stays":
            _end(row, place)
        before = set(_held(place))
        if isinstance(scene.holdings, SmallArchive):
            scene.holdings.sent.clear()
        _run(row, method, place, scene, retry, put_right=row.after != "stays")
        if isinstance(scene.holdings, SmallArchive):
            assert not before & set(scene.holdings.sent), "a retry asks for what is missing alone"


def _held(place: Site) -> list[str]:
    manifest = read_manifest(place.root, RETRIEVAL_ID) or {"instances": []}
    return [each["sop_instance_uid"] for each in manifest["instances"] if each["state"] == "verified"]


def _run(row: Row, method: str, place: Site, scene: Scene, told: Told, *, put_right: bool) -> None:
    seen, manifest = seen_after(row, method, place, scene, put_right=put_right)
    assert seen.errors[0] in (told.errors or ("",))
    narrower = seen.narrower if told.narrower is None else told.narrower
    assert seen == replace(told, says="", errors=seen.errors, narrower=narrower)
    text = json.dumps(manifest, indent=1)
    assert told.says in text, text


def seen_after(row: Row, method: str, place: Site, scene: Scene, *, put_right: bool) -> tuple[Told, dict[str, Any]]:
    """Retrieve, check what holds always, and return what the manifest says."""
    peer = place.peer(**({} if put_right else row.connection))
    raised = ""
    try:
        place.retrieve(scene.request, method=method, peer=peer, **row.waiting)
    except DicomError as error:
        raised = type(error).__name__
    manifest = read_manifest(place.root, RETRIEVAL_ID)
    assert manifest is not None
    if raised and manifest["outcome"] == "pending":
        assert manifest["message"], "a manifest that is not judged says why"
    else:
        check_account(place.root, RETRIEVAL_ID, scene.source)
    unasked = [each["sop_instance_uid"] for each in manifest["unexpected"]]
    check_nothing_is_left(place.root, place.spool, unasked=unasked)
    instances, counts = manifest["instances"], manifest["counts"]
    seen = Told(
        outcome=manifest["outcome"],
        found=len(instances),
        missing=counts["missing"],
        found_late=sum(each.get("found_late", False) for each in instances),
        errors=(raised,),
        narrower=bool(manifest["fallbacks"]),
        flagged=tuple(flag for flag in ("duplicate", "unexpected") if counts[flag]),
    )
    return seen, manifest
