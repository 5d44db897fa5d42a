"""What all DICOM operators share: the hook, the kill switch, and how our errors become Airflow's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator

from airflow_provider_varian.errors import CancelledError, DicomError
from airflow_provider_varian.hooks.dicom import DicomHook

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_varian.dimse.cancellation import Cancellation


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


class DicomOperator(PeerTask, BaseOperator):
    """Base of the DICOM operators; subclasses implement :meth:`run_dicom`.

    :param dicom_conn_id: the connection (templated).
    """

    template_fields: Sequence[str] = ("dicom_conn_id",)
    ui_color = "#dbe9f4"

    def __init__(self, *, dicom_conn_id: str = DicomHook.default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dicom_conn_id = dicom_conn_id

    def execute(self, context: Context) -> Any:
        """Run the operator; what can not get better by a retry fails at once."""
        with failing_fast():
            # Made here, not by on_kill: a signal handler should find it there.
            self.cancellation.raise_if_cancelled()
            return self.run_dicom(context)

    @abstractmethod
    def run_dicom(self, context: Context) -> Any:
        """Do the operator's work.

        :param context: Airflow's context.
        """
