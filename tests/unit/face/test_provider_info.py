"""The provider's metadata: valid by Airflow's schemas, whole, and true."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from pkgutil import iter_modules

import jsonschema
import pytest
from airflow.providers.common.compat.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger

import airflow_provider_varian
from airflow_provider_varian.connection_fields import CONNECTION_FIELDS
from airflow_provider_varian.get_provider_info import get_provider_info

# What only a provider inside the Airflow repository has: its releases and its life in that repository.
_COMMUNITY_ONLY = {"state": "ready", "source-date-epoch": 0, "versions": ["0.1.0"]}


#: Kinds of modules that the metadata names.
_KINDS = ("hooks", "operators", "sensors", "triggers")


def _schema(name: str) -> dict:
    return json.loads(files("airflow").joinpath(name).read_text())


def test_metadata_is_valid_where_airflow_reads_it():
    jsonschema.validate(get_provider_info(), _schema("provider_info.schema.json"))


def test_metadata_is_valid_by_the_strict_schema_of_community_providers():
    schema = _schema("provider.yaml.schema.json")
    connection_type = schema["properties"]["connection-types"]["items"]["properties"]
    info = get_provider_info()
    if "conn-fields" not in connection_type:  # Airflow 3.1 asks the hook instead
        for each in info["connection-types"]:
            for key in ("conn-fields", "ui-field-behaviour", "hook-name"):
                del each[key]
    jsonschema.validate(info | _COMMUNITY_ONLY, schema)


def _named() -> list[str]:
    info = get_provider_info()
    names = [each["hook-class-name"] for each in info["connection-types"]]
    names += [each["plugin-class"] for each in info["plugins"]]
    for kind in _KINDS:
        for each in info[kind]:
            names += each["python-modules"]
    return names


@pytest.mark.parametrize("name", _named())
def test_what_the_metadata_names_can_be_imported(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute)


def test_the_plugin_is_an_entry_point_too():
    """Where providers are discovered lazily, Airflow loads no plugin that the metadata alone names."""
    named = {each["name"]: each["plugin-class"] for each in get_provider_info()["plugins"]}
    ours = distribution("airflow-provider-varian").entry_points.select(group="airflow.plugins")
    assert {each.name: each.value.replace(":", ".") for each in ours} == named
    assert {each.name: each.load().name for each in ours} == {name: name for name in named}


@pytest.mark.parametrize("kind", ["operators", "sensors", "triggers"])
def test_whatever_may_be_used_is_in_a_module_that_the_metadata_names(kind):
    """Also what a later module brings."""
    package = importlib.import_module(f"airflow_provider_varian.{kind}")
    modules = [importlib.import_module(f"{package.__name__}.{each.name}") for each in iter_modules(package.__path__)]
    named = [importlib.import_module(name) for each in get_provider_info()[kind] for name in each["python-modules"]]
    made_here = {
        found
        for module in modules
        for found in vars(module).values()
        if inspect.isclass(found) and issubclass(found, (BaseOperator, BaseTrigger)) and not inspect.isabstract(found)
        if found.__module__.startswith(f"{package.__name__}.") and not found.__name__.startswith("_")
    }
    assert made_here
    assert [each for each in made_here if not any(vars(module).get(each.__name__) is each for module in named)] == []


def test_every_kind_belongs_to_a_named_integration():
    info = get_provider_info()
    integrations = {each["integration-name"] for each in info["integrations"]}
    assert {each["integration-name"] for kind in _KINDS for each in info[kind]} == integrations


def test_the_form_has_every_field_of_the_table_and_marks_only_the_required_ones():
    (connection_type,) = get_provider_info()["connection-types"]
    fields = connection_type["conn-fields"]
    assert list(fields) == [field.key for field in CONNECTION_FIELDS]
    # What cannot be null bears a red asterisk.
    assert [key for key, field in fields.items() if "null" not in field["schema"]["type"]] == ["called_ae_title"]


def test_connection_type_agrees_with_the_hook():
    from airflow_provider_varian.hooks.dicom import DicomHook

    (connection_type,) = get_provider_info()["connection-types"]
    assert connection_type["connection-type"] == DicomHook.conn_type
    assert connection_type["hook-name"] == DicomHook.hook_name
    assert connection_type["hook-class-name"] == f"{DicomHook.__module__}.{DicomHook.__qualname__}"
    assert "__" not in DicomHook.conn_type  # Airflow splits form fields there


def test_configuration_section_says_what_each_option_is():
    options = get_provider_info()["config"]["varian"]["options"]
    trail = ["audit", "audit_ca", "audit_certificate", "audit_private_key"]
    assert list(options) == ["storage_root", "spool_root", "spool_retention_days", "receivers", *trail]
    for option in options.values():
        assert option["description"]
        assert option["version_added"]
        assert option["example"]
        assert option["sensitive"] is False


def test_a_field_that_does_nothing_yet_says_so():
    package = Path(airflow_provider_varian.__file__).parent
    reading = ("connection_fields.py", "dimse/settings.py", "dimse/peer.py")  # these check and hold, whatever is used
    sources = [file for file in package.rglob("*.py") if str(file.relative_to(package)) not in reading]
    code = "\n".join(file.read_text() for file in sources)
    # Each TLS text has a name of its own inside TlsSettings.
    told = [field for field in CONNECTION_FIELDS if not field.key.startswith("tls_")]
    unused = {field.key for field in told if not re.search(rf"peer\.{field.key}\b", code)}
    assert {field.key for field in told if field.help.startswith("Not used yet")} == unused
