"""C-MOVE to a third party without proof: what the peer reports of each instance, and no more."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from io import BytesIO

import pytest
from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_MOVE
from pynetdicom.dsutils import encode
from support.archive import ROOT, Archive, rt_image
from support.ports import free_port

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import (
    CancelledError,
    ConfigurationError,
    OutOfResourcesError,
    PeerFailureError,
    PeerTimeoutError,
    UnknownMoveDestinationError,
)
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.retrieval.listing import UNSTABLE
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.retrieval.third_party import move_to_third_party

PROFILE = Profile(name="plain", relational_queries=True, stable_counts=1, stable_interval_seconds=0.0)
SERIES = RetrievalRequest(level=Level.SERIES, keys={"SeriesInstanceUID": rt_image(1).SeriesInstanceUID})
UIDS = [f"{ROOT}.1.1.{number}" for number in range(3)]


@pytest.fixture
def source():
    with Archive([rt_image(n) for n in range(3)]) as running:
        running.destinations["RESEARCH"] = ("127.0.0.1", free_port())
        running.store = lambda instances, **_: running.sent.extend(str(ds.SOPInstanceUID) for ds in instances)
        yield running


@pytest.fixture
def send(source, tmp_path):
    """Move with a manifest below ``tmp_path``."""

    def run(request=SERIES, **settings):
        defaults = {"destination": "RESEARCH", "profile": PROFILE, "manifest_root": tmp_path, "retrieval_id": "m-1"}
        return move_to_third_party(settings.pop("peer", source.peer()), request, **(defaults | settings))

    return run


def answering(source, respond):
    """Let the source answer a C-MOVE by what ``respond(uids asked for)`` says: status, counts and failed UIDs."""

    def answer(assoc, request, context_id, *_, **__):
        status, counts, failed = respond(source.requests[-1])
        response = C_MOVE()
        response.MessageIDBeingRespondedTo = request.MessageID
        response.AffectedSOPClassUID = request.AffectedSOPClassUID
        response.Status = status
        for name, count in counts.items():
            setattr(response, f"NumberOf{name.capitalize()}Suboperations", count)
        if failed:
            identifier = Dataset()
            identifier.FailedSOPInstanceUIDList = failed
            response.Identifier = BytesIO(encode(identifier, True, True))
        assoc.dimse.send_msg(response, context_id)

    source.pending = False
    source._respond = answer


def states(result):
    return [entry.state for entry in result.manifest.ledger.entries.values()]


def test_what_the_peer_reports_is_reported(source, send, tmp_path):
    seen = []
    result = send(on_change=lambda manifest: seen.append(manifest.outcome))
    assert result.outcome is Outcome.REPORTED
    assert (result.completed, result.failed) == (3, 0)
    assert states(result) == [State.REPORTED] * 3
    assert len(source.sent) == 3
    assert (seen[0], seen[-1]) == (Outcome.PENDING, Outcome.REPORTED)
    written = json.loads((tmp_path / ".dicom" / "m-1.json").read_text())
    assert written["request"]["move_destination"] == "RESEARCH"
    assert (written["outcome"], written["counts"]["found"], written["counts"]["reported"]) == ("reported", 3, 3)
    assert written["message"] == "3 of 3 instances reported as sent to RESEARCH"
    assert not list(tmp_path.rglob("*.dcm"))


def test_without_a_place_for_it_no_manifest_is_written_and_the_result_says_the_same(send, tmp_path):
    seen = []
    result = send(manifest_root=None, retrieval_id="", on_change=seen.append)
    told = result.to_json()
    assert (told["outcome"], told["manifest"], told["counts"]["reported"]) == ("reported", None, 3)
    assert (seen, list(tmp_path.rglob("*"))) == ([], [])


def test_an_unknown_destination_is_an_error(send):
    hint = "Enter NOBODY with its own address and port under Trusted Application Entities"
    with pytest.raises(UnknownMoveDestinationError, match=hint):
        send(destination="NOBODY")


def test_a_peer_that_is_silent_while_it_sends_is_waited_for(source, send):
    source.pending = False
    source.on_move = lambda: time.sleep(5)
    result = send(peer=source.peer(dimse_timeout=3, network_timeout=3))
    assert (result.outcome, result.completed) == (Outcome.REPORTED, 3)


def test_the_deadline_ends_the_wait_for_a_silent_peer(source, send):
    judged = threading.Event()
    source.on_move = lambda: judged.wait(30)
    try:
        with pytest.raises(PeerTimeoutError, match="takes longer than 4 s"):
            send(peer=source.peer(retrieve_deadline=4.0, dimse_timeout=3))
    finally:
        judged.set()


def test_nothing_to_send_is_empty_and_asks_nobody(source, send, tmp_path):
    result = send(RetrievalRequest(level=Level.SERIES, expected=()))
    assert (result.outcome, source.requests, source.finds) == (Outcome.EMPTY, [], 0)
    assert json.loads((tmp_path / ".dicom" / "m-1.json").read_text())["outcome"] == "empty"


def test_a_series_without_instances_is_empty_and_moves_nothing(source, send):
    source.instances.clear()
    result = send()
    assert (result.outcome, source.requests) == (Outcome.EMPTY, [])


def test_fewer_than_must_exist_are_short(send):
    assert send(replace(SERIES, minimum=4)).outcome is Outcome.SHORT
    assert send(replace(SERIES, minimum=3), retrieval_id="m-2").outcome is Outcome.REPORTED


def test_a_limit_that_was_hit_is_said(source, send):
    result = send(replace(SERIES, limit=2))
    assert (result.outcome, len(source.sent)) == (Outcome.LIMITED, 2)


def test_a_limit_that_the_list_outgrows_while_it_is_moved_is_said(source, send):
    late = rt_image(7)
    source.on_move = lambda: source.instances.setdefault(late.SOPInstanceUID, late)
    result = send(replace(SERIES, limit=3))
    assert (result.outcome, result.manifest.request["limited"], len(source.sent)) == (Outcome.LIMITED, True, 3)


def test_a_list_that_does_not_stand_still_afterwards_is_said(source, send):
    def grow():
        if source.requests:
            late = rt_image(100 + source.finds)
            source.instances[late.SOPInstanceUID] = late

    source.on_find = grow
    result = send(profile=replace(PROFILE, stable_counts=2), recheck_rounds=1)
    assert UNSTABLE in result.manifest.warnings


def test_what_to_know_of_the_selection_is_logged_and_written_down(send, caplog):
    result = send(replace(SERIES, warnings=("500 answers are a round number",)))
    assert "500 answers are a round number" in caplog.text
    assert result.manifest.warnings == ["500 answers are a round number"]


def test_a_failure_with_nothing_sent_is_an_error(source, send):
    source.move_status = 0xC001
    with pytest.raises(PeerFailureError):
        send()


def test_a_destination_that_cannot_be_reached_is_not_asked_for_one_by_one(source, send):
    source.move_status = 0xA702
    with pytest.raises(OutOfResourcesError, match="Check that RESEARCH runs"):
        send()
    assert source.asked("C-MOVE") == ["SERIES"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"destination": "X" * 17}, "AE title"),
        ({"retrieval_id": ""}, "ID"),
        ({"settle_seconds": -1.0}, "settle_seconds"),
        ({"recheck_rounds": -1}, "recheck_rounds"),
    ],
)
def test_wrong_arguments_are_refused_before_any_network(source, send, settings, words):
    with pytest.raises(ConfigurationError, match=words):
        send(**settings)
    assert (source.requests, source.finds) == ([], 0)


@pytest.mark.parametrize("count", [1, 2])
def test_instances_that_the_peer_names_as_failed_are_missing_although_it_counts_nothing(source, send, count):
    named = UIDS[:count]
    answering(source, lambda asked: (0xB000, {}, [uid for uid in named if uid in wanted(source, asked)]))
    result = send()
    assert (result.outcome, result.completed, result.failed) == (Outcome.PARTIAL, None, None)
    assert result.missing == tuple(named)
    entry = result.manifest.ledger.entries[named[0]]
    assert "the peer names it as failed" in entry.reason
    assert "0xB000" in entry.reason
    assert result.manifest.requests[0].failed_sop_instance_uids == named
    assert named[0] in result.manifest.message


def test_an_instance_that_is_named_as_failed_and_was_not_listed_counts_too(source, send):
    late = f"{ROOT}.1.1.99"
    answering(source, lambda asked: (0xB000, {}, [late]) if asked[1] == "SERIES" else (0x0000, {}, []))
    result = send()
    # Asked for again by name, the peer sends it.
    assert source.asked("C-MOVE") == ["SERIES", "IMAGE"]
    assert (result.outcome, result.counts["found"], result.counts["reported"]) == (Outcome.REPORTED, 4, 4)


def wanted(source, asked):
    """Return the SOP Instance UIDs that a request asks for."""
    uids = asked[2].get("SOPInstanceUID") or list(source.instances)
    return {uids} if isinstance(uids, str) else {str(uid) for uid in uids}


@pytest.mark.parametrize(
    ("counts", "again"),
    [
        ({"completed": 3, "failed": 0, "warning": 0}, False),
        ({"completed": 2, "failed": 0, "warning": 1}, False),
        ({}, False),
        ({"completed": 2, "failed": 0, "warning": 0}, True),
        ({"completed": 0, "failed": 0, "warning": 0}, True),
        ({"completed": 3, "failed": 1, "warning": 0}, True),
        ({"failed": 1}, True),
    ],
    ids=str,
)
def test_a_success_is_believed_only_as_far_as_its_counts_go(source, send, counts, again):
    def respond(asked):
        if asked[1] == "SERIES":
            return 0x0000, counts, []
        return 0x0000, {"completed": len(wanted(source, asked)), "failed": 0, "warning": 0}, []

    answering(source, respond)
    result = send()
    assert source.asked("C-MOVE") == (["SERIES", "IMAGE"] if again else ["SERIES"])
    assert result.outcome is Outcome.REPORTED
    assert bool(result.manifest.fallbacks) is again


def test_counts_that_never_suffice_end_as_partial_after_each_was_asked_for_alone(source, send):
    answering(source, lambda _: (0x0000, {"completed": 0, "failed": 0, "warning": 0}, []))
    result = send()
    assert source.asked("C-MOVE") == ["SERIES", "IMAGE", "IMAGE", "IMAGE", "IMAGE"]
    assert (result.outcome, result.missing) == (Outcome.PARTIAL, tuple(UIDS))
    entry = result.manifest.ledger.entries[UIDS[0]]
    assert entry.reason.startswith("asked for 3 times, the peer reports 0 of 1 as sent: ")


def test_a_lost_association_costs_one_request(source, send):
    source.abort_after = 1
    result = send()
    assert (result.outcome, source.asked("C-MOVE")) == (Outcome.REPORTED, ["SERIES", "IMAGE"])


def test_what_was_reported_is_not_moved_again(source, send):
    send()
    again = send()
    assert (again.outcome, again.counts["held"], again.manifest.attempts) == (Outcome.REPORTED, 3, 2)
    assert source.asked("C-MOVE") == ["SERIES"]


def test_a_retry_asks_for_what_is_missing_alone(source, send):
    lost = UIDS[1]
    answering(source, lambda asked: (0xB000, {}, [lost] if lost in wanted(source, asked) else []))
    assert send().outcome is Outcome.PARTIAL
    source.requests.clear()
    answering(source, lambda asked: (0x0000, {"completed": len(wanted(source, asked))}, []))
    assert send().outcome is Outcome.REPORTED
    ((_, level, keys),) = source.requests
    assert (level, str(keys["SOPInstanceUID"])) == ("IMAGE", lost)


def test_a_plan_that_was_reported_goes_out_again_once_the_move_is_finished(source, send):
    plan = rt_image(2, SOPClassUID=uids.RT_PLAN)
    source.instances[plan.SOPInstanceUID] = plan
    lost = UIDS[1]
    answering(source, lambda asked: (0xB000, {}, [lost] if lost in wanted(source, asked) else []))
    assert send().outcome is Outcome.PARTIAL
    source.requests.clear()
    answering(source, lambda asked: (0x0000, {"completed": len(wanted(source, asked))}, []))
    assert send().outcome is Outcome.REPORTED
    assert [wanted(source, asked) for asked in source.requests] == [{lost}]
    # Finished by now: the plan may have been changed since, the images were not.
    source.requests.clear()
    assert send().outcome is Outcome.REPORTED
    assert [wanted(source, asked) for asked in source.requests] == [{plan.SOPInstanceUID}]


def test_what_went_to_somebody_else_is_other_work(source, send):
    source.destinations["OTHER"] = source.destinations["RESEARCH"]
    send()
    result = send(destination="OTHER")
    assert (result.manifest.attempts, result.counts["held"], len(source.sent)) == (1, 0, 6)


def test_what_the_list_names_afterwards_is_moved_in_the_same_run(source, send):
    late = rt_image(7)
    source.on_move = lambda: source.instances.setdefault(late.SOPInstanceUID, late)
    result = send()
    assert (result.outcome, result.counts["found"], result.counts["reported"]) == (Outcome.REPORTED, 4, 4)
    assert result.manifest.ledger.entries[late.SOPInstanceUID].found_late
    assert send(retrieval_id="m-2", recheck_rounds=0).counts["found"] == 4


def test_a_cancelled_move_stays_pending_and_tells_what_was_reported(source, send, tmp_path):
    cancellation, moved = Cancellation(), []

    def second():
        moved.append(1)
        if len(moved) == 2:
            cancellation.cancel()

    source.on_move = second
    with pytest.raises(CancelledError):
        send(profile=replace(PROFILE, uid_lists=False), request=by_image(), cancellation=cancellation)
    written = json.loads((tmp_path / ".dicom" / "m-1.json").read_text())
    assert (written["outcome"], written["message"]) == ("pending", "cancelled")
    assert [entry["state"] for entry in written["instances"]] == ["reported", "found", "found"]
    source.on_move = lambda: None
    source.requests.clear()
    assert send(profile=replace(PROFILE, uid_lists=False), request=by_image()).outcome is Outcome.REPORTED
    assert len(source.requests) == 2


def by_image():
    keys = {"SeriesInstanceUID": rt_image(1).SeriesInstanceUID, "SOPInstanceUID": UIDS}
    return RetrievalRequest(level=Level.IMAGE, keys=keys)
