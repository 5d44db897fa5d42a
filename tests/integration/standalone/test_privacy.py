"""Nobody clinical is named where Airflow keeps things, nor in logs, nor in our files, after all that (semantics 33)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.airflow_kept import files_of, pages_of, rows_of, told_by
from support.asked_runs import FINAL, wait_for
from support.identifiers import forms_of, found_in

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]

#: Where answers of a peer lie, whom they name.
ANSWERS = "storage/.dicom/answers/"
#: Shorter ones are among the numbers of a database's pages by chance.
_BYTES = 6


@pytest.fixture(scope="module")
def left(site) -> SimpleNamespace:
    """All that is left when all runs are over, by place."""
    for name in ("by_row", "by_form"):
        assert site.runs[name].finished()["state"] == "success", site.runs[name].states()
    for run in site.runs.values():
        wait_for(lambda: run.told()["state"] in FINAL, run.path)  # noqa: B023 - now
    files = files_of(site.home)
    named = "\n".join(str(path) for path in site.home.root.rglob("*")).encode()
    return SimpleNamespace(
        database=rows_of(site.home.database),
        database_before=site.kept_while_waiting,
        pages=pages_of(site.home),
        files={name: content for name, content in files.items() if not name.startswith(ANSWERS)} | {"names": named},
        answers={name: content for name, content in files.items() if name.startswith(ANSWERS)},
        told=told_by(site.page),
    )


def _found(places: dict[str, bytes], words: set[bytes]) -> dict[str, list[bytes]]:
    return {place: found for place, content in places.items() if (found := found_in(content, words))}


def _id_forms(site, patient) -> set[bytes]:
    return set(forms_of(patient.patient_id, ""))


def test_the_search_finds_who_was_told_on_purpose_in_each_place(site, left):
    from_id, from_name = set(forms_of(site.named["id"], "")), set(forms_of("", site.named["name"]))
    assert set(_found(left.database, from_id)) == {"xcom.value"}
    # Airflow 3.1 writes what a task returns in its log too.
    assert {"xcoms"} <= set(_found(left.told, from_id)) <= {"xcoms", "logs"}
    assert set(_found(left.told, from_name)) == {"logs"}
    told = _found(left.files, from_name)
    (log,) = (place for place in told if place.startswith("logs/") and "task_id=told" in place)
    assert set(told) <= {log, "storage/told.json", "standalone.log"}
    assert {log, "storage/told.json"} <= set(told)
    assert _found(left.pages, from_id)


def test_who_was_typed_into_a_form_is_where_airflow_keeps_forms_alone(site, left):
    words = _id_forms(site, site.typed)
    # And in what Airflow notes of each request to its API, whole.
    assert set(_found(left.database, words)) == {"dag_run.conf", "log.extra"}
    assert set(_found(left.told, words)) == {"runs", "events"}
    assert _found(left.files, words) == {}


def test_the_runs_really_looked_at_the_patients(site, left):
    assert sum(site.runs["by_row"].xcom("plans", index=index) for index in range(4)) >= 4
    assert site.runs["by_form"].xcom("plan")["outcome"] == "complete"
    assert list((site.home.storage / "typed").rglob("*.dcm"))
    for patient in site.patients[1:]:  # of the clinic; here they belong
        assert _found(left.answers, _id_forms(site, patient))


def test_nobody_clinical_is_named(site, left):
    for patient in site.patients:
        # An ID is one person's; a name that was told on purpose is nobody's among them.
        words = set(forms_of("" if patient is site.typed else patient.patient_id, patient.name))
        assert _found(left.database, words) == {}
        assert _found(left.database_before, words - _id_forms(site, site.typed)) == {}
        assert _found(left.files, words) == {}
        assert _found(left.told, words) == {}
        assert _found(left.pages, {word for word in words if len(word) >= _BYTES}) == {}
