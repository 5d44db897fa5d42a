"""From the spool to the destination: claim, inspect, publish, and write it into the ledger.

Runs in one thread, the retrieval's. Receivers only put what arrived into a queue.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import DestinationWriteError, DicomError
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.receiver.head import DataSetError, Head
from airflow_provider_varian.receiver.spooled import SpooledObject
from airflow_provider_varian.retrieval.arrivals import Arrivals
from airflow_provider_varian.retrieval.claims import Claims
from airflow_provider_varian.retrieval.conflicts import conflict_path
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.held import Held, enter_conflicts, values_of
from airflow_provider_varian.retrieval.layout import Layout
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.letting_go import LettingGo
from airflow_provider_varian.retrieval.outcome import State
from airflow_provider_varian.retrieval.reception import Reception
from airflow_provider_varian.retrieval.revision import REVISION_KEYWORDS, Verdict, judge_revision, revision_in
from airflow_provider_varian.retrieval.verify import Given, Inspection, inspect, same_content
from airflow_provider_varian.retrieval.versions import Versions
from airflow_provider_varian.uids import CHANGING_STORAGE

logger = logging.getLogger(__name__)


class Intake:
    """Takes received objects into the ledger and the destination.

    A cancellation ends it between two objects: what is claimed by then stays claimed, and is taken by the retry.

    :param reception: what this process receives itself.
    :param claims: what of the spool is ours.
    :param arrivals: where what a C-MOVE sends arrives.
    :param ledger: the account.
    :param destination: where they go.
    :param layout: under which paths.
    :param profile: which attributes the peer rewrites at each export.
    :param held: what is at its final path already, and what the peer said of each instance.
    :param versions: which held objects to ask for again, and where older versions go.
    :param on_fetched: called when something is here of which only the account tells that it need not come again.
    :param cancellation: stops it from outside.
    """

    def __init__(
        self,
        reception: Reception,
        *,
        claims: Claims,
        arrivals: Arrivals,
        ledger: Ledger,
        destination: Destination,
        layout: Layout,
        profile: Profile,
        held: Held,
        versions: Versions,
        on_fetched: Callable[[], None],
        cancellation: Cancellation,
    ) -> None:
        self._reception = reception
        self._spool = reception.spool
        self._claims = claims
        self._arrivals = arrivals
        self._ledger = ledger
        self._destination = destination
        self._layout = layout
        self._profile = profile
        self._held = held
        self._versions = versions
        self._cancellation = cancellation
        #: For C-GET.
        self.own_sink = reception.own_sink
        #: Series and studies that were asked for as a whole: what else comes of them is taken too.
        self.whole: set[str] = set()
        self._letting_go = LettingGo(self._spool, destination, on_fetched)
        #: Claimed while the peer was still sending, and not yet looked at.
        self._waiting: deque[SpooledObject] = deque()
        #: What is read of each object's head.
        self._keywords = tuple(dict.fromkeys((*layout.keywords, *REVISION_KEYWORDS)))

    def close(self) -> None:
        """End: what is not claimed is anybody's."""
        try:
            self._letting_go.all()
        except DicomError as error:
            logger.warning("What was published stays claimed in the spool: %s", error)
        finally:
            self._reception.close()
            self._claims.close()

    def take_leftovers(self) -> int:
        """Take what an earlier try of this retrieval claimed, or left unclaimed; return how many objects that were.

        Which those are: :class:`.claims.Claims`.
        """
        self._letting_go.all()
        for entry in self._ledger.entries.values():
            if entry.is_here and entry.older:
                # Another retrieval has filed the newer version under another path.
                self._versions.retire(entry, pause=self._cancellation.pause)
        wanted = self._claims.asked_before({entry.sop_instance_uid for entry in self._ledger.outstanding})
        items = self._claims.claimed()
        items += self._arrivals.leftovers(wanted)
        self._take_each(items, leftovers=True)
        return len(items)

    def take_arrived(self, *, now: bool = False) -> None:
        """Take what arrived since the last call.

        What nobody asked for stays unclaimed in the spool, unless it came over an association of our own.

        :param now: look although one has looked a moment ago.
        """
        self._claim_received()
        while self._waiting:
            self._take_first(is_hurried=True)
        self._letting_go.if_due()
        self._take_each(self._arrivals.take(now=now))

    def take_meanwhile(self) -> bool:
        """Take one of what this process has received, while the peer is still sending; say whether there was one.

        So that the work is done when the last object comes; as :meth:`take_arrived` in all else.
        """
        if self._cancellation.cancelled:
            return False
        if not self._waiting:
            self._claim_received()
        if not self._waiting:
            return False
        # A slow peer is no reason to write the manifest more often.
        self._take_first(is_hurried=False)
        return True

    def _take_first(self, *, is_hurried: bool) -> None:
        """Take the first of what waits; after an error the rest stays claimed, for the retry."""
        try:
            self._cancellation.raise_if_cancelled()
            self._take(self._waiting.popleft(), is_leftover=False)
            self._letting_go.if_due(is_hurried=is_hurried)
        except BaseException:
            self._waiting.clear()
            raise

    def _claim_received(self) -> None:
        items: list[SpooledObject] = []
        for item, head, is_ours in self._reception.drain():
            if item.sop_instance_uid in self._ledger.entries or is_ours or self._belongs(head):
                items.append(item)
            else:
                self._leave(item.sop_instance_uid, head)
        # Claimed although the work may be cancelled: only what is claimed is the retry's for certain.
        self._waiting += self._claims.arrived(items)

    def _take_each(self, items: Iterable[SpooledObject], *, leftovers: bool = False) -> None:
        for item in items:
            self._cancellation.raise_if_cancelled()
            self._take(item, is_leftover=leftovers)
            self._letting_go.if_due()
        self._letting_go.if_due()

    def _belongs(self, head: Head) -> bool:
        return head.series_instance_uid in self.whole or head.study_instance_uid in self.whole

    def _leave(self, uid: str, head: Head) -> None:
        entry = self._ledger.entry_for(uid)
        if entry.is_here:
            return  # an earlier try filed it
        entry.state = State.RECEIVED
        entry.sop_class_uid = head.sop_class_uid or ""
        entry.reason = "not asked for by this retrieval: left unclaimed in the spool"

    def _take(self, item: SpooledObject, *, is_leftover: bool) -> None:
        try:
            inspection = inspect(item.path, self._keywords)
        except FileNotFoundError:
            logger.warning("Object %s is gone from the spool", item.sop_instance_uid)
            return
        except DataSetError as error:
            self._set_aside(item, self._ledger.entry_for(item.sop_instance_uid), str(error))
            return
        entry = self._ledger.entry_for(item.sop_instance_uid)
        before = entry.state
        if not entry.is_here:
            entry.state = State.RECEIVED
        if is_leftover and self._is_stale(item, entry, inspection):
            entry.state = before
        else:
            self._publish(item, entry, inspection, is_leftover=is_leftover)
            if not is_leftover:
                self._ledger.arrived.add(item.sop_instance_uid)
            if self._is_told_by_the_ledger_alone(item, entry, inspection):
                # Before the spool lets go of it: a kill in between leaves one of the two to tell the retry.
                self._letting_go.when_told(item)
                return
        self._letting_go.when_durable(item)

    def _is_told_by_the_ledger_alone(self, item: SpooledObject, entry: Entry, inspection: Inspection) -> bool:
        if not entry.is_here:
            return False
        said = self._held.said_of(item.sop_instance_uid)
        return bool(entry.superseded) or self._versions.is_told_by_the_ledger_alone(
            inspection.sop_class_uid, inspection.excerpt, said
        )

    def _is_stale(self, item: SpooledObject, entry: Entry, inspection: Inspection) -> bool:
        """Keep a leftover beside the versions where the peer holds another one by now, as it says.

        Likewise where it would have to replace something: nobody can tell how old it is. Where the peer has said that
        what is held changed, a leftover that is the same as that is no news either.
        """
        if inspection.sop_class_uid not in CHANGING_STORAGE:
            return False
        said = self._held.said_of(item.sop_instance_uid)
        has_changed = judge_revision(said, revision_in(inspection.excerpt)) is Verdict.CHANGED
        if not has_changed and not self._versions.may_replace(entry, inspection.sop_class_uid):
            return False
        path = self._path(item, entry, inspection)
        if self._destination.size(path):
            _, is_same = self._look_at(item, entry, inspection, path)
            if is_same:
                return self._versions.is_outdated(item.sop_instance_uid)
        elif not has_changed:
            return False
        kept = self._versions.keep(item.path, item.sop_instance_uid, inspection.sha256_file)
        logger.warning(
            "Object %s: an older version, or one of unknown age, lay in the spool; kept as %s",
            item.sop_instance_uid,
            kept,
        )
        return True

    def _set_aside(self, item: SpooledObject, entry: Entry, reason: str) -> None:
        kept = self._spool.set_aside(item)
        logger.error("Object %s is not well formed (%s); kept as %s", item.sop_instance_uid, reason, kept)
        if not entry.is_here:
            entry.state, entry.reason = State.FAILED, reason

    def _publish(self, item: SpooledObject, entry: Entry, inspection: Inspection, *, is_leftover: bool) -> None:
        path = self._path(item, entry, inspection)
        if self._file(item, path, inspection):
            _enter(entry, path, inspection)
        elif not self._compare(item, entry, inspection, path, is_leftover=is_leftover):
            return
        entry.fetched = True
        if entry.older:
            self._versions.retire(entry, pause=self._cancellation.pause)
        self._held.look_beside(entry)

    def _file(self, item: SpooledObject, path: PurePosixPath, inspection: Inspection) -> bool:
        # What others received may have been told not to be durable.
        given = Given(inspection.file, is_durable=item.owner == self._reception.owner.name)
        return self._destination.publish(item.path, path, sha256=inspection.sha256_file, given=given, later=True)

    def _path(self, item: SpooledObject, entry: Entry, inspection: Inspection) -> PurePosixPath:
        """Return where an object belongs: where what came before under its UID lies, whatever the layout says now."""
        if entry.is_here:
            return PurePosixPath(entry.path)
        return self._layout.path(self._values(item, entry, inspection))

    def _compare(
        self, item: SpooledObject, entry: Entry, inspection: Inspection, path: PurePosixPath, *, is_leftover: bool
    ) -> bool:
        """Tell a duplicate of what is at a path, and a newer version of it, from a conflict (semantics 8 and 9).

        :return: False when it was kept beside the versions, and the account says of it what it said before.
        """
        held, same = self._look_at(item, entry, inspection, path)
        if not same and self._versions.may_replace(entry, inspection.sop_class_uid):
            return self._replace(item, entry, inspection, path)
        if same and entry.is_here:
            # What a killed try has filed, and not let go of, is the very same copy.
            entry.duplicate = entry.duplicate or not is_leftover
        elif held is not None and not entry.is_here:
            _enter(entry, path, held)
            entry.held = self._versions.is_in_doubt(entry.sop_instance_uid)
        if not same:
            other = conflict_path(path, inspection.sha256_data_set)
            self._file(item, other, inspection)
            logger.warning("Object %s came with other content than what is held; both are kept", entry.sop_instance_uid)
            entry.path = entry.path or str(path)
            enter_conflicts(entry, [other])
        return True

    def _look_at(
        self, item: SpooledObject, entry: Entry, inspection: Inspection, path: PurePosixPath
    ) -> tuple[Inspection | None, bool]:
        """Return what lies at a path, if it is an object, and whether an object that came is the same."""
        try:
            with self._destination.local_copy(path) as local:
                held = _inspected(local)
                return held, held is not None and self._is_same(item.path, inspection, local, held)
        except DestinationWriteError as error:
            entry.state, entry.reason = State.FAILED, "what lies at its final path cannot be read"
            what = f"object {entry.sop_instance_uid} came and cannot be filed: {error.what}"
            raise DestinationWriteError(what, step="publish", hint=error.hint) from None

    def _replace(self, item: SpooledObject, entry: Entry, inspection: Inspection, path: PurePosixPath) -> bool:
        kept = self._versions.replace(item.path, path, entry, inspection.sha256_file, pause=self._cancellation.pause)
        if kept is None:
            if not entry.is_here:
                entry.state = State.FAILED
                entry.reason = "another retrieval filed a version meanwhile, and nobody can tell which one is newer"
            return False
        _enter(entry, path, inspection)
        entry.held, entry.superseded = False, str(kept)
        return True

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
                own.update(inspection.excerpt.values(others))
            except Exception as error:  # noqa: BLE001 - as above: values that cannot be read are absent
                logger.warning("Object %s: %s while reading its values", item.sop_instance_uid, type(error).__name__)
        said = values_of(entry, self._held.said_of(item.sop_instance_uid))
        return {**said, **{key: value for key, value in own.items() if value not in (None, "")}}


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


def _inspected(path: Path) -> Inspection | None:
    """Inspect what lies at a final path; ``None`` when it is nothing of ours."""
    try:
        return inspect(path)
    except DataSetError:
        return None
