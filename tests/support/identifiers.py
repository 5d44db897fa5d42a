"""Searching for identifiers of patients, in the forms in which they could leak (semantics 33)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote


def forms_of(patient_id: str, name: str) -> Iterator[bytes]:
    """Yield an ID, and each component of a name, in UTF-8, Latin-1, URL, JSON and base64 forms.

    :param name: a PN value, groups separated by ``=`` and components by ``^``.
    """
    components = [part for part in re.split(r"[=^ ]", name) if part]
    for text in (patient_id, *components):
        for word in {text, text.upper(), text.lower()}:
            # Two ASCII letters are everywhere; two ideographs, or a name of three letters as a word, are a name.
            if len(word) < 3 and word.isascii():
                continue
            yield word.encode()
            yield word.encode("latin-1", "ignore")
            yield quote(word).encode()
            yield word.encode("unicode_escape")
            if len(word.encode()) >= 6:
                # The last group depends on what follows.
                yield base64.b64encode(word.encode()).rstrip(b"=")[:-1]


def found_in(content: bytes, words: Iterable[bytes]) -> list[bytes]:
    """Return the words that occur in some bytes, short ones only as whole words."""
    return sorted({word for word in words if len(word) >= 3 and _occurs(word, content)})


def _occurs(word: bytes, content: bytes) -> bool:
    if word not in content:
        return False
    if len(word) > 4 and not word.isdigit():
        return True
    return re.search(rb"(?<![0-9A-Za-z.])" + re.escape(word) + rb"(?![0-9A-Za-z.])", content) is not None
