"""From the spool to the destination: claim, inspect, publish, and write it into the ledger.

Runs in one thread, the retrieval's. Receivers only put what arrived into a queue.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Final, Literal

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.receiver.head import DataSetError, Head
from airflow_provider_varian.receiver.spool import Spool, SpooledObject
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.retrieval.claims import Claims
from airflow_provider_varian.retrieval.conflicts import ConflictFiles, conflict_path
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.layout import Layout
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.outcome import State
from airflow_provider_varian.retrieval.verify import Inspection, inspect, layout_values, same_content, sha256_of
from airflow_provider_varian.uids import STORAGE_BY_MODALITY

logger = logging.getLogger(__name__)

Verify = Literal["path", "hash"]

_MODALITY_OF: Final = MappingProxyType(
    {sop_class: modality for modality, classes in STORAGE_BY_MODALITY.items() for sop_class in classes}
)


class Intake:
    """Takes received objects into the ledger and the destination.

    A cancellation ends it between two objects: what is claimed by then stays claimed, and is taken by the retry.

    :param spool: where they arrive.
    :param retrieval_id: who claims them.
    :param ledger: the account.
    :param destination: where they go.
    :param layout: under which paths.
    :param profile: which attributes the peer rewrites at each export.
    :param known: what the peer said of an instance, by SOP Instance UID and keyword.
    :param earlier: the account of an earlier try of the same retrieval; ``None`` when this is the first.
    :param cancellation: stops it from outside.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        retrieval_id: str,
        ledger: Ledger,
        destination: Destination,
        layout: Layout,
        profile: Profile,
        known: Mapping[str, Mapping[str, Any]],
        earlier: Ledger | None,
        cancellation: Cancellation,
    ) -> None:
        self._spool = spool
        self._ledger = ledger
        self._destination = destination
        self._layout = layout
        self._profile = profile
        self._known = known
        self._earlier = earlier or Ledger()
        self._cancellation = cancellation
        self._conflicts = ConflictFiles(destination)
        self._arrived: queue.SimpleQueue[tuple[SpooledObject, Head]] = queue.SimpleQueue()
        self.sink = SpoolSink(spool, on_received=self._note)
        self._claims = Claims(spool, retrieval_id=retrieval_id, owner=self.sink.owner, earlier=earlier)
        #: Series and studies that were asked for as a whole: what else comes of them is taken too.
        self.whole: set[str] = set()

    def _note(self, item: SpooledObject, head: Head) -> None:
        self._arrived.put((item, head))

    def close(self) -> None:
        """End: what is not claimed is anybody's."""
        self.sink.close()
        self._claims.close()

    def mark_held(self, verify: Verify) -> None:
        """Enter into the ledger what is at its final path already (semantics 3).

        :param verify: ``hash`` compares with the SHA-256 of the earlier try as well.
        :raises CancelledError: cancelled between two objects; likewise the two methods below.
        """
        for entry in self._ledger.entries.values():
            self._cancellation.raise_if_cancelled()
            earlier = self._earlier.entries.get(entry.sop_instance_uid)
            if earlier is not None:
                entry.attempts = earlier.attempts
            for path in self._likely_paths(entry, earlier):
                size = self._destination.size(path)
                if size and self._is_as_it_was(path, size, earlier, verify):
                    self._hold(entry, path, size, earlier)
                    break

    def _likely_paths(self, entry: Entry, earlier: Entry | None) -> Iterable[PurePosixPath]:
        if earlier is not None and earlier.is_here and earlier.path:
            yield PurePosixPath(earlier.path)
        values = _values_of(entry, self._known.get(entry.sop_instance_uid, {}))
        if self._layout.is_known(values):
            yield self._layout.path(values)

    def _is_as_it_was(self, path: PurePosixPath, size: int, earlier: Entry | None, verify: Verify) -> bool:
        if earlier is None or not earlier.sha256:
            return True
        if earlier.path == str(path) and size != earlier.bytes:
            logger.warning(
                "Object %s changed its size, from %s to %d bytes", earlier.sop_instance_uid, earlier.bytes, size
            )
            return False
        if verify != "hash":
            return True
        with self._destination.local_copy(path) as local:
            return sha256_of(local) == earlier.sha256

    def _hold(self, entry: Entry, path: PurePosixPath, size: int, earlier: Entry | None) -> None:
        entry.state = State.VERIFIED
        entry.held = True
        entry.path = str(path)
        entry.bytes = size
        if earlier is not None and earlier.path == str(path):
            entry.sha256, entry.sha256_data_set = earlier.sha256, earlier.sha256_data_set
            entry.transfer_syntax_uid = earlier.transfer_syntax_uid
            # A conflict ends when a person has removed the other content.
            others = [PurePosixPath(other) for other in earlier.conflicts]
            if remaining := [other for other in others if self._destination.size(other) is not None]:
                _enter_conflicts(entry, remaining)
        self._look_beside(entry)

    def take_leftovers(self) -> int:
        """Take what an earlier try of this retrieval claimed, or left unclaimed; return how many objects that were.

        Which those are: :class:`.claims.Claims`.
        """
        items = self._claims.leftovers({entry.sop_instance_uid for entry in self._ledger.outstanding})
        self._take_each(items)
        return len(items)

    def take_arrived(self, *, all_of_it: bool) -> None:
        """Take what arrived since the last call.

        :param all_of_it: it can only be meant for us (C-GET); else what nobody asked for may be the
            straggler of another retrieval, and stays unclaimed in the spool.
        """
        items: list[SpooledObject] = []
        while True:
            try:
                item, head = self._arrived.get_nowait()
            except queue.Empty:
                break
            if item.sop_instance_uid in self._ledger.entries or all_of_it or self._belongs(head):
                items.append(item)
            else:
                self._leave(item.sop_instance_uid, head)
        # Claimed although the work may be cancelled: only what is claimed is the retry's for certain.
        self._take_each(self._claims.arrived(items))

    def _take_each(self, items: Iterable[SpooledObject]) -> None:
        for item in items:
            self._cancellation.raise_if_cancelled()
            self._take(item)

    def _belongs(self, head: Head) -> bool:
        return head.series_instance_uid in self.whole or head.study_instance_uid in self.whole

    def _leave(self, uid: str, head: Head) -> None:
        entry = self._ledger.entry_for(uid)
        entry.state = State.RECEIVED
        entry.sop_class_uid = head.sop_class_uid or ""
        entry.reason = "not asked for by this retrieval: left unclaimed in the spool"

    def _take(self, item: SpooledObject) -> None:
        entry = self._ledger.entry_for(item.sop_instance_uid)
        try:
            inspection = inspect(item.path)
        except DataSetError as error:
            self._set_aside(item, entry, str(error))
            return
        if not entry.is_here:
            entry.state = State.RECEIVED
        self._publish(item, entry, inspection)
        self._spool.let_go(item)

    def _set_aside(self, item: SpooledObject, entry: Entry, reason: str) -> None:
        kept = self._spool.set_aside(item)
        logger.error("Object %s is not well formed (%s); kept as %s", item.sop_instance_uid, reason, kept)
        if not entry.is_here:
            entry.state, entry.reason = State.FAILED, reason

    def _publish(self, item: SpooledObject, entry: Entry, inspection: Inspection) -> None:
        # What came before under this UID is what the new one is compared with, wherever it lies.
        path = PurePosixPath(entry.path) if entry.is_here else self._layout.path(self._values(item, entry, inspection))
        if self._destination.publish(item.path, path, sha256=inspection.sha256_file):
            _enter(entry, path, inspection)
        else:
            self._compare(item, entry, inspection, path)
        self._look_beside(entry)

    def _compare(self, item: SpooledObject, entry: Entry, inspection: Inspection, path: PurePosixPath) -> None:
        """Tell a duplicate of what is at a path from a conflict with it, which is kept beside it (semantics 8)."""
        with self._destination.local_copy(path) as local:
            held = _inspected(local)
            same = held is not None and self._is_same(item.path, inspection, local, held)
        if same and entry.is_here:
            entry.duplicate = True
        elif held is not None and not entry.is_here:
            _enter(entry, path, held)
        if not same:
            other = conflict_path(path, inspection.sha256_data_set)
            self._destination.publish(item.path, other, sha256=inspection.sha256_file)
            logger.warning("Object %s came with other content than what is held; both are kept", entry.sop_instance_uid)
            entry.path = entry.path or str(path)
            _enter_conflicts(entry, [other])

    def _look_beside(self, entry: Entry) -> None:
        """Make an object a conflict when another content lies beside it, whoever brought that."""
        if others := self._conflicts.beside(PurePosixPath(entry.path)):
            _enter_conflicts(entry, others)

    def _is_same(self, new: Path, inspection: Inspection, local: Path, held: Inspection) -> bool:
        """Say whether it is the same object as the one that is held (semantics 8)."""
        if held.sha256_data_set == inspection.sha256_data_set:
            return True
        try:
            return same_content(new, local, volatile=self._profile.volatile_attributes)
        except Exception as error:  # noqa: BLE001 - pydicom raises many kinds; what cannot be compared is kept
            logger.warning("Object %s cannot be compared: %s", inspection.sop_instance_uid, type(error).__name__)
            return False

    def _values(self, item: SpooledObject, entry: Entry, inspection: Inspection) -> dict[str, Any]:
        """Return the values for the layout: the object's own, else what the peer said of it."""
        own: dict[str, Any] = {
            "SOPInstanceUID": inspection.sop_instance_uid,
            "SOPClassUID": inspection.sop_class_uid,
            "StudyInstanceUID": inspection.study_instance_uid,
            "SeriesInstanceUID": inspection.series_instance_uid,
        }
        if others := [keyword for keyword in self._layout.keywords if keyword not in own]:
            try:
                own.update(layout_values(item.path, others))
            except Exception as error:  # noqa: BLE001 - as above: values that cannot be read are absent
                logger.warning("Object %s: %s while reading its values", item.sop_instance_uid, type(error).__name__)
        said = _values_of(entry, self._known.get(item.sop_instance_uid, {}))
        return {**said, **{key: value for key, value in own.items() if value not in (None, "")}}


def _values_of(entry: Entry, said: Mapping[str, Any]) -> dict[str, Any]:
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


def _enter(entry: Entry, path: PurePosixPath, inspection: Inspection) -> None:
    entry.state = State.VERIFIED
    entry.path = str(path)
    entry.bytes = inspection.file_bytes
    entry.sha256 = inspection.sha256_file
    entry.sha256_data_set = inspection.sha256_data_set
    entry.transfer_syntax_uid = inspection.transfer_syntax_uid
    entry.sop_class_uid = inspection.sop_class_uid
    entry.study_instance_uid = inspection.study_instance_uid
    entry.series_instance_uid = inspection.series_instance_uid
    entry.reason = ""


def _enter_conflicts(entry: Entry, others: Iterable[PurePosixPath]) -> None:
    entry.state = State.CONFLICT
    entry.reason = "same SOP Instance UID, other content"
    entry.conflicts += [str(other) for other in others if str(other) not in entry.conflicts]


def _inspected(path: Path) -> Inspection | None:
    """Inspect what lies at a final path; ``None`` when it is nothing of ours."""
    try:
        return inspect(path)
    except DataSetError:
        return None
