"""Who is wrong fails at once, who is turned away for now tries again; the log says why, of whom, and what to do."""

from __future__ import annotations

import pytest
from support.asked_runs import FINAL, wait_for

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]

REJECTED = (
    "with VMSDBD@127.0.0.1:",
    "the association was rejected: calling AE title not recognised (1/1/3)",
    "Trusted Application Entities of the DB Service",
)
#: By task, what its log says: step, what happened, what to do.
PERMANENT = {
    "unknown_field": ("connection: unknown connection field 'colour'. Known fields: called_ae_title",),
    "unknown_title": REJECTED,
    "unknown_keyword": ("PatientId", "Did you mean PatientID"),
    "unknown_title_deferred": REJECTED,
}
TRANSIENT = ("refused", "refused_deferred")


@pytest.mark.parametrize("task_id", PERMANENT)
def test_what_would_end_the_same_way_fails_in_the_first_try(site, task_id):
    run = site.runs["failing"]
    wait_for(lambda: _is_judged(run.task(task_id)), f"{task_id} to fail")
    task = run.task(task_id)
    log = run.log(task_id)
    assert (task["state"], task["try_number"], task["max_tries"]) == ("failed", 1, 30), log
    for words in PERMANENT[task_id]:
        assert words in log


def _is_judged(task: dict) -> bool:
    return task["state"] in (*FINAL, "up_for_retry") or task["try_number"] > 1


def test_who_is_called_too_early_tries_again_and_succeeds(site):
    run = site.runs["failing"]
    for task_id in TRANSIENT:
        wait_for(lambda: _is_judged(run.task(task_id)), f"{task_id} to fail")  # noqa: B023 - now
    site.begin_late()
    for task_id in TRANSIENT:
        task = run.ended(task_id)
        assert task["state"] == "success", run.log(task_id, task["try_number"])
        assert 2 <= task["try_number"] <= 30
        *before, successful = run.tries(task_id)
        first, last = run.log(task_id, before[0]), run.log(task_id, successful)
        for words in ("with VMSDBD@127.0.0.1:", "the connection was refused", "Check the port"):
            assert words in first
        assert "connection was refused" not in last
