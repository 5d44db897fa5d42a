"""What tasks and commands tell of in the audit trail, with the fields of PS3.15 A.5.3.

Who is who: this process has its process ID as UserID and ``varian-dicom`` as UserName; a peer its AE title. Who had it
done, a DAG run with its task or a person at a shell, is an active participant of his own (:class:`Requestor`).

Of patients nothing is told (:mod:`airflow_provider_varian.receiver.audit_xml`). That holds for queries too: A.5.3.10
demands the identifier as it was sent, and what could name a patient in it is withheld; which keys these are is told.
"""

from __future__ import annotations

import base64
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from xml.etree import ElementTree

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.query.model import model_for
from airflow_provider_varian.query.query import Query
from airflow_provider_varian.receiver import audit_xml
from airflow_provider_varian.receiver.audit_xml import DCM, WITHHELD, AuditMessage, Outcome, Us
from airflow_provider_varian.uids import EXPLICIT_VR_LITTLE_ENDIAN

_EXPORT: Final = ("110106", DCM, "Export")
_QUERY: Final = ("110112", DCM, "Query")
_URI: Final = ("110037", DCM, "URI")
_LAUNCHER: Final = ("110151", DCM, "Application Launcher")
_DESTINATION_MEDIA: Final = ("110154", DCM, "Destination Media")
_SOP_CLASS_UID: Final = ("110181", DCM, "SOP Class UID")

_PATIENT_GROUP: Final = 0x0010
#: Values that name nobody, outside of the patient's group: UIDs, codes, dates and numbers.
_TOLD_VRS: Final = frozenset(
    {"UI", "CS", "AE", "DA", "TM", "DT", "IS", "DS", "US", "UL", "SS", "SL", "FL", "FD", "AT", "UV", "SV"}
)
#: Values in whose place a word can stand; the others are left empty.
_TEXT_VRS: Final = frozenset({"LO", "PN", "SH", "LT", "ST", "UC", "UT"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Requestor:
    """Who had something done.

    :param user_id: of a task ``dag_id=..., run_id=..., task_id=...``; of a command the user of the system.
    :param user_name: who triggered the DAG run, where Airflow knows it; else empty.
    """

    user_id: str
    user_name: str = ""


def system_user() -> str:
    """Return the user of the system that this process runs as; not what its environment says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without an entry
        return str(os.getuid())


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An application entity that objects come from or go to.

    :param ae_title: its AE title.
    :param host: name or address of its machine; empty when it is not known.
    :param us: it is this process.
    """

    ae_title: str
    host: str = ""
    us: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """From where to where objects go, and who had it done.

    :param source: who sends.
    :param destination: who receives.
    :param requestor: who had it done.
    """

    source: Node
    destination: Node
    requestor: Requestor


def queried(us: Us, requestor: Requestor, when: datetime, *, peer: Peer, query: Query) -> AuditMessage:
    """A query is put to a peer (A.5.3.10); what it answers is not told.

    :param peer: who is asked.
    :param query: what is asked, before it is taken apart for the peer's habits.
    """
    root = audit_xml.begun(_QUERY, when, action="E")
    audit_xml.add_us(root, us, role=audit_xml.SOURCE, called=peer.calling_ae_title)
    _add_node(root, us, Node(ae_title=peer.called_ae_title, host=peer.host), audit_xml.DESTINATION)
    _add_requestor(root, requestor)
    audit_xml.add_source(root, us)
    model = model_for(query.level, peer.information_model)
    asked = audit_xml.add_object(
        root,
        model.find_uid,
        what=_SOP_CLASS_UID,
        name="",
        kind=audit_xml.SYSTEM_OBJECT,
        role=audit_xml.REPORT,
    )
    identifier, withheld = without_identities(query.identifier())
    coded = base64.b64encode(_encoded(identifier)).decode("ascii")
    ElementTree.SubElement(asked, "ParticipantObjectQuery").text = coded
    audit_xml.add_detail(asked, "TransferSyntax", EXPLICIT_VR_LITTLE_ENDIAN)
    if withheld:
        audit_xml.add_detail(asked, "Withheld Keys", ", ".join(withheld))
    return audit_xml.told(root, when)


def begin_transferring(us: Us, way: Way, when: datetime, *, study: str) -> AuditMessage:
    """Objects of a study are about to be asked for, or sent (A.5.3.3)."""
    root = audit_xml.begun(audit_xml.BEGIN_TRANSFERRING, when, action="E")
    _add_way(root, us, way)
    audit_xml.add_source(root, us)
    audit_xml.add_study(root, study, {})
    audit_xml.add_patient(root)
    return audit_xml.told(root, when)


def instances_transferred(
    us: Us,
    way: Way,
    when: datetime,
    *,
    study: str,
    sop_classes: Mapping[str, int],
    action: str,
    failure: str = "",
) -> AuditMessage:
    """Objects of a study have come, or have not (A.5.3.7).

    :param study: Study Instance UID; empty when it is not known.
    :param sop_classes: how many objects of which class.
    :param action: ``C``: copies were not held here before; ``U``: older versions were; ``R``: it is not known.
    :param failure: why they have not; empty when they have.
    """
    return _about_objects(
        audit_xml.INSTANCES_TRANSFERRED, us, way, when, study=study, classes=sop_classes, action=action, failure=failure
    )


def exported(
    us: Us, way: Way, when: datetime, *, study: str, sop_classes: Mapping[str, int], medium: str, failure: str = ""
) -> AuditMessage:
    """Objects of a study have left for somebody else, or have not (A.5.3.5).

    :param medium: where to, as the Destination Media that the standard demands; over a network there is none, and URI
        is the nearest term of CID 405.
    """
    return _about_objects(
        _EXPORT, us, way, when, study=study, classes=sop_classes, action="R", failure=failure, medium=medium
    )


def refused(
    us: Us, requestor: Requestor, when: datetime, *, kind: audit_xml.Code, source: str, what: str
) -> AuditMessage:
    """Somebody was refused by the receiver of a task (A.5.3.11).

    :param kind: one of CID 403.
    :param source: address of whom it is about.
    :param what: what happened, in words of ours.
    """
    root = audit_xml.begun(audit_xml.SECURITY_ALERT, when, action="E", kind=kind, outcome=Outcome.MINOR_FAILURE)
    audit_xml.add_us(root, us, role=audit_xml.APPLICATION)
    _add_requestor(root, requestor)
    audit_xml.add_source(root, us)
    audit_xml.add_node(root, source, what)
    return audit_xml.told(root, when, warns=True)


def without_identities(identifier: Dataset) -> tuple[Dataset, tuple[str, ...]]:
    """Return an identifier without what could name a patient, and the keywords, or tags, of what is withheld.

    UIDs, codes, dates and numbers outside of the patient's group stay; texts do not, since labels and IDs of studies
    are typed by people.
    """
    withheld: dict[str, None] = {}
    kept = _without(identifier, withheld)
    return kept, tuple(withheld)


def _without(found: Dataset, withheld: dict[str, None]) -> Dataset:
    kept = Dataset()
    for element in found:
        value = element.value
        if element.VR == "SQ":
            value = [_without(item, withheld) for item in value]
        elif not element.is_empty and (element.tag.group == _PATIENT_GROUP or element.VR not in _TOLD_VRS):
            withheld[element.keyword or str(element.tag)] = None
            value = WITHHELD if element.VR in _TEXT_VRS else None
        kept.add(DataElement(element.tag, element.VR, value, validation_mode=config.IGNORE))
    return kept


def _encoded(identifier: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, identifier)
    return buffer.getvalue()


def _about_objects(
    event: audit_xml.Code,
    us: Us,
    way: Way,
    when: datetime,
    *,
    study: str,
    classes: Mapping[str, int],
    action: str,
    failure: str,
    medium: str = "",
) -> AuditMessage:
    outcome = Outcome.MINOR_FAILURE if failure else Outcome.SUCCESS
    root = audit_xml.begun(event, when, action=action, outcome=outcome, description=failure)
    _add_way(root, us, way)
    if medium:
        made = audit_xml.add_participant(root, medium, _DESTINATION_MEDIA)
        audit_xml.add_code(ElementTree.SubElement(made, "MediaIdentifier"), "MediaType", _URI)
    audit_xml.add_source(root, us)
    audit_xml.add_study(root, study, classes)
    audit_xml.add_patient(root)
    return audit_xml.told(root, when, warns=bool(failure))


def _add_way(root: ElementTree.Element, us: Us, way: Way) -> None:
    _add_node(root, us, way.source, audit_xml.SOURCE)
    _add_node(root, us, way.destination, audit_xml.DESTINATION)
    if not (way.source.us or way.destination.us):
        audit_xml.add_us(root, us, role=audit_xml.APPLICATION)
    _add_requestor(root, way.requestor)


def _add_node(root: ElementTree.Element, us: Us, node: Node, role: audit_xml.Code) -> None:
    if node.us:
        audit_xml.add_us(root, us, role=role, called=node.ae_title)
    else:
        audit_xml.add_participant(root, node.ae_title, role, titles=[node.ae_title], address=node.host)


def _add_requestor(root: ElementTree.Element, requestor: Requestor) -> None:
    audit_xml.add_participant(root, requestor.user_id, _LAUNCHER, user_name=requestor.user_name, is_requestor=True)
