"""Manifests as JSON: the names that programs rely on."""

from __future__ import annotations

import json

import pytest
from support.manifests import PEER, complete, file, held, missing, moved, sent

from airflow_provider_varian.dimse.store import StoreState
from airflow_provider_varian.reports.account import Account
from airflow_provider_varian.reports.check import Check
from airflow_provider_varian.reports.mapping import account_mapping
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.retrieval.outcome import Outcome, State

NAMES = [
    "path",
    "kind",
    "id",
    "outcome",
    "message",
    "problem",
    "counts",
    "attempts",
    "started",
    "finished",
    "peer",
    "request",
    "missing",
    "conflicts",
    "unexpected",
    "superseded",
    "found_late",
    "requests",
    "fallbacks",
    "warnings",
    "verification",
]


def mapping(document, **options):
    values = account_mapping(Account(path="/qa/x.json", document=document), **options)
    assert json.loads(json.dumps(values)) == values
    return values


@pytest.mark.parametrize("document", [complete("x"), sent("x", file(1)), None])
def test_every_name_is_there_for_every_kind(document):
    assert list(mapping(document)) == NAMES


def test_an_unreadable_one_is_its_path_and_problem():
    values = account_mapping(Account(path="/qa/x.json", problem="it is not there"))
    assert {name: value for name, value in values.items() if value not in (None, [], {})} == {
        "path": "/qa/x.json",
        "problem": "it is not there",
    }


def test_a_retrieval_is_told_whole(tmp_path):
    manifest = complete(
        "x",
        held(tmp_path, "1.1", superseded="v/a.dcm", found_late=True),
        missing("1.2", "never asked for", series_instance_uid="1.3", study_instance_uid="1.4", sop_class_uid="1.5"),
        Entry(sop_instance_uid="1.6", state=State.CONFLICT, path="a.dcm", conflicts=["b.dcm"]),
        outcome=Outcome.PARTIAL,
        requests=[moved("SERIES", completed=1)],
        fallbacks=[{"from": "a", "to": "b", "reason": "c"}],
        warnings=["w"],
    )
    manifest.ledger.unexpected["1.9"] = Entry(sop_instance_uid="1.9", state=State.RECEIVED)
    values = mapping(manifest, check=Check(checked=1, hashed=1, differences={"1.1": "gone"}))
    assert (values["kind"], values["id"], values["outcome"], values["attempts"]) == ("retrieval", "x", "partial", 1)
    assert values["counts"] == manifest.ledger.counts()
    assert values["started"] == "2026-01-05T07:45:00.000+00:00"
    assert values["peer"] == PEER
    assert values["request"] == manifest.request
    nothing = {"sop_class_uid": None, "series_instance_uid": None, "study_instance_uid": None, "reason": None}
    assert values["missing"] == [
        {
            "sop_instance_uid": "1.2",
            "sop_class_uid": "1.5",
            "series_instance_uid": "1.3",
            "study_instance_uid": "1.4",
            "state": "missing",
            "reason": "never asked for",
            "attempts": 2,
        }
    ]
    conflict = {"sop_instance_uid": "1.6", "state": "conflict", "path": "a.dcm", "others": ["b.dcm"]}
    assert values["conflicts"] == [nothing | conflict]
    assert values["unexpected"] == [nothing | {"sop_instance_uid": "1.9", "state": "received"}]
    older = {"sop_instance_uid": "1.1", "state": "verified", "path": "study/1.1.dcm", "older": "v/a.dcm"}
    assert values["superseded"] == [nothing | older]
    assert values["found_late"] == ["1.1"]
    assert values["requests"] == [manifest.requests[0].to_json()]
    assert values["fallbacks"] == [{"from": "a", "to": "b", "reason": "c"}]
    assert values["warnings"] == ["w"]
    assert values["verification"]["differences"] == [{"sop_instance_uid": "1.1", "difference": "gone"}]


def test_of_what_was_sent_the_missing_are_what_the_peer_does_not_have():
    document = sent("x", file(1), file(2, StoreState.FAILED, reason="refused", attempts=1))
    values = mapping(document)
    assert (values["kind"], values["outcome"], values["counts"]) == ("store", "partial", document.counts())
    (lacking,) = values["missing"]
    assert (lacking["position"], lacking["sop_instance_uid"], lacking["state"]) == (2, "1.2", "failed")


def test_fields_that_nobody_knows_are_not_repeated():
    manifest = complete(
        "x",
        request={"level": "STUDY", "PatientName": "DOE^JANE"},
        peer=PEER | {"PatientID": "4711"},
        timings={"started": "DOE^JANE"},
        fallbacks=[{"from": "a", "PatientName": "DOE^JANE"}, "DOE^JANE"],
    )
    text = json.dumps(mapping(manifest))
    assert "DOE" not in text
    assert "4711" not in text
