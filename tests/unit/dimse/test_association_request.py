"""An association request is looked through before it is decoded: what is whole passes, what lies does not."""

from __future__ import annotations

import struct
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import AllStoragePresentationContexts
from support.raw_peer import _item

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.association_request import check
from airflow_provider_varian.dimse.bounds import Bounds, MalformedError

FIXED = struct.pack(">HH16s16s32x", 1, 0, b"CALLED".ljust(16), b"CALLING".ljust(16))
APPLICATION = _item(0x10, b"1.2.840.10008.3.1.1.1")
ABSTRACT, TRANSFER = _item(0x30, uids.RT_IMAGE.encode()), _item(0x40, uids.IMPLICIT_VR_LITTLE_ENDIAN.encode())
MAXIMUM, IMPLEMENTATION = _item(0x51, struct.pack(">I", 16384)), _item(0x52, b"1.2.3")


def context(number=1, subs=ABSTRACT + TRANSFER, kind=0x20):
    return _item(kind, bytes([number, 0, 0, 0]) + subs)


def user(*items):
    return _item(0x50, MAXIMUM + IMPLEMENTATION + b"".join(items))


def request(*items):
    return FIXED + b"".join(items or (APPLICATION, context(), user()))


def primitive():
    """An association request of pynetdicom's with an item of every kind."""
    asked = A_ASSOCIATE()
    asked.application_context_name = "1.2.840.10008.3.1.1.1"
    asked.calling_ae_title, asked.called_ae_title = "CALLING", "CALLED"
    syntaxes = [uids.IMPLICIT_VR_LITTLE_ENDIAN, uids.EXPLICIT_VR_LITTLE_ENDIAN]
    contexts = [build_context(each.abstract_syntax, syntaxes) for each in AllStoragePresentationContexts[:128]]
    for number, each in enumerate(contexts):
        each.context_id = 2 * number + 1
    asked.presentation_context_definition_list = contexts
    maximum, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    maximum.maximum_length_received, implementation.implementation_class_uid = 16384, "1.2.3.4"
    version, window = ImplementationVersionNameNotification(), AsynchronousOperationsWindowNegotiation()
    version.implementation_version_name = "SIXTEEN_LETTERS_"
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 1
    role, extended, common = (
        SCP_SCU_RoleSelectionNegotiation(),
        SOPClassExtendedNegotiation(),
        SOPClassCommonExtendedNegotiation(),
    )
    role.sop_class_uid, role.scu_role, role.scp_role = uids.RT_IMAGE, False, True
    extended.sop_class_uid, extended.service_class_application_information = uids.RT_IMAGE, b"\2\0\3\0\1\0"
    common.sop_class_uid, common.service_class_uid = uids.RT_IMAGE, "1.2.840.10008.4.2"
    common.related_general_sop_class_identification = ["1.2.840.10008.5.1.4.1.1.88.22", "1.2.3.4"]
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field, identity.secondary_field = 2, b"user", b"passcode"
    asked.user_information = [maximum, implementation, version, window, role, extended, common, identity]
    return asked


def encoded_by_pynetdicom():
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive())
    return pdu.encode()[6:]


def test_what_pynetdicom_asks_with_everything_in_it_passes():
    check(encoded_by_pynetdicom(), Bounds())


def test_what_pynetdicom_answers_passes():
    asked = primitive()
    asked.result, asked.result_source = 0, 1
    for each in asked.presentation_context_definition_list:
        each.result, each.transfer_syntax = 0, each.transfer_syntax[:1]
    asked.presentation_context_definition_results_list = asked.presentation_context_definition_list
    server = UserIdentityNegotiation()
    server.server_response = b"ticket"
    asked.user_information = [*asked.user_information[:5], server]
    pdu = A_ASSOCIATE_AC()
    pdu.from_primitive(asked)
    body = pdu.encode()[6:]
    check(body, Bounds(), answer=True)
    with pytest.raises(MalformedError):
        check(body, Bounds())


def test_an_answer_may_refuse_without_a_transfer_syntax():
    check(request(APPLICATION, context(1, b"", 0x21), context(3, TRANSFER, 0x21), user()), Bounds(), answer=True)


def test_unknown_items_are_stepped_over():
    odd = _item(0x77, b"anything")
    check(request(odd, APPLICATION, context(1, odd + ABSTRACT + TRANSFER), user(odd), odd), Bounds())


def test_every_cut_is_noticed():
    body = request(APPLICATION, context(), context(3), user(_item(0x54, struct.pack(">H5sBB", 5, b"1.2.3", 1, 0))))
    check(body, Bounds())
    for length in range(len(body)):
        with pytest.raises(MalformedError):
            check(body[:length], Bounds())


@given(st.integers(68, len(request()) - 1), st.integers(0, 255))
def test_a_changed_byte_passes_or_is_malformed(position, value):
    body = bytearray(request())
    body[position] = value
    try:
        check(body, Bounds())
    except MalformedError:
        return


@given(st.binary(max_size=300), st.booleans())
def test_garbage_raises_nothing_but_malformed(garbage, answer):
    for body in (garbage, FIXED + garbage, request() + garbage):
        try:
            check(memoryview(body), Bounds(), answer=answer)
        except MalformedError:
            continue


def test_there_are_no_more_contexts_than_are_allowed():
    body = request(APPLICATION, context(1), context(3), user())
    check(body, Bounds(presentation_contexts=2))
    with pytest.raises(MalformedError, match="too many presentation contexts"):
        check(body, Bounds(presentation_contexts=1))


LONG_UID = b"1." + b"2" * 63


@pytest.mark.parametrize(
    "body",
    [
        request(context(), user()),
        request(APPLICATION, user()),
        request(APPLICATION, context()),
        request(APPLICATION, APPLICATION, context(), user()),
        request(APPLICATION, context(), user(), user()),
        request(APPLICATION, context(2), user()),
        request(APPLICATION, context(1), context(1), user()),
        request(APPLICATION, context(1, ABSTRACT), user()),
        request(APPLICATION, context(1, TRANSFER), user()),
        request(APPLICATION, context(1, ABSTRACT + ABSTRACT + TRANSFER), user()),
        request(APPLICATION, context(1, _item(0x30, LONG_UID) + TRANSFER), user()),
        request(APPLICATION, context(1, ABSTRACT + _item(0x40, LONG_UID)), user()),
        request(_item(0x10, LONG_UID), context(), user()),
        request(APPLICATION, context(1, ABSTRACT + TRANSFER * 97), user()),
        request(APPLICATION, _item(0x20, b"\1\0\0"), user()),
        request(APPLICATION, context(), user(*[_item(0x56, b"\0\0")] * 511)),
        request(APPLICATION, context(), user(), *[_item(0x77, b"")] * 513),
        request(APPLICATION, context(), user(_item(0x51, b"123"))),
        request(APPLICATION, context(), user(_item(0x52, LONG_UID))),
        request(APPLICATION, context(), user(_item(0x53, b"12345"))),
        request(APPLICATION, context(), user(_item(0x54, b"\0\5" + b"1.2.3" + b"\1"))),
        request(APPLICATION, context(), user(_item(0x54, b"\xff\xff" + b"1.2.3" + b"\1\1"))),
        request(APPLICATION, context(), user(_item(0x55, b"x" * 17))),
        request(APPLICATION, context(), user(_item(0x56, b"\0\x41" + LONG_UID))),
        request(APPLICATION, context(), user(_item(0x57, b"\0\0\0\0"))),
        request(APPLICATION, context(), user(_item(0x57, b"\0\0\0\0\0\3\0\2x"))),
        request(APPLICATION, context(), user(_item(0x58, b"\1"))),
        request(APPLICATION, context(), user(_item(0x58, b"\1\0\0\2ab"))),
        request(APPLICATION, context(), user(_item(0x58, b"\1\0\0\2ab\0\0x"))),
        request(APPLICATION, context(), user(_item(0x59, b"\0\3ab"))),
    ],
)
def test_what_lies_or_lacks_is_refused(body):
    with pytest.raises(MalformedError):
        check(body, Bounds())


def test_a_hundred_thousand_items_take_no_time_and_no_memory():
    many = b"".join(context(number % 256, b"") for number in range(100_000))
    body = request(APPLICATION, context(), user(), many)
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(MalformedError):
        check(body, Bounds(association_pdu_bytes=len(body)))
    assert time.perf_counter() - began < 0.05
    assert tracemalloc.get_traced_memory()[1] < 20_000
    tracemalloc.stop()


def test_the_largest_request_within_bounds_is_looked_through_at_once():
    contexts = [context(2 * number + 1, ABSTRACT + TRANSFER * 96) for number in range(128)]
    body = request(APPLICATION, *contexts, user(*[_item(0x56, b"\0\0")] * 500))
    began = time.perf_counter()
    check(body, Bounds())
    assert time.perf_counter() - began < 1
