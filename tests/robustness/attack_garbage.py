"""Bytes that are no DICOM, and conversations in which bytes were changed. Random, from fixed seeds."""

from __future__ import annotations

import random
from typing import Final

from robustness.attack_receivers import TLS
from robustness.attack_silence import client_hello
from robustness.attack_stage import ABORTED, CUT, GRACE, HASTY, Attack, Stage, before, each
from support import lying_pdus as wire

_HTTP: Final = b"GET /zqplanted?name=Zqplanted HTTP/1.1\r\nHost: receiver\r\n\r\n"
_OTHER_PROTOCOLS: Final = (
    _HTTP,
    b"POST / HTTP/1.1\r\nContent-Length: 4294967295\r\n\r\n" + bytes(5000),
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\x16\x03\x01\x02\x00",
    b"\x00" * 4096,
    b"\xff" * 4096,
    b"MSH|^~\\&|ZQPLANTED|X|\r",
)


def random_bytes(stage: Stage) -> None:
    dice = random.Random(20261121)
    for _ in range(60):
        with stage.connected() as peer:
            # No association request: that of a random length would be waited for.
            peer.send(
                dice.choice(b"\x00\x02\x03\x04\x05\x06\x08\x50\xff").to_bytes() + dice.randbytes(dice.randint(6, 9000))
            )
            stage.must_end(peer, CUT)


def random_bytes_in_an_association(stage: Stage) -> None:
    dice = random.Random(20261122)
    for _ in range(60):
        with stage.associated() as peer:
            peer.send(*wire.store_message("1.2.3", filling=40000)[: dice.choice((0, 1, 3))])
            peer.send(wire.pdu(wire.P_DATA, dice.randbytes(dice.randint(1, 9000))))
            stage.must_end(peer, CUT)


def random_requests(stage: Stage) -> None:
    dice = random.Random(20261123)
    body = wire.association_body()
    for _ in range(60):
        with stage.connected() as peer:
            peer.send(wire.pdu(wire.ASSOCIATE_RQ, body[:68] + dice.randbytes(dice.randint(1, 9000))))
            stage.must_end(peer, CUT)


def changed_conversations(stage: Stage) -> None:
    """Change a few bytes of a right conversation; what is not noticed ends like the right one, or by our hanging up."""
    dice = random.Random(20261124)
    for _ in range(120):
        right = b"".join(
            [
                wire.association_request(),
                *wire.message(wire.VERIFICATION_CONTEXT, wire.echo_command()),
                *wire.store_message("1.2.3", filling=2000, fragment=700)[:-1],
                wire.pdu(wire.RELEASE_RQ, bytes(4)),
            ]
        )
        with stage.connected() as peer:
            peer.send(_changed(right, dice))
            peer.socket.shutdown(1)
            stage.must_end(peer, CUT | {"rejected", "released"})


def _changed(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(changed))
        match dice.randrange(4):
            case 0:
                changed[place] = dice.randrange(256)
            case 1:
                changed[place] ^= 1 << dice.randrange(8)
            case 2:
                del changed[place : place + dice.randint(1, 20)]
            case _:
                changed[place:place] = dice.randbytes(dice.randint(1, 20))
    return bytes(changed)


def plain_to_tls(stage: Stage) -> None:
    for words in (wire.association_request(), _HTTP, bytes(4096), b"\x16\x03\x01\x40\x00" + bytes(17000)):
        with stage.connected(plain=True) as peer:
            peer.send(words)
            peer.patience = stage.limits.handshake_seconds + GRACE
            # TLS has alerts of its own, which are no PDUs; what counts is that it is over.
            assert _read_all(peer)


def _read_all(peer) -> bool:
    peer.socket.settimeout(peer.patience)
    try:
        while peer.socket.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def no_certificate(stage: Stage) -> None:
    import ssl

    stranger = ssl.create_default_context()
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    with stage.connected(plain=True) as peer:
        try:
            secured = stranger.wrap_socket(peer.socket, server_hostname="receiver.example")
        except OSError:
            return
        with secured:
            peer.socket = secured
            # With TLS 1.3 the client learns only when it reads that it is not wanted.
            end = peer.associate()
            assert end is not None
            assert end.how in CUT


def old_tls(stage: Stage) -> None:
    # Records of TLS 1.0 and 1.1 that offer nothing newer: a client hello without the extension that names versions.
    for minor in (1, 2):
        body = b"\x03" + bytes([minor]) + bytes(32) + b"\x00" + b"\x00\x02\x00\x2f" + b"\x01\x00"
        hello = b"\x01" + len(body).to_bytes(3, "big") + body
        with stage.connected(plain=True) as peer:
            peer.send(b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello)
            answer = peer.socket.recv(65536)
            # 0x15 is an alert, 2 fatal, 70 protocol_version (RFC 5246 7.2).
            assert not answer or (answer[0] == 0x15 and answer[5:7] == b"\x02\x46")


ROWS: Final = (
    Attack(
        name="random-bytes",
        what="60 connections that send random bytes",
        holds="each is aborted or closed",
        play=random_bytes,
        growth_mib=24.0,
        limits=HASTY,
    ),
    Attack(
        name="random-bytes-in-a-request",
        what="60 association requests whose items are random bytes",
        holds="each is aborted",
        play=random_requests,
        growth_mib=24.0,
    ),
    Attack(
        name="random-bytes-in-an-association",
        what="P-DATA-TF PDUs of random bytes, at rest, after a command, and in the middle of an object; 60 times",
        holds="each association is aborted; no fragment",
        play=random_bytes_in_an_association,
        growth_mib=24.0,
        limits=HASTY,
    ),
    Attack(
        name="changed-conversations",
        what="120 right conversations in which bytes were changed, left out or put in",
        holds="each association ends; no fragment",
        play=changed_conversations,
        growth_mib=24.0,
        limits=HASTY,
    ),
    Attack(
        name="other-protocols",
        what="HTTP, SSH, HL7, a TLS record, zeros and ones sent to the port",
        holds="aborted or closed; nothing of it is in the log",
        play=each(before(words, ends=CUT) for words in _OTHER_PROTOCOLS),
        limits=HASTY,
        never_logged=("zqplanted", "HTTP/1.1", "OpenSSH"),
    ),
    Attack(
        name="tls-hello-to-a-plain-port",
        what="a TLS greeting to a port that speaks plain DICOM",
        holds="aborted",
        play=before(client_hello(), ends=ABORTED),
    ),
    Attack(
        name="plain-bytes-to-a-tls-port",
        what="an association request, HTTP, zeros and a broken TLS record to the TLS port",
        holds="closed",
        play=plain_to_tls,
        over=(TLS,),
        limits=HASTY,
        never_logged=("zqplanted", "HTTP/1.1"),
    ),
    Attack(
        name="tls-without-certificate",
        what="a peer that shakes hands for TLS and shows no certificate",
        holds="no association",
        play=no_certificate,
        over=(TLS,),
        limits=HASTY,
    ),
    Attack(
        name="old-tls",
        what="a peer that knows TLS 1.0 or 1.1 only",
        holds="refused by the alert for its version",
        play=old_tls,
        over=(TLS,),
        limits=HASTY,
    ),
)
