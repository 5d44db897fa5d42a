"""``airflow providers`` and ``airflow plugins`` tell of all that this one brings."""

from __future__ import annotations

import json

import pytest
from support.airflow_process import bare_home

from airflow_provider_varian import __version__
from airflow_provider_varian.get_provider_info import get_provider_info

pytestmark = pytest.mark.airflow

NAME = "airflow-provider-varian"
INFO = get_provider_info()
# Airflow's own command line, all of it in one process.
_PROGRAM = f"""
import contextlib, io, json
from airflow.cli.cli_parser import get_parser
parser, told = get_parser(), {{}}
asked = {{name: ["providers", name] for name in ("list", "get", "hooks", "triggers", "configs")}}
asked["get"] += [{NAME!r}, "--full"]
asked["plugins"] = ["plugins"]
for name, words in asked.items():
    arguments = parser.parse_args([*words, "--output", "json"])
    with contextlib.redirect_stdout(io.StringIO()) as output:
        arguments.func(arguments)
    told[name] = [row for row in json.loads(output.getvalue()) if "varian" in json.dumps(row)]
print("RESULT " + json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict:
    """What each command says of this provider."""
    done = bare_home(tmp_path_factory.mktemp("airflow")).python("-c", _PROGRAM)
    assert done.returncode == 0, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


def test_the_provider_is_listed_with_its_version(told):
    (provider,) = told["list"]
    assert (provider["package_name"], provider["version"]) == (NAME, __version__)


def test_all_that_the_metadata_names_is_told(told):
    (provider,) = told["get"]
    for kind in ("hooks", "operators", "sensors", "triggers", "connection-types", "config"):
        assert kind in provider
    for kind in ("hooks", "operators", "sensors", "triggers"):
        modules = [module for each in INFO[kind] for module in each["python-modules"]]
        assert modules
        assert [module for module in modules if module not in str(provider[kind])] == []


def test_the_hook_of_the_connection_type_is_registered(told):
    (hook,) = told["hooks"]
    assert hook["connection_type"] == "dicom"
    assert hook["class"] == "airflow_provider_varian.hooks.dicom.DicomHook"
    assert hook["hook_name"] == "DICOM peer"


def test_each_module_of_triggers_is_registered(told):
    named = {module for each in INFO["triggers"] for module in each["python-modules"]}
    assert {trigger["class"] for trigger in told["triggers"]} == named


def test_each_option_of_the_section_is_told(told):
    text = json.dumps(told["configs"])
    options = INFO["config"]["varian"]["options"]
    assert options
    assert [name for name in options if f'"{name}"' not in text.replace("\\", "")] == []


def test_the_plugin_is_loaded_with_its_macros(told):
    (plugin,) = told["plugins"]
    assert plugin["name"] == "varian_dicom"
    assert "airflow-provider-varian" in plugin["source"]
    assert "date_range" in str(plugin["macros"])
