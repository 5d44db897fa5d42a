"""C-MOVE to a third party: what the peer reports, and no more."""

from __future__ import annotations

import pytest
from support.archive import Archive, rt_image
from support.ports import free_port

from airflow_provider_varian.errors import ConfigurationError, PeerFailureError, UnknownMoveDestinationError
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
    with pytest.raises(UnknownMoveDestinationError):
        move_to_third_party(source.peer(), SERIES, destination="NOBODY", profile=PROFILE)


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
