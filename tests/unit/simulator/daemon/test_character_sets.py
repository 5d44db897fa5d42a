from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import Dataset
from pynetdicom.dsutils import decode, encode

from airflow_provider_varian.simulator.daemon import character_sets


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
