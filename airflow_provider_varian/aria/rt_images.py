"""RT Images by what they are and when they were acquired: of a plan, of a machine, or of the whole clinic.

One query at IMAGE level lists all series at once, by days of acquisition, and is repeated until its answer stands still
(semantics 11). What the DB Daemon matches badly is compared here: ImageType as a whole, the plan reference, the
machine, the time of the day. kV images lie in the same series as MV images and show by PrimaryDosimeterUnit
(varian-daemon 1.5, 1.6). What the answer leaves open is kept, flagged, and decided from the object once it is here
(semantics 12).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Literal, get_args
from zoneinfo import ZoneInfo

from pydicom.dataset import Dataset

from airflow_provider_varian.aria.listing import stable_listing, text
from airflow_provider_varian.aria.plans import PlanRef
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import ConfigurationError, PeerFailureError
from airflow_provider_varian.query.answers import to_answer
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.query import Query
from airflow_provider_varian.query.splitting import ByDate, BySuffix, Split
from airflow_provider_varian.query.temporal import parse_date, time_span
from airflow_provider_varian.query.verdict import Verdict
from airflow_provider_varian.query.window import Window, clinic_zone, date_range_key

#: MV images of the treatment beam, kV images of the X-ray tube, or both.
Energy = Literal["mv", "kv", "any"]
ENERGIES: Final = get_args(Energy)

#: ImageType (0008,0008) by kind; an image is of a kind when its whole value is one of these (varian-daemon 1.6, PS3.3
#: C.8.8.2). Computed portal dose is called by either name, and derived or not, by different versions.
IMAGE_TYPES: Final[Mapping[str, frozenset[tuple[str, ...]]]] = MappingProxyType(
    {
        "portal": frozenset({("ORIGINAL", "PRIMARY", "PORTAL")}),
        "portal_dose": frozenset({("ORIGINAL", "PRIMARY", "PORTAL", "ACQUIRED_DOSE")}),
        "predicted": frozenset(
            (*pixels, "PORTAL", dose)
            for pixels in (("DERIVED", "SECONDARY"), ("DERIVED", "PRIMARY"), ("ORIGINAL", "PRIMARY"))
            for dose in ("PREDICTED_DOSE", "CALCULATED_DOSE")
        ),
        "drr": frozenset(
            (*pixels, "DRR") for pixels in (("DERIVED", "SECONDARY"), ("DERIVED", "PRIMARY"), ("ORIGINAL", "PRIMARY"))
        ),
    }
)
#: What ``kind`` may be.
KINDS: Final = (*IMAGE_TYPES, "any")

_RETURNED: Final = (
    "PatientID",
    "SOPClassUID",
    "AcquisitionTime",
    "ImageType",
    "PrimaryDosimeterUnit",
    "ReferencedBeamNumber",
    "RTImageLabel",
    "InstanceNumber",
    "RadiationMachineName",
    "StationName",
)
_READ: Final = frozenset(
    {
        *_RETURNED,
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "StudyInstanceUID",
        "AcquisitionDate",
        "ReferencedRTPlanSequence",
    }
)
_STEP: Final = "image search"


@dataclass(frozen=True, slots=True, kw_only=True)
class RTImage:
    """One image, as an answer or its object describes it.

    :param sop_instance_uid: names the image.
    :param sop_class_uid: RT Image as a rule; empty when not answered.
    :param series_instance_uid: its series.
    :param study_instance_uid: its study, the plan's.
    :param acquisition_date: ``YYYYMMDD``, local to the clinic; None when unknown.
    :param acquisition_time: TM value; None when unknown.
    :param image_type: ImageType; None when unknown.
    :param beam_number: ReferencedBeamNumber; None when unknown.
    :param kv: a kV image? None when PrimaryDosimeterUnit is unknown.
    :param label: RTImageLabel, free text; empty when unknown.
    :param undecided: keywords whose absence leaves open whether the image is wanted.
    :param plan_uids: the plans that it references; empty when it names none, or none was answered.
    :param machine: RadiationMachineName, else StationName; empty when neither was answered.
    :param patient_id: whose; empty when not answered.
    """

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    acquisition_date: str | None
    acquisition_time: str | None
    image_type: tuple[str, ...] | None
    beam_number: int | None
    kv: bool | None
    label: str = ""
    undecided: tuple[str, ...] = ()
    plan_uids: tuple[str, ...] = ()
    machine: str = ""
    patient_id: str = field(default="", repr=False)

    @property
    def day(self) -> date | None:
        """The clinic's day of its acquisition; None when unknown."""
        try:
            return parse_date(self.acquisition_date or "")
        except ValueError:
            return None

    @property
    def acquired(self) -> datetime | None:
        """Date and time of its acquisition by the clinic's clock, without zone; None when one of them is unknown."""
        if self.day is None or not self.acquisition_time:
            return None
        try:
            span = time_span(self.acquisition_time)
        except ValueError:
            return None
        return datetime.combine(self.day, datetime.min.time()) + timedelta(microseconds=span.low or 0)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, without the Patient ID."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "patient_id"}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which images are wanted; holds for answers and for objects alike.

    :param window: when they were acquired.
    :param zone: the clinic's zone.
    :param plan_uid: SOP Instance UID of the plan that they reference; None: of any, or none.
    :param machine: RadiationMachineName (3002,0020) or, of images that have none, StationName (0008,1010), exactly;
        None: any.
    :param kind: one of :data:`KINDS`.
    :param energy: ``mv``, ``kv`` or ``any``.
    :raises ConfigurationError: for another kind or energy.
    """

    window: Window
    zone: ZoneInfo
    plan_uid: str | None = None
    machine: str | None = None
    kind: str = "any"
    energy: Energy = "any"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigurationError(f"there are no images {self.kind!r}", hint="Use one of " + ", ".join(KINDS))
        if self.energy not in ENERGIES:
            raise ConfigurationError(
                f"there are no images of {self.energy!r}", hint="Use one of " + ", ".join(ENERGIES)
            )

    def of_answer(self, answer: Mapping[str, Any]) -> RTImage | None:
        """Return the image that an answer describes, None when it is not wanted.

        :param answer: a mapping as :func:`~airflow_provider_varian.query.answers.to_answer` makes it.
        :raises PeerFailureError: when it has no SOP Instance UID.
        """
        return self._image(answer, self._open(answer, whole=False))

    def of_object(self, dataset: Dataset) -> RTImage | None:
        """Return the image that its object describes, None when it is not wanted.

        An object without a plan reference is not of the plan. Other attributes that it lacks leave it undecided for
        good: it is kept and flagged.

        :param dataset: the object, or its head without pixels.
        """
        answer = to_answer(dataset, only=_READ)
        return self._image(answer, self._open(answer, whole=True))

    def _open(self, answer: Mapping[str, Any], *, whole: bool) -> tuple[str, ...] | None:
        """Return the keywords that leave the image open, None when it is not wanted."""
        verdicts = {
            "AcquisitionDate": self.window.contains(
                text(answer, "AcquisitionDate") or None, text(answer, "AcquisitionTime") or None, self.zone
            ),
            "ReferencedRTPlanSequence": self._of_plan(answer, whole=whole),
            "RadiationMachineName": self._of_machine(answer),
            "ImageType": self._of_kind(answer),
            "PrimaryDosimeterUnit": self._of_energy(answer),
        }
        if Verdict.MISS in verdicts.values():
            return None
        return tuple(keyword for keyword, verdict in verdicts.items() if verdict is Verdict.UNDECIDED)

    def _of_plan(self, answer: Mapping[str, Any], *, whole: bool) -> Verdict:
        if self.plan_uid is None:
            return Verdict.MATCH
        uids = _plan_uids(answer)
        if not uids and not whole:
            # Absent or empty, which says nothing about the image: many peers answer no sequences (semantics 12).
            return Verdict.UNDECIDED
        return Verdict.MATCH if self.plan_uid in uids else Verdict.MISS

    def _of_machine(self, answer: Mapping[str, Any]) -> Verdict:
        if self.machine is None:
            return Verdict.MATCH
        said = _machine(answer)
        if not said:
            return Verdict.UNDECIDED
        return Verdict.MATCH if said == self.machine.strip() else Verdict.MISS

    def _of_kind(self, answer: Mapping[str, Any]) -> Verdict:
        if self.kind == "any":
            return Verdict.MATCH
        values = _image_type(answer)
        if values is None:
            return Verdict.UNDECIDED
        return Verdict.MATCH if values in IMAGE_TYPES[self.kind] else Verdict.MISS

    def _of_energy(self, answer: Mapping[str, Any]) -> Verdict:
        if self.energy == "any":
            return Verdict.MATCH
        is_kv = _is_kv(answer)
        if is_kv is None:
            return Verdict.UNDECIDED
        return Verdict.MATCH if is_kv == (self.energy == "kv") else Verdict.MISS

    def _image(self, answer: Mapping[str, Any], undecided: tuple[str, ...] | None) -> RTImage | None:
        if undecided is None:
            return None
        uid = text(answer, "SOPInstanceUID")
        if not uid:
            raise PeerFailureError("an image was listed without its SOP Instance UID", step=_STEP)
        beam = answer.get("ReferencedBeamNumber")
        return RTImage(
            sop_instance_uid=uid,
            sop_class_uid=text(answer, "SOPClassUID"),
            series_instance_uid=text(answer, "SeriesInstanceUID"),
            study_instance_uid=text(answer, "StudyInstanceUID"),
            acquisition_date=text(answer, "AcquisitionDate") or None,
            acquisition_time=text(answer, "AcquisitionTime") or None,
            image_type=_image_type(answer),
            beam_number=beam if isinstance(beam, int) else None,
            kv=_is_kv(answer),
            label=text(answer, "RTImageLabel"),
            undecided=undecided,
            plan_uids=_plan_uids(answer),
            machine=_machine(answer),
            patient_id=text(answer, "PatientID"),
        )


def find_rt_images(
    session: FindSession,
    window: Window,
    *,
    plan: PlanRef | None = None,
    machine: str | None = None,
    kind: str = "any",
    energy: Energy = "any",
    zone: ZoneInfo | None = None,
    stable_counts: int | None = None,
    stable_interval_seconds: float | None = None,
    cancellation: Cancellation | None = None,
) -> tuple[list[RTImage], tuple[str, ...]]:
    """Return the wanted RT Images, oldest first, each once.

    Data reaches ARIA late and slowly. The peer is asked until it has listed the same images ``stable_counts`` times in
    a row: a list that still grows must not make a day look whole.

    :param session: an open session.
    :param window: when they were acquired, look-back included: see
        :func:`~airflow_provider_varian.query.window.run_window`.
    :param plan: of this plan alone, in the plan's study (varian-daemon 1.5); None: of the whole clinic, also images
        that name no plan. Where a day of the clinic is too broad for the peer, it is asked in parts.
    :param machine: of this machine alone; see :class:`Wanted`. Which of the two names is answered is up to the peer:
        they are compared here.
    :param kind: ``portal``, ``portal_dose`` (acquired), ``predicted`` (portal dose), ``drr`` or ``any``.
    :param energy: ``mv``, ``kv`` or ``any``.
    :param zone: the clinic's zone; the connection's when None.
    :param stable_counts: equal lists in a row that make a list stable; None: as the session's profile says.
    :param stable_interval_seconds: seconds between two of them; None: as the session's profile says.
    :param cancellation: stops the waiting between two rounds.
    :return: the images, and sentences on what may be wrong with the list, without identifiers. Images with something in
        ``undecided`` may turn out not to be wanted when their object is here: see :meth:`Wanted.of_object`.
    :raises ConfigurationError: no time zone, another kind of images, or a number out of range.
    :raises DicomError: what :func:`~airflow_provider_varian.query.splitting.find_whole` raises.
    """
    wanted = Wanted(
        window=window,
        zone=zone or clinic_zone(session.peer.timezone),
        plan_uid=plan.sop_instance_uid if plan else None,
        machine=machine,
        kind=kind,
        energy=energy,
    )
    keys: dict[str, Any] = {
        **({"StudyInstanceUID": plan.study_instance_uid} if plan else {}),
        "Modality": "RTIMAGE",
        "AcquisitionDate": date_range_key(window, wanted.zone),
        "ReferencedRTPlanSequence": {"ReferencedSOPInstanceUID": None},
        **dict.fromkeys(_RETURNED),
    }
    by_date = ByDate("AcquisitionDate")
    by: tuple[Split, ...] = (by_date,) if plan else (by_date, BySuffix("PatientID"))
    listed = stable_listing(
        session,
        [Query.build(Level.IMAGE, keys)],
        by=by,
        stable_counts=stable_counts,
        stable_interval_seconds=stable_interval_seconds,
        cancellation=cancellation,
    )
    return unique_images(map(wanted.of_answer, listed.answers)), tuple(listed.warnings)


def unique_images(images: Iterable[RTImage | None]) -> list[RTImage]:
    """Return images in the order of their acquisition, each once; those without a date come last."""
    by_uid = {image.sop_instance_uid: image for image in images if image is not None}
    return sorted(
        by_uid.values(),
        key=lambda image: (image.acquisition_date or "~", image.acquisition_time or "~", image.sop_instance_uid),
    )


def _plan_uids(answer: Mapping[str, Any]) -> tuple[str, ...]:
    items = answer.get("ReferencedRTPlanSequence") or ()
    return tuple(dict.fromkeys(uid for item in items if (uid := text(item, "ReferencedSOPInstanceUID"))))


def _machine(answer: Mapping[str, Any]) -> str:
    """The planning system's images name it as their station, and the machine as the machine (varian-daemon 1.6)."""
    return text(answer, "RadiationMachineName") or text(answer, "StationName")


def _image_type(answer: Mapping[str, Any]) -> tuple[str, ...] | None:
    value = answer.get("ImageType")
    if not value:
        return None
    return tuple(str(part).strip() for part in (value if isinstance(value, list) else [value]))


def _is_kv(answer: Mapping[str, Any]) -> bool | None:
    """MU is a linac's beam, MINUTE the X-ray tube's (varian-daemon 1.6)."""
    return {"MU": False, "MINUTE": True}.get(text(answer, "PrimaryDosimeterUnit"))
