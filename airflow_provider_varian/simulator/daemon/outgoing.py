"""The associations on which a C-MOVE sends: new ones, to the trusted entry's port (quirk 17)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import build_context

from airflow_provider_varian.dimse import parked, socket_manners
from airflow_provider_varian.simulator.daemon.harm import end
from airflow_provider_varian.simulator.daemon.tally import Tally
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity

log = logging.getLogger(__name__)

_CONNECT_SECONDS: Final = 10.0
_ASSOCIATE_SECONDS: Final = 30.0
#: How long a destination has to answer a release: the thread that waits for it has clients to serve.
_RELEASE_SECONDS: Final = 2.0


class OutgoingAssociations:
    """Opens them, and ends those that are open, or about to be, when the daemon stops.

    :param tally: counts them.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._open: set[Association] = set()
        self._lock = threading.Lock()

    @contextmanager
    def open(
        self, ae: AE, entity: TrustedEntity, syntaxes: dict[str, set[str]], *, unwanted: Callable[[], bool]
    ) -> Iterator[Association | None]:
        """Associate with a destination for the length of a ``with`` block; ``None`` when it cannot be reached.

        :param ae: who calls; its DIMSE and network time-outs are those of a transaction.
        :param entity: whom it calls.
        :param syntaxes: transfer syntaxes to propose, each in a context of its own, by SOP class UID.
        :param unwanted: whether the request is over for which it is opened.
        """
        begun: list[Association] = []

        def begin(event: Any) -> None:
            if not isinstance(event.primitive, A_ASSOCIATE):
                return
            begun.append(event.assoc)
            with self._lock:
                self._open.add(event.assoc)
            # When the daemon stops, it first ends the requests, then what is open for them: one of both is seen.
            if unwanted():
                end(event.assoc)

        try:
            assoc = _associate(ae, entity, syntaxes, begin)
            if assoc is None:
                yield None
                return
            self._tally.enter("outgoing_open", assoc)
            parked.claim(assoc)
            try:
                yield assoc
            finally:
                self._tally.leave("outgoing_open", assoc)
                parked.release(assoc, _RELEASE_SECONDS)
        finally:
            with self._lock:
                self._open.difference_update(begun)

    def abort(self) -> None:
        """Abort all that are open, and end the negotiation of those that are not yet."""
        with self._lock:
            associations = list(self._open)
        for assoc in associations:
            end(assoc)


def _associate(
    ae: AE, entity: TrustedEntity, syntaxes: dict[str, set[str]], begin: Callable[[Any], None]
) -> Association | None:
    ae.connection_timeout = _CONNECT_SECONDS
    ae.acse_timeout = _ASSOCIATE_SECONDS
    contexts = [build_context(uid, [syntax]) for uid, found in syntaxes.items() for syntax in sorted(found)]
    handlers: list[Any] = [
        # Before the connection stands: to connect and to negotiate may take long.
        (evt.EVT_ACSE_SENT, begin),
        (evt.EVT_CONN_OPEN, parked.bound_waiting),
        (evt.EVT_CONN_OPEN, parked.park),
        *socket_manners.handlers(),
    ]
    if not contexts:
        log.info("Nothing that is to be moved can be sent in a transfer syntax of the daemon")
        return None
    try:
        assoc = ae.associate(
            entity.host,
            entity.port,
            contexts=contexts,
            ae_title=entity.ae_title,
            max_pdu=ae.maximum_pdu_size,
            evt_handlers=handlers,
        )
    except (OSError, ValueError) as error:
        log.info("The move destination %s cannot be reached: %s", entity.ae_title, type(error).__name__)
        return None
    if not assoc.is_established:
        log.info("The move destination %s at %s:%d did not associate", entity.ae_title, entity.host, entity.port)
        return None
    return assoc
