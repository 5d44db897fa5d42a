"""The codec of C-FIND answers: what it understands is what pydicom reads; what is odd it leaves to pydicom."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from pydicom.charset import python_encoding
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pynetdicom.dsutils import decode, encode

from airflow_provider_varian.dimse import answers
from airflow_provider_varian.dimse.answers import Answer, answer_of

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PATIENT_ID, ROWS, PLAN_SEQUENCE, UID = 0x00100020, 0x00280010, 0x300C0002, 0x0020000D
COMMENTS = 0x00104000


def el(tag, value=b"", *, length=None):
    """An element of Implicit VR Little Endian; a length may be a lie."""
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def ex(tag, vr, value=b"", *, length=None):
    """An element of Explicit VR Little Endian."""
    length = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    return (
        head
        + (b"\0\0" + struct.pack("<I", length) if vr in (b"SQ", b"UN", b"OB") else struct.pack("<H", length))
        + value
    )


def nested(depth):
    """A sequence within a sequence, so many."""
    inner = b""
    for _ in range(depth):
        inner = el(PLAN_SEQUENCE, el(ITEM, inner))
    return inner


def full(*, undefined):
    """A data set of two levels, as pydicom writes it."""
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    item.is_undefined_length_sequence_item = undefined
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.PatientName = "Müller^王"
    made.PatientID = "QA_TB_WL"
    made.PatientComments = None
    made.Rows = 1280
    made.add_new(0x00091001, "OB", b"\1\2")
    made.ReferencedRTPlanSequence = Sequence([item, Dataset()])
    made["ReferencedRTPlanSequence"].is_undefined_length = undefined
    made.RequestAttributesSequence = []
    return made


@pytest.mark.parametrize("undefined", [False, True], ids=["defined", "undefined"])
@pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "explicit"])
def test_the_structure_is_that_of_the_data_set(implicit, undefined):
    encoded = encode(full(undefined=undefined), implicit, True)
    answer = answer_of(encoded, implicit_vr=implicit)
    assert answer.contents == {
        0x00080005: b"ISO_IR 192",
        0x00091001: b"\1\2",
        0x00100010: "Müller^王 ".encode(),
        0x00100020: b"QA_TB_WL",
        COMMENTS: b"",
        0x00280010: b"\0\5",
        0x00400275: (),
        PLAN_SEQUENCE: answer.contents[PLAN_SEQUENCE],
    }
    first, second = answer.contents[PLAN_SEQUENCE]
    assert (first.contents, second.contents) == ({0x00081155: b"1.2.3\0"}, {})
    assert implicit == (answer.vrs is None)
    assert implicit or (answer.vrs[PLAN_SEQUENCE], answer.vrs[0x00100010], first.vrs[0x00081155]) == ("SQ", "PN", "UI")


@pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "explicit"])
def test_pydicoms_data_set_can_be_had_too(implicit):
    encoded = encode(full(undefined=False), implicit, True)
    data_set = answer_of(encoded, implicit_vr=implicit).data_set()
    assert data_set == decode(BytesIO(encoded), implicit, True)
    assert (data_set.PatientName, data_set.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID) == (
        "Müller^王",
        "1.2.3",
    )


def test_an_answer_shows_nothing_of_a_patient():
    assert repr(answer_of(el(PATIENT_ID, b"Muster"), implicit_vr=True)) == "<Answer of 1 elements>"


def test_the_last_of_several_elements_with_one_tag_counts():
    answer = answer_of(el(PATIENT_ID, b"A ") + el(UID, b"1.2\0") + el(PATIENT_ID, b"B "), implicit_vr=True)
    assert answer.contents == {PATIENT_ID: b"B ", UID: b"1.2\0"}


@pytest.mark.parametrize(
    "encoded",
    [
        el(PATIENT_ID, b"A")[:-1],
        el(PATIENT_ID, b"AB") + b"\x20\0\x0d",
        el(PATIENT_ID, b"AB", length=4),
        el(PATIENT_ID, b"AB", length=UNDEFINED),
        el(UID, b"x" * 0x4141),
        el(ITEM_END) + el(PATIENT_ID, b"AB"),
        el(PATIENT_ID, b"AB") + el(ITEM),
        el(PLAN_SEQUENCE, el(PATIENT_ID, b"AB")),
        el(PLAN_SEQUENCE, el(ITEM, el(UID, b"1.2\0"), length=20)),
        el(PLAN_SEQUENCE, el(ITEM, el(UID, b"1.2\0"), length=10)),
        el(PLAN_SEQUENCE, el(ITEM, el(UID, b"1.2\0", length=8))),
        el(PLAN_SEQUENCE, el(ITEM, el(UID, b"1.2\0"), length=UNDEFINED)),
        el(PLAN_SEQUENCE, el(ITEM, b"", length=UNDEFINED) + el(ITEM_END, b"1234")),
        el(PLAN_SEQUENCE, el(ITEM, b"", length=UNDEFINED) + el(ITEM_END, length=4)),
        el(PLAN_SEQUENCE, el(ITEM) + el(SEQUENCE_END, length=4), length=UNDEFINED),
        el(PLAN_SEQUENCE, el(ITEM), length=UNDEFINED),
        el(PLAN_SEQUENCE, el(ITEM) + el(SEQUENCE_END, b"1234"), length=UNDEFINED),
        el(PLAN_SEQUENCE, el(ITEM) + el(SEQUENCE_END)),
        el(PLAN_SEQUENCE, el(ITEM), length=40),
        el(0x00091001, el(ITEM) + el(SEQUENCE_END), length=UNDEFINED),
        nested(17),
        nested(5000),
        el(0x00080005, b"ISO-IR 100"),
        el(0x00080005, b"hex "),
        el(0x00080005, b" ISO_IR 100 "),
        el(0x00080005, b"ISO_IR 192\\ISO_IR 100 "),
        el(PLAN_SEQUENCE, el(ITEM, el(0x00080005, b"ISO-IR 100"))),
        el(0x00280103, b"\1\0"),
        el(0x00091001),
        el(0x76543210),
        el(0x00283006),
        el(0x00280106),
    ],
)
def test_what_is_odd_is_left_to_pydicom(encoded):
    assert answer_of(encoded, implicit_vr=True) is None


@pytest.mark.parametrize(
    "encoded",
    [
        el(PATIENT_ID, b"AB"),
        ex(PATIENT_ID, b"LO", b"AB") + el(UID, b"1.2\0"),
        ex(PATIENT_ID, b"lo", b"AB"),
        ex(PATIENT_ID, b"ZZ", b"AB"),
        ex(PATIENT_ID, b"LO", b"AB", length=4),
        ex(COMMENTS, b"UN", b"AB", length=UNDEFINED),
        ex(PLAN_SEQUENCE, b"UN", el(ITEM)),
        ex(PLAN_SEQUENCE, b"UN"),
        ex(PLAN_SEQUENCE, b"SQ", el(ITEM, el(UID, b"1.2\0"))),
        ex(PLAN_SEQUENCE, b"SQ", el(ITEM, ex(UID, b"UI", b"1.2\0"), length=UNDEFINED)),
        ex(PLAN_SEQUENCE, b"SQ", el(ITEM, ex(UID, b"UI", b"1.2\0")) + el(ITEM_END)),
        ex(0x00091001, b"SQ", el(ITEM)),
        ex(0x00091001, b"OB"),
        ex(0x00080005, b"LO", b"ISO_IR 100"),
        ex(0x00280103, b"US", b"\1\0"),
        ex(COMMENTS, b"OB", b"AB")[:10],
    ],
)
def test_what_is_odd_in_explicit_vr_is_left_to_pydicom(encoded):
    assert answer_of(encoded, implicit_vr=False) is None


def test_clean_elements_of_the_same_kinds_are_understood():
    """Not the elements of the lists above are odd, but what is done to them."""
    plain = (
        (el(0x00080005, b"ISO 2022 IR 6\\ISO 2022 IR 87 ") + el(COMMENTS) + el(UID, b"x" * 0x4000) + nested(16))
        + el(0x00091001, b"\1")
        + el(0x76543210, b"\1")
    )
    assert len(answer_of(plain, implicit_vr=True).contents) == 6
    explicit = (
        ex(COMMENTS, b"UN", b"AB")
        + ex(PLAN_SEQUENCE, b"SQ", el(ITEM, ex(UID, b"UI", b"1.2\0")))
        + ex(0x00091001, b"OB", b"A")
    )
    assert len(answer_of(explicit, implicit_vr=False).contents) == 3


@pytest.mark.parametrize("name", python_encoding)
def test_each_character_set_of_the_standard_is_understood(name):
    value = name.encode() + b" " * (len(name) % 2)
    assert isinstance(answer_of(el(0x00080005, value) + el(PATIENT_ID, b"A "), implicit_vr=True), Answer)


def test_a_peer_that_invents_tags_fills_no_memory(monkeypatch):
    monkeypatch.setattr(answers, "_KNOWN_TAGS_BOUND", 64)
    monkeypatch.setattr(answers, "_KINDS", answers._Kinds())
    answer = answer_of(b"".join(el(0x20010000 + number, b"AB") for number in range(1, 500)), implicit_vr=True)
    assert len(answer.contents) == 499
    assert len(answers._KINDS) <= 64
