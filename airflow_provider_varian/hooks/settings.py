"""The ``[varian]`` section of Airflow's configuration, read when it is needed."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowConfigException, ObjectStoragePath, conf

from airflow_provider_varian.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow_provider_varian.retrieval.receivers import NamedReceiver

SECTION = "varian"
_SECONDS_OF_A_DAY = 86400.0


def storage_root() -> ObjectStoragePath:
    """Return where retrieved objects, manifests and answers go by default.

    ``[varian] storage_root``, a folder or an object-storage URI; else ``dicom/`` under AIRFLOW_HOME.
    """
    configured = option("storage_root")
    return destination_path(configured) if configured else destination_path(str(_airflow_home() / "dicom"))


def root_of(destination: str | os.PathLike[str] | ObjectStoragePath | None) -> ObjectStoragePath:
    """Return where things go: :func:`destination_path` of what was named, else :func:`storage_root`.

    :param destination: what a task or a caller named; nothing, or an empty text, is the default.
    """
    return destination_path(destination) if destination else storage_root()


def spool_root() -> Path:
    """Return the spool of receivers inside a task, always a local folder.

    ``[varian] spool_root``, else ``dicom-spool/`` under AIRFLOW_HOME.

    :raises ConfigurationError: when it is set to a URI or to a relative path.
    """
    configured = option("spool_root")
    if not configured:
        return _airflow_home() / "dicom-spool"
    path = Path(configured).expanduser()
    if "://" in configured or not path.is_absolute():
        raise ConfigurationError(
            f"[{SECTION}] spool_root is {configured!r}, which is not an absolute path of a local folder",
            hint="Objects are made durable there before they are acknowledged: name a folder on a local disk.",
        )
    return path


def spool_retention_seconds() -> float:
    """Return for how long an object that nobody claims stays in the spool of tasks; 0: for ever.

    ``[varian] spool_retention_days``, else 14 days.

    :raises ConfigurationError: when it is no number of days.
    """
    from airflow_provider_varian.receiver.sweep import RETENTION_SECONDS

    configured = option("spool_retention_days")
    if not configured:
        return RETENTION_SECONDS
    try:
        days = float(configured)
    except ValueError:
        days = -1.0
    if not 0 <= days < math.inf:
        raise ConfigurationError(
            f"[{SECTION}] spool_retention_days is {configured!r}, which is no number of days",
            hint="Write a number such as 14, or 0 to keep everything for ever.",
        )
    return days * _SECONDS_OF_A_DAY


def receivers() -> dict[str, str]:
    """Return the standing receivers: name to spool folder or store URI.

    :raises ConfigurationError: when ``[varian] receivers`` is not a JSON object of texts.
    """
    configured = option("receivers")
    if not configured:
        return {}
    try:
        named = json.loads(configured)
    except ValueError:
        named = None
    if not isinstance(named, dict) or not all(isinstance(where, str) and where for where in named.values()):
        raise ConfigurationError(
            f"[{SECTION}] receivers is not a JSON object of names and places",
            hint='Write it like {"night": "/srv/dicom/spool"}.',
        )
    return dict(named)


def named_receiver(name: str) -> NamedReceiver:
    """Return a standing receiver, with where its objects are found.

    That is its spool on this host for an absolute path, and the store to which it publishes for a URI, also for a
    ``file://`` one of a folder that several hosts share.

    :param name: as a connection's ``receiver`` field gives it.
    :raises ConfigurationError: when there is none of that name, naming those that there are; or when it is neither.
    """
    from airflow_provider_varian.retrieval.receivers import NamedReceiver

    known = receivers()
    if name not in known:
        listed = ", ".join(sorted(known)) or "none"
        raise ConfigurationError(
            f"there is no standing receiver {name!r}; [{SECTION}] receivers knows {listed}",
            hint="Correct the connection's receiver, or add it: {\"" + name + '": "/srv/dicom/spool"}.',
        )
    where = known[name]
    if "://" in where:
        return NamedReceiver(name=name, store=destination_path(where))
    path = Path(where).expanduser()
    if not path.is_absolute():
        raise ConfigurationError(
            f"[{SECTION}] receivers says that {name!r} is at {where!r}, which is a relative path",
            hint="Name the absolute path of its spool on this host, or the URI of the store to which it publishes.",
        )
    return NamedReceiver(name=name, spool_root=path)


def destination_path(destination: str | os.PathLike[str] | ObjectStoragePath) -> ObjectStoragePath:
    """Return a destination as Airflow's path type.

    :param destination: an absolute local folder, or an object-storage URI such as ``s3://conn_id@bucket/key``.
    :raises ConfigurationError: for a relative path: workers have no working folder that one could rely on.
    """
    if isinstance(destination, ObjectStoragePath):
        return destination
    text = os.fspath(destination)
    if "://" in text:
        from airflow.sdk.io import has_fs
        from fsspec import available_protocols

        scheme = text.partition("://")[0]
        if scheme not in available_protocols() and not has_fs(scheme):
            raise ConfigurationError(
                f"destination {text!r} is in a store that Airflow does not know: {scheme}",
                hint="Install the provider package of that store, e.g. apache-airflow-providers-amazon[s3fs] for s3.",
            )
        return ObjectStoragePath(text)
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise ConfigurationError(
            f"destination {text!r} is a relative path",
            hint="Name an absolute folder or an object-storage URI such as s3://conn_id@bucket/key.",
        )
    # Not Path.as_uri(): its percent escapes would become part of the folder's name.
    return ObjectStoragePath(f"file://{path}")


def source_path(source: str | os.PathLike[str] | ObjectStoragePath, place: int) -> ObjectStoragePath:
    """Return a file that is to be sent as Airflow's path type.

    :param source: an absolute local path, or an object-storage URI.
    :param place: its place in the list, from 1: a message tells that, since a file's name may hold a patient's.
    :raises ConfigurationError: for a relative path, and for a store that Airflow does not know.
    """
    try:
        return destination_path(source)
    except ConfigurationError:
        pass
    raise ConfigurationError(
        f"number {place} of the files to be sent is a relative path, or in a store that Airflow does not know",
        hint="Name absolute paths or object-storage URIs such as s3://conn_id@bucket/key, and install the provider "
        "package of the store.",
    )


def below(root: ObjectStoragePath, *parts: str) -> ObjectStoragePath:
    """Return a path below a root; its connection stays.

    :param root: a folder or an object-storage prefix.
    :param parts: path components.
    """
    # Not by "/": with Airflow 3.1 that goes through a call which universal-pathlib has deprecated.
    return ObjectStoragePath("/".join((str(root).rstrip("/"), *parts)))


def option(name: str) -> str:
    """Return an option of the section; empty when it is not set."""
    try:
        value = conf.get(SECTION, name, fallback=None)
    except AirflowConfigException:
        return ""
    return str(value).strip() if value else ""


def _airflow_home() -> Path:
    return Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser().resolve()
