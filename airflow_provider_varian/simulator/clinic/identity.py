"""Identities of synthetic objects: UIDs in ARIA's shapes, and the chance behind every value.

Everything that the clinic makes up follows from a seed and from *which* object it is (patient,
course, plan, day, number), never from what was asked first: two daemons with the same seed hold
the same objects. A UID names its patient, so an object is found by its UID without an index.

The roots have the shapes that varian-daemon 1.5 reports. Synthetic objects therefore look like
Varian's; they are for rehearsal and must not be imported into a clinical system.
"""

from __future__ import annotations

import hashlib
import random
from enum import StrEnum
from typing import Final

_SITE_SPAN: Final = 9 * 10**11


class UidRoot(StrEnum):
    """First six components of a UID, by what it identifies (varian-daemon 1.5; the rest made alike)."""

    STUDY = "1.2.246.352.71.1"
    PLAN_SERIES = "1.2.246.352.71.2"
    FRAME_OF_REFERENCE = "1.2.246.352.71.4"
    PLAN = "1.2.246.352.71.5"
    STRUCTURE_SET = "1.2.246.352.71.6"
    DOSE = "1.2.246.352.71.7"
    RECORD = "1.2.246.352.71.8"
    REGISTRATION = "1.2.246.352.71.9"
    IMAGE = "1.2.246.352.62.1"
    IMAGE_SERIES = "1.2.246.352.62.2"


class Identity:
    """UIDs and random draws of one synthetic clinic.

    :param seed: any whole number; clinics of different seeds share no UID (to one in 9e11).
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.site = 10**11 + self.number("site") % _SITE_SPAN

    def number(self, *parts: object) -> int:
        """Return a 64-bit number that depends on seed and parts alone."""
        text = "|".join(str(part) for part in (self.seed, *parts))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")

    def draw(self, *parts: object) -> random.Random:
        """Return a source of random numbers that depends on seed and parts alone."""
        return random.Random(self.number(*parts))

    def uid(self, root: UidRoot, patient: int, *parts: int) -> str:
        """Build the UID of one object of a patient.

        :param root: what the UID identifies.
        :param patient: number of the patient in the clinic, from 0.
        :param parts: what tells the object from others of its kind; whole numbers from 0.
        """
        return ".".join((root.value, str(self.site), str(patient), *(str(part) for part in parts)))

    def patient_of(self, uid: str) -> int | None:
        """Return the number of the patient whose object a UID names; ``None`` when it is not ours."""
        components = uid.split(".")
        if len(components) < 8 or components[6] != str(self.site) or not components[7].isdecimal():
            return None
        return int(components[7])


def with_leading_zero(uid: str) -> str:
    """Return a UID whose last component begins with a zero, as one of Varian's did (varian-daemon 1.5).

    PS3.5 9.1 forbids it; the UID names its patient all the same.
    """
    head, _, last = uid.rpartition(".")
    return f"{head}.0{last}"
