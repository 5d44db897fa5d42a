from __future__ import annotations

import json
from datetime import date

import jsonschema
import pytest

from airflow_provider_varian.aria.expectation import Expectation
from airflow_provider_varian.aria.machines import machines_schema, parse_machine, parse_machines
from airflow_provider_varian.errors import ConfigurationError

LEAST = {"name": "TrueBeam1", "dicom_conn_id": "aria", "patient_id": "QA_TB_WL", "plan_label": "WL_10MV"}
WHOLE = {
    **LEAST,
    "course": "QA",
    "images": "portal_dose",
    "kv": True,
    "expected": {"working_days": ["mon", "sat"], "holidays": ["2026-12-25"], "minimum": 8},
    "lookback_days": 5,
}


def test_the_least_configuration_takes_its_defaults():
    machine = parse_machine(LEAST)
    assert (machine.images, machine.kv, machine.course, machine.lookback_days) == ("portal", False, None, 3)
    assert machine.expected == Expectation()
    assert machine.expected.minimum == 1


def test_a_whole_configuration_survives_json():
    machine = parse_machine(WHOLE)
    assert machine.expected.working_days == ("mon", "sat")
    assert machine.expected.holidays == (date(2026, 12, 25),)
    assert parse_machine(json.loads(json.dumps(machine.to_json()))) == machine


def test_each_beam_once_takes_the_place_of_the_minimum():
    machine = parse_machine({**LEAST, "expected": {"each_beam_once": True}})
    assert machine.expected.each_beam_once
    assert machine.expected.minimum is None
    assert parse_machine(machine.to_json()) == machine


def test_null_is_absent():
    assert parse_machine({**LEAST, "course": None, "expected": None, "kv": None}) == parse_machine(LEAST)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"plan_lable": "x"}, "'TrueBeam1' has the unknown key 'plan_lable'. Did you mean plan_label"),
        ({"patient_id": None}, "'TrueBeam1' lacks patient_id"),
        ({"patient_id": "QA*"}, "patient_id takes the exact Patient ID"),
        ({"patient_id": "A" * 65}, "patient_id takes at most 64"),
        ({"plan_label": " "}, "plan_label takes text"),
        ({"images": "dose"}, "images takes one of portal, portal_dose, any"),
        ({"kv": "no"}, "kv takes true or false"),
        ({"lookback_days": -1}, "lookback_days takes a whole number from 0"),
        ({"lookback_days": True}, "lookback_days"),
        ({"expected": {"minimun": 1}}, "'TrueBeam1': expected has the unknown key 'minimun'. Did you mean minimum"),
        ({"expected": {"minimum": 0}}, "'TrueBeam1': expected: minimum|'TrueBeam1'.*minimum"),
        ({"expected": {"minimum": 1, "each_beam_once": True}}, "both minimum and each_beam_once"),
        ({"expected": {"working_days": ["monday"]}}, "working_days takes a list of mon"),
        ({"expected": {"working_days": "mon"}}, "working_days takes a list"),
        ({"expected": {"holidays": ["25.12.2026"]}}, "holidays takes a list of dates"),
        ({"expected": []}, "expected is not a mapping"),
    ],
)
def test_a_mistake_names_the_machine_and_the_key(change, words):
    with pytest.raises(ConfigurationError, match=words):
        parse_machine({**LEAST, **change})


def test_a_machine_without_a_name_goes_by_its_place():
    with pytest.raises(ConfigurationError, match="machine number 2 lacks name"):
        parse_machines([LEAST, {**LEAST, "name": None}])


@pytest.mark.parametrize("configuration", [None, [], {}, "machines", [5]])
def test_what_is_no_list_of_mappings_is_refused(configuration):
    with pytest.raises(ConfigurationError, match="mapping"):
        parse_machines(configuration)


def test_the_same_plan_twice_is_refused():
    with pytest.raises(ConfigurationError, match="listed twice"):
        parse_machines([LEAST, LEAST])
    assert len(parse_machines([LEAST, {**LEAST, "course": "QA"}, {**LEAST, "plan_label": "PF_6MV"}])) == 3


def test_messages_and_text_forms_show_no_patient_id():
    assert "QA_TB_WL" not in repr(parse_machine(LEAST))
    with pytest.raises(ConfigurationError) as caught:
        parse_machine({**LEAST, "patient_id": "GEHEIM*"})
    assert "GEHEIM" not in str(caught.value)


@pytest.mark.parametrize("machine", [LEAST, WHOLE])
def test_the_form_accepts_what_the_parser_accepts(machine):
    schema = machines_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate([machine], schema)
    jsonschema.validate([parse_machine(machine).to_json()], schema)


@pytest.mark.parametrize(
    "machine", [{**LEAST, "plan_lable": "x"}, {**LEAST, "images": "dose"}, {"name": "x"}, {**LEAST, "kv": "no"}]
)
def test_the_form_refuses_what_the_parser_refuses(machine):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([machine], machines_schema())
    with pytest.raises(ConfigurationError):
        parse_machines([machine])
