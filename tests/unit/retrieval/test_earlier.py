"""What an earlier try of the same work found, and how it is joined with what is listed now."""

from __future__ import annotations

import pytest

from airflow_provider_varian.query.level import Level
from airflow_provider_varian.retrieval.earlier import expectation
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.request import RetrievalRequest


def request(level=Level.SERIES, **keys):
    return RetrievalRequest(level=level, keys=keys).summary()


def selected(level=Level.IMAGE, **settings):
    """Describe what a selection by other keys than UIDs makes."""
    return RetrievalRequest(level=level, expected=(), **settings).summary()


def entries(*numbers, state=State.FOUND):
    return [Entry(sop_instance_uid=f"1.{number}", state=state) for number in numbers]


def join(now, before, *, listed, outcome=Outcome.PARTIAL, earlier=None, listed_here=False, limited=False):
    found = earlier or [*entries(1, state=State.VERIFIED), *entries(2, state=State.MISSING)]
    previous = Manifest(id="r", request=before, ledger=Ledger(found), outcome=outcome)
    return expectation(entries(*listed), previous=previous, request=now, listed_here=listed_here, limited=limited)


def numbers(joined):
    return [uid.removeprefix("1.") for uid in joined.entries]


A, B = {"SeriesInstanceUID": "1.5"}, {"SeriesInstanceUID": "1.6"}
BOTH = {"SeriesInstanceUID": ["1.5", "1.6"]}


def test_without_an_earlier_try_the_list_is_all():
    joined = expectation(entries(3), previous=None, request=selected(), listed_here=False, limited=False)
    assert (numbers(joined), joined.kept, joined.limited) == (["3"], 0, False)


def test_what_is_kept_is_as_it_was_found():
    joined = join(selected(), selected(), listed=(3,))
    assert numbers(joined) == ["3", "1", "2"]
    assert {entry.state for entry in joined.entries.values()} == {State.FOUND}
    assert joined.kept == 2


def test_what_is_listed_again_is_not_kept_but_listed():
    joined = join(selected(), selected(), listed=(1, 2))
    assert (numbers(joined), joined.kept) == (["1", "2"], 0)


@pytest.mark.parametrize("outcome", [Outcome.PENDING, Outcome.PARTIAL])
def test_a_selection_keeps_what_an_unfinished_try_found(outcome):
    assert numbers(join(selected(), selected(), listed=(), outcome=outcome)) == ["1", "2"]


@pytest.mark.parametrize("outcome", [Outcome.COMPLETE, Outcome.SHORT, Outcome.LIMITED, Outcome.EMPTY])
def test_a_selection_keeps_nothing_of_a_finished_try(outcome):
    joined = join(selected(), selected(), listed=(3,), outcome=outcome, earlier=entries(1, state=State.VERIFIED))
    assert numbers(joined) == ["3"]


def test_uids_that_were_listed_here_keep_a_finished_try_too():
    joined = join(request(**A), request(**A), listed=(3,), outcome=Outcome.COMPLETE, listed_here=True)
    assert numbers(joined) == ["3", "1", "2"]


def test_a_patients_retrieval_keeps_what_an_unfinished_try_found():
    patient = request(Level.PATIENT, PatientID="P")
    assert numbers(join(patient, patient, listed=(), listed_here=True)) == ["1", "2"]
    finished = join(patient, patient, listed=(3,), listed_here=True, outcome=Outcome.COMPLETE)
    assert numbers(finished) == ["3"]


@pytest.mark.parametrize(
    ("now", "before"),
    [
        (request(**A), request(**B)),
        (request(**A), request(StudyInstanceUID="1.4", **B)),
        (selected(), selected(Level.SERIES)),
        (request(Level.STUDY, StudyInstanceUID="1.4", PatientID="P"), request(StudyInstanceUID="1.4", **A)),
        (
            {**request(**A), "keys_left_out": ["PatientID"]},
            {**request(**A), "keys_left_out": ["AccessionNumber"]},
        ),
        (selected(), {}),
    ],
)
def test_other_work_keeps_nothing(now, before):
    assert numbers(join(now, before, listed=(3,))) == ["3"]


@pytest.mark.parametrize(
    ("now", "before"),
    [
        (request(**A), request(**BOTH)),
        (request(**BOTH), request(**A)),
        (request(**A), request(StudyInstanceUID="1.4", **A)),
        (selected(Level.SERIES), request(**A)),
        (request(PatientID="P", **A), request(**A)),
    ],
)
def test_a_list_of_series_that_wobbles_is_the_same_work(now, before):
    assert numbers(join(now, before, listed=(3,), listed_here=True)) == ["3", "1", "2"]


# With a limit


def test_with_a_limit_what_was_taken_before_is_taken_first():
    limit = selected(limit=2)
    joined = join(limit, limit, listed=(3, 1), limited=True)
    assert (numbers(joined), joined.kept, joined.limited) == (["1", "2"], 1, True)


def test_new_instances_fill_up_to_the_limit():
    limit = selected(limit=3)
    joined = join(limit, limit, listed=(3, 4, 5), limited=True)
    assert (numbers(joined), joined.limited) == (["1", "2", "3"], True)


def test_a_list_within_the_limit_that_exceeds_it_with_what_was_found_before_is_limited():
    limit = selected(limit=3)
    joined = join(limit, limit, listed=(3, 4))
    assert (numbers(joined), joined.limited) == (["1", "2", "3"], True)
    assert not join(limit, limit, listed=(3,)).limited


def test_a_limit_that_was_hit_once_is_not_forgotten_when_the_list_shrinks():
    limit = selected(limit=2)
    assert join(limit, {**limit, "limited": True}, listed=(1,)).limited
    assert not join(limit, limit, listed=(1,)).limited
    # The whole list is there again, and within the limit.
    assert not join(limit, {**limit, "limited": True}, listed=(1, 2)).limited
    assert not join(selected(limit=5), {**limit, "limited": True}, listed=(1,)).limited
