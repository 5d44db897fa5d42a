"""The search for identifiers proves itself: what is planted is found, in each form in which it could leak."""

from __future__ import annotations

import base64
import json

import pytest
from support.identifiers import forms_of, found_in

NAME = "Müller^Jürgen=山田^勇次"
WORDS = set(forms_of("123456", NAME))
XCOM = json.dumps({"note": "seen by Müller"})

PLANTED = {
    "UTF-8": "Jürgen".encode(),
    "Latin-1": "Müller".encode("latin-1"),
    "capitals": "MÜLLER".encode(),
    "URL": b"M%C3%BCller",
    "repr": ascii("Müller").encode(),
    "JSON": json.dumps("Müller").encode(),
    "JSON of ideographs": json.dumps("勇次").encode(),
    "JSON, upper hex": json.dumps("Müller").replace("\\u00fc", "\\u00FC").encode(),
    "JSON within JSON": json.dumps({"xcom": XCOM}).encode(),
    "JSON with UTF-8": json.dumps("山田", ensure_ascii=False).encode(),
    "an ID among others": b'{"ids": ["98", "123456"]}',
}


@pytest.mark.parametrize("form", PLANTED)
def test_what_is_planted_is_found(form):
    assert found_in(b"before " + PLANTED[form] + b" behind", WORDS), PLANTED[form]


@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("planted", ["Müller", "123456", "山田"])
def test_base64_is_found_wherever_it_begins(before, planted):
    text = "." * before + planted + " behind"
    assert found_in(base64.b64encode(text.encode()), WORDS), text


def test_nobody_is_found_where_nobody_is_named():
    assert found_in(b"nobody is named here; 1.2.123456.7 is a UID", WORDS) == []
