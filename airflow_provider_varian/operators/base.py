"""What all DICOM operators share: the hook, the kill switch, how our errors become Airflow's, and long waits."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, conf

from airflow_provider_varian.errors import CancelledError, DicomError
from airflow_provider_varian.hooks.dicom import DicomHook
from airflow_provider_varian.operators.deferring import facts_of, trigger_of
from airflow_provider_varian.operators.identity import try_id
from airflow_provider_varian.operators.supervision import supervised
from airflow_provider_varian.waiting import QuietHours, Try, Waiting

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_varian.dimse.cancellation import Cancellation

log = logging.getLogger(__name__)


@contextmanager
def failing_fast() -> Iterator[None]:
    """Turn every permanent :class:`DicomError` into an :class:`AirflowFailException`, which is not retried.

    Transient ones pass as they are, so that the task's retries apply. So does :class:`CancelledError`: a task
    that somebody marked failed is not retried anyway, and one whose worker was shut down should be.
    """
    try:
        yield
    except CancelledError:
        raise
    except DicomError as error:
        if error.transient:
            raise
        raise AirflowFailException(str(error)) from error


class PeerTask:
    """What each task that talks to a peer has, operator or sensor: the hook, and the kill switch."""

    dicom_conn_id: str

    @cached_property
    def hook(self) -> DicomHook:
        """The hook of the (rendered) connection id."""
        return DicomHook(self.dicom_conn_id)

    @cached_property
    def cancellation(self) -> Cancellation:
        """Set by :meth:`on_kill`; every loop and fallback underneath looks at it."""
        from airflow_provider_varian.dimse.cancellation import Cancellation

        return Cancellation()

    def on_kill(self) -> None:
        """Cancel the running request (C-CANCEL, then abort) without waiting for it."""
        self.cancellation.cancel()

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Work as long as nobody kills the task, and somebody is there whom it can tell what it came to.

        :raises CancelledError: killed before.
        """
        # Made here, not by on_kill: a signal handler should find it there.
        self.cancellation.raise_if_cancelled()
        with supervised(self.cancellation.cancel):
            yield


class DicomOperator(PeerTask, BaseOperator):
    """Base of the DICOM operators; subclasses implement :meth:`run_dicom`.

    Deferrable, an operator that comes to a long wait ends, and is run again when the triggerer has waited: what it has
    brought or sent it finds in its account, as a retry does, but no retry is spent.

    :param dicom_conn_id: the connection (templated).
    :param deferrable: wait in the triggerer, and hold no worker, for the end of quiet hours, and for what a C-MOVE
        brings late where somebody else receives it; the default is ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("dicom_conn_id",)
    ui_color = "#dbe9f4"

    def __init__(
        self,
        *,
        dicom_conn_id: str = DicomHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dicom_conn_id = dicom_conn_id
        self.deferrable = deferrable
        self._try: Try | None = None

    @cached_property
    def hook(self) -> DicomHook:
        """The hook of the (rendered) connection id."""
        return self.hook_of(self.dicom_conn_id)

    def hook_of(self, dicom_conn_id: str) -> DicomHook:
        """Return a hook that leaves long waits to the triggerer, where this task does."""
        return DicomHook(dicom_conn_id, deferring=self.deferrable, task_try=self._try)

    def execute(self, context: Context) -> Any:
        """Run the operator; what can not get better by a retry fails at once."""
        self._begin(context)
        return self._run(context)

    def execute_complete(self, context: Context, event: Mapping[str, Any], retrieval_id: str = "") -> Any:
        """Run it again after the triggerer has waited.

        What the triggerer could not do, the task does itself; where nobody can tell when quiet hours end, it fails.

        :param context: Airflow's context.
        :param event: of the trigger.
        :param retrieval_id: for what of which retrieval it has waited.
        """
        with failing_fast():
            facts = self._facts(event, retrieval_id)
        self._begin(context, waited_out=retrieval_id if facts.get("waited_out") else "")
        return self._run(context)

    def _begin(self, context: Context, *, waited_out: str = "") -> None:
        """Begin a piece of a try; only a task that can be put off has any."""
        if self.deferrable:
            self._try = Try(id=try_id(context), waited_out=waited_out)
            self.__dict__.pop("hook", None)

    @staticmethod
    def _facts(event: Mapping[str, Any], retrieval_id: str) -> dict[str, Any]:
        try:
            facts = facts_of(event)
        except DicomError as error:
            if not retrieval_id:
                raise
            # The triggerer may not see what a worker sees, a receiver's spool above all.
            log.warning("The triggerer could not wait, so this task does: %s", error)
            return {}
        log.info("Going on: %s", event["message"])
        return facts

    def _run(self, context: Context) -> Any:
        try:
            with failing_fast(), self.stoppable():
                return self.run_dicom(context)
        except Waiting as waiting:
            self._leave(waiting)
            return None

    def _leave(self, waiting: Waiting) -> None:
        """Have the triggerer wait; raises what Airflow takes for it."""
        with failing_fast():
            trigger = trigger_of(waiting)
        log.info("Deferred: %s", waiting.words)
        awaited = waiting.awaited
        kwargs = {} if isinstance(awaited, QuietHours) else {"retrieval_id": awaited.retrieval_id}
        self.defer(trigger=trigger, method_name="execute_complete", kwargs=kwargs)

    @abstractmethod
    def run_dicom(self, context: Context) -> Any:
        """Do the operator's work.

        :param context: Airflow's context.
        """
