"""The mapping that our codec's answer gives is the one that pydicom's data set gives, whatever comes."""

from __future__ import annotations

import gc
import json
import random
import struct
from io import BytesIO
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import config
from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode
from pynetdicom.presentation import build_context
from support.encoded_answers import Writer, mutated
from support.scripted_peer import PENDING, dataset
from support.simulated import UNTIL, peer_of, trusted

from airflow_provider_varian import uids
from airflow_provider_varian.aria.profile import GENERIC
from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.answers import Answer, answer_of
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.exchange import Exchange
from airflow_provider_varian.dimse.find import iter_matches
from airflow_provider_varian.dimse.quiet import silence
from airflow_provider_varian.errors import PeerFailureError
from airflow_provider_varian.query.answers import AnswerReader, to_answer
from airflow_provider_varian.query.asking import unique_value
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.query import Exact, Query
from airflow_provider_varian.query.values import python_encodings
from airflow_provider_varian.query.walk import _copied, _handed_down
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

ASSUMED = [(), python_encodings(("ISO_IR 192",)), python_encodings(("", "ISO 2022 IR 87"))]
SEEDS = st.integers(0, 2**32)
#: Each example makes several data sets; the order of the examples is always the same.
MANY = settings(max_examples=250, deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def quiet():
    """As before each association: pydicom looks at no value on its own."""
    silence()


def running(implicit):
    """What of an exchange decoding needs."""
    syntax = uids.IMPLICIT_VR_LITTLE_ENDIAN if implicit else uids.EXPLICIT_VR_LITTLE_ENDIAN
    made = object.__new__(Exchange)
    made.association = SimpleNamespace(peer=SimpleNamespace(name="VMSDBD@127.0.0.1:1"))
    made.step, made.context = "C-FIND", build_context(uids.STUDY_ROOT_FIND, [syntax])
    return made


def encode_raw(tag, value):
    return (
        (tag >> 16).to_bytes(2, "little")
        + (tag & 0xFFFF).to_bytes(2, "little")
        + len(value).to_bytes(4, "little")
        + value
    )


NAMED = encode_raw(0x00100010, "王^小东 ".encode()) + encode_raw(0x00104000, b"x")


def by_pydicom(encoded, implicit, assumed):
    try:
        return to_answer(running(implicit).decode(BytesIO(encoded)), assumed)
    except PeerFailureError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore:::pydicom")
@pytest.mark.filterwarnings("ignore:::airflow_provider_varian")
@given(SEEDS, st.booleans(), st.sampled_from(ASSUMED))
@MANY
def test_any_answer_gives_the_same_mapping(seed, implicit, assumed):
    encoded = Writer(random.Random(seed), implicit=implicit).data_set()
    answer = answer_of(encoded, implicit_vr=implicit)
    if answer is not None:
        # Their order too, and 1 is not 1.0.
        assert json.dumps(to_answer(answer, assumed)) == json.dumps(by_pydicom(encoded, implicit, assumed))


@pytest.mark.filterwarnings("ignore:::pydicom")
@given(SEEDS, st.booleans(), st.sampled_from(ASSUMED))
@MANY
def test_what_was_damaged_on_the_way_is_understood_alike_or_left_to_pydicom(seed, implicit, assumed):
    chance = random.Random(seed)
    encoded = Writer(chance, implicit=implicit).data_set()
    for _ in range(3):
        damaged = mutated(encoded, chance)
        answer = answer_of(damaged, implicit_vr=implicit)
        if answer is not None:
            assert json.dumps(to_answer(answer, assumed)) == json.dumps(by_pydicom(damaged, implicit, assumed))


def test_enough_of_what_is_drawn_is_understood():
    """Else the tests above would show nothing."""
    whole = damaged = 0
    for seed in range(300):
        chance = random.Random(seed)
        implicit = seed % 2 == 0
        encoded = Writer(chance, implicit=implicit).data_set()
        whole += answer_of(encoded, implicit_vr=implicit) is not None
        damaged += answer_of(mutated(encoded, chance), implicit_vr=implicit) is not None
    assert whole > 200
    assert damaged > 30


KEYS = {
    "STUDY": (
        "StudyDate",
        "StudyTime",
        "StudyID",
        "StudyDescription",
        "ModalitiesInStudy",
        "PatientName",
        "PatientSex",
    ),
    "SERIES": ("Modality", "SeriesNumber", "SeriesDescription", "SeriesDate", "NumberOfSeriesRelatedInstances"),
    "IMAGE": (
        *("SOPClassUID", "InstanceNumber", "AcquisitionDate", "AcquisitionTime", "ImageType", "RTPlanLabel", "Rows"),
        *("ApprovalStatus", "ReviewDate", "PatientName", "ReferencedBeamNumber", "GantryAngle", "PatientComments"),
        *("ReferencedRTPlanSequence", "BeamSequence", "FractionGroupSequence", "TableTopVerticalPosition"),
    ),
}


def test_everything_that_the_simulator_answers_is_understood_and_read_alike():
    clinic = Clinic(seed=1, patients=3, days=1, until=UNTIL, matrix=16)
    rows = []
    with SimulatedDaemon(clinic, trusted=[trusted()]) as daemon:
        model = uids.PATIENT_ROOT_FIND
        with associate(peer_of(daemon), contexts.find(model), step="C-FIND") as association:
            everybody = Query.build("PATIENT", {"PatientName": None, "PatientBirthDate": None}).identifier()
            rows += iter_matches(association, model, everybody)
            for patient in [to_answer(row.answer)["PatientID"] for row in rows]:
                for level, keywords in KEYS.items():
                    query = Query.build(level, dict.fromkeys(keywords) | {"PatientID": Exact(patient)})
                    rows += iter_matches(association, model, query.identifier())
    assert len(rows) > 100
    for row in rows:
        assert isinstance(row.answer, Answer)
        assert json.dumps(to_answer(row.answer)) == json.dumps(to_answer(row.identifier))
    assert any(to_answer(row.answer).get("ReferencedRTPlanSequence") for row in rows)
    assert any(not str(to_answer(row.answer).get("PatientName")).isascii() for row in rows)


CONDITIONS = [
    {"PatientID": "QA_*"},
    {"PatientID": "QA_TB_WL", "Modality": "RTPLAN"},
    {"PatientName": "MUELLER*"},
    {"PatientName": "*Jürg*", "StudyDate": ("20260101", None)},
    {"StudyDate": "20260102", "StudyTime": ("0600", "1200")},
    {"StudyInstanceUID": ["1.2.3", "1.2.4"]},
    {"ReferencedRTPlanSequence": {"ReferencedSOPInstanceUID": "1.2.3"}},
    {"GantryAngle": "90", "ImageType": ["ORIGINAL", "PRIMARY"]},
]
VALUES = {
    "PatientID": ["QA_TB_WL", "other", "", "QA_TB_WL "],
    "PatientName": ["Müller^Jürg", "Mueller^Jurg=王", ""],
    "Modality": ["RTPLAN", "RTIMAGE"],
    "StudyDate": ["20260102", "20250102", "soon", ""],
    "StudyTime": ["0930", "1730", ""],
    "StudyInstanceUID": ["1.2.3", "1.2.5"],
    "GantryAngle": ["90.0", "91", ""],
    "ImageType": [["ORIGINAL", "PRIMARY"], ["ORIGINAL", "SECONDARY"], ""],
}


@pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "explicit"])
def test_a_key_says_the_same_of_both(implicit):
    chance, said = random.Random(7), set()
    for keys in CONDITIONS:
        matcher = Query.build("IMAGE", keys).matcher()
        for _ in range(40):
            made, item = Dataset(), Dataset()
            made.SpecificCharacterSet = chance.choice(["ISO_IR 192", "GB18030"])
            for keyword, values in VALUES.items():
                if chance.random() < 0.9:
                    setattr(made, keyword, chance.choice(values))
            item.ReferencedSOPInstanceUID = chance.choice(["1.2.3", "1.2.5"])
            made.ReferencedRTPlanSequence = [item] if chance.random() < 0.7 else []
            answer = answer_of(encode(made, implicit, True), implicit_vr=implicit)
            verdicts = matcher.verdicts(answer)
            assert verdicts == matcher.verdicts(answer.data_set())
            said |= set(verdicts.values())
    assert len(said) == 3


def test_a_key_remembers_no_verdict_beyond_its_character_set():
    """The same bytes are two names in two character sets."""
    matcher = Query.build("STUDY", {"PatientName": "Müller"}).matcher()
    for name, expected in (("ISO_IR 100", "miss"), ("ISO_IR 192", "match"), ("ISO_IR 100", "miss")):
        encoded = encode_raw(0x00080005, name.encode()) + encode_raw(0x00100010, "Müller ".encode())
        assert matcher.match(answer_of(encoded, implicit_vr=True)) == expected


def test_a_key_remembers_few_values_and_none_that_are_long():
    matcher = Query.build("STUDY", {"PatientID": "0*", "PatientComments": "x"}).matcher()
    for number in range(1500):
        encoded = encode_raw(0x00100020, f"{number:06}".encode()) + encode_raw(0x00104000, b"x" * 100)
        matcher.match(answer_of(encoded, implicit_vr=True))
    remembered = [test.said for test in matcher._tests.values()]
    assert sorted(len(said) > 0 for said in remembered) == [False, True]
    assert max(map(len, remembered)) <= 1024


def test_what_upper_levels_said_fills_an_answer_of_either_kind():
    upper = answer_of(
        encode_raw(0x00080005, b"ISO_IR 100") + encode_raw(0x00100010, "Müller".encode("latin-1")), implicit_vr=True
    )
    above = _copied(upper, Dataset(), ())
    assert above == _copied(upper.data_set(), Dataset(), ())
    row = answer_of(encode_raw(0x00100010, b"") + encode_raw(0x0020000D, b"1.2\0"), implicit_vr=True)
    filled = _handed_down(row, above)
    assert to_answer(filled) == {"PatientName": "Müller", "StudyInstanceUID": "1.2"}
    assert to_answer(_handed_down(row.data_set(), above)) == to_answer(filled)
    own = answer_of(encode_raw(0x00100010, b"Own "), implicit_vr=True)
    assert _handed_down(own, above) is own


@pytest.mark.parametrize("name", ["hex", "idna", "undefined", "zlib", "unicode_escape"])
def test_a_codec_of_pythons_that_reads_no_text_is_no_character_set(name):
    encoded = encode_raw(0x00080005, name.encode()) + encode_raw(0x00081030, b"A\xdf\\!")
    for assumed in ((), python_encodings((name,))):
        assert by_pydicom(encoded, True, assumed) == {"StudyDescription": ["Aß", "!"]}


def test_odd_text_is_read_also_where_pydicom_was_told_to_raise(monkeypatch):
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.RAISE)
    encoded = encode_raw(0x00081030, b"A\x1b$Zdd\xdf")
    assert to_answer(answer_of(encoded, implicit_vr=True)) == {"StudyDescription": "A\x1b$Zddß"}


def test_a_backslash_is_text_where_there_is_one_value():
    encoded = encode_raw(0x00104000, b" A\\B ") + encode_raw(0x00081030, b"A \\B ")
    answer = answer_of(encoded, implicit_vr=True)
    assert to_answer(answer) == {"StudyDescription": ["A", "B"], "PatientComments": " A\\B"}


def test_numbers_that_are_left_out_among_several_are_none():
    encoded = encode_raw(0x300A011E, b"1\\ \\2.5\\x ") + encode_raw(0x00200013, b"\\1")
    expected = {"InstanceNumber": [None, 1], "GantryAngle": [1.0, None, 2.5, "x"]}
    answer = answer_of(encoded, implicit_vr=True)
    assert to_answer(answer) == to_answer(answer.data_set()) == expected


def test_a_number_of_any_length_is_one():
    encoded = encode_raw(0x00200013, b"9" * 400) + encode_raw(0x300A011E, b"9" * 400)
    assert to_answer(answer_of(encoded, implicit_vr=True)) == {
        "InstanceNumber": int("9" * 400),
        "GantryAngle": "9" * 400,
    }


def test_what_repeats_in_a_list_is_read_as_each_answer_has_it():
    rows = []
    for number in range(200):
        chance = random.Random(number % 90)
        implicit = number % 3 > 0
        encoded = Writer(chance, implicit=implicit).data_set()
        rows += [
            answer_of(encoded, implicit_vr=implicit),
            answer_of(encode_raw(0x00080005, b"GB18030 "[: 8 * (number % 2)]) + NAMED, implicit_vr=True),
            answer_of(NAMED, implicit_vr=True).data_set(),
        ]
    for assumed in ASSUMED:
        reader = AnswerReader(assumed)
        for row in rows:
            if row is not None:
                assert json.dumps(reader.read(row)) == json.dumps(to_answer(row, assumed))


def test_the_same_bytes_with_another_vr_are_read_by_that():
    reader = AnswerReader()
    number = struct.pack("<HH", 0x0020, 0x0013)
    rows = [
        answer_of(encode_raw(0x00200013, b"7 "), implicit_vr=True),
        *(answer_of(number + vr + b"\2\0" + b"7 ", implicit_vr=False) for vr in (b"LO", b"IS", b"LO")),
        answer_of(encode_raw(0x00200013, b"7 "), implicit_vr=True),
    ]
    assert [reader.read(row)["InstanceNumber"] for row in rows] == [7, "7", 7, "7", 7]


def test_the_lists_of_two_mappings_are_two():
    encoded = encode_raw(0x00080061, b"CT\\MR ")
    reader = AnswerReader()
    first, second = (reader.read(answer_of(encoded, implicit_vr=True)) for _ in range(2))
    first["ModalitiesInStudy"].append("RTPLAN")
    assert second == {"ModalitiesInStudy": ["CT", "MR"]}


def test_little_is_remembered_of_a_list():
    reader = AnswerReader()
    for number in range(600):
        encoded = encode_raw(0x20010000 + number + 1, b"x") + encode_raw(0x00104000, b"x" * 100)
        reader.read(answer_of(encoded, implicit_vr=True))
    assert 200 < len(reader._seen) <= 256
    assert 0x00104000 not in reader._seen


def test_of_a_long_list_the_mappings_alone_are_kept(scripted):
    scripted.script = lambda request: ((PENDING, dataset(StudyInstanceUID=f"1.2.{number}")) for number in range(300))
    with FindSession(scripted.peer(), profile=GENERIC) as session:
        result = session.find(Query.build("STUDY", {"PatientID": None}))
        assert len(result.answers) == 300
        assert alive() == 0
        most = 0
        for answer in session.iter_find(Query.build("STUDY", {"PatientID": None})):
            most = max(most, alive()) if answer["StudyInstanceUID"].endswith("00") else most
        assert most <= 2


def alive():
    """Answers that somebody still holds."""
    # By its type: to ask others for their class wakes what is imported lazily.
    return sum(type(each) is Answer for each in gc.get_objects())


def test_levels_have_unique_keys_of_both_kinds():
    answer = answer_of(encode_raw(0x00100020, b"QA") + encode_raw(0x0020000D, b"1.2\0"), implicit_vr=True)
    for row in (answer, answer.data_set()):
        assert [unique_value(row, level) for level in Level] == ["QA", "1.2", "", ""]
