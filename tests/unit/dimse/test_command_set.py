"""Command sets: byte for byte those of pynetdicom, and nothing malformed is understood."""

from __future__ import annotations

from io import BytesIO

import pytest
from pynetdicom import dimse_messages
from pynetdicom.dimse_primitives import C_ECHO, C_FIND, C_GET, C_MOVE, C_STORE
from pynetdicom.dsutils import encode
from support.raw_peer import C_CANCEL_RQ, C_STORE_RQ, RSP, build_command

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.command_set import (
    C_ECHO_RQ,
    C_FIND_RQ,
    C_GET_RQ,
    C_GET_RSP,
    C_MOVE_RQ,
    C_MOVE_RSP,
    Command,
    FindResponse,
    Request,
    RetrieveProgress,
    StoreRequest,
)


def by_the_library(message, primitive):
    message.primitive_to_message(primitive)
    return encode(message.command_set, True, True)


@pytest.mark.parametrize("originator", [None, ("AIRFLOW", 7), ("EVEN", 65535)])
@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34", "1." + "2" * 62])
def test_a_store_request_is_encoded_as_pynetdicom_does(uid, originator):
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 4711, 2
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = uids.CT_IMAGE, uid
    primitive.DataSet = BytesIO(b"x")
    if originator:
        primitive.MoveOriginatorApplicationEntityTitle, primitive.MoveOriginatorMessageID = originator
    request = StoreRequest(
        sop_class_uid=uids.CT_IMAGE, sop_instance_uid=uid, message_id=4711, priority=2, originator=originator
    )
    assert request.encoded() == by_the_library(dimse_messages.C_STORE_RQ(), primitive)


@pytest.mark.parametrize(
    ("field", "message", "primitive"),
    [
        (C_ECHO_RQ, dimse_messages.C_ECHO_RQ, C_ECHO),
        (C_FIND_RQ, dimse_messages.C_FIND_RQ, C_FIND),
        (C_GET_RQ, dimse_messages.C_GET_RQ, C_GET),
        (C_MOVE_RQ, dimse_messages.C_MOVE_RQ, C_MOVE),
    ],
)
@pytest.mark.parametrize("destination", ["AIRFLOW", "EVEN", "SIXTEEN LETTERS!"])
def test_a_request_is_encoded_as_pynetdicom_does(field, message, primitive, destination):
    asked = primitive()
    asked.MessageID, asked.AffectedSOPClassUID = 65535, uids.STUDY_ROOT_FIND
    if field != C_ECHO_RQ:
        asked.Priority, asked.Identifier = 0, BytesIO(b"x")
    move_destination = destination if field == C_MOVE_RQ else None
    if move_destination:
        asked.MoveDestination = move_destination
    request = Request(
        command_field=field,
        sop_class_uid=uids.STUDY_ROOT_FIND,
        message_id=65535,
        move_destination=move_destination,
    )
    assert request.encoded() == by_the_library(message(), asked)


@pytest.mark.parametrize(
    ("field", "message", "primitive"),
    [(C_MOVE_RSP, dimse_messages.C_MOVE_RSP(), C_MOVE()), (C_GET_RSP, dimse_messages.C_GET_RSP(), C_GET())],
)
def test_progress_is_encoded_as_pynetdicom_does(field, message, primitive):
    primitive.MessageIDBeingRespondedTo, primitive.AffectedSOPClassUID = 3, uids.STUDY_ROOT_MOVE
    primitive.Status = 0xFF00
    primitive.NumberOfRemainingSuboperations, primitive.NumberOfCompletedSuboperations = 300, 2
    primitive.NumberOfFailedSuboperations, primitive.NumberOfWarningSuboperations = 1, 0
    progress = RetrieveProgress(
        command_field=field,
        sop_class_uid=uids.STUDY_ROOT_MOVE,
        responds_to=3,
        status=0xFF00,
        remaining=300,
        completed=2,
        failed=1,
        warning=0,
    )
    assert progress.encoded() == by_the_library(message, primitive)


@pytest.mark.parametrize(("status", "identifier"), [(0xFF00, b"match"), (0xFF01, b"match"), (0x0000, b"")])
def test_a_match_is_encoded_as_pynetdicom_does(status, identifier):
    primitive = C_FIND()
    primitive.MessageIDBeingRespondedTo, primitive.AffectedSOPClassUID = 65535, uids.STUDY_ROOT_FIND
    primitive.Status = status
    primitive.Identifier = BytesIO(identifier) if identifier else None
    response = FindResponse(uids.STUDY_ROOT_FIND, 65535, status, has_identifier=bool(identifier))
    assert response.encoded() == by_the_library(dimse_messages.C_FIND_RSP(), primitive)


@pytest.mark.parametrize(
    "wrong",
    [{"message_id": 65536}, {"message_id": -1}, {"sop_instance_uid": "1" * 65}, {"sop_class_uid": "ä"},
     {"originator": ("SEVENTEEN LETTERS", 1)}, {"priority": 70000}],
)  # fmt: skip
def test_what_does_not_fit_is_refused(wrong):
    fitting = {"sop_class_uid": "1.2", "sop_instance_uid": "1.3", "message_id": 1}
    with pytest.raises(ValueError, match=r"element|codec"):
        StoreRequest(**(fitting | wrong)).encoded()


def test_an_answer_is_read():
    data = build_command(
        affected_class="1.2",
        command=C_STORE_RQ | RSP,
        responds_to=9,
        data_set=0x0101,
        status=0xB007,
        comment="Coerced ",
    )
    command = Command(data)
    assert (command.command_field, command.responds_to, command.status) == (0x8001, 9, 0xB007)
    assert (command.has_data_set, command.error_comment) == (False, "Coerced")
    cancel = Command(build_command(command=C_CANCEL_RQ, responds_to=9, data_set=0x0101))
    assert (cancel.status, cancel.error_comment) == (None, "")
    assert Command(build_command(command=1, data_set=1)).has_data_set


def test_a_comment_of_other_letters_stays_readable():
    data = build_command(command=0x8001, data_set=0x0101)
    comment = b"\x00\x00\x02\x09\x04\x00\x00\x00f\xfcr!"
    assert Command(data + comment).error_comment == "f?r!"


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0",
        build_command(command=0x8001, data_set=0x0101)[:-1],
        build_command(command=0x8001, data_set=0x0101) + b"\x08\0\x05\0\0\0\0\0",
        build_command(command="long", data_set=0x0101),
        build_command(data_set=0x0101),
        build_command(command=0x8001),
        build_command(command=0x8001, data_set=0x0101) + b"\0\0\2\x09\x64\0\0\0abc",
    ],
)
def test_what_is_malformed_is_refused(data):
    with pytest.raises(ValueError, match=r"element|command set"):
        Command(data)
