from __future__ import annotations

import pytest

from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.query.profile import ExpectedFailure, Profile

PLAIN = Profile(name="plain")


def test_no_overrides_change_nothing():
    assert PLAIN.overridden(None) == PLAIN
    assert PLAIN.overridden({}) == PLAIN


def test_overrides_come_as_json():
    changed = PLAIN.overridden(
        {
            "relational_queries": True,
            "known_caps": [500],
            "too_broad_statuses": ["0xC001", 42753],
            "patient_id_patterns": {"QA_2026_LONG": "*A_2026_LONG"},
            "unreliable_matching_keys": ["RTPlanLabel"],
            "settle_seconds": 1,
            "stable_counts": 2,
        }
    )
    assert changed.relational_queries
    assert changed.known_caps == {500}
    assert changed.too_broad_statuses == {0xC001, 42753}
    assert changed.patient_id_patterns["QA_2026_LONG"] == "*A_2026_LONG"
    assert changed.unreliable_matching_keys == {"RTPlanLabel"}
    assert changed.settle_seconds == 1.0
    assert changed.stable_counts == 2


def test_an_unknown_override_names_the_nearest():
    with pytest.raises(ConfigurationError, match=r"'relational_query'.*Did you mean relational_queries"):
        PLAIN.overridden({"relational_query": True})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("relational_queries", "yes"),
        ("stable_counts", 0),
        ("stable_counts", True),
        ("settle_seconds", -1),
        ("settle_seconds", float("nan")),
        ("known_caps", 500),
        ("too_broad_statuses", ["many"]),
        ("unreliable_matching_keys", "RTPlanLabel"),
        ("patient_id_patterns", {"A": "no wildcard"}),
        ("patient_id_patterns", ["A"]),
        ("volatile_attributes", [1]),
        ("expected_failures", {"name": "x"}),
        ("expected_failures", ["plan without beams"]),
        ("expected_failures", [{"name": "x", "reason": "y"}]),
        ("expected_failures", [{"name": "x", "comment": "y"}]),
        ("expected_failures", [{"name": "x", "reason": "y", "comment": "z", "status": 1}]),
        ("expected_failures", [{"name": "x", "reason": "", "comment": "z"}]),
        ("expected_failures", [{"name": "x", "reason": "y", "comment": "z", "statuses": ["many"]}]),
        ("expected_failures", [{"name": "x", "reason": "y", "answered": ["NumberOfBeams"]}]),
    ],
)
def test_an_override_of_another_kind_is_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=name):
        PLAIN.overridden({name: value})


def test_the_name_cannot_be_overridden():
    with pytest.raises(ConfigurationError, match="unknown name 'name'"):
        PLAIN.overridden({"name": "other"})


def test_patterns_stay_out_of_the_text_form():
    assert "SECRET" not in repr(PLAIN.overridden({"patient_id_patterns": {"SECRET": "*ECRET"}}))


NO_BEAMS = {
    "name": "plan without beams", "reason": "it has no beams", "sop_class_uids": ["1.2.3"],
    "statuses": ["0xA702", "0xB000"], "comment": "empty Beam Sequence", "answered": {"NumberOfBeams": 0},
}  # fmt: skip


def test_expected_failures_come_as_json_too():
    (only,) = PLAIN.overridden({"expected_failures": [NO_BEAMS]}).expected_failures
    assert only == ExpectedFailure(
        name="plan without beams",
        reason="it has no beams",
        sop_class_uids=frozenset({"1.2.3"}),
        statuses=frozenset({0xA702, 0xB000}),
        comment="empty Beam Sequence",
        answered={"NumberOfBeams": "0"},
    )
    assert PLAIN.overridden({"expected_failures": []}).expected_failures == ()


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        ({"comment": "Cannot export RT Plan with an EMPTY beam sequence"}, True),
        ({"comment": "Cannot export", "answered": {"NumberOfBeams": 0}}, True),
        ({"answered": {"NumberOfBeams": "0 "}, "sop_class_uid": "1.2.3", "status": 0xB000}, True),
        ({"answered": {"NumberOfBeams": 3}}, False),
        ({"answered": {"NumberOfBeams": None}}, False),
        ({"answered": {}}, False),
        ({"status": 0xB000}, False),
        ({"comment": "empty Beam Sequence", "sop_class_uid": "1.2.4"}, False),
        ({"comment": "empty Beam Sequence", "status": 0xC001}, False),
        ({}, False),
    ],
)
def test_a_failure_is_expected_when_comment_or_answer_show_it_and_nothing_speaks_against_it(failed, expected):
    profile = PLAIN.overridden({"expected_failures": [NO_BEAMS]})
    found = profile.expected_failure(**failed)
    assert (found is not None) == expected
    assert found is None or found.reason == "it has no beams"
