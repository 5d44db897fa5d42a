"""What a run retrieves once: whole series by one request, nothing twice, and each refusal with its reason."""

from __future__ import annotations

import threading
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import PurePosixPath

import pytest
from support.plan_objects import FakeRetrieve, expected, members, pooled
from upath import UPath

from airflow_provider_varian.aria.plan_pool import PlanPool
from airflow_provider_varian.aria.turns import turn
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import PeerFailureError, PeerUnreachableError, UnknownMoveDestinationError
from airflow_provider_varian.retrieval.destination import Destination

POOL = PurePosixPath(".dicom/pool/run/aria")
MEMBERS = {each.sop_instance_uid: each for each in members(images=5)}
EXPECTED = [expected(each) for each in MEMBERS.values()]


@pytest.fixture(params=["folder", "store"])
def destination(request, tmp_path):
    if request.param == "folder":
        return Destination(tmp_path / "root")
    return Destination(UPath(f"memory://{tmp_path.name}"))


@pytest.fixture
def retrieve(destination, tmp_path):
    return FakeRetrieve(destination, POOL, tmp_path / "work", MEMBERS)


def _pool(destination, retrieve, own=None, **more) -> PlanPool:
    settings = {"patient_id": "PAT", "turn": nullcontext} | more
    return PlanPool(destination=destination, folder=POOL, own=own or {}, retrieve=retrieve, **settings)


def test_a_series_is_asked_for_as_a_whole_and_single_objects_one_by_one(destination, retrieve):
    got = _pool(destination, retrieve).fetch(EXPECTED, "plan-set")
    assert all(each.is_here for each in got.values())
    assert retrieve.requests == [("SERIES", "plan-set 1 series"), ("IMAGE", "plan-set 1")]
    assert retrieve.keys[0] == {"PatientID": "PAT", "SeriesInstanceUID": ["1.2.3.100.3"]}
    assert set(retrieve.brought.values()) == {1}


def test_nothing_is_asked_for_twice(destination, retrieve):
    pool = _pool(destination, retrieve)
    pool.fetch(EXPECTED[:1], "plans")
    pool.fetch(EXPECTED, "plan-set")
    pool.fetch(EXPECTED, "plan-set")
    assert len(retrieve.requests) == 3
    # Another plan of the run, and a retry.
    _pool(destination, retrieve).fetch(EXPECTED, "plan-set")
    assert set(retrieve.brought.values()) == {1}


def test_batches_of_one_name_are_retrievals_of_their_own(destination, retrieve):
    pool = _pool(destination, retrieve)
    pool.fetch(EXPECTED[:1], "references")
    pool.fetch(EXPECTED[1:2], "references")
    assert [part for _, part in retrieve.requests] == ["references 1", "references 2"]


def test_what_is_here_can_be_read(destination, retrieve):
    pool = _pool(destination, retrieve)
    pool.fetch(EXPECTED[:1], "plans")
    assert pool.read("1.2.3.1").Modality == "RTPLAN"
    with pytest.raises(KeyError):
        pool.read("1.2.3.9")


def test_images_of_the_plans_own_folder_are_held_and_not_looked_at(destination, retrieve, tmp_path):
    own = {
        each.sop_instance_uid: pooled(destination, tmp_path, each, pool="1.2.3.1/CT").path for each in members(images=5)
    }
    got = _pool(destination, retrieve, own).fetch(EXPECTED, "plan-set")
    images = {uid: each for uid, each in got.items() if uid.startswith("1.2.3.4.")}
    assert all(each.held and each.path == own[uid] for uid, each in images.items())
    assert not retrieve.brought
    # Plan, structure set and dose may have changed: they are judged where the peer is asked.
    assert retrieve.requests == [("IMAGE", "plan-set 1")]
    assert {path.stem for path in destination.names_beside(POOL / "any", "")} == {"1.2.3.1", "1.2.3.2", "1.2.3.5"}


def test_an_empty_file_is_not_held(destination, retrieve, tmp_path):
    own = {"1.2.3.4.1": PurePosixPath("1.2.3.1/CT/1.2.3.4.1.dcm")}
    destination.write_text(own["1.2.3.4.1"], "")
    got = _pool(destination, retrieve, own).fetch(EXPECTED, "plan-set")
    assert got["1.2.3.4.1"].path == POOL / "1.2.3.4.1.dcm"


def test_another_plan_that_was_exported_is_not_transferred_to_be_read(destination, retrieve, tmp_path):
    pooled(destination, tmp_path, MEMBERS["1.2.3.1"], pool="1.2.3.1/RTPLAN")
    _pool(destination, retrieve).fetch(EXPECTED[:1], "plans")
    assert not retrieve.brought


def test_what_an_earlier_run_has_read_is_not_transferred_again(destination, retrieve, tmp_path):
    pools = [PurePosixPath(f".dicom/pool/{name}/aria") for name in ("none", "last", "before")]
    pooled(destination, tmp_path, MEMBERS["1.2.3.1"], pool=str(pools[1]))
    for each in (MEMBERS["1.2.3.1"], MEMBERS["1.2.3.2"]):
        pooled(destination, tmp_path, each, pool=str(pools[2]))
    pool = _pool(destination, retrieve, former=pools)
    got = pool.fetch(EXPECTED[:2], "plans")
    assert not retrieve.brought
    # They are judged as all that is held, and lie in this run's pool.
    assert retrieve.requests == [("IMAGE", "plans 1")]
    assert {each.path for each in got.values()} == {POOL / "1.2.3.1.dcm", POOL / "1.2.3.2.dcm"}


def test_what_the_peer_does_not_export_has_its_reason_and_stops_nothing(destination, retrieve):
    retrieve.refuse = lambda uid: uid == "1.2.3.5"
    retrieve.error = PeerFailureError("refused", status=0xC001)
    got = _pool(destination, retrieve).fetch(EXPECTED, "plan-set")
    assert [uid for uid, each in got.items() if not each.is_here] == ["1.2.3.5"]
    assert got["1.2.3.5"].reason == "asked for once, never came"


def test_what_is_known_to_fail_is_told_in_its_words(destination, retrieve):
    retrieve.refuse = lambda uid: uid in ("1.2.3.1", "1.2.3.5")
    known = {"1.2.3.1": "a plan without beams"}
    pool = _pool(destination, retrieve, known_failure=lambda item: known.get(item.sop_instance_uid, ""))
    got = pool.fetch(EXPECTED, "plan-set")
    assert got["1.2.3.1"].reason == "a plan without beams"
    assert got["1.2.3.5"].reason == "asked for once, never came"


def test_when_nothing_at_all_is_exported_it_is_the_same(destination, retrieve):
    retrieve.refuse = lambda uid: True
    retrieve.raised = PeerFailureError("refused", status=0xC001)
    got = _pool(destination, retrieve).fetch(EXPECTED[:1], "plans")
    assert not got["1.2.3.1"].is_here


@pytest.mark.parametrize("kind", [PeerUnreachableError, UnknownMoveDestinationError])
def test_what_is_wrong_with_the_peer_is_raised(destination, retrieve, kind):
    retrieve.refuse = lambda uid: True
    retrieve.raised = kind("no")
    with pytest.raises(kind):
        _pool(destination, retrieve).fetch(EXPECTED[:1], "plans")


def test_a_peer_that_goes_away_amid_it_is_raised_and_what_came_stays(destination, retrieve):
    retrieve.refuse = lambda uid: uid == "1.2.3.5"
    retrieve.error = PeerUnreachableError("gone")
    with pytest.raises(PeerUnreachableError):
        _pool(destination, retrieve).fetch(EXPECTED, "plan-set")
    retrieve.refuse = lambda uid: False
    assert _pool(destination, retrieve).fetch(EXPECTED, "plan-set")["1.2.3.5"].is_here
    assert set(retrieve.brought.values()) == {1}


def test_two_tasks_that_want_the_same_images_at_the_same_time_transfer_them_once(destination, retrieve, tmp_path):
    """Each has looked and found nothing before the other brings it, unless they take turns."""
    together = threading.Barrier(2)

    def meet():
        with suppress(threading.BrokenBarrierError):  # the other one waits for its turn
            together.wait(0.3)

    retrieve.before = meet
    turns = partial(turn, tmp_path / "locks", "patient", wait_seconds=60, cancellation=Cancellation())
    got: list[dict] = []
    tasks = [
        threading.Thread(target=lambda: got.append(_pool(destination, retrieve, turn=turns).fetch(EXPECTED[:1], "p")))
        for _ in range(2)
    ]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert [each["1.2.3.1"].is_here for each in got] == [True, True]
    assert retrieve.brought == {"1.2.3.1": 1}
