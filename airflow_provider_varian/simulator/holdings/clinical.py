"""The nodes of clinical patients: made from their cases when somebody looks below the patient.

C-FIND answers and whole objects come from the same builders, so what is answered is what is sent, but for
what :attr:`.case_series.Instance.flat` takes out of sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from functools import cache, partial
from typing import Any, Final

from pydicom.dataset import Dataset

from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.clinic.calendar import planning_day
from airflow_provider_varian.simulator.clinic.case import Case, Study
from airflow_provider_varian.simulator.clinic.chart import ARIA_STUDY, LONGEST
from airflow_provider_varian.simulator.clinic.patients import Person
from airflow_provider_varian.simulator.holdings.attributes import data_set
from airflow_provider_varian.simulator.holdings.case_series import CaseBuilder, CaseSeries, Instance
from airflow_provider_varian.simulator.holdings.tree import Node, Spans

#: The dates that objects of a patient bear; all lie in the patient's own time.
_DATES: Final = (
    "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "StructureSetDate", "RTPlanDate", "ReviewDate",
    "InstanceCreationDate",
)  # fmt: skip


class Backed(Mapping[str, Any]):
    """Values that are there, and a whole that is made when another is asked for.

    :param ready: come first.
    :param whole: makes the rest.
    """

    def __init__(self, ready: Mapping[str, Any], whole: Callable[[], Mapping[str, Any]]) -> None:
        self._ready = ready
        self._whole = whole

    def __getitem__(self, keyword: str) -> Any:
        return self._ready[keyword] if keyword in self._ready else self._whole()[keyword]

    def __contains__(self, keyword: object) -> bool:
        return keyword in self._ready or keyword in self._whole()

    def __iter__(self) -> Iterator[str]:
        return iter({**dict.fromkeys(self._ready), **dict.fromkeys(self._whole())})

    def __len__(self) -> int:
        return len(self._ready.keys() | self._whole().keys())


def patient_node(
    number: int, patient_id: str, who: Callable[[], Person], case: Callable[[], Case], builder: CaseBuilder
) -> Node:
    """Return the node of a clinical patient; nothing but the ID is known until it is asked for.

    :param who: makes up the person, for PATIENT-level keys.
    :param case: makes the case, for whatever lies below.
    """

    @cache
    def values() -> Mapping[str, Any]:
        known = who()
        return {
            "PatientID": patient_id,
            "PatientName": known.name,
            "PatientBirthDate": known.birth_date.strftime("%Y%m%d"),
            "PatientSex": known.sex,
        }

    return Node(
        level=Level.PATIENT,
        uid=patient_id,
        values=values,
        spans=partial(_spans, number),
        children=lambda: _studies(case(), values(), builder),
    )


def _spans(number: int) -> Spans:
    first = planning_day(number)
    span: tuple[date, date] = (first, first + LONGEST)
    # Nobody is treated on the day of the planning CT.
    return {**dict.fromkeys(_DATES, span), "TreatmentDate": (first + timedelta(days=1), span[1])}


def _studies(case: Case, upper: Mapping[str, Any], builder: CaseBuilder) -> Iterator[Node]:
    by_study: dict[str, list[CaseSeries]] = {}
    for series in builder.series(case):
        by_study.setdefault(series.study.uid, []).append(series)
    for held in by_study.values():
        yield _study(case, held[0].study, held, upper)


def _study(case: Case, study: Study, held: list[CaseSeries], upper: Mapping[str, Any]) -> Node:
    values = {
        "StudyInstanceUID": study.uid,
        "StudyID": study.study_id,
        "StudyDate": study.opened.strftime("%Y%m%d"),
        "StudyTime": study.opened.strftime("%H%M%S"),
        "StudyDescription": study.description,
        "AccessionNumber": None,
        "ReferringPhysicianName": None,
    }
    whose = dict(upper)
    if case.former_name and study.description != ARIA_STUDY:
        whose["PatientName"] = case.former_name
    above = {**whose, **values}
    return Node(
        level=Level.STUDY,
        uid=study.uid,
        values=lambda: values,
        children=lambda: (_series(series, above) for series in held),
    )


def _series(series: CaseSeries, upper: Mapping[str, Any]) -> Node:
    @cache
    def first() -> Mapping[str, Any]:
        """Return what the first instance says of the series."""
        return next((instance.values() for instance in series.instances()), series.own)

    values = Backed({"SeriesInstanceUID": series.uid, "Modality": series.modality}, first)
    return Node(
        level=Level.SERIES,
        uid=series.uid,
        values=lambda: values,
        shared=lambda: {"SOPClassUID": series.sop_class_uid},
        spans=series.spans,
        children=lambda: (_instance(series, instance, first, upper) for instance in series.instances()),
        export=series.export,
    )


def _instance(
    series: CaseSeries, instance: Instance, first: Callable[[], Mapping[str, Any]], upper: Mapping[str, Any]
) -> Node:
    values = cache(instance.values)

    def fetch() -> Dataset:
        whole = {**upper, **values()}
        # All instances of a series say the same of it, whenever each was made.
        whole |= {keyword: first()[keyword] for keyword in ("SeriesDate", "SeriesTime")}
        if instance.pixels is not None:
            whole["PixelData"] = instance.pixels()
        return data_set(whole)

    return Node(
        level=Level.IMAGE,
        uid=instance.uid,
        values=(lambda: Backed(instance.flat, values)) if instance.flat else values,
        sop_class_uid=series.sop_class_uid,
        fetch=fetch,
        export=instance.export,
    )
