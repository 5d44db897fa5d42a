"""The connection form of Airflow 3.1, from the same table as the metadata that later versions read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_varian.connection_fields import CONNECTION_FIELDS, UI_FIELD_BEHAVIOUR

if TYPE_CHECKING:
    from airflow_provider_varian.connection_fields import ConnectionField


def connection_form_widgets() -> dict[str, Any]:
    """Return one form field per entry of the connection table.

    Airflow 3.1 shows texts, whole numbers, passwords, switches and choices. Times are whole seconds there, and
    JSON is typed as text; a fraction can still be written into the extra's JSON.
    """
    return {field.key: _widget(field) for field in CONNECTION_FIELDS}


def ui_field_behaviour() -> dict[str, Any]:
    """Return the names and placeholders of the standard fields, in the spelling that Airflow 3.1 asks of a hook."""
    return {
        "hidden_fields": list(UI_FIELD_BEHAVIOUR["hidden-fields"]),
        "relabeling": dict(UI_FIELD_BEHAVIOUR["relabeling"]),
        "placeholders": dict(UI_FIELD_BEHAVIOUR["placeholders"]),
    }


def _widget(field: ConnectionField) -> Any:
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import Optional, any_of

    classes = {
        "boolean": BooleanField,
        "integer": IntegerField,
        "number": IntegerField,
        "password": PasswordField,
    }
    validators: list[Any] = [] if field.required else [Optional()]
    if field.choices:
        validators.append(any_of(list(field.choices)))
    return classes.get(field.kind, StringField)(
        field.label, validators=validators, description=field.help, default=field.default
    )
