"""Searching for identifiers of patients, in the forms in which they could leak (semantics 33)."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")


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
            yield from _json_forms(word)
            yield from _base64_forms(word.encode())


def _json_forms(word: str) -> Iterator[bytes]:
    r"""Yield a word as ASCII-only JSON has it (``\u00fc``, digits in either case), and as JSON within JSON has it."""
    once = json.dumps(word)[1:-1]
    for escaped in (once, _ESCAPE.sub(lambda found: "\\u" + found[1].upper(), once)):
        yield escaped.encode()
        yield json.dumps(escaped)[1:-1].encode()


def _base64_forms(word: bytes) -> Iterator[bytes]:
    """Yield what of a word's base64 depends on no neighbour, for each place in a group of three bytes."""
    if len(word) < 6:
        return
    for before in range(3):
        text = base64.b64encode(bytes(before) + word)
        # A letter is six bits: leave out those that share bits with what stands before or behind.
        yield text[-(-8 * before // 6) : 8 * (before + len(word)) // 6]


def found_in(content: bytes, words: Iterable[bytes]) -> list[bytes]:
    """Return the words that occur in some bytes, short ones only as whole words."""
    return sorted({word for word in words if len(word) >= 3 and _occurs(word, content)})


def _occurs(word: bytes, content: bytes) -> bool:
    if word not in content:
        return False
    if len(word) > 4 and not word.isdigit():
        return True
    return re.search(rb"(?<![0-9A-Za-z.])" + re.escape(word) + rb"(?![0-9A-Za-z.])", content) is not None
