"""Who may send to a receiver (semantics 23): by network, by the AE title that is called, by the one that calls.

A calling AE title is a claim, not a proof, and daemons send under titles of their own: it is looked at only where
a site pins it. Each refusal is logged with what to change, once for each source.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import PeerUnreachableError
from airflow_provider_varian.receiver.observer import Refusal, printable_title
from airflow_provider_varian.receiver.once import Once

logger = logging.getLogger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Everybody, of either family.
ANYBODY: Final[tuple[Network, ...]] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One AE title of ours, and who may call it.

    :param ae_title: the title.
    :param networks: from where.
    :param calling_ae_titles: under which titles of their own; empty: any.
    """

    ae_title: str
    networks: tuple[Network, ...]
    calling_ae_titles: frozenset[str] = frozenset()

    def admits_address(self, address: Address) -> bool:
        """Say whether somebody at this address may call this title."""
        return any(address in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class Rejection:
    """How an association is rejected, and why.

    :param reason: for observers.
    :param result: 1 permanent, 2 transient (PS3.8 9.3.4).
    :param source: 1 the service user, 2 and 3 the service provider.
    :param diagnostic: by the table of the source.
    """

    reason: Refusal
    result: int
    source: int
    diagnostic: int


CALLED_NOT_RECOGNISED: Final = Rejection(Refusal.CALLED_AE_TITLE, 1, 1, 7)
CALLING_NOT_RECOGNISED: Final = Rejection(Refusal.CALLING_AE_TITLE, 1, 1, 3)
#: He may call another title of ours from there, and not this one.
NOT_FROM_THERE: Final = Rejection(Refusal.NETWORK, 1, 1, 3)
#: He speaks of something else than DICOM's application (PS3.7 A.2.1).
APPLICATION_NOT_SUPPORTED: Final = Rejection(Refusal.PROTOCOL, 1, 1, 2)
LOCAL_LIMIT_EXCEEDED: Final = Rejection(Refusal.TOO_MANY_ASSOCIATIONS, 2, 3, 2)
SOURCE_LIMIT_EXCEEDED: Final = Rejection(Refusal.TOO_MANY_OF_SOURCE, 2, 3, 2)
STOPPING: Final = Rejection(Refusal.STOPPING, 2, 3, 1)
#: Something went wrong here.
NOT_JUDGED: Final = Rejection(Refusal.PROTOCOL, 2, 1, 1)


_OPTIONS: Final = {
    Refusal.TOO_MANY_CONNECTIONS: " (--max-connections)",
    Refusal.TOO_MANY_OF_SOURCE: " (--max-connections-per-source, --max-associations-per-source)",
    Refusal.TOO_MANY_ASSOCIATIONS: " (--max-associations)",
    Refusal.TIMEOUT: " (--association-seconds)",
}


class Advice(Protocol):
    """The words in which a refusal is logged: what happened, and what to change if that is not meant."""

    def address(self, address: Address, entries: tuple[Entry, ...]) -> str:
        """Nobody at this address may connect."""

    def called(self, called: str, address: Address, entries: tuple[Entry, ...]) -> str:
        """We do not have the title that was called."""

    def elsewhere(self, entry: Entry, address: Address) -> str:
        """This title may not be called from there, although another of ours may."""

    def calling(self, calling: str, entry: Entry, address: Address) -> str:
        """Who calls is not among those who may."""

    def limit(self, reason: Refusal) -> str:
        """What sets the limit that was reached, to be put after the words; empty when nothing does."""


class Admission:
    """Decides about connections and associations. Safe from any thread.

    :param entries: our AE titles, and who may call each.
    :param advice: the words of refusals.
    """

    def __init__(self, entries: Iterable[Entry], advice: Advice) -> None:
        self.entries = tuple(entries)
        self._by_title = {entry.ae_title.strip(): entry for entry in self.entries}
        self.advice = advice
        self._refused = Once()

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
        networks = tuple({ipaddress.ip_network(plain_address(str(entry[4][0]))): None for entry in found})
        return cls([Entry(ae_title=peer.move_destination, networks=networks)], PeerAdvice(peer.name))

    @property
    def refused(self) -> tuple[str, ...]:
        """Who was refused lately, as words for a message: addresses and AE titles."""
        return tuple(dict.fromkeys(who for who, _ in self._refused.all()))

    def admits_address(self, address: str) -> bool:
        """Say whether a connection from an IP address may stay."""
        plain = plain_address(address)
        return any(entry.admits_address(plain) for entry in self.entries)

    def refuse_address(self, address: str) -> str | None:
        """Note that a connection is closed because nobody may connect from there.

        :return: what to log; ``None`` when it was logged lately.
        """
        plain = plain_address(address)
        if self._refused.first(f"address {plain}", str(plain)):
            return self.advice.address(plain, self.entries)
        return None

    def judge(self, called: str, calling: str, address: str) -> Rejection | None:
        """Decide about an association that is asked for; log a refusal.

        :param called: the AE title that was called, as the peer sent it.
        :param calling: the peer's own, as it sent it.
        :return: how to reject it; ``None`` when it may come to be.
        """
        plain = plain_address(address)
        entry = self._by_title.get(called.strip())
        if entry is None:
            title = printable_title(called)
            self._note(f"called AE title {title!r}", plain, self.advice.called(title, plain, self.entries))
            return CALLED_NOT_RECOGNISED
        if not entry.admits_address(plain):
            self._note(f"address {plain} for {entry.ae_title!r}", plain, self.advice.elsewhere(entry, plain))
            return NOT_FROM_THERE
        if entry.calling_ae_titles and calling.strip() not in entry.calling_ae_titles:
            title = printable_title(calling)
            self._note(f"calling AE title {title!r}", plain, self.advice.calling(title, entry, plain))
            return CALLING_NOT_RECOGNISED
        return None

    def _note(self, who: str, address: Address, advice: str) -> None:
        """Log it, unless that was done lately."""
        if self._refused.first(who, str(address)):
            logger.warning("%s", advice)


class PeerAdvice:
    """What to change on the connection of a retrieval.

    :param peer_name: who the peer is.
    """

    def __init__(self, peer_name: str) -> None:
        self._peer_name = peer_name

    def address(self, address: Address, entries: tuple[Entry, ...]) -> str:
        """Nobody but the peer may connect."""
        known = sorted(str(network.network_address) for entry in entries for network in entry.networks)
        return (
            f"Receiver refused a connection from {address}: only {self._peer_name} ({', '.join(known)}) may send. If "
            "that is the same machine, let the connection's host be a name that resolves to this address too"
        )

    def called(self, called: str, address: Address, entries: tuple[Entry, ...]) -> str:
        """The peer takes us for somebody else."""
        return (
            f"Receiver rejected an association from {address}: it called {called!r} and we are "
            f"{entries[0].ae_title!r}. Set move_destination of the connection to the AE title of the trusted entity, "
            "exactly as the peer spells it"
        )

    def elsewhere(self, entry: Entry, address: Address) -> str:
        """There is one entry only."""
        return self.address(address, (entry,))

    def calling(self, calling: str, entry: Entry, address: Address) -> str:
        """The calling title is free in a task."""
        return f"Receiver rejected an association from {address}: {calling!r} may not call {entry.ae_title!r}"

    def limit(self, reason: Refusal) -> str:
        """The limits of a receiver in a task are fixed."""
        return ""


class OptionAdvice:
    """Which options of ``varian-dicom receive`` to change."""

    def address(self, address: Address, entries: tuple[Entry, ...]) -> str:
        """No network has this address."""
        return (
            f"Refused a connection from {address}: nobody may connect from there ({_networks(entries)} may). "
            f"If it may: --allow-from {address}"
        )

    def called(self, called: str, address: Address, entries: tuple[Entry, ...]) -> str:
        """We do not have this title."""
        ours = ", ".join(repr(entry.ae_title) for entry in entries)
        return (
            f"Rejected an association from {address}: it called {called!r}, and we are {ours}. Correct the title at "
            f"the sender (upper and lower case count); or, if we are that too: --ae-title {called!r}"
        )

    def elsewhere(self, entry: Entry, address: Address) -> str:
        """Another title may be called from there."""
        return (
            f"Rejected an association from {address}: it may not call {entry.ae_title!r} from there "
            f"({_networks((entry,))} may). If it may: --allow-from {address} after --ae-title {entry.ae_title!r}"
        )

    def calling(self, calling: str, entry: Entry, address: Address) -> str:
        """The title that calls is pinned."""
        known = ", ".join(repr(title) for title in sorted(entry.calling_ae_titles))
        return (
            f"Rejected an association from {address}: it calls itself {calling!r}, and {entry.ae_title!r} may be "
            f"called by {known}. If by this one too: --allow-calling {calling!r} after --ae-title {entry.ae_title!r}"
        )

    def limit(self, reason: Refusal) -> str:
        """The option that sets the limit."""
        return _OPTIONS.get(reason, "")


def plain_address(address: str) -> Address:
    """Return an IP address as others write it: without a zone, and an IPv4 one as such where IPv6 carries it."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def _networks(entries: tuple[Entry, ...]) -> str:
    return ", ".join(sorted({str(network) for entry in entries for network in entry.networks}))
