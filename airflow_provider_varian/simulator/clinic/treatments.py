"""What is treated and how: sites with their fractionation, fields and anatomy, as data.

Regions lie around the isocentre, patient axes (x left, y posterior, z head), millimetres, for a person of
usual size; a patient's own are scaled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from airflow_provider_varian.simulator.clinic.case import Region


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """A way to treat a site.

    :param label: usual RTPlanLabel, at most 12 characters.
    :param gantry_angles: of its fields, degrees IEC 61217.
    :param field_mm: width and length of the fields at the isocentre.
    :param meterset: monitor units of a fraction, all fields together.
    :param intent: PlanIntent (300A,000A).
    """

    site: str
    label: str
    fractions: int
    gantry_angles: tuple[float, ...]
    field_mm: tuple[float, float]
    meterset: float
    regions: tuple[Region, ...]
    energy: int = 6
    flattened: bool = True
    intent: str = "CURATIVE"


_Axes = tuple[float, float, float]
_COLOURS: Final = ((0, 255, 0), (255, 0, 0), (255, 128, 0), (0, 128, 255), (255, 255, 0), (160, 32, 240), (0, 255, 255))


_Organs = tuple[tuple[str, _Axes, _Axes], ...]


def _regions(body: tuple[_Axes, _Axes], target: _Axes, organs: _Organs) -> tuple[Region, ...]:
    """Number the regions: the body, the target with its margin, and the organs."""
    across, deep, long = target
    margin = (across + 6.0, deep + 6.0, long + 6.0)
    listed = (
        ("BODY", "EXTERNAL", *body),
        ("CTV", "CTV", (0.0, 0.0, 0.0), target),
        ("PTV", "PTV", (0.0, 0.0, 0.0), margin),
        *((name, "ORGAN", centre, radii) for name, centre, radii in organs),
    )
    return tuple(
        Region(
            number=number,
            name=name,
            interpreted_type=kind,
            centre_mm=centre,
            radii_mm=radii,
            colour=_COLOURS[(number - 1) % len(_COLOURS)],
        )
        for number, (name, kind, centre, radii) in enumerate(listed, start=1)
    )


_PELVIS: Final = ((0.0, 5.0, 0.0), (185.0, 115.0, 400.0))
_THORAX: Final = ((60.0, 10.0, 0.0), (190.0, 125.0, 400.0))
_HEAD: Final = ((0.0, 10.0, 0.0), (78.0, 98.0, 125.0))
_NECK: Final = ((0.0, 15.0, 0.0), (85.0, 90.0, 260.0))
_PELVIC_ORGANS: Final = (
    ("Bladder", (0.0, -32.0, 38.0), (36.0, 28.0, 30.0)),
    ("Rectum", (0.0, 45.0, 5.0), (17.0, 17.0, 48.0)),
    ("FemoralHead_L", (95.0, 0.0, 5.0), (24.0, 24.0, 24.0)),
    ("FemoralHead_R", (-95.0, 0.0, 5.0), (24.0, 24.0, 24.0)),
)
_THORACIC_ORGANS: Final = (
    ("Lung_L", (75.0, 10.0, 0.0), (58.0, 82.0, 110.0)),
    ("Lung_R", (-75.0, 10.0, 0.0), (58.0, 82.0, 110.0)),
    ("Heart", (20.0, -35.0, -55.0), (45.0, 40.0, 45.0)),
    ("SpinalCord", (0.0, 85.0, 0.0), (8.0, 8.0, 180.0)),
)
_ROUND: Final = (180.0, 230.0, 280.0, 330.0, 30.0, 80.0, 130.0)

TREATMENTS: Final = (
    Treatment(
        site="prostate",
        label="PROST_78Gy",
        fractions=39,
        gantry_angles=_ROUND,
        field_mm=(90.0, 90.0),
        meterset=620.0,
        energy=10,
        regions=_regions(_PELVIS, (26.0, 22.0, 28.0), _PELVIC_ORGANS),
    ),
    Treatment(
        site="rectum",
        label="Rectum_50Gy",
        fractions=28,
        gantry_angles=(0.0, 90.0, 180.0, 270.0),
        field_mm=(140.0, 160.0),
        meterset=280.0,
        energy=10,
        regions=_regions(_PELVIS, (40.0, 36.0, 55.0), _PELVIC_ORGANS),
    ),
    Treatment(
        site="lung",
        label="LungL_60Gy",
        fractions=30,
        gantry_angles=(0.0, 40.0, 150.0, 180.0),
        field_mm=(90.0, 100.0),
        meterset=310.0,
        regions=_regions(_THORAX, (28.0, 28.0, 32.0), _THORACIC_ORGANS),
    ),
    Treatment(
        site="lung SBRT",
        label="LungL_SBRT",
        fractions=5,
        gantry_angles=(10.0, 45.0, 80.0, 115.0, 150.0, 180.0, 350.0),
        field_mm=(40.0, 40.0),
        meterset=2100.0,
        energy=10,
        flattened=False,
        regions=_regions(_THORAX, (12.0, 12.0, 14.0), _THORACIC_ORGANS),
    ),
    Treatment(
        site="head and neck",
        label="HN_70Gy",
        fractions=35,
        gantry_angles=_ROUND,
        field_mm=(130.0, 170.0),
        meterset=740.0,
        regions=_regions(
            _NECK,
            (32.0, 30.0, 45.0),
            (
                ("Parotid_L", (52.0, 5.0, 40.0), (14.0, 20.0, 24.0)),
                ("Parotid_R", (-52.0, 5.0, 40.0), (14.0, 20.0, 24.0)),
                ("SpinalCord", (0.0, 60.0, 0.0), (7.0, 7.0, 150.0)),
                ("Mandible", (0.0, -42.0, 25.0), (45.0, 14.0, 16.0)),
            ),
        ),
    ),
    Treatment(
        site="breast",
        label="BreastR_40Gy",
        fractions=15,
        gantry_angles=(55.0, 235.0),
        field_mm=(90.0, 180.0),
        meterset=240.0,
        regions=_regions(
            ((80.0, 70.0, 0.0), (190.0, 125.0, 400.0)),
            (45.0, 40.0, 75.0),
            (
                ("Lung_R", (25.0, 75.0, 0.0), (55.0, 75.0, 105.0)),
                ("Heart", (105.0, 35.0, -45.0), (45.0, 40.0, 45.0)),
            ),
        ),
    ),
    Treatment(
        site="brain",
        label="Brain_60Gy",
        fractions=30,
        gantry_angles=(20.0, 100.0, 180.0, 260.0, 320.0),
        field_mm=(80.0, 80.0),
        meterset=330.0,
        regions=_regions(
            _HEAD,
            (24.0, 26.0, 24.0),
            (
                ("Brain", (0.0, 8.0, 10.0), (66.0, 84.0, 70.0)),
                ("Eye_L", (32.0, -70.0, -25.0), (12.0, 12.0, 12.0)),
                ("Eye_R", (-32.0, -70.0, -25.0), (12.0, 12.0, 12.0)),
                ("Brainstem", (0.0, 22.0, -35.0), (14.0, 14.0, 26.0)),
            ),
        ),
    ),
    Treatment(
        site="spine",
        label="Spine_20Gy",
        fractions=5,
        gantry_angles=(0.0, 180.0),
        field_mm=(80.0, 120.0),
        meterset=520.0,
        intent="PALLIATIVE",
        regions=_regions(
            ((0.0, -40.0, 0.0), (185.0, 115.0, 400.0)),
            (24.0, 26.0, 45.0),
            (("Kidney_L", (60.0, -5.0, 0.0), (26.0, 24.0, 52.0)), ("Kidney_R", (-60.0, -5.0, 0.0), (26.0, 24.0, 52.0))),
        ),
    ),
)
#: A label that QA plans bear too: whoever asks for it must name the patient.
DECOY_LABEL: Final = "PF_6MV"
