"""What leaves for somebody else, in the audit trail: moves to third parties, and files that are stored at a peer."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
from typing import Final

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.store import StoreState
from airflow_provider_varian.receiver.audit_xml import AuditMessage
from airflow_provider_varian.retrieval import trail_messages
from airflow_provider_varian.retrieval.ledger import Ledger
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.outcome import State
from airflow_provider_varian.retrieval.sent import SentDocument
from airflow_provider_varian.retrieval.trail import Key, Work, WorkTrail, ended_by, known_study, now
from airflow_provider_varian.retrieval.trail_messages import Node, Way

#: States of what went to a third party, as far as somebody says.
_WENT: Final = (State.REPORTED, State.LISTED, State.VERIFIED)


class _Exporting(Work):
    """Objects leave for somebody else."""

    def __init__(self, trail: WorkTrail | None, way: Way | None, medium: str) -> None:
        super().__init__(trail, way)
        self._medium = medium

    def _message(self, key: Key, classes: collections.Counter[str]) -> AuditMessage:
        assert self._trail is not None
        assert self._way is not None
        return trail_messages.exported(
            self._trail.us,
            self._way,
            now(),
            study=key.study,
            sop_classes=classes,
            medium=self._medium,
            failure=key.failure,
        )


class Moving(_Exporting):
    """Tells of a move to a third party: a context manager around it.

    :param trail: where to; ``None``: nowhere.
    :param peer: who sends.
    :param destination: AE title of whom it sends to.
    """

    def __init__(self, trail: WorkTrail | None, peer: Peer, destination: str) -> None:
        way = None
        if trail is not None:
            way = Way(
                source=Node(ae_title=peer.called_ae_title, host=peer.host),
                destination=Node(ae_title=destination),
                requestor=trail.requestor,
            )
        super().__init__(trail, way, destination)
        self._ledger: Ledger | None = None

    def changed(self, manifest: Manifest) -> None:
        """Note a change of the account; pass it to the move as its ``on_account``."""
        self._ledger = manifest.ledger
        self._begin(
            entry.study_instance_uid
            for entry in manifest.ledger.entries.values()
            if not entry.held and entry.state not in _WENT
        )

    def _outcomes(self, error: BaseException | None) -> Iterable[tuple[Key, str]]:
        for entry in self._ledger.entries.values() if self._ledger is not None else ():
            study = known_study(entry.study_instance_uid)
            if entry.held or study not in self._begun:
                continue
            failure = "" if entry.state in _WENT else ended_by(error) or f"not sent: {entry.state}"
            yield Key(study, "R", failure), entry.sop_class_uid


class Storing(_Exporting):
    """Tells of files that are stored at a peer: a context manager around it.

    :param trail: where to; ``None``: nowhere.
    :param peer: who gets them.
    :param on_change: of the storing.
    """

    def __init__(
        self, trail: WorkTrail | None, peer: Peer, *, on_change: Callable[[SentDocument], None] | None = None
    ) -> None:
        way = None
        if trail is not None:
            way = Way(
                source=Node(ae_title=peer.calling_ae_title, us=True),
                destination=Node(ae_title=peer.called_ae_title, host=peer.host),
                requestor=trail.requestor,
            )
        super().__init__(trail, way, peer.name)
        self._on_change = on_change
        self._document: SentDocument | None = None

    def changed(self, document: SentDocument) -> None:
        """Note a change of the account; pass it to the storing as its ``on_change``."""
        if self._document is None:
            # The first one is the plan, before anything is sent; each object after it is a change too.
            self._begin(
                each.study_instance_uid
                for each in document.files
                if each.state is StoreState.UNSENT and not each.earlier and not each.duplicate
            )
        self._document = document
        if self._on_change is not None:
            self._on_change(document)

    def _outcomes(self, error: BaseException | None) -> Iterable[tuple[Key, str]]:
        for each in self._document.files if self._document is not None else ():
            study = known_study(each.study_instance_uid)
            if each.earlier or each.duplicate or study not in self._begun or not each.sop_instance_uid:
                continue
            failure = "" if each.state.is_accepted else ended_by(error) or f"not stored: {each.state}"
            yield Key(study, "R", failure), each.sop_class_uid
