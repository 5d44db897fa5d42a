"""The plugin: its name is what templates call the macros by."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowPlugin

from airflow_provider_varian.plugins import macros as of_templates


class VarianDicomPlugin(AirflowPlugin):
    """Macros for templates.

    Airflow finds it by the entry point ``airflow.plugins``; what the metadata alone names is not loaded where
    providers are discovered lazily, as is the default.
    """

    name = "varian_dicom"
    macros = [of_templates.date_range, of_templates.run_day]  # noqa: RUF012 - as Airflow declares it
