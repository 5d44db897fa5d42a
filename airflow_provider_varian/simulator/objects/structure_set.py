"""RT Structure Sets (PS3.3 A.19): closed contours of each region on each slice that it cuts."""

from __future__ import annotations

from collections.abc import Mapping
from math import cos, pi, sin
from typing import Any, Final

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.clinic.case import Case, ImageSeries, Region, StructureSet
from airflow_provider_varian.simulator.objects import ct, general
from airflow_provider_varian.simulator.objects.deferred import Deferred

_LONGEST_EDGE_MM: Final = 8.0
_FEWEST_POINTS: Final = 16


def structure_set_values(case: Case, structure_set: StructureSet) -> Mapping[str, Any]:
    """Return SERIES- and IMAGE-level attributes; contours and references to slices are made when looked at."""
    drawn, images = structure_set.drawn, structure_set.images
    ready: dict[str, Any] = {
        **general.made_by_aria(
            structure_set,
            sop_class_uid=uids.RT_STRUCTURE_SET,
            modality="RTSTRUCT",
            made=drawn,
            series="Structure Sets",
        ),
        "StructureSetLabel": structure_set.label,
        "StructureSetName": structure_set.label,
        "StructureSetDate": general.dicom_date(drawn),
        "StructureSetTime": general.dicom_time(drawn),
        "FrameOfReferenceUID": images.frame_of_reference_uid,
        "PositionReferenceIndicator": None,
        **general.approval(structure_set.approval, drawn),
    }
    return Deferred(
        ready,
        {
            "ReferencedFrameOfReferenceSequence": lambda: [_frame_of_reference(images)],
            "StructureSetROISequence": lambda: [
                {
                    "ROINumber": region.number,
                    "ReferencedFrameOfReferenceUID": images.frame_of_reference_uid,
                    "ROIName": region.name,
                    "ROIGenerationAlgorithm": "AUTOMATIC" if region.interpreted_type == "EXTERNAL" else "MANUAL",
                }
                for region in structure_set.regions
            ],
            "ROIContourSequence": lambda: [_contours(region, images) for region in structure_set.regions],
            "RTROIObservationsSequence": lambda: [
                {
                    "ObservationNumber": region.number,
                    "ReferencedROINumber": region.number,
                    "ROIObservationLabel": region.name[:16].strip(),
                    "RTROIInterpretedType": region.interpreted_type,
                    "ROIInterpreter": None,
                }
                for region in structure_set.regions
            ],
        },
    )


def _frame_of_reference(images: ImageSeries) -> dict[str, Any]:
    return {
        "FrameOfReferenceUID": images.frame_of_reference_uid,
        "RTReferencedStudySequence": [
            {
                **general.reference(general.STUDY_CLASS, images.study.uid),
                "RTReferencedSeriesSequence": [
                    {
                        "SeriesInstanceUID": images.series_uid,
                        "ContourImageSequence": [general.ct_reference(uid) for uid in images.instance_uids],
                    }
                ],
            }
        ],
    }


def _contours(region: Region, images: ImageSeries) -> dict[str, Any]:
    contours: list[dict[str, Any]] = []
    for uid, z in zip(images.instance_uids, ct.slice_positions_mm(images), strict=True):
        points = contour_mm(region, z)
        if points:
            contours.append(
                {
                    "ContourImageSequence": [general.ct_reference(uid)],
                    "ContourGeometricType": "CLOSED_PLANAR",
                    "NumberOfContourPoints": len(points) // 3,
                    "ContourNumber": len(contours) + 1,
                    "ContourData": points,
                }
            )
    item: dict[str, Any] = {"ReferencedROINumber": region.number, "ROIDisplayColor": list(region.colour)}
    # Without a contour the sequence is left out: PS3.3 C.8.8.6 wants an item in it.
    return item | {"ContourSequence": contours} if contours else item


def contour_mm(region: Region, z: float) -> list[float]:
    """Return where a transverse plane cuts a region: x, y, z of each point in turn, in hundredths of a millimetre.

    :returns: nothing when the plane misses the region.
    """
    share = 1.0 - ((z - region.centre_mm[2]) / region.radii_mm[2]) ** 2
    if share <= 0.0:
        return []
    across, deep = (radius * share**0.5 for radius in region.radii_mm[:2])
    count = max(_FEWEST_POINTS, int(2 * pi * max(across, deep) / _LONGEST_EDGE_MM) + 1)
    points: list[float] = []
    for index in range(count):
        angle = 2 * pi * index / count
        x = region.centre_mm[0] + across * cos(angle)
        y = region.centre_mm[1] + deep * sin(angle)
        points += (round(x, 2), round(y, 2), z)
    return points
