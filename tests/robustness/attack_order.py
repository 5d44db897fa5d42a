"""Right PDUs and messages at the wrong time, in the wrong context, or of the wrong kind."""

from __future__ import annotations

from typing import Final

from robustness.attack_stage import ABORTED, Attack, Stage, after, before, each, new_uid, refused
from support import lying_pdus as wire
from support.attacker import Answer

from airflow_provider_varian import uids

_IMAGE, _DOSE, _ECHO = wire.IMAGE_CONTEXT, wire.DOSE_CONTEXT, wire.VERIFICATION_CONTEXT
_MESSAGE: Final = wire.store_message("1.2.3", filling=40000)
#: Command and two of the fragments of an object.
_BEGUN: Final = _MESSAGE[:3]


def _p_data(context: int, control: int, data: bytes = b"some bytes") -> bytes:
    return wire.pdu(wire.P_DATA, wire.pdv(context, control, data))


def other_sop_class(stage: Stage) -> None:
    uid = new_uid()
    with stage.associated() as peer:
        command = wire.store_command(uid, sop_class=uids.RT_DOSE)
        peer.send(*wire.message(_IMAGE, command, wire.data_set(uid, sop_class=uids.RT_DOSE)))
        assert peer.answer() == Answer(0x8001, 1, 0x0122)
        peer.release()


def deflate(stage: Stage) -> None:
    deflated, big = uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, uids.EXPLICIT_VR_BIG_ENDIAN
    contexts = [
        wire.presentation_context(1, uids.VERIFICATION),
        wire.presentation_context(3, uids.RT_IMAGE, [deflated]),
        wire.presentation_context(5, uids.RT_IMAGE, [deflated, uids.EXPLICIT_VR_LITTLE_ENDIAN]),
        wire.presentation_context(7, uids.RT_DOSE, [big]),
        wire.presentation_context(9, uids.RT_DOSE, [big, deflated]),
    ]
    with stage.associated(wire.association_request(contexts=contexts)) as peer:
        # PS3.8 table 9-18: 4 is transfer-syntaxes-not-supported.
        assert peer.results == {1: 0, 3: 4, 5: 0, 7: 4, 9: 4}
        assert peer.accepted[5] == uids.EXPLICIT_VR_LITTLE_ENDIAN
        peer.send(*wire.message(3, wire.store_command("1.2.3"), wire.data_set("1.2.3")))
        stage.must_end(peer)


def bomb(stage: Stage) -> None:
    import zlib

    uid = new_uid()
    packed = zlib.compress(bytes(64 * 1024 * 1024), 9)
    with stage.associated() as peer:
        peer.send(*wire.message(_IMAGE, wire.store_command(uid), packed))
        assert peer.answer().status == 0xA900
        peer.release()


def _request_with(*numbers: int) -> bytes:
    return wire.association_request(contexts=[wire.presentation_context(number, uids.RT_IMAGE) for number in numbers])


def other_versions(stage: Stage) -> None:
    for request in (
        wire.association_request(version=0),
        wire.association_request(version=2),
        wire.association_request(application=wire.item(0x10, b"1.2.840.10008.3.1.1.99")),
    ):
        with stage.connected() as peer:
            end = peer.associate(request)
            # Refused for good: by the service user or by the ACSE (PS3.8 table 9-21).
            assert end is not None
            assert (end.how, end.reason[:1]) == ("rejected", (1,)), (end, request[6:8])


ROWS: Final = (
    Attack(
        name="interleaved-contexts",
        what="in the middle of an object in one presentation context, fragments of another context: data, a command",
        holds="aborted; no fragment",
        play=each(
            after(*_BEGUN, _p_data(context, control, data))
            for context, control, data in (
                (_DOSE, 0, b"some bytes"),
                (_DOSE, wire.LAST, b"some bytes"),
                (_DOSE, 3, wire.store_command("1.2.4", sop_class=uids.RT_DOSE)),
                (_ECHO, 3, wire.echo_command()),
            )
        ),
    ),
    Attack(
        name="command-within-a-command",
        what="a command set whose fragments come in two contexts",
        holds="aborted",
        play=after(
            _p_data(_IMAGE, wire.COMMAND, wire.store_command("1.2.3")[:40]),
            _p_data(_DOSE, 3, wire.store_command("1.2.3")[40:]),
        ),
    ),
    Attack(
        name="command-within-an-object",
        what="a command in the same context before the data set has ended",
        holds="aborted; no fragment",
        play=after(*_BEGUN, _p_data(_IMAGE, 3, wire.store_command("1.2.4"))),
    ),
    Attack(
        name="data-before-its-command",
        what="a data set without a command before it, whole or in part",
        holds="aborted",
        play=each(after(_p_data(_IMAGE, control, wire.data_set("1.2.3"))) for control in (0, wire.LAST)),
    ),
    Attack(
        name="data-within-a-command",
        what="a fragment of a data set before the command set has ended",
        holds="aborted",
        play=after(_p_data(_IMAGE, wire.COMMAND, wire.store_command("1.2.3")[:40]), _p_data(_IMAGE, 0)),
    ),
    Attack(
        name="second-association-request",
        what="another association request on an association, at rest and in the middle of an object",
        holds="aborted; no fragment",
        play=each((after(wire.association_request()), after(*_BEGUN, wire.association_request()))),
    ),
    Attack(
        name="pdus-of-the-other-side",
        what="an A-ASSOCIATE-AC, A-ASSOCIATE-RJ or A-RELEASE-RP, which only we could send, before acceptance and after",
        holds="aborted",
        play=each(
            one(wire.pdu(kind, body))
            for one in (before, after)
            for kind, body in (
                (wire.ASSOCIATE_AC, wire.association_body()),
                (wire.ASSOCIATE_RJ, b"\0\1\1\1"),
                (wire.RELEASE_RP, bytes(4)),
            )
        ),
    ),
    Attack(
        name="data-before-association",
        what="a message, or the wish to release, before any association",
        holds="aborted",
        play=each((before(*wire.message(_ECHO, wire.echo_command())), before(wire.pdu(wire.RELEASE_RQ, bytes(4))))),
    ),
    Attack(
        name="unknown-pdu-types",
        what="PDUs of types 0, 8, 0x42 and 0xFF, before acceptance and after",
        holds="aborted",
        play=each(one(wire.pdu(kind, b"some bytes")) for one in (before, after) for kind in (0, 8, 0x42, 0xFF)),
    ),
    Attack(
        name="unknown-pdu-type-in-an-object",
        what="a PDU of an unknown type in the middle of an object",
        holds="aborted; no fragment",
        play=after(*_BEGUN, wire.pdu(0x42, b"some bytes")),
    ),
    Attack(
        name="contexts-never-accepted",
        what="messages in presentation contexts that were not accepted, not proposed, even, or 0",
        holds="aborted",
        play=each(
            after(*wire.message(number, wire.store_command("1.2.3"), wire.data_set("1.2.3")))
            for number in (0, 2, 4, 7, 254, 255)
        ),
    ),
    Attack(
        name="context-ids-that-cannot-be",
        what="association requests with even presentation context IDs, with 0, or with the same twice",
        holds="aborted",
        play=each(before(_request_with(*numbers)) for numbers in ((2,), (0,), (1, 3, 4), (1, 1))),
    ),
    Attack(
        name="other-versions",
        what="association requests of other versions of the protocol, or for another application",
        holds="rejected for good (1)",
        play=other_versions,
    ),
    Attack(
        name="no-data-set",
        what="a C-STORE-RQ that says that no data set follows",
        holds="answered with a failure, or aborted; nothing is stored",
        play=refused(*wire.message(_IMAGE, wire.store_command("1.2.3", data_set=wire.NO_DATA_SET))),
    ),
    Attack(
        name="responses-that-nobody-asked-for",
        what="500 each of C-STORE-RSP, C-ECHO-RSP and C-FIND-RSP sent to us",
        holds="ignored, or aborted; memory flat",
        play=each(
            refused(
                _p_data(
                    _IMAGE,
                    3,
                    wire.command_set(
                        [
                            wire.number(0x0100, command | wire.RESPONSE),
                            wire.number(0x0120, 1),
                            wire.number(0x0800, wire.NO_DATA_SET),
                            wire.number(0x0900, 0),
                        ]
                    ),
                )
                * 500
            )
            for command in (wire.C_STORE_RQ, wire.C_ECHO_RQ, wire.C_FIND_RQ)
        ),
    ),
    Attack(
        name="requests-that-we-do-not-serve",
        what="C-FIND-RQ, C-MOVE-RQ, C-GET-RQ, N-CREATE-RQ and commands that do not exist, in a storage context",
        holds="answered with a failure, or aborted",
        play=each(
            refused(
                _p_data(
                    _IMAGE,
                    3,
                    wire.command_set(
                        [
                            wire.element(0x0002, uids.RT_IMAGE.encode()),
                            wire.number(0x0100, command),
                            wire.number(0x0110, 1),
                            wire.number(0x0700, 0),
                            wire.number(0x0800, wire.NO_DATA_SET),
                        ]
                    ),
                )
            )
            for command in (wire.C_FIND_RQ, wire.C_GET_RQ, wire.C_MOVE_RQ, 0x0140, 0x7777)
        ),
    ),
    Attack(
        name="other-sop-class",
        what="a C-STORE of another SOP class than that of its presentation context",
        holds="0x0122, SOP class not supported; nothing is stored",
        play=other_sop_class,
    ),
    Attack(
        name="release-within-an-object",
        what="an A-RELEASE-RQ in the middle of an object",
        holds="released or aborted; no fragment, no receipt",
        play=after(*_BEGUN, wire.pdu(wire.RELEASE_RQ, bytes(4)), ends=ABORTED | {"released"}),
    ),
    Attack(
        name="deflate",
        what="deflated and big-endian transfer syntaxes are proposed, alone and beside another",
        holds="never accepted (4, transfer syntaxes not supported); a message in such a context aborts",
        play=deflate,
    ),
    Attack(
        name="deflate-bomb",
        what="64 MiB of zeros, deflated, as the data set of a context that was accepted",
        holds="0xA900; nothing is inflated; memory flat",
        play=bomb,
    ),
)
