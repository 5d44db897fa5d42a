"""Fifty tasks that wait deferred: they cost the peer one association a round, and outlive their triggerers."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest
from support.airflow_kept import rows_of
from support.archive import rt_image
from support.asked_runs import AskedRun, wait_for
from support.spooled import receive

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]

TASKS = {"machines": 32, "patient": 6, "echo": 6, "received": 6}
#: What they ask one peer for: different queries.
QUERIES = 5
POLL_SECONDS = 1
IN_VAIN = ("amid_a_query", "between_queries")


@pytest.fixture(scope="module")
def waiting(site) -> AskedRun:
    """The run of the fifty, all of them deferred."""
    run = site.runs["waiting_for_more"]
    wait_for(lambda: _states(run) == {"deferred": 50}, "fifty deferred tasks")
    site.kept_while_waiting = rows_of(site.home.database)
    return run


def _states(run: AskedRun) -> dict[str, int]:
    return dict(Counter(task["state"] for task in run.tasks()))


def _more_rounds(site, number: int) -> None:
    """Wait until the peer of the fifty was called some times more."""
    counts = site.daemons["waited"].counts
    before = counts["association"]
    wait_for(lambda: counts["association"] >= before + number, "poll rounds")


def test_fifty_tasks_wait_and_hold_no_worker(waiting):
    assert Counter(task["task_id"] for task in waiting.tasks()) == TASKS
    pool = waiting.page.rest("GET", "pools/waiting")
    deferred = pool["deferred_slots"]
    assert deferred >= 50
    assert (pool["running_slots"], pool["queued_slots"], pool["open_slots"]) == (0, 0, pool["slots"])


def test_those_who_wait_for_a_peer_share_one_association_a_round(site, waiting):
    counts = site.daemons["waited"].counts
    _more_rounds(site, 1)
    start, before = time.monotonic(), dict(counts)
    _more_rounds(site, 5)
    after, seconds = dict(counts), time.monotonic() - start
    rounds = after["association"] - before["association"]
    assert rounds <= seconds / POLL_SECONDS + 2
    assert after["C-FIND"] - before["C-FIND"] <= QUERIES * (rounds + 1)
    assert after["C-ECHO"] - before["C-ECHO"] <= rounds + 1
    assert counts["most_open"] == 1
    assert _states(waiting) == {"deferred": 50}


def test_a_task_that_is_marked_failed_amid_its_query_lets_go_of_the_peer(site, waiting):
    run, daemon = site.runs["waiting_in_vain"], site.daemons["held_up"]
    assert site.gates["held_up"].reached.wait(300)
    assert daemon.counts["open"] == 1
    run.mark_failed("amid_a_query")
    # While the daemon still holds up the answer.
    wait_for(lambda: daemon.counts["open"] == 0, "the peer to be let go")
    called = daemon.counts["association"]
    _more_rounds(site, 3)
    assert daemon.counts["association"] == called
    assert run.task("amid_a_query")["state"] == "failed"


def test_a_task_that_is_cleared_waits_anew_and_marked_failed_no_more(site, waiting):
    run, counts = site.runs["waiting_in_vain"], site.daemons["unwanted"].counts
    task_id = "between_queries"
    wait_for(lambda: run.task(task_id)["state"] == "deferred" and counts["association"], "a task that waits")
    first = run.task(task_id)
    run.clear(task_id)
    wait_for(lambda: _is_anew(run.task(task_id), first), "the cleared task to wait anew")
    wait_for(lambda: _is_asked(counts), "the peer to be asked for it")
    run.mark_failed(task_id)
    wait_for(lambda: not run.task(task_id)["trigger"], "the trigger to be gone")
    _more_rounds(site, 2)
    called = counts["association"]
    _more_rounds(site, 3)
    assert counts["association"] == called
    assert counts["most_open"] == 1
    assert run.task(task_id)["state"] == "failed"


def _is_anew(task: dict, first: dict) -> bool:
    is_other = (task["trigger"] or {}).get("id") != first["trigger"]["id"]
    return task["state"] == "deferred" and is_other


def _is_asked(counts) -> bool:
    before = counts["association"]
    wait_for(lambda: counts["association"] > before, "one more poll")
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_another_triggerer_takes_over(site, waiting, number):
    counts = site.daemons["waited"].counts
    site.page.end_triggerers(number)
    called = counts["association"]
    wait_for(lambda: counts["open"] == 0, "the peer to be let go")
    site.page.start_triggerer()
    wait_for(lambda: counts["association"] >= called + 3, "the peer to be asked again")
    assert counts["most_open"] == 1
    assert _states(waiting) == {"deferred": 50}


def test_what_they_wait_for_comes_and_each_hears_of_it_once(site, waiting):
    site.nothing_yet.hidden = lambda uid: False
    site.daemons["waited"].faults.disarm()
    for image in (1, 2):
        receive(site.sink, rt_image(image))
    waiting.finished()
    assert _states(waiting) == {"success": 50}
    assert {task["try_number"] for task in waiting.tasks()} == {1}
    folder = site.home.root / "logs" / f"dag_id={waiting.dag}" / f"run_id={waiting.id}"
    logs = {path.parent: path.read_text() for path in folder.rglob("attempt=1.log")}
    assert len(logs) == 50
    assert {log.count("Waited for enough") for log in logs.values()} == {1}
    assert waiting.xcom("received", index=5) == {"count": 2, "studies": 1, "series": 1}
    assert waiting.xcom("patient", index=0)["count"] >= 1
    assert set(waiting.xcom("echo", index=5)) == {"seconds"}
    assert site.daemons["waited"].counts["most_open"] == 1
