"""Audit messages as PS3.15 A.5 words them: XML of the schema of A.5.1, with the fields of A.5.3.

Who is who: the receiver's UserID is its process ID, its UserName ``varian-dicom``; a sender's UserID is the AE title by
which it calls itself, its UserName the subject of its TLS certificate. AE titles stand in AlternativeUserID, addresses
in NetworkAccessPointID (A.5.2).

*Patients.* A.5.3.3, A.5.3.6 and A.5.3.7 demand one patient for each message, so a message tells of one study, and the
patient is there. ID and name are withheld: a receiver decodes no data set, and who may read the trail finds the patient
by the Study Instance UID where the study came from. Names are optional in the standard; the withheld ID is a deviation
that the conformance statement names.
"""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Final
from xml.etree import ElementTree

from airflow_provider_varian.receiver.observer import AssociationFacts

#: Stands for what is not told, or not known.
WITHHELD: Final = "withheld"
UNKNOWN: Final = "unknown"

_Code = tuple[str, str, str]
_DCM: Final = "DCM"
_APPLICATION_ACTIVITY: Final = ("110100", _DCM, "Application Activity")
_BEGIN_TRANSFERRING: Final = ("110102", _DCM, "Begin Transferring DICOM Instances")
_INSTANCES_ACCESSED: Final = ("110103", _DCM, "DICOM Instances Accessed")
_INSTANCES_TRANSFERRED: Final = ("110104", _DCM, "DICOM Instances Transferred")
_SECURITY_ALERT: Final = ("110113", _DCM, "Security Alert")
_APPLICATION_START: Final = ("110120", _DCM, "Application Start")
_APPLICATION_STOP: Final = ("110121", _DCM, "Application Stop")
NODE_AUTHENTICATION: Final = ("110126", _DCM, "Node Authentication")
AUDIT_RECORDING_STOPPED: Final = ("110133", _DCM, "Audit Recording Stopped")
ACCESS_CONTROL_DECISION: Final = ("110147", _DCM, "Access Control Decision")
_APPLICATION: Final = ("110150", _DCM, "Application")
_DESTINATION: Final = ("110152", _DCM, "Destination Role ID")
_SOURCE: Final = ("110153", _DCM, "Source Role ID")
_STUDY_INSTANCE_UID: Final = ("110180", _DCM, "Study Instance UID")
_NODE_ID: Final = ("110182", _DCM, "Node ID")
_PATIENT_NUMBER: Final = ("2", "RFC-3881", "Patient Number")

_SYSTEM_OBJECT, _PERSON = "2", "1"
_REPORT, _PATIENT, _SECURITY_RESOURCE = "3", "1", "13"
_MACHINE_NAME, _IP_ADDRESS = "1", "2"
#: AuditSourceTypeCode: application server process.
_APPLICATION_SERVER: Final = "4"


class Outcome(IntEnum):
    """EventOutcomeIndicator."""

    SUCCESS = 0
    MINOR_FAILURE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditMessage:
    """One message.

    :param xml: the message, in one line.
    :param when: what its EventDateTime says.
    :param warns: whether it tells of something that should not be.
    """

    xml: str
    when: datetime
    warns: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Us:
    """The receiver, as it stands in the trail.

    :param ae_titles: its AE titles.
    :param host: its machine; the same in all messages (A.5.2.4).
    :param process: its process ID, as in the system's log.
    """

    ae_titles: tuple[str, ...]
    host: str = field(default_factory=socket.gethostname)
    process: int = field(default_factory=os.getpid)


def application_activity(us: Us, when: datetime, *, started: bool) -> AuditMessage:
    """The receiver has started, or stops (A.5.3.1)."""
    kind = _APPLICATION_START if started else _APPLICATION_STOP
    root = _message(_APPLICATION_ACTIVITY, when, action="E", kind=kind)
    _add_us(root, us, role=_APPLICATION)
    _add_source(root, us)
    return _told(root, when)


def begin_transferring(us: Us, facts: AssociationFacts, when: datetime, *, study: str) -> AuditMessage:
    """The first object of a study has come over an association (A.5.3.3). What is still to come is not known."""
    root = _message(_BEGIN_TRANSFERRING, when, action="E")
    _add_sender(root, facts)
    _add_us(root, us, role=_DESTINATION, called=facts.called_ae_title)
    _add_source(root, us)
    _add_study(root, study, {})
    _add_patient(root)
    return _told(root, when)


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
    root = _message(_INSTANCES_TRANSFERRED, when, action="R", outcome=outcome, description=description)
    _add_sender(root, facts)
    _add_us(root, us, role=_DESTINATION, called=facts.called_ae_title)
    _add_source(root, us)
    _add_study(root, study, sop_classes)
    _add_patient(root)
    return _told(root, when, warns=outcome is not Outcome.SUCCESS)


def instances_deleted(us: Us, when: datetime, *, study: str, sop_classes: Mapping[str, int]) -> AuditMessage:
    """Objects of a study that nobody had claimed were removed (A.5.3.6)."""
    root = _message(_INSTANCES_ACCESSED, when, action="D")
    _add_us(root, us, role=_APPLICATION, is_requestor=True)
    _add_source(root, us)
    _add_study(root, study, sop_classes)
    _add_patient(root)
    return _told(root, when)


def security_alert(us: Us, when: datetime, *, kind: _Code, subject: str, description: str) -> AuditMessage:
    """Somebody was refused, or the trail has a gap (A.5.3.11).

    :param kind: one of CID 403.
    :param subject: address of whom it is about.
    :param description: what happened, in words of ours.
    """
    root = _message(_SECURITY_ALERT, when, action="E", kind=kind, outcome=Outcome.MINOR_FAILURE)
    _add_us(root, us, role=_APPLICATION)
    _add_source(root, us)
    node = _add_object(root, subject, what=_NODE_ID, name=UNKNOWN, kind=_SYSTEM_OBJECT, role=_SECURITY_RESOURCE)
    value = base64.b64encode(description.encode("utf-8")).decode("ascii")
    ElementTree.SubElement(node, "ParticipantObjectDetail", {"type": "Alert Description", "value": value})
    return _told(root, when, warns=True)


def _message(
    event: _Code,
    when: datetime,
    *,
    action: str,
    kind: _Code | None = None,
    outcome: Outcome = Outcome.SUCCESS,
    description: str = "",
) -> ElementTree.Element:
    root = ElementTree.Element("AuditMessage")
    identification = ElementTree.SubElement(
        root,
        "EventIdentification",
        {
            "EventActionCode": action,
            "EventDateTime": when.isoformat(timespec="milliseconds"),
            "EventOutcomeIndicator": str(int(outcome)),
        },
    )
    _add_code(identification, "EventID", event)
    if kind is not None:
        _add_code(identification, "EventTypeCode", kind)
    if description:
        ElementTree.SubElement(identification, "EventOutcomeDescription").text = _plain(description)
    return root


def _add_sender(root: ElementTree.Element, facts: AssociationFacts) -> None:
    told = {"UserID": facts.calling_ae_title or UNKNOWN, "AlternativeUserID": _titles([facts.calling_ae_title])}
    if facts.tls_subject:
        told["UserName"] = facts.tls_subject
    told |= {"UserIsRequestor": "true", "NetworkAccessPointID": facts.source_address or UNKNOWN}
    _add_participant(root, told, _SOURCE, access=_IP_ADDRESS)


def _add_us(root: ElementTree.Element, us: Us, *, role: _Code, called: str = "", is_requestor: bool = False) -> None:
    told = {
        "UserID": str(us.process),
        "AlternativeUserID": _titles([called] if called else us.ae_titles),
        "UserName": "varian-dicom",
        "UserIsRequestor": "true" if is_requestor else "false",
        "NetworkAccessPointID": us.host,
    }
    _add_participant(root, told, role, access=_MACHINE_NAME)


def _add_participant(root: ElementTree.Element, told: dict[str, str], role: _Code, *, access: str) -> None:
    told = {name: _plain(value) for name, value in told.items()} | {"NetworkAccessPointTypeCode": access}
    _add_code(ElementTree.SubElement(root, "ActiveParticipant", told), "RoleIDCode", role)


def _add_source(root: ElementTree.Element, us: Us) -> None:
    source = ElementTree.SubElement(root, "AuditSourceIdentification", {"AuditSourceID": _plain(us.host)})
    ElementTree.SubElement(source, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})


def _add_study(root: ElementTree.Element, study: str, sop_classes: Mapping[str, int]) -> None:
    made = _add_object(
        root, study or UNKNOWN, what=_STUDY_INSTANCE_UID, name=study or UNKNOWN, kind=_SYSTEM_OBJECT, role=_REPORT
    )
    if sop_classes:
        description = ElementTree.SubElement(made, "ParticipantObjectDescription")
        for uid, number in sorted(sop_classes.items()):
            ElementTree.SubElement(description, "SOPClass", {"UID": _plain(uid), "NumberOfInstances": str(number)})


def _add_patient(root: ElementTree.Element) -> None:
    _add_object(root, WITHHELD, what=_PATIENT_NUMBER, name=WITHHELD, kind=_PERSON, role=_PATIENT)


def _add_object(
    root: ElementTree.Element, identity: str, *, what: _Code, name: str, kind: str, role: str
) -> ElementTree.Element:
    told = {
        "ParticipantObjectID": _plain(identity),
        "ParticipantObjectTypeCode": kind,
        "ParticipantObjectTypeCodeRole": role,
    }
    made = ElementTree.SubElement(root, "ParticipantObjectIdentification", told)
    _add_code(made, "ParticipantObjectIDTypeCode", what)
    # The schema wants a name or a query.
    ElementTree.SubElement(made, "ParticipantObjectName").text = _plain(name)
    return made


def _add_code(parent: ElementTree.Element, name: str, code: _Code) -> None:
    value, scheme, meaning = code
    ElementTree.SubElement(
        parent, name, {"csd-code": value, "codeSystemName": scheme, "displayName": meaning, "originalText": meaning}
    )


def _titles(titles: Iterable[str]) -> str:
    return f"AETITLES={';'.join(titles)}"


def _plain(text: str) -> str:
    """Return what XML 1.0 can hold in one line of a file."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _told(root: ElementTree.Element, when: datetime, *, warns: bool = False) -> AuditMessage:
    text = ElementTree.tostring(root, encoding="unicode")
    return AuditMessage(xml=f'<?xml version="1.0" encoding="UTF-8"?>{text}', when=when, warns=warns)
