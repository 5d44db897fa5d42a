"""What the page on operating a receiver says is what the code does."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from airflow_provider_varian.cli.main import parser
from airflow_provider_varian.receiver import audit, audit_message, census, publishing
from airflow_provider_varian.receiver.metrics import Metrics
from airflow_provider_varian.receiver.observer import Ending, Refusal
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.sweep import RETENTION_SECONDS

PAGE = (Path(__file__).parents[3] / "docs/howto/operating-a-receiver.md").read_text(encoding="utf-8")
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
    codes = (value for value in vars(audit_message).values() if isinstance(value, tuple) and value[1:2] == ("DCM",))
    roles_and_types = {"110120", "110121", "110150", "110152", "110153", "110180", "110182"}
    assert {value for value, _, _ in codes} - roles_and_types == named


def test_each_option_is_one_of_the_verb():
    verbs = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) <= set(verbs.choices["receive"]._option_string_actions)
