from __future__ import annotations

import pytest

from airflow_provider_varian.simulator.objects import clinical_plan, structure_set
from airflow_provider_varian.simulator.objects.deferred import Deferred


@pytest.fixture
def calls():
    return []


@pytest.fixture
def deferred(calls):
    def make():
        calls.append("made")
        return [1]

    return Deferred({"Modality": "RTSTRUCT"}, {"ROIContourSequence": make})


def test_what_is_laborious_is_made_when_looked_at_and_once(deferred, calls):
    assert set(deferred) == {"Modality", "ROIContourSequence"}
    assert len(deferred) == 2
    assert "ROIContourSequence" in deferred
    assert "Rows" not in deferred
    assert deferred["Modality"] == "RTSTRUCT"
    assert calls == []
    assert deferred["ROIContourSequence"] == deferred["ROIContourSequence"] == [1]
    assert calls == ["made"]
    assert len(deferred) == 2
    with pytest.raises(KeyError):
        deferred["Rows"]


def test_joining_makes_nothing_and_the_right_side_counts(deferred, calls):
    joined = {"PatientID": "1", "Modality": "CT"} | deferred | {"StationName": "A"}
    assert (joined["PatientID"], joined["Modality"], joined["StationName"]) == ("1", "RTSTRUCT", "A")
    assert calls == []
    assert joined["ROIContourSequence"] == [1]
    replaced = deferred | {"ROIContourSequence": []}
    assert replaced["ROIContourSequence"] == []
    assert ({"ROIContourSequence": []} | deferred)["ROIContourSequence"] == [1]


def test_a_spread_makes_everything(deferred):
    assert {**deferred} == {"Modality": "RTSTRUCT", "ROIContourSequence": [1]}


def test_a_question_about_a_label_draws_no_contour_and_no_beam(case, monkeypatch):
    def forbidden(*_):
        raise AssertionError("nobody asked for it")

    monkeypatch.setattr(structure_set, "_contours", forbidden)
    monkeypatch.setattr(clinical_plan, "_beam", forbidden)
    drawn = structure_set.structure_set_values(case, case.structure_sets[0])
    assert drawn["StructureSetLabel"] == "CT_1"
    plan = clinical_plan.plan_values(case, case.plans[0])
    assert plan["RTPlanLabel"] == "PROST_60Gy"
    with pytest.raises(AssertionError, match="nobody"):
        plan["BeamSequence"]
