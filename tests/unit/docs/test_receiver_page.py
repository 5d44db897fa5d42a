"""What the page on operating a receiver says is what the code does."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from pathlib import Path

import pytest

from airflow_provider_varian.cli.main import parser
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.get_provider_info import get_provider_info
from airflow_provider_varian.receiver import (
    audit,
    audit_message,
    audit_sinks,
    audit_xml,
    census,
    health,
    publishing,
    server,
    sweep,
)
from airflow_provider_varian.receiver.admission import Entry
from airflow_provider_varian.receiver.claim_lock import only_try
from airflow_provider_varian.receiver.metrics import Metrics
from airflow_provider_varian.receiver.observer import Ending, Refusal
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.standing import ReceiverSettings
from airflow_provider_varian.receiver.sweep import RETENTION_SECONDS
from airflow_provider_varian.retrieval import trail_messages

HOWTO = Path(__file__).parents[3] / "docs/howto"
PAGE = (HOWTO / "operating-a-receiver.md").read_text(encoding="utf-8")
RUNNING = (HOWTO / "receiver.md").read_text(encoding="utf-8")
TASKS = (HOWTO / "audit-trail.md").read_text(encoding="utf-8")
PREFIX = "dicom_receiver_"


class Watched:
    backlog = troubled = written = dropped = failures = 0


@pytest.fixture
def metrics(tmp_path):
    made = Metrics(spool=Spool(tmp_path))
    made.watch_publisher(Watched())
    made.watch_audit(Watched())
    return {family.name: family for family in made.registry.collect() if family.name.startswith(PREFIX)}


def told(metrics):
    """Return the names as Prometheus shows them, and their labels."""
    names = {}
    for name, family in metrics.items():
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        names[f"{name}{suffix}".removeprefix(PREFIX)] = labels
    return names


def table():
    """Return name and labels of each metric of the table."""
    rows = PAGE.split("| Metric | Kind, unit | Meaning |", 1)[1].split("\n\n", 1)[0]
    cells = [line.split(" | ")[0] for line in rows.splitlines()[2:]]
    found = [
        re.fullmatch(r"([a-z_]+)(?:\{([a-z,]+)\})?", name) for cell in cells for name in re.findall("`(.+?)`", cell)
    ]
    return {match[1]: set((match[2] or "").split(",")) - {""} for match in found}


def test_each_metric_is_in_the_table(metrics):
    documented = table()
    assert set(documented) == set(told(metrics))
    for name, labels in told(metrics).items():
        # Those with AE titles have no samples before the first association.
        assert documented[name] == labels or documented[name] == {"calling", "called"}, name


def test_the_alerts_use_metrics_that_there_are(metrics):
    rows = PAGE.split("### Alerts to set", 1)[1].split("## Retention", 1)[0]
    used = {name.removeprefix(PREFIX) for name in re.findall(rf"{PREFIX}[a-z_]+", rows)}
    assert used
    assert used <= set(told(metrics))


def test_reasons_and_endings_are_all_named():
    for word in (*Refusal, *Ending):
        assert f"`{word.value}`" in PAGE, word


def test_numbers_are_those_of_the_code():
    assert RETENTION_SECONDS == 14 * 86400
    assert "`--retention-days` (14)" in PAGE
    assert audit.BATCH_OBJECTS == 1000
    assert "1,000 objects or 5 minutes" in PAGE
    assert audit.BATCH_SECONDS == 300
    assert audit.MAXIMUM_MESSAGES == 5000
    assert "Up to 5,000 messages wait" in PAGE
    assert publishing.CLAIMS_SECONDS == 30
    assert "looked for every\n  30 seconds" in PAGE
    assert publishing._LAST_WAIT_SECONDS == 300
    assert "1, 2, 4, ... 300 seconds" in PAGE
    assert census.KEPT_SECONDS == 10
    assert "at most every 10 seconds" in PAGE


def test_each_code_of_the_trail_is_in_its_table():
    named = set(re.findall(r"\((110\d\d\d)\)", PAGE))
    roles_and_types = {"110120", "110121", "110150", "110152", "110153", "110180", "110182"}
    assert codes(audit_message, audit_xml) - roles_and_types == named


def codes(*modules):
    values = (value for module in modules for value in vars(module).values())
    return {value[0] for value in values if isinstance(value, tuple) and value[1:2] == ("DCM",)}


def test_each_code_of_the_trail_of_tasks_is_on_its_page():
    named = set(re.findall(r"\((110\d\d\d)\)", TASKS))
    unsaid = {"110150", "110152", "110153", "110154", "110180", "110181", "110182"}
    assert codes(trail_messages, audit_xml) - unsaid == named


@pytest.mark.airflow
def test_each_option_of_the_trail_of_tasks_is_one_that_there_is():
    from airflow_provider_varian.hooks import audit as of_tasks

    options = get_provider_info()["config"]["varian"]["options"]
    named = set(re.findall(r"^(audit\w*) =", TASKS, re.M)) | set(re.findall(r"`(audit_\w+)`", TASKS))
    assert named == {name for name in options if name.startswith("audit")}
    assert of_tasks.SYSLOG in TASKS
    assert f"the folder `{of_tasks.WAITING_FOLDER}`\n  of the spool" in TASKS


def stopping():
    """Return how long it takes at worst until a receiver has ended, by what ends."""
    settings = ReceiverSettings(spool=Path("x"), entries=(Entry(ae_title="A", networks=()),), host="127.0.0.1")
    # A write that began within the last seconds: connection, TLS handshake, messages; then the farewell.
    write = 2 * audit_sinks._CONNECT_SECONDS + audit_sinks._SEND_SECONDS + 1
    return [
        settings.drain_seconds,
        server._ABORT_SECONDS + server._STOP_SECONDS,
        publishing._STOP_SECONDS,
        sweep._STOP_SECONDS,
        2 * audit._STOP_SECONDS + write,
        health._STOP_SECONDS,
    ]


def test_who_kills_a_receiver_waits_for_the_sum_of_all_that_ends():
    rows = RUNNING.split("| What ends, one after the other | At worst |", 1)[1].split("\n\n", 1)[0]
    assert [float(seconds) for seconds in re.findall(r"\| (\d+) s \|", rows)] == stopping()
    told = re.findall(r"(?:TimeoutStopSec=|stop_grace_period: |terminationGracePeriodSeconds: )(\d+)", RUNNING)
    assert len(told) == 3
    assert {int(seconds) for seconds in told} == {120}
    assert "Give it 120 seconds" in RUNNING
    assert sum(stopping()) <= 120


def test_claims_are_found_and_given_back_as_the_page_says(tmp_path):
    spool = Spool(tmp_path / "spool")
    uids = ["1.2.3", "1.2.4"]
    folder = spool.root / "claimed" / "r-1"
    folder.mkdir()
    spool.register().close()  # makes the shards
    for uid in uids:
        (folder / f"{uid}.{'0' * 36}.dcm").touch()
        os.utime(folder / f"{uid}.{'0' * 36}.dcm", (0, 0))
    section = PAGE.split("### Claims that nobody lets go of", 1)[1].split("\n## ", 1)[0]
    find, free = (
        block.replace("/srv/dicom-spool", str(spool.root)) for block in re.findall(r"```sh\n(.*?)```", section, re.S)
    )
    assert len(shell(find).stdout.splitlines()) == 2
    with only_try(spool, "r-1", cancellation=Cancellation()):
        assert shell(free, id="r-1").returncode != 0
        assert len(spool.claimed("r-1")) == 2, "a try that runs is left alone"
    done = shell(free, id="r-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert {item.sop_instance_uid for item in spool.claim("r-2", uids)} == set(uids)
    assert list(folder.iterdir()) == []


def shell(commands, **variables):
    return subprocess.run(
        ["sh", "-c", commands], env=os.environ | variables, capture_output=True, text=True, timeout=60, check=False
    )


def test_each_option_is_one_of_the_verb():
    verbs = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) <= set(verbs.choices["receive"]._option_string_actions)
