"""C-ECHO and C-FIND as operators."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.hooks.settings import below, root_of
from airflow_provider_varian.operators.base import DicomOperator
from airflow_provider_varian.operators.identity import retrieval_id
from airflow_provider_varian.operators.rows import write_rows

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_varian.query.find import FindResult

log = logging.getLogger(__name__)

#: XCom key under which :class:`DicomFindOperator` tells where its answers are.
ANSWERS_KEY = "dicom_answers"

FindXCom = Literal["uri", "rows", "answers"]


class DicomEchoOperator(DicomOperator):
    """Verify that a peer answers (C-ECHO, PS3.7 9.1.5).

    Returns the seconds that the answer took and the peer's implementation version.

    :param dicom_conn_id: the connection (templated).
    :param deferrable: leave long waits to the triggerer, and hold no worker meanwhile; the default is
        ``[operators] default_deferrable``.
    :param query: also ask an empty C-FIND: a daemon answers C-ECHO while its database is down.
    """

    def __init__(self, *, query: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.query = query

    def run_dicom(self, context: Context) -> dict[str, Any]:
        """Ask, and return what the peer said about itself."""
        verb = self.hook.ensure_available if self.query else self.hook.echo
        answer = verb(cancellation=self.cancellation)
        version = answer.negotiated.implementation_version_name
        log.info("%s answers in %.3f s (%s)", self.hook.peer.name, answer.seconds, version or "no version given")
        return {
            "peer": self.hook.peer.name,
            "seconds": round(answer.seconds, 4),
            "implementation_class_uid": str(answer.negotiated.implementation_class_uid or ""),
            "implementation_version_name": str(version or ""),
        }


class DicomFindOperator(DicomOperator):
    """Query a peer (C-FIND, PS3.4 C.4.1) and write the answers to storage.

    Answers name patients, so they go to a file, and XCom gets its URI and counts under the key
    ``dicom_answers``: ``{"uri", "count", "undecided", "limited", "warnings"}``. The warnings are sentences without
    identifiers, e.g. that the peer may have cropped its answer.

    :param level: ``PATIENT``, ``STUDY``, ``SERIES`` or ``IMAGE`` (templated).
    :param keys: DICOM keywords to values: ``None`` or ``""`` asks for an attribute, text is matched, a
        ``[from, to]`` pair is a range of dates (templated).
    :param limit: stop after so many answers; the result then says ``limited``.
    :param undecided: what to do with answers that lack a value that was matched on: ``error`` or ``keep``.
    :param destination: folder or object-storage URI for the answers (templated); the default is
        ``[varian] storage_root``.
    :param xcom: what the task returns: ``uri`` the mapping above; ``rows`` one opaque key per answer, for mapping
        further tasks over (read them with :func:`airflow_provider_varian.operators.rows.read_row`); ``answers`` the
        answers themselves, which puts whatever they hold into Airflow's database.
    :param dicom_conn_id: the connection (templated).
    :param deferrable: leave long waits to the triggerer, and hold no worker meanwhile; the default is
        ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("dicom_conn_id", "level", "keys", "destination")
    template_fields_renderers = {"keys": "json"}  # noqa: RUF012 - as BaseOperator declares it

    def __init__(
        self,
        *,
        level: str,
        keys: Mapping[str, Any],
        limit: int | None = None,
        undecided: Literal["error", "keep"] = "error",
        destination: str | None = None,
        xcom: FindXCom = "uri",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.level = level
        self.keys = keys
        self.limit = limit
        self.undecided = undecided
        self.destination = destination
        self.xcom = xcom

    def run_dicom(self, context: Context) -> Any:
        """Query, write the answers, push where they are."""
        if self.xcom not in ("uri", "rows", "answers"):
            raise ConfigurationError(f"xcom is {self.xcom!r}", hint="Choose uri, rows or answers.")
        result = self.hook.find(
            self.level, self.keys, limit=self.limit, undecided=self.undecided, cancellation=self.cancellation
        )
        root = root_of(self.destination)
        written = write_rows(
            below(root, ".dicom", "answers", f"{retrieval_id(context)}.json"),
            result.answers,
            undecided=result.undecided,  # without keys: nobody may take them for matches
        )
        summary = _summary(written.uri, result)
        context["ti"].xcom_push(key=ANSWERS_KEY, value=summary)
        log.info("%d answers, and %d undecided, in %s", summary["count"], summary["undecided"], written.uri)
        if result.limited:
            log.warning("The limit of %s answers was hit: there are more", self.limit)
        return {"uri": summary, "rows": list(written.keys), "answers": result.answers}[self.xcom]


def _summary(uri: str, result: FindResult) -> dict[str, Any]:
    return {
        "uri": uri,
        "count": len(result.answers),
        "undecided": len(result.undecided),
        "limited": result.limited,
        "warnings": list(dict.fromkeys(result.warnings)),
    }
