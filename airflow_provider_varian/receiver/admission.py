"""Who may send to a receiver inside a task (semantics 23).

Objects are wanted from one peer, under one AE title, so nothing else is let in. A calling AE title
is a claim, not a proof, and daemons send under titles of their own, so it is not looked at. Each
refusal is logged with what to change, once per address and title.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Iterable

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import PeerUnreachableError

logger = logging.getLogger(__name__)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Admission:
    """Decides about connections and associations.

    :param addresses: IP addresses that may connect.
    :param called_ae_title: the AE title under which we may be called.
    :param peer_name: who the peer is, for messages.
    """

    def __init__(self, addresses: Iterable[str], *, called_ae_title: str, peer_name: str) -> None:
        self.addresses = frozenset(_normal(address) for address in addresses)
        self.called_ae_title = called_ae_title.strip()
        self._peer_name = peer_name
        self._refused: dict[str, None] = {}

    @classmethod
    def for_peer(cls, peer: Peer) -> Admission:
        """Admit the addresses that the peer's host has now, and the move destination as AE title.

        :raises PeerUnreachableError: when the host has no address.
        """
        try:
            found = socket.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise PeerUnreachableError(
                f"host {peer.host} is not known: {error.strerror or error}",
                peer=peer.name,
                step="receiver",
                hint="Check the host of the connection and the name service",
            ) from error
        return cls((str(entry[4][0]) for entry in found), called_ae_title=peer.move_destination, peer_name=peer.name)

    @property
    def refused(self) -> tuple[str, ...]:
        """Who was refused, as words for a message: addresses and called AE titles."""
        return tuple(self._refused)

    def admits_address(self, address: str) -> bool:
        """Say whether a connection from an IP address may stay; log it when not."""
        plain = _normal(address)
        if plain in self.addresses:
            return True
        if self._note(f"address {plain}"):
            logger.warning(
                "Receiver refused a connection from %s: only %s (%s) may send. If that is the same machine, "
                "let the connection's host be a name that resolves to this address too",
                plain,
                self._peer_name,
                ", ".join(sorted(str(known) for known in self.addresses)),
            )
        return False

    def refuse_title(self, called_ae_title: str, address: str) -> None:
        """Log that an association was rejected because it called somebody else."""
        called = "".join(char if char.isprintable() else "?" for char in called_ae_title.strip()[:16])
        if self._note(f"called AE title {called!r}"):
            logger.warning(
                "Receiver rejected an association from %s: it called %r and we are %r. Set move_destination of the "
                "connection to the AE title of the trusted entity, exactly as the peer spells it",
                address,
                called,
                self.called_ae_title,
            )

    def _note(self, who: str) -> bool:
        if who in self._refused or len(self._refused) >= 100:
            return False
        self._refused[who] = None
        return True


def _normal(address: str) -> _Address:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
