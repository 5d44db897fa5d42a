"""SIGKILL at any point of a retrieval: nothing is mistaken for whole, nothing is lost, nothing verified comes twice.

A point is a call that changes what is on storage: an open for writing, a write, an fsync, a rename, a link, an unlink,
a folder made or removed. A forked process counts them, and kills itself right before one, right after it, or with half
of a write done (:mod:`robustness.forker`). CI takes a point of each kind; ``make test-slow`` takes all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from robustness.account import check_account, check_files, check_nothing_is_left, read_manifest
from robustness.clinic_side import METHODS, RETRIEVAL_ID, Site, acknowledged, site
from robustness.forking import WHENS, Forker, kind_of, points_of
from robustness.small_archive import SmallArchive, SmallSeries

from airflow_provider_varian.retrieval.manifest import Manifest

SERIES = SmallSeries(1, 1, "RTIMAGE", 3)


@dataclass
class Place:
    """One retrieval with its folders, done by forked processes."""

    forker: Forker
    at: Site
    archive: SmallArchive
    method: str
    acknowledged: set[str]

    def run(self, **kill: object) -> dict[str, Any] | None:
        """Retrieve; return what came of it, or ``None`` when it was killed."""
        return self.forker.retrieve(self.at, [SERIES.uid], self.method, counts_calls=True, **kill)

    def calls(self) -> list[str]:
        """Return the calls of a retrieval that nobody kills."""
        answer = self.run()
        assert answer is not None
        assert answer["unseen"] == [], "each call that changes something is counted"
        assert answer["outcome"] == "complete", answer
        return list(answer["calls"])

    def kill_and_retry(self, number: int, when: str) -> bool:
        """Kill at a point, judge, retry, judge; say whether the point was reached."""
        self.acknowledged.clear()
        if self.run(at=number, when=when) is not None:
            return False
        held = check_files(self.at.root, self.at.spool, self.archive.source)
        verified = self._check_manifest(set(held))
        spooled = self.at.spooled
        assert self.acknowledged <= spooled | set(held), "what was acknowledged is here"
        self.archive.sent.clear()
        answer = self.run()
        assert answer is not None
        assert answer.get("outcome") == "complete", answer
        assert answer["counts"]["verified"] == SERIES.instances
        manifest = check_account(self.at.root, RETRIEVAL_ID, self.archive.source)
        assert [each["state"] for each in manifest["instances"]] == ["verified"] * SERIES.instances
        again = set(self.archive.sent)
        assert not again & (set(held) | verified), "what is held is not asked for again"
        assert not again & spooled, "what was acknowledged is not asked for again"
        assert len(self.archive.sent) == len(again), "nothing comes twice"
        check_nothing_is_left(self.at.root, self.at.spool, killed=True)
        return True

    def _check_manifest(self, held: set[str]) -> set[str]:
        values = read_manifest(self.at.root, RETRIEVAL_ID)
        if values is None:
            return set()
        manifest = Manifest.from_json(values)
        verified = {uid for uid, entry in manifest.ledger.entries.items() if entry.is_here}
        assert verified <= held, "what the manifest claims is there"
        assert manifest.outcome != "complete" or len(held) == SERIES.instances
        return verified


@pytest.fixture(scope="module")
def _daemon(tmp_path_factory) -> Iterator[tuple[Site, SmallArchive, set[str]]]:
    archive = SmallArchive((SERIES,))
    with acknowledged() as heard, site(tmp_path_factory.mktemp("site"), archive) as running:
        yield running, archive, heard


@pytest.fixture
def place_of(forker, _daemon, tmp_path):
    """Return a function that makes a new place for a method, with an empty destination and an empty spool."""
    running, archive, heard = _daemon

    def make(method: str, name: str) -> Place:
        return Place(forker, Site(running.daemon, running.port, tmp_path / name), archive, method, heard)

    return make


def kill_at_each(place_of, method: str, when: str, *, all_of_them: bool) -> None:
    calls = place_of(method, "counted").calls()
    points = points_of(calls, when, all_of_them=all_of_them)
    started, reached = time.monotonic(), 0
    for number in points:
        try:
            reached += place_of(method, f"{when}-{number}").kill_and_retry(number, when)
        except AssertionError as error:
            raise AssertionError(
                f"killed {when} call {number} of {len(calls)}, {calls[number - 1]}: {error}"
            ) from error
    seconds = time.monotonic() - started
    print(f"{method} {when}: {reached} kills at {len(points)} points of {len(calls)} calls in {seconds:.0f} s")
    # Two threads of a C-MOVE may take turns otherwise, so that the last point of one run is not there in another.
    assert reached >= len(points) - 3


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("method", "when"), [("C-MOVE", "before"), ("C-MOVE", "amid"), ("C-GET", "after")])
def test_a_kill_at_any_kind_of_point_loses_nothing(place_of, method, when):
    kill_at_each(place_of, method, when, all_of_them=False)


@pytest.mark.timeout(3600)
@pytest.mark.slow
@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("method", METHODS)
def test_a_kill_at_every_point_loses_nothing(place_of, method, when):
    kill_at_each(place_of, method, when, all_of_them=True)


@pytest.mark.parametrize("method", METHODS)
def test_each_call_that_matters_is_a_point(place_of, method):
    kinds = {kind_of(call) for call in place_of(method, "counted").calls()}
    names = {kind.split()[0] for kind in kinds}
    assert {"open", "write", "fsync", "rename", "replace", "link", "unlink", "mkdir"} <= names


def test_what_a_killed_process_left_is_swept_after_a_day(place_of):
    place = place_of("C-GET", "swept")
    calls = place.calls()
    number = next(number for number, call in enumerate(calls, start=1) if call.startswith("replace "))
    other = place_of("C-GET", "left")
    assert other.run(at=number, when="before") is None
    (left,) = other.at.root.glob(".dicom/tmp/*.part")
    assert other.run() is not None
    assert left.exists(), "another process may still be writing it"
    two_days_ago = time.time() - 2 * 86400
    os.utime(left, (two_days_ago, two_days_ago))
    assert other.run() is not None
    assert not left.exists()
