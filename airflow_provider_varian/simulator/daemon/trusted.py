"""Trusted Application Entities, as a site enters them in the daemon's configuration.

An entry is an AE title, a computer and a port (varian-daemon 1.1). The title and the computer say
who may associate; the port is where the objects of a C-MOVE to that title go.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from airflow_provider_varian.dimse.peer import parse_peer_address
from airflow_provider_varian.simulator.daemon import limits


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedEntity:
    """One entry of the list.

    :param ae_title: AE title of the client.
    :param host: its name or IP address.
    :param port: port of its receiver.
    :param character_set: Specific Character Set of what is exported to it, e.g. ``ISO_IR 100``;
        empty text for no character set named; ``None`` for the daemon's default.
    :raises ConfigurationError: for an AE title or a character set that is none.
    """

    ae_title: str
    host: str
    port: int
    character_set: str | None = None

    def __post_init__(self) -> None:
        """Refuse an entry that nobody could enter."""
        limits.AE_TITLE.check("AE title of a trusted entity", self.ae_title)
        if self.character_set is not None:
            limits.CHARACTER_SET.check("character set of a trusted entity", self.character_set)

    @classmethod
    def parse(cls, text: str) -> TrustedEntity:
        """Read an entry as the command line takes it: ``AET@host:port``.

        :raises ConfigurationError: when a part is missing or wrong.
        """
        title, at, _ = text.rpartition("@")
        if at:
            limits.AE_TITLE.check("AE title of a trusted entity", title)
        ae_title, host, port = parse_peer_address(text)
        return cls(ae_title=ae_title, host=host, port=port)

    def is_at(self, address: str) -> bool:
        """Say whether an IP address is this entry's computer; a name is looked up each time."""
        wanted = _plain(address)
        try:
            return wanted == ipaddress.ip_address(self.host)
        except ValueError:
            pass
        try:
            found = socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM)
        except OSError:
            return False
        return any(_plain(str(entry[4][0])) == wanted for entry in found)


class TrustedEntities:
    """The list, in the order in which it was entered."""

    def __init__(self, entries: Iterable[TrustedEntity] = ()) -> None:
        self._entries = tuple(entries)

    def client(self, ae_title: str, address: str | None) -> TrustedEntity | None:
        """Return the entry of a calling AE; ``None`` when it is not trusted.

        :param ae_title: calling AE title.
        :param address: IP address of the caller; ``None`` when only the title counts.
        """
        named = [entry for entry in self._entries if entry.ae_title == ae_title.strip()]
        if address is None:
            return named[0] if named else None
        return next((entry for entry in named if entry.is_at(address)), None)

    def destination(self, ae_title: str) -> TrustedEntity | None:
        """Return the entry that a move destination names; ``None`` when there is none."""
        return self.client(ae_title, None)


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Read an address; an IPv4 address that came over IPv6 counts as the IPv4 address."""
    read = ipaddress.ip_address(address.split("%")[0])
    return (read.ipv4_mapped or read) if isinstance(read, ipaddress.IPv6Address) else read
