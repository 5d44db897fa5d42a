"""What a patient is made of: ellipsoids of tissue, from the regions that were drawn on the planning CT.

The same tissues are cut for CT slices and projected for radiographs, so all images of a case agree with its
structure set. Coordinates are the patient's (x left, y posterior, z head) in millimetres from the isocentre,
which is the origin of the planning frame of reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from operator import mul
from typing import Final

from airflow_provider_varian.simulator.clinic.case import Case, Region

Point = tuple[float, float, float]

AIR_HU: Final = -1000
_FAT_HU: Final = -95
_MUSCLE_HU: Final = 45
_BONE_HU: Final = 380
_TUMOUR_HU: Final = 85
_RIM_MM: Final = 12.0

#: Hounsfield units by what a region's name contains, lower case; the first that fits counts.
_BY_NAME: Final = (
    ("lung", -760), ("trachea", -980), ("femur", 420), ("femoral", 420), ("bone", 420), ("mandible", 520),
    ("rib", 350), ("cord", 32), ("spin", _BONE_HU), ("vertebra", _BONE_HU), ("bladder", 6), ("rectum", 12),
    ("eye", 12), ("brain", 36), ("breast", -60), ("parotid", 10), ("liver", 62), ("heart", 42), ("kidney", 34),
)  # fmt: skip
_TARGETS: Final = ("GTV", "CTV", "PTV")
_NOT_TISSUE: Final = frozenset(
    {"EXTERNAL", *_TARGETS, "BOLUS", "SUPPORT", "FIXATION", "AVOIDANCE", "CONTROL", "DOSE_REGION", "IRRAD_VOLUME",
     "TREATED_VOLUME", "ISOCENTER", "REGISTRATION", "MARKER"}
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Tissue:
    """An ellipsoid of one density.

    :param hounsfield: HU.
    :param around: HU of what it lies in.
    """

    centre_mm: Point
    radii_mm: Point
    hounsfield: int
    around: int = AIR_HU

    def holds(self, point_mm: Point) -> bool:
        """Say whether a point lies in it."""
        return sum(((p - c) / r) ** 2 for p, c, r in zip(point_mm, self.centre_mm, self.radii_mm, strict=True)) <= 1.0


#: A water phantom for plans that were made on no patient: what a verification plan is delivered to.
PHANTOM: Final = (Tissue(centre_mm=(0.0, 0.0, 0.0), radii_mm=(150.0, 150.0, 400.0), hounsfield=0),)
_BODY: Final = Region(
    number=1,
    name="BODY",
    interpreted_type="EXTERNAL",
    centre_mm=(0.0, 10.0, 0.0),
    radii_mm=(185.0, 120.0, 600.0),
    colour=(0, 255, 0),
)


def tissues_of(regions: Iterable[Region]) -> tuple[Tissue, ...]:
    """Return the tissues of a patient, the outermost first; a later one replaces what it lies in.

    :param regions: what was drawn; without an external contour the body has a usual size.
    """
    regions = tuple(regions)
    body = next((region for region in regions if region.interpreted_type == "EXTERNAL"), _BODY)
    found = [_tissue(body.centre_mm, body.radii_mm, _FAT_HU)]

    def add(centre_mm: Point, radii_mm: Point, hounsfield: int) -> None:
        around = next((each.hounsfield for each in reversed(found) if each.holds(centre_mm)), AIR_HU)
        found.append(_tissue(centre_mm, radii_mm, hounsfield, around))

    add(body.centre_mm, _scaled(body.radii_mm, lambda radius: max(radius - _RIM_MM, 0.8 * radius)), _MUSCLE_HU)
    for part in _skeleton(body, {region.name.lower() for region in regions}):
        add(*part)
    for region in regions:
        if region.interpreted_type not in _NOT_TISSUE:
            add(region.centre_mm, region.radii_mm, _density(region.name))
    if target := _tumour(regions):
        add(*target)
    return tuple(found)


def tissues_in(case: Case, frame_of_reference_uid: str) -> tuple[Tissue, ...]:
    """Return what lies in a frame of reference.

    A frame of reference on which regions were drawn shows these. One that a registration joins to such
    a frame shows the same patient where the couch correction found him. Any other shows the patient, too.
    """
    # What a plan was made on shows on its CT, even where ARIA does not hold the structure set any more.
    drawn_ever = (*case.structure_sets, *(plan.structure_set for plan in case.plans if plan.structure_set))
    by_frame = {drawn.images.frame_of_reference_uid: drawn.regions for drawn in reversed(drawn_ever)}
    if frame_of_reference_uid in by_frame:
        return tissues_of(by_frame[frame_of_reference_uid])
    for plan in case.plans:
        for registration in plan.registrations:
            if registration.moving.frame_of_reference_uid == frame_of_reference_uid:
                regions = by_frame.get(registration.fixed.frame_of_reference_uid, ())
                return _moved(tissues_of(regions), registration.shift_mm)
    return tissues_of(next(iter(by_frame.values()), ()))


def body_of(tissues: Iterable[Tissue]) -> Tissue:
    """Return the outermost tissue."""
    return next(iter(tissues))


def _moved(tissues: Iterable[Tissue], shift_mm: Point) -> tuple[Tissue, ...]:
    """Put tissues where the shift still has to be applied to bring them home."""
    return tuple(
        Tissue(
            centre_mm=_point(each.centre_mm[axis] - shift_mm[axis] for axis in range(3)),
            radii_mm=each.radii_mm,
            hounsfield=each.hounsfield,
            around=each.around,
        )
        for each in tissues
    )


def _skeleton(body: Region, names: set[str]) -> list[tuple[Point, Point, int]]:
    """Bones that nobody draws: the skull around a brain, else the spine, and hips unless there is a lung."""
    x, y, z = body.centre_mm
    across, deep, long = body.radii_mm
    if any("brain" in name for name in names):
        return [
            (body.centre_mm, _scaled(body.radii_mm, lambda radius: 0.92 * radius), 750),
            (body.centre_mm, _scaled(body.radii_mm, lambda radius: 0.84 * radius), 36),
        ]
    bones: list[tuple[Point, Point, int]] = [((x, y + 0.55 * deep, z), (21.0, 19.0, 0.97 * long), _BONE_HU)]
    if not any("lung" in name or "femoral" in name or "femur" in name for name in names):
        bones += [((x + side * 0.5 * across, y + 0.1 * deep, z), (26.0, 26.0, 30.0), 420) for side in (-1, 1)]
    return bones


def _tumour(regions: tuple[Region, ...]) -> tuple[Point, Point, int] | None:
    """The innermost target; of a PTV alone the middle, since its rim is a margin."""
    for kind in _TARGETS:
        for region in regions:
            if region.interpreted_type == kind:
                share = 0.7 if kind == "PTV" else 1.0
                return region.centre_mm, _scaled(region.radii_mm, partial(mul, share)), _TUMOUR_HU
    return None


def _density(name: str) -> int:
    lower = name.lower()
    return next((hounsfield for part, hounsfield in _BY_NAME if part in lower), 50)


def _tissue(centre_mm: Point, radii_mm: Point, hounsfield: int, around: int = AIR_HU) -> Tissue:
    return Tissue(centre_mm=centre_mm, radii_mm=radii_mm, hounsfield=hounsfield, around=around)


def _scaled(radii_mm: Point, by: Callable[[float], float]) -> Point:
    return _point(by(radius) for radius in radii_mm)


def _point(values: Iterable[float]) -> Point:
    x, y, z = values
    return x, y, z
