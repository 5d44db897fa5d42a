"""Moving to a third party as a task: reported, listed or verified; what is missing on a retry, nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from support.archive import Archive
from support.third_party import FilingStation

from airflow_provider_varian.errors import IncompleteRetrievalError
from airflow_provider_varian.operators.manifest_xcom import MANIFEST_KEY
from airflow_provider_varian.operators.retrieve import DicomMoveOperator
from airflow_provider_varian.simulator.clinic.linacs import TRUEBEAM1
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity

PLANS = {"PatientID": "QA_TB_WL", "Modality": "RTPLAN"}
#: How many those are.
COUNT = sum(len(course.plans) for course in TRUEBEAM1.courses)


@pytest.fixture
def third(daemon, receiver_port, tmp_path):
    """A station that the daemon trusts as THIRD and that files what it gets."""
    with FilingStation(tmp_path / "filed", ae_title="THIRD") as station:
        station.folder.mkdir()
        host, port = station.address
        daemon.trust(
            [
                TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=receiver_port),
                TrustedEntity(ae_title="THIRD", host=host, port=port),
            ]
        )
        yield station


def mover(aria, **settings):
    return DicomMoveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS, **({"move_destination": "THIRD"} | settings))


def test_a_move_is_reported_and_only_its_manifest_is_kept_here(aria, context, third, storage):
    at = context()
    operator = mover(aria, move_destination="{{ to }}")
    operator.render_template_fields({"to": "THIRD"})
    told = operator.execute(at)
    assert (told["outcome"], told["counts"]["found"], told["counts"]["reported"]) == ("reported", COUNT, COUNT)
    assert len(third.got) == COUNT
    assert not list(storage.rglob("*.dcm"))
    manifests = at["ti"].xcoms(MANIFEST_KEY)
    assert manifests[0]["outcome"] == "pending"
    assert manifests[-1] == {"uri": told["manifest"], "outcome": "reported", "counts": told["counts"]}
    assert json.loads(Path(told["manifest"].removeprefix("file://")).read_text())["outcome"] == "reported"
    # That try is finished, and plans may have changed since: its report proves nothing of them now.
    again = mover(aria).execute(context())
    assert (again["counts"]["held"], len(third.got)) == (0, 2 * COUNT)


def test_whole_files_at_the_destination_complete_the_move_and_a_retry_moves_the_rest(aria, context, third, tmp_path):
    third.keeps = lambda uid: uid != third.got[0]
    operator = mover(aria, verify_path="{{ where }}", destination=str(tmp_path / "moves"))
    operator.render_template_fields({"where": str(third.folder)})
    with pytest.raises(IncompleteRetrievalError) as failed:
        operator.execute(context())
    lost = third.got[0]
    assert f"partial: {COUNT - 1} of {COUNT} instances sent to THIRD are verified in " in str(failed.value)
    assert f"missing: {lost}" in str(failed.value)
    third.keeps = lambda uid: True
    third.got.clear()
    told = operator.execute(context())
    assert (told["outcome"], told["counts"]["verified"], third.got) == ("complete", COUNT, [lost])
    assert told["manifest"].startswith(f"file://{tmp_path}/moves/.dicom/")
    # Its folders are named after patients, and so are the paths in the manifest: nothing else says them.
    assert "QA_TB_WL" not in json.dumps(told) + str(failed.value)


def test_what_the_destination_lists_completes_the_move(aria, context, connect, third):
    with Archive([]) as archive:
        third.on_store = lambda ds: archive.instances.__setitem__(str(ds.SOPInstanceUID), ds)
        operator = mover(aria, verify_dicom_conn_id="{{ them }}")
        operator.render_template_fields({"them": connect("research", port=archive.port, profile="generic")})
        told = operator.execute(context())
    assert (told["outcome"], told["counts"]["listed"]) == ("complete", COUNT)


@pytest.mark.parametrize("proof", [{"verify_path": "/srv"}, {"verify_dicom_conn_id": "research"}], ids=list)
def test_a_proof_without_a_third_party_is_refused(aria, context, daemon, proof):
    operator = mover(aria, move_destination=None, **proof)
    with pytest.raises(AirflowFailException, match="move_destination"):
        operator.execute(context())
    assert daemon.counts["C-FIND"] == daemon.counts["C-MOVE"] == 0


@pytest.mark.parametrize(
    "setting",
    [
        {"verify": "hash"},
        {"verify": "path"},
        {"refresh": "never"},
        {"refresh": "always"},
        {"port_wait_seconds": 0},
        {"layout": "{SOPInstanceUID}.dcm"},
    ],
    ids=str,
)
def test_what_says_how_we_receive_is_refused_with_a_third_party(aria, context, daemon, setting):
    (name,) = setting
    with pytest.raises(AirflowFailException, match=f"{name}: cannot apply to a move to 'THIRD'"):
        mover(aria, **setting).execute(context())
    assert daemon.counts["C-FIND"] == daemon.counts["C-MOVE"] == 0


def test_all_that_cannot_apply_is_named_at_once(aria, context):
    with pytest.raises(
        AirflowFailException, match=r"layout, verify: cannot apply.*Leave them out, or move_destination"
    ):
        mover(aria, layout="{SOPInstanceUID}", verify="hash").execute(context())


def test_a_move_to_ourselves_takes_what_says_how_we_receive(aria, context, storage):
    settings = {"verify": "hash", "refresh": "never", "port_wait_seconds": 5, "layout": "{SOPInstanceUID}.dcm"}
    assert mover(aria, move_destination="", **settings).execute(context())["outcome"] == "complete"
    assert len(list(storage.glob("*.dcm"))) == COUNT


def test_a_relative_folder_is_refused_before_anything_is_moved(aria, context, third):
    with pytest.raises(AirflowFailException, match="relative"):
        mover(aria, verify_path="filed").execute(context())
    assert third.got == []
