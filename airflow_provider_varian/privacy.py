"""What may be said about a query, and how rows are named without saying whose they are.

Logs, error messages and XCom tell the *names* of DICOM keys, never their values (semantics 26, 33).
Standard library only.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import Final

# Words that peers use about themselves. A comment of a peer (0000,0902) is free text: Varian's names
# plans in it, others patients. What is not in this list is not repeated.
_HARMLESS_WORDS: Final = """
    a abort aborted access ae aet all allowed already an and are at attribute attributes available be beam been
    before by c can cancel cancelled cannot cause class classes closed code command configured connect connected
    connection contain contains context control cstore cfind cget cmove could data database dataset db dcm
    denied destination dicom did dimse disabled disk does dose due during element empty encode entity error
    exceeded exception exist exists expected export exported fail failed failure file files find for found from
    full get handle has have host id identifier ids image images in incomplete inconsistent instance instances
    internal invalid is item key keys known level license limit locked lost many match matched matches matching
    memory message missing model more move multiple must name network no none not null number object objects of
    on one only open operation operations or out output parameter parse patient pending plan port presentation
    process processing query queue read received record records refused rejected released relational request
    required resource resources response result results retrieve returned root rt scp scu security send sent
    sequence series server service set session sop space sql status stop storage store structure study sub
    suboperation suboperations successful support supported syntax system tag temporarily than that the their
    there this time timed timeout title to too transaction transfer type uid unable unavailable unexpected
    unique unknown unspecified unsupported valid value values version was were when while with without write
"""
_HARMLESS: Final = frozenset(_HARMLESS_WORDS.split())
_WORD: Final = re.compile(r"[^\s.,:;()\-]+")
_WITHHELD: Final = "…"


def key_names(keywords: Iterable[str]) -> str:
    """Name the keys of a query for a log or a message, without their values.

    :param keywords: DICOM keywords, e.g. a query mapping.
    :return: the keywords in alphabetical order, ``"Modality, PatientID"``; ``"no keys"`` when empty.
    """
    return ", ".join(sorted(keywords)) or "no keys"


def row_key() -> str:
    """Return an opaque random key for one row of a stored answer, 16 hexadecimal digits.

    It is random, not a hash: a hash of a patient ID can be guessed back.
    """
    return secrets.token_hex(8)


def harmless(comment: str) -> str:
    """Return a peer's free text with all but well-known technical words replaced by ``…``.

    Error Comment (0000,0902) may name a patient or a plan; the technical part is worth telling.

    :param comment: text as the peer sent it.
    :return: what may be repeated of its first 64 characters; empty when nothing harmless is in it.
    """
    said = _WORD.sub(lambda found: found[0] if found[0].lower() in _HARMLESS else _WITHHELD, comment[:64])
    said = re.sub(rf"{_WITHHELD}(?:\s+{_WITHHELD})+", _WITHHELD, said).strip()
    return said if re.search(r"[A-Za-z]", said) else ""
