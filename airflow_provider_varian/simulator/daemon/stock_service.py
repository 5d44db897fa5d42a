"""C-ECHO and C-STORE, which pynetdicom reads and answers: what a handler returns, faults included."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pydicom.dataset import Dataset

from airflow_provider_varian.simulator.daemon.faults import Step
from airflow_provider_varian.simulator.daemon.turn import CutShortError, Exposed, OverError

log = logging.getLogger(__name__)


def serve(exposed: Exposed, answer: Callable[[], Dataset]) -> Dataset:
    """Let a request suffer what is due, and answer it; return what the response says.

    :param exposed: the request.
    :param answer: does what was asked for, and returns Status and, where there is one, Error Comment.
    :returns: what ``answer`` returned, or what a fault put in its place. pynetdicom sends it unless the association
        has ended meanwhile.
    """
    response = Dataset()
    response.Status = 0x0000
    try:
        exposed.reach(Step.REQUEST)
        response = answer()
        exposed.reach(Step.FINAL)
        exposed.delay()
    except CutShortError as cut:
        response = Dataset()
        response.Status = cut.status
    except OverError as over:
        log.info("A %s ended with its association", exposed.service)
        over.settle()
    return response
