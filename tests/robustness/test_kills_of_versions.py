"""SIGKILL while a newer version of a plan takes the place of an older one (semantics 9).

At its final path lies the one or the other, whole; in the end the newer one does, and the older one is kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from robustness.account import as_sent, check_account, check_nothing_is_left, objects_in, plain
from robustness.clinic_side import METHODS, RETRIEVAL_ID, Site, site
from robustness.forking import WHENS, Forker, kind_of, points_of
from robustness.small_archive import SmallArchive, SmallSeries

SERIES = SmallSeries(1, 1, "RTPLAN", 2)
Retrieve = Callable[..., dict[str, Any] | None]


@pytest.fixture(scope="module")
def clinic(tmp_path_factory) -> Iterator[tuple[Site, SmallArchive]]:
    archive = SmallArchive((SERIES,))
    with site(tmp_path_factory.mktemp("site"), archive) as running:
        yield running, archive


@pytest.fixture
def changed(forker: Forker, clinic, tmp_path):
    """Return a function that makes a place in which older plans are held, which have changed at the daemon since."""
    running, archive = clinic
    old = Site(running.daemon, running.port, tmp_path / "old")
    archive.revision = 0
    assert forker.retrieve(old, [SERIES.uid], "C-GET") is not None
    archive.revision = 1

    def make(name: str) -> Site:
        shutil.copytree(old.folder, tmp_path / name)
        return Site(running.daemon, running.port, tmp_path / name)

    return make


def check_versions(root: Path, archive: SmallArchive) -> None:
    """Check that each plan is there, in one version or the other, and that the older one is not lost."""
    found = {}
    for path in objects_in(root):
        held = plain(dcmread(path))
        uid = str(held.SOPInstanceUID)
        versions = [as_sent(archive.source(uid, revision)) for revision in (0, 1)]
        assert held in versions, f"{path} is neither the older nor the newer plan"
        found[uid] = held
        if held == versions[1]:
            assert_kept(root, uid, archive)
    assert set(found) == set(archive.instance_uids)


def assert_kept(root: Path, uid: str, archive: SmallArchive) -> None:
    kept = [plain(dcmread(path)) for path in (root / ".dicom" / "versions" / uid).glob("*.dcm")]
    assert as_sent(archive.source(uid, 0)) in kept, "the older plan is kept"


def kill_at_each(changed, forker: Forker, archive: SmallArchive, method: str, when: str, *, all_of_them: bool) -> None:
    counted = forker.retrieve(changed("counted"), [SERIES.uid], method, counts_calls=True)
    assert counted is not None
    assert counted["outcome"] == "complete"
    assert counted["unseen"] == []
    calls = counted["calls"]
    points = points_of(calls, when, all_of_them=all_of_them)
    if not all_of_them:
        # What happens in the spool is the same for all objects.
        points = [number for number in points if kind_of(calls[number - 1]).split()[1].startswith("/out")]
    assert any("/versions" in call for call in calls)
    killed = 0
    for number in points:
        place = changed(f"{when}-{number}")
        try:
            killed += forker.retrieve(place, [SERIES.uid], method, counts_calls=True, at=number, when=when) is None
            check_versions(place.root, archive)
            answer = forker.retrieve(place, [SERIES.uid], method)
            assert answer is not None
            assert answer.get("outcome") == "complete", answer
            check_account(place.root, RETRIEVAL_ID, archive.source)
            for uid in archive.instance_uids:
                assert_kept(place.root, uid, archive)
            shutil.rmtree(place.root / ".dicom" / "versions")
            (place.root / ".dicom" / "tmp" / "replacing.lock").unlink(missing_ok=True)
            # A plan that nobody had claimed is not taken by the retry: nobody can tell how old it is (semantics 11).
            check_nothing_is_left(place.root, place.spool, killed=True, unasked=archive.instance_uids)
        except AssertionError as error:
            raise AssertionError(
                f"killed {when} call {number} of {len(calls)}, {calls[number - 1]}: {error}"
            ) from error
    print(f"{method} {when}: {killed} kills at {len(points)} points of {len(calls)} calls")
    assert killed >= len(points) - 3


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("method", "when"), [("C-MOVE", "before"), ("C-GET", "after")])
def test_a_kill_leaves_the_older_plan_or_the_newer_one(changed, forker, clinic, method, when):
    kill_at_each(changed, forker, clinic[1], method, when, all_of_them=False)


@pytest.mark.timeout(3600)
@pytest.mark.slow
@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("method", METHODS)
def test_a_kill_at_every_point_leaves_the_older_plan_or_the_newer_one(changed, forker, clinic, method, when):
    kill_at_each(changed, forker, clinic[1], method, when, all_of_them=True)
