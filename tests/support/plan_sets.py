"""Finding plan sets against a running peer, with everything counted; and a plan set as the oracle would say it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import dcmread
from support.oracle_data import save
from support.oracle_findings import Findings
from support.oracle_findings import PlanSet as Truth
from support.simulated import identifier

from airflow_provider_varian.aria.plan_set import ALL_ROLES, PlanSet, Role, Standing
from airflow_provider_varian.aria.plan_set_resolver import PatientChart, open_chart
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.retrieval.request import Expected, RetrievalRequest
from airflow_provider_varian.retrieval.retrieve import retrieve
from airflow_provider_varian.simulator.holdings.tree import Export, Holdings, instances_below, walk
from airflow_provider_varian.simulator.holdings.tree import Search as Walk


@dataclass
class Got:
    is_here: bool
    reason: str = ""
    path: Path | None = None


@dataclass
class FolderFetcher:
    """Retrieves into a folder, each object once, as a run's pool does.

    :ivar batches: what each retrieval was for, and how many objects it asked for.
    """

    peer: Peer
    profile: Profile
    root: Path
    method: str = "move"
    got: dict[str, Got] = field(default_factory=dict)
    batches: list[tuple[str, int]] = field(default_factory=list)

    def fetch(self, expected: Sequence[Expected], part: str) -> dict[str, Got]:
        wanted = [each for each in expected if each.sop_instance_uid not in self.got]
        if wanted:
            self.batches.append((part, len(wanted)))
            self._retrieve(wanted)
        return {each.sop_instance_uid: self.got[each.sop_instance_uid] for each in expected}

    def _retrieve(self, wanted: Sequence[Expected]) -> None:
        result = retrieve(
            self.peer,
            RetrievalRequest(level=Level.IMAGE, expected=tuple(wanted)),
            profile=self.profile,
            destination=self.root / "pool",
            spool_root=self.root / "spool",
            retrieval_id=f"batch-{len(self.batches)}",
            layout="{SOPInstanceUID}.dcm",
            method=self.method,
            settle_seconds=0.05,
        )
        for uid, entry in result.manifest.ledger.entries.items():
            self.got[uid] = Got(entry.is_here, entry.reason, self.root / "pool" / entry.path)

    def read(self, uid: str) -> Any:
        return dcmread(self.got[uid].path, stop_before_pixels=True)


@dataclass
class Finding:
    """A finder that counts the sessions that it opens and the queries that are sent through them."""

    peer: Peer
    profile: Profile
    sessions: int = 0
    queries: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def __call__(self) -> Iterator[FindSession]:
        self.sessions += 1
        with FindSession(self.peer, profile=self.profile) as session:
            find = session.find

            def counted(query: Any, **settings: Any) -> Any:
                self.queries[query.keyword_summary()] += 1
                return find(query, **settings)

            session.find = counted  # type: ignore[method-assign]
            yield session


@dataclass
class Search:
    """A chart of a patient, and what it was made with."""

    chart: PatientChart
    finding: Finding
    fetcher: FolderFetcher

    def whole(self, plan: str, wanted: frozenset[Role] = ALL_ROLES) -> PlanSet:
        """Find a plan set, retrieve it, and judge it by what came."""
        found = self.chart.gather(plan, wanted=wanted)
        got = self.fetcher.fetch(self.chart.expected(found.held), "plan-set") if found.held else {}
        return found.judged({uid: each.reason for uid, each in got.items() if not each.is_here})


def search_of(peer: Peer, profile: Profile, patient_id: str, root: Path, *, method: str = "move") -> Search:
    finding = Finding(peer, profile)
    fetcher = FolderFetcher(peer, profile, root, method)
    return Search(open_chart(finding, fetcher, patient_id=patient_id), finding, fetcher)


def written(holdings: Holdings, patient_id: str, folder: Path) -> Path:
    """Write all that can be retrieved of a patient, for the oracle to read."""
    (patient,) = walk(holdings, Walk(Level.PATIENT, identifier("", PatientID=patient_id)))
    for number, chain in enumerate(instances_below(patient)):
        if chain[-2].export is Export.NORMAL is chain[-1].export:
            save(chain[-1].fetch(), folder / f"{number:05d}.dcm")
    return folder


def said_by(plan_set: PlanSet) -> dict[str, Any]:
    """Put what a plan set says in one form with :func:`true_of`."""

    def held(*roles: Role) -> frozenset[str]:
        return frozenset(each.sop_instance_uid for each in plan_set.held if each.role in roles)

    return {
        "structure sets": held(Role.STRUCTURE_SET),
        "images": held(Role.IMAGE),
        "unnamed": frozenset().union(*plan_set.unnamed_slices.values()),
        "plan doses": held(Role.PLAN_DOSE),
        "beam doses": frozenset(
            (beam, each.sop_instance_uid)
            for each in plan_set.members_of(Role.BEAM_DOSE)
            if each.standing is Standing.HELD
            for beam in each.beams
        ),
        "other doses": held(Role.OTHER_DOSE),
        "records": held(Role.RECORD),
        "registrations": held(Role.REGISTRATION),
        "cbcts": held(Role.CBCT),
        "rt images": held(Role.RT_IMAGE),
        "drrs": held(Role.DRR),
        "all": frozenset(each.sop_instance_uid for each in plan_set.held),
        "missing": frozenset((each.sop_instance_uid, each.names, each.named_by) for each in plan_set.missing),
        "ambiguous": frozenset((each.sop_instance_uid, each.reason) for each in plan_set.ambiguous),
        "verifies": frozenset(plan_set.verifies),
        "verified by": frozenset(plan_set.verified_by),
        "verdict": str(plan_set.completeness),
    }


def true_of(truth: Truth, findings: Findings, *, verdict: str | None = None) -> dict[str, Any]:
    """Put what the oracle says of a plan in the same form.

    :param verdict: where the oracle cannot know, since it sees nothing that cannot be exported.
    """
    images = truth.images.values()
    dangling = findings.dangling_of(truth.plan)
    ambiguous = [each for each in findings.ambiguous if truth.plan in each.candidates]
    held = frozenset().union(*(each.held for each in images))
    cbcts = frozenset().union(*truth.cbcts.values()) - held
    return {
        "structure sets": truth.structure_sets,
        "images": held,
        "unnamed": frozenset().union(*(each.unnamed for each in images)),
        "plan doses": truth.plan_doses,
        "beam doses": frozenset((beam, uid) for beam, uids in truth.beam_doses.items() for uid in uids),
        "other doses": truth.other_doses,
        "records": truth.records,
        "registrations": truth.registrations,
        "cbcts": cbcts,
        "rt images": frozenset(each.uid for each in truth.rt_images),
        "drrs": truth.drrs,
        "all": truth.members,
        "missing": frozenset(
            (each.uid, str(each.names), tuple(sorted(each.named_by & truth.members))) for each in dangling
        ),
        "ambiguous": frozenset((each.uid, str(each.why)) for each in ambiguous),
        "verifies": truth.verifies,
        "verified by": frozenset(truth.verified_by),
        "verdict": verdict or ("incomplete" if dangling else "ambiguous" if ambiguous else "complete"),
    }
