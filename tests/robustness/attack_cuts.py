"""A transfer that ends at each of its places: by A-ABORT, by the end of the connection, by its reset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from robustness.attack_receivers import PLAIN, TLS
from robustness.attack_stage import GRACE, Attack, Play, Stage, new_uid
from support import lying_pdus as wire
from support.attacker import Attacker, Gone
from support.ports import wait_until

#: How many bytes of a PDU are sent before the cut: of its head, all of it, of the head of its PDV, of its content.
_INSIDE: Final = (1, 3, 6, 9, 12, 300)


def _transfer(uid: str) -> tuple[list[bytes], list[bytes]]:
    """Return the PDUs of a transfer before and after the acceptance, without the last fragment of the data set."""
    return [wire.association_request()], wire.store_message(uid, filling=1500, fragment=500)[:-1]


def at_boundaries(end: str) -> Play:
    def play(stage: Stage) -> None:
        for pdus in range(len(_transfer("1.2.3")[1]) + 2):
            _cut(stage, end, pdus, 0)

    return play


def between(end: str) -> Play:
    def play(stage: Stage) -> None:
        for pdus, inside in _places():
            _cut(stage, end, pdus, inside)

    return play


def _places() -> Iterator[tuple[int, int]]:
    for pdus in range(len(_transfer("1.2.3")[1]) + 1):
        for inside in _INSIDE:
            yield pdus, inside


def _cut(stage: Stage, end: str, pdus: int, inside: int) -> None:
    """Send so many PDUs and so many bytes of the next, then end it."""
    request, message = _transfer(new_uid())
    parts = request + message
    with stage.connected() as peer:
        peer.send(parts[0] if pdus else parts[0][:inside])
        if pdus and (end != "rst" or pdus > 1):
            kind, _ = peer.read_pdu()
            assert kind == wire.ASSOCIATE_AC
        peer.send(*parts[1:pdus])
        if inside and 0 < pdus < len(parts):
            peer.send(parts[pdus][:inside])
        getattr(peer, end)()


def last_fragment_unanswered(stage: Stage) -> None:
    """Send a whole object and go without waiting: it may be kept or not, but whole."""
    for end in ("abort", "fin", "rst"):
        uid = new_uid()
        with stage.associated() as peer:
            peer.send(*wire.store_message(uid))
            getattr(peer, end)()
        wait_until(lambda: stage.receiver.threads() <= stage.receiver.threads_idle, what="the association to be over")
        if uid in stage.receiver.stored():
            stage.receiver.acknowledged[uid] = wire.data_set(uid)


def second_object_cut(stage: Stage) -> None:
    first, second = new_uid(), new_uid()
    with stage.associated() as peer:
        peer.send(*wire.store_message(first))
        assert peer.answer().status == 0
        stage.receiver.acknowledged[first] = wire.data_set(first)
        peer.send(*wire.store_message(second, filling=40000)[:-1])
        peer.rst()


def aborts_at_once(stage: Stage) -> None:
    for _ in range(50):
        with stage.connected() as peer:
            peer.send(wire.association_request(), wire.pdu(wire.ABORT, bytes(4)))
            peer.patience = GRACE
            with pytest.raises(Gone, match=r"closed|reset"):
                _read_on(peer)


def _read_on(peer: Attacker) -> None:
    while True:
        peer.read_pdu()


def one_after_the_other(stage: Stage) -> None:
    """Look for what each association leaves behind: memory must not grow with their number."""
    for _ in range(100):
        stage.good_peer()
    before, _ = stage.receiver.memory()
    for _ in range(200):
        stage.good_peer()
    after, _ = stage.receiver.memory()
    assert after - before < 3 * 2**20, f"{(after - before) / 2**20:.1f} MiB more memory after 200 associations"


_WORDS: Final = {"abort": "an A-ABORT", "fin": "the end of the connection", "rst": "a reset of the connection"}

ROWS: Final = (
    *(
        Attack(
            name=f"{end}-at-every-boundary",
            what=f"{words} before and after each PDU of a transfer",
            holds="no fragment, no receipt",
            play=at_boundaries(end),
            over=(PLAIN, TLS),
        )
        for end, words in _WORDS.items()
    ),
    *(
        Attack(
            name=f"{end}-between",
            what=f"{words} at bytes inside of each PDU of a transfer",
            holds="no fragment, no receipt",
            play=between(end),
            over=(PLAIN, TLS) if end == "rst" else (PLAIN,),
            growth_mib=12.0,
        )
        for end, words in _WORDS.items()
        if end != "abort"
    ),
    Attack(
        name="gone-before-the-answer",
        what="a whole object, and its sender goes before it is answered",
        holds="no fragment; if it is kept, it is whole",
        play=last_fragment_unanswered,
    ),
    Attack(
        name="second-object-cut",
        what="a second object is cut off after a first one was acknowledged",
        holds="the first is there, whole; of the second no fragment",
        play=second_object_cut,
    ),
    Attack(
        name="one-after-the-other",
        what="300 good associations, one after the other",
        holds="the last 200 take no more memory than 3 MiB",
        play=one_after_the_other,
        growth_mib=24.0,
    ),
    Attack(
        name="aborts-at-once",
        what="50 association requests with an A-ABORT right behind them",
        holds="threads, sockets and memory are as before",
        play=aborts_at_once,
        growth_mib=12.0,
    ),
)
