"""Checks an audit message against the schema of PS3.15 A.5.1, and its codes against pydicom's dictionary.

The schema is RELAX NG; what it says of the elements that a receiver writes is said here again, element by element:
attributes with what they may be, and children in their order.
"""

from __future__ import annotations

import base64
import functools
import io
import re
from datetime import datetime
from xml.etree import ElementTree

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

TOKEN = re.compile(r"\S(.*\S)?")
UID = re.compile(r"[0-9.]{1,64}")
INTEGER = re.compile(r"\d+")
CODE = {"csd-code": TOKEN, "codeSystemName": TOKEN, "displayName?": TOKEN, "originalText": TOKEN}


def one_of(*values):
    return re.compile("|".join(re.escape(value) for value in values))


#: Attributes of each element; a question mark stands behind those that may be missing.
ATTRIBUTES = {
    "AuditMessage": {},
    "EventIdentification": {
        "EventActionCode?": one_of("C", "R", "U", "D", "E"),
        "EventDateTime": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"),
        "EventOutcomeIndicator": one_of("0", "4", "8", "12"),
    },
    "EventID": CODE,
    "EventTypeCode": CODE,
    "EventOutcomeDescription": {},
    "ActiveParticipant": {
        "UserID": re.compile(".+"),
        "AlternativeUserID?": re.compile("AETITLES=.+"),
        "UserName?": re.compile(".+"),
        "UserIsRequestor": one_of("true", "false"),
        "NetworkAccessPointID?": TOKEN,
        "NetworkAccessPointTypeCode?": one_of("1", "2", "3", "4", "5"),
    },
    "RoleIDCode": CODE,
    "MediaIdentifier": {},
    "MediaType": CODE,
    "AuditSourceIdentification": {"AuditEnterpriseSiteID?": TOKEN, "AuditSourceID": TOKEN},
    "AuditSourceTypeCode": {"csd-code": one_of(*"123456789")},
    "ParticipantObjectIdentification": {
        "ParticipantObjectID": TOKEN,
        "ParticipantObjectTypeCode?": one_of(*"1234"),
        "ParticipantObjectTypeCodeRole?": one_of(*(str(number) for number in range(26, 0, -1))),
        "ParticipantObjectDataLifeCycle?": INTEGER,
        "ParticipantObjectSensitivity?": TOKEN,
    },
    "ParticipantObjectIDTypeCode": CODE,
    "ParticipantObjectName": {},
    "ParticipantObjectQuery": {},
    "ParticipantObjectDetail": {"type": TOKEN, "value": re.compile("[A-Za-z0-9+/]+=*")},
    "ParticipantObjectDescription": {},
    "SOPClass": {"UID?": TOKEN, "NumberOfInstances": INTEGER},
}

#: Children of each element in their order, as a pattern over their names.
CHILDREN = {
    "AuditMessage": r"EventIdentification (ActiveParticipant )+AuditSourceIdentification "
    r"(ParticipantObjectIdentification )*",
    "EventIdentification": r"EventID (EventTypeCode )*(EventOutcomeDescription )?",
    "ActiveParticipant": r"(RoleIDCode )*(MediaIdentifier )?",
    "MediaIdentifier": r"MediaType ",
    "AuditSourceIdentification": r"(AuditSourceTypeCode )*",
    "ParticipantObjectIdentification": r"ParticipantObjectIDTypeCode (ParticipantObjectName|ParticipantObjectQuery) "
    r"(ParticipantObjectDetail )*(ParticipantObjectDescription )*",
    "ParticipantObjectDescription": r"(SOPClass )*",
}


def checked(xml: str) -> ElementTree.Element:
    """Return a message after checking it."""
    assert "\n" not in xml
    root = ElementTree.fromstring(xml.encode("utf-8"))
    assert root.tag == "AuditMessage"
    for element in root.iter():
        _check(element)
    return root


def _check(element: ElementTree.Element) -> None:
    rules = ATTRIBUTES[element.tag]
    names = {name.rstrip("?"): pattern for name, pattern in rules.items()}
    required = {name for name in rules if not name.endswith("?")}
    assert required <= set(element.attrib) <= set(names), (element.tag, element.attrib)
    for name, value in element.attrib.items():
        assert names[name].fullmatch(value), (element.tag, name, value)
    children = "".join(f"{child.tag} " for child in element)
    assert re.fullmatch(CHILDREN.get(element.tag, ""), children), (element.tag, children)
    if element.get("codeSystemName") == "DCM":
        _check_code(element)
    if element.tag == "EventIdentification":
        assert datetime.fromisoformat(element.attrib["EventDateTime"]).tzinfo is not None


def _check_code(element: ElementTree.Element) -> None:
    value = element.attrib["csd-code"]
    assert _known()[value] == element.attrib["originalText"], value


@functools.cache
def _known() -> dict[str, str]:
    """Return what the codes of the audit trail mean (PS3.16, CID 400 to 405)."""
    groups = (codes.cid400, codes.cid401, codes.cid402, codes.cid404, codes.cid405)
    return {code.value: code.meaning for group in groups for code in (getattr(group, name) for name in group.dir())}


def event(root: ElementTree.Element) -> str:
    """Return the code of the event, and of its type after a slash."""
    kind = root.find("EventIdentification/EventTypeCode")
    code = root.find("EventIdentification/EventID").attrib["csd-code"]
    return code if kind is None else f"{code}/{kind.attrib['csd-code']}"


def participant(root: ElementTree.Element, role: str) -> dict[str, str]:
    """Return the attributes of who plays a role."""
    (found,) = [
        element for element in root.iter("ActiveParticipant") if element.find("RoleIDCode").attrib["csd-code"] == role
    ]
    return dict(found.attrib)


def objects(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    """Return the participating objects by the code of what they are identified by."""
    return {
        element.find("ParticipantObjectIDTypeCode").attrib["csd-code"]: element
        for element in root.iter("ParticipantObjectIdentification")
    }


def study(root: ElementTree.Element) -> str:
    """Return the Study Instance UID."""
    return objects(root)["110180"].attrib["ParticipantObjectID"]


def sop_classes(root: ElementTree.Element) -> dict[str, int]:
    """Return how many objects of which SOP class a message tells of."""
    return {element.attrib["UID"]: int(element.attrib["NumberOfInstances"]) for element in root.iter("SOPClass")}


def detail(root: ElementTree.Element, kind: str = "Alert Description") -> str:
    """Return the only detail of a message, the description of an alert."""
    (found,) = details(root).items()
    assert found[0] == kind
    return found[1]


def details(root: ElementTree.Element) -> dict[str, str]:
    """Return the details of a message by their kind."""
    return {
        each.attrib["type"]: base64.b64decode(each.attrib["value"]).decode("utf-8")
        for each in root.iter("ParticipantObjectDetail")
    }


def query(root: ElementTree.Element) -> Dataset:
    """Return the identifier of a query, decoded by pydicom as its message says."""
    (found,) = root.iter("ParticipantObjectQuery")
    assert details(root)["TransferSyntax"] == ExplicitVRLittleEndian
    return read_dataset(io.BytesIO(base64.b64decode(found.text)), is_implicit_VR=False, is_little_endian=True)


def failure(root: ElementTree.Element) -> str:
    """Return why something did not succeed; empty when it did."""
    outcome = root.find("EventIdentification").attrib["EventOutcomeIndicator"]
    text = root.findtext("EventIdentification/EventOutcomeDescription") or ""
    assert (outcome == "4") == bool(text)
    return text


def action(root: ElementTree.Element) -> str:
    """Return EventActionCode."""
    return root.find("EventIdentification").attrib["EventActionCode"]
