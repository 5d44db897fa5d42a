"""Finding a plan's machine-QA images: a use of :mod:`.rt_images`, in the words of a machine's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from pydicom.dataset import Dataset

from airflow_provider_varian.aria.machines import IMAGE_KINDS
from airflow_provider_varian.aria.plans import PlanRef
from airflow_provider_varian.aria.rt_images import RTImage, Wanted, find_rt_images, unique_images
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.query.window import Window

__all__ = ["QAImage", "Selection", "find_qa_images", "unique_images"]

QAImage = RTImage


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
        _check(self.images)

    def of_answer(self, answer: Mapping[str, Any]) -> QAImage | None:
        """Return the image that an answer describes; see :meth:`.rt_images.Wanted.of_answer`."""
        return self._wanted.of_answer(answer)

    def of_object(self, dataset: Dataset) -> QAImage | None:
        """Return the image that its object describes; see :meth:`.rt_images.Wanted.of_object`."""
        return self._wanted.of_object(dataset)

    @property
    def _wanted(self) -> Wanted:
        return Wanted(
            plan_uid=self.plan_uid,
            window=self.window,
            zone=self.zone,
            kind=self.images,
            energy="any" if self.kv else "mv",
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
    :raises DicomError: what :func:`~airflow_provider_varian.aria.rt_images.find_rt_images` raises.
    """
    _check(images)
    return find_rt_images(
        session,
        window,
        plan=plan,
        kind=images,
        energy="any" if kv else "mv",
        zone=zone,
        stable_counts=stable_counts,
        stable_interval_seconds=stable_interval_seconds,
        cancellation=cancellation,
    )


def _check(images: str) -> None:
    """Refuse kinds that no configuration of a machine knows."""
    if images not in IMAGE_KINDS:
        raise ConfigurationError(f"there are no images {images!r}", hint="Use one of " + ", ".join(IMAGE_KINDS))
