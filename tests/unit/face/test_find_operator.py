"""Echo and find as operators: answers on storage, counts in XCom, identifiers in neither log nor XCom."""

from __future__ import annotations

import json
import logging

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_varian.errors import PeerUnreachableError
from airflow_provider_varian.hooks.settings import destination_path
from airflow_provider_varian.operators.dicom import ANSWERS_KEY, DicomEchoOperator, DicomFindOperator
from airflow_provider_varian.operators.rows import read_row, read_rows

KEYS = {"PatientID": "{{ patient }}", "Modality": "RTPLAN", "RTPlanLabel": "", "PatientName": ""}


def _find(aria, patient="QA_TB_WL", **kwargs):
    operator = DicomFindOperator(task_id="find", dicom_conn_id=aria, level="IMAGE", keys=KEYS, **kwargs)
    operator.render_template_fields({"patient": patient})
    return operator


@pytest.mark.parametrize("query", [False, True])
def test_echo_returns_who_answered(aria, daemon, context, query):
    answer = DicomEchoOperator(task_id="echo", dicom_conn_id=aria, query=query).execute(context())
    assert answer["implementation_version_name"] == "DB Svc 16.1"
    assert daemon.counts["C-FIND"] == (1 if query else 0)


def test_an_unreachable_peer_is_worth_a_retry(connect, receiver_port, context):
    with pytest.raises(PeerUnreachableError):
        DicomEchoOperator(task_id="echo", dicom_conn_id=connect("none", port=receiver_port)).execute(context())


def test_a_rejected_calling_ae_title_fails_at_once_and_says_where_to_enter_it(connect, daemon, context):
    wrong = connect("wrong", port=daemon.address[1], calling_ae_title="AIRFLOV")
    with pytest.raises(AirflowFailException, match="Trusted Application Entities"):
        DicomEchoOperator(task_id="echo", dicom_conn_id=wrong).execute(context())


def test_answers_go_to_storage_and_xcom_gets_where_and_how_many(aria, context, storage):
    at = context(task_id="find")
    told = _find(aria).execute(at)
    assert at["ti"].xcoms(ANSWERS_KEY) == [told]
    assert told["count"] == 6
    assert told["limited"] is False
    assert told["warnings"] == []
    assert str(storage / ".dicom" / "answers") in told["uri"]
    labels = {row["RTPlanLabel"] for row in read_rows(told["uri"]).values()}
    assert labels == {"WL_10MV", "PF_6MV", "OPEN_6MV", "T2_DRGS", "T3_MLCS"}


def test_no_identifier_in_xcom_or_log(aria, context, daemon, caplog):
    caplog.set_level(logging.DEBUG)
    patients = [answer["PatientID"] for answer in _clinical(aria)]
    assert patients
    at = context()
    for patient in patients:
        _find(aria, patient).execute(at)
    names = {part for answer in _clinical(aria) for part in str(answer["PatientName"]).replace("=", "^").split("^")}
    caplog.clear()
    at = context()
    _find(aria, patients[0]).execute(at)
    told = json.dumps(at["ti"].pushed, ensure_ascii=False) + caplog.text
    assert "C-FIND" in caplog.text  # the search looked at a log that says something
    assert not [word for word in {*patients, *names} if len(word) > 2 and word in told]


def _clinical(aria):
    from airflow_provider_varian.hooks.dicom import DicomHook

    found = DicomHook(aria).find("PATIENT", {"PatientID": "*", "PatientName": ""}).answers
    return [answer for answer in found if "QA" not in answer["PatientID"]]


def test_rows_are_opaque_keys_for_mapping(aria, context):
    at = context()
    keys = _find(aria, xcom="rows").execute(at)
    (told,) = at["ti"].xcoms(ANSWERS_KEY)
    assert len(keys) == 6
    assert read_row(told["uri"], keys[0])["PatientID"] == "QA_TB_WL"


def test_answers_come_through_xcom_when_asked_for(aria, context):
    answers = _find(aria, xcom="answers").execute(context())
    assert {answer["PatientID"] for answer in answers} == {"QA_TB_WL"}


def test_a_limit_that_was_hit_is_told(aria, context):
    told = _find(aria, limit=2).execute(context())
    assert (told["count"], told["limited"]) == (2, True)


def test_the_suspicion_of_a_crop_is_told(aria, context, monkeypatch):
    from airflow_provider_varian.query import asking

    monkeypatch.setattr(asking, "_SMALLEST_ROUND_COUNT", 6)
    at = context()
    _find(aria, xcom="rows").execute(at)
    (told,) = at["ti"].xcoms(ANSWERS_KEY)
    (warning,) = told["warnings"]
    assert "6 matches is a round number" in warning


def test_a_retry_writes_the_same_file(aria, context, storage):
    first, second = (_find(aria).execute(context(task_id="find")) for _ in range(2))
    assert first["uri"] == second["uri"]
    other = _find(aria).execute(context(task_id="find", map_index=1))
    assert other["uri"] != first["uri"]


def test_an_unknown_keyword_fails_at_once_with_the_nearest(aria, context, daemon):
    operator = DicomFindOperator(task_id="find", dicom_conn_id=aria, level="IMAGE", keys={"PatientId": "X"})
    with pytest.raises(AirflowFailException, match="Did you mean PatientID"):
        operator.execute(context())
    assert not daemon.counts


def test_an_unknown_xcom_form_is_refused_before_any_network(aria, context, daemon):
    with pytest.raises(AirflowFailException, match="uri, rows or answers"):
        _find(aria, xcom="all").execute(context())
    assert not daemon.counts


def test_undecided_answers_are_kept_apart_from_the_matches(aria, context, monkeypatch):
    from airflow_provider_varian.simulator.daemon import find_service

    inner = find_service.answer

    def emptied(*args, **kwargs):
        answer = inner(*args, **kwargs)
        if "RTPlanLabel" in answer and answer.get("RTPlanLabel") == "WL_10MV":
            answer.RTPlanLabel = None
        return answer

    monkeypatch.setattr(find_service, "answer", emptied)
    keys = {"PatientID": "QA_TB_WL", "Modality": "RTPLAN", "RTPlanLabel": "PF*"}
    at = context()
    operator = DicomFindOperator(
        task_id="find", dicom_conn_id=aria, level="IMAGE", keys=keys, undecided="keep", xcom="rows"
    )
    assert len(operator.execute(at)) == 2  # the label is in two courses
    (told,) = at["ti"].xcoms(ANSWERS_KEY)
    assert (told["count"], told["undecided"]) == (2, 1)
    content = json.loads(destination_path(told["uri"]).read_bytes())
    assert len(content["rows"]) == 2
    assert [answer["RTPlanLabel"] for answer in content["undecided"]] == [None]
