"""dicom3tools' validator, and the errors of its that are none, each with its source."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_varian import uids


@dataclass(frozen=True)
class Allowed:
    """An error that is let through.

    :param sop_class_uid: of the objects in which it is.
    :param pattern: the whole line.
    :param source: why the object is right, or why it is wrong on purpose.
    :param kind: what the object has to be, see :attr:`support.cases.Made.kind`; empty: any of the class.
    """

    sop_class_uid: str
    pattern: str
    source: str
    kind: str = ""


ALLOWED = (
    Allowed(
        uids.RT_IMAGE,
        r"Error - Attribute present when condition unsatisfied \(which may not be present otherwise\) Type 2C "
        r"Conditional Element=<(KVP|ExposureTime|MetersetExposure|XRayTubeCurrent)> Module=<RTImage>",
        "PS3.3 C.8.8.2 wants these in the Exposure Sequence when Image Type value 3 is PORTAL, which it is (and "
        "varian-daemon 1.6 has them); dciodvfy looks for Image Type inside the item, where it never stands",
    ),
    Allowed(
        uids.RT_BEAMS_TREATMENT_RECORD,
        r"Error - Unrecognized enumerated value <VERIFIED> for value 1 of attribute <Treatment Verification Status>",
        "PS3.3 C.8.8.21 enumerates VERIFIED, VERIFIED_OVR and NOT_VERIFIED; dciodvfy's list lacks the first and "
        "misspells the last",
    ),
    Allowed(
        uids.VARIAN_HALCYON_RT_PLAN,
        r"Error - Information Object Not found",
        "a private class of Varian's (varian-daemon 1.2); its content is checked under the standard class",
    ),
    Allowed(
        uids.RT_PLAN,
        r"Error - Empty attribute \(no value\) Type 1 Required Element=<BeamSequence> Module=<RTBeams>",
        "ARIA holds plans with an empty Beam Sequence and fails to export them (varian-daemon 1.4, 4.12)",
        kind="plan without beams",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What the validator said of a file.

    :param errors: lines that nothing allows.
    :param used: what was let through.
    """

    errors: list[str]
    used: set[Allowed]


def judge(program: str, path: Path, sop_class_uid: str, kind: str = "") -> Verdict:
    """Run ``dciodvfy`` on a file; a crash, or any other end than its own verdict, is an error too.

    :param kind: what the object is; without it, nothing is let through that only one kind may have.
    """
    result = subprocess.run([program, str(path)], capture_output=True, check=False, timeout=60)
    lines = (result.stdout + result.stderr).decode("utf-8", "replace").splitlines()
    errors: list[str] = []
    used: set[Allowed] = set()
    for_this = [each for each in ALLOWED if each.sop_class_uid == sop_class_uid and each.kind in ("", kind)]
    for line in lines:
        if not line.startswith("Error"):
            continue
        fitting = [each for each in for_this if re.fullmatch(each.pattern, line)]
        used.update(fitting)
        if not fitting:
            errors.append(line)
    if result.returncode not in (0, 1):
        errors.append(f"exit status {result.returncode}")
    return Verdict(errors, used)
