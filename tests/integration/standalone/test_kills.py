"""A task that is ended while its peer is sending: the peer is let go, nothing is left, and the missing alone come then.

By Airflow's own scheduler and workers, in each of the ways in which a task meets its end: marked failed and cleared by
a person, cleared while it runs, out of its time, its process ended by SIGTERM and by SIGKILL, and its worker likewise,
which may leave the process behind.
"""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path

import pytest
from support.asked_runs import wait_for
from support.ends import TIMED_OUT, WAYS, end

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]

#: What is there when a task is ended.
BEFORE = 2
TASK = "retrieve"


def _is_free(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return attempt.connect_ex(("127.0.0.1", port)) != 0


def _end(site, way: str) -> None:
    """End the task of a way, once its peer is amid its objects."""
    run = site.runs[way]
    assert site.gates[way].reached.wait(300)
    if way != TIMED_OUT:  # it may be over by now
        assert site.daemons[way].counts["open"] == 1
        end(run, TASK, way)


def _left(spool: Path) -> list[Path]:
    """Return the objects in a spool, and what is being written or claimed there."""
    left = [path for name in ("new", "claimed", "tmp", "broken") for path in (spool / name).rglob("*")]
    return [path for path in left if path.suffix == ".dcm" or path.parent.name in ("claimed", "tmp")]


@pytest.fixture(scope="module")
def ended(site):
    """The site, with each of the tasks ended for the first time."""
    for way in WAYS:
        _end(site, way)
    return site


@pytest.mark.parametrize("way", WAYS)
def test_a_task_that_is_ended_leaves_nothing_and_its_next_try_brings_the_missing_alone(ended, way):
    run, daemon, gate, port = ended.runs[way], ended.daemons[way], ended.gates[way], ended.ports[way]
    if way in ("marked_failed", "worker_terminated", "worker_killed"):
        # While the daemon still holds up the object: it is the task that lets go.
        wait_for(lambda: daemon.counts["open"] == 0, f"the peer of {way} to be let go")
        wait_for(lambda: _is_free(port), f"the port of {way}")
    if way == "marked_failed":
        assert run.task(TASK)["state"] == "failed"
        assert run.manifest(TASK)["outcome"] == "pending"
        run.clear(TASK)
    task = run.ended(TASK)
    if way in ("marked_failed", "cleared"):
        # It did not wait for the end that a worker makes by SIGKILL five seconds later.
        assert "C-CANCEL" in run.log(TASK, 1)
    assert (task["state"], task["try_number"]) == ("success", 2), run.log(TASK, task["try_number"])
    manifest = run.manifest(TASK)
    assert manifest["outcome"] == "complete"
    assert daemon.counts["open"] == 0
    # What was sent before was not sent again.
    held_up = list(gate.asked)[BEFORE]
    assert {uid for uid, number in gate.asked.items() if number > 1} <= {held_up}
    assert len(gate.asked) == len(manifest["instances"]) > BEFORE + 1
    assert _is_free(port)


def test_nothing_of_all_that_is_left_in_the_spool(ended):
    """After the tests above, which see all of it come to its end."""
    # Others are receiving yet.
    wait_for(lambda: not _left(ended.home.spool), "an empty spool")
    filed = [Counter(path.name for path in (ended.home.storage / way).rglob("*.dcm")) for way in WAYS]
    assert filed == [filed[0]] * len(WAYS)
    assert set(filed[0].values()) == {1}
