"""Operators on ARIA's terms: machine-QA images here, lists of plans and plan sets in modules of their own.

The machine-QA images are a plan's RT Images of some days, retrieved, filed by day, and judged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_varian.errors import ConfigurationError, DicomError, EmptyResultError, IncompleteRetrievalError
from airflow_provider_varian.hooks.settings import root_of
from airflow_provider_varian.operators.machines import read_machine
from airflow_provider_varian.operators.manifest_xcom import ManifestPusher
from airflow_provider_varian.operators.patient_list import AriaPatientListOperator
from airflow_provider_varian.operators.plan_export import AriaPlanExportOperator
from airflow_provider_varian.operators.qa_report import SUMMARY_KEY, without_days
from airflow_provider_varian.operators.retrieving import RetrievingOperator, is_lasting

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_varian.aria.machines import Machine
    from airflow_provider_varian.operators.qa_result import QAResult

__all__ = ["QA_LAYOUT", "AriaPatientListOperator", "AriaPlanExportOperator", "AriaQAImagesOperator"]

log = logging.getLogger(__name__)

#: Images are filed under the clinic's day on which they were acquired.
QA_LAYOUT: Final = "{AcquisitionDate}/{StudyInstanceUID}/{SeriesInstanceUID}/{Modality}.{SOPInstanceUID}.dcm"


class AriaQAImagesOperator(RetrievingOperator):
    """Retrieve a machine's QA images and judge them against what is expected.

    One C-FIND lists the patient's plans, and the label is compared here; a second lists the RT Images of that plan,
    in all series, acquired in the run's interval and the look-back before it, and is repeated until its answer stands
    still. What is not held is retrieved, filed by its acquisition day, and every day is judged. **Only the run's own
    day sets the task's state**: nothing on an expected day fails (and is retried, since data reaches ARIA late),
    nothing on another day is a skip, less than expected is ``short``, found but not received is ``partial``.

    Pushes as ``qa_summary``, whatever the state, a mapping free of identifiers: machine, plan label, outcome, message,
    manifest, warnings, and per day what was expected, found, received and how many bytes. XCom ``dicom_manifest``
    has the manifest's URI, outcome and counts from the start of the retrieval, also when nothing is found. Returns
    outcome, message and manifest.

    :param machine: the machine as a mapping (templated); see :class:`airflow_provider_varian.aria.machines.Machine`.
    :param row_key: instead of it, the opaque key of a machine (templated) ...
    :param rows_uri: ... in a file that :func:`.machines.write_machines` wrote (templated).
    :param dicom_conn_id: the connection (templated); None: the machine's. It must name the clinic's time zone.
    :param deferrable: leave long waits to the triggerer, and hold no worker meanwhile; the default is
        ``[operators] default_deferrable``.
    :param first_day: first day of the clinic to list, ``YYYY-MM-DD`` (templated); empty: the run's data interval,
        else the 24 hours before ``run_after``.
    :param last_day: last day, which is then judged for the state (templated); empty: the first.
    :param lookback_days: days before that are listed and judged again; None: the machine's.
    :param destination: absolute folder or object-storage URI (templated); the default is ``[varian] storage_root``.
    :param layout: where an image is filed below it (templated).
    :param on_partial: ``fail`` (and retry) or ``accept`` the outcomes ``partial`` and ``short``.
    :param port_wait_seconds: how long to wait for a receiver port that another task uses.
    :param verify: ``path``: an image at its final path is held; ``hash``: and has the manifest's SHA-256; None:
        ``hash`` in a retry of a try that did not finish, else ``path``.
    :param refresh: of the plan alone, which is fetched when each of its beams is expected: a held one is fetched again
        ``if_changed``, ``always`` or ``never``. Images are never fetched again.
    :param recheck_rounds: the images are listed again after the transfer, and new ones are retrieved and count too,
        until nothing is new or so many times (None: 3; 0: not at all).
    :param stable_counts: equal lists of images in a row that make a list stable; None: as the connection's profile
        says, also for the next two.
    :param stable_interval_seconds: seconds between two of them.
    :param settle_seconds: seconds of quiet after which late objects are given up.
    """

    template_fields: Sequence[str] = (
        "dicom_conn_id",
        "machine",
        "row_key",
        "rows_uri",
        "first_day",
        "last_day",
        "destination",
        "layout",
    )
    template_fields_renderers = {"machine": "json"}  # noqa: RUF012 - as BaseOperator declares it

    def __init__(
        self,
        *,
        machine: Mapping[str, Any] | None = None,
        row_key: str | None = None,
        rows_uri: str | None = None,
        dicom_conn_id: str | None = None,
        first_day: str | None = None,
        last_day: str | None = None,
        lookback_days: int | None = None,
        layout: str = QA_LAYOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(dicom_conn_id=dicom_conn_id or "", **kwargs)
        self.machine = machine
        self.row_key = row_key
        self.rows_uri = rows_uri
        self.first_day = first_day
        self.last_day = last_day
        self.lookback_days = lookback_days
        self.layout = layout

    def run_dicom(self, context: Context) -> dict[str, Any]:
        """Find, retrieve, judge; tell what became of it; decide."""
        from airflow_provider_varian.operators.qa_images import qa_images_of

        self.check_choices()
        machine = self._machine()
        # What map_index_template="{{ machine_name }}" shows instead of a number.
        context["machine_name"] = machine.name  # type: ignore[typeddict-unknown-key]
        about: dict[str, Any] = {"row_key": self.row_key or "", "machine": machine.name, "plan": machine.plan_label}
        root = root_of(self.destination)
        pusher = ManifestPusher(context, root)
        try:
            result = qa_images_of(
                context,
                self.hook_of(self.dicom_conn_id or machine.dicom_conn_id),
                machine,
                first_day=self.first_day,
                last_day=self.last_day,
                lookback_days=machine.lookback_days if self.lookback_days is None else self.lookback_days,
                root=root,
                layout=self.layout,
                retrieving=self.retrieving,
                on_change=pusher,
                cancellation=self.cancellation,
            )
        except DicomError as error:
            # A retrieval that broke off left a manifest, which says how far it came.
            told = about | without_days("failed", str(error), manifest=pusher.uri)
            context["ti"].xcom_push(key=SUMMARY_KEY, value=told)
            raise
        summary = about | result.to_json()
        context["ti"].xcom_push(key=SUMMARY_KEY, value=summary)
        self._decide(result)
        return {key: summary[key] for key in ("outcome", "message", "manifest")}

    def _machine(self) -> Machine:
        from airflow_provider_varian.aria.machines import parse_machine

        if self.machine and not self.row_key:
            return parse_machine(self.machine)
        if self.row_key and self.rows_uri and not self.machine:
            return read_machine(self.rows_uri, self.row_key)
        raise ConfigurationError(
            f"task {self.task_id!r} is told no machine, or two", hint="Give machine, or row_key and rows_uri."
        )

    def _decide(self, result: QAResult) -> None:
        """Raise what the outcome of the run's own day asks for."""
        for day in result.days:
            log.log(*day.log_line(own=day.judgement.day == result.run_day))
        own = result.own.judgement
        if own.state == "not_expected":
            raise AirflowSkipException(own.message)
        if own.state == "empty":
            raise EmptyResultError(own.message, step="machine QA", hint="Was the QA done, and on this plan?")
        if own.state in ("partial", "short") and self.on_partial == "fail":
            error = result.error
            if own.state == "partial" and error is not None and is_lasting(error):
                raise type(error)(
                    f"{own.message}; {error.what}",
                    peer=error.peer,
                    step="machine QA",
                    status=error.status,
                    hint=error.hint or f"See {result.manifest_uri}",
                )
            raise IncompleteRetrievalError(own.message, step="machine QA", hint=f"See {result.manifest_uri}")
