"""Holdings of small objects for a simulated daemon: as many as a test wants, and a note of each that goes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset

from airflow_provider_varian import uids
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.holdings.attributes import data_set
from airflow_provider_varian.simulator.holdings.tree import Export, Node, Search

ROOT = "1.2.826.0.1.3680043.10.1511.77"
PATIENT = "QA_ROBUST"
_CLASSES = {"RTIMAGE": uids.RT_IMAGE, "RTPLAN": uids.RT_PLAN, "CT": uids.CT_IMAGE}


@dataclass(frozen=True)
class SmallSeries:
    """A series to be held.

    :param study: number of its study.
    :param number: of the series in that study.
    :param modality: ``RTIMAGE``, ``RTPLAN`` or ``CT``.
    :param instances: how many.
    """

    study: int
    number: int
    modality: str
    instances: int

    @property
    def study_uid(self) -> str:
        return f"{ROOT}.{self.study}"

    @property
    def uid(self) -> str:
        return f"{self.study_uid}.{self.number}"

    @property
    def instance_uids(self) -> tuple[str, ...]:
        return tuple(f"{self.uid}.{number}" for number in range(1, self.instances + 1))

    def values(self) -> dict[str, Any]:
        return {
            "SpecificCharacterSet": "ISO_IR 192",
            "SOPClassUID": _CLASSES[self.modality],
            "StudyDate": "20260102",
            "Modality": self.modality,
            "PatientName": "Phantom^Ünique",
            "PatientID": PATIENT,
            "StudyInstanceUID": self.study_uid,
            "SeriesInstanceUID": self.uid,
        }

    def instance(self, number: int, revision: int = 0) -> dict[str, Any]:
        own = {"SOPInstanceUID": f"{self.uid}.{number}", "InstanceNumber": number}
        if self.modality == "RTPLAN":
            own |= {"RTPlanLabel": f"P{number}", "RTPlanDate": "20260102", "RTPlanTime": f"12000{revision}"}
            own |= {"ApprovalStatus": "APPROVED" if revision else "UNAPPROVED"}
        return {**self.values(), **own}


@dataclass
class SmallArchive:
    """Implements ``Holdings`` over some series of one patient.

    :param series: what there is.
    """

    series: tuple[SmallSeries, ...]
    #: SOP Instance UID of each object that went out, in order.
    sent: list[str] = field(default_factory=list)
    #: SOP Instance UIDs of what is listed and cannot be exported.
    failing: set[str] = field(default_factory=set)
    #: Of the plans: another one has other content under the same UIDs (varian-daemon 1.4).
    revision: int = 0

    @property
    def instance_uids(self) -> list[str]:
        return [uid for series in self.series for uid in series.instance_uids]

    def source(self, uid: str, revision: int | None = None) -> Dataset:
        """Make an object as it is held, before an export changes anything.

        :param revision: of a plan; ``None``: the one that is held now.
        """
        series_uid, _, number = uid.rpartition(".")
        (series,) = [each for each in self.series if each.uid == series_uid]
        return self._data_set(series, int(number), self.revision if revision is None else revision)

    def sop_classes(self) -> frozenset[str]:
        return frozenset(_CLASSES[each.modality] for each in self.series)

    def patients(self, wanted: Search) -> Iterator[Node]:
        ids = wanted.uids(Level.PATIENT)
        if not ids or PATIENT in ids:
            values = self.series[0].values()
            yield Node(level=Level.PATIENT, uid=PATIENT, values=lambda: values, children=self._studies)

    def _studies(self) -> Iterator[Node]:
        for uid in dict.fromkeys(each.study_uid for each in self.series):
            within = [each for each in self.series if each.study_uid == uid]
            yield Node(
                level=Level.STUDY,
                uid=uid,
                values=within[0].values,
                children=lambda within=within: [self._series_node(each) for each in within],
            )

    def _series_node(self, series: SmallSeries) -> Node:
        return Node(
            level=Level.SERIES,
            uid=series.uid,
            values=series.values,
            children=lambda: [self._instance_node(series, number) for number in range(1, series.instances + 1)],
        )

    def _instance_node(self, series: SmallSeries, number: int) -> Node:
        values: Mapping[str, Any] = series.instance(number, self.revision)
        return Node(
            level=Level.IMAGE,
            uid=values["SOPInstanceUID"],
            values=lambda: values,
            sop_class_uid=values["SOPClassUID"],
            fetch=lambda: self._send(series, number),
            export=Export.FAILS if values["SOPInstanceUID"] in self.failing else Export.NORMAL,
        )

    def _send(self, series: SmallSeries, number: int) -> Dataset:
        self.sent.append(f"{series.uid}.{number}")
        return self._data_set(series, number, self.revision)

    def _data_set(self, series: SmallSeries, number: int, revision: int) -> Dataset:
        values = series.instance(number, revision)
        if series.modality == "RTPLAN":
            return data_set(values)
        pixels = {"Rows": 8, "Columns": 8, "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}
        pixels |= {"SamplesPerPixel": 1, "PixelRepresentation": 0}
        return data_set(
            {
                **values,
                **pixels,
                "PhotometricInterpretation": "MONOCHROME2",
                "PixelData": number.to_bytes(2, "little") * 64,
            }
        )
