"""What holds for objects of every class; what each shows is tested beside this."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import datetime

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import UID
from support.cases import NUMBER, Made, make_case, objects_of, whole, write

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.clinic.identity import Identity

KINDS = {
    "planning CT": ("CT", uids.CT_IMAGE),
    "CBCT": ("CT", uids.CT_IMAGE),
    "structure set": ("RTSTRUCT", uids.RT_STRUCTURE_SET),
    "plan": ("RTPLAN", uids.RT_PLAN),
    "plan without beams": ("RTPLAN", uids.RT_PLAN),
    "DRR": ("RTIMAGE", uids.RT_IMAGE),
    "portal": ("RTIMAGE", uids.RT_IMAGE),
    "stray": ("RTIMAGE", uids.RT_IMAGE),
    "dose": ("RTDOSE", uids.RT_DOSE),
    "record": ("RTRECORD", uids.RT_BEAMS_TREATMENT_RECORD),
    "registration": ("REG", uids.SPATIAL_REGISTRATION),
}


def walk_uids(dataset: Dataset) -> Iterator[tuple[str, str]]:
    for element in dataset.iterall():
        if element.VR == "UI" and element.value:
            yield element.keyword, str(element.value)


def test_every_kind_is_there_and_says_what_it_is(made):
    assert made.keys() == KINDS.keys()
    for kind, objects in made.items():
        for dataset in objects:
            expected = KINDS[kind]
            if dataset.get("RTPlanLabel") == "PROST Ring":
                expected = ("RTPLAN", uids.VARIAN_HALCYON_RT_PLAN)
            assert (dataset.Modality, dataset.SOPClassUID) == expected


def test_uids_are_the_cases_and_each_object_has_its_own(made, case, identity):
    expected = [uid for series in case.image_series for uid in series.instance_uids]
    expected += [drawn.sop_instance_uid for drawn in case.structure_sets]
    for plan in case.plans:
        expected += [plan.sop_instance_uid, *(dose.sop_instance_uid for dose in plan.doses)]
        expected += [each.sop_instance_uid for each in (*plan.records, *plan.portal_images, *plan.registrations)]
    expected += [beam.drr_uid for beam in case.plans[0].beams]
    expected += [image.sop_instance_uid for image in case.strays]
    assert sorted(ds.SOPInstanceUID for objects in made.values() for ds in objects) == sorted(expected)
    for dataset in (each for objects in made.values() for each in objects):
        for keyword, uid in walk_uids(dataset):
            assert UID(uid).is_valid, keyword
            well_known = uid.startswith("1.2.840.10008.") or uid == uids.VARIAN_HALCYON_RT_PLAN
            assert well_known != (identity.patient_of(uid) == NUMBER), keyword


def test_a_series_stands_in_one_study_and_has_one_modality(made):
    seen: dict[str, set[tuple[str, str]]] = {}
    for dataset in (each for objects in made.values() for each in objects):
        seen.setdefault(dataset.SeriesInstanceUID, set()).add((dataset.StudyInstanceUID, dataset.Modality))
    assert all(len(places) == 1 for places in seen.values())


def test_times_are_the_cases(made, case):
    plan = case.plans[0]

    def stamp(dataset: Dataset, kind: str) -> datetime:
        time = dataset[f"{kind}Time"].value
        pattern = "%Y%m%d%H%M%S.%f" if "." in time else "%Y%m%d%H%M%S"
        return datetime.strptime(dataset[f"{kind}Date"].value + time, pattern)

    assert {stamp(ds, "Acquisition") for ds in made["planning CT"]} == {case.image_series[0].acquired}
    assert {stamp(ds, "Acquisition") for ds in made["CBCT"]} == {case.image_series[1].acquired}
    assert [stamp(ds, "StructureSet") for ds in made["structure set"]] == [each.drawn for each in case.structure_sets]
    assert {stamp(ds, "RTPlan") for ds in made["plan"]} == {plan.planned}
    assert {stamp(ds, "Review") for ds in made["plan"] if "ReviewDate" in ds} == {plan.reviewed}
    assert [stamp(ds, "Treatment") for ds in made["record"]] == [each.treated for each in plan.records]
    assert [stamp(ds, "Content") for ds in made["portal"]] == [each.acquired for each in plan.portal_images]
    assert [stamp(ds, "Acquisition") for ds in made["portal"]] == [each.acquired for each in plan.portal_images]
    assert [stamp(ds, "Content") for ds in made["registration"]] == [each.made for each in plan.registrations]
    assert {stamp(ds, "Content") for ds in made["dose"]} == {plan.doses[0].computed}
    for dataset in (each for objects in made.values() for each in objects):
        assert stamp(dataset, "InstanceCreation") == stamp(dataset, "Series")


def test_an_object_survives_a_file_text_and_all(made):
    for objects in made.values():
        dataset = objects[0]
        stream = io.BytesIO()
        write(dataset, stream)
        again = dcmread(io.BytesIO(stream.getvalue()))
        assert again.SpecificCharacterSet == "ISO_IR 192"
        assert again.PatientName == "Yamada^Tarō=山田^太郎"
        second = io.BytesIO()
        write(again, second)
        assert second.getvalue() == stream.getvalue()
        if "PixelData" in again:
            assert again.pixel_array.size * again.BitsAllocated == len(again.PixelData) * 8
    assert {"Bladder groß"} <= {roi.ROIName for roi in made["structure set"][0].StructureSetROISequence}


def test_equipment_is_as_aria_exports_it(made):
    for kind, objects in made.items():
        for dataset in objects:
            if kind == "planning CT":
                assert (dataset.StationName, "DeviceSerialNumber" in dataset) == ("CT1", False)
                continue
            assert dataset.Manufacturer == "Varian Medical Systems"
            assert dataset.OperatorsName == "DICOM Service"
            taken = kind in {"CBCT", "stray"} or (kind == "portal" and dataset.ImageType[0] == "ORIGINAL")
            expected = ("On-Board Imager", "TrueBeam1", "3340") if taken else ("ARIA RadOnc", "ARIADB", "161001")
            assert (dataset.ManufacturerModelName, dataset.StationName, dataset.DeviceSerialNumber) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_alone_decides(kind, made):
    def objects(seed: int) -> list[Dataset]:
        case = make_case(seed)
        return [whole(case, each) for each in objects_of(case, Identity(seed)) if each.kind == kind]

    assert objects(1) == made[kind]
    other = objects(2)
    assert len(other) == len(made[kind])
    for one, two in zip(made[kind], other, strict=True):
        assert one.SOPInstanceUID != two.SOPInstanceUID
        # What the planning system predicts follows from the plan alone, and has no noise.
        predicted = "PREDICTED_DOSE" in one.get("ImageType", ())
        assert "PixelData" not in one or (one.PixelData == two.PixelData) is predicted


def test_a_value_that_its_vr_forbids_is_not_let_through(case):
    study = case.plans[0].study
    for keyword, value in (("RTImageLabel", "x" * 17), ("RTPlanDate", "4.3.2026"), ("GantryAngle", "a"),
                           ("ApprovalStatus", "approved")):  # fmt: skip
        with pytest.raises(ValueError, match=r"."):
            whole(case, Made("", "", study, {keyword: value}, None))
