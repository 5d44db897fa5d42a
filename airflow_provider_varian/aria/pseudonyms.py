"""A name for a patient that says who belongs together, and not who it is. Standard library only.

Not a hash of the Patient ID: that can be guessed back. It is keyed by a random number that lies in the destination
beside the objects themselves; an index that leaves the destination says nothing without it.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

_DIGITS: Final = 10


def patient_pseudonym(key: str, site: str, patient_id: str) -> str:
    """Return the pseudonym of a patient, the same in every run with one destination.

    :param key: the random number of the destination.
    :param site: where the ID is of: the same ID at another site is another patient.
    :param patient_id: Patient ID (0010,0020).
    """
    message = "\0".join(("patient", site, patient_id.strip())).encode()
    return "P-" + hmac.new(key.encode(), message, hashlib.sha256).hexdigest()[:_DIGITS]
