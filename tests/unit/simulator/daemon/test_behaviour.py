from __future__ import annotations

import pytest

from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour, habits


def test_defaults_are_those_of_a_16_1_service():
    defaults = Behaviour()
    assert defaults.implementation_class_uid == "1.2.246.352.70.2.1.162.2"
    assert defaults.implementation_version_name == "DB Svc 16.1"
    assert defaults.max_pdu == 64234
    assert defaults.implicit_only
    assert not defaults.get
    assert defaults.plan_label_key_length == 12


def test_switches_are_read_as_the_command_line_gives_them():
    changed = Behaviour().with_settings(
        ["get=on", "row_limit=5", "unmatchable_patient_ids=A B, $C", "character_set=", "not_found_status=0x0000"]
    )
    assert changed.get
    assert changed.row_limit == 5
    assert changed.unmatchable_patient_ids == ("A B", "$C")
    assert changed.character_set == ""
    assert changed.not_found_status == 0


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("gett=on", "Did you mean get"),
        ("get", "not a switch"),
        ("get=maybe", "on or off"),
        ("row_limit=many", "a whole number"),
        ("row_limit=-1", "a whole number"),
        ("character_set=latin", "ISO_IR 192"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(setting, words):
    with pytest.raises(ConfigurationError, match=words):
        Behaviour().with_settings([setting])


def test_every_switch_is_in_the_table_with_a_meaning():
    table = habits()
    assert {habit.name for habit in table} == set(Behaviour.__dataclass_fields__)
    assert all(habit.meaning for habit in table)
    assert set(range(1, 25)) == {quirk for habit in table for quirk in habit.quirks}
