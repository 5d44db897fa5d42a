"""By which verb to retrieve: what was chosen, and what the connection allows."""

from __future__ import annotations

from typing import Literal

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.query.profile import Profile

Method = Literal["auto", "get", "move"]
Verb = Literal["C-GET", "C-MOVE"]


def method_of(peer: Peer) -> Method:
    """Return the method that a connection chooses."""
    methods: dict[str, Method] = {"auto": "auto", "get": "get", "move": "move"}
    return methods[peer.retrieve_method]


def can_move(peer: Peer, profile: Profile, method: Method, *, standing: bool = False) -> bool:
    """Say whether C-MOVE is possible: chosen, to a receiver, and never back in clear text (semantics 21).

    :param peer: whom to ask.
    :param profile: its habits.
    :param method: ``auto``, ``get`` or ``move``.
    :param standing: there is a standing receiver; else a receiver inside the task needs a port.
    """
    if method == "get":
        return False
    return (standing or peer.receiver_port is not None) and (peer.tls is None or profile.move_over_tls)


def check_method(peer: Peer, profile: Profile, method: Method) -> None:
    """Refuse a C-MOVE that would come back in clear text although TLS is on (semantics 21).

    :param peer: whom to ask.
    :param profile: its habits.
    :param method: ``auto``, ``get`` or ``move``.
    :raises ConfigurationError: says so, and what to use instead.
    """
    if method == "move" and peer.tls is not None and not profile.move_over_tls:
        raise ConfigurationError(
            "C-MOVE over TLS is not possible with this profile: the objects would come back in clear text",
            peer=peer.name,
            step="C-MOVE",
            hint='Use retrieve_method get, or set profile_overrides to {"move_over_tls": true} if the peer sends '
            "over TLS",
        )
