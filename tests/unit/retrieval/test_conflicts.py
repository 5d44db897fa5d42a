"""Another content under the same UID is a conflict for each retrieval that meets it, until a person has decided."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from support.archive import ROOT, rt_image
from upath import UPath

from airflow_provider_varian.retrieval.conflicts import ConflictFiles, conflict_path
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.outcome import Outcome, State

#: A layout that C-FIND answers of these tests cannot fill: paths are known when objects are here.
BY_TIME = "{AcquisitionTime}/{SOPInstanceUID}.dcm"


def uid(number):
    return f"{ROOT}.1.1.{number}"


@pytest.fixture
def disputed(clinic):
    """Return a function that retrieves image 1 and another content of it into a destination."""

    def retrieve(**settings):
        clinic.archive.extra = [rt_image(1, PixelData=b"\7" * 512)]
        result = clinic.run(clinic.images(1), **settings)
        assert result.outcome is Outcome.PARTIAL
        clinic.archive.extra = []
        clinic.archive.sent.clear()
        return result.manifest.ledger.entries[uid(1)]

    return retrieve


@pytest.mark.parametrize("store", ["folder", "memory"])
def test_a_conflict_is_one_for_later_retrievals_too(clinic, disputed, tmp_path, store):
    root = tmp_path / "out" if store == "folder" else UPath(f"memory://conflicts-{tmp_path.name}/out")
    first = disputed(destination=root)
    for name in ("r-1", "r-2", "r-3"):
        result = clinic.run(clinic.images(1, 2), destination=root, retrieval_id=name)
        entry = result.manifest.ledger.entries[uid(1)]
        assert (result.outcome, entry.state, entry.held) == (Outcome.PARTIAL, State.CONFLICT, True)
        assert entry.conflicts == first.conflicts
        assert entry.reason == first.reason
        assert result.manifest.ledger.entries[uid(2)].state is State.VERIFIED
    assert clinic.archive.sent == [uid(2)]


def test_all_other_contents_are_named(clinic, disputed):
    entry = disputed()
    path = clinic.root / entry.path
    others = sorted([entry.conflicts[0], f"{path.relative_to(clinic.root).with_suffix('')}.conflict-0123456789ab.dcm"])
    path.with_name(PurePosixPath(others[0]).name).write_bytes(b"other")
    path.with_name(PurePosixPath(others[1]).name).write_bytes(b"other")
    result = clinic.run(clinic.images(1), retrieval_id="r-2")
    assert result.manifest.ledger.entries[uid(1)].conflicts == others


def test_a_duplicate_that_arrives_beside_a_conflict_is_a_conflict(clinic):
    path = PurePosixPath(clinic.run(clinic.images(1), layout=BY_TIME).manifest.ledger.entries[uid(1)].path)
    other = conflict_path(path, "ab" * 32)
    (clinic.root / other).write_bytes(b"other")
    clinic.archive.sent.clear()
    result = clinic.run(clinic.images(1), layout=BY_TIME, retrieval_id="r-2")
    assert clinic.archive.sent == [uid(1)]
    entry = result.manifest.ledger.entries[uid(1)]
    assert (result.outcome, entry.state, entry.conflicts) == (Outcome.PARTIAL, State.CONFLICT, [str(other)])


def test_a_conflict_ends_when_the_other_content_is_removed(clinic, disputed):
    entry = disputed()
    (clinic.root / entry.conflicts[0]).unlink()
    for name in ("r-1", "r-2"):
        result = clinic.run(clinic.images(1), retrieval_id=name)
        assert (result.outcome, result.counts["held"]) == (Outcome.COMPLETE, 1)
        assert result.manifest.ledger.entries[uid(1)].reason == ""


def test_a_folder_is_listed_once_however_many_objects_it_holds(clinic, monkeypatch):
    names_beside, listed = Destination.names_beside, []

    def counted(destination, path, prefix):
        listed.append(path.parent)
        return names_beside(destination, path, prefix)

    monkeypatch.setattr(Destination, "names_beside", counted)
    clinic.run()
    assert len(listed) == 1
    listed.clear()
    assert clinic.run(retrieval_id="r-2").counts["held"] == 5
    assert len(listed) == 1


@pytest.mark.parametrize(
    "name", ["RTIMAGE.1.2.3.dcm", "1.2.3", "a", "1.2.20260105.071500", "a b.conflict-x.dcm", "plan_1.2.dcm"]
)
def test_a_conflict_is_found_by_the_name_it_was_given(tmp_path, name):
    path = PurePosixPath("study/series") / name
    others = sorted(conflict_path(path, digits * 8) for digits in ("01234567", "89abcdef"))
    (tmp_path / path.parent).mkdir(parents=True)
    for other in (path, *others, path.with_name(f"2{name}"), path.with_name(f"{name}.conflict-zz")):
        (tmp_path / other).write_bytes(b"x")
    assert ConflictFiles(Destination(tmp_path)).beside(path) == others


def test_a_folder_that_is_not_there_holds_no_conflict(tmp_path):
    assert not ConflictFiles(Destination(tmp_path)).beside(PurePosixPath("a/b.dcm"))
