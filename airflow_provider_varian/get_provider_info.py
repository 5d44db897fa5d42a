"""What Airflow reads about this provider: pure data.

Airflow calls :func:`get_provider_info` in every one of its processes, so nothing is imported here but the
table of connection fields (standard library only).
"""

from __future__ import annotations

from typing import Any

from airflow_provider_varian import connection_fields

_INTEGRATION = "Varian ARIA DICOM"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, in the form of Airflow's ``provider_info.schema.json``.

    The connection form is made from :data:`.connection_fields.CONNECTION_FIELDS` (Airflow 3.2 and later read it
    here; Airflow 3.1 asks the hook, which makes it from the same table).
    """
    return {
        "package-name": "airflow-provider-varian",
        "name": "Varian ARIA DICOM",
        "description": (
            "Query and retrieve radiotherapy objects from the Varian ARIA DICOM DB Daemon, and from any other DICOM "
            "archive. Not affiliated with or endorsed by Varian; not a medical device."
        ),
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://www.dicomstandard.org/current",
                "tags": ["protocol"],
            }
        ],
        "hooks": [
            {"integration-name": _INTEGRATION, "python-modules": ["airflow_provider_varian.hooks.dicom"]},
        ],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_provider_varian.operators.aria",
                    "airflow_provider_varian.operators.dicom",
                    "airflow_provider_varian.operators.patient_list",
                    "airflow_provider_varian.operators.plan_export",
                    "airflow_provider_varian.operators.retrieve",
                    "airflow_provider_varian.operators.store",
                ],
            }
        ],
        "sensors": [
            {"integration-name": _INTEGRATION, "python-modules": ["airflow_provider_varian.sensors.dicom"]},
        ],
        "triggers": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_provider_varian.triggers.dicom",
                    "airflow_provider_varian.triggers.operators",
                ],
            },
        ],
        "connection-types": [
            {
                "connection-type": connection_fields.CONNECTION_TYPE,
                "hook-class-name": connection_fields.HOOK_CLASS_NAME,
                "hook-name": connection_fields.HOOK_NAME,
                "ui-field-behaviour": connection_fields.UI_FIELD_BEHAVIOUR,
                "conn-fields": connection_fields.connection_form(),
            }
        ],
        "plugins": [
            {"name": "varian_dicom", "plugin-class": "airflow_provider_varian.plugins.varian_dicom.VarianDicomPlugin"}
        ],
        "config": {"varian": _config_section()},
    }


def _config_section() -> dict[str, Any]:
    return {
        "description": "Where the Varian ARIA DICOM provider keeps what it receives.",
        "options": {
            "storage_root": {
                "description": (
                    "Folder or object-storage URI under which retrieved objects, manifests and query answers are "
                    "kept when an operator names no destination. Empty: ``dicom`` under AIRFLOW_HOME.\n"
                ),
                "version_added": "0.1.0",
                "type": "string",
                "example": "s3://dicom_store@qa-images/aria",
                "default": None,
                "sensitive": False,
            },
            "spool_root": {
                "description": (
                    "Local folder in which a receiver inside a task makes objects durable before it acknowledges "
                    "them. It must survive a restart of the worker. Empty: ``dicom-spool`` under AIRFLOW_HOME.\n"
                ),
                "version_added": "0.1.0",
                "type": "string",
                "example": "/var/lib/airflow/dicom-spool",
                "default": None,
                "sensitive": False,
            },
            "spool_retention_days": {
                "description": (
                    "For how many days an object that no retrieval claims stays in the spool of tasks; 0: for ever. "
                    "A standing receiver has its own ``--retention-days``.\n"
                ),
                "version_added": "0.1.0",
                "type": "float",
                "example": "30",
                "default": "14",
                "sensitive": False,
            },
            "receivers": {
                "description": (
                    "Standing receivers as a JSON object: the name that a connection's ``receiver`` field gives, and "
                    "the absolute path of the receiver's spool on this host, or the URI of the store to which it "
                    "publishes.\n"
                ),
                "version_added": "0.1.0",
                "type": "string",
                "example": '{"night": "/srv/dicom-spool", "elsewhere": "s3://dicom_store@arrivals/night"}',
                "default": None,
                "sensitive": False,
            },
            **_audit_options(),
        },
    }


def _audit_options() -> dict[str, Any]:
    texts = {
        "audit": (
            "Where tasks keep an audit trail (DICOM PS3.15 A.5): the absolute path of a file that the worker's user "
            "alone may write, or ``syslog+tls://HOST:PORT``. Empty: nowhere.\n",
            "/var/log/varian-dicom/audit.xml",
        ),
        "audit_ca": (
            "PEM file of the authority of that syslog server. Empty: the system's authorities.\n",
            "/etc/ssl/hospital-ca.pem",
        ),
        "audit_certificate": (
            "PEM file of the certificate to show to that server, when it wants one.\n",
            "/etc/ssl/airflow.pem",
        ),
        "audit_private_key": ("PEM file of its key.\n", "/etc/ssl/private/airflow.key"),
    }
    return {
        name: {
            "description": description,
            "version_added": "0.1.0",
            "type": "string",
            "example": example,
            "default": None,
            "sensitive": False,
        }
        for name, (description, example) in texts.items()
    }
