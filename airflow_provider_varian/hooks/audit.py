"""The audit trail of what the hook does: where ``[varian] audit`` says, and for whom Airflow runs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.hooks import settings

if TYPE_CHECKING:
    from airflow_provider_varian.dimse.peer import Peer, TlsSettings
    from airflow_provider_varian.query.find import OnQuery
    from airflow_provider_varian.query.query import Query
    from airflow_provider_varian.receiver.audit_sinks import AuditSink
    from airflow_provider_varian.retrieval.trail import WorkTrail
    from airflow_provider_varian.retrieval.trail_messages import Requestor

SYSLOG: Final = "syslog+tls://"
#: Below the spool of tasks: what the trail does not take waits there.
WAITING_FOLDER: Final = "audit"
_TLS_OPTIONS: Final = ("audit_ca", "audit_certificate", "audit_private_key")


@contextmanager
def work_trail(peer: Peer, by: Requestor | None = None) -> Iterator[WorkTrail | None]:
    """Open the trail that is configured, for one piece of work; ``None`` when none is.

    :param peer: with whom the work is done.
    :param by: who has it done; ``None``: see :func:`requestor`.
    :raises ConfigurationError: when the trail cannot be used as it is configured.
    """
    where = settings.option("audit")
    if not where:
        yield None
        return
    from airflow_provider_varian.receiver.audit_waiting import WaitingSink
    from airflow_provider_varian.receiver.audit_xml import Us
    from airflow_provider_varian.retrieval.trail import WorkTrail

    sink = WaitingSink(_sink(where), settings.spool_root() / WAITING_FOLDER)
    try:
        yield WorkTrail(sink, by or requestor(), us=Us(ae_titles=(peer.calling_ae_title,)))
    finally:
        sink.close()


def asking(peer: Peer, by: Requestor | None = None) -> OnQuery | None:
    """Return what tells the trail of queries, each once; ``None`` when there is no trail.

    :param peer: who is asked.
    :param by: who asks; ``None``: see :func:`requestor`.
    :raises ConfigurationError: at once, when the trail cannot be used as it is configured.
    """
    with work_trail(peer, by) as trail:
        if trail is None:
            return None
    told: set[tuple[str, Query]] = set()

    def tell(asked: Peer, query: Query) -> None:
        from airflow_provider_varian.retrieval.trail import Asking

        # Opened for each: a selection is asked again long after it was made.
        if (asked.name, query) not in told:
            told.add((asked.name, query))
            with work_trail(asked, by) as trail:
                Asking(trail)(asked, query)

    return tell


def requestor() -> Requestor:
    """Return who has this done: the task that runs in this process and its DAG run, else the user of the system."""
    from airflow.providers.common.compat.sdk import get_current_context

    try:
        context = get_current_context()
    except RuntimeError:
        return requestor_of(None)
    # Empty for a run that the scheduler began.
    user_name = str(getattr(context.get("dag_run"), "triggering_user_name", None) or "")
    return requestor_of(context["ti"], user_name=user_name)


def requestor_of(instance: Any, *, user_name: str = "") -> Requestor:
    """Return a task instance as the trail names it; what has none is done for the user of the system.

    :param instance: of a task, also of a deferred one in the triggerer; or ``None``.
    :param user_name: who began the run.
    """
    from airflow_provider_varian.retrieval.trail_messages import Requestor, system_user

    if instance is None:
        return Requestor(user_id=system_user())
    parts = {"dag_id": instance.dag_id, "run_id": instance.run_id, "task_id": instance.task_id}
    if instance.map_index is not None and instance.map_index >= 0:
        parts["map_index"] = str(instance.map_index)
    if number := getattr(instance, "try_number", None):
        parts["try_number"] = str(number)
    return Requestor(user_id=", ".join(f"{name}={value}" for name, value in parts.items()), user_name=user_name)


def _sink(where: str) -> AuditSink:
    from airflow_provider_varian.receiver.audit_sinks import AuditFile, AuditSyslog

    given = {name: value for name in _TLS_OPTIONS if (value := settings.option(name))}
    if where.startswith(SYSLOG):
        host, port = _server(where)
        try:
            return AuditSyslog(host, port, _tls(given))
        except ConfigurationError as error:
            if error.step == "audit":
                raise
            wrong = (
                "audit_ca is" if "tls_ca_certificate" in error.what else "audit_certificate and audit_private_key are"
            )
            raise _wrong(f"{wrong} not what they should be", "Name PEM files; a key without a password.") from None
    if given:
        raise _wrong(f"{next(iter(given))} is set, but audit names no {SYSLOG} server", "Remove it, or name a server.")
    if "://" in where or not Path(where).expanduser().is_absolute():
        raise _wrong(
            f"audit is {where!r}, which is neither an absolute path nor {SYSLOG}HOST:PORT",
            "Name a file on this host, or a syslog server that speaks TLS.",
        )
    return AuditFile(Path(where).expanduser())


def _server(where: str) -> tuple[str, int]:
    from urllib.parse import urlsplit

    from airflow_provider_varian.receiver.audit_sinks import SYSLOG_TLS_PORT

    try:
        parts = urlsplit(where)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    else:
        if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
            host = None
    if not host:
        raise _wrong(f"audit is {where!r}, which names no server", f"Write {SYSLOG}logs.example.org:6514.")
    return host, port or SYSLOG_TLS_PORT


def _tls(given: dict[str, str]) -> TlsSettings:
    from airflow_provider_varian.dimse.peer import TlsSettings

    if ("audit_certificate" in given) != ("audit_private_key" in given):
        raise _wrong("audit_certificate and audit_private_key are not both set", "A certificate needs its key.")
    texts = {name: _read(name, path) for name, path in given.items()}
    return TlsSettings(
        ca_certificate=texts.get("audit_ca", ""),
        certificate=texts.get("audit_certificate", ""),
        private_key=texts.get("audit_private_key", ""),
    )


def _read(name: str, path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a text file"
        raise _wrong(f"{name}: {path} cannot be read ({reason})", "Name a PEM file that the worker may read.") from None


def _wrong(what: str, hint: str) -> ConfigurationError:
    return ConfigurationError(f"[{settings.SECTION}] {what}", step="audit", hint=hint)
