"""Finding a plan's machine-QA images: all series, by acquisition date and time, as one C-FIND that is repeated
until its answer stands still (semantics 11).

What the DB Daemon matches badly is compared here: ImageType as a whole, the plan reference, the time
of the day. kV images lie in the same series as MV images and show by PrimaryDosimeterUnit
(varian-daemon 1.5, 1.6). What the answer leaves open is kept, flagged, and decided from the object
once it is here (semantics 12).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from types import MappingProxyType
from typing import Any, Final
from zoneinfo import ZoneInfo

from pydicom.dataset import Dataset

from airflow_provider_varian.aria.machines import IMAGE_KINDS
from airflow_provider_varian.aria.plans import PlanRef
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import ConfigurationError, PeerFailureError
from airflow_provider_varian.query.answers import to_answer
from airflow_provider_varian.query.find import FindResult, FindSession
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.query import Query
from airflow_provider_varian.query.temporal import parse_date
from airflow_provider_varian.query.verdict import Verdict
from airflow_provider_varian.query.window import Window, clinic_zone, date_range_key
from airflow_provider_varian.retrieval.listing import list_until_stable
from airflow_provider_varian.retrieval.patience import patient_profile

#: ImageType (0008,0008) by kind, compared as a whole tuple (varian-daemon 1.6).
IMAGE_TYPES: Final = MappingProxyType(
    {
        "portal": ("ORIGINAL", "PRIMARY", "PORTAL"),
        "portal_dose": ("ORIGINAL", "PRIMARY", "PORTAL", "ACQUIRED_DOSE"),
    }
)

_RETURNED: Final = (
    "SOPClassUID",
    "AcquisitionTime",
    "ImageType",
    "PrimaryDosimeterUnit",
    "ReferencedBeamNumber",
    "RTImageLabel",
    "InstanceNumber",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class QAImage:
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

    @property
    def day(self) -> date | None:
        """The clinic's day of its acquisition; None when unknown."""
        try:
            return parse_date(self.acquisition_date or "")
        except ValueError:
            return None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which images are wanted; holds for answers and for objects alike.

    :param plan_uid: SOP Instance UID of the plan that they reference.
    :param window: when they were acquired.
    :param zone: the clinic's zone.
    :param images: ``portal``, ``portal_dose``, or ``any`` image of the plan.
    :param kv: kV images too?
    :raises ConfigurationError: for another kind of images.
    """

    plan_uid: str
    window: Window
    zone: ZoneInfo
    images: str = "portal"
    kv: bool = False

    def __post_init__(self) -> None:
        if self.images not in IMAGE_KINDS:
            raise ConfigurationError(
                f"there are no images {self.images!r}", hint="Use one of " + ", ".join(IMAGE_KINDS)
            )

    def of_answer(self, answer: Mapping[str, Any]) -> QAImage | None:
        """Return the image that an answer describes, None when it is not wanted.

        :param answer: a mapping as :func:`~airflow_provider_varian.query.answers.to_answer` makes it.
        :raises PeerFailureError: when it has no SOP Instance UID.
        """
        return self._image(answer, self._open(answer, whole=False))

    def of_object(self, dataset: Dataset) -> QAImage | None:
        """Return the image that its object describes, None when it is not wanted.

        An object without a plan reference is not of this plan. Other attributes that it lacks leave
        it undecided for good: it is kept and flagged.

        :param dataset: the object, or its head without pixels.
        """
        answer = to_answer(dataset, only=_READ)
        return self._image(answer, self._open(answer, whole=True))

    def _open(self, answer: Mapping[str, Any], *, whole: bool) -> tuple[str, ...] | None:
        """Return the keywords that leave the image open, None when it is not wanted."""
        verdicts = {
            "AcquisitionDate": self.window.contains(
                _text(answer, "AcquisitionDate"), _text(answer, "AcquisitionTime"), self.zone
            ),
            "ReferencedRTPlanSequence": self._of_plan(answer, whole=whole),
            "ImageType": self._of_kind(answer),
            "PrimaryDosimeterUnit": self._of_energy(answer),
        }
        if Verdict.MISS in verdicts.values():
            return None
        return tuple(keyword for keyword, verdict in verdicts.items() if verdict is Verdict.UNDECIDED)

    def _of_plan(self, answer: Mapping[str, Any], *, whole: bool) -> Verdict:
        references = answer.get("ReferencedRTPlanSequence") or ()
        uids = {_text(item, "ReferencedSOPInstanceUID") for item in references} - {None}
        if not uids and not whole:
            # Absent or empty, which says nothing about the image: many peers answer no sequences (semantics 12).
            return Verdict.UNDECIDED
        return Verdict.MATCH if self.plan_uid in uids else Verdict.MISS

    def _of_kind(self, answer: Mapping[str, Any]) -> Verdict:
        if self.images == "any":
            return Verdict.MATCH
        values = _image_type(answer)
        if values is None:
            return Verdict.UNDECIDED
        return Verdict.MATCH if values == IMAGE_TYPES[self.images] else Verdict.MISS

    def _of_energy(self, answer: Mapping[str, Any]) -> Verdict:
        is_kv = _is_kv(answer)
        if self.kv or is_kv is False:
            return Verdict.MATCH
        return Verdict.UNDECIDED if is_kv is None else Verdict.MISS

    def _image(self, answer: Mapping[str, Any], undecided: tuple[str, ...] | None) -> QAImage | None:
        if undecided is None:
            return None
        uid = _text(answer, "SOPInstanceUID")
        if not uid:
            raise PeerFailureError("an image was listed without its SOP Instance UID", step="image search")
        beam = answer.get("ReferencedBeamNumber")
        return QAImage(
            sop_instance_uid=uid,
            sop_class_uid=_text(answer, "SOPClassUID") or "",
            series_instance_uid=_text(answer, "SeriesInstanceUID") or "",
            study_instance_uid=_text(answer, "StudyInstanceUID") or "",
            acquisition_date=_text(answer, "AcquisitionDate"),
            acquisition_time=_text(answer, "AcquisitionTime"),
            image_type=_image_type(answer),
            beam_number=beam if isinstance(beam, int) else None,
            kv=_is_kv(answer),
            label=_text(answer, "RTImageLabel") or "",
            undecided=undecided,
        )


def find_qa_images(
    session: FindSession,
    plan: PlanRef,
    window: Window,
    *,
    images: str = "portal",
    kv: bool = False,
    zone: ZoneInfo | None = None,
    stable_counts: int | None = None,
    stable_interval_seconds: float | None = None,
    cancellation: Cancellation | None = None,
) -> tuple[list[QAImage], tuple[str, ...]]:
    """Return the wanted images of a plan, oldest first, each once; one C-FIND per round under a relational profile.

    Data reaches ARIA late and slowly. The peer is asked until it has listed the same images
    ``stable_counts`` times in a row: a list that still grows must not make a day look whole.

    :param session: an open session.
    :param plan: the plan, as :func:`~airflow_provider_varian.aria.plans.find_plan` found it.
    :param window: when they were acquired, look-back included: see
        :func:`~airflow_provider_varian.query.window.run_window`.
    :param images: ``portal``, ``portal_dose`` or ``any``.
    :param kv: kV images too?
    :param zone: the clinic's zone; the connection's when None.
    :param stable_counts: equal lists in a row that make a list stable; None: as the session's profile says.
    :param stable_interval_seconds: seconds between two of them; None: as the session's profile says.
    :param cancellation: stops the waiting between two rounds.
    :return: the images, and sentences on what may be wrong with the list, without identifiers.
    :raises ConfigurationError: no time zone, another kind of images, or a number out of range.
    :raises DicomError: what :meth:`~airflow_provider_varian.query.find.FindSession.find` raises.
    """
    profile = patient_profile(
        session.profile, stable_counts=stable_counts, stable_interval_seconds=stable_interval_seconds
    )
    selection = Selection(
        plan_uid=plan.sop_instance_uid,
        window=window,
        zone=zone or clinic_zone(session.peer.timezone),
        images=images,
        kv=kv,
    )
    keys: dict[str, Any] = {
        "StudyInstanceUID": plan.study_instance_uid,
        "Modality": "RTIMAGE",
        "AcquisitionDate": date_range_key(window, selection.zone),
        "ReferencedRTPlanSequence": {"ReferencedSOPInstanceUID": None},
        **dict.fromkeys(_RETURNED),
    }
    query = Query.build(Level.IMAGE, keys)

    def ask() -> FindResult:
        found = session.find(query, undecided="keep")
        # An image that is left open counts as one: the list must stand still as a whole.
        return replace(found, answers=[*found.answers, *found.undecided], undecided=[])

    listed = list_until_stable(ask, profile=profile, cancellation=cancellation)
    return unique_images(map(selection.of_answer, listed.answers)), tuple(listed.warnings)


def unique_images(images: Iterable[QAImage | None]) -> list[QAImage]:
    """Return images in the order of their acquisition, each once; those without a date come last."""
    by_uid = {image.sop_instance_uid: image for image in images if image is not None}
    return sorted(
        by_uid.values(),
        key=lambda image: (image.acquisition_date or "~", image.acquisition_time or "~", image.sop_instance_uid),
    )


def _image_type(answer: Mapping[str, Any]) -> tuple[str, ...] | None:
    value = answer.get("ImageType")
    if not value:
        return None
    return tuple(str(part).strip() for part in (value if isinstance(value, list) else [value]))


def _is_kv(answer: Mapping[str, Any]) -> bool | None:
    """MU is a linac's beam, MINUTE the X-ray tube's (varian-daemon 1.6)."""
    return {"MU": False, "MINUTE": True}.get(_text(answer, "PrimaryDosimeterUnit") or "")


def _text(answer: Mapping[str, Any], keyword: str) -> str | None:
    value = answer.get(keyword)
    return None if value is None or not str(value).strip() else str(value).strip()
