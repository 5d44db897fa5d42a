"""UIDs that this package names, as plain strings.

The Airflow face may use them without importing pydicom or pynetdicom. Values: PS3.6 Annex A, and
the private classes of Varian's conformance statements.
"""

from __future__ import annotations

import re
from functools import lru_cache
from types import MappingProxyType
from typing import Final

#: What we call ourselves in associations and in files (PS3.7 D.3.3.2). The UID is a random UUID's.
IMPLEMENTATION_CLASS_UID: Final = "2.25.246822112416052257385720177974909728917"
IMPLEMENTATION_VERSION_NAME: Final = "AIRFLOW_VARIAN"

VERIFICATION: Final = "1.2.840.10008.1.1"

IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"

#: What we are willing to receive that is compressed; never deflated (semantics: design 6).
COMPRESSED_TRANSFER_SYNTAXES: Final = (
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline
    "1.2.840.10008.1.2.4.51",  # JPEG Extended
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.5",  # RLE Lossless
)
UNCOMPRESSED_TRANSFER_SYNTAXES: Final = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)

PATIENT_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.1.1"
PATIENT_ROOT_MOVE: Final = "1.2.840.10008.5.1.4.1.2.1.2"
PATIENT_ROOT_GET: Final = "1.2.840.10008.5.1.4.1.2.1.3"
STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE: Final = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET: Final = "1.2.840.10008.5.1.4.1.2.2.3"

CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.4"
PET_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.128"
CR_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.1"
SECONDARY_CAPTURE_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.7"
SPATIAL_REGISTRATION: Final = "1.2.840.10008.5.1.4.1.1.66.1"
RT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.481.1"
RT_DOSE: Final = "1.2.840.10008.5.1.4.1.1.481.2"
RT_STRUCTURE_SET: Final = "1.2.840.10008.5.1.4.1.1.481.3"
RT_BEAMS_TREATMENT_RECORD: Final = "1.2.840.10008.5.1.4.1.1.481.4"
RT_PLAN: Final = "1.2.840.10008.5.1.4.1.1.481.5"
RT_BRACHY_TREATMENT_RECORD: Final = "1.2.840.10008.5.1.4.1.1.481.6"
RT_TREATMENT_SUMMARY_RECORD: Final = "1.2.840.10008.5.1.4.1.1.481.7"
RT_ION_PLAN: Final = "1.2.840.10008.5.1.4.1.1.481.8"
RT_ION_BEAMS_TREATMENT_RECORD: Final = "1.2.840.10008.5.1.4.1.1.481.9"

#: Private classes that ARIA holds (varian-daemon 1.2): a receiver that refuses them loses objects.
VARIAN_HALCYON_RT_PLAN: Final = "1.2.246.352.70.1.70"
VARIAN_MOTION_MANAGEMENT: Final = "1.2.246.352.70.1.40"
VARIAN_LONG_TERM_ARCHIVE_RECORD: Final = "1.2.246.352.70.1.10"

#: Storage classes whose objects may change under the same SOP Instance UID: approval, contours (semantics 9).
CHANGING_STORAGE: Final = frozenset({RT_PLAN, RT_ION_PLAN, RT_STRUCTURE_SET, RT_DOSE, VARIAN_HALCYON_RT_PLAN})

#: Storage classes of a radiotherapy department, offered first when 128 contexts must do.
RADIOTHERAPY_STORAGE: Final = (
    RT_IMAGE,
    RT_DOSE,
    RT_STRUCTURE_SET,
    RT_BEAMS_TREATMENT_RECORD,
    RT_PLAN,
    RT_BRACHY_TREATMENT_RECORD,
    RT_TREATMENT_SUMMARY_RECORD,
    RT_ION_PLAN,
    RT_ION_BEAMS_TREATMENT_RECORD,
    CT_IMAGE,
    MR_IMAGE,
    PET_IMAGE,
    CR_IMAGE,
    SECONDARY_CAPTURE_IMAGE,
    SPATIAL_REGISTRATION,
    VARIAN_HALCYON_RT_PLAN,
    VARIAN_MOTION_MANAGEMENT,
    VARIAN_LONG_TERM_ARCHIVE_RECORD,
)

#: SOP classes in which a modality (0008,0060) may come, for choosing what to offer in a C-GET.
STORAGE_BY_MODALITY: Final = MappingProxyType(
    {
        "RTIMAGE": (RT_IMAGE,),
        "RTDOSE": (RT_DOSE,),
        "RTSTRUCT": (RT_STRUCTURE_SET,),
        "RTPLAN": (RT_PLAN, RT_ION_PLAN, VARIAN_HALCYON_RT_PLAN),
        "RTRECORD": (
            RT_BEAMS_TREATMENT_RECORD,
            RT_BRACHY_TREATMENT_RECORD,
            RT_TREATMENT_SUMMARY_RECORD,
            RT_ION_BEAMS_TREATMENT_RECORD,
        ),
        "CT": (CT_IMAGE,),
        "MR": (MR_IMAGE,),
        "PT": (PET_IMAGE,),
        "CR": (CR_IMAGE,),
        "OT": (SECONDARY_CAPTURE_IMAGE,),
        "REG": (SPATIAL_REGISTRATION,),
    }
)

# PS3.5 9.1 asks for no leading zeros; ARIA has written such components (varian-daemon 1.5), so
# they are let through: what must hold for a file name is the alphabet and the length.
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")


def is_uid(value: str) -> bool:
    """Say whether a text can stand as a UID (PS3.5 9.1): digits and single dots, 1 to 64 characters."""
    return 0 < len(value) <= 64 and _is_uid(value)


# Whoever takes an object in asks it of the same few UIDs, each at its own door.
@lru_cache(maxsize=1024)
def _is_uid(value: str) -> bool:
    return _UID.fullmatch(value) is not None
