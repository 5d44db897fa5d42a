"""What a C-FIND answers for one match: the keys asked for, filled where the object has them."""

from __future__ import annotations

from typing import Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.matching import NOT_KEYS
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.holdings.attributes import element, element_of, keyword_of
from airflow_provider_varian.simulator.holdings.tree import Chain, Node, level_of

#: Counted or collected from what lies below, by keyword: the level at whose node it is asked.
_RELATED: Final = {
    "NumberOfPatientRelatedStudies": (Level.PATIENT, Level.STUDY),
    "NumberOfPatientRelatedSeries": (Level.PATIENT, Level.SERIES),
    "NumberOfPatientRelatedInstances": (Level.PATIENT, Level.IMAGE),
    "NumberOfStudyRelatedSeries": (Level.STUDY, Level.SERIES),
    "NumberOfStudyRelatedInstances": (Level.STUDY, Level.IMAGE),
    "NumberOfSeriesRelatedInstances": (Level.SERIES, Level.IMAGE),
}


def answer(chain: Chain, keys: Dataset, behaviour: Behaviour, retrieve_ae_title: str) -> Dataset:
    """Build the identifier of one pending response (PS3.4 C.4.1.1.3.2).

    :param chain: from the patient down to the match.
    :param keys: the identifier of the request.
    :param retrieve_ae_title: value of RetrieveAETitle (0008,0054) when it is asked for.
    """
    level = chain[-1].level
    result = Dataset()
    for key in keys:
        if key.tag.element == 0 or (key.tag in NOT_KEYS and key.keyword not in _OF_THE_SERVER):
            continue
        result.add(_value(chain, key, behaviour, retrieve_ae_title) or DataElement(key.tag, key.VR, _empty(key.VR)))
    result.QueryRetrieveLevel = level.value
    return result


_OF_THE_SERVER: Final = frozenset({"RetrieveAETitle", "InstanceAvailability"})


def _empty(vr: str) -> Sequence | None:
    return Sequence() if vr == "SQ" else None


def _value(chain: Chain, key: DataElement, behaviour: Behaviour, retrieve_ae_title: str) -> DataElement | None:
    keyword = keyword_of(key.tag)
    if keyword == "RetrieveAETitle":
        return element(keyword, retrieve_ae_title)
    if keyword == "InstanceAvailability":
        return element(keyword, "ONLINE")
    level = level_of(keyword)
    if level.depth > chain[-1].level.depth:
        return None
    if keyword == "SeriesDate" and behaviour.series_date_empty and chain[-1].level is Level.SERIES:
        return None
    node = chain[level.depth]
    if keyword in _RELATED or keyword in ("ModalitiesInStudy", "SOPClassesInStudy"):
        return _related(node, keyword) if behaviour.related_counts else None
    if keyword in ("InstanceCreationDate", "InstanceCreationTime") and behaviour.creation_at_export:
        return None  # the time of an export is not known before it
    return _filled(node, key, keyword)


def _filled(node: Node, key: DataElement, keyword: str) -> DataElement | None:
    found = element_of(node.values(), key.tag)
    if found is None and keyword == "ReferencedSOPInstanceUID":
        return _referenced_plan(node)
    if found is not None and found.VR == "SQ":
        return _narrowed(found, key)
    return found


def _referenced_plan(node: Node) -> DataElement | None:
    """Answer the flat key with the plan's UID, as the daemon does (varian-daemon 1.3)."""
    plans = element_of(node.values(), _PLAN_SEQUENCE)
    return plans.value[0].get(_REFERENCED_UID) if plans is not None and plans.value else None


_PLAN_SEQUENCE: Final = BaseTag(0x300C0002)
_REFERENCED_UID: Final = BaseTag(0x00081155)


def _narrowed(found: DataElement, key: DataElement) -> DataElement:
    """Answer the attributes that the key's item asks for; all of them when it asks for none."""
    wanted = [each.tag for each in key.value[0]] if key.VR == "SQ" and key.value else []
    if not wanted:
        return found
    items = []
    for item in found.value:
        part = Dataset()
        for tag in wanted:
            if tag in item:
                part.add(item[tag])
        items.append(part)
    return DataElement(found.tag, "SQ", Sequence(items))


def _related(node: Node, keyword: str) -> DataElement:
    if keyword in _RELATED:
        return element(keyword, _count(node, _RELATED[keyword][1]))
    found: set[str] = set()
    for series in node.children():
        if keyword == "ModalitiesInStudy":
            modality = element_of(series.values(), BaseTag(0x00080060))
            found |= {str(modality.value)} if modality is not None and modality.value else set()
        else:
            found |= {instance.sop_class_uid for instance in series.children()}
    return element(keyword, sorted(found))


def _count(node: Node, level: Level) -> int:
    if node.level is level:
        return 1
    return sum(_count(child, level) for child in node.children())
