"""What all operators share: what is retried, and what a kill does."""

from __future__ import annotations

import signal
import threading

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_varian.errors import (
    CancelledError,
    ConfigurationError,
    IncompleteRetrievalError,
    PeerUnreachableError,
    PermanentRejectionError,
)
from airflow_provider_varian.operators.base import DicomOperator, failing_fast


class _Raising(DicomOperator):
    def __init__(self, *, error, **kwargs):
        super().__init__(**kwargs)
        self.error = error

    def run_dicom(self, context):
        raise self.error


@pytest.mark.parametrize("kind", [ConfigurationError, PermanentRejectionError])
def test_what_cannot_get_better_fails_without_a_retry_and_keeps_its_message(kind):
    error = kind("no such thing", peer="A@h:1", step="C-FIND", hint="Change it")
    with pytest.raises(AirflowFailException) as caught:
        _Raising(task_id="t", error=error).execute({})
    assert str(caught.value) == str(error)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [PeerUnreachableError("x"), IncompleteRetrievalError("x"), CancelledError("x")])
def test_what_may_get_better_keeps_its_retries(error):
    with pytest.raises(type(error)):
        _Raising(task_id="t", error=error).execute({})


def test_other_exceptions_pass_as_they_are():
    with pytest.raises(AirflowSkipException), failing_fast():
        raise AirflowSkipException("nothing")


def test_the_connection_id_is_templated_and_the_default_is_the_hooks():
    operator = _Raising(task_id="t", error=ConfigurationError("x"), dicom_conn_id="{{ which }}")
    operator.render_template_fields({"which": "aria"})
    assert operator.hook.dicom_conn_id == "aria"
    assert _Raising(task_id="u", error=None).dicom_conn_id == "dicom_default"


def test_a_killed_operator_is_cancelled_from_the_signal_handler():
    class Waiting(DicomOperator):
        def run_dicom(self, context):
            started.set()
            self.cancellation.pause(30)

    started = threading.Event()
    operator = Waiting(task_id="t")
    before = signal.signal(signal.SIGUSR1, lambda *_: operator.on_kill())
    try:

        def kill():
            started.wait(10)
            signal.raise_signal(signal.SIGUSR1)

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(CancelledError):
            operator.execute({})
        killer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_operator_killed_before_it_began_does_not_begin():
    operator = _Raising(task_id="t", error=ConfigurationError("began"))
    operator.on_kill()
    with pytest.raises(CancelledError):
        operator.execute({})
