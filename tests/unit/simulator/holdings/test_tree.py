"""The search's own rules: what the dates below a node allow to be passed over."""

from __future__ import annotations

from datetime import date

import pytest
from support.simulated import identifier

from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.holdings.tree import Node, Search

HELD = (date(2026, 3, 2), date(2026, 3, 9))


def may(level="IMAGE", spans=None, **keys):
    node = Node(
        level=Level.PATIENT, uid="1", values=dict, spans=lambda: {"TreatmentDate": HELD} if spans is None else spans
    )
    return Search(Level(level), identifier("", **keys)).may_lie_below(node)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("20260301", False), ("20260302", True), ("20260309", True), ("20260310", False),
        ("20260101-20260301", False), ("20260101-20260302", True), ("20260309-", True), ("20260310-", False),
        ("-20260301", False), ("-20260302", True), ("", True),
    ],
)  # fmt: skip
def test_a_date_outside_of_a_span_is_not_looked_for(key, expected):
    assert may(TreatmentDate=key) is expected


def test_what_a_span_does_not_tell_is_looked_for():
    assert may(ContentDate="19990101")
    assert may(PatientID="7")
    assert may(TreatmentTime="0600-0700")
    assert may(TreatmentDate="19990101", spans={})
    assert may(PatientBirthDate="19500101", spans={"PatientBirthDate": HELD}), "a date of the node itself"


def test_what_nothing_below_has_is_not_looked_for():
    assert not may(TreatmentDate="20260305", spans={"TreatmentDate": None})
    assert may(spans={"TreatmentDate": None})


def test_keys_below_the_level_asked_for_pass_nothing_over():
    assert may("SERIES", TreatmentDate="19990101")
    assert not may("STUDY", StudyDate="19990101", spans={"StudyDate": HELD})


def test_several_dates_in_one_key_pass_nothing_over():
    assert may(TreatmentDate=["19990101", "20260305"])
