from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from support.asked_clinic import ONCE, QUICK, asked
from support.scripted_peer import PENDING, dataset

from airflow_provider_varian import uids
from airflow_provider_varian.aria.plans import PlanRef
from airflow_provider_varian.aria.rt_images import KINDS, Wanted, find_rt_images
from airflow_provider_varian.errors import ConfigurationError, PeerFailureError
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.query.window import Window, day_window
from airflow_provider_varian.simulator.facts import case_facts, facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

ZONE = ZoneInfo("Europe/Zurich")
MONDAY, FRIDAY = date(2026, 11, 16), date(2026, 11, 20)
WEEK = day_window(MONDAY, FRIDAY, ZONE)
TYPES = {
    ("ORIGINAL", "PRIMARY", "PORTAL"): "portal",
    ("ORIGINAL", "PRIMARY", "PORTAL", "ACQUIRED_DOSE"): "portal_dose",
    ("DERIVED", "SECONDARY", "PORTAL", "PREDICTED_DOSE"): "predicted",
}


@pytest.fixture(scope="module")
def clinic():
    return Clinic(seed=1, patients=70, days=5, until=FRIDAY, matrix=64)


def clinic_images(clinic):
    """Tell of each RT Image of the clinic: when, of which plan and machine, of which kind, kV or not."""
    for plan in facts(clinic):
        for image in (image for day in plan.days for image in plan.images(day)):
            # Portal dose is of MV images alone.
            kind = "portal" if image.kv else TYPES[plan.place.plan.image_type]
            yield image.sop_instance_uid, image.acquired, plan.sop_instance_uid, plan.machine, kind, image.kv
    for case in case_facts(clinic):
        for plan in case.plans:
            for beam in plan.beams:
                if beam.drr_uid:
                    yield beam.drr_uid, plan.planned, plan.sop_instance_uid, plan.machine, "drr", False
        for image in (*case.strays, *(image for plan in case.plans for image in plan.portal_images)):
            of_plan = image.plan.sop_instance_uid if image.plan else ""
            kind = TYPES[image.image_type]
            yield image.sop_instance_uid, image.acquired, of_plan, image.machine, kind, image.beam is None


def truth(clinic, wanted):
    return {uid for uid, *said in clinic_images(clinic) if wanted(*said)}


def uids_of(images):
    found = [image.sop_instance_uid for image in images]
    assert len(found) == len(set(found))
    return set(found)


def in_week(moment):
    return MONDAY <= moment.date() <= FRIDAY


# The simulated clinic ----------------------------------------------------------------------------


def test_a_weeks_images_of_the_whole_clinic(clinic):
    expected = truth(clinic, lambda moment, *_: in_week(moment))
    with asked(clinic) as session:
        images, warnings = find_rt_images(session, WEEK)
    assert uids_of(images) == expected
    assert warnings == ()
    assert {image.patient_id for image in images} > {"QA_TB_WL"}
    assert [image.acquired for image in images] == sorted(image.acquired for image in images)


def test_too_many_for_one_answer_are_asked_for_in_parts(clinic):
    expected = truth(clinic, lambda moment, *_: in_week(moment))
    with asked(clinic, row_limit=len(expected) // 2) as session:
        images, _ = find_rt_images(session, WEEK)
    assert uids_of(images) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_by_itself(clinic, kind):
    month = day_window(date(2026, 10, 20), FRIDAY, ZONE)

    def wanted(moment, plan, machine, of_kind, kv):
        return date(2026, 10, 20) <= moment.date() <= FRIDAY and kind in ("any", of_kind)

    expected = truth(clinic, wanted)
    assert expected
    with asked(clinic) as session:
        images, _ = find_rt_images(session, month, kind=kind)
    assert uids_of(images) == expected
    assert not any(image.undecided for image in images)


@pytest.mark.parametrize("machine", ["TrueBeam1", "Halcyon2"])
@pytest.mark.parametrize("energy", ["mv", "kv"])
def test_of_a_machine_by_energy_what_the_planning_system_made_for_it_too(clinic, machine, energy):
    def wanted(moment, plan, of_machine, kind, kv):
        return in_week(moment) and of_machine == machine and kv == (energy == "kv")

    expected = truth(clinic, wanted)
    with asked(clinic) as session:
        images, _ = find_rt_images(session, WEEK, machine=machine, energy=energy)
    assert uids_of(images) == expected
    assert {image.machine for image in images} <= {machine}


def test_of_a_plan_in_hours(clinic):
    (plan,) = [fact for fact in facts(clinic) if (fact.course, fact.label) == ("QA", "WL_10MV")]
    reference = PlanRef(
        sop_instance_uid=plan.sop_instance_uid, sop_class_uid=uids.RT_PLAN, label=plan.label,
        study_instance_uid=plan.study_instance_uid, series_instance_uid=plan.series_instance_uid,
    )  # fmt: skip
    moments = sorted(image.acquired for image in plan.images(FRIDAY))
    middle = moments[len(moments) // 2]
    window = Window((middle - timedelta(days=1)).replace(tzinfo=ZONE), middle.replace(tzinfo=ZONE))
    expected = truth(
        clinic,
        lambda moment, of_plan, *_: of_plan == plan.sop_instance_uid and middle - timedelta(days=1) <= moment < middle,
    )
    assert 0 < len(expected) < 2 * len(moments)
    with asked(clinic) as session:
        images, _ = find_rt_images(session, window, plan=reference)
    assert uids_of(images) == expected
    assert {image.plan_uids for image in images} == {(plan.sop_instance_uid,)}


# Peers that answer less --------------------------------------------------------------------------

DAY = day_window(date(2026, 1, 2), date(2026, 1, 2), ZONE)


def image(number, *, leave_out=(), **values):
    values = {
        "SOPClassUID": uids.RT_IMAGE,
        "StudyInstanceUID": "1.4",
        "SeriesInstanceUID": "1.3",
        "SOPInstanceUID": f"1.5.{number}",
        "PatientID": "PAT-1",
        "Modality": "RTIMAGE",
        "ImageType": ["ORIGINAL", "PRIMARY", "PORTAL"],
        "AcquisitionDate": "20260102",
        "AcquisitionTime": f"0630{number:02d}.500000",
        "PrimaryDosimeterUnit": "MU",
        "RadiationMachineName": "TB1",
        "StationName": "TB1",
        **values,
    }
    return dataset(**{keyword: value for keyword, value in values.items() if keyword not in leave_out})


def search(scripted, *images, profile=ONCE, **options):
    scripted.script = lambda request: [(PENDING, one) for one in images]
    with FindSession(scripted.peer(timezone="Europe/Zurich"), profile=profile) as session:
        return find_rt_images(session, DAY, **options)[0]


def numbers(images):
    return [int(one.sop_instance_uid.rsplit(".", 1)[1]) for one in images]


def test_the_machine_is_named_by_whichever_attribute_the_peer_answers(scripted):
    found = search(
        scripted,
        image(1),
        image(2, leave_out=["RadiationMachineName"]),
        image(3, leave_out=["StationName"]),
        image(4, StationName="ARIADB"),
        image(5, RadiationMachineName="TB2"),
        image(6, leave_out=["RadiationMachineName"], StationName="TB2"),
        image(7, leave_out=["RadiationMachineName", "StationName"]),
        machine="TB1",
    )
    assert numbers(found) == [1, 2, 3, 4, 7]
    assert [one.undecided for one in found] == [(), (), (), (), ("RadiationMachineName",)]
    (request,) = scripted.requests
    assert (request.value("RadiationMachineName"), request.value("StationName")) == ("", "")


def test_computed_portal_dose_goes_by_more_than_one_name(scripted):
    types = [["DERIVED", "SECONDARY", "PORTAL", "PREDICTED_DOSE"], ["ORIGINAL", "PRIMARY", "PORTAL", "CALCULATED_DOSE"],
             ["DERIVED", "SECONDARY", "PORTAL"], ["DERIVED", "SECONDARY", "PORTAL", "PREDICTED_DOSE", "X"]]  # fmt: skip
    images = [image(number, ImageType=kind) for number, kind in enumerate(types, start=1)]
    assert numbers(search(scripted, *images, kind="predicted")) == [1, 2]


@pytest.mark.parametrize(("energy", "wanted"), [("mv", [1, 3]), ("kv", [2, 3]), ("any", [1, 2, 3])])
def test_energy_shows_by_the_dosimeter_and_is_kept_when_it_does_not_show(scripted, energy, wanted):
    found = search(
        scripted, image(1), image(2, PrimaryDosimeterUnit="MINUTE"), image(3, PrimaryDosimeterUnit=None), energy=energy
    )
    assert numbers(found) == wanted
    flagged = [one.sop_instance_uid for one in found if one.undecided]
    assert flagged == ([] if energy == "any" else ["1.5.3"])


def test_without_a_plan_images_of_any_plan_and_of_none_are_taken(scripted):
    found = search(scripted, image(1, ReferencedRTPlanSequence={"ReferencedSOPInstanceUID": "1.2.9"}), image(2))
    assert [(one.plan_uids, one.undecided) for one in found] == [(("1.2.9",), ()), ((), ())]
    (request,) = scripted.requests
    assert (request.value("Modality"), request.value("AcquisitionDate")) == ("RTIMAGE", "20260102")
    assert "StudyInstanceUID" in request.identifier
    assert not request.value("StudyInstanceUID")


def test_the_object_decides_what_the_answer_left_open():
    wanted = Wanted(window=DAY, zone=ZONE, machine="TB1", kind="drr")
    drr = {"ImageType": ["DERIVED", "SECONDARY", "DRR"]}
    assert wanted.of_object(image(1, **drr)).undecided == ()
    assert wanted.of_object(image(1)) is None
    assert wanted.of_object(image(1, **drr, RadiationMachineName="TB2")) is None
    no_name = wanted.of_object(image(1, **drr, leave_out=["RadiationMachineName", "StationName"]))
    assert no_name.undecided == ("RadiationMachineName",)


def test_a_moment_is_the_clinics_clock(scripted):
    found = search(
        scripted, image(1, AcquisitionTime="114107.643000"), image(2, AcquisitionTime="12"),
        image(3, AcquisitionTime=None), image(4, AcquisitionDate=None), image(5, AcquisitionTime="25"),
    )  # fmt: skip
    moments = {one.sop_instance_uid: one.acquired for one in found}
    assert moments == {
        "1.5.1": datetime(2026, 1, 2, 11, 41, 7, 643000), "1.5.2": datetime(2026, 1, 2, 12),
        "1.5.3": None, "1.5.4": None, "1.5.5": None,
    }  # fmt: skip


def test_what_is_json_or_shown_has_no_patient(scripted):
    (only,) = search(scripted, image(1))
    told = only.to_json()
    assert json.loads(json.dumps(told)) == told
    assert only.patient_id == "PAT-1"
    assert "PAT" not in json.dumps(told) + repr(only)


@pytest.mark.parametrize("wrong", [{"kind": "cbct"}, {"energy": "keV"}])
def test_another_kind_or_energy_is_refused_before_any_query(scripted, wrong):
    with pytest.raises(ConfigurationError, match="Use one of"):
        search(scripted, image(1), **wrong)
    assert not scripted.requests


def test_an_image_without_its_uid_is_an_error(scripted):
    with pytest.raises(PeerFailureError, match="without its SOP Instance UID"):
        search(scripted, image(1, SOPInstanceUID=None))


def test_a_list_that_grows_is_asked_for_until_it_stands_still(scripted):
    def script(request):
        return [(PENDING, image(number)) for number in range(1, min(len(scripted.requests), 3) + 1)]

    scripted.script = script
    with FindSession(scripted.peer(timezone="Europe/Zurich"), profile=QUICK) as session:
        assert numbers(find_rt_images(session, DAY)[0]) == [1, 2, 3]
    assert len(scripted.requests) == 5
