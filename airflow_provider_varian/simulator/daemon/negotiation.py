"""Whom the daemon lets in, and what it accepts (quirks 1 to 4)."""

from __future__ import annotations

import logging
import threading
from functools import cache
from typing import Final

from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.contexts import receiver_contexts
from airflow_provider_varian.simulator.daemon import harm, hierarchy
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.faults import Fault, Kind
from airflow_provider_varian.simulator.daemon.store_service import IMPORTED_CLASSES
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntities

log = logging.getLogger(__name__)

#: Result, source and reason of a rejection (PS3.8 9.3.4).
Rejection = tuple[int, int, int]
CALLING_NOT_RECOGNISED: Final = (1, 1, 3)
CALLED_NOT_RECOGNISED: Final = (1, 1, 7)
LOCAL_LIMIT_EXCEEDED: Final = (2, 3, 2)
#: For now, by the user of the service, no reason given.
NOT_NOW: Final = (2, 1, 1)

_STUDY_ROOT: Final = (uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_MOVE)
_PATIENT_ROOT: Final = (uids.PATIENT_ROOT_FIND, uids.PATIENT_ROOT_MOVE)
_LOOK_SECONDS: Final = 0.05


def accepted_contexts(behaviour: Behaviour, sop_classes: frozenset[str]) -> list[PresentationContext]:
    """Return what is accepted.

    :param sop_classes: of the instances held, which a C-GET can bring.
    """
    syntaxes = [uids.IMPLICIT_VR_LITTLE_ENDIAN]
    if not behaviour.implicit_only:
        syntaxes.insert(0, uids.EXPLICIT_VR_LITTLE_ENDIAN)
    models = [uids.VERIFICATION, *_STUDY_ROOT]
    if behaviour.patient_root:
        models += _PATIENT_ROOT
    if behaviour.patient_study_only:
        models += hierarchy.PATIENT_STUDY_ONLY
    if behaviour.get:
        models.append(uids.STUDY_ROOT_GET)
        if behaviour.patient_root:
            models.append(uids.PATIENT_ROOT_GET)
    contexts = [build_context(uid, syntaxes) for uid in models]
    # Sent by C-GET, or taken: then the client has the other role (PS3.7 D.3.3.4).
    sent = sop_classes | set(uids.RADIOTHERAPY_STORAGE) if behaviour.get else frozenset[str]()
    taken = _importable() if behaviour.store else frozenset[str]()
    for uid in sorted(sent | taken):
        context = build_context(uid, syntaxes)
        context.scu_role, context.scp_role = uid in taken, uid in sent
        contexts.append(context)
    return contexts


@cache
def _importable() -> frozenset[str]:
    """Return the classes that can be imported, all of which pynetdicom then has a service for."""
    return frozenset(str(context.abstract_syntax) for context in receiver_contexts()) & frozenset(IMPORTED_CLASSES)


def refusal(assoc: Association, ae_title: str, behaviour: Behaviour, trusted: TrustedEntities) -> Rejection | None:
    """Return how somebody who is not known is rejected; ``None`` for who is (quirk 1)."""
    primitive = assoc.requestor.primitive
    address = assoc.requestor.address if behaviour.check_source_address else None
    called = str(getattr(primitive, "called_ae_title", "")).strip()
    calling = str(getattr(primitive, "calling_ae_title", "")).strip()
    if behaviour.check_called_ae_title and called != ae_title.strip():
        log.info("Rejected an association: it called %r, this is %r", called, ae_title)
        return CALLED_NOT_RECOGNISED
    if behaviour.check_calling_ae_title and trusted.client(calling, address) is None:
        log.info("Rejected an association: %r at %s is not a trusted entity", calling, assoc.requestor.address)
        return CALLING_NOT_RECOGNISED
    return None


def reject(assoc: Association, result: int, source: int, reason: int) -> None:
    """Reject an association that was asked for."""
    assoc.acse.send_reject(result, source, reason)
    assoc.kill()


def turn_away(assoc: Association, stopping: threading.Event) -> None:
    """Let nobody in whom we failed to judge: pynetdicom would, after an error in a handler."""
    try:
        reject(assoc, *NOT_NOW)
    except Exception:  # noqa: BLE001 - whatever it is, the association must not come to be
        harm.finish(assoc, Kind.ABORT, stopping)


def suffer(assoc: Association, fault: Fault, stopping: threading.Event) -> bool:
    """Let a fault strike an association that is not there yet; say whether it may still come to be."""
    if fault.kind is Kind.REJECT:
        reject(assoc, *fault.rejection())
        return False
    if fault.kind is Kind.STALL and _outlives(assoc, fault.seconds, stopping):
        return True
    harm.finish(assoc, Kind.CLOSE if fault.kind is Kind.STALL else fault.kind, stopping)
    return False


def _outlives(assoc: Association, seconds: float, stopping: threading.Event) -> bool:
    """Wait; say whether the client is still there then."""
    while seconds > 0:
        if stopping.wait(min(seconds, _LOOK_SECONDS)) or assoc.acse.is_aborted():
            return False
        seconds -= _LOOK_SECONDS
    return True
