"""What settings may be: refused at the start, with the setting, the value and what is allowed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.raw_client import raw_client

from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.simulator.daemon import negotiation
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour, habits
from airflow_provider_varian.simulator.daemon.faults import Fault, Kind, Step
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.settings_text import read_settings, written
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity

LONG_UID = ".".join(["1"] * 33)


@pytest.mark.parametrize(
    ("name", "wrong", "allowed"),
    [
        ("not_found_status", "0x10000", "a status from 0x0000 to 0xFFFF"),
        ("unknown_destination_status", "65536", "a status from 0x0000 to 0xFFFF"),
        ("unreachable_destination_status", "0x1A702", "a status from 0x0000 to 0xFFFF"),
        ("store_calling_ae_title", "SEVENTEEN_LETTERS", "1 to 16 characters: ASCII"),
        ("store_calling_ae_title", "A\\B", "without backslash"),
        ("store_calling_ae_title", "Zürich", "1 to 16 characters: ASCII"),
        ("implementation_class_uid", "1..2", "a UID"),
        ("implementation_class_uid", "1.02", "without leading zeros"),
        ("implementation_class_uid", "", "a UID"),
        ("implementation_class_uid", LONG_UID, "at most 64 characters"),
        ("implementation_version_name", "", "1 to 16 characters: ASCII"),
        ("implementation_version_name", "SEVENTEEN_LETTERS", "1 to 16 characters: ASCII"),
        ("max_pdu", "1023", "from 1024"),
        ("max_pdu", "4294967296", "to 4294967295"),
        ("client_character_sets", "OLD", "AET:CHARACTER SET"),
        ("client_character_sets", "OLD:ISO_IR 6", "ISO_IR 192, ISO_IR 100 or empty"),
        ("client_character_sets", "OLD:ISO_IR 100,:ISO_IR 100", "AET:CHARACTER SET"),
        ("character_set", "latin1", "ISO_IR 192, ISO_IR 100 or empty"),
        ("acquisition_seconds", "604801", "a number of seconds from 0 to 604800"),
        ("partial_move_probability", "1.5", "a number from 0 to 1"),
    ],
)
def test_a_switch_names_itself_the_value_and_what_is_allowed(name, wrong, allowed):
    with pytest.raises(ConfigurationError) as refused:
        Behaviour().with_settings([f"{name}={wrong}"])
    assert f"does not fit {name}. {name} is " in str(refused.value)
    assert allowed in str(refused.value)
    shown = f"{int(wrong, 0):#06x}" if name.endswith("status") else wrong.split(",")[-1].replace("\\", "\\\\")
    assert shown in str(refused.value)


@pytest.mark.parametrize(
    "setting",
    [
        "not_found_status=0xFFFF",
        "unknown_destination_status=0x0000",
        "store_calling_ae_title=",
        "store_calling_ae_title=SIXTEEN__LETTERS",
        "store_calling_ae_title=Db Daemon",
        f"implementation_class_uid={LONG_UID[:63]}",
        "implementation_version_name=SIXTEEN__LETTERS",
        "max_pdu=1024",
        "max_pdu=0",
        "client_character_sets=OLD:ISO_IR 100, DB:X:ISO_IR 192,NEW:",
        "acquisition_seconds=604800",
    ],
)
def test_what_is_just_allowed_is_taken(setting):
    name, _, text = setting.partition("=")
    taken = getattr(Behaviour().with_settings([setting]), name)
    assert written(name, taken).lower().replace(" ", "") == text.lower().replace(" ", "")


def test_code_may_set_no_more_than_the_command_line():
    with pytest.raises(ConfigurationError, match="-1 does not fit row_limit"):
        replace(Behaviour(), row_limit=-1)
    with pytest.raises(ConfigurationError, match="inf does not fit late_images_seconds"):
        Behaviour(late_images_seconds=float("inf"))
    with pytest.raises(ConfigurationError, match="-1 does not fit times"):
        Fault(kind=Kind.ABORT, step=Step.ROW, times=-1)


def test_an_unknown_switch_is_told_the_nearest_and_how_to_list_all():
    with pytest.raises(ConfigurationError) as refused:
        Behaviour().with_settings(["max-pdo=1"])
    assert re.search(r"Did you mean max_pdu=\.\.\.", str(refused.value))
    assert "varian-dicom simulate --quirk help" in str(refused.value)
    assert len(str(refused.value)) < 200
    with pytest.raises(ConfigurationError, match="simulate --quirk help"):
        Behaviour().with_settings(["xyz=1"])
    with pytest.raises(ConfigurationError, match="Write get=VALUE"):
        Behaviour().with_settings(["get"])


def test_a_value_is_written_as_it_is_read():
    for habit in habits():
        text = written(habit.name, habit.default)
        again = read_settings([f"{habit.name}={text}"], {habit.name: habit.default}, kind="switch")
        assert again == {habit.name: habit.default}, habit.name


@pytest.mark.parametrize("title", ["", "   ", "SEVENTEEN_LETTERS", "A\\B", "Zürich", "TAB\t"])
def test_no_ae_title_is_longer_than_it_may_be_or_has_other_characters(clinic, title):
    with pytest.raises(ConfigurationError, match="1 to 16 characters: ASCII"):
        SimulatedDaemon(clinic, ae_title=title)
    with pytest.raises(ConfigurationError, match="1 to 16 characters: ASCII"):
        TrustedEntity(ae_title=title, host="127.0.0.1", port=104)


def test_a_trusted_entity_has_a_character_set_of_the_daemon():
    assert TrustedEntity(ae_title="A", host="127.0.0.1", port=104, character_set="").character_set == ""
    with pytest.raises(ConfigurationError, match="ISO_IR 100"):
        TrustedEntity(ae_title="A", host="127.0.0.1", port=104, character_set="ISO_IR 6")


def test_every_rejection_that_can_be_asked_for_can_be_sent(clinic):
    taken = []
    for result in range(4):
        for source in range(5):
            for reason in range(9):
                try:
                    taken.append(
                        Fault(kind=Kind.REJECT, step=Step.ASSOCIATION, reason=f"{result}/{source}/{reason}").rejection()
                    )
                except ConfigurationError:
                    continue
    by_source = {1: (1, 2, 3, 7), 2: (1, 2), 3: (1, 2)}
    assert taken == [
        (result, source, reason) for result in (1, 2) for source in by_source for reason in by_source[source]
    ]


def test_nobody_is_let_in_whom_the_daemon_failed_to_judge(daemon, monkeypatch, simulator_log):
    def fail(*_):
        raise KeyError("Mustermann^Erika")

    monkeypatch.setattr(negotiation, "refusal", fail)
    with raw_client(daemon) as client:
        told = client.associate()
    assert (told.end, told.reason) == ("reject", (2, 1, 1))
    assert daemon.counts["rejected"] == 1
    assert daemon.counts["association"] == 0
    [line] = [each.getMessage() for each in simulator_log.records if "could not be judged" in each.getMessage()]
    assert "KeyError at test_limits.py" in line
    assert " < server.py" in line
    assert "\n" not in line
    assert "Mustermann" not in line


def test_nobody_is_let_in_when_not_even_a_rejection_can_be_sent(daemon, monkeypatch):
    def fail(*_):
        raise ValueError

    monkeypatch.setattr(negotiation, "reject", fail)
    with raw_client(daemon) as client:
        assert client.associate(called="NOBODY").end == "abort"


def test_a_request_that_could_not_be_served_is_logged_in_one_line(daemon, client, monkeypatch, simulator_log):
    from airflow_provider_varian.errors import PeerFailureError
    from airflow_provider_varian.simulator.daemon import server

    def fail(*_, **__):
        raise LookupError("Mustermann^Erika")

    monkeypatch.setattr(server, "find", fail)
    with pytest.raises(PeerFailureError, match="0xC000"):
        client.find("STUDY", PatientID="QA_TB_WL")
    [line] = [each.getMessage() for each in simulator_log.records if "could not be served" in each.getMessage()]
    assert line.startswith("C-FIND could not be served: LookupError at test_limits.py:")
    assert "\n" not in line
    assert "Mustermann" not in line


def test_what_the_page_sets_can_be_set():
    page = (Path(__file__).parents[4] / "docs" / "simulator.md").read_text(encoding="utf-8")
    commands = [line for line in page.splitlines() if line.startswith("$ varian-dicom simulate")]
    quirks = [text for line in commands for text in re.findall(r"--quirk (\S+)", line)]
    faults = [text for line in commands for text in re.findall(r"--fault (\S+)", line)]
    assert len(quirks) > 5
    assert len(faults) > 5
    Behaviour().with_settings(quirks)
    assert {Fault.parse(text).service for text in faults} >= {"C-ECHO", "C-STORE"}
