"""What a receiver tells of in its audit trail, with the fields of PS3.15 A.5.3.

Who is who: the receiver's UserID is its process ID, its UserName ``varian-dicom``; a sender's UserID is the AE title by
which it calls itself, its UserName the subject of its TLS certificate. Of patients nothing is told: a receiver decodes
no data set (:mod:`.audit_xml`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from xml.etree import ElementTree

from airflow_provider_varian.receiver import audit_xml
from airflow_provider_varian.receiver.audit_xml import (
    ACCESS_CONTROL_DECISION,
    DCM,
    NODE_AUTHENTICATION,
    UNKNOWN,
    WITHHELD,
    AuditMessage,
    Code,
    Outcome,
    Us,
)
from airflow_provider_varian.receiver.observer import AssociationFacts, Refusal

__all__ = [
    "ACCESS_CONTROL_DECISION",
    "AUDIT_RECORDING_STOPPED",
    "NODE_AUTHENTICATION",
    "UNKNOWN",
    "WITHHELD",
    "AuditMessage",
    "Outcome",
    "Us",
    "application_activity",
    "begin_transferring",
    "instances_deleted",
    "instances_transferred",
    "kind_of_refusal",
    "security_alert",
]

_APPLICATION_ACTIVITY: Final = ("110100", DCM, "Application Activity")
_INSTANCES_ACCESSED: Final = ("110103", DCM, "DICOM Instances Accessed")
_APPLICATION_START: Final = ("110120", DCM, "Application Start")
_APPLICATION_STOP: Final = ("110121", DCM, "Application Stop")
AUDIT_RECORDING_STOPPED: Final = ("110133", DCM, "Audit Recording Stopped")

#: Refusals that say who somebody is not; the others tell of too much, or of what is no DICOM.
_OF_IDENTITY: Final = frozenset({Refusal.NETWORK, Refusal.CALLED_AE_TITLE, Refusal.CALLING_AE_TITLE, Refusal.TLS})


def kind_of_refusal(reason: str) -> Code:
    """Return which alert a refusal is, of CID 403.

    :param reason: one of :class:`~.observer.Refusal`.
    """
    return NODE_AUTHENTICATION if reason in _OF_IDENTITY else ACCESS_CONTROL_DECISION


def application_activity(us: Us, when: datetime, *, started: bool) -> AuditMessage:
    """The receiver has started, or stops (A.5.3.1)."""
    kind = _APPLICATION_START if started else _APPLICATION_STOP
    root = audit_xml.begun(_APPLICATION_ACTIVITY, when, action="E", kind=kind)
    audit_xml.add_us(root, us, role=audit_xml.APPLICATION)
    audit_xml.add_source(root, us)
    return audit_xml.told(root, when)


def begin_transferring(us: Us, facts: AssociationFacts, when: datetime, *, study: str) -> AuditMessage:
    """The first object of a study has come over an association (A.5.3.3). What is still to come is not known."""
    root = audit_xml.begun(audit_xml.BEGIN_TRANSFERRING, when, action="E")
    _add_sender(root, facts)
    audit_xml.add_us(root, us, role=audit_xml.DESTINATION, called=facts.called_ae_title)
    audit_xml.add_source(root, us)
    audit_xml.add_study(root, study, {})
    audit_xml.add_patient(root)
    return audit_xml.told(root, when)


def instances_transferred(
    us: Us,
    facts: AssociationFacts,
    when: datetime,
    *,
    study: str,
    sop_classes: Mapping[str, int],
    outcome: Outcome = Outcome.SUCCESS,
    description: str = "",
) -> AuditMessage:
    """Objects of a study have come over an association, or have been refused (A.5.3.7).

    The action is "read": whether the site held copies of them before, a receiver does not know.

    :param study: Study Instance UID; empty when it is not known.
    :param sop_classes: how many objects of which class.
    :param description: what went wrong, for an outcome that is no success.
    """
    root = audit_xml.begun(audit_xml.INSTANCES_TRANSFERRED, when, action="R", outcome=outcome, description=description)
    _add_sender(root, facts)
    audit_xml.add_us(root, us, role=audit_xml.DESTINATION, called=facts.called_ae_title)
    audit_xml.add_source(root, us)
    audit_xml.add_study(root, study, sop_classes)
    audit_xml.add_patient(root)
    return audit_xml.told(root, when, warns=outcome is not Outcome.SUCCESS)


def instances_deleted(us: Us, when: datetime, *, study: str, sop_classes: Mapping[str, int]) -> AuditMessage:
    """Objects of a study that nobody had claimed were removed (A.5.3.6)."""
    root = audit_xml.begun(_INSTANCES_ACCESSED, when, action="D")
    audit_xml.add_us(root, us, role=audit_xml.APPLICATION, is_requestor=True)
    audit_xml.add_source(root, us)
    audit_xml.add_study(root, study, sop_classes)
    audit_xml.add_patient(root)
    return audit_xml.told(root, when)


def security_alert(us: Us, when: datetime, *, kind: Code, subject: str, description: str) -> AuditMessage:
    """Somebody was refused, or the trail has a gap (A.5.3.11).

    :param kind: one of CID 403.
    :param subject: address of whom it is about.
    :param description: what happened, in words of ours.
    """
    root = audit_xml.begun(audit_xml.SECURITY_ALERT, when, action="E", kind=kind, outcome=Outcome.MINOR_FAILURE)
    audit_xml.add_us(root, us, role=audit_xml.APPLICATION)
    audit_xml.add_source(root, us)
    audit_xml.add_node(root, subject, description)
    return audit_xml.told(root, when, warns=True)


def _add_sender(root: ElementTree.Element, facts: AssociationFacts) -> None:
    audit_xml.add_participant(
        root,
        facts.calling_ae_title,
        audit_xml.SOURCE,
        titles=[facts.calling_ae_title],
        user_name=facts.tls_subject,
        is_requestor=True,
        address=facts.source_address or UNKNOWN,
    )
