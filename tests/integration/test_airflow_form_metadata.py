"""What Airflow's web page gets to draw the connection form: on 3.1 from the hook, later from the metadata."""

from __future__ import annotations

import json

import pytest
from support.airflow_process import bare_home

from airflow_provider_varian.connection_fields import CONNECTION_FIELDS

pytestmark = pytest.mark.airflow

# The service behind GET /ui/connections/hook_meta; it replaces form libraries by mocks, so it gets a process.
_PROGRAM = """
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
(form,) = [each for each in HookMetaService.hook_meta_data() if each.connection_type == "dicom"]
print("RESULT " + form.model_dump_json())
import sys
print("LOADED", [name for name in ("pynetdicom", "pydicom", "numpy") if name in sys.modules])
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> str:
    done = bare_home(tmp_path_factory.mktemp("airflow")).python("-c", _PROGRAM)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def form(output) -> dict:
    (line,) = [line for line in output.splitlines() if line.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


def test_the_form_has_every_field_in_order(form):
    fields = form["extra_fields"]
    assert list(fields) == [field.key for field in CONNECTION_FIELDS]
    for field in CONNECTION_FIELDS:
        shown = fields[field.key]
        assert field.label in (shown["schema"].get("title"), shown.get("label"))
        assert shown["value"] == field.default
        assert shown["description"] == field.help


def test_choices_are_a_drop_down_and_secrets_are_masked(form):
    fields = form["extra_fields"]
    assert fields["retrieve_method"]["schema"]["enum"] == ["auto", "move", "get"]
    assert fields["tls_private_key"]["schema"]["format"] == "password"
    assert "boolean" in fields["tls"]["schema"]["type"]


def test_standard_fields_bear_our_names(form):
    standard = form["standard_fields"]
    assert standard["host"]["title"] == "Host of the peer"
    assert standard["login"]["title"] == "User identity (not your ARIA login)"
    assert standard["url_schema"]["hidden"]


def test_drawing_the_form_loads_no_heavy_library(output):
    assert "LOADED []" in output
