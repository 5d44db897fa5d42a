"""How a plan set is asked for: few questions, nothing cropped, nothing read that an answer tells."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from support import oracle_data as data
from support.oracle import judge
from support.oracle_data import uid_of, uids_of
from support.plan_sets import said_by, search_of, true_of
from support.simulated import peer_of, trusted

from airflow_provider_varian.aria.plan_set import ALL_ROLES, WEEKLY_ROLES, Completeness, Role, Standing
from airflow_provider_varian.aria.plan_set_resolver import expected_of, resolve_plan_set
from airflow_provider_varian.aria.plans import list_plans
from airflow_provider_varian.aria.profile import ARIA
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import CancelledError, CroppedAnswerError, NotFoundError, QueryError
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.holdings.data_directory import DataDirectory

PATIENT_ID = "$Geheim^42"
QUICK = replace(ARIA, stable_counts=1, stable_interval_seconds=0.0, settle_seconds=0.05)
PLAN, OTHER, CHECK = uid_of("plan"), uid_of("other plan"), uid_of("check")


@pytest.fixture
def patient():
    """The objects of a small patient, by name; a test may change them before it asks."""
    return data.patient()


@pytest.fixture
def serve(patient, tmp_path):
    """Return a function that serves the patient and returns a search, and what the oracle says."""
    running = []

    def start(profile=QUICK, **habits):
        folder = tmp_path / "truth"
        folder.mkdir()
        data.save_all(({**each, "PatientID": PATIENT_ID} for each in patient.values()), folder)
        daemon = SimulatedDaemon(DataDirectory(folder), trusted=[trusted()], behaviour=Behaviour(get=True, **habits))
        running.append(daemon.__enter__())
        return search_of(peer_of(daemon), profile, PATIENT_ID, tmp_path / "got", method="get"), judge(folder)

    yield start
    for daemon in running:
        daemon.__exit__(None, None, None)


def agrees(search, findings, *plans):
    for uid in plans or findings.plans:
        found = search.chart.resolve(uid, wanted=ALL_ROLES)
        assert said_by(found) == true_of(findings.plans[uid], findings)


def test_one_session_and_a_list_per_modality_suffice_for_all_plans_of_a_patient(serve):
    search, findings = serve()
    agrees(search, findings)
    assert search.finding.sessions == 1
    # The series, and the instances of RTPLAN, RTSTRUCT, RTDOSE, RTRECORD, RTIMAGE, REG and CT.
    assert sum(search.finding.queries.values()) == 8


def test_what_answers_tell_is_not_read(serve):
    search, _ = serve()
    search.chart.resolve(PLAN, wanted=ALL_ROLES)
    read = {uid for uid in search.fetcher.got}
    # The stray names no plan, which an answer cannot tell from not being answered; of the planning CT one slice.
    told = uids_of("field 1", "setup", "measured", "predicted", "also shown", "cone 1", "cone 2")
    assert read.isdisjoint(told)
    assert len(read & uids_of(*data.SLICES)) == 1
    assert [part for part, _ in search.fetcher.batches] == ["plans", "references", "series"]


def test_a_weekly_set_needs_no_list_of_what_is_not_wanted(serve):
    search, findings = serve()
    found = search.chart.resolve(PLAN, wanted=WEEKLY_ROLES)
    assert {each.role for each in found.members} == WEEKLY_ROLES
    assert found.completeness is Completeness.COMPLETE
    assert {each.sop_instance_uid for each in found.members_of(Role.IMAGE)} == uids_of(*data.SLICES)
    # The series, RTPLAN, RTSTRUCT and RTDOSE; then, in a second session, the one series that was drawn on.
    assert (search.finding.sessions, sum(search.finding.queries.values())) == (2, 5)
    assert {uid for uid in search.fetcher.got} == {
        *findings.plans, *uids_of("drawn", "whole dose"),
    }  # fmt: skip


#: What is asked of the peer for a role: the list of the series, one of each modality that decides, and for the images
#: that of the series that was drawn on.
ASKED = {
    Role.PLAN: 2,
    Role.STRUCTURE_SET: 3,
    Role.IMAGE: 4,
    Role.PLAN_DOSE: 3,
    Role.BEAM_DOSE: 3,
    Role.RECORD: 3,
    Role.RT_IMAGE: 3,
    Role.DRR: 3,
    # Told by frames of reference, those of the structure sets too: RTPLAN, RTSTRUCT, REG and CT.
    Role.CBCT: 5,
    Role.REGISTRATION: 5,
}


@pytest.mark.parametrize("role", ASKED)
def test_nothing_is_asked_for_that_neither_is_wanted_nor_decides(serve, role):
    search, _ = serve()
    found = search.chart.resolve(PLAN, wanted={role})
    assert said_by(found)["all"] == {PLAN, *(each.sop_instance_uid for each in found.members_of(role))}
    assert found.members_of(role)
    assert sum(search.finding.queries.values()) == ASKED[role]
    drawn = {uid_of("drawn"), uid_of("drawn later")} & search.fetcher.got.keys()
    assert bool(drawn) is (role in (Role.STRUCTURE_SET, Role.IMAGE, Role.CBCT, Role.REGISTRATION))


def test_the_plan_alone_is_not_looked_for_further(serve):
    search, _ = serve()
    found = search.chart.resolve(PLAN, wanted={Role.PLAN})
    assert [each.sop_instance_uid for each in found.members] == [PLAN]
    assert [part for part, count in search.fetcher.batches if count > 1] == []


def test_what_is_not_wanted_is_not_missed(serve, patient):
    for name in ("drawn", "whole dose", "shown", "slice 1"):
        del patient[name]
    patient["first fraction"]["ReferencedImageSequence"] = [data.named("nowhere", "CT")]
    search, _ = serve()
    alone = search.chart.resolve(PLAN, wanted={Role.RECORD})
    assert (alone.completeness, len(alone.members)) == (Completeness.COMPLETE, 3)
    # The plan and its two records, and nothing else was brought here.
    assert [count for _, count in search.fetcher.batches] == [1, 2]
    doses = search.chart.resolve(PLAN, wanted={Role.PLAN_DOSE})
    assert [(each.role, each.sop_instance_uid) for each in doses.missing] == [(Role.PLAN_DOSE, uid_of("whole dose"))]
    images = search.chart.resolve(PLAN, wanted={Role.IMAGE})
    assert [(each.role, each.sop_instance_uid) for each in images.missing] == [(Role.STRUCTURE_SET, uid_of("drawn"))]
    joined = search.chart.resolve(PLAN, wanted={Role.REGISTRATION})
    assert [each.sop_instance_uid for each in joined.missing] == [uid_of("slice 1")]


@pytest.mark.parametrize("wanted", [WEEKLY_ROLES, ALL_ROLES])
def test_scouts_that_slices_name_are_no_gap(serve, patient, wanted):
    for name in (*data.SLICES, *data.CONED):
        patient[name]["ReferencedImageSequence"] = [data.named("scout", "CT")]
    search, _ = serve()
    assert search.chart.resolve(PLAN, wanted=wanted).completeness is Completeness.COMPLETE


def test_images_are_found_without_their_structure_set_being_wanted(serve):
    search, _ = serve()
    found = search.chart.resolve(PLAN, wanted={Role.IMAGE})
    assert {each.sop_instance_uid for each in found.members} == {PLAN, *uids_of(*data.SLICES)}
    drawn = search.chart.resolve(PLAN, wanted={Role.STRUCTURE_SET})
    assert {each.sop_instance_uid for each in drawn.members} == {PLAN, uid_of("drawn")}


def test_a_cbct_that_was_drawn_on_is_a_cbct_where_no_images_are_wanted(serve, patient):
    study = {"ReferencedSOPInstanceUID": "study", "RTReferencedSeriesSequence": [{"SeriesInstanceUID": "cone"}]}
    frame = {"FrameOfReferenceUID": "cone frame", "RTReferencedStudySequence": [study]}
    patient["drawn"]["ReferencedFrameOfReferenceSequence"] = [frame]
    search, _ = serve()
    for role in (Role.CBCT, Role.IMAGE):
        found = search.chart.resolve(PLAN, wanted={role})
        assert {each.sop_instance_uid for each in found.members_of(role)} == uids_of(*data.CONED)
    both = search.chart.resolve(PLAN, wanted={Role.CBCT, Role.IMAGE})
    assert [each.role for each in both.members] == [Role.PLAN, Role.IMAGE, Role.IMAGE]


def test_lists_that_are_too_broad_are_asked_for_in_parts(serve, patient):
    for number in range(30):
        name = f"cone {number} of many"
        patient[name] = data.cone(name, series=f"series {number % 10}") | {"StudyInstanceUID": "second study"}
    # There are 36 series, 26 of them in the first study; and of CT 30 slices in the second study alone.
    search, findings = serve(row_limit=28)
    agrees(search, findings, PLAN)


def test_a_series_that_is_too_broad_by_itself_is_an_error(serve, patient):
    for number in range(30):
        patient[f"cone {number} of many"] = data.cone(f"cone {number} of many")
    search, _ = serve(row_limit=25)
    with pytest.raises(CroppedAnswerError):
        search.chart.resolve(PLAN, wanted=ALL_ROLES)


def test_a_short_answer_is_asked_for_again(serve):
    # Now and then an answer lacks its last rows; a series that the list of series counts is then asked for by itself.
    search, findings = serve(short_answer_probability=0.25, chance_seed=3)
    agrees(search, findings)


def test_where_the_peer_counts_more_than_it_lists_nothing_is_called_complete(serve, monkeypatch):
    search, _ = serve()
    find = FindSession.find

    def counting(session, query, **settings):
        found = find(session, query, **settings)
        for answer in found.answers if query.level is Level.SERIES else ():
            answer["NumberOfSeriesRelatedInstances"] += answer["Modality"] == "RTDOSE"
        return found

    monkeypatch.setattr(FindSession, "find", counting)
    found = search.chart.resolve(PLAN)
    assert (found.completeness, found.listed_whole) == (Completeness.AMBIGUOUS, False)
    assert any("fewer instances than it counts" in each for each in found.warnings)
    # Whoever wants no doses is not concerned.
    assert search.chart.resolve(PLAN, wanted={Role.STRUCTURE_SET}).completeness is Completeness.COMPLETE


def test_a_list_of_series_that_is_short_hides_nothing(serve, monkeypatch):
    search, findings = serve()
    find = FindSession.find

    def short(session, query, **settings):
        found = find(session, query, **settings)
        answers = [each for each in found.answers if each["Modality"] not in ("RTDOSE", "RTSTRUCT", "CT")]
        return replace(found, answers=answers) if query.level is Level.SERIES else found

    monkeypatch.setattr(FindSession, "find", short)
    weekly = search.chart.resolve(PLAN)
    assert weekly.completeness is Completeness.COMPLETE
    assert len(weekly.members_of(Role.IMAGE)) == len(data.SLICES)
    agrees(search, findings)


def test_where_the_peer_does_not_count_a_list_has_to_stand_still(serve):
    profile = replace(QUICK, stable_counts=2)
    search, findings = serve(profile, related_counts=False, short_answer_probability=0.15, chance_seed=5)
    agrees(search, findings, PLAN)
    assert max(search.finding.queries.values()) >= 2


def test_a_plan_that_the_list_lacks_is_looked_for_by_name(serve, monkeypatch):
    search, _ = serve()
    find = FindSession.find

    def short(session, query, **settings):
        found = find(session, query, **settings)
        answers = [each for each in found.answers if each.get("SOPInstanceUID") != PLAN]
        return found if query.get("SOPInstanceUID").values else replace(found, answers=answers)

    monkeypatch.setattr(FindSession, "find", lambda session, query, **settings: (
        find if query.level is Level.SERIES else short
    )(session, query, **settings))  # fmt: skip
    assert search.chart.resolve(PLAN, wanted={Role.PLAN}).completeness is Completeness.COMPLETE


def test_the_flat_key_tells_the_plan_of_a_record(serve, monkeypatch):
    search, _ = serve()
    find = FindSession.find

    def without_sequences(session, query, **settings):
        found = find(session, query, **settings)
        for answer in found.answers:
            answer.pop("ReferencedRTPlanSequence", None)
        return found

    monkeypatch.setattr(FindSession, "find", without_sequences)
    records = search.chart.resolve(PLAN, wanted={Role.RECORD}).members_of(Role.RECORD)
    assert {each.sop_instance_uid for each in records} == uids_of("first fraction", "second fraction")
    assert search.fetcher.batches == [("plans", 1), ("references", 2)]
    # Of another plan they are not, and the answers say so.
    other = search_of(search.finding.peer, QUICK, PATIENT_ID, search.fetcher.root / "other", method="get")
    other.chart.resolve(OTHER, wanted={Role.RECORD})
    assert other.fetcher.batches == [("plans", 1)]


def test_a_plan_is_named_by_its_uid_or_as_it_was_found(serve):
    search, _ = serve()
    with search.finding() as session:
        plans, _ = list_plans(session, PATIENT_ID)
    (plan,) = (each for each in plans if each.sop_instance_uid == PLAN)
    found = resolve_plan_set(search.finding, search.fetcher, plan, patient_id=PATIENT_ID)
    assert found == search.chart.resolve(PLAN)


def test_somebody_has_to_be_named(serve, tmp_path):
    search, _ = serve()
    with pytest.raises(QueryError, match="none is named"):
        resolve_plan_set(search.finding, search.fetcher, PLAN, patient_id=" ")


def test_a_planning_series_that_came_short_is_asked_for_again(serve, patient, monkeypatch):
    names = [f"slice {number}" for number in range(1, 41)]
    drawn = {"SeriesInstanceUID": "scan", "ContourImageSequence": [data.named(name, "CT") for name in names]}
    study = {"ReferencedSOPInstanceUID": "study", "RTReferencedSeriesSequence": [drawn]}
    frame = {"FrameOfReferenceUID": "frame", "RTReferencedStudySequence": [study]}
    patient["drawn"]["ReferencedFrameOfReferenceSequence"] = [frame]
    for name in names:
        patient[name] = data.thing("CT", name, series="scan", FrameOfReferenceUID="frame")
    search, _ = serve()
    find, asked = FindSession.find, []

    def short(session, query, **settings):
        found = find(session, query, **settings)
        asked.append(query)
        first = query.get("SeriesInstanceUID") is not None and query.get("SeriesInstanceUID").values
        if first and sum(1 for each in asked if each.get("SeriesInstanceUID").values) == 1:
            return replace(found, answers=found.answers[:3])
        return found

    monkeypatch.setattr(FindSession, "find", short)
    found = search.chart.resolve(PLAN)
    assert found.completeness is Completeness.COMPLETE
    assert {each.sop_instance_uid for each in found.members_of(Role.IMAGE)} == uids_of(*names)
    assert any("listed less than it has" in each for each in found.warnings)
    # Four by name, and the series once more.
    assert len(asked) <= 5 + 2


def test_what_no_list_told_is_found_by_its_name(serve, patient):
    # Listed as CR, so in no list: the structure set was drawn on it all the same.
    patient["slice 2"]["Modality"] = "CR"
    patient["slice 2"]["SeriesInstanceUID"] = "film"
    search, findings = serve()
    found = search.chart.resolve(PLAN, wanted=ALL_ROLES)
    assert uid_of("slice 2") in {each.sop_instance_uid for each in found.members_of(Role.IMAGE)}
    assert said_by(found) == true_of(findings.plans[PLAN], findings)


def test_a_series_of_another_modality_is_a_planning_series_too(serve, patient):
    for name in data.SLICES:
        patient[name]["Modality"] = "MR"
    search, findings = serve()
    agrees(search, findings, PLAN)


def test_missing_slices_are_not_asked_for_one_by_one(serve, patient):
    for name in data.SLICES:
        del patient[name]
    search, findings = serve()
    found = search.chart.resolve(PLAN, wanted=ALL_ROLES)
    assert {each.sop_instance_uid for each in found.missing} >= uids_of(*data.SLICES)
    # The patient has no such series: nothing was looked for by name.
    assert not any("by PatientID, SOPInstanceUID" in each for each in search.finding.queries)
    assert said_by(found) == true_of(findings.plans[PLAN], findings)


def test_slices_that_are_not_named_are_left_out_and_told(serve, patient):
    patient["slice 4"] = data.thing("CT", "slice 4", series="scan", FrameOfReferenceUID="frame")
    search, _ = serve()
    found = search.chart.resolve(PLAN)
    assert found.unnamed_slices == {uid_of("scan"): (uid_of("slice 4"),)}
    assert uid_of("slice 4") not in {each.sop_instance_uid for each in found.members}
    assert any("not named by the structure set" in each for each in found.warnings)
    assert found.completeness is Completeness.COMPLETE


def test_members_say_how_they_were_found(serve):
    search, _ = serve()
    found = {each.sop_instance_uid: each for each in search.chart.resolve(PLAN, wanted=ALL_ROLES).members}
    drawn, record, shown = (found[uid_of(name)] for name in ("drawn", "first fraction", "shown"))
    assert (drawn.how, drawn.named_by, drawn.through) == ("reference", (PLAN,), ("ReferencedStructureSetSequence",))
    assert (record.how, record.named_by, record.through) == ("query", (), ("ReferencedRTPlanSequence",))
    assert (shown.role, shown.how, shown.beams, shown.kind) == (Role.DRR, "reference", (1,), "drr")
    assert found[uid_of("slice 1")].named_by == (uid_of("drawn"),)
    assert found[uid_of("cone 1")].through == ("ReferencedInstanceSequence",)
    assert found[uid_of("match")].through == ("FrameOfReferenceUID",)


def test_what_is_expected_bears_what_the_peer_said(serve, patient):
    patient["plan"]["ApprovalStatus"] = "APPROVED"
    search, _ = serve()
    found = search.chart.resolve(PLAN)
    expected = {each.sop_instance_uid: each for each in search.chart.expected(found.members)}
    assert expected[PLAN].values["ApprovalStatus"] == found.approval_status == "APPROVED"
    bare = {each.sop_instance_uid: each for each in expected_of(found)}
    assert bare.keys() == expected.keys()
    assert all(
        (each.sop_class_uid, each.series_instance_uid) == (bare[uid].sop_class_uid, bare[uid].series_instance_uid)
        for uid, each in expected.items()
    )
    assert not any(each.values for each in bare.values())


def test_a_plan_that_the_patient_has_not_is_named(serve):
    search, _ = serve()
    with pytest.raises(NotFoundError, match=r"no plan 1\.2\.3") as caught:
        search.chart.resolve("1.2.3")
    assert PATIENT_ID not in str(caught.value)
    with pytest.raises(NotFoundError):
        search.chart.resolve(uid_of("drawn"))


def answered(monkeypatch, name, plan):
    """Let the peer answer of an image that it is of another plan than its file says."""
    find = FindSession.find

    def lying(session, query, **settings):
        found = find(session, query, **settings)
        for answer in found.answers:
            if answer.get("SOPInstanceUID") == uid_of(name):
                answer["ReferencedRTPlanSequence"] = [{"ReferencedSOPInstanceUID": plan}]
        return found

    monkeypatch.setattr(FindSession, "find", lying)


def test_an_image_that_names_another_plan_than_was_answered_is_not_of_the_set(serve, patient, monkeypatch):
    patient["field 1"] = data.image("field 1", data.PORTAL, "other plan", ReferencedBeamNumber=1)
    answered(monkeypatch, "field 1", PLAN)
    search, findings = serve()
    assert uid_of("field 1") in {each.sop_instance_uid for each in search.chart.resolve(PLAN, wanted=ALL_ROLES).members}
    found = search.whole(PLAN)
    assert said_by(found) == true_of(findings.plans[PLAN], findings)
    assert uid_of("field 1") not in {each.sop_instance_uid for each in found.members}
    assert any(each.startswith("1 RT Images") and "do not name it" in each for each in found.warnings)


@pytest.mark.parametrize("name", ["field 1", "also shown"])
def test_what_an_image_names_is_looked_for_when_it_has_come(serve, patient, name):
    patient[name]["ReferencedImageSequence"] = [data.named("nowhere", "CT")]
    search, findings = serve()
    assert search.chart.resolve(PLAN, wanted=ALL_ROLES).completeness is Completeness.COMPLETE
    found = search.whole(PLAN)
    assert [(each.sop_instance_uid, each.named_by) for each in found.missing] == [(uid_of("nowhere"), (uid_of(name),))]
    assert said_by(found) == true_of(findings.plans[PLAN], findings)


def test_what_could_not_be_exported_is_told(serve):
    search, _ = serve()
    refused = uids_of("drawn", "whole dose", "stray")
    fetch = search.fetcher.fetch

    def fetch_most(expected, part):
        got = fetch([each for each in expected if each.sop_instance_uid not in refused], part)
        lost = {each.sop_instance_uid for each in expected} & refused
        return {**got, **{uid: type(next(iter(got.values())))(False, "the peer refused it") for uid in lost}}

    search.fetcher.fetch = fetch_most
    found = search.chart.resolve(PLAN, wanted=ALL_ROLES)
    assert {(each.role, each.reason) for each in found.not_exportable} == {
        (Role.STRUCTURE_SET, "the peer refused it"), (Role.PLAN_DOSE, "the peer refused it"),
    }  # fmt: skip
    assert found.completeness is Completeness.INCOMPLETE
    assert any("images that it was drawn on" in each for each in found.warnings)
    assert any("modality RTIMAGE" in each and each.endswith(": 1") for each in found.warnings)


def test_nobody_is_named_in_logs_and_texts(serve, caplog):
    caplog.set_level(logging.DEBUG)
    search, _ = serve()
    found = search.whole(PLAN)
    assert "Geheim" not in caplog.text + repr(found) + str(found.to_json(with_label=True)) + repr(search.chart)
    assert "Geheim" not in repr(search.chart.expected(found.members))


def test_a_cancelled_search_brings_nothing(serve):
    search, _ = serve()
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(CancelledError):
        resolve_plan_set(search.finding, search.fetcher, PLAN, patient_id=PATIENT_ID, cancellation=cancellation)
    assert search.fetcher.batches == []


def test_a_verification_plan_and_its_plan_know_each_other(serve, patient):
    search, _ = serve()
    assert search.chart.resolve(PLAN, wanted=ALL_ROLES).verified_by == (CHECK,)
    assert search.chart.resolve(CHECK, wanted=ALL_ROLES).verifies == (PLAN,)


def test_what_is_unclear_is_told_with_the_reason(serve, patient):
    for name in ("cone 1", "cone 2"):
        del patient[name]["ReferencedInstanceSequence"]
    search, findings = serve()
    found = search.chart.resolve(OTHER, wanted=ALL_ROLES)
    assert found.completeness is Completeness.AMBIGUOUS
    assert {each.sop_instance_uid for each in found.ambiguous} == uids_of("cone 1", "cone 2", "match")
    assert all(each.standing is Standing.AMBIGUOUS and each.reason for each in found.ambiguous)
    agrees(search, findings)
