"""What is at its final path already, and need not come again (semantics 3 and 9).

Looking for it reads the destination alone: it needs no spool, and writes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Final, Literal

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import DestinationWriteError
from airflow_provider_varian.receiver.head import DataSetError
from airflow_provider_varian.retrieval.conflicts import ConflictFiles
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.layout import Layout
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.outcome import State
from airflow_provider_varian.retrieval.verify import Inspection, inspect, sha256_of
from airflow_provider_varian.retrieval.versions import Versions
from airflow_provider_varian.uids import STORAGE_BY_MODALITY

logger = logging.getLogger(__name__)

Verify = Literal["path", "hash"]

_MODALITY_OF: Final = MappingProxyType(
    {sop_class: modality for modality, classes in STORAGE_BY_MODALITY.items() for sop_class in classes}
)


class Held:
    """Looks at the destination for what a retrieval is about.

    :param ledger: the account.
    :param destination: where objects are.
    :param layout: under which paths.
    :param known: what the peer said of an instance, by SOP Instance UID and keyword.
    :param earlier: the account of an earlier try of the same retrieval; ``None`` when this is the first.
    :param versions: which held objects to ask for again.
    :param cancellation: stops it from outside.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        destination: Destination,
        layout: Layout,
        known: Mapping[str, Mapping[str, Any]],
        earlier: Ledger | None,
        versions: Versions,
        cancellation: Cancellation,
    ) -> None:
        self._ledger = ledger
        self._destination = destination
        self._layout = layout
        self._known = dict(known)
        self._earlier = earlier or Ledger()
        self._versions = versions
        self._cancellation = cancellation
        self._conflicts = ConflictFiles(destination)
        #: What was read of objects whose hash no manifest has, by SOP Instance UID.
        self._inspected: dict[str, Inspection] = {}

    def know(self, known: Mapping[str, Mapping[str, Any]]) -> None:
        """Learn what the peer says of more instances, by SOP Instance UID and keyword."""
        self._known.update(known)

    def said_of(self, sop_instance_uid: str) -> Mapping[str, Any]:
        """Return what the peer says of an instance, by keyword; nothing when it said nothing."""
        return self._known.get(sop_instance_uid, {})

    def mark(self, verify: Verify) -> None:
        """Enter into the ledger what is held and need not come again.

        :param verify: ``hash`` compares with the SHA-256 of the earlier try as well, and inspects what has none.
        :raises CancelledError: cancelled between two objects.
        """
        for entry in self._ledger.entries.values():
            self._cancellation.raise_if_cancelled()
            if not entry.is_here and not entry.attempts:
                self._look_for(entry, verify)

    def _look_for(self, entry: Entry, verify: Verify) -> None:
        earlier = self._earlier.entries.get(entry.sop_instance_uid)
        if earlier is not None:
            entry.attempts = earlier.attempts
        for path in self._likely_paths(entry, earlier):
            size = self._destination.size(path)
            if size and self._is_current(entry, path, size, earlier, verify):
                self._hold(entry, path, size, earlier)
                break
            self._versions.look(entry, path)

    def _is_current(self, entry: Entry, path: PurePosixPath, size: int, earlier: Entry | None, verify: Verify) -> bool:
        try:
            if not self._is_as_it_was(entry, path, size, earlier, verify):
                return False
            fetched = earlier is not None and earlier.is_here and earlier.fetched
            return self._versions.is_current(entry, path, self.said_of(entry.sop_instance_uid), fetched=fetched)
        except DestinationWriteError as error:
            # Whether the whole destination is out of order, the next look tells.
            logger.warning("Object %s is asked for: %s", entry.sop_instance_uid, error.what)
            return False

    def _likely_paths(self, entry: Entry, earlier: Entry | None) -> Iterable[PurePosixPath]:
        paths = []
        if earlier is not None and (before := earlier.path if earlier.is_here else earlier.older):
            paths.append(PurePosixPath(before))
        values = values_of(entry, self.said_of(entry.sop_instance_uid))
        if self._layout.is_known(values):
            paths.append(self._layout.path(values))
        return dict.fromkeys(paths)

    def _is_as_it_was(
        self, entry: Entry, path: PurePosixPath, size: int, earlier: Entry | None, verify: Verify
    ) -> bool:
        if earlier is None or not earlier.sha256:
            return verify != "hash" or self._is_whole(entry, path)
        if earlier.path == str(path) and size != earlier.bytes:
            logger.warning(
                "Object %s changed its size, from %s to %d bytes", earlier.sop_instance_uid, earlier.bytes, size
            )
            return False
        if verify != "hash":
            return True
        with self._destination.local_copy(path) as local:
            return sha256_of(local) == earlier.sha256

    def _is_whole(self, entry: Entry, path: PurePosixPath) -> bool:
        """Inspect what nobody has hashed, such as what a try published that was killed before it wrote that down."""
        try:
            with self._destination.local_copy(path) as local:
                inspection = inspect(local)
        except DataSetError as error:
            logger.warning("Object %s is not whole at its final path (%s)", entry.sop_instance_uid, error)
            return False
        if inspection.sop_instance_uid != entry.sop_instance_uid:
            logger.warning("Object %s has another object at its final path", entry.sop_instance_uid)
            return False
        self._inspected[entry.sop_instance_uid] = inspection
        return True

    def _hold(self, entry: Entry, path: PurePosixPath, size: int, earlier: Entry | None) -> None:
        entry.state = State.VERIFIED
        entry.held = True
        entry.path = str(path)
        entry.bytes = size
        if (inspection := self._inspected.pop(entry.sop_instance_uid, None)) is not None:
            entry.sha256, entry.sha256_data_set = inspection.sha256_file, inspection.sha256_data_set
            entry.transfer_syntax_uid = inspection.transfer_syntax_uid
        elif earlier is not None and earlier.path == str(path):
            entry.sha256, entry.sha256_data_set = earlier.sha256, earlier.sha256_data_set
            entry.transfer_syntax_uid = earlier.transfer_syntax_uid
        if earlier is not None and earlier.path == str(path):
            entry.fetched, entry.superseded = earlier.fetched, earlier.superseded
            # A conflict ends when a person has removed the other content.
            others = [PurePosixPath(other) for other in earlier.conflicts]
            if remaining := [other for other in others if self._destination.size(other) is not None]:
                enter_conflicts(entry, remaining)
        self.look_beside(entry)

    def look_beside(self, entry: Entry) -> None:
        """Make an object a conflict when another content lies beside it, whoever brought that."""
        if others := self._conflicts.beside(PurePosixPath(entry.path)):
            enter_conflicts(entry, others)


def values_of(entry: Entry, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of an instance before it is here."""
    values = {key: value for key, value in said.items() if value not in (None, "", [])}
    values["SOPInstanceUID"] = entry.sop_instance_uid
    for key, value in (
        ("SOPClassUID", entry.sop_class_uid),
        ("StudyInstanceUID", entry.study_instance_uid),
        ("SeriesInstanceUID", entry.series_instance_uid),
    ):
        if value:
            values[key] = value
    if "Modality" not in values and entry.sop_class_uid in _MODALITY_OF:
        values["Modality"] = _MODALITY_OF[entry.sop_class_uid]
    return values


def enter_conflicts(entry: Entry, others: Iterable[PurePosixPath]) -> None:
    """Make an object a conflict, and name the other contents."""
    entry.state = State.CONFLICT
    entry.reason = "same SOP Instance UID, other content"
    entry.conflicts += [str(other) for other in others if str(other) not in entry.conflicts]
