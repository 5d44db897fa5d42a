"""The oracle: each rule and each defect on its own, on a patient made by hand and on pydicom's own files."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from pydicom.filewriter import dcmwrite
from support import oracle_data as data
from support.oracle import judge
from support.oracle_data import ACQUIRED, CONED, PORTAL, PREDICTED, SLICES, named, uid_of, uids_of
from support.oracle_files import Names
from support.oracle_findings import (
    Ambiguous,
    Beam,
    Dangling,
    Kind,
    MachineDay,
    PlanningSeries,
    PlanSet,
    RTImage,
    UnknownBeam,
    Why,
    WrongClass,
)

NONE = frozenset()
PLAN = uid_of("plan")
OTHER = uid_of("other plan")
CHECK = uid_of("check")
SUPPORT = Path(data.__file__).parent


@pytest.fixture
def patient():
    return data.patient()


@pytest.fixture
def judged(patient, tmp_path):
    """Write the patient as it is by now, and more, and judge the files."""
    return lambda *more: judge(data.save_all((*patient.values(), *more), tmp_path))


def scan(**changed):
    slices = uids_of(*SLICES)
    as_it_is = {"named": slices, "held": slices, "missing": NONE, "unnamed": NONE, "other_frame": NONE}
    return {uid_of("scan"): PlanningSeries(uid=uid_of("scan"), **{**as_it_is, **changed})}


def ambiguous(name, why, *candidates):
    return Ambiguous(uid=uid_of(name), why=why, candidates=uids_of(*candidates))


def test_what_belongs_to_a_plan(judged):
    found = judged()
    assert found.plans == {
        PLAN: PlanSet(
            plan=PLAN,
            structure_sets=uids_of("drawn"),
            images=scan(),
            plan_doses=uids_of("whole dose"),
            beam_doses={1: uids_of("dose of 1"), 2: uids_of("dose of 2")},
            records=uids_of("first fraction", "second fraction"),
            registrations=uids_of("match"),
            cbcts={uid_of("cone"): uids_of(*CONED)},
            rt_images=frozenset(
                {
                    RTImage(uid=uid_of("field 1"), kind=Kind.PORTAL, beam=Beam.MV),
                    RTImage(uid=uid_of("setup"), kind=Kind.PORTAL, beam=Beam.KV),
                }
            ),
            drrs=uids_of("shown", "also shown"),
            verified_by={CHECK: uids_of("measured", "predicted")},
        ),
        OTHER: PlanSet(plan=OTHER, structure_sets=uids_of("drawn"), images=scan()),
        CHECK: PlanSet(
            plan=CHECK,
            rt_images=frozenset(
                {
                    RTImage(uid=uid_of("measured"), kind=Kind.ACQUIRED_DOSE, beam=Beam.MV),
                    RTImage(uid=uid_of("predicted"), kind=Kind.PREDICTED_DOSE, beam=Beam.MV),
                }
            ),
            verifies=uids_of("plan"),
        ),
    }
    assert found.unclaimed == uids_of("drawn later", "stray")
    assert found.without_plan == uids_of("stray")
    assert (found.dangling, found.ambiguous, dict(found.of_other_plans)) == ((), (), {})
    assert (found.unknown_beams, found.wrong_class, found.unreadable, found.undated) == (NONE, NONE, NONE, NONE)
    assert (dict(found.duplicates), dict(found.conflicts)) == ({}, {})


def test_study_and_order_of_files_say_nothing(patient, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    before = judge(data.save_all(patient.values(), here))
    for name, values in patient.items():
        values["StudyInstanceUID"] = f"study of {name}"
    assert judge(data.save_all(reversed(patient.values()), there)) == before


def test_machines_and_days(judged):
    found = judged()
    assert found.machine_days == {
        ("Linac1", date(2026, 7, 1)): MachineDay(
            mv=uids_of("field 1", "measured", "stray"),
            kv=uids_of("setup"),
            computed=uids_of("shown", "also shown", "predicted"),
        )
    }
    assert found.treatment_days == {
        ("Linac1", date(2026, 7, 1)): uids_of("first fraction"),
        ("Linac1", date(2026, 7, 2)): uids_of("second fraction"),
    }


def test_days_and_machines_are_told_apart(judged):
    found = judged(
        data.image("later", PORTAL, AcquisitionDate="20260702"),
        data.image("elsewhere", PORTAL, RadiationMachineName="Linac2"),
        data.image("odd", PORTAL, unit=""),
        data.record("elsewhere treated", "20260701", "Linac2"),
    )
    assert found.machine_days["Linac1", date(2026, 7, 2)] == MachineDay(mv=uids_of("later"))
    assert found.machine_days["Linac2", date(2026, 7, 1)] == MachineDay(mv=uids_of("elsewhere"))
    assert found.machine_days["Linac1", date(2026, 7, 1)].unknown == uids_of("odd")
    assert found.treatment_days["Linac2", date(2026, 7, 1)] == uids_of("elsewhere treated")


def test_what_does_not_say_one_machine_and_a_day_is_named(judged):
    found = judged(
        data.image("no day", PORTAL, AcquisitionDate=""),
        data.image("no machine", PORTAL, RadiationMachineName=""),
        data.record("no treatment day", ""),
        data.record("two machines", "20260701", "Linac1", "Linac2"),
    )
    assert found.undated == uids_of("no day", "no machine", "no treatment day", "two machines")
    assert uids_of("no day", "no machine") <= found.plans[PLAN].images_of(Kind.PORTAL)
    assert not found.undated & frozenset().union(*found.treatment_days.values())


@pytest.mark.parametrize(
    ("image_type", "kind"),
    [
        (PORTAL, Kind.PORTAL),
        (ACQUIRED, Kind.ACQUIRED_DOSE),
        (PREDICTED, Kind.PREDICTED_DOSE),
        ([*PORTAL, "CALCULATED_DOSE"], Kind.OTHER),
        ([*PREDICTED, "RELATIVE"], Kind.OTHER),
        (["PORTAL", "ORIGINAL", "PRIMARY"], Kind.OTHER),
        (["DERIVED", *PORTAL[1:]], Kind.OTHER),
        ("PORTAL", Kind.OTHER),
        ("", Kind.OTHER),
    ],
)
def test_image_type_counts_as_a_whole(judged, image_type, kind):
    found = judged(data.image("new", image_type, "other plan"))
    assert found.plans[OTHER].rt_images == {RTImage(uid=uid_of("new"), kind=kind, beam=Beam.MV)}


@pytest.mark.parametrize(
    ("gone", "named_by", "through"),
    [
        ("drawn", ("plan", "other plan"), {"ReferencedStructureSetSequence"}),
        ("slice 2", ("drawn", "drawn later", "match"), {"ContourImageSequence", "ReferencedImageSequence"}),
        ("cone 1", ("match",), {"ReferencedImageSequence"}),
        ("whole dose", ("plan",), {"ReferencedDoseSequence"}),
        ("shown", ("plan",), {"ReferencedReferenceImageSequence"}),
    ],
)
def test_what_is_named_and_missing(patient, judged, gone, named_by, through):
    del patient[gone]
    found = judged()
    assert found.dangling == (
        Dangling(
            uid=uid_of(gone), names=Names.INSTANCE, named_by=uids_of(*named_by), through=frozenset(through)
        ),
    )  # fmt: skip
    assert found.dangling_of(PLAN) == found.dangling
    assert found.dangling_of(CHECK) == ()
    assert uid_of(gone) not in found.plans[PLAN].members


def test_a_missing_slice_is_missing_from_its_series(patient, judged):
    del patient["slice 2"]
    found = judged()
    held = uids_of("slice 1", "slice 3")
    assert found.plans[PLAN].images == scan(held=held, missing=uids_of("slice 2"))
    assert held <= found.plans[PLAN].members


def test_without_its_structure_set_a_plan_has_no_images(patient, judged):
    del patient["drawn"]
    found = judged()
    assert found.plans[PLAN].images == {}
    assert found.unclaimed == uids_of("drawn later", "stray", *SLICES)
    # The plan's own frame of reference still leads to the registration.
    assert found.plans[PLAN].registrations == uids_of("match")


def test_without_its_plan_everything_is_of_another(patient, judged):
    mine = ["whole dose", "dose of 1", "dose of 2", "first fraction", "second fraction", *CONED, "match", "also shown",
            "field 1", "setup"]  # fmt: skip
    del patient["plan"]
    found = judged()
    assert found.of_other_plans == {PLAN: uids_of(*mine)}
    (missing,) = found.dangling
    assert (missing.uid, missing.named_by) == (PLAN, uids_of(*mine, "check") - uids_of("match"))
    assert found.plans[CHECK].verifies == {PLAN}
    # Nobody names this DRR any more.
    assert found.without_plan == uids_of("stray", "shown")


def test_a_series_that_is_named_without_its_slices_is_meant_whole(patient, judged):
    study = patient["drawn"]["ReferencedFrameOfReferenceSequence"][0]["RTReferencedStudySequence"][0]
    study["RTReferencedSeriesSequence"] = [{"SeriesInstanceUID": "scan"}, {"SeriesInstanceUID": "no scan"}]
    found = judged()
    images = found.plans[PLAN].images
    assert images[uid_of("scan")] == scan()[uid_of("scan")]
    assert images[uid_of("no scan")].named == NONE
    assert [(each.uid, each.names) for each in found.dangling] == [(uid_of("no scan"), Names.SERIES)]


def test_a_study_that_is_named_alone_can_dangle(patient, judged):
    frame = patient["drawn"]["ReferencedFrameOfReferenceSequence"][0]
    frame["RTReferencedStudySequence"] = [{"ReferencedSOPInstanceUID": "no study"}]
    assert [(each.uid, each.names, each.named_by) for each in judged().dangling] == [
        (uid_of("no study"), Names.STUDY, uids_of("drawn"))
    ]


def test_a_contour_names_its_slice(patient, judged):
    contours = [{"ContourImageSequence": [named(each, "CT")]} for each in ("extra", "gone")]
    patient["drawn"]["ROIContourSequence"] = [{"ReferencedROINumber": 1, "ContourSequence": contours}]
    found = judged(data.thing("CT", "extra", series="scan", FrameOfReferenceUID="frame"))
    slices = uids_of(*SLICES, "extra")
    assert found.plans[PLAN].images == scan(named=slices, held=slices)
    assert [(each.uid, each.named_by) for each in found.dangling] == [(uid_of("gone"), uids_of("drawn"))]


def test_slices_that_do_not_fit(patient, judged):
    patient["slice 3"]["FrameOfReferenceUID"] = "elsewhere"
    found = judged(data.thing("CT", "extra", series="scan", FrameOfReferenceUID="frame"))
    assert found.plans[PLAN].images == scan(unnamed=uids_of("extra"), other_frame=uids_of("slice 3"))
    assert found.unclaimed == uids_of("drawn later", "stray", "extra")


def test_a_dose_of_several_plans_belongs_to_each(judged):
    found = judged(data.dose("sum", "MULTI_PLAN", owners=("plan", "other plan")))
    assert found.plans[PLAN].other_doses == found.plans[OTHER].other_doses == uids_of("sum")
    assert found.ambiguous == ()


def test_a_dose_that_only_its_plan_names(patient, judged):
    beams = [{"ReferencedBeamNumber": 2, "ReferencedDoseSequence": [named("quiet beam dose", "RTDOSE")]}]
    patient["other plan"]["FractionGroupSequence"] = [{"ReferencedBeamSequence": beams}]
    patient["other plan"]["ReferencedDoseSequence"] = [named("quiet dose", "RTDOSE")]
    found = judged(data.dose("quiet beam dose", "BEAM", owners=()), data.dose("quiet dose", owners=()))
    assert found.plans[OTHER].plan_doses == uids_of("quiet dose")
    assert found.plans[OTHER].beam_doses == {2: uids_of("quiet beam dose")}


def test_a_dose_that_names_another_plan_than_the_one_that_names_it(patient, judged):
    patient["other plan"]["ReferencedDoseSequence"] = [named("whole dose", "RTDOSE")]
    found = judged()
    assert found.ambiguous == (ambiguous("whole dose", Why.CONTRADICTION, "plan", "other plan"),)
    assert found.plans[PLAN].plan_doses == found.plans[OTHER].plan_doses == NONE
    assert uid_of("whole dose") not in found.unclaimed


def test_a_beam_dose_has_to_say_its_beam(judged):
    found = judged(data.dose("of some beam", "BEAM"))
    assert found.ambiguous == (ambiguous("of some beam", Why.NO_BEAM, "plan"),)
    assert uid_of("of some beam") not in found.plans[PLAN].members


def test_beams_that_the_plan_has_not(patient, judged):
    patient["first fraction"]["TreatmentSessionBeamSequence"].append({"ReferencedBeamNumber": 7})
    found = judged(data.dose("dose of 9", "BEAM", 9), data.image("field 8", PORTAL, ReferencedBeamNumber=8))
    assert found.unknown_beams == {
        UnknownBeam(uid=uid_of(name), plan=PLAN, beam=beam)
        for name, beam in (("first fraction", 7), ("field 8", 8), ("dose of 9", 9))
    }
    assert found.plans[PLAN].beam_doses[9] == uids_of("dose of 9")


@pytest.mark.parametrize("name", ["first fraction", "field 1", "cone 1"])
def test_what_names_two_plans_belongs_to_none(patient, judged, name):
    keyword = "ReferencedInstanceSequence" if name == "cone 1" else "ReferencedRTPlanSequence"
    patient[name][keyword] = [named("plan", "RTPLAN"), named("other plan", "RTPLAN")]
    found = judged()
    # Slices of a series go together, and what joins them goes with them.
    whom = [*CONED, "match"] if name == "cone 1" else [name]
    assert {(each.uid, each.candidates) for each in found.ambiguous} == {
        (uid_of(each), frozenset({PLAN, OTHER})) for each in whom
    }
    assert {each.uid: each.why for each in found.ambiguous}[uid_of(name)] is Why.SEVERAL_PLANS
    assert not uids_of(*whom) & (found.plans[PLAN].members | found.plans[OTHER].members | found.unclaimed)


def nameless(patient):
    for each in CONED:
        del patient[each]["ReferencedInstanceSequence"]


def test_a_cbct_that_names_no_plan_follows_its_registration(patient, judged):
    nameless(patient)
    del patient["other plan"]
    found = judged()
    assert found.plans[PLAN].cbcts == {uid_of("cone"): uids_of(*CONED)}
    assert found.plans[PLAN].registrations == uids_of("match")


def test_a_cbct_whose_registration_leads_to_two_plans_is_ambiguous(patient, judged):
    nameless(patient)
    found = judged()
    assert {each.uid: each for each in found.ambiguous} == {
        uid_of(each): ambiguous(each, Why.FRAME_OF_SEVERAL_PLANS, "plan", "other plan") for each in (*CONED, "match")
    }
    assert found.plans[PLAN].cbcts == found.plans[OTHER].cbcts == {}


def test_a_cbct_that_nothing_joins_belongs_to_nobody(patient, judged):
    nameless(patient)
    del patient["match"]
    assert judged().unclaimed == uids_of("drawn later", "stray", *CONED)


def test_a_cbct_that_names_its_plan_needs_no_registration(patient, judged):
    del patient["match"]
    assert judged().plans[PLAN].cbcts == {uid_of("cone"): uids_of(*CONED)}


def test_another_planning_ct_is_no_cbct(patient, judged):
    nameless(patient)
    again = data.structure_set("drawn on the other")
    item = again["ReferencedFrameOfReferenceSequence"][0]
    item["FrameOfReferenceUID"] = "cone frame"
    item["RTReferencedStudySequence"][0]["RTReferencedSeriesSequence"] = [{"SeriesInstanceUID": "cone"}]
    found = judged(again)
    assert found.plans[PLAN].cbcts == {}
    assert found.ambiguous == ()
    # It joins two planning CTs then, and serves all plans on either.
    assert found.plans[PLAN].registrations == found.plans[OTHER].registrations == uids_of("match")


def test_one_registration_serves_all_cbcts_of_its_frame(judged):
    found = judged(data.cone("cone 3", series="next cone"))
    assert found.plans[PLAN].cbcts.keys() == uids_of("cone", "next cone")
    assert found.plans[PLAN].registrations == uids_of("match")


def test_a_registration_follows_its_cbct_not_the_other_plans_of_the_frame(judged):
    found = judged()
    assert found.plans[PLAN].registrations == uids_of("match")
    assert found.plans[OTHER].registrations == NONE


def test_a_registration_that_leads_past_the_plan_of_its_cbct(patient, judged):
    elsewhere = data.registration("odd match", fixed="third frame")
    found = judged(data.plan("third plan", frame="third frame"), elsewhere)
    assert found.ambiguous == (ambiguous("odd match", Why.CONTRADICTION, "plan", "third plan"),)


def test_a_drr_that_two_plans_show_belongs_to_both(patient, judged):
    patient["other plan"]["BeamSequence"] = [
        {"BeamNumber": 1, "ReferencedReferenceImageSequence": [named("also shown", "RTIMAGE")]}
    ]
    found = judged()
    assert uid_of("also shown") in found.plans[PLAN].drrs & found.plans[OTHER].drrs
    assert found.ambiguous == ()


def test_another_image_that_two_plans_claim_is_ambiguous(patient, judged):
    patient["other plan"]["BeamSequence"] = [
        {"BeamNumber": 1, "ReferencedReferenceImageSequence": [named("field 1", "RTIMAGE")]}
    ]
    assert judged().ambiguous == (ambiguous("field 1", Why.CONTRADICTION, "plan", "other plan"),)


@pytest.mark.parametrize("relationship", ["PREDECESSOR", "PRIOR", ""])
def test_only_a_verified_plan_is_verified(patient, judged, relationship):
    patient["check"]["ReferencedRTPlanSequence"][0]["RTPlanRelationship"] = relationship
    found = judged()
    assert found.plans[CHECK].verifies == NONE
    assert found.plans[PLAN].verified_by == {}


def test_a_plan_of_varians_own_class_is_a_plan(patient, judged):
    halcyon = "1.2.246.352.70.1.70"
    patient["plan"]["SOPClassUID"] = halcyon
    for values in patient.values():
        for keyword in ("ReferencedRTPlanSequence", "ReferencedInstanceSequence"):
            for item in values.get(keyword, ()):
                if item["ReferencedSOPInstanceUID"] == "plan":
                    item["ReferencedSOPClassUID"] = halcyon
    found = judged()
    assert found.plans[PLAN].cbcts == {uid_of("cone"): uids_of(*CONED)}
    assert found.wrong_class == NONE


def test_a_reference_that_says_another_class(patient, judged):
    patient["plan"]["ReferencedDoseSequence"] = [named("whole dose", "RTIMAGE")]
    assert judged().wrong_class == {
        WrongClass(
            uid=uid_of("whole dose"), named_by=PLAN, said=data.CLASSES["RTIMAGE"], held=data.CLASSES["RTDOSE"]
        )
    }  # fmt: skip


def test_a_structure_set_that_is_something_else(patient, judged):
    patient["plan"]["ReferencedStructureSetSequence"] = [named("slice 1", "RTSTRUCT")]
    found = judged()
    assert found.plans[PLAN].structure_sets == NONE
    assert {each.uid for each in found.wrong_class} == uids_of("slice 1")


def test_a_second_copy_is_a_duplicate_whenever_it_was_exported(patient, judged):
    found = judged({**patient["field 1"], "InstanceCreationDate": "20260801", "InstanceCreationTime": "120000"})
    assert {uid: len(paths) for uid, paths in found.duplicates.items()} == {uid_of("field 1"): 2}
    assert dict(found.conflicts) == {}
    assert uid_of("field 1") in found.plans[PLAN].images_of(Kind.PORTAL)


def test_a_copy_of_other_content_is_a_conflict(patient, judged):
    found = judged({**patient["field 1"], "PixelData": bytes(2)}, {**patient["setup"], "RTImageLabel": "new"})
    assert {uid: len(paths) for uid, paths in found.conflicts.items()} == dict.fromkeys(uids_of("field 1", "setup"), 2)
    assert dict(found.duplicates) == {}
    # They say the same of where they belong.
    assert uids_of("field 1", "setup") <= found.plans[PLAN].images_of(Kind.PORTAL)


def test_copies_that_say_different_things_belong_nowhere(patient, judged):
    found = judged(data.record("first fraction", "20260703"))
    assert found.ambiguous == (ambiguous("first fraction", Why.COPIES_DIFFER, "plan"),)
    assert found.plans[PLAN].records == uids_of("second fraction")
    assert found.treatment_days == {("Linac1", date(2026, 7, 2)): uids_of("second fraction")}


def test_what_no_file_holds_does_not_dangle(patient, judged):
    patient["plan"]["ReferencedStudySequence"] = [named("visit", "RTPLAN")]
    assert judged().dangling == ()


def test_uids_with_a_leading_zero_are_taken_as_they_are(patient, judged):
    odd = "1.2.246.352.7.08.1"
    patient["other plan"]["ReferencedDoseSequence"] = [named(odd, "RTDOSE")]
    assert judged(data.dose(odd, owners=("other plan",))).plans[OTHER].plan_doses == {odd}


def test_files_that_are_no_objects_and_objects_without_a_head(patient, tmp_path):
    headless = data.data_set(patient.pop("plan"))
    dcmwrite(tmp_path / "headless", headless, implicit_vr=True, little_endian=True)
    manifest = tmp_path / "manifest.json"
    manifest.write_text("{}")
    (tmp_path / "empty").touch()
    found = judge(data.save_all(patient.values(), tmp_path))
    assert found.unreadable == {manifest, tmp_path / "empty"}
    assert PLAN in found.plans


# pydicom's own files --------------------------------------------------------------------------------


@pytest.fixture
def pydicoms(tmp_path):
    for name in ("rtplan.dcm", "rtdose.dcm", "rtstruct.dcm"):
        shutil.copy(get_testdata_file(name, download=False), tmp_path)
    return judge(tmp_path)


def test_dangling_references_of_pydicoms_files(pydicoms):
    plan = "1.2.777.777.77.7.7777.7777.20030903150023"
    dose = "1.9.999.999.99.9.9999.9999.20030818153516"
    drawn = "1.2.826.0.1.3680043.8.498.2010020400001"
    assert {(each.uid, each.names, *each.named_by, *each.through) for each in pydicoms.dangling} == {
        ("1.2.333.444.55.6.7777.88888", Names.INSTANCE, plan, "ReferencedStructureSetSequence"),
        ("1.9.999.999.99.9.9999.9999.20030903145128", Names.INSTANCE, plan, "ReferencedRTPlanSequence"),
        ("1.2.123.456.78.9.0123.4567.89012345678901", Names.INSTANCE, dose, "ReferencedRTPlanSequence"),
        (f"{drawn}.2.1.1", Names.SERIES, drawn, "RTReferencedSeriesSequence"),
    }


def test_pydicoms_files_do_not_belong_together(pydicoms):
    plan = "1.2.777.777.77.7.7777.7777.20030903150023"
    assert pydicoms.plans == {plan: PlanSet(plan=plan)}
    assert dict(pydicoms.of_other_plans) == {
        "1.2.123.456.78.9.0123.4567.89012345678901": {"1.9.999.999.99.9.9999.9999.20030818153516"}
    }
    assert pydicoms.unclaimed == {"1.2.826.0.1.3680043.8.498.2010020400001"}
    assert pydicoms.unreadable == NONE


# Whom it knows --------------------------------------------------------------------------------------


def test_the_oracle_loads_nothing_of_the_package():
    code = "import sys, support.oracle; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=SUPPORT.parent, capture_output=True, text=True, check=True
    ).stdout.split()  # fmt: skip
    assert {"pydicom", "support"} <= set(loaded)
    assert not {"airflow_provider_varian", "airflow", "pynetdicom"} & set(loaded)


@pytest.mark.parametrize("path", sorted(SUPPORT.glob("oracle*.py")), ids=lambda path: path.stem)
def test_the_oracle_imports_pydicom_and_its_own_parts_alone(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module)
    for name in imported:
        first, _, rest = name.partition(".")
        assert first in sys.stdlib_module_names or first == "pydicom" or rest.startswith("oracle_"), name
    assert not {"importlib", "runpy"} & {name.partition(".")[0] for name in imported}
