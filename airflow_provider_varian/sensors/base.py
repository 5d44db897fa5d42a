"""What all DICOM sensors share: three ways to wait, and which errors are waited on.

In the modes ``poke`` and ``reschedule`` a worker asks; deferred, the triggerer does, for all who wait for one peer in
one round. The question, and when its answer is enough, are the same code.
"""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_varian.errors import DicomError
from airflow_provider_varian.hooks.dicom import DicomHook
from airflow_provider_varian.operators.base import PeerTask, failing_fast
from airflow_provider_varian.operators.deferring import facts_of
from airflow_provider_varian.sensors.memory import forget, keep, kept
from airflow_provider_varian.triggers.criteria import Borne, Clock, Criterion
from airflow_provider_varian.triggers.dicom import MAX_TRANSIENT_FAILURES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_varian.triggers.dicom import DicomTrigger

log = logging.getLogger(__name__)


class DicomSensor(PeerTask, BaseSensorOperator):
    """Base of the DICOM sensors; subclasses say what is asked, and when its answer is enough.

    A permanent error fails the task at once, without a retry. Transient ones count as "not yet". So do quiet hours of
    the connection, in which the peer is not called, and a budget of associations that others use.

    :param dicom_conn_id: the connection (templated).
    :param deferrable: wait in the triggerer and hold no worker; the default is ``[operators] default_deferrable``.
    :param max_transient_failures: so many transient errors in a row are waited on; the next one fails the task, and its
        retries apply.
    """

    template_fields: Sequence[str] = ("dicom_conn_id",)
    ui_color = "#dbe9f4"

    def __init__(
        self,
        *,
        dicom_conn_id: str = DicomHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        max_transient_failures: int = MAX_TRANSIENT_FAILURES,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dicom_conn_id = dicom_conn_id
        self.deferrable = deferrable
        self.max_transient_failures = max_transient_failures

    @abstractmethod
    def check(self) -> None:
        """Refuse what is wrong without asking anybody.

        :raises DicomError: says what.
        """

    @abstractmethod
    def look(self) -> Any:
        """Ask once, in this process.

        :raises DicomError: why there is no answer.
        """

    @abstractmethod
    def new_criterion(self) -> Criterion:
        """Return what judges the answers."""

    @abstractmethod
    def trigger(self) -> DicomTrigger:
        """Return what waits in the triggerer."""

    def execute(self, context: Context) -> Any:
        """Wait; the result is counts and facts that name nobody."""
        with self.stoppable():
            if self.deferrable:
                with self._soft(), failing_fast():
                    self.check()
                    trigger = self.trigger()
                    trigger.serialize()  # what cannot be kept is told here, and not where Airflow keeps it
                self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))
            return super().execute(context)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Ask once; an error that is waited on is no answer yet."""
        with failing_fast():
            facts = self._remembering(context) if self.reschedule else self._poked()
        return False if facts is None else PokeReturnValue(is_done=True, xcom_value=facts)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on after the triggerer: return the facts, or fail as the worker would have."""
        with failing_fast():
            facts = facts_of(event)
        log.info("Waited for enough: %s", event["message"])
        return facts

    @cached_property
    def _criterion(self) -> Criterion:
        return self.new_criterion()

    @cached_property
    def _borne(self) -> Borne:
        return Borne(self.max_transient_failures)

    @property
    def _clock(self) -> Clock:
        """What durations are told by: in mode ``reschedule`` they go over several processes."""
        return time.time if self.reschedule else time.monotonic

    def _poked(self) -> dict[str, Any] | None:
        # Not every look comes to where it would be asked: that into a spool does not, nor that in quiet hours.
        self.cancellation.raise_if_cancelled()
        try:
            facts = self._criterion.met(self.look())
        except DicomError as error:
            if not self._borne.bears(error):
                raise
            log.warning("Not yet: %s", error)
            return None
        self._borne.clear()
        if facts is None:
            log.info("Not yet: %s", self._criterion.seen)
        return facts

    def _remembering(self, context: Context) -> dict[str, Any] | None:
        """Go on from the poke before, and leave for the next one what it needs."""
        before = kept(context)
        if before is not None:
            self._borne.in_a_row = before["failures"]
            self._criterion.resume(before["seen"])
        try:
            facts = self._poked()
        except BaseException:
            forget(context)
            raise
        memory = {"failures": self._borne.in_a_row, "seen": self._criterion.state()}
        if facts is None and any(memory.values()):
            keep(context, memory)
        elif before is not None:
            forget(context)
        return facts

    @contextmanager
    def _soft(self) -> Iterator[None]:
        """Skip instead of failing where the task says so, as Airflow does around :meth:`poke`."""
        try:
            yield
        except AirflowException as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException("Skipping: soft_fail or never_fail is set") from error
            raise
