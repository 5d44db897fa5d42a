from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.dsutils import decode, encode
from support.simulated import Client, peer_of, receiving, trusted

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.daemon import character_sets
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.holdings.data_directory import DataDirectory


def through_the_wire(character_set):
    ds = Dataset()
    ds.PatientName = "Müller^Jürgen=王^小东"
    ds.StudyDescription = "Łódź\\Köln"
    item = Dataset()
    item.BeamName = "Fëld 王"
    ds.BeamSequence = [item]
    return encode(character_sets.apply(ds, character_set), True, True)


def test_unicode_carries_every_script():
    ds = decode(BytesIO(through_the_wire("ISO_IR 192")), True, True)
    assert str(ds.PatientName) == "Müller^Jürgen=王^小东"
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert ds.BeamSequence[0].BeamName == "Fëld 王"


def test_latin_1_keeps_what_fits_and_names_itself():
    ds = decode(BytesIO(through_the_wire("ISO_IR 100")), True, True)
    assert ds.SpecificCharacterSet == "ISO_IR 100"
    assert str(ds.PatientName) == "Müller^Jürgen"
    assert list(ds.StudyDescription) == ["?ód?", "Köln"]
    assert ds.BeamSequence[0].BeamName == "Fëld ?"


def test_no_character_set_is_named_when_none_is_wanted():
    content = through_the_wire("")
    ds = decode(BytesIO(content), True, True)
    assert "SpecificCharacterSet" not in ds
    assert "Müller^Jürgen".encode("latin-1") in content


@pytest.mark.parametrize("character_set", ["ISO_IR 192", "ISO_IR 100", ""])
def test_an_empty_value_stays_empty(character_set):
    ds = Dataset()
    ds.PatientName = ""
    ds.StudyID = None
    assert character_sets.apply(ds, character_set).PatientName == ""


def written(character_set, item_character_set=None, deepest="tief ü"):
    """Return a file with text at its top, in an item, and in an item of that."""
    inner, item, ds = Dataset(), Dataset(), Dataset()
    inner.CodeMeaning = deepest
    if item_character_set:
        item.SpecificCharacterSet = item_character_set
    item.PersonName, item.LongCodeValue, item.ConceptNameCodeSequence = "Öz^Ürs", "Größe", [inner]
    ds.SpecificCharacterSet = character_set
    ds.SOPClassUID, ds.SOPInstanceUID = uids.CT_IMAGE, "1.2.3.4.1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.PatientID = "1.2.3", "1.2.3.4", "P1"
    ds.PatientName, ds.Modality = "Müller^Jürgen", "CT"
    ds.RequestAttributesSequence = [item]
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    content = BytesIO()
    ds.save_as(content, enforce_file_format=True)
    return content.getvalue()


def texts(ds):
    item = ds.RequestAttributesSequence[0]
    return [str(ds.PatientName), str(item.PersonName), item.LongCodeValue, item.ConceptNameCodeSequence[0].CodeMeaning]


@pytest.mark.parametrize("own", ["ISO_IR 100", "ISO_IR 192", "ISO_IR 148"])
@pytest.mark.parametrize("item_own", [None, "ISO_IR 100", "ISO_IR 192"])
@pytest.mark.parametrize("character_set", ["ISO_IR 192", "ISO_IR 100"])
def test_a_file_has_its_text_in_sequences_in_the_new_character_set(own, item_own, character_set):
    ds = character_sets.apply(dcmread(BytesIO(written(own, item_own))), character_set)
    content = encode(ds, True, True)
    assert texts(decode(BytesIO(content), True, True)) == ["Müller^Jürgen", "Öz^Ürs", "Größe", "tief ü"]
    in_items = "tief ü".encode("utf-8" if (item_own or character_set) == "ISO_IR 192" else "latin-1")
    assert in_items in content


@pytest.mark.parametrize("order", [("ISO_IR 100", "ISO_IR 192"), ("ISO_IR 192", "ISO_IR 100", "ISO_IR 192")])
def test_one_client_does_not_change_the_text_of_another(tmp_path, order):
    (tmp_path / "1.dcm").write_bytes(written("ISO_IR 192", deepest="tief 王"))
    with receiving() as receiver, SimulatedDaemon(DataDirectory(tmp_path)) as daemon:
        client = Client(peer_of(daemon))
        for character_set in order:
            daemon.trust([trusted(receiver.port, character_set=character_set)])
            (row,) = client.find("IMAGE", SOPInstanceUID="1.2.3.4.1", PatientName="", RequestAttributesSequence=[])
            assert client.move("IMAGE", SOPInstanceUID="1.2.3.4.1").completed == 1
            expected = "tief ?" if character_set == "ISO_IR 100" else "tief 王"
            for each in (row, receiver.stored[-1].dataset):
                assert each.SpecificCharacterSet == character_set
                assert texts(each) == ["Müller^Jürgen", "Öz^Ürs", "Größe", expected]
