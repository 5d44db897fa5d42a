"""The list is asked for again after the transfer, and what came into it meanwhile is retrieved in the same run."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace

import pytest
from pydicom import config
from pynetdicom import evt
from support.archive import ROOT, Archive, rt_image

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import CancelledError, ConfigurationError, QueryError
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.retrieval import listing
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.patience import patient_profile
from airflow_provider_varian.retrieval.recheck import recheck
from airflow_provider_varian.retrieval.request import Expected, RetrievalRequest
from airflow_provider_varian.retrieval.selection import select

STUDY, SERIES = f"{ROOT}.1", f"{ROOT}.1.1"


@pytest.fixture
def clinic(clinic):
    """The same, with little patience for what never comes."""
    run = clinic.run
    clinic.run = lambda request=None, **settings: run(request, **({"settle_seconds": 0.05} | settings))
    return clinic


def uid(number):
    return f"{SERIES}.{number}"


def add(clinic, *new):
    clinic.archive.instances.update({ds.SOPInstanceUID: ds for ds in new})


def add_while_moving(clinic, *new):
    """Let the peer hold new objects once it is asked to move."""

    def on_move():
        clinic.archive.on_move = lambda: None
        add(clinic, *new)

    clinic.archive.on_move = on_move


def late_of(result):
    return [entry.sop_instance_uid for entry in result.manifest.ledger.entries.values() if entry.found_late]


def test_what_appears_during_the_transfer_is_retrieved_in_the_same_run(clinic):
    add_while_moving(clinic, rt_image(6), rt_image(7))
    result = clinic.run()
    assert (result.outcome, result.counts["found"], result.counts["verified"]) == (Outcome.COMPLETE, 7, 7)
    assert late_of(result) == [uid(6), uid(7)]
    assert result.manifest.warnings == []
    assert sorted(clinic.archive.sent) == sorted(uid(number) for number in range(1, 8))
    manifest = json.loads((clinic.root / ".dicom" / "r-1.json").read_text())
    assert [instance["sop_instance_uid"] for instance in manifest["instances"] if instance.get("found_late")] == [
        uid(6),
        uid(7),
    ]


def test_what_appears_and_does_not_come_makes_it_partial(clinic):
    add_while_moving(clinic, rt_image(6))
    clinic.archive.delivers = lambda level, uid_: uid_ != uid(6)
    result = clinic.run()
    assert (result.outcome, result.counts["missing"]) == (Outcome.PARTIAL, 1)
    assert result.manifest.ledger.entries[uid(6)].state is State.MISSING


def test_what_is_missing_is_not_asked_for_again_for_the_sake_of_what_is_late(clinic):
    clinic.archive.delivers = lambda level, uid_: uid_ != uid(3)
    add_while_moving(clinic, rt_image(6))
    result = clinic.run()
    asked = [keys.get("SOPInstanceUID") for _, level, keys in clinic.archive.requests if level == "IMAGE"]
    assert asked == [uid(3), uid(6)]
    assert result.manifest.ledger.entries[uid(3)].attempts == 2


def test_no_round_asks_for_no_list(clinic):
    add_while_moving(clinic, rt_image(6))
    result = clinic.run(recheck_rounds=0)
    assert (clinic.archive.finds, result.counts["found"], result.manifest.warnings) == (1, 5, [])


def test_lists_that_go_on_growing_are_said(clinic):
    numbers = iter(range(6, 60))
    clinic.archive.on_find = lambda: add(clinic, rt_image(next(numbers)))
    result = clinic.run(recheck_rounds=2)
    assert result.outcome is Outcome.COMPLETE
    assert clinic.archive.finds == 3
    assert result.counts["found"] == 8
    assert result.manifest.warnings == ["each of the 2 lists after the transfer named new instances; there may be more"]


def test_a_list_that_begins_to_grow_after_the_transfer_is_said(clinic, monkeypatch):
    monkeypatch.setattr(listing, "MAX_ROUNDS", 3)
    numbers = iter(range(6, 60))

    def on_find():
        if clinic.archive.requests:
            add(clinic, rt_image(next(numbers)))

    clinic.archive.on_find = on_find
    result = clinic.run(stable_counts=2, recheck_rounds=1)
    assert listing.UNSTABLE in result.manifest.warnings


def test_a_list_that_stands_still_is_asked_for_once_more_and_no_more(clinic):
    clinic.run()
    assert clinic.archive.finds == 2


def test_a_rerun_that_finds_all_of_it_held_lists_once(clinic):
    clinic.run()
    clinic.archive.finds = 0
    assert clinic.run().counts["held"] == 5
    assert clinic.archive.finds == 1


@pytest.mark.parametrize("settings", [{"dry_run": True}, {"request": "limit"}], ids=["dry run", "limit"])
def test_there_is_no_recheck_of_a_dry_run_or_of_a_limit_that_was_hit(clinic, settings):
    if settings.get("request"):
        settings = {"request": clinic.series(limit=2)}
    add_while_moving(clinic, rt_image(6))
    clinic.run(**settings)
    assert clinic.archive.finds == 1


def test_a_limit_that_was_not_hit_is_not_exceeded_by_what_is_late(clinic):
    add_while_moving(clinic, rt_image(6), rt_image(7))
    result = clinic.run(clinic.series(limit=6))
    assert (result.outcome, result.counts["found"], len(clinic.archive.sent)) == (Outcome.LIMITED, 6, 6)
    assert result.manifest.request["limited"] is True


@pytest.mark.parametrize(("limit", "outcome"), [(5, Outcome.LIMITED), (6, Outcome.COMPLETE)])
def test_a_selection_with_a_limit_is_put_again_too(clinic, limit, outcome):
    keys = {"PatientID": "QA_TB_WL", "Modality": "RTIMAGE"}
    add_while_moving(clinic, rt_image(6))
    result = clinic.run(select(clinic.peer, "IMAGE", keys, profile=clinic.profile, limit=limit))
    assert (result.outcome, result.counts["found"]) == (outcome, limit)


def test_named_instances_are_not_listed_at_all(clinic):
    clinic.run(clinic.images(1, 2))
    assert clinic.archive.finds == 0


def test_a_caller_may_say_how_to_list_again(clinic):
    relist = lambda: clinic.images(1, 2, 3).expected  # noqa: E731
    result = clinic.run(clinic.images(1, 2, relist=relist))
    assert (result.counts["verified"], late_of(result)) == (3, [uid(3)])


@pytest.mark.parametrize("level", ["IMAGE", "SERIES", "STUDY"])
def test_a_selection_is_put_again_as_it_was_put(clinic, level):
    keys = {"PatientID": "QA_TB_WL", "Modality": "RTIMAGE"}
    other = rt_image(1, study=f"{ROOT}.2", series=f"{ROOT}.2.1")
    add_while_moving(
        clinic, rt_image(6), other, rt_image(1, study=f"{ROOT}.3", series=f"{ROOT}.3.1", patient="SOMEBODY")
    )
    result = clinic.run(select(clinic.peer, level, keys, profile=clinic.profile))
    assert result.outcome is Outcome.COMPLETE
    assert sorted(late_of(result)) == sorted([uid(6), other.SOPInstanceUID])


def test_with_get_the_same(clinic, images):
    with Archive(images, get=True) as running:
        clinic.archive = running
        fresh = rt_image(6)
        running.prepare = lambda ds: running.instances.setdefault(fresh.SOPInstanceUID, fresh) and ds
        result = clinic.run(peer=running.peer(retrieve_method="get"))
    assert (result.outcome, late_of(result)) == (Outcome.COMPLETE, [uid(6)])


def test_a_patients_retrieval_names_the_patient_again(clinic):
    add_while_moving(clinic, rt_image(6))
    result = clinic.run(RetrievalRequest(level=Level.PATIENT, keys={"PatientID": "QA_TB_WL"}))
    assert (result.outcome, late_of(result)) == (Outcome.COMPLETE, [uid(6)])
    assert all(keys["PatientID"] == "QA_TB_WL" for _, _, keys in clinic.archive.requests)


def test_what_is_held_already_is_not_moved_when_it_is_late(clinic):
    clinic.run(clinic.images(1, 2))
    first = clinic.archive.instances.pop(uid(1))
    clinic.archive.sent.clear()
    add_while_moving(clinic, first)
    result = clinic.run(retrieval_id="r-2")
    assert (result.outcome, result.counts["held"], late_of(result)) == (Outcome.COMPLETE, 2, [uid(1)])
    assert uid(1) not in clinic.archive.sent


def test_what_came_unasked_and_is_listed_later_is_expected_then(clinic):
    extra = rt_image(6)
    clinic.archive.extra = [extra]

    def on_move():
        add(clinic, extra)
        clinic.archive.delivers = lambda level, uid_: uid_ != uid(6)

    clinic.archive.on_move = on_move
    clinic.archive.delivers = lambda level, uid_: uid_ != uid(6)
    result = clinic.run()
    assert (result.outcome, result.counts["found"], result.counts["unexpected"]) == (Outcome.COMPLETE, 6, 0)
    # It came in this retrieval: nothing was held before.
    assert (result.counts["held"], late_of(result)) == (0, [uid(6)])
    assert clinic.archive.sent.count(uid(6)) == 1


def test_a_peer_that_is_gone_by_then_spoils_nothing(clinic):
    clinic.archive.on_move = clinic.archive.stop_listening
    result = clinic.run()
    assert (result.outcome, result.error) == (Outcome.COMPLETE, None)
    (warning,) = result.manifest.warnings
    assert warning.startswith("the list could not be asked for again after the transfer, so there may be more: ")


def test_a_transfer_that_broke_off_is_not_rechecked(clinic):
    def die():
        clinic.archive.abort_after = 2
        clinic.archive.stop_listening()

    clinic.archive.on_move = die
    result = clinic.run()
    assert (result.outcome, clinic.archive.finds, result.manifest.warnings) == (Outcome.PARTIAL, 1, [])


def test_a_retry_of_what_was_found_late_keeps_it(clinic):
    add_while_moving(clinic, rt_image(6))
    clinic.archive.delivers = lambda level, uid_: uid_ != uid(6)
    clinic.run()
    del clinic.archive.instances[uid(6)]
    result = clinic.run()
    assert (result.outcome, late_of(result)) == (Outcome.PARTIAL, [uid(6)])


def test_a_cancellation_ends_it():
    def relist():
        raise CancelledError("cancelled")

    with pytest.raises(CancelledError):
        recheck(relist, Ledger(), rounds=3, take=lambda new: None)


def test_each_round_takes_what_is_new_alone():
    account, taken = Ledger([Entry(sop_instance_uid="1.1")]), []
    lists = iter([("1.1", "1.2"), ("1.2", "1.3", "1.3"), ("1.1",)])

    def relist():
        return [Expected(sop_instance_uid=name) for name in next(lists)]

    assert recheck(relist, account, rounds=3, take=lambda new: taken.append([i.sop_instance_uid for i in new])) == (
        (),
        False,
    )
    assert taken == [["1.2"], ["1.3"]]


# Arguments


@pytest.mark.parametrize("rounds", [-1, True, 1.5, "3"])
def test_rounds_that_are_none_are_refused_before_any_network(clinic, rounds):
    with pytest.raises(ConfigurationError, match="recheck_rounds"):
        clinic.run(recheck_rounds=rounds)
    assert clinic.archive.finds == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"stable_counts": 0},
        {"stable_counts": True},
        {"stable_interval_seconds": -1.0},
        {"settle_seconds": float("inf")},
        {"settle_seconds": float("nan")},
    ],
    ids=str,
)
def test_patience_that_is_none_is_refused_before_any_network(clinic, settings):
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        clinic.run(**settings)
    assert clinic.archive.finds == 0


def test_the_profile_waits_as_long_as_the_caller_says(clinic):
    profile = replace(clinic.profile, stable_counts=2, stable_interval_seconds=30.0, settle_seconds=30.0)
    clinic.run(clinic.series(), profile=profile, stable_counts=4, stable_interval_seconds=0.0, recheck_rounds=0)
    assert clinic.archive.finds == 4
    assert patient_profile(profile) == profile
    assert patient_profile(profile, settle_seconds=1.0) == replace(profile, settle_seconds=1.0)


def test_cancelled_while_listing_again_stays_pending(clinic):
    cancellation = Cancellation()

    def second_list():
        if clinic.archive.finds == 2:
            cancellation.cancel()

    clinic.archive.on_find = second_list
    with pytest.raises(CancelledError):
        clinic.run(cancellation=cancellation)
    assert json.loads((clinic.root / ".dicom" / "r-1.json").read_text())["outcome"] == "pending"


def test_an_error_of_the_query_is_told_too():
    def relist():
        raise QueryError("too broad")

    assert recheck(relist, Ledger(), rounds=1, take=lambda new: None).warning.endswith("too broad")


# What is odd about a list


def name_nothing(clinic, bad, when):
    """Let the peer add an answer to its lists that has no usable SOP Instance UID."""
    find = clinic.archive._find

    def spoilt(event):
        last = None
        for status, answer in find(event):
            if answer is None and last is not None and when():
                other = deepcopy(last)
                with config.disable_value_validation():
                    other.SOPInstanceUID = bad
                yield 0xFF00, other
            last = answer if answer is not None else last
            yield status, answer

    clinic.archive._server.bind(evt.EVT_C_FIND, spoilt)


NO_UID = "1 of 6 listed instances have no usable SOP Instance UID: they cannot be retrieved, and are in no count"


@pytest.mark.parametrize("bad", ["", "1.2.x"])
@pytest.mark.parametrize("late", [False, True], ids=["first list", "re-check"])
def test_an_answer_without_a_uid_is_said_and_spoils_nothing(clinic, bad, late):
    name_nothing(clinic, bad, lambda: bool(clinic.archive.requests) is late)
    result = clinic.run()
    assert (result.outcome, result.counts["found"], result.manifest.warnings) == (Outcome.COMPLETE, 5, [NO_UID])
    again = clinic.run()
    assert (again.outcome, again.counts["held"], again.manifest.attempts) == (Outcome.COMPLETE, 5, 2)


@pytest.mark.parametrize("late", [False, True], ids=["selected", "selected again"])
def test_a_selection_with_an_answer_without_a_uid_likewise(clinic, late):
    name_nothing(clinic, "1.2.x", lambda: bool(clinic.archive.requests) is late)
    keys = {"PatientID": "QA_TB_WL", "Modality": "RTIMAGE"}
    result = clinic.run(select(clinic.peer, "IMAGE", keys, profile=clinic.profile))
    assert (result.outcome, result.counts["found"], result.manifest.warnings) == (Outcome.COMPLETE, 5, [NO_UID])


def test_a_callers_list_with_no_uids_is_said_too():
    rechecked = recheck(
        lambda: [Expected(sop_instance_uid=""), Expected(sop_instance_uid="..")],
        account := Ledger(),
        rounds=3,
        take=lambda new: None,
    )
    assert rechecked.warning == NO_UID.replace("1 of 6", "2 of 2")
    assert account.entries == {}


@pytest.mark.parametrize("level", ["IMAGE", "STUDY"])
def test_a_selection_that_does_not_stand_still_when_it_is_put_again_is_said(clinic, monkeypatch, level):
    monkeypatch.setattr(listing, "MAX_ROUNDS", 3)
    numbers = iter(range(2, 60))
    other = rt_image(1, study=f"{ROOT}.2", series=f"{ROOT}.2.1")
    add(clinic, other)

    def on_find():
        if clinic.archive.requests:
            add(clinic, rt_image(next(numbers), study=f"{ROOT}.2", series=f"{ROOT}.2.1"))

    clinic.archive.on_find = on_find
    profile = replace(clinic.profile, stable_counts=2)
    keys = {"PatientID": "QA_TB_WL", "Modality": "RTIMAGE"}
    result = clinic.run(select(clinic.peer, level, keys, profile=profile), recheck_rounds=1)
    assert listing.UNSTABLE in result.manifest.warnings


def test_an_account_that_is_larger_than_the_limit_takes_nothing_more():
    """A peer may name as failed what it did not list, and that is accounted for."""
    ledger = Ledger(Entry(sop_instance_uid=f"1.{number}") for number in (1, 2, 3))
    taken = []
    listed = [Expected(sop_instance_uid=f"1.{number}") for number in range(1, 9)]
    assert recheck(lambda: listed, ledger, rounds=3, take=taken.append, limit=2).limited
    assert (taken, len(ledger.entries)) == ([], 3)
