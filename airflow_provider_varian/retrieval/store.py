"""Storing files at a peer, with an account of each: the one implementation behind hook, operator and command line.

What it promises: nothing is read or sent unless the connection allows it (semantics 20); each file is accounted
for; a retry with the same ID and the same peer sends what was not accepted, and nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from airflow_provider_varian.dimse import store as dimse_store
from airflow_provider_varian.dimse.association import Negotiated
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.slices import Slice
from airflow_provider_varian.dimse.store import Outgoing, Sent, StoreState, UnsendableError
from airflow_provider_varian.errors import ConfigurationError, DicomError, TransientDicomError
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.outgoing import FileHead, WholeFile, data_set, head_of, look_through, read_front
from airflow_provider_varian.retrieval.sent import SentDocument, SentObject, SentOutcome, load_document
from airflow_provider_varian.retrieval.sources import Source, list_sources

if TYPE_CHECKING:
    from airflow_provider_varian.retrieval.sources import SourcePath

log = logging.getLogger(__name__)

#: How long the account on storage may lag behind: what a killed task sent since then is sent again.
_WRITE_SECONDS: Final = 5.0

OnChange = Callable[[SentDocument], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreResult:
    """A run of storing that came to its end.

    :param document: the account.
    :param document_path: its full path or URI; empty when it is not kept.
    :param names: the files by their place, from 1, for who typed them; never for a log.
    :param error: what stood in the way, the one that a retry may get over before others; ``None`` when nothing did.
    :param hints: what to change or look at for all that stood in the way, each once.
    """

    document: SentDocument
    document_path: str
    names: dict[int, str] = field(repr=False)
    error: DicomError | None
    hints: tuple[str, ...] = ()

    @property
    def outcome(self) -> SentOutcome:
        """What became of it."""
        return self.document.outcome

    @property
    def counts(self) -> dict[str, int]:
        """The numbers."""
        return self.document.counts()


def store_files(
    peer: Peer,
    files: Sequence[SourcePath],
    *,
    store_id: str,
    destination: Destination | None,
    recursive: bool = False,
    on_change: OnChange | None = None,
    cancellation: Cancellation | None = None,
) -> StoreResult:
    """Send DICOM files to a peer (C-STORE, PS3.4 Annex B).

    :param peer: to whom.
    :param files: files and folders; see :func:`.sources.list_sources`.
    :param store_id: identity of the work: with the same one a retry sends what was not accepted.
    :param destination: where the account is kept; ``None``: nowhere, and each run sends everything.
    :param recursive: whether folders inside folders are looked into.
    :param on_change: called with the account each time that it changed.
    :param cancellation: ends the work from outside.
    :raises ConfigurationError: the connection does not allow it, or a file that was named is not there.
    :raises DestinationWriteError: the account cannot be written; nothing is sent then.
    :raises CancelledError: cancelled; the account says what was sent until then.
    """
    dimse_store.check_allowed(peer)
    cancellation = cancellation or Cancellation()
    cancellation.raise_if_cancelled()
    sources = list_sources(files, recursive=recursive)
    return _Run(peer, sources, store_id, destination, on_change, cancellation).run()


class _Run:
    """One try."""

    def __init__(
        self,
        peer: Peer,
        sources: Sequence[Source],
        store_id: str,
        destination: Destination | None,
        on_change: OnChange | None,
        cancellation: Cancellation,
    ) -> None:
        self._peer = peer
        self._sources = sources
        self._destination = destination
        self._on_change = on_change
        self._cancellation = cancellation
        self._document = SentDocument(
            id=store_id,
            peer={"name": peer.name, "called_ae_title": peer.called_ae_title},
            timings={"started": _now()},
        )
        earlier = self._earlier(destination, store_id)
        self._document.attempts = (earlier.attempts if earlier else 0) + 1
        objects = earlier.objects if earlier else []
        # In this order, so that of several entries the one that the peer accepted counts.
        self._accepted = {
            each.sop_instance_uid: each for each in objects if each.state.is_accepted and not each.duplicate
        }
        self._attempts = {each.sop_instance_uid: each.attempts for each in objects if each.attempts}
        self._unanswered = {each.sop_instance_uid for each in objects if each.state is StoreState.UNANSWERED}
        self._went_again: set[str] = set()
        #: The file that stands for an object, whether it is sent now or was earlier.
        self._standing: dict[str, _File] = {}
        self._errors: dict[int | None, DicomError] = {}
        self._written = 0.0

    def _earlier(self, destination: Destination | None, store_id: str) -> SentDocument | None:
        """Return the account of earlier tries, unless they were with another peer, which says nothing of this one."""
        found = load_document(destination, store_id) if destination is not None else None
        if found is None or found.peer.get("name") == self._peer.name:
            return found
        words = f"earlier tries sent to {found.peer.get('name')}, not to this peer: each file is sent"
        log.warning("%s", words)
        self._document.warnings.append(words)
        return None

    def run(self) -> StoreResult:
        """Plan, send, judge; the account is on storage before the first object goes out."""
        outgoing = self._plan()
        self._tell(write=True)
        error: DicomError | None = None
        try:
            if outgoing:
                error = dimse_store.store(
                    self._peer,
                    outgoing,
                    on_sent=self._on_sent,
                    on_associated=self._note_peer,
                    cancellation=self._cancellation,
                )
        except BaseException:
            # Also what others raise into this thread, such as a task's time-out: the retry shall know what was sent.
            self._settle_duplicates()
            self._write_if_possible()
            raise
        self._settle_duplicates()
        self._finish(error)
        errors = [each for each in (error, *self._errors.values()) if each is not None]
        return StoreResult(
            document=self._document,
            document_path=self._destination.uri_of(self._document.path) if self._destination is not None else "",
            names={place: source.name for place, source in enumerate(self._sources, start=1)},
            # What a retry may get over decides.
            error=next((each for each in errors if each.transient), errors[0] if errors else None),
            hints=tuple(dict.fromkeys(each.hint for each in errors if each.hint)),
        )

    def _plan(self) -> list[Outgoing]:
        """Look at the head of each file; return what is to be sent."""
        for position, source in enumerate(self._sources, start=1):
            self._cancellation.raise_if_cancelled()
            entry = SentObject(position=position)
            self._document.objects.append(entry)
            try:
                file = _File(source, entry, head_of(source.front()))
            except UnsendableError as error:
                self._leave_out(entry, StoreState.REFUSED, str(error))
            except OSError as error:
                self._leave_out_unread(entry, error)
            else:
                self._place(file)
        here = {each.sop_instance_uid for each in self._document.objects if each.state is StoreState.UNSENT}
        here |= {each.sop_instance_uid for each in self._document.objects if each.earlier}
        self._document.objects += [
            replace(each, position=None, earlier=True) for uid, each in self._accepted.items() if uid not in here
        ]
        return [file for file in self._standing.values() if not file.entry.earlier]

    def _place(self, file: _File) -> None:
        """Decide whether a file is sent; of several that hold one object the peer would keep one."""
        uid, entry = file.sop_instance_uid, file.entry
        first = self._standing.get(uid)
        if first is not None and self._is_whole(first):
            if not self._is_whole(file):
                return
            if first.sha256() == file.sha256():
                entry.duplicate = True
            else:
                reason = f"number {first.entry.position} holds the same SOP Instance UID with other content, and stands"
                self._leave_out(entry, StoreState.REFUSED, reason)
            return
        self._standing.pop(uid, None)
        entry.attempts = self._attempts.get(uid, 0)
        before = self._accepted.get(uid)
        if before is not None:
            if not self._is_whole(file):
                return
            if before.sha256 == file.sha256():
                for item in ("state", "status", "reason", "sent_transfer_syntax_uid"):
                    setattr(entry, item, getattr(before, item))
                entry.earlier = True
        self._standing[uid] = file

    def _is_whole(self, file: _File) -> bool:
        """Read a file to its end; what is not whole is left out."""
        try:
            file.sha256()
        except UnsendableError as error:
            self._leave_out(file.entry, StoreState.FAILED, str(error), transient=error.transient)
        except OSError as error:
            self._leave_out_unread(file.entry, error)
        else:
            return True
        return False

    def _settle_duplicates(self) -> None:
        for each in self._document.files:
            if each.duplicate:
                other = self._standing[each.sop_instance_uid].entry
                # Unless the file that stood for it was changed before its turn came.
                if other.sha256 == each.sha256:
                    each.state, each.status, each.reason = other.state, other.status, other.reason

    def _on_sent(self, outgoing: Outgoing, sent: Sent) -> None:
        uid = outgoing.sop_instance_uid
        entry = self._standing[uid].entry
        entry.state, entry.status, entry.reason = sent.state, sent.status, sent.reason
        entry.sent_transfer_syntax_uid = sent.transfer_syntax_uid
        entry.attempts += sent.on_the_wire
        if uid in self._unanswered and sent.on_the_wire:
            self._went_again.add(uid)
        if sent.state is StoreState.UNANSWERED:
            self._unanswered.add(uid)
        self._errors.pop(entry.position, None)
        if sent.error is not None:
            self._errors[entry.position] = sent.error
        if entry.state is not StoreState.STORED:
            log.warning("Number %s (%s) %s: %s", entry.position, uid, entry.state, entry.reason)
        self._tell()

    def _leave_out_unread(self, entry: SentObject, error: OSError) -> None:
        reason = f"it cannot be read ({error.strerror or type(error).__name__})"
        self._leave_out(entry, StoreState.FAILED, reason, transient=True)

    def _leave_out(self, entry: SentObject, state: StoreState, reason: str, *, transient: bool = False) -> None:
        entry.state, entry.reason = state, reason
        log.warning("Number %s of the files is not sent: %s", entry.position, reason)
        kind, hint = (
            (TransientDicomError, "Check that this process may read it, and that nobody writes to it")
            if transient
            else (ConfigurationError, "Name files that each hold one whole DICOM object")
        )
        words = f"number {entry.position} of the files is not sent: {reason}"
        self._errors[entry.position] = kind(words, step="files", hint=hint)

    def _note_peer(self, negotiated: Negotiated) -> None:
        self._document.peer.update(
            implementation_class_uid=negotiated.implementation_class_uid,
            implementation_version_name=negotiated.implementation_version_name,
        )
        accepted = self._document.peer.setdefault("accepted_contexts", [])
        accepted += [list(pair) for pair in negotiated.accepted if list(pair) not in accepted]

    def _finish(self, error: DicomError | None) -> None:
        document = self._document
        document.judge()
        document.timings["finished"] = _now()
        if error is not None:
            document.message += f"; {error}"
        if self._went_again:
            words = f"sent again, because an answer had not come: {len(self._went_again)} of the objects"
            document.warnings.append(words)
        self._tell(write=True)

    def _tell(self, *, write: bool = False) -> None:
        if write or time.monotonic() - self._written >= _WRITE_SECONDS:
            self._write()
            self._written = time.monotonic()
        if self._on_change is not None:
            self._on_change(self._document)

    def _write(self) -> None:
        if self._destination is not None:
            self._document.write(self._destination)

    def _write_if_possible(self) -> None:
        try:
            self._write()
        except DicomError as error:
            log.warning("The account lags behind what was sent: %s", error)


class _File:
    """A file whose object is to be sent (:class:`~airflow_provider_varian.dimse.store.Outgoing`)."""

    def __init__(self, source: Source, entry: SentObject, head: FileHead) -> None:
        self._source = source
        self._head = head
        self._sha256 = ""
        self.entry = entry
        entry.sop_class_uid, entry.sop_instance_uid = head.sop_class_uid, head.sop_instance_uid
        entry.study_instance_uid, entry.transfer_syntax_uid = head.study_instance_uid, head.transfer_syntax_uid

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID."""
        return self._head.sop_class_uid

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID."""
        return self._head.sop_instance_uid

    @property
    def transfer_syntax_uid(self) -> str:
        """How the file is encoded."""
        return self._head.transfer_syntax_uid

    def sha256(self) -> str:
        """Return the SHA-256 of the file; it is read whole for it, once.

        :raises UnsendableError: when it is not whole; OSError when it cannot be read.
        """
        if not self._sha256:
            with self._source.local() as path:
                self._note(look_through(path, self._head))
        return self._sha256

    def _note(self, whole: WholeFile) -> None:
        self._sha256 = whole.sha256
        self.entry.bytes, self.entry.sha256 = whole.bytes, whole.sha256

    @contextmanager
    def opened(self, transfer_syntax_uid: str) -> Iterator[Sequence[Slice]]:
        """Give the data set; see :class:`~airflow_provider_varian.dimse.store.Outgoing`."""
        with self._source.local() as path:
            if head_of(read_front(path)) != self._head:
                raise UnsendableError("the file is another than a moment ago", transient=True)
            whole = look_through(path, self._head)
            self._note(whole)
            with data_set(path, self._head, whole, transfer_syntax_uid) as slices:
                yield slices


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
