"""Where a QA plan stands in the clinic, and the UIDs that follow from it."""

from __future__ import annotations

from datetime import date

from airflow_provider_varian.simulator.clinic.identity import Identity, UidRoot
from airflow_provider_varian.simulator.clinic.linacs import LINACS, Linac, QACourse, QAPlan


class Place:
    """A QA plan of a course of a linac's patient.

    :param identity: of the clinic.
    :param linac: one of :data:`~.linacs.LINACS`.
    :param course: one of its courses.
    :param plan: one of the course's plans.
    """

    def __init__(self, identity: Identity, linac: Linac, course: QACourse, plan: QAPlan) -> None:
        self.linac, self.course, self.plan = linac, course, plan
        self.identity = identity
        self._patient = LINACS.index(linac)
        self._course = linac.courses.index(course) + 1
        self._plan = course.plans.index(plan) + 1

    @property
    def study_uid(self) -> str:
        """Study Instance UID of the course: plans, images and all."""
        return self.identity.uid(UidRoot.STUDY, self._patient, self._course)

    @property
    def frame_of_reference_uid(self) -> str:
        """Frame of Reference UID of the course."""
        return self.identity.uid(UidRoot.FRAME_OF_REFERENCE, self._patient, self._course)

    @property
    def plan_series_uid(self) -> str:
        """Series Instance UID of the plan."""
        return self.identity.uid(UidRoot.PLAN_SERIES, self._patient, self._course, self._plan, self._planned)

    @property
    def plan_uid(self) -> str:
        """SOP Instance UID of the plan."""
        return self.identity.uid(UidRoot.PLAN, self._patient, self._course, self._plan, self._planned)

    @property
    def _planned(self) -> int:
        return int(self.plan.planned.strftime("%Y%m%d"))

    def image_series_uid(self, day: date) -> str:
        """Return the Series Instance UID of the images of a day."""
        parts = (self._course, self._plan, int(day.strftime("%Y%m%d")))
        return self.identity.uid(UidRoot.IMAGE_SERIES, self._patient, *parts)

    def image_uid(self, day: date, number: int) -> str:
        """Return the SOP Instance UID of a day's image, numbered from 1."""
        parts = (self._course, self._plan, int(day.strftime("%Y%m%d")), number)
        return self.identity.uid(UidRoot.IMAGE, self._patient, *parts)
