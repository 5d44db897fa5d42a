"""Finding a plan set: from a plan to all that belongs to it, across all studies of the patient.

The references inside the objects come first, a query where there is none (varian-daemon 3, "How plan sets are put
together"). What the peer's answers tell is taken from them: they can carry the plan of a dose, a record or an image
(1.3). What they leave open is decided by the object (semantics 12), which is brought here in batches: the plans; then
structure sets, registrations, and the doses and records of the plan; then, of a series of CT of which no answer says
for which plan it was made, one image. The peer's answers are not to be trusted for ever: when a whole set is brought
here, the RT Images that only answers told of are looked into as well (:meth:`PatientChart.gather`).

Nothing is listed or read that is not wanted, but what decides over something that is:

- *Structure sets* are listed and read for images, which they alone name, and for CBCTs and registrations, which are
  told by Frames of Reference: a plan's frames are those of its structure set too, and a series that was drawn on is no
  CBCT.
- *The patient's other plans* are read for doses, RT Images, CBCTs and registrations: a plan that names another plan's
  dose or image makes it unclear whose it is (PS3.3 C.8.8.3, C.8.8.2), and a plan in the same frame may have made the
  same registration.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Final

from airflow_provider_varian.aria.plan_set import (
    WEEKLY_ROLES,
    Member,
    PlanSet,
    Role,
    Standing,
    in_order,
)
from airflow_provider_varian.aria.plan_set_fetcher import Fetcher
from airflow_provider_varian.aria.plan_set_members import (
    PlanningImages,
    held_members,
    is_looked_for,
    missing_members,
    role_of,
)
from airflow_provider_varian.aria.plan_set_rules import Belongings, plans_of_image
from airflow_provider_varian.aria.plan_set_search import Finder, PatientLists
from airflow_provider_varian.aria.plans import PlanRef
from airflow_provider_varian.aria.references import DOSE, PLAN, STRUCTURE_SET, Reference, References, references_of
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import NotFoundError
from airflow_provider_varian.retrieval.request import Expected

__all__ = ["Finder", "PatientChart", "expected_of", "open_chart", "resolve_plan_set"]

_STEP: Final = "plan set"
_DOSES: Final = frozenset({Role.PLAN_DOSE, Role.BEAM_DOSE, Role.OTHER_DOSE})
_IMAGES: Final = frozenset({Role.RT_IMAGE, Role.DRR})
_SLICES: Final = frozenset({Role.IMAGE, Role.CBCT})
_DRAWN: Final = frozenset({Role.STRUCTURE_SET, Role.IMAGE})
#: What is joined by frames of reference: neither can be told without the other.
_JOINED: Final = frozenset({Role.CBCT, Role.REGISTRATION})
#: Whose plan may be another one than they seem to be of: other plans may name them, or share a frame with them.
_SHARED: Final = _DOSES | _IMAGES | _JOINED


def resolve_plan_set(
    finder: Finder,
    fetcher: Fetcher,
    plan: PlanRef | str,
    *,
    patient_id: str,
    wanted: Collection[Role] = WEEKLY_ROLES,
    cancellation: Cancellation | None = None,
) -> PlanSet:
    """Find what belongs to one plan; see :meth:`PatientChart.resolve`, which several plans of a patient can share."""
    return open_chart(finder, fetcher, patient_id=patient_id, cancellation=cancellation).resolve(plan, wanted=wanted)


def open_chart(
    finder: Finder, fetcher: Fetcher, *, patient_id: str, cancellation: Cancellation | None = None
) -> PatientChart:
    """Return what plan sets of a patient are found with; nothing is asked yet.

    :param finder: opens a session with the peer; called when there is something to ask.
    :param fetcher: brings objects here.
    :param patient_id: Patient ID, exact.
    :param cancellation: stops it from outside, between two steps.
    :raises QueryError: when no patient is named.
    """
    return PatientChart(finder, fetcher, patient_id=patient_id, cancellation=cancellation)


def expected_of(plan_set: PlanSet) -> tuple[Expected, ...]:
    """Return what to retrieve of a plan set: its members that are held, by their UIDs alone."""
    return tuple(
        Expected(
            sop_instance_uid=member.sop_instance_uid,
            sop_class_uid=member.sop_class_uid,
            study_instance_uid=member.study_instance_uid,
            series_instance_uid=member.series_instance_uid,
        )
        for member in plan_set.held
    )


class PatientChart:
    """What is known of a patient's objects, as it is needed: lists, and what the objects that were read name.

    :param finder: see :func:`open_chart`, as all others.
    """

    def __init__(
        self, finder: Finder, fetcher: Fetcher, *, patient_id: str, cancellation: Cancellation | None = None
    ) -> None:
        self._fetcher = fetcher
        self._cancellation = cancellation or Cancellation()
        self._lists = PatientLists(finder, patient_id, cancellation=self._cancellation)
        self._answered: dict[str, References] = {}
        self._read: dict[str, References] = {}
        self._failed: dict[str, str] = {}

    def resolve(self, plan: PlanRef | str, *, wanted: Collection[Role] = WEEKLY_ROLES) -> PlanSet:
        """Find what belongs to a plan, and say what is missing and what is unclear.

        A member is ``held`` when the peer lists it. That it can be exported shows when it is retrieved:
        :meth:`~airflow_provider_varian.aria.plan_set.PlanSet.judged` takes that in.

        :param plan: its SOP Instance UID, or the plan as it was found.
        :param wanted: what to look for; the plan itself always is.
        :raises NotFoundError: the patient has no such plan.
        :raises CroppedAnswerError: the peer does not list even a single series whole.
        :raises DicomError: of the peer, or of the retrieval as a whole.
        """
        uid = plan if isinstance(plan, str) else plan.sop_instance_uid
        roles = frozenset(wanted) | {Role.PLAN}
        self._lists.need(*_modalities(roles))
        # It may have been missed by a list that came short.
        self._lists.look_for([uid])
        if self._modality(uid) != "RTPLAN":
            raise NotFoundError(
                f"the patient has no plan {uid}",
                step=_STEP,
                hint="Look whether the plan was deleted in ARIA, or belongs to another patient",
            )
        while True:
            listed = len(self._lists.answers)
            found = self._resolved(uid, roles)
            # The planning series are listed when the structure set has named them; and what was found by its name may
            # belong to the plan, and name more.
            if len(self._lists.answers) == listed:
                return found

    def _resolved(self, uid: str, roles: frozenset[Role]) -> PlanSet:
        self._fetch(self._of("RTPLAN") if roles & _SHARED else [uid], "plans")
        if uid not in self._read:
            warning = "the plan cannot be exported, so what it names is not known; what names it was not looked for"
            return self._plan_set(uid, roles, [self._bare(uid)], warnings=[*self._lists.warnings, warning])
        own = self._read[uid]
        self._fetch(self._telling(own, roles), "references")
        if roles & _JOINED:
            self._fetch(self._first_slices(), "series")
        belongings = self._belongings()
        if roles & _JOINED and _is_open(belongings):
            self._fetch(self._of("RTSTRUCT"), "structure-sets")
            belongings = self._belongings()
        return self._judged(own, roles, belongings)

    def gather(self, plan: PlanRef | str, *, wanted: Collection[Role] = WEEKLY_ROLES) -> PlanSet:
        """Find what belongs to a plan, bring all of it here, and let what came have the last word.

        RT Images and DRRs are found by what the peer answers of them. Here they are looked into: one that names another
        plan than was answered is not of the set, and what it names is looked for. Slices name nothing that decides.

        :return: as :meth:`resolve` does; the caller's own fetcher knows what has come.
        :raises DicomError: as :meth:`resolve`.
        """
        listed: dict[str, None] = {}
        while True:
            found = self.resolve(plan, wanted=wanted)
            got = self._fetcher.fetch(self.expected(found.held), "plan-set") if found.held else {}
            images = (each.sop_instance_uid for each in found.held if each.role in _IMAGES)
            told = [uid for uid in images if uid not in self._read and got[uid].is_here]
            if not told:
                break
            listed |= dict.fromkeys(told)
            self._read |= {uid: references_of(self._fetcher.read(uid)) for uid in told}
        here = {each.sop_instance_uid for each in found.members}
        if left_out := [uid for uid in listed if uid not in here]:
            words = f"{len(left_out)} RT Images are the plan's by what the peer answers, and do not name it: left out"
            return replace(found, warnings=(*found.warnings, words))
        return found

    def expected(self, members: Iterable[Member]) -> tuple[Expected, ...]:
        """Return what to retrieve of members that are listed, with what the peer said of each."""
        known = (member.sop_instance_uid for member in members if member.sop_instance_uid in self._lists.answers)
        return tuple(self._lists.expected(known))

    # What there is ------------------------------------------------------------------------------

    def _answer(self, uid: str) -> References:
        """Return what the peer said of an object."""
        known = self._answered.get(uid)
        if known is None:
            answer = self._lists.answers[uid]
            known = references_of(answer)
            flat = str(answer.get("ReferencedSOPInstanceUID") or "")
            if known.modality == "RTRECORD" and not known.plans and self._modality(flat) == "RTPLAN":
                known = replace(known, links=known.links | {Reference(uid=flat, path=(PLAN,))})
            self._answered[uid] = known
        return known

    def _known(self, uid: str) -> References:
        return self._read.get(uid) or self._answer(uid)

    def _modality(self, uid: str) -> str:
        return str(self._lists.answers.get(uid, {}).get("Modality") or "").strip()

    def _of(self, modality: str) -> list[str]:
        return [uid for uid in self._lists.answers if self._modality(uid) == modality]

    def _objects(self) -> dict[str, References]:
        """Return all that is listed. A plan or registration that could not be read tells nothing, and is left out."""
        told = ((uid, self._known(uid)) for uid in self._lists.answers)
        return {uid: each for uid, each in told if uid in self._read or each.modality not in ("RTPLAN", "REG")}

    def _belongings(self) -> Belongings:
        return Belongings(self._objects())

    def _fetch(self, uids: Iterable[str], part: str) -> None:
        """Bring objects here, in one batch, and read what they name."""
        wanted = [uid for uid in dict.fromkeys(uids) if uid not in self._read and uid not in self._failed]
        if not wanted:
            return
        self._cancellation.raise_if_cancelled()
        got = self._fetcher.fetch(self._lists.expected(wanted), part)
        for uid in wanted:
            found = got.get(uid)
            if found is not None and found.is_here:
                self._read[uid] = references_of(self._fetcher.read(uid))
            else:
                self._failed[uid] = found.reason if found is not None and found.reason else "it was not received"

    # What has to be read ------------------------------------------------------------------------

    def _telling(self, plan: References, roles: frozenset[Role]) -> Iterator[str]:
        """Yield what has to be read to know what belongs to a plan, and what that names in turn."""
        uid = plan.sop_instance_uid
        named = {link.uid for link in plan.links if link.through in (DOSE, STRUCTURE_SET)}
        if roles & (_DRAWN | _JOINED):
            yield from (each for each in self._of("RTSTRUCT") if each in named)
        if roles & _JOINED:
            yield from self._of("REG")
        for each in self._of("RTDOSE") if roles & _DOSES else ():
            said = self._answer(each)
            is_told = bool(said.plans and said.summation)
            if not is_told or (role_of(said) in roles and (each in named or uid in said.plans)):
                yield each
        for each in self._of("RTRECORD") if Role.RECORD in roles else ():
            said = self._answer(each)
            if uid in said.plans or not said.plans:
                yield each
        for each in self._of("RTIMAGE") if roles & _IMAGES else ():
            said = self._answer(each)
            if not (said.plans and said.image_type):
                yield each

    def _first_slices(self) -> Iterator[str]:
        """Yield one image of each series of CT of which no answer names a plan."""
        series: dict[str, list[References]] = {}
        for uid in self._of("CT"):
            known = self._known(uid)
            series.setdefault(known.series_instance_uid, []).append(known)
        for slices in series.values():
            is_told = any(each.sop_instance_uid in self._read or plans_of_image(each) for each in slices)
            if not is_told:
                yield slices[0].sop_instance_uid

    # The verdict --------------------------------------------------------------------------------

    def _judged(self, plan: References, roles: frozenset[Role], belongings: Belongings) -> PlanSet:
        structure_sets = [self._known(uid) for uid in sorted(belongings.structure_sets_of(plan))]
        images = PlanningImages.of(structure_sets, belongings.objects)
        members = {each.sop_instance_uid: each for each in held_members(plan, belongings)}
        if Role.IMAGE in roles:
            members |= {each.sop_instance_uid: each for each in images.members(belongings.objects)}
        # What may be another plan's has no say in what this one lacks, nor have slices: they name the scout that they
        # were planned on, which nobody keeps.
        mine = [each for each in members.values() if each.standing is Standing.HELD and each.role in roles - _SLICES]
        namers = [self._known(each.sop_instance_uid) for each in mine]
        if Role.IMAGE in roles and Role.STRUCTURE_SET not in roles:
            namers += structure_sets
        missing = self._missing(namers, roles)
        found = [each for each in missing_members(namers, missing) if each.sop_instance_uid not in members]
        warnings = [*self._lists.warnings, *self._words(members, roles, structure_sets, images)]
        wanted = [each for each in members.values() if each.role in roles]
        made = self._plan_set(plan.sop_instance_uid, roles, [*wanted, *found], warnings=warnings)
        return replace(
            made,
            verifies=tuple(sorted(plan.verifies)),
            verified_by=tuple(
                sorted(uid for uid, each in belongings.plans.items() if plan.sop_instance_uid in each.verifies)
            ),
            unnamed_slices=images.unnamed if Role.IMAGE in roles else {},
        )

    def _missing(self, namers: Iterable[References], roles: frozenset[Role]) -> set[str]:
        """Return the UIDs that members name and that the patient has not, after a look for them by name."""
        links = [link for each in namers for link in each.links if is_looked_for(link, roles)]
        series_of = {link.uid: link.series_uid for link in links if link.series_uid}
        self._lists.need_series(set(series_of.values()))
        series = self._lists.series
        gone = {uid for uid, each in series_of.items() if each not in series}
        open_ = {link.uid for link in links if link.names == "instance" and link.uid not in self._lists.answers}
        self._lists.look_for(sorted(open_ - gone))
        studies = {row.study_instance_uid for row in series.values()}
        held = {"instance": self._lists.answers.keys(), "series": series.keys(), "study": studies}
        return {link.uid for link in links if link.uid not in held[link.names]}

    def _words(
        self,
        members: Collection[str],
        roles: frozenset[Role],
        structure_sets: list[References],
        images: PlanningImages,
    ) -> Iterator[str]:
        for modality in ("RTDOSE", "RTRECORD", "RTIMAGE", "REG", "CT"):
            unread = sum(1 for uid in self._of(modality) if uid in self._failed and uid not in members)
            if unread:
                yield f"objects of modality {modality} that cannot be exported, and whose plan is not known: {unread}"
        if Role.IMAGE not in roles:
            return
        if any(each.sop_instance_uid not in self._read for each in structure_sets):
            yield "the structure set cannot be exported, so the images that it was drawn on are not known"
        left_out = sum(map(len, images.unnamed.values()))
        if left_out:
            yield f"{left_out} slices of the planning series are there and not named by the structure set: left out"
        if images.elsewhere:
            yield f"{len(images.elsewhere)} slices lie in another frame of reference than the structure set"

    def _bare(self, uid: str) -> Member:
        (member,) = held_members(self._answer(uid), Belongings({}))
        return member

    def _plan_set(
        self, uid: str, roles: frozenset[Role], members: Iterable[Member], *, warnings: Iterable[str]
    ) -> PlanSet:
        answer = self._lists.answers[uid]
        made = PlanSet(
            plan_uid=uid,
            wanted=roles,
            members=in_order(members),
            label=str(answer.get("RTPlanLabel") or "").strip(),
            course=str(answer.get("StudyID") or "").strip(),
            approval_status=str(answer.get("ApprovalStatus") or "").strip(),
            listed_whole=self._lists.is_whole(_modalities(roles)),
            warnings=tuple(dict.fromkeys(warnings)),
        )
        return made.judged(self._failed)


def _modalities(roles: frozenset[Role]) -> list[str]:
    """Return of which modalities a list is needed to find some roles; planning images are found by their series."""
    modalities = ["RTPLAN"]
    modalities += ["RTSTRUCT"] if roles & (_DRAWN | _JOINED) else []
    modalities += ["RTDOSE"] if roles & _DOSES else []
    modalities += ["RTRECORD"] if Role.RECORD in roles else []
    modalities += ["RTIMAGE"] if roles & _IMAGES else []
    return [*modalities, "REG", "CT"] if roles & _JOINED else modalities


def _is_open(belongings: Belongings) -> bool:
    """Say whether frames of reference alone decide over something: then all structure sets have a say."""
    registrations = (uid for uid, each in belongings.objects.items() if each.modality == "REG")
    return bool(belongings.loose_series) or any(uid not in belongings.owners for uid in registrations)
