"""A clinical patient of a test's own, small, with an object of every kind; and its objects as data sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.clinic.case import (
    Approval,
    Case,
    CaseBeam,
    Dose,
    ImageKind,
    ImageSeries,
    Plan,
    PlanReference,
    PortalImage,
    Record,
    Region,
    Registration,
    StructureSet,
    Study,
)
from airflow_provider_varian.simulator.clinic.identity import Identity, UidRoot
from airflow_provider_varian.simulator.holdings.attributes import data_set
from airflow_provider_varian.simulator.objects import (
    clinical_plan,
    ct,
    dose,
    drr,
    portal,
    record,
    registration,
    structure_set,
)
from airflow_provider_varian.simulator.objects.pixels import Panel

NUMBER = 107
PLANNED = datetime(2026, 3, 4, 10, 15, 30)
ACQUIRED_DOSE = ("ORIGINAL", "PRIMARY", "PORTAL", "ACQUIRED_DOSE")
PREDICTED_DOSE = ("DERIVED", "SECONDARY", "PORTAL", "PREDICTED_DOSE")
PORTAL = ("ORIGINAL", "PRIMARY", "PORTAL")

REGIONS = (
    Region(number=1, name="BODY", interpreted_type="EXTERNAL", centre_mm=(0.0, 10.0, 0.0),
           radii_mm=(180.0, 115.0, 300.0), colour=(0, 255, 0)),
    Region(number=2, name="PTV", interpreted_type="PTV", centre_mm=(0.0, 0.0, 0.0),
           radii_mm=(30.0, 25.0, 28.0), colour=(255, 0, 0)),
    Region(number=3, name="Bladder groß", interpreted_type="ORGAN", centre_mm=(0.0, -45.0, 10.0),
           radii_mm=(35.0, 20.0, 18.0), colour=(255, 255, 0)),
    Region(number=4, name="FemoralHead_L", interpreted_type="ORGAN", centre_mm=(95.0, 5.0, -5.0),
           radii_mm=(24.0, 24.0, 24.0), colour=(0, 0, 255)),
    # It lies between two slices: no contour.
    Region(number=5, name="Seed", interpreted_type="MARKER", centre_mm=(5.0, 0.0, 5.0),
           radii_mm=(1.0, 1.0, 0.5), colour=(0, 255, 255)),
)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """An object of a case: its attributes, how to make its pixels, and the study in which it stands."""

    kind: str
    uid: str
    study: Study
    values: Mapping[str, Any]
    pixels: bytes | None


class _Uids:
    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._numbers = count(1)

    def __call__(self, root: UidRoot) -> str:
        return self._identity.uid(root, NUMBER, next(self._numbers))


def make_case(seed: int = 1) -> Case:
    """Return a patient with two studies, five plans, and one of everything else at least."""
    uid = _Uids(Identity(seed))
    scanner = Study(
        uid=uid(UidRoot.STUDY), study_id="4711", opened=PLANNED - timedelta(days=5), description="CT Becken"
    )
    course = Study(uid=uid(UidRoot.STUDY), study_id="C1", opened=PLANNED, description="ARIA RadOnc Study")
    plan_uid = PlanReference(sop_class_uid=uids.RT_PLAN, sop_instance_uid=uid(UidRoot.PLAN))
    scan = ImageSeries(
        kind=ImageKind.PLANNING_CT,
        study=scanner,
        series_uid=uid(UidRoot.IMAGE_SERIES),
        frame_of_reference_uid=uid(UidRoot.FRAME_OF_REFERENCE),
        instance_uids=tuple(uid(UidRoot.IMAGE) for _ in range(10)),
        slice_mm=10.0,
        acquired=scanner.opened + timedelta(minutes=10),
        description="Becken 10.0 nativ",
        machine="CT1",
    )
    cbct = ImageSeries(
        kind=ImageKind.CBCT,
        study=course,
        series_uid=uid(UidRoot.IMAGE_SERIES),
        frame_of_reference_uid=uid(UidRoot.FRAME_OF_REFERENCE),
        instance_uids=tuple(uid(UidRoot.IMAGE) for _ in range(5)),
        slice_mm=8.0,
        acquired=PLANNED + timedelta(days=7, hours=-1, microseconds=643000),
        description="kV CBCT",
        machine="TrueBeam1",
        plan=plan_uid,
    )

    def drawn(label: str, approval: Approval) -> StructureSet:
        return StructureSet(
            study=scanner,
            series_uid=uid(UidRoot.IMAGE_SERIES),
            sop_instance_uid=uid(UidRoot.IMAGE),
            label=label,
            drawn=PLANNED - timedelta(days=1),
            approval=approval,
            images=scan,
            regions=REGIONS,
        )

    sets = (drawn("CT_1", Approval.APPROVED), drawn("CT_1 Entwurf", Approval.UNAPPROVED))
    beams = tuple(
        CaseBeam(number=number, name=f"{number}-G{gantry}", gantry=float(gantry), collimator=collimator, couch=couch,
                 meterset=meterset, width_mm=80.0, length_mm=60.0, drr_uid=uid(UidRoot.IMAGE))
        for number, gantry, collimator, couch, meterset in ((1, 0, 0.0, 0.0, 98.6), (2, 90, 30.0, 0.0, 120.25),
                                                             (4, 255, 0.0, 15.0, 45.5))
    )  # fmt: skip

    def image(kind: tuple[str, ...], beam: CaseBeam | None, plan: PlanReference | None, fraction: int) -> PortalImage:
        return PortalImage(
            study=course,
            series_uid=uid(UidRoot.IMAGE_SERIES),
            sop_instance_uid=uid(UidRoot.IMAGE),
            image_type=kind,
            label=f"{beam.number if beam else 0:02d}:{'kV' if beam is None else beam.name}"[:16],
            acquired=PLANNED + timedelta(days=7 + fraction, microseconds=643000),
            beam=beam,
            plan=plan,
            fraction=fraction,
            machine="TrueBeam1",
        )

    def plan(label: str, **more: Any) -> Plan:
        return Plan(
            **{
                "study": course,
                "series_uid": uid(UidRoot.PLAN_SERIES),
                "sop_instance_uid": uid(UidRoot.PLAN),
                "label": label,
                "planned": PLANNED,
                "approval": Approval.APPROVED,
                "reviewed": PLANNED + timedelta(hours=3),
                "intent": "CURATIVE",
                "machine": "TrueBeam1",
                "energy": 6,
                "flattened": True,
                "fractions": 20,
                "frame_of_reference_uid": scan.frame_of_reference_uid,
                "beams": beams,
                "structure_set": sets[0],
                "drr_series_uid": uid(UidRoot.IMAGE_SERIES),
            }
            | more
        )

    def dose_of(beam: int | None) -> Dose:
        return Dose(study=course, series_uid=uid(UidRoot.IMAGE_SERIES), sop_instance_uid=uid(UidRoot.IMAGE),
                    computed=PLANNED + timedelta(minutes=40), beam=beam)  # fmt: skip

    treated = plan(
        "PROST_60Gy",
        sop_instance_uid=plan_uid.sop_instance_uid,
        doses=(dose_of(None), *(dose_of(beam.number) for beam in beams)),
        records=tuple(
            Record(series_uid=uid(UidRoot.IMAGE_SERIES), sop_instance_uid=uid(UidRoot.IMAGE),
                   treated=PLANNED + timedelta(days=6 + fraction, microseconds=120000), fraction=fraction)
            for fraction in (1, 2)
        ),
        portal_images=(
            *(image(PREDICTED_DOSE, beam, plan_uid, 0) for beam in beams),
            *(image(ACQUIRED_DOSE, beam, plan_uid, 1) for beam in beams),
            image(PORTAL, beams[0], plan_uid, 2),
            image(PORTAL, None, plan_uid, 2),
        ),
        registrations=(
            Registration(study=course, series_uid=uid(UidRoot.IMAGE_SERIES), sop_instance_uid=uid(UidRoot.IMAGE),
                         made=cbct.acquired + timedelta(minutes=3), fixed=scan, moving=cbct,
                         shift_mm=(4.0, -3.0, 6.0)),
        ),
    )  # fmt: skip
    plans = (
        treated,
        plan("PROST Ring", machine="Halcyon2", flattened=False, sop_class_uid=uids.VARIAN_HALCYON_RT_PLAN,
             approval=Approval.REJECTED),
        plan("QA_PROST", intent="VERIFICATION", fractions=1, structure_set=None, verifies=treated.reference,
             frame_of_reference_uid=uid(UidRoot.FRAME_OF_REFERENCE), beams=beams[:1], doses=(dose_of(None),)),
        plan("Überlegung", approval=Approval.UNAPPROVED, reviewed=None,
             beams=tuple(replace(beam, drr_uid="") for beam in beams)),
        plan("leer", approval=Approval.UNAPPROVED, reviewed=None, beams=()),
    )  # fmt: skip
    return Case(
        number=NUMBER,
        patient_id="100107",
        name="Yamada^Tarō=山田^太郎",
        birth_date=date(1951, 7, 9),
        sex="M",
        image_series=(scan, cbct),
        structure_sets=sets,
        plans=plans,
        strays=(image(PORTAL, None, None, 0),),
    )


def objects_of(case: Case, identity: Identity, matrix: int = 80) -> Iterator[Made]:
    """Make every object of a case."""
    panel = Panel(matrix=matrix)
    for series in case.image_series:
        for index, uid in enumerate(series.instance_uids):
            yield Made(series.kind.value, uid, series.study, ct.ct_values(case, series, index, matrix),
                       ct.ct_pixels(identity, case, series, index, matrix))  # fmt: skip
    for drawn in case.structure_sets:
        yield Made("structure set", drawn.sop_instance_uid, drawn.study,
                   structure_set.structure_set_values(case, drawn), None)  # fmt: skip
    for plan in case.plans:
        yield from _plan_objects(case, plan, identity, matrix)
    for image in case.strays:
        yield Made("stray", image.sop_instance_uid, image.study, portal.portal_values(case, None, image, panel),
                   portal.portal_pixels(identity, case, image, panel))  # fmt: skip


def _plan_objects(case: Case, plan: Plan, identity: Identity, matrix: int) -> Iterator[Made]:
    panel = Panel(matrix=matrix)
    kind = "plan" if plan.beams else "plan without beams"
    yield Made(kind, plan.sop_instance_uid, plan.study, clinical_plan.plan_values(case, plan), None)
    for beam in plan.beams:
        if beam.drr_uid and plan.verifies is None and plan.sop_class_uid == uids.RT_PLAN:
            yield Made("DRR", beam.drr_uid, plan.study, drr.drr_values(case, plan, beam, panel),
                       drr.drr_pixels(identity, case, plan, beam, panel))  # fmt: skip
    for each in plan.doses:
        yield Made("dose", each.sop_instance_uid, each.study, dose.dose_values(case, plan, each, matrix),
                   dose.dose_pixels(identity, case, plan, each, matrix))  # fmt: skip
    for fraction in plan.records:
        yield Made("record", fraction.sop_instance_uid, plan.study, record.record_values(case, plan, fraction), None)
    for image in plan.portal_images:
        yield Made("portal", image.sop_instance_uid, image.study, portal.portal_values(case, plan, image, panel),
                   portal.portal_pixels(identity, case, image, panel))  # fmt: skip
    for each in plan.registrations:
        yield Made("registration", each.sop_instance_uid, each.study,
                   registration.registration_values(case, each), None)  # fmt: skip


def whole(case: Case, made: Made) -> Dataset:
    """Build an object with its patient and study; a value that its VR forbids raises."""
    upper = {
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientID": case.patient_id,
        "PatientName": case.name,
        "PatientBirthDate": case.birth_date.strftime("%Y%m%d"),
        "PatientSex": case.sex,
        "StudyInstanceUID": made.study.uid,
        "StudyID": made.study.study_id,
        "StudyDate": made.study.opened.strftime("%Y%m%d"),
        "StudyTime": made.study.opened.strftime("%H%M%S"),
        "StudyDescription": made.study.description,
        "AccessionNumber": None,
        "ReferringPhysicianName": None,
    }
    pixels = {} if made.pixels is None else {"PixelData": made.pixels}
    with _strict():
        dataset = data_set({**upper, **made.values, **pixels})
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uids.IMPLICIT_VR_LITTLE_ENDIAN
    return dataset


@contextmanager
def _strict() -> Iterator[None]:
    """Let pydicom raise where it warns: building an element counts as reading, setting an attribute as writing."""
    settings = pydicom.config.settings
    before = settings.reading_validation_mode, settings.writing_validation_mode
    settings.reading_validation_mode = settings.writing_validation_mode = pydicom.config.RAISE
    try:
        yield
    finally:
        settings.reading_validation_mode, settings.writing_validation_mode = before


def write(dataset: Dataset, to: Path | BinaryIO) -> Path | BinaryIO:
    """Write a data set as a DICOM file, implicit VR little endian as ARIA sends it."""
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.ImplementationClassUID = uids.IMPLEMENTATION_CLASS_UID
    dataset.save_as(to, enforce_file_format=True)
    return to
