"""Patient-specific QA with the portal imager: what of it is there, beam by beam.

A verification plan (RT Plan Relationship VERIFIED_PLAN, PS3.3 C.8.8.9) is a copy of the treated one on the imager: of
each beam a portal dose is predicted and one is acquired (varian-daemon 1.6), and doses of the phantom may have been
computed. Nothing is compared here: this says which pairs an analysis can take, and of which beams none is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pydicom.dataset import Dataset

from airflow_provider_varian.aria.plan_set import Member, PlanSet, Role, Standing
from airflow_provider_varian.aria.plan_set_fetcher import Fetcher
from airflow_provider_varian.aria.plan_set_resolver import PatientChart
from airflow_provider_varian.aria.plans import beam_numbers

#: What is looked for in the set of a verification plan.
ROLES: Final = frozenset({Role.PLAN, Role.RT_IMAGE, Role.PLAN_DOSE, Role.BEAM_DOSE})
ACQUIRED: Final = "portal_dose"
PREDICTED: Final = "predicted"


class BeamVerdict(StrEnum):
    """What is there of a beam."""

    #: One acquired and one predicted portal dose.
    READY = "ready"
    #: Predicted, and not acquired.
    NOT_ACQUIRED = "not_acquired"
    #: Acquired, and not predicted.
    NOT_PREDICTED = "not_predicted"
    #: Neither.
    NOTHING = "nothing"
    #: More than one acquired or predicted, so somebody has to say which one counts.
    SEVERAL = "several"


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamImages:
    """The portal doses of one beam, by SOP Instance UID.

    :param number: Beam Number (300A,00C0).
    :param acquired: measured with the imager; one for each time that the beam was given.
    :param predicted: computed by the planning system.
    :param doses: RT Doses of the beam.
    """

    number: int
    acquired: tuple[str, ...] = ()
    predicted: tuple[str, ...] = ()
    doses: tuple[str, ...] = ()

    @property
    def verdict(self) -> BeamVerdict:
        """What an analysis can do with it."""
        if not self.acquired:
            return BeamVerdict.NOT_ACQUIRED if self.predicted else BeamVerdict.NOTHING
        if not self.predicted:
            return BeamVerdict.NOT_PREDICTED
        return BeamVerdict.READY if len(self.acquired) == len(self.predicted) == 1 else BeamVerdict.SEVERAL

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        uids = {name: list(getattr(self, name)) for name in ("acquired", "predicted", "doses")}
        return {"number": self.number, "verdict": str(self.verdict), **uids}


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalDosimetry:
    """The portal dosimetry of a verification plan.

    :param plan_uid: the verification plan.
    :param verifies: the plans that it verifies, held or not.
    :param beams: each beam of the plan that leaves an image, ascending; setup beams are left out.
    :param plan_doses: RT Doses of the plan as a whole.
    :param unassigned: portal doses of the plan that name no beam of it, as composite ones do.
    :param warnings: of the search, in sentences without identifiers.
    """

    plan_uid: str
    verifies: tuple[str, ...]
    beams: tuple[BeamImages, ...]
    plan_doses: tuple[str, ...] = ()
    unassigned: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Can every beam be analysed? A plan without beams cannot."""
        return bool(self.beams) and all(beam.verdict is BeamVerdict.READY for beam in self.beams)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "plan_uid": self.plan_uid,
            "verifies": list(self.verifies),
            "is_ready": self.is_ready,
            "beams": [beam.to_json() for beam in self.beams],
            "plan_doses": list(self.plan_doses),
            "unassigned": list(self.unassigned),
            "warnings": list(self.warnings),
        }


def judge_portal_dosimetry(plan: Dataset, plan_set: PlanSet) -> PortalDosimetry:
    """Say of each beam what is there.

    What is missing, could not be exported or may be another plan's does not count.

    :param plan: the verification plan, read from its file.
    :param plan_set: its set, with at least :data:`ROLES` looked for; after a retrieval, if there was one.
    """
    numbers = beam_numbers(plan)
    held = [each for each in plan_set.members if each.standing is Standing.HELD]
    portal = [each for each in held if each.kind in (ACQUIRED, PREDICTED)]
    return PortalDosimetry(
        plan_uid=plan_set.plan_uid,
        verifies=plan_set.verifies,
        beams=tuple(
            BeamImages(
                number=number,
                acquired=_uids(each for each in portal if each.kind == ACQUIRED and number in each.beams),
                predicted=_uids(each for each in portal if each.kind == PREDICTED and number in each.beams),
                doses=_uids(each for each in held if each.role is Role.BEAM_DOSE and number in each.beams),
            )
            for number in numbers
        ),
        plan_doses=_uids(each for each in held if each.role is Role.PLAN_DOSE),
        unassigned=_uids(each for each in portal if not set(each.beams) & set(numbers)),
        warnings=plan_set.warnings,
    )


def find_portal_dosimetry(chart: PatientChart, fetcher: Fetcher, plan_uid: str) -> tuple[PortalDosimetry, ...]:
    """Find the verification plans of a treated plan, and say of each beam what is there.

    :param chart: of the patient; see :func:`~airflow_provider_varian.aria.plan_set_resolver.open_chart`.
    :param fetcher: what the chart was opened with.
    :param plan_uid: the treated plan; a verification plan stands for itself.
    :return: by SOP Instance UID of the verification plan; nothing when no plan verifies this one.
    :raises NotFoundError: the patient has no such plan.
    :raises DicomError: what :meth:`~airflow_provider_varian.aria.plan_set_resolver.PatientChart.resolve` raises.
    """
    asked = chart.resolve(plan_uid, wanted=ROLES)
    verifying = asked.verified_by or ((plan_uid,) if asked.verifies else ())
    found = []
    for uid in verifying:
        plan_set = asked if uid == plan_uid else chart.resolve(uid, wanted=ROLES)
        found.append(judge_portal_dosimetry(fetcher.read(uid), plan_set))
    return tuple(found)


def _uids(members: Iterable[Member]) -> tuple[str, ...]:
    return tuple(sorted(member.sop_instance_uid for member in members))
