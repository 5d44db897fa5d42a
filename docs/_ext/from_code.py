"""Directives whose content is made from the code at build time, so that the pages cannot drift from it."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, _SubParsersAction

from attack_table import attack_lines
from docutils import nodes
from docutils.statemachine import StringList
from profile_table import HEADING as PROFILE_HEADING
from profile_table import profile_rows
from reliability_table import HEADING, reliability_rows
from simulator_table import simulator_rows
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from table_cells import escaped


class ConnectionFields(SphinxDirective):
    """``{connection-fields}``: every field of a ``dicom`` connection, as a table."""

    def run(self) -> list[nodes.Node]:
        from airflow_provider_varian.connection_fields import CONNECTION_FIELDS

        lines = ["| Field | What it says | Values | Default |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{field.key}` | {escaped(field.help)} | {_values(field)} | {_default(field)} |"
            for field in CONNECTION_FIELDS
        ]
        container = nodes.Element()
        self.state.nested_parse(StringList(lines, source="connection_fields.py"), self.content_offset, container)
        return container.children


class VerbHelp(SphinxDirective):
    """``{verb-help} find``: the help text of one verb of ``varian-dicom``, or of the program itself."""

    required_arguments = 0
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        from airflow_provider_varian.cli.main import parser

        # The text must not depend on the terminal that builds the pages.
        os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}
        text = _parser_of(parser(), self.arguments[0] if self.arguments else "").format_help()
        return [nodes.literal_block(text, text, language="text")]


class SimulatorSwitches(SphinxDirective):
    """``{simulator-switches}``: switches and faults of the simulated daemon with their tests, as one table."""

    def run(self) -> list[nodes.Node]:
        lines = ["| Quirk | Name | Default | Meaning | Test |", "| --- | --- | --- | --- | --- |", *simulator_rows()]
        container = nodes.Element()
        self.state.nested_parse(StringList(lines, source="behaviour.py"), self.content_offset, container)
        return container.children


class Reliability(SphinxDirective):
    """``{reliability} quirks`` or ``faults``: what becomes of each, and the test that shows it, as a table."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        lines = [f"| {' | '.join(HEADING)} |", "| " + " | ".join(["---"] * len(HEADING)) + " |"]
        lines += reliability_rows(self.arguments[0])
        container = nodes.Element()
        self.state.nested_parse(StringList(lines, source="table.py"), self.content_offset, container)
        return container.children


class ProfileHabits(SphinxDirective):
    """``{profile}``: what is known of a peer, by the profiles that there are, as a table."""

    def run(self) -> list[nodes.Node]:
        lines = [f"| {' | '.join(PROFILE_HEADING)} |", "| " + " | ".join(["---"] * len(PROFILE_HEADING)) + " |"]
        lines += profile_rows()
        container = nodes.Element()
        self.state.nested_parse(StringList(lines, source="profile.py"), self.content_offset, container)
        return container.children


class Attacks(SphinxDirective):
    """``{attacks}``: every attack on the receiver, what holds, and the tests that show it, as tables."""

    def run(self) -> list[nodes.Node]:
        container = nodes.Element()
        self.state.nested_parse(StringList(attack_lines(), source="attack_table.py"), self.content_offset, container)
        return container.children


class Irregularities(SphinxDirective):
    """``{irregularities}``: what is unusual about patients of the synthetic clinic, as a table."""

    def run(self) -> list[nodes.Node]:
        from airflow_provider_varian.simulator.clinic.irregularities import Irregularity

        lines = ["| Name | Meaning | Quirk |", "| --- | --- | --- |"]
        lines += [f"| `{each}` | {escaped(each.meaning)} | {each.quirk or ''} |" for each in Irregularity]
        container = nodes.Element()
        self.state.nested_parse(StringList(lines, source="irregularities.py"), self.content_offset, container)
        return container.children


def _parser_of(root: ArgumentParser, verb: str) -> ArgumentParser:
    if not verb:
        return root
    (verbs,) = [action for action in root._actions if isinstance(action, _SubParsersAction)]
    return verbs.choices[verb]


def _values(field) -> str:
    if field.choices:
        return ", ".join(f"`{choice}`" for choice in field.choices)
    words = {
        "string": "text",
        "text": "PEM text",
        "password": "text, masked",
        "integer": "whole number",
        "number": "number",
        "boolean": "yes or no",
        "object": "JSON object",
    }
    text = words[field.kind]
    if field.minimum is not None and field.maximum is not None:
        text += f", {field.minimum:g} to {field.maximum:.0f}"
    if field.kind == "string" and field.max_length:
        text += f", at most {field.max_length} characters"
    return text


def _default(field) -> str:
    if field.required:
        return "**required**"
    return (
        ""
        if field.default is None
        else f"`{field.default if isinstance(field.default, str) else json.dumps(field.default)}`"
    )


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("connection-fields", ConnectionFields)
    app.add_directive("verb-help", VerbHelp)
    app.add_directive("simulator-switches", SimulatorSwitches)
    app.add_directive("irregularities", Irregularities)
    app.add_directive("reliability", Reliability)
    app.add_directive("attacks", Attacks)
    app.add_directive("profile", ProfileHabits)
    return {"parallel_read_safe": True}
