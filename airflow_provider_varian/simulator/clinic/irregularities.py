"""Everything that is unusual about patients in ARIA, by name, and which patient has what.

Of two neighbours one has one irregularity, in turn, and no other by chance; so each occurs among any
``2 * len(Irregularity)`` patients planned one after the other. Of the rest each third has none at all and the
others have some by chance.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from airflow_provider_varian.simulator.clinic.calendar import FIRST_CLINICAL
from airflow_provider_varian.simulator.clinic.identity import Identity

_OFTEN: Final = 0.4
_NOW_AND_THEN: Final = 0.15
_SELDOM: Final = 0.03
_IN_TURN_ONLY: Final = 0.0


class Irregularity(StrEnum):
    """What a clinical patient can have that a plain one has not.

    ``meaning`` says it in one line; ``quirk`` is its number in varian-daemon section 4, or ``None``.
    """

    meaning: str
    quirk: int | None
    chance: float

    def __new__(cls, value: str, meaning: str = "", quirk: int | None = None, chance: float = 0.0) -> Irregularity:
        """Keep the value as the member's text and what is told of it beside."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning, member.quirk, member.chance = meaning, quirk, chance
        return member

    PATIENT_ID_WITH_DOLLAR = "patient-id-with-dollar", "the Patient ID begins with $", 21, _IN_TURN_ONLY
    CBCT = "cbct", "CBCTs of some fractions, each with a registration to the planning CT", None, _OFTEN
    PLAN_WITHOUT_BEAMS = (
        "plan-without-beams", "a plan with an empty Beam Sequence is listed and cannot be exported", 12, _SELDOM,
    )  # fmt: skip
    LONG_PLAN_LABEL = "long-plan-label", "the label of the treated plan has more than 12 characters", 7, _SELDOM
    STRUCTURE_SET_MISSING = (
        "structure-set-missing", "the plan names a structure set that is not held", None, _SELDOM,
    )  # fmt: skip
    PATIENT_ID_WITH_BLANK = "patient-id-with-blank", "the Patient ID has a blank in it", 21, _IN_TURN_ONLY
    DRRS = "drrs", "the plan's study has a series of DRRs, one of each beam", 21, _OFTEN
    SAME_LABEL_IN_TWO_COURSES = (
        "same-label-in-two-courses", "two courses have a plan of the same label", 8, _SELDOM,
    )  # fmt: skip
    EMPTY_SERIES = "empty-series", "a series is listed and has no instance", 12, _SELDOM
    DOSE_IN_OTHER_STUDY = "dose-in-other-study", "the doses lie in another study than their plan", None, _NOW_AND_THEN
    VERIFICATION_PLAN = (
        "verification-plan", "a verification plan with acquired and predicted portal dose of each beam", None, _OFTEN,
    )  # fmt: skip
    PATIENT_ID_WITH_UNDERSCORE = (
        "patient-id-with-underscore", "the Patient ID begins with an underscore", 21, _IN_TURN_ONLY,
    )  # fmt: skip
    HALCYON_PLAN_CLASS = (
        "halcyon-plan-class", "the plans are of Varian's private class for Halcyon", 22, _NOW_AND_THEN,
    )  # fmt: skip
    REPLANNED = "replanned", "a second plan on a new CT takes over in the same course", None, _NOW_AND_THEN
    PLAN_WITHOUT_DOSE = "plan-without-dose", "the treated plan has no dose", None, _SELDOM
    CT_IN_OTHER_STUDY = "ct-in-other-study", "the planning CT lies in the scanner's own study", None, _OFTEN
    SERIES_NOT_MOVABLE = (
        "series-not-movable", "a series of RT Images is listed and cannot be retrieved", 12, _SELDOM,
    )  # fmt: skip
    LONG_PATIENT_ID = "long-patient-id", "the Patient ID has more than 16 characters", 6, _IN_TURN_ONLY
    UNAPPROVED_PLAN = "unapproved-plan", "another plan of the course was never approved", None, _NOW_AND_THEN
    BEAM_DOSES = "beam-doses", "a dose of each beam beside that of the plan", None, _OFTEN
    LEADING_ZERO_UID = "leading-zero-uid", "UIDs of doses have a component with a leading zero", 24, _SELDOM
    NEWER_STRUCTURE_SET = (
        "newer-structure-set", "a newer structure set on the same CT that no plan names", None, _NOW_AND_THEN,
    )  # fmt: skip
    CT_SLICE_MISSING = "ct-slice-missing", "a slice that the structure set names is not held", None, _SELDOM
    PATIENT_ID_IN_OTHER_CASE = (
        "patient-id-in-other-case", "the Patient IDs of two patients differ in case only", None, _IN_TURN_ONLY,
    )  # fmt: skip
    REJECTED_PLAN = "rejected-plan", "another plan of the course was rejected", None, _NOW_AND_THEN
    IMAGES_WITHOUT_PLAN = "images-without-plan", "RT Images that name no plan and no beam", 21, _NOW_AND_THEN
    SHARED_REGISTRATION = (
        "shared-registration", "CBCTs in one frame of reference that one registration serves", None, _NOW_AND_THEN,
    )  # fmt: skip
    STRUCTURE_SET_IN_OTHER_STUDY = (
        "structure-set-in-other-study", "the structure sets lie in another study than their plan", None, _NOW_AND_THEN,
    )  # fmt: skip
    NAME_CHANGED = "name-changed", "objects of the scanner's study bear the patient's former name", None, _SELDOM
    PATIENT_ID_ONE_LONGER = (
        "patient-id-one-longer", "the Patient ID is another patient's and one character more", None, _IN_TURN_ONLY,
    )  # fmt: skip
    UNUSED_STRUCTURE_SET = (
        "unused-structure-set", "an older structure set on the same CT that no plan names", None, _NOW_AND_THEN,
    )  # fmt: skip
    SPLIT_FRACTION = (
        "split-fraction", "a fraction given in two parts: two records of one fraction number", None, _SELDOM,
    )  # fmt: skip
    MANY_PLANS = "many-plans", "more than 30 plans, hence as many series of plans", 19, _IN_TURN_ONLY


#: All of them: what a clinic has unless told otherwise.
ALL: Final = frozenset(Irregularity)

_MEMBERS: Final = tuple(Irregularity)
_CYCLE: Final = 2 * len(_MEMBERS)
#: What one irregularity brings with it, whether it is wanted for itself or not.
_IMPLIED: Final = {
    Irregularity.SHARED_REGISTRATION: Irregularity.CBCT,
    Irregularity.NAME_CHANGED: Irregularity.CT_IN_OTHER_STUDY,
}
#: What says nothing beside another.
_POINTLESS: Final = {
    Irregularity.PLAN_WITHOUT_DOSE: frozenset(
        {Irregularity.BEAM_DOSES, Irregularity.DOSE_IN_OTHER_STUDY, Irregularity.LEADING_ZERO_UID}
    ),
}


def irregularities_of(
    identity: Identity, number: int, wanted: frozenset[Irregularity] = ALL
) -> frozenset[Irregularity]:
    """Return what is unusual about a clinical patient.

    :param number: of the patient, from :data:`.calendar.FIRST_CLINICAL`.
    :param wanted: those that the clinic shall have; a change of one changes nothing else about a patient.
    """
    found = set(_in_turn(number) or _by_chance(identity, number)) & wanted
    return frozenset(found | {_IMPLIED[each] for each in found if each in _IMPLIED})


def patient_id_irregularities(number: int, wanted: frozenset[Irregularity]) -> frozenset[Irregularity]:
    """Return what can be unusual about the Patient ID; quick, for none of it is left to chance."""
    return frozenset(_in_turn(number)) & wanted


def is_twin(number: int) -> bool:
    """Say whether a patient is the second of the two whose IDs differ in case only."""
    return (number - FIRST_CLINICAL) % 2 == 1


def _in_turn(number: int) -> tuple[Irregularity, ...]:
    turn, second = divmod((number - FIRST_CLINICAL) % _CYCLE, 2)
    member = _MEMBERS[turn]
    # It takes two to be mistaken for each other.
    return (member,) if not second or member is Irregularity.PATIENT_ID_IN_OTHER_CASE else ()


def _by_chance(identity: Identity, number: int) -> tuple[Irregularity, ...]:
    if (number - FIRST_CLINICAL) // 2 % 3 == 0:
        return ()
    chance = identity.draw("irregularities", number)
    drawn = [member for member in _MEMBERS if chance.random() < member.chance]
    pointless = frozenset[Irregularity]().union(*(_POINTLESS.get(member, ()) for member in drawn))
    return tuple(member for member in drawn if member not in pointless)
