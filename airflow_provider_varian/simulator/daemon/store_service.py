"""C-STORE as the daemon takes it: an import, for patients whom it knows (PS3.4 B.2.3, varian-daemon 1.2).

A patient is matched by ID, last and first name, and by birth date where a switch says so. What the real daemon
answers when that fails is not known; ours answers one of the "cannot understand" statuses, since the same object
will be refused again until somebody changes it or the patient's record. An instance that is held already is replaced
by the new one: a client that did not hear the answer may send it once more.
"""

from __future__ import annotations

import logging
import threading
from io import BytesIO
from typing import Any, Final

from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import PersonName
from pynetdicom import evt

from airflow_provider_varian import uids
from airflow_provider_varian.query.level import LEVELS, UNIQUE_KEYS, Level
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.tally import Tally
from airflow_provider_varian.simulator.holdings.attributes import element_of, tag_of
from airflow_provider_varian.simulator.holdings.imported import Imported, Overlay, is_filed, unique_value
from airflow_provider_varian.simulator.holdings.structure import check_whole
from airflow_provider_varian.simulator.holdings.tree import Holdings, Node, Search, walk

log = logging.getLogger(__name__)

#: What can be imported (varian-daemon 1.2): all that can be exported, and the two that cannot.
IMPORTED_CLASSES: Final = (
    *uids.RADIOTHERAPY_STORAGE,
    "1.2.840.10008.5.1.4.1.1.6.1",  # Ultrasound Image
    "1.2.840.10008.5.1.4.1.1.12.1",  # X-Ray Angiographic Image
)

SUCCESS: Final = 0x0000
#: PS3.7 C.5
NOT_AUTHORISED: Final = 0x0124
#: PS3.4 B.2.3
OUT_OF_RESOURCES: Final = 0xA700
NO_MATCH_OF_CLASS: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000
#: Ours, of the range that PS3.4 B.2.3 leaves for "cannot understand".
NO_SUCH_PATIENT: Final = 0xC001
PATIENT_DIFFERS: Final = 0xC002
UID_HELD_ELSEWHERE: Final = 0xC003

_UNDEFINED_LENGTH: Final = 0xFFFFFFFF


class _RefusedError(Exception):
    """An object is not imported.

    :param status: status of the response.
    :param comment: Error Comment; names no values.
    """

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = comment


class StoreService:
    """Takes what clients store.

    :param imported: where it goes.
    :param tally: counts requests as ``C-STORE``, and as ``imported`` those that were kept.
    """

    def __init__(self, imported: Imported, tally: Tally) -> None:
        self._imported = imported
        self._tally = tally
        # Two clients may bring the same new patient.
        self._matching = threading.Lock()

    def serve(self, event: evt.Event, holdings: Holdings, behaviour: Behaviour) -> Dataset:
        """Take one object; return status and, when it is refused, Error Comment of the response.

        :param event: of ``EVT_C_STORE``.
        :param holdings: whose patients are matched, beside those imported.
        """
        self._tally.add("C-STORE")
        status, comment = SUCCESS, ""
        try:
            if not behaviour.store:
                raise _RefusedError(NOT_AUTHORISED, "Import is not permitted")
            head, content = _read(event)
            served = self._imported.over(holdings)
            with self._matching:
                _match(head, served, behaviour)
                _place(head, served)
                self._imported.keep(head, content)
            self._tally.add("imported")
        except _RefusedError as refused:
            status, comment = refused.status, refused.comment
        except OSError as error:
            log.warning("An import could not be written: %s", error.strerror)
            status, comment = OUT_OF_RESOURCES, "The object cannot be written"
        log.info("C-STORE status=0x%04X%s", status, f" {comment}" if comment else "")
        answer = Dataset()
        answer.Status = status
        if comment:
            answer.ErrorComment = comment
        return answer


def _read(event: Any) -> tuple[Dataset, bytes]:
    """Return an object's data set, and the DICOM file that it makes.

    :raises _RefusedError: when it cannot be decoded, is not what the command says, or has no place.
    """
    try:
        content = event.encoded_dataset()
        head = dcmread(BytesIO(content))
        check_whole(content, str(head.file_meta.TransferSyntaxUID))
        _decode(head)
    except Exception as error:  # noqa: BLE001 - anything may stand in a client's bytes
        log.info("An object could not be decoded: %s", type(error).__name__)
        raise _RefusedError(CANNOT_UNDERSTAND, "Data set cannot be decoded") from None
    request = event.request
    classes = {str(event.context.abstract_syntax), str(request.AffectedSOPClassUID), str(head.get("SOPClassUID"))}
    if len(classes) > 1 or str(request.AffectedSOPInstanceUID) != unique_value(head, Level.IMAGE):
        raise _RefusedError(NO_MATCH_OF_CLASS, "Data set is of another SOP class or instance than said")
    if not unique_value(head, Level.PATIENT):
        raise _RefusedError(NO_SUCH_PATIENT, "Patient ID is missing")
    if not is_filed(head):
        raise _RefusedError(CANNOT_UNDERSTAND, "A UID is missing or not valid")
    return head, content


def _decode(part: Dataset) -> None:
    """Decode all elements; pydicom itself says nothing when the last one is cut short.

    :raises EOFError: when one is.
    """
    for tag in list(part.keys()):
        raw: Any = part.get_item(tag)
        if isinstance(raw, RawDataElement) and raw.length not in (_UNDEFINED_LENGTH, len(raw.value or b"")):
            raise EOFError
        element = part[tag]
        if element.VR == "SQ":
            for item in element.value:
                _decode(item)


def _match(head: Dataset, served: Overlay, behaviour: Behaviour) -> None:
    """Find the patient of an object.

    :raises _RefusedError: when there is none and none is made, or what is known of him differs.
    """
    patient = served.patient(unique_value(head, Level.PATIENT))
    if patient is None:
        if not behaviour.automatic_patient_creation:
            raise _RefusedError(NO_SUCH_PATIENT, "No such patient; Automatic Patient Creation is off")
        return
    if _last_and_first(head.get("PatientName")) != _last_and_first(_held(patient, "PatientName")):
        raise _RefusedError(PATIENT_DIFFERS, "The patient with this ID has another name")
    if behaviour.patient_match_birth_date and str(head.get("PatientBirthDate") or "") != str(
        _held(patient, "PatientBirthDate") or ""
    ):
        raise _RefusedError(PATIENT_DIFFERS, "The patient with this ID has another birth date")


def _held(patient: Node, keyword: str) -> Any:
    element = element_of(patient.values(), tag_of(keyword))
    return element.value if element is not None else None


def _last_and_first(name: Any) -> tuple[str, str]:
    """Return family and given name of the alphabetic group, without regard to case (PS3.5 6.2.1)."""
    parts = PersonName(str(name or ""))
    return parts.family_name.strip().casefold(), parts.given_name.strip().casefold()


def _place(head: Dataset, served: Overlay) -> None:
    """See that the UIDs of an object are not in use elsewhere.

    :raises _RefusedError: when its study is another patient's, its series in another study, and so on.
    """
    path = [unique_value(head, level) for level in LEVELS]
    for level in LEVELS[1:]:
        keys = Dataset()
        setattr(keys, UNIQUE_KEYS[level], path[level.depth])
        for chain in walk(served, Search(level, keys)):
            if [node.uid for node in chain] != path[: level.depth + 1]:
                raise _RefusedError(UID_HELD_ELSEWHERE, f"{UNIQUE_KEYS[level]} is in use elsewhere")
