"""Peers that say nothing, too little, or too slowly."""

from __future__ import annotations

import ssl
import time
from contextlib import suppress
from typing import Final

from robustness.attack_receivers import PLAIN, TLS
from robustness.attack_stage import CUT, GRACE, HASTY, Attack, Stage, is_open, new_uid
from support import lying_pdus as wire
from support.attacker import connected
from support.ports import wait_until

_THREE_BYTES: Final = b"\x01\x00\x00"
#: Who has said something has a buffer of half a MiB, until he is sent away: 64 in a task, and some in between.
CROWD_MIB: Final = 45.0
#: How often a byte comes: well before any deadline of a read could strike.
_EVERY: Final = 0.2


def silent_tls(stage: Stage) -> None:
    usual = stage.good_peer()
    with stage.many(3, plain=True) as silent:
        delayed = stage.good_peer()
        assert all(is_open(peer) for peer in silent), "they are silent while the good peer is served"
        assert delayed - usual < 1.0
        for peer in silent:
            stage.must_end(peer, CUT, within=stage.limits.handshake_seconds + GRACE)


def half_a_hello(stage: Stage) -> None:
    with stage.many(3, plain=True) as halves:
        for peer in halves:
            peer.send(client_hello()[:50])
        usual = stage.good_peer()
        assert usual < 1.0 + GRACE
        for peer in halves:
            stage.must_end(peer, CUT, within=stage.limits.handshake_seconds + GRACE)


def shaken_and_silent(stage: Stage) -> None:
    with stage.many(3) as silent:
        stage.good_peer()
        for peer in silent:
            stage.must_end(peer, CUT, within=stage.limits.association_seconds + GRACE)


def client_hello() -> bytes:
    """Return how a TLS client begins."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(incoming, outgoing, server_hostname="receiver.example")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def ten_of_three_bytes(stage: Stage) -> None:
    _crowd(stage, 10, _THREE_BYTES)


def more_of_three_bytes(stage: Stage) -> None:
    _crowd(stage, stage.limits.connections + 6, _THREE_BYTES)


def more_silent(stage: Stage) -> None:
    _crowd(stage, stage.limits.connections + 6, b"")


def _crowd(stage: Stage, count: int, words: bytes) -> None:
    began = time.monotonic()
    with stage.many(count) as crowd:
        for peer in crowd:
            peer.send(words)
        for _ in range(3):
            stage.good_peer()
        assert time.monotonic() - began < GRACE, "the good peers did not wait for the crowd to go"
        for peer in crowd:
            stage.must_end(peer, CUT, within=stage.limits.association_seconds + GRACE)


def crowd_that_comes_back(stage: Stage) -> None:
    crowd = [connected(stage.receiver.address) for _ in range(30)]
    with stage.many(stage.limits.connections) as first:
        for peer in first:
            peer.send(_THREE_BYTES)
        # Whoever is sent away for a newcomer is followed by another, and a good peer comes after each few.
        for number, another in enumerate(crowd):
            with another as peer:
                peer.send(_THREE_BYTES)
                if number % 6 == 0:
                    stage.good_peer()


def slow_request(stage: Stage) -> None:
    with stage.connected() as slow:
        request = wire.association_request()
        stage.drip(slow, (bytes([byte]) for byte in request), every=_EVERY, limit=stage.limits.association_seconds)
    stage.good_peer()


def slow_pdu_of_an_object(stage: Stage) -> None:
    uid = new_uid()
    with stage.associated() as slow:
        command, data = wire.message(wire.IMAGE_CONTEXT, wire.store_command(uid), wire.data_set(uid))
        slow.send(command, data[:200])
        stage.good_peer()
        pieces = (data[place : place + 1] for place in range(200, len(data)))
        stage.drip(slow, pieces, every=_EVERY, limit=stage.limits.read_seconds)


def object_that_stops(stage: Stage) -> None:
    pdus = wire.store_message(new_uid(), filling=100_000)
    with stage.associated() as one, stage.associated() as another, stage.associated() as third:
        for peer, count in ((one, 1), (another, 2), (third, 4)):
            peer.send(*pdus[:count])
        stage.good_peer()
        for peer in (one, another, third):
            stage.must_end(peer, CUT, within=stage.limits.read_seconds + GRACE)


def header_that_stops(stage: Stage) -> None:
    with stage.associated() as peer:
        peer.send(b"\x04\x00\x00")
        stage.good_peer()
        stage.must_end(peer, CUT, within=stage.limits.read_seconds + GRACE)


def full_house(stage: Stage) -> None:
    with stage.many(stage.limits.associations) as guests:
        for guest in guests:
            assert guest.associate() is None
        with stage.connected() as another:
            end = another.associate()
            assert end is not None
            assert (end.how, end.reason) == ("rejected", (2, 3, 2))
        for guest in guests:
            guest.send(*wire.message(wire.VERIFICATION_CONTEXT, wire.echo_command()))
            assert guest.answer().status == 0
        guests[0].release()
        wait_until(lambda: _is_let_in(stage), what="a place to be free")


def _is_let_in(stage: Stage) -> bool:
    with stage.connected() as peer:
        if peer.associate() is not None:
            return False
        peer.release()
        return True


def deaf(stage: Stage) -> None:
    with connected(stage.receiver.address, narrow=True) as peer:
        assert peer.associate() is None
        echo = wire.message(wire.VERIFICATION_CONTEXT, wire.echo_command())[0] * 20
        peer.socket.settimeout(0.2)
        began = time.monotonic()
        # No answer is read. At some point nobody takes anything any more; then the receiver has to hang up.
        while time.monotonic() - began < stage.limits.read_seconds + 2 * GRACE:
            try:
                peer.socket.sendall(echo)
            except TimeoutError:
                stage.good_peer()
            except OSError:
                return
    raise AssertionError("the receiver still waits for its answers to be read")


def stays_after_the_end(stage: Stage) -> None:
    """Do not close after an A-ABORT or a rejection: by PS3.8 9.2 the receiver waits for that, but not for ever."""
    with stage.connected() as aborted, stage.connected() as rejected:
        aborted.send(wire.pdu(0x42))
        rejected.send(wire.association_request(called="SOMEBODY"))
        for peer, kind in ((aborted, wire.ABORT), (rejected, wire.ASSOCIATE_RJ)):
            peer.patience = GRACE
            assert peer.read_pdu()[0] == kind
        stage.good_peer()
        for peer in (aborted, rejected):
            stage.must_end(peer, CUT, within=stage.limits.association_seconds + GRACE)


def comes_and_goes(stage: Stage) -> None:
    for number in range(300):
        with stage.connected(plain=True) as peer:
            if number % 3 == 1:
                peer.send(_THREE_BYTES)
            if number % 3 == 2:
                peer.rst()


ROWS: Final = (
    Attack(
        name="silent-tls-peer",
        what="three peers connect to the TLS port and say nothing",
        holds="others are delayed by less than a second; hung up on after `handshake_seconds`",
        play=silent_tls,
        over=(TLS,),
        limits=HASTY,
    ),
    Attack(
        name="half-a-tls-hello",
        what="three peers send half of a TLS greeting and stop",
        holds="others are served meanwhile; hung up on after `handshake_seconds`",
        play=half_a_hello,
        over=(TLS,),
        limits=HASTY,
    ),
    Attack(
        name="silent-after-handshake",
        what="three peers shake hands for TLS and say nothing more",
        holds="others are served meanwhile; hung up on after `association_seconds`",
        play=shaken_and_silent,
        over=(TLS,),
        limits=HASTY,
    ),
    Attack(
        name="ten-of-three-bytes",
        what="ten peers send three bytes and stop",
        holds="good peers are served meanwhile; all are shed after `association_seconds`",
        play=ten_of_three_bytes,
        limits=HASTY,
        growth_mib=CROWD_MIB,
    ),
    Attack(
        name="more-of-three-bytes-than-connections",
        what="six peers more than `connections` send three bytes and stop",
        holds="good peers are served at once; all are shed",
        play=more_of_three_bytes,
        limits=HASTY,
        growth_mib=CROWD_MIB,
    ),
    Attack(
        name="more-silent-than-connections",
        what="six peers more than `connections` connect and say nothing",
        holds="good peers are served at once; all are shed",
        play=more_silent,
        over=(PLAIN, TLS),
        limits=HASTY,
        growth_mib=CROWD_MIB,
    ),
    Attack(
        name="crowd-that-comes-back",
        what="the house is full of peers that stop after three bytes, and each that is shed is followed by another",
        holds="good peers are served in between",
        play=crowd_that_comes_back,
        limits=HASTY,
        growth_mib=CROWD_MIB,
    ),
    Attack(
        name="slow-association-request",
        what="the association request comes byte by byte",
        holds="hung up on after `association_seconds`, however often a byte comes",
        play=slow_request,
        limits=HASTY,
    ),
    Attack(
        name="slow-pdu-of-an-object",
        what="a PDU of an object comes byte by byte",
        holds="the association ends after `read_seconds`; no fragment",
        play=slow_pdu_of_an_object,
        over=(PLAIN, TLS),
        limits=HASTY,
    ),
    Attack(
        name="object-that-stops",
        what="a sender stops after the command, or between two PDUs of an object",
        holds="the association ends after `read_seconds`; no fragment",
        play=object_that_stops,
        limits=HASTY,
    ),
    Attack(
        name="header-that-stops",
        what="on an association, three bytes of a PDU come",
        holds="the association ends after `read_seconds`",
        play=header_that_stops,
        limits=HASTY,
    ),
    Attack(
        name="full-house",
        what="as many peers as `associations` hold one each and do nothing",
        holds="the next is rejected as transient, local limit exceeded (2/3/2); those who are in are served; a free "
        "place is taken",
        play=full_house,
        growth_mib=12.0,
    ),
    Attack(
        name="deaf-peer",
        what="a peer asks C-ECHO after C-ECHO and reads no answer",
        holds="the association ends after `read_seconds`; others are served meanwhile",
        play=deaf,
        limits=HASTY,
        growth_mib=12.0,
    ),
    Attack(
        name="stays-after-the-end",
        what="peers that do not close when they were sent an A-ABORT or a rejection",
        holds="closed after `association_seconds`",
        play=stays_after_the_end,
        limits=HASTY,
    ),
    Attack(
        name="comes-and-goes",
        what="300 connections in a row that close, reset, or send three bytes first",
        holds="threads, sockets and memory are as before",
        play=comes_and_goes,
        limits=HASTY,
        growth_mib=CROWD_MIB,
    ),
)
