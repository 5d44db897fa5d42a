"""The parts of an audit message: XML of the schema of PS3.15 A.5.1, with the codes of PS3.16.

Which parts a message has, and what it tells with them, is for those who make messages: :mod:`.audit_message` for a
receiver, :mod:`airflow_provider_varian.retrieval.trail_messages` for tasks and commands. AE titles stand in
AlternativeUserID, addresses in NetworkAccessPointID (A.5.2).

*Patients.* Messages about instances have to name one patient each (A.5.3), so a message tells of one study, and the
patient is there. ID and name are withheld: who may read the trail finds the patient by the Study Instance UID where the
study came from. Names are optional in the standard; the withheld ID is a deviation that the pages name.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Final
from xml.etree import ElementTree

#: Stands for what is not told, or not known.
WITHHELD: Final = "withheld"
UNKNOWN: Final = "unknown"

Code = tuple[str, str, str]
DCM: Final = "DCM"
BEGIN_TRANSFERRING: Final = ("110102", DCM, "Begin Transferring DICOM Instances")
INSTANCES_TRANSFERRED: Final = ("110104", DCM, "DICOM Instances Transferred")
SECURITY_ALERT: Final = ("110113", DCM, "Security Alert")
NODE_AUTHENTICATION: Final = ("110126", DCM, "Node Authentication")
ACCESS_CONTROL_DECISION: Final = ("110147", DCM, "Access Control Decision")
APPLICATION: Final = ("110150", DCM, "Application")
DESTINATION: Final = ("110152", DCM, "Destination Role ID")
SOURCE: Final = ("110153", DCM, "Source Role ID")
_STUDY_INSTANCE_UID: Final = ("110180", DCM, "Study Instance UID")
_NODE_ID: Final = ("110182", DCM, "Node ID")
_PATIENT_NUMBER: Final = ("2", "RFC-3881", "Patient Number")

SYSTEM_OBJECT: Final = "2"
REPORT: Final = "3"
_PERSON: Final = "1"
_PATIENT, _SECURITY_RESOURCE = "1", "13"
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
    """This process, as it stands in the trail.

    :param ae_titles: its AE titles.
    :param host: its machine; the same in all messages (A.5.2.4).
    :param process: its process ID, as in the system's log.
    """

    ae_titles: tuple[str, ...]
    host: str = field(default_factory=socket.gethostname)
    process: int = field(default_factory=os.getpid)


def begun(
    event: Code,
    when: datetime,
    *,
    action: str,
    kind: Code | None = None,
    outcome: Outcome = Outcome.SUCCESS,
    description: str = "",
) -> ElementTree.Element:
    """Begin a message with its EventIdentification (A.5.2.1).

    :param event: EventID, of CID 400.
    :param when: when it happened.
    :param action: EventActionCode: C, R, U, D or E.
    :param kind: EventTypeCode.
    :param outcome: how it ended.
    :param description: what went wrong, in words of ours.
    """
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
    add_code(identification, "EventID", event)
    if kind is not None:
        add_code(identification, "EventTypeCode", kind)
    if description:
        ElementTree.SubElement(identification, "EventOutcomeDescription").text = plain(description)
    return root


def add_participant(
    root: ElementTree.Element,
    user_id: str,
    role: Code,
    *,
    titles: Iterable[str] = (),
    user_name: str = "",
    is_requestor: bool = False,
    address: str = "",
) -> ElementTree.Element:
    """Add an ActiveParticipant (A.5.2.2) and return it.

    :param user_id: who it is.
    :param role: RoleIDCode, of CID 402.
    :param titles: its AE titles.
    :param user_name: what else it is called.
    :param is_requestor: whether it began this.
    :param address: name or IP address of its machine.
    """
    told = {"UserID": plain(user_id) or UNKNOWN}
    if named := ";".join(titles):
        told["AlternativeUserID"] = plain(f"AETITLES={named}")
    if user_name:
        told["UserName"] = plain(user_name)
    told["UserIsRequestor"] = "true" if is_requestor else "false"
    if address:
        told |= {"NetworkAccessPointID": plain(address), "NetworkAccessPointTypeCode": _kind_of(address)}
    made = ElementTree.SubElement(root, "ActiveParticipant", told)
    add_code(made, "RoleIDCode", role)
    return made


def add_us(root: ElementTree.Element, us: Us, *, role: Code, called: str = "", is_requestor: bool = False) -> None:
    """Add this process.

    :param called: under which of its AE titles it takes part; empty: all of them.
    """
    titles = [called] if called else us.ae_titles
    made = add_participant(
        root,
        str(us.process),
        role,
        titles=titles,
        user_name="varian-dicom",
        is_requestor=is_requestor,
    )
    made.attrib |= {"NetworkAccessPointID": plain(us.host), "NetworkAccessPointTypeCode": _MACHINE_NAME}


def add_source(root: ElementTree.Element, us: Us) -> None:
    """Add the AuditSourceIdentification (A.5.2.3)."""
    source = ElementTree.SubElement(root, "AuditSourceIdentification", {"AuditSourceID": plain(us.host)})
    ElementTree.SubElement(source, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})


def add_study(root: ElementTree.Element, study: str, sop_classes: Mapping[str, int]) -> None:
    """Add a study, with how many of its objects of which SOP class."""
    made = add_object(
        root, study or UNKNOWN, what=_STUDY_INSTANCE_UID, name=study or UNKNOWN, kind=SYSTEM_OBJECT, role=REPORT
    )
    if sop_classes:
        description = ElementTree.SubElement(made, "ParticipantObjectDescription")
        for uid, number in sorted(sop_classes.items()):
            ElementTree.SubElement(description, "SOPClass", {"UID": plain(uid), "NumberOfInstances": str(number)})


def add_patient(root: ElementTree.Element) -> None:
    """Add the patient, of whom nothing is told."""
    add_object(root, WITHHELD, what=_PATIENT_NUMBER, name=WITHHELD, kind=_PERSON, role=_PATIENT)


def add_node(root: ElementTree.Element, address: str, description: str) -> None:
    """Add the machine that a security alert is about, with what happened in words of ours."""
    node = add_object(root, address, what=_NODE_ID, name=UNKNOWN, kind=SYSTEM_OBJECT, role=_SECURITY_RESOURCE)
    add_detail(node, "Alert Description", description)


def add_object(
    root: ElementTree.Element, identity: str, *, what: Code, name: str, kind: str, role: str
) -> ElementTree.Element:
    """Add a ParticipantObjectIdentification (A.5.2.5) and return it.

    :param name: ParticipantObjectName; empty where a query stands in its place.
    """
    told = {
        "ParticipantObjectID": plain(identity),
        "ParticipantObjectTypeCode": kind,
        "ParticipantObjectTypeCodeRole": role,
    }
    made = ElementTree.SubElement(root, "ParticipantObjectIdentification", told)
    add_code(made, "ParticipantObjectIDTypeCode", what)
    if name:
        # The schema wants a name or a query.
        ElementTree.SubElement(made, "ParticipantObjectName").text = plain(name)
    return made


def add_detail(made: ElementTree.Element, kind: str, value: str) -> None:
    """Add a ParticipantObjectDetail to an object."""
    coded = base64.b64encode(value.encode("utf-8")).decode("ascii")
    ElementTree.SubElement(made, "ParticipantObjectDetail", {"type": kind, "value": coded})


def add_code(parent: ElementTree.Element, name: str, code: Code) -> None:
    """Add a coded value."""
    value, scheme, meaning = code
    ElementTree.SubElement(
        parent, name, {"csd-code": value, "codeSystemName": scheme, "displayName": meaning, "originalText": meaning}
    )


def plain(text: str) -> str:
    """Return what XML 1.0 can hold in one line of a file."""
    return "".join(char if char.isprintable() else "?" for char in text)


def told(root: ElementTree.Element, when: datetime, *, warns: bool = False) -> AuditMessage:
    """Return a message that is complete."""
    text = ElementTree.tostring(root, encoding="unicode")
    return AuditMessage(xml=f'<?xml version="1.0" encoding="UTF-8"?>{text}', when=when, warns=warns)


def _kind_of(address: str) -> str:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return _MACHINE_NAME
    return _IP_ADDRESS
