"""C-STORE requests from the wire into a sink, piece by piece, and their answers (PS3.7 9.3.1, PS3.4 Annex B).

A request that is odd, though it may be understood, is left to pynetdicom, which is then the one to decide about it:
so both paths answer alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

from pynetdicom.association import Association
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from airflow_provider_varian.dimse import framing
from airflow_provider_varian.dimse.bounds import Bounds, MalformedError
from airflow_provider_varian.dimse.command_set import Command, StoreResponse
from airflow_provider_varian.dimse.sink import StorageSink, StoreRequest
from airflow_provider_varian.dimse.storage import StoreObserver, Storing, refusal

_UID: Final = re.compile(r"[0-9.]{1,64}")
_ANSWERABLE: Final = re.compile(r"[ -~]{1,64}")
#: PS3.5 6.2, AE: no control characters. A backslash separates values, of which there are not several.
_AE_TITLE: Final = re.compile(r"[ -~]{0,16}")
#: Medium, high, low; pynetdicom takes an absent one for low.
_PRIORITIES: Final = (None, 0, 1, 2)


class _Kind(NamedTuple):
    """What is the same for all objects of a SOP class that come in one presentation context."""

    #: Whether this class is for us: an acceptor leaves what is no storage to pynetdicom.
    taken: bool
    transfer_syntax: str = ""
    #: SOP class of the context; empty: none that was accepted.
    abstract_syntax: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parties:
    """Who sends to whom, as a :class:`StoreRequest` says it."""

    calling_ae_title: str
    called_ae_title: str
    source_address: str


class StoreTaker:
    """Takes the C-STOREs of one association; a :class:`~airflow_provider_varian.dimse.dispatch.Taker`.

    :param assoc: the association.
    :param sink: where objects go.
    :param bounds: of an object's size.
    :param observer: is told of each object.
    :param send: sends a message from the thread in which it is called.
    :param parties: who sends to whom; ``None``: as an acceptor that serves storage classes, by the request.
    """

    #: A sink takes what it is given at once.
    full = False

    def __init__(
        self,
        assoc: Association,
        *,
        sink: StorageSink,
        bounds: Bounds,
        observer: StoreObserver,
        send: Callable[[bytes], None],
        parties: Parties | None = None,
    ) -> None:
        self._assoc: Any = assoc
        self._sink = sink
        self._object_bytes = bounds.object_bytes
        self._observer = observer
        self._send = send
        self._serves = parties is None
        self._parties = parties
        self._kinds: dict[tuple[int, str], _Kind] = {}
        self._context_id = self._message_id = 0
        self._storing: Storing | None = None

    def begin(self, context_id: int, command: Command) -> bool:
        """Begin to take an object, or refuse it; ``False``: left to pynetdicom."""
        sop_class, instance, message_id = command.sop_class_uid, command.sop_instance_uid, command.message_id
        originator = command.originator_ae_title
        if message_id is None or not command.has_data_set:
            return False
        if command.priority not in _PRIORITIES or "\\" in originator:
            return False
        kind = self._kinds.get((context_id, sop_class)) or self._find_kind(context_id, sop_class)
        if not kind.taken:
            return False
        parties = self._parties or self._find_parties()
        self._context_id, self._message_id = context_id, message_id
        self._storing = Storing(
            self._sink,
            StoreRequest(
                sop_class_uid=sop_class,
                sop_instance_uid=instance,
                transfer_syntax_uid=kind.transfer_syntax,
                calling_ae_title=parties.calling_ae_title,
                called_ae_title=parties.called_ae_title,
                source_address=parties.source_address,
                # As pynetdicom has it: what is no AE title is as good as none.
                move_originator_ae_title=originator if originator and _AE_TITLE.fullmatch(originator) else "",
                move_originator_message_id=command.originator_message_id,
            ),
            object_bytes=self._object_bytes,
            observer=self._observer,
            # What is no UID is refused here: pynetdicom drops some of them without a word.
            refused=refusal(sop_class, instance, kind.abstract_syntax),
        )
        return True

    def data(self, piece: memoryview) -> None:
        """Hand a piece on."""
        storing = self._storing
        if storing is None:
            return
        storing.write(piece)
        if storing.size > 2 * self._object_bytes:
            raise MalformedError("an object that does not come to its end")

    def end(self) -> None:
        """Commit and answer."""
        storing, self._storing = self._storing, None
        if storing is None:
            return
        status, comment = storing.finish()
        answer = StoreResponse(
            sop_class_uid=storing.request.sop_class_uid,
            # What does not fit is left out.
            sop_instance_uid=instance if _ANSWERABLE.fullmatch(instance := storing.request.sop_instance_uid) else "",
            responds_to=self._message_id,
            status=status,
            error_comment=comment,
        )
        self._send(framing.command_alone(self._context_id, answer.encoded(), self._fragment_size))

    def abandon(self) -> None:
        """Leave no fragment."""
        storing, self._storing = self._storing, None
        if storing is not None:
            storing.abandon("the association ended within it")

    @cached_property
    def _fragment_size(self) -> int:
        """What the peer takes at once, known once there is an association."""
        return framing.fragment_size(self._assoc.dimse.maximum_pdu_size)

    def _find_kind(self, context_id: int, sop_class: str) -> _Kind:
        """Look at what stays the same, and remember what is taken.

        :raises MalformedError: an acceptor has accepted no such context.
        """
        if not _UID.fullmatch(sop_class):
            return _Kind(taken=False)
        context = self._assoc._accepted_cx.get(context_id)
        if self._serves:
            if context is None:
                raise MalformedError("an object in a presentation context that was not accepted")
            if uid_to_service_class(sop_class) is not StorageServiceClass:
                return _Kind(taken=False)
        if context is None:
            return _Kind(taken=True)
        kind = _Kind(
            taken=True,
            transfer_syntax=str(context.transfer_syntax[0]),
            abstract_syntax=str(context.abstract_syntax),
        )
        # No more of them than contexts: a peer may make up any number of classes.
        if sop_class == kind.abstract_syntax:
            self._kinds[context_id, sop_class] = kind
        return kind

    def _find_parties(self) -> Parties:
        requestor = self._assoc.requestor
        self._parties = Parties(
            calling_ae_title=requestor.ae_title,
            called_ae_title=str(requestor.primitive.called_ae_title or "") if requestor.primitive else "",
            source_address=requestor.address,
        )
        return self._parties
