"""A plan set: an RT Plan with all that belongs to it, what of it is there, and a verdict. Standard library only.

Found by :mod:`.plan_set_resolver`. Nothing here holds a patient's name or ID; label and course, which a clinic may
fill with anything, are told only to who asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Literal

How = Literal["reference", "query"]
Names = Literal["instance", "series", "study"]


class Role(StrEnum):
    """What an object is to the plan."""

    PLAN = "plan"
    STRUCTURE_SET = "structure_set"
    #: A slice that the structure set was drawn on: CT as a rule, MR or PT now and then.
    IMAGE = "image"
    PLAN_DOSE = "plan_dose"
    BEAM_DOSE = "beam_dose"
    #: Of any other DoseSummationType, e.g. MULTI_PLAN.
    OTHER_DOSE = "other_dose"
    RECORD = "record"
    REGISTRATION = "registration"
    #: A slice of a CBCT made for the plan.
    CBCT = "cbct"
    #: Portal images, acquired and predicted portal doses; DRRs are a role of their own.
    RT_IMAGE = "rt_image"
    DRR = "drr"

    @property
    def folder(self) -> str:
        """Name of the folder that objects of this role are filed in."""
        return _FOLDERS[self]


_FOLDERS: Final = MappingProxyType(
    {
        Role.PLAN: "RTPLAN",
        Role.STRUCTURE_SET: "RTSTRUCT",
        Role.IMAGE: "CT",
        Role.PLAN_DOSE: "RTDOSE",
        Role.BEAM_DOSE: "RTDOSE",
        Role.OTHER_DOSE: "RTDOSE",
        Role.RECORD: "RTRECORD",
        Role.REGISTRATION: "REG",
        Role.CBCT: "CBCT",
        Role.RT_IMAGE: "RTIMAGE",
        Role.DRR: "DRR",
    }
)

ALL_ROLES: Final = frozenset(Role)
#: What second checks and research ask for: CT, RTSTRUCT, RTPLAN, RTDOSE.
WEEKLY_ROLES: Final = frozenset({Role.PLAN, Role.STRUCTURE_SET, Role.IMAGE, Role.PLAN_DOSE})
#: Roles whose absence is worth a word: a plan that never was treated has no records, and most have no DRRs.
_EXPECTED: Final = (Role.STRUCTURE_SET, Role.IMAGE, Role.PLAN_DOSE)
_ORDER: Final = {role: place for place, role in enumerate(Role)}


class Standing(StrEnum):
    """What is known of a member."""

    #: The peer lists it, and nothing has been seen to speak against its coming.
    HELD = "held"
    #: A member names it, and the patient has no such object.
    MISSING = "missing"
    #: It is there, and it cannot be said to which plan it belongs.
    AMBIGUOUS = "ambiguous"
    #: The peer lists it, and did not export it.
    NOT_EXPORTABLE = "not_exportable"


class Completeness(StrEnum):
    """The verdict on a plan set."""

    #: All that the members name is held, and nothing is unclear.
    COMPLETE = "complete"
    #: Something is missing, or cannot be exported.
    INCOMPLETE = "incomplete"
    #: Nothing is known to be missing, but it cannot be said of something whether it belongs to the plan, or the peer
    #: counts more objects of the patient than it lists.
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An object that belongs to a plan, should be there, or might belong.

    :param sop_instance_uid: which; of a missing series or study its UID, see ``names``.
    :param role: what it is to the plan.
    :param standing: what is known of it.
    :param how: ``reference``: a member names it; ``query``: it was listed, and names the plan itself, or is joined to
        it by a frame of reference.
    :param sop_class_uid: its class; of a missing one what the reference says.
    :param study_instance_uid: its study; empty when missing.
    :param series_instance_uid: its series; of a missing one what is said around the reference.
    :param named_by: SOP Instance UIDs of the members that name it.
    :param through: keywords of the sequences in which they do, or in which it names the plan.
    :param beams: Beam Numbers (300A,00C0) of the plan that a dose or image is of, where that is said.
    :param reason: why it is not simply held, in words and without identifiers.
    :param names: what a missing UID is of.
    :param kind: of an RT Image: ``portal``, ``portal_dose``, ``predicted``, ``drr`` or ``other``; empty for all else,
        and while nothing says it.
    """

    sop_instance_uid: str
    role: Role
    standing: Standing
    how: How = "reference"
    sop_class_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    named_by: tuple[str, ...] = ()
    through: tuple[str, ...] = ()
    beams: tuple[int, ...] = ()
    reason: str = ""
    names: Names = "instance"
    kind: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, what is empty left out."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items() if value}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Member:
        """Read what :meth:`to_json` returned."""
        known: dict[str, Any] = {key: tuple(said) if isinstance(said, list) else said for key, said in value.items()}
        known["role"], known["standing"] = Role(known["role"]), Standing(known["standing"])
        return cls(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSet:
    """A plan and what belongs to it.

    :param plan_uid: its SOP Instance UID.
    :param wanted: the roles that were looked for; :attr:`Role.PLAN` always is.
    :param members: the plan first, then by role; each object once.
    :param label: RT Plan Label (300A,0002).
    :param course: StudyID (0020,0010), the Course ID.
    :param approval_status: (300E,0002).
    :param verifies: plans that this one verifies (RTPlanRelationship VERIFIED_PLAN), held or not.
    :param verified_by: plans that verify this one.
    :param unnamed_slices: by Series Instance UID what is held of a planning series and the structure set does not
        name: left out of the set.
    :param listed_whole: False: the peer counts more objects of the wanted kinds than it lists, again and again.
    :param warnings: sentences without identifiers.
    """

    plan_uid: str
    wanted: frozenset[Role]
    members: tuple[Member, ...]
    label: str = field(default="", repr=False)
    course: str = field(default="", repr=False)
    approval_status: str = ""
    verifies: tuple[str, ...] = ()
    verified_by: tuple[str, ...] = ()
    unnamed_slices: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    listed_whole: bool = True
    warnings: tuple[str, ...] = ()

    @property
    def completeness(self) -> Completeness:
        """The verdict; what is missing goes before what is unclear."""
        standings = {member.standing for member in self.members}
        if standings & {Standing.MISSING, Standing.NOT_EXPORTABLE}:
            return Completeness.INCOMPLETE
        is_clear = self.listed_whole and Standing.AMBIGUOUS not in standings
        return Completeness.COMPLETE if is_clear else Completeness.AMBIGUOUS

    @property
    def held(self) -> tuple[Member, ...]:
        """Members that are there: what is to be retrieved."""
        return self._of(Standing.HELD)

    @property
    def missing(self) -> tuple[Member, ...]:
        """What members name and the patient has not."""
        return self._of(Standing.MISSING)

    @property
    def ambiguous(self) -> tuple[Member, ...]:
        """What may belong to the plan or to another one."""
        return self._of(Standing.AMBIGUOUS)

    @property
    def not_exportable(self) -> tuple[Member, ...]:
        """Members that the peer lists and did not export."""
        return self._of(Standing.NOT_EXPORTABLE)

    @property
    def absent_roles(self) -> tuple[Role, ...]:
        """Structure set, images and plan dose, as far as they were wanted and the plan neither has nor names one.

        That is no fault of the set: ARIA has plans without dose, and a phantom's plan has no structure set.
        """
        present = {member.role for member in self.members}
        return tuple(role for role in _EXPECTED if role in self.wanted and role not in present)

    def members_of(self, *roles: Role) -> tuple[Member, ...]:
        """Return the members of some roles, whatever their standing."""
        return tuple(member for member in self.members if member.role in roles)

    def judged(self, reasons: Mapping[str, str]) -> PlanSet:
        """Return the set as it is after a retrieval.

        :param reasons: by SOP Instance UID why a member has not come, in words and without identifiers.
        """
        changed = (
            replace(member, standing=Standing.NOT_EXPORTABLE, reason=reasons[member.sop_instance_uid])
            if member.standing is Standing.HELD and member.sop_instance_uid in reasons
            else member
            for member in self.members
        )
        return replace(self, members=tuple(changed))

    def to_json(self, *, with_label: bool = False) -> dict[str, Any]:
        """Return it as JSON values: UIDs, roles, states and counts.

        :param with_label: tell label and course too.
        """
        told = {"label": self.label, "course": self.course} if with_label else {}
        return {
            "plan_uid": self.plan_uid,
            "completeness": str(self.completeness),
            "approval_status": self.approval_status,
            **told,
            "wanted": sorted(self.wanted),
            "absent_roles": list(self.absent_roles),
            "counts": self._counts(),
            "verifies": list(self.verifies),
            "verified_by": list(self.verified_by),
            "unnamed_slices": {series: list(uids) for series, uids in self.unnamed_slices.items()},
            "listed_whole": self.listed_whole,
            "warnings": list(self.warnings),
            "members": [member.to_json() for member in self.members],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PlanSet:
        """Read what :meth:`to_json` returned."""
        return cls(
            plan_uid=value["plan_uid"],
            wanted=frozenset(map(Role, value["wanted"])),
            members=tuple(map(Member.from_json, value["members"])),
            label=value.get("label", ""),
            course=value.get("course", ""),
            approval_status=value["approval_status"],
            verifies=tuple(value["verifies"]),
            verified_by=tuple(value["verified_by"]),
            unnamed_slices={series: tuple(uids) for series, uids in value["unnamed_slices"].items()},
            listed_whole=value["listed_whole"],
            warnings=tuple(value["warnings"]),
        )

    def _of(self, standing: Standing) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.standing is standing)

    def _counts(self) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        for member in self.members:
            of_role = counts.setdefault(str(member.role), {})
            of_role[str(member.standing)] = of_role.get(str(member.standing), 0) + 1
        return counts


def in_order(members: Iterable[Member]) -> tuple[Member, ...]:
    """Sort members by role, standing, series and UID, the plan first."""
    return tuple(
        sorted(
            members,
            key=lambda each: (_ORDER[each.role], each.standing, each.series_instance_uid, each.sop_instance_uid),
        )
    )
