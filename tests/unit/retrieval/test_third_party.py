"""C-MOVE to a third party: what the peer reports, and no more."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from io import BytesIO

import pytest
from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_MOVE
from pynetdicom.dsutils import encode
from support.archive import Archive, rt_image
from support.ports import free_port

from airflow_provider_varian.errors import (
    ConfigurationError,
    PeerFailureError,
    PeerTimeoutError,
    UnknownMoveDestinationError,
)
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.retrieval.outcome import Outcome
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.retrieval.third_party import move_to_third_party

PROFILE = Profile(name="plain")
SERIES = RetrievalRequest(level=Level.SERIES, keys={"SeriesInstanceUID": rt_image(1).SeriesInstanceUID})


@pytest.fixture
def archives():
    with Archive([rt_image(n) for n in range(3)]) as source, Archive([]) as research:
        source.destinations["RESEARCH"] = ("127.0.0.1", free_port())
        source.store = lambda instances, **_: source.sent.extend(ds.SOPInstanceUID for ds in instances)
        yield source, research


def test_what_the_peer_reports_is_reported(archives):
    source, _ = archives
    result = move_to_third_party(source.peer(), SERIES, destination="RESEARCH", profile=PROFILE)
    assert result.outcome is Outcome.REPORTED
    assert (result.completed, result.failed) == (3, 0)
    assert result.to_json()["outcome"] == "reported"
    assert len(source.sent) == 3


def test_an_unknown_destination_is_an_error(archives):
    source, _ = archives
    hint = "Enter NOBODY with its own address and port under Trusted Application Entities"
    with pytest.raises(UnknownMoveDestinationError, match=hint):
        move_to_third_party(source.peer(), SERIES, destination="NOBODY", profile=PROFILE)


def test_a_peer_that_is_silent_while_it_sends_is_waited_for(archives):
    source, _ = archives
    source.pending = False
    source.on_move = lambda: time.sleep(1.5)
    peer = source.peer(dimse_timeout=0.3, network_timeout=0.3)
    result = move_to_third_party(peer, SERIES, destination="RESEARCH", profile=PROFILE)
    assert (result.outcome, result.completed) == (Outcome.REPORTED, 3)


def test_the_deadline_ends_the_wait_for_a_silent_peer(archives):
    source, _ = archives
    judged = threading.Event()
    source.on_move = lambda: judged.wait(30)
    try:
        with pytest.raises(PeerTimeoutError, match="not finished within 1 s"):
            move_to_third_party(
                source.peer(retrieve_deadline=1.0, dimse_timeout=0.3), SERIES, destination="RESEARCH", profile=PROFILE
            )
    finally:
        judged.set()


def test_nothing_to_send_is_empty_and_asks_nobody(archives):
    source, _ = archives
    request = RetrievalRequest(level=Level.SERIES, expected=())
    result = move_to_third_party(source.peer(), request, destination="RESEARCH", profile=PROFILE)
    assert (result.outcome, result.completed, source.requests) == (Outcome.EMPTY, 0, [])


def test_what_to_know_of_the_selection_is_logged(archives, caplog):
    source, _ = archives
    request = replace(SERIES, warnings=("500 answers are a round number",))
    move_to_third_party(source.peer(), request, destination="RESEARCH", profile=PROFILE)
    assert "500 answers are a round number" in caplog.text


def test_a_failure_with_nothing_sent_is_an_error(archives):
    source, _ = archives
    source.move_status = 0xC001
    with pytest.raises(PeerFailureError):
        move_to_third_party(source.peer(), SERIES, destination="RESEARCH", profile=PROFILE)


def test_a_warning_is_partial_only_when_something_failed(archives):
    source, _ = archives
    source.instances.clear()
    result = move_to_third_party(source.peer(), SERIES, destination="RESEARCH", profile=PROFILE)
    assert result.outcome is Outcome.EMPTY


def test_a_destination_that_is_no_ae_title_is_refused(archives):
    source, _ = archives
    with pytest.raises(ConfigurationError):
        move_to_third_party(source.peer(), SERIES, destination="X" * 17, profile=PROFILE)
    assert source.requests == []


@pytest.mark.parametrize(
    ("named", "outcome"), [([1, 2], Outcome.PARTIAL), ([1], Outcome.PARTIAL), ([], Outcome.REPORTED)]
)
def test_instances_that_the_peer_names_as_failed_are_partial_although_it_counts_nothing(archives, named, outcome):
    source, _ = archives
    source.pending = False
    uids = [f"1.2.{number}" for number in named]

    def respond(assoc, request, context_id, *_, **__):
        identifier = Dataset()
        identifier.FailedSOPInstanceUIDList = uids
        response = C_MOVE()
        response.MessageIDBeingRespondedTo = request.MessageID
        response.AffectedSOPClassUID = request.AffectedSOPClassUID
        response.Status = 0xB000
        response.Identifier = BytesIO(encode(identifier, True, True))
        assoc.dimse.send_msg(response, context_id)

    source._respond = respond
    result = move_to_third_party(source.peer(), SERIES, destination="RESEARCH", profile=PROFILE)
    assert (result.outcome, result.completed, result.failed) == (outcome, None, None)
    assert result.to_json()["failed_sop_instance_uids"] == uids
