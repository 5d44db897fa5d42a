"""What reaches a terminal, a pipe and a file."""

from __future__ import annotations

import io
import json

from airflow_provider_varian.cli.output import Output, cell, printable


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_control_characters_of_a_peer_are_shown_and_not_obeyed():
    assert printable("a\x1b[2Jb\rc\nd\x9b") == r"a\x1b[2Jb\rc\nd\x9b"
    assert printable("Müller^山田=太郎") == "Müller^山田=太郎"


def test_values_fit_into_one_cell():
    assert cell(None) == ""
    assert cell(["ORIGINAL", "PRIMARY", "PORTAL"]) == "ORIGINAL\\PRIMARY\\PORTAL"
    assert cell([{"ReferencedSOPInstanceUID": "1.2"}]) == "{ReferencedSOPInstanceUID=1.2}"
    assert cell(1.5) == "1.5"
    assert cell({"A": "\x1b[0m"}) == r"{A=\x1b[0m}"


def test_a_piped_table_keeps_each_row_on_one_line(capsys):
    uid = "1.2.246.352.62.1." + "9" * 46
    Output().table(["SOPInstanceUID", "Label"], [{"SOPInstanceUID": uid, "Label": "x" * 300}, {"Label": "[red]y[/]"}])
    head, rule, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["SOPInstanceUID", "Label"]
    assert set(rule) <= {"─", " "}
    assert first.split() == [uid, "x" * 300]
    assert second.split() == ["[red]y[/]"]


def test_json_is_the_only_thing_on_standard_output(capsys):
    Output(as_json=True).result([{"PatientName": "Müller"}], lambda: print("a table"))
    assert json.loads(capsys.readouterr().out) == [{"PatientName": "Müller"}]


def test_progress_is_silent_away_from_a_terminal(capsys):
    with Output().progress("retrieving") as advance:
        advance(1, 2, "1 KB")
    assert capsys.readouterr() == ("", "")


def test_progress_counts_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Output().progress("retrieving [x]") as advance:
        advance(3, 11, "")
    assert "retrieving [x]" in terminal.getvalue()
    assert "3/11" in terminal.getvalue()
