"""From keys to a request: what is asked first, how often, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.archive import ROOT, rt_image

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import CancelledError
from airflow_provider_varian.query.find import FindResult
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.model import model_for
from airflow_provider_varian.retrieval import selection
from airflow_provider_varian.retrieval.listing import MAX_ROUNDS, UNSTABLE, list_until_stable
from airflow_provider_varian.retrieval.outcome import Outcome
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.retrieval.selection import select

IMAGES = {"StudyInstanceUID": f"{ROOT}.1", "Modality": "RTIMAGE"}


def found(*uids, **settings):
    model = model_for(Level.IMAGE, "study_root")
    answers = [{"SOPInstanceUID": uid} for uid in uids]
    return FindResult(answers=answers, undecided=[], model=model, warnings=settings.pop("warnings", []), **settings)


def asking(*results):
    left = list(results)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_a_selection_of_images_is_asked_for_until_it_stands_still(clinic):
    late = [rt_image(6), rt_image(7)]

    def grow():
        if late:
            new = late.pop()
            clinic.archive.instances[new.SOPInstanceUID] = new

    clinic.archive.on_find = grow
    request = select(clinic.peer, "IMAGE", IMAGES, profile=replace(clinic.profile, stable_counts=3))
    assert len(request.expected) == 7
    assert clinic.archive.finds == 4
    assert request.warnings == ()


def test_other_levels_are_asked_once(clinic):
    profile = replace(clinic.profile, stable_counts=3)
    request = select(clinic.peer, "SERIES", IMAGES, profile=profile)
    assert request.keys["SeriesInstanceUID"] == f"{ROOT}.1.1"
    assert clinic.archive.finds == 1


def test_lists_are_compared_by_what_they_name_and_not_by_length(clinic):
    results = [found("1.1"), found("1.2"), found("1.3", "1.4"), found("1.4", "1.3")]
    result = list_until_stable(asking(*results), profile=replace(clinic.profile, stable_counts=2))
    assert result is results[3]


def test_a_list_that_never_stands_still_is_taken_with_a_warning(clinic):
    rounds = []

    def ask():
        rounds.append(found(f"1.{len(rounds)}", warnings=["a round count"]))
        return rounds[-1]

    result = list_until_stable(ask, profile=replace(clinic.profile, stable_counts=2))
    assert len(rounds) == MAX_ROUNDS
    assert result.answers == rounds[-1].answers
    assert result.warnings == ["a round count", UNSTABLE]


def test_the_rounds_can_be_cancelled(clinic):
    cancellation = Cancellation()

    def ask():
        cancellation.cancel()
        return found("1.1")

    with pytest.raises(CancelledError):
        list_until_stable(ask, profile=replace(clinic.profile, stable_counts=2), cancellation=cancellation)


@pytest.mark.parametrize("level", ["SERIES", "IMAGE"])
@pytest.mark.parametrize(("minimum", "outcome"), [(None, Outcome.EMPTY), (0, Outcome.EMPTY), (2, Outcome.SHORT)])
def test_a_selection_of_nothing_is_retrieved_as_nothing_and_written_down(clinic, level, minimum, outcome):
    request = select(clinic.peer, level, {**IMAGES, "Modality": "CT"}, profile=clinic.profile, minimum=minimum)
    assert request.expected == ()
    result = clinic.run(request)
    assert result.outcome is outcome
    assert (clinic.root / ".dicom" / "r-1.json").exists()
    assert result.manifest_path
    assert clinic.archive.requests == []


@pytest.mark.parametrize("level", ["SERIES", "IMAGE"])
def test_warnings_of_a_selection_reach_the_manifest(clinic, monkeypatch, level):
    find = selection.find
    said = "500 answers are a round number"
    monkeypatch.setattr(selection, "find", lambda *args, **kwargs: replace(find(*args, **kwargs), warnings=[said]))
    request = select(clinic.peer, level, IMAGES, profile=clinic.profile)
    assert request.warnings == (said,)
    assert clinic.run(request).manifest.warnings == [said]


def test_warnings_of_a_list_are_not_said_twice(clinic, monkeypatch):
    request = RetrievalRequest(level=Level.STUDY, keys={"StudyInstanceUID": f"{ROOT}.1"}, warnings=(UNSTABLE,))
    numbers = iter(range(100, 200))

    def grow():
        new = rt_image(next(numbers))
        clinic.archive.instances[new.SOPInstanceUID] = new

    clinic.archive.on_find = grow
    result = clinic.run(request, profile=replace(clinic.profile, stable_counts=2), dry_run=True)
    assert result.manifest.warnings == [UNSTABLE]
