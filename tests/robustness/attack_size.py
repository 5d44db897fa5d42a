"""Peers that announce, or send, far more than anybody needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from robustness.attack_receivers import PLAIN, STANDING, TLS
from robustness.attack_stage import CUT, PATIENT, Attack, Play, Stage, after, before, each, new_uid
from support import lying_pdus as wire

from airflow_provider_varian import uids

_FOUR_GIB: Final = 0xFFFFFFFF
_MIB: Final = bytes(1024 * 1024)
#: What is sent behind a header, unless the receiver hangs up first.
_BEHIND: Final = (_MIB,) * 50


def _items(count: int, one: bytes) -> bytes:
    return wire.association_request(contexts=[one * count])


def endless(piece: bytes, *, mib: int = 50) -> Iterator[bytes]:
    """Yield a piece again and again, in sendings of about 64 KiB, until so many MiB are sent."""
    sending = piece * (65536 // len(piece))
    for _ in range(mib * 16):
        yield sending


def _flood(*first: bytes, piece: bytes) -> Play:
    """Return the attack that sends a piece without end on an association, of 50 MiB unless the receiver hangs up."""

    def play(stage: Stage) -> None:
        with stage.associated() as peer:
            peer.send(*first)
            # It may read on, and throw away, for as long as it waits for us to close.
            all(peer.send(sending) for sending in endless(piece))
            stage.must_end(peer, CUT)

    return play


def too_large_an_object(stage: Stage) -> None:
    uid = new_uid()
    with stage.associated() as peer:
        size = stage.limits.object_bytes
        sent = all(
            peer.send(each) for each in wire.message(wire.IMAGE_CONTEXT, wire.store_command(uid), bytes(2 * size))
        )
        if sent:
            assert peer.answer().status == 0xA700
            peer.release()
        else:
            stage.must_end(peer, CUT)


_STORE: Final = wire.pdu(wire.P_DATA, wire.pdv(wire.IMAGE_CONTEXT, 3, wire.store_command("1.2.3")))

ROWS: Final = (
    Attack(
        name="4-gib-header-before-acceptance",
        what="an association request that announces 4 GiB, with 50 MB sent behind it",
        holds="aborted at the header; less than 2 MiB of memory",
        play=before(wire.pdu(wire.ASSOCIATE_RQ, length=_FOUR_GIB), *_BEHIND, ends=CUT),
        over=(PLAIN, TLS),
        growth_mib=2.0,
    ),
    Attack(
        name="4-gib-header-after-acceptance",
        what="a P-DATA-TF that announces 4 GiB, with 50 MB sent behind it",
        holds="aborted at the header; less than 2 MiB of memory",
        play=after(wire.pdu(wire.P_DATA, length=_FOUR_GIB), *_BEHIND, ends=CUT),
        over=(PLAIN, TLS),
        growth_mib=2.0,
    ),
    Attack(
        name="4-gib-header-in-an-object",
        what="the same in the middle of an object",
        holds="aborted at the header; less than 2 MiB of memory; no fragment",
        play=after(
            *wire.store_message("1.2.3", filling=40000)[:2], wire.pdu(wire.P_DATA, length=_FOUR_GIB), *_BEHIND, ends=CUT
        ),
        growth_mib=2.0,
    ),
    Attack(
        name="4-gib-header-of-unknown-type",
        what="eight PDUs of other types, and of none there is, that announce 4 GiB, before acceptance and after",
        holds="aborted at the header; memory flat",
        play=each(
            one(wire.pdu(kind, length=_FOUR_GIB), *_BEHIND, ends=CUT)
            for kind in (wire.ASSOCIATE_AC, wire.RELEASE_RQ, wire.ABORT, 0x42)
            for one in (before, after)
        ),
        growth_mib=6.0,
    ),
    Attack(
        name="pdu-over-what-was-announced",
        what="a P-DATA-TF of one byte more than the maximum length that we announced",
        holds="aborted",
        play=after(
            wire.pdu(wire.P_DATA, wire.pdv(wire.IMAGE_CONTEXT, wire.COMMAND, bytes(PATIENT.max_pdu - 5))), ends=CUT
        ),
    ),
    Attack(
        name="100000-presentation-items",
        what="an association request with 100,000 presentation contexts",
        holds="aborted at the header; memory flat",
        play=before(_items(100_000, wire.presentation_context(1, uids.RT_IMAGE)), ends=CUT),
        growth_mib=2.0,
    ),
    Attack(
        name="items-without-number",
        what="as many items as fit into an association request that is not too long: contexts, transfer syntaxes, "
        "user items",
        holds="aborted; memory flat",
        play=each(
            before(request, ends=CUT)
            for request in (
                _items(50_000, wire.item(0x20)),
                _items(3_000, wire.presentation_context(1, uids.RT_IMAGE)),
                _items(1, wire.presentation_context(1, uids.RT_IMAGE, ["1.2"] * 9_000)),
                wire.association_request(user=wire.user_information(wire.item(0x53) * 16_000)),
                wire.association_request(user=wire.user_information(wire.item(0x77, bytes(3)) * 9_000)),
            )
        ),
        growth_mib=6.0,
    ),
    Attack(
        name="command-without-end",
        what="fragments of a command set of which none is the last, 50 MB of them",
        holds="aborted; memory flat",
        play=_flood(piece=wire.pdu(wire.P_DATA, wire.pdv(wire.IMAGE_CONTEXT, wire.COMMAND, bytes(8000)))),
    ),
    Attack(
        name="empty-fragments-of-a-command",
        what="empty fragments of a command set without end",
        holds="aborted; memory flat",
        play=_flood(piece=wire.pdu(wire.P_DATA, wire.pdv(wire.IMAGE_CONTEXT, wire.COMMAND))),
    ),
    Attack(
        name="empty-fragments-of-an-object",
        what="empty fragments of a data set without end",
        holds="aborted; memory flat; no fragment",
        play=_flood(_STORE, piece=wire.pdu(wire.P_DATA, wire.pdv(wire.IMAGE_CONTEXT, 0))),
    ),
    Attack(
        name="empty-pdus",
        what="P-DATA-TF PDUs with nothing in them without end",
        holds="aborted; memory flat",
        play=_flood(piece=wire.pdu(wire.P_DATA)),
    ),
    Attack(
        name="too-large-an-object",
        what="an object twice as large as `object_bytes`",
        holds="0xA700, or the association ends; no fragment; memory flat",
        play=too_large_an_object,
        ways=(STANDING,),
    ),
)
