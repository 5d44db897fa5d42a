"""What the pages say is what the code does."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from airflow_provider_varian.aria.expectation import Expectation
from airflow_provider_varian.aria.machines import Machine
from airflow_provider_varian.cli.keys import parse_keys
from airflow_provider_varian.cli.main import VERBS, parser
from airflow_provider_varian.retrieval.outcome import Outcome, State

TOP = Path(__file__).parents[3]
PAGES = [*sorted((TOP / "docs").rglob("*.md")), *sorted(TOP.glob("*.md")), TOP / "docker" / "README.md"]


def text_of(name):
    return (TOP / name).read_text(encoding="utf-8")


def keys_of_table(page, heading):
    """Return the first column of the table that begins with the heading's row."""
    after = page.split(heading, 1)[1]
    return re.findall(r"^\| `(\w+)` \|", after.split("\n\n", 1)[0], re.M)


def commands():
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                command = line.removeprefix("$ ").split("|")[0]
                if command.startswith("varian-dicom "):
                    yield pytest.param(command, id=f"{page.name}: {command[:60]}")


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_on_a_page_is_one_that_the_program_takes(command):
    arguments = parser().parse_args(shlex.split(command, comments=True)[1:])
    parse_keys(getattr(arguments, "keys", []))


def test_there_are_commands_on_the_pages():
    assert len(list(commands())) > 10


def test_every_verb_has_its_help_on_the_command_line_page():
    page = text_of("docs/howto/command-line.md")
    assert re.findall(r"```\{verb-help\} ([\w-]+)", page) == [verb.name for verb in VERBS]


def test_the_machine_table_has_the_keys_of_a_machine():
    page = text_of("docs/getting-started/first-dag.md")
    assert keys_of_table(page, "| Key | Meaning | Default |") == [field.name for field in fields(Machine)]
    expected = page.split("`expected` says", 1)[1]
    assert keys_of_table(expected, "| Key | Meaning | Default |") == [field.name for field in fields(Expectation)]


def test_every_outcome_and_state_is_explained():
    outcomes = keys_of_table(text_of("docs/errors-and-fixes.md"), "| Outcome | Meaning |")
    assert set(outcomes) == {str(outcome) for outcome in Outcome}
    states = keys_of_table(text_of("docs/how-it-works.md"), "| State | Meaning |")
    assert set(states) == {str(state) for state in State} - {"reported", "listed"}


@pytest.mark.airflow
@pytest.mark.parametrize(
    ("page", "name", "tasks"),
    [
        ("docs/operators.md", "fetch_plans", ["answers", "plans"]),
        ("docs/operators.md", "images_of_the_day", ["images"]),
        ("docs/sensors.md", "fetch_plans_when_they_are_there", ["has_plans", "is_up", "plans"]),
    ],
)
def test_the_example_of_a_page_is_a_dag(page, name, tasks):
    (example,) = [each for each in re.findall(r"```python\n(.*?)```", text_of(page), re.S) if f"def {name}(" in each]
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(example, page, "exec"), names)
    assert sorted(names[name]().task_dict) == tasks


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        # The changelog's and README's own parts are included into pages elsewhere; paths count from their file.
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("name", ["README.md", "docs/index.md", "docs/intended-use.md"])
def test_the_pages_say_what_this_is_not(name):
    text = re.sub(r"\s+", " ", text_of(name)).lower()
    assert "not affiliated with or endorsed by varian" in text
    assert "not a medical device" in text or "it is not a medical device" in text
