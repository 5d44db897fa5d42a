"""Small objects of a plan set, members that name them, and a retrieval that brings them without a network."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydicom.dataset import Dataset
from support.archive import rt_image
from support.dicom_files import dicom_file

from airflow_provider_varian import uids
from airflow_provider_varian.aria.plan_pool import Got
from airflow_provider_varian.aria.plan_set import Member, PlanSet, Role, Standing
from airflow_provider_varian.errors import DicomError
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.ledger import Ledger
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.request import Expected
from airflow_provider_varian.retrieval.result import RetrievalResult
from airflow_provider_varian.retrieval.verify import sha256_of

CLASSES = {
    Role.PLAN: (uids.RT_PLAN, "RTPLAN"),
    Role.STRUCTURE_SET: (uids.RT_STRUCTURE_SET, "RTSTRUCT"),
    Role.IMAGE: (uids.CT_IMAGE, "CT"),
    Role.PLAN_DOSE: (uids.RT_DOSE, "RTDOSE"),
    Role.RECORD: (uids.RT_BEAMS_TREATMENT_RECORD, "RTRECORD"),
}
PLAN_UID = "1.2.3.1"


def member(uid: str, role: Role, standing: Standing = Standing.HELD, **more) -> Member:
    return Member(
        **{
            "sop_instance_uid": uid,
            "role": role,
            "standing": standing,
            "sop_class_uid": CLASSES[role][0],
            "study_instance_uid": "1.2.3.100",
            "series_instance_uid": f"1.2.3.100.{list(CLASSES).index(role) + 1}",
            "reason": "" if standing is Standing.HELD else "it is named, and not there",
        }
        | more
    )


def members(images: int = 2) -> list[Member]:
    return [
        member(PLAN_UID, Role.PLAN),
        member("1.2.3.2", Role.STRUCTURE_SET),
        *(member(f"1.2.3.4.{number}", Role.IMAGE) for number in range(1, images + 1)),
        member("1.2.3.5", Role.PLAN_DOSE),
    ]


def plan_set(some, **more) -> PlanSet:
    return PlanSet(plan_uid=PLAN_UID, wanted=frozenset(CLASSES), members=tuple(some), **more)


def object_of(each: Member, **attributes) -> Dataset:
    sop_class_uid, modality = CLASSES[each.role]
    ds = rt_image(1, SOPClassUID=sop_class_uid, SOPInstanceUID=each.sop_instance_uid, Modality=modality)
    for keyword in ("ImageType", "PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
        delattr(ds, keyword)
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def expected(each: Member) -> Expected:
    return Expected(
        sop_instance_uid=each.sop_instance_uid,
        sop_class_uid=each.sop_class_uid,
        study_instance_uid=each.study_instance_uid,
        series_instance_uid=each.series_instance_uid,
    )


def pooled(destination: Destination, folder: Path, each: Member, *, pool: str = ".dicom/pool/run", **attributes) -> Got:
    """Put an object into a pool, in the place of what may be there, and say what became of it."""
    path = PurePosixPath(pool) / f"{each.sop_instance_uid}.dcm"
    file = dicom_file(folder / "made.dcm", object_of(each, **attributes))
    sha256 = sha256_of(file)
    if not destination.publish(file, path, sha256=sha256):
        with destination.local_copy(path) as local:
            before = sha256_of(local)
        destination.replace(file, path, sha256=sha256, instead_of=before)
    return Got(is_here=True, path=path, bytes=file.stat().st_size, sha256=sha256)


@dataclass
class FakeRetrieve:
    """Brings objects into the pool at once, those that are at their place already not again.

    :ivar brought: how often each object was transferred.
    :ivar requests: level and part of each retrieval.
    """

    destination: Destination
    pool: PurePosixPath
    work: Path
    members: dict[str, Member]
    refuse: Callable[[str], bool] = lambda uid: False
    error: DicomError | None = None
    raised: DicomError | None = None
    before: Callable[[], None] = lambda: None
    brought: Counter[str] = field(default_factory=Counter)
    requests: list[tuple[str, str]] = field(default_factory=list)
    keys: list[dict] = field(default_factory=list)

    def __call__(self, request, *, part, layout, on_change) -> RetrievalResult:
        self.requests.append((str(request.level), part))
        self.keys.append(dict(request.keys))
        manifest = Manifest(id=f"{part}", ledger=Ledger(item.entry() for item in request.expected))
        on_change(manifest)
        looked = {uid: self.destination.size(self.pool / f"{uid}.dcm") for uid in manifest.ledger.entries}
        self.before()
        for uid, entry in manifest.ledger.entries.items():
            self._bring(uid, entry, held=looked[uid], arrived=manifest.ledger.arrived)
        here = all(entry.is_here for entry in manifest.ledger.entries.values())
        manifest.outcome = Outcome.COMPLETE if here else Outcome.PARTIAL
        if self.raised is not None:
            raise self.raised
        return RetrievalResult(
            outcome=manifest.outcome, manifest_path="", manifest=manifest, counts={}, error=None if here else self.error
        )

    def _bring(self, uid, entry, *, held, arrived) -> None:
        path = self.pool / f"{uid}.dcm"
        if held is None and self.refuse(uid):
            entry.state, entry.reason = State.MISSING, "asked for once, never came"
            return
        if held is None:
            self.brought[uid] += 1
            arrived.add(uid)
            file = dicom_file(self.work / f"{threading.get_ident()}" / f"{uid}.dcm", object_of(self.members[uid]))
            self.destination.publish(file, path, sha256=sha256_of(file))
        entry.state, entry.path, entry.held = State.VERIFIED, f"{uid}.dcm", held is not None
        entry.bytes = self.destination.size(path)
