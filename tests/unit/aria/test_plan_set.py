"""A plan set as data: verdict, what is judged after a retrieval, and what its JSON tells and does not tell."""

from __future__ import annotations

import json

import pytest

from airflow_provider_varian.aria.plan_set import (
    ALL_ROLES,
    WEEKLY_ROLES,
    Completeness,
    Member,
    PlanSet,
    Role,
    Standing,
    in_order,
)


def member(uid, role=Role.IMAGE, standing=Standing.HELD, **more):
    return Member(sop_instance_uid=uid, role=role, standing=standing, **more)


def plan_set(*members, **more):
    plan = member("1.1", Role.PLAN, series_instance_uid="1.9")
    settings = {"plan_uid": "1.1", "wanted": WEEKLY_ROLES, "label": "Prostata", "course": "C1"} | more
    return PlanSet(members=in_order((*members, plan)), **settings)


@pytest.mark.parametrize(
    ("standings", "verdict"),
    [
        ((), Completeness.COMPLETE),
        ((Standing.HELD,), Completeness.COMPLETE),
        ((Standing.MISSING,), Completeness.INCOMPLETE),
        ((Standing.NOT_EXPORTABLE,), Completeness.INCOMPLETE),
        ((Standing.AMBIGUOUS,), Completeness.AMBIGUOUS),
        ((Standing.AMBIGUOUS, Standing.MISSING), Completeness.INCOMPLETE),
    ],
)
def test_the_verdict_follows_from_the_members(standings, verdict):
    members = (member(f"1.2.{place}", standing=standing) for place, standing in enumerate(standings))
    assert plan_set(*members).completeness is verdict


def test_a_list_that_is_not_whole_is_never_a_complete_set():
    assert plan_set(listed_whole=False).completeness is Completeness.AMBIGUOUS
    missing = member("1.2", standing=Standing.MISSING)
    assert plan_set(missing, listed_whole=False).completeness is Completeness.INCOMPLETE


def test_what_never_came_is_judged():
    found = plan_set(member("1.2"), member("1.3"), member("1.4", standing=Standing.MISSING, reason="gone"))
    judged = found.judged({"1.3": "the peer refuses it", "1.4": "not looked at", "1.7": "not of the set"})
    assert [(each.sop_instance_uid, each.reason) for each in judged.not_exportable] == [("1.3", "the peer refuses it")]
    assert [each.reason for each in judged.missing] == ["gone"]
    assert {each.sop_instance_uid for each in judged.held} == {"1.1", "1.2"}
    assert found.not_exportable == ()


def test_wanted_roles_that_nothing_names_are_absent():
    assert plan_set(member("1.2", Role.STRUCTURE_SET)).absent_roles == (Role.IMAGE, Role.PLAN_DOSE)
    # A dose that is named and not there is missing, which is something else.
    missing = member("1.2", Role.PLAN_DOSE, Standing.MISSING)
    assert plan_set(missing, wanted=frozenset({Role.PLAN, Role.PLAN_DOSE})).absent_roles == ()


def test_the_plan_comes_first_and_then_role_by_role():
    found = plan_set(
        member("1.5", Role.RECORD), member("1.3", series_instance_uid="2"), member("1.4", series_instance_uid="1")
    )
    assert [each.sop_instance_uid for each in found.members] == ["1.1", "1.4", "1.3", "1.5"]
    assert [each.sop_instance_uid for each in found.members_of(Role.RECORD, Role.PLAN)] == ["1.1", "1.5"]


def test_json_tells_label_and_course_only_when_asked():
    found = plan_set()
    quiet = json.dumps(found.to_json())
    assert "Prostata" not in quiet + repr(found)
    assert "C1" not in quiet + repr(found)
    told = found.to_json(with_label=True)
    assert (told["label"], told["course"]) == ("Prostata", "C1")


def test_json_comes_back_as_it_was():
    found = plan_set(
        member("1.2", Role.BEAM_DOSE, beams=(1, 2), named_by=("1.1",), through=("ReferencedDoseSequence",)),
        member("1.3", Role.IMAGE, Standing.MISSING, reason="gone", names="series"),
        member("1.6", Role.RT_IMAGE, how="query", kind="portal"),
        wanted=ALL_ROLES,
        approval_status="APPROVED",
        verifies=("1.7",),
        verified_by=("1.8",),
        unnamed_slices={"1.9": ("1.10", "1.11")},
        listed_whole=False,
        warnings=("careful",),
    )
    again = PlanSet.from_json(json.loads(json.dumps(found.to_json(with_label=True))))
    assert again == found
    counts = found.to_json()["counts"]
    assert counts == {"plan": {"held": 1}, "image": {"missing": 1}, "beam_dose": {"held": 1}, "rt_image": {"held": 1}}


def test_each_role_has_a_folder():
    assert {role.folder for role in WEEKLY_ROLES} == {"RTPLAN", "RTSTRUCT", "CT", "RTDOSE"}
    assert {role.folder for role in Role} >= {"RTRECORD", "REG", "CBCT", "RTIMAGE", "DRR"}
