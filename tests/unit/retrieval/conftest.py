"""A scripted archive, a place for what it sends, and retrieve() with both."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.archive import ROOT, Archive, rt_image
from support.ports import free_port

from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.retrieval.request import Expected, RetrievalRequest
from airflow_provider_varian.retrieval.retrieve import retrieve

#: A peer without habits, and no time to lose.
PLAIN = Profile(
    name="plain",
    relational_queries=True,
    volatile_attributes=frozenset({"InstanceCreationDate", "InstanceCreationTime"}),
    stable_counts=1,
    stable_interval_seconds=0.0,
    settle_seconds=0.4,
)


LISTED = ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "AcquisitionDate")


@pytest.fixture
def images():
    return [rt_image(number) for number in range(1, 6)]


@pytest.fixture
def archive(images):
    with Archive(images) as running:
        yield running


@pytest.fixture
def clinic(archive, tmp_path):
    """Return ``run(...)`` and what it works with."""

    def series_request(**settings):
        keys = {"StudyInstanceUID": f"{ROOT}.1", "SeriesInstanceUID": f"{ROOT}.1.1"}
        return RetrievalRequest(level=Level.SERIES, keys=keys, **settings)

    def image_request(*numbers, **settings):
        chosen = [ds for ds in archive.instances.values() if ds.InstanceNumber in numbers]
        expected = tuple(Expected.from_answer({key: ds.get(key) for key in LISTED}) for ds in chosen)
        return RetrievalRequest(level=Level.IMAGE, expected=expected, **settings)

    port = free_port()
    place = SimpleNamespace(
        archive=archive,
        peer=archive.peer(receiver_port=port),
        port=port,
        root=tmp_path / "out",
        spool=tmp_path / "spool",
        series=series_request,
        images=image_request,
        profile=PLAIN,
    )

    def run(request=None, **settings):
        defaults = {
            "profile": PLAIN,
            "destination": place.root,
            "spool_root": place.spool,
            "retrieval_id": "r-1",
            "port_wait_seconds": 5.0,
        }
        peer = settings.pop("peer", place.peer)
        return retrieve(peer, request or series_request(), **(defaults | settings))

    place.run = run
    return place
