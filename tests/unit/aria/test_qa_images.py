from __future__ import annotations

import json
from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest
from support.scripted_peer import PENDING, dataset

from airflow_provider_varian import uids
from airflow_provider_varian.aria.plans import PlanRef
from airflow_provider_varian.aria.profile import ARIA, GENERIC
from airflow_provider_varian.aria.qa_images import Selection, find_qa_images
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import CancelledError, ConfigurationError, CroppedAnswerError, PeerFailureError
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.query.window import Window, day_window

ZONE = ZoneInfo("Europe/Zurich")
PLAN = PlanRef(
    sop_instance_uid="1.2.9",
    sop_class_uid=uids.RT_PLAN,
    study_instance_uid="1.4",
    series_instance_uid="1.3",
    label="WL",
)
DAY = day_window(date(2026, 1, 2), date(2026, 1, 2), ZONE)
PORTAL = ["ORIGINAL", "PRIMARY", "PORTAL"]


def image(number, series=1, *, leave_out=(), **values):
    values = {
        "SOPClassUID": uids.RT_IMAGE,
        "StudyInstanceUID": "1.4",
        "SeriesInstanceUID": f"1.3.{series}",
        "SOPInstanceUID": f"1.5.{number}",
        "Modality": "RTIMAGE",
        "ImageType": PORTAL,
        "AcquisitionDate": "20260102",
        "AcquisitionTime": f"0630{number:02d}.500000",
        "PrimaryDosimeterUnit": "MU",
        "ReferencedBeamNumber": number,
        "RTImageLabel": f"{number:02d}:Flood",
        "ReferencedRTPlanSequence": {"ReferencedSOPInstanceUID": "1.2.9"},
        **values,
    }
    return dataset(**{keyword: value for keyword, value in values.items() if keyword not in leave_out})


QUICK = {"stable_interval_seconds": 0.0}


def listed(scripted, window=DAY, profile=ARIA, **options):
    with FindSession(scripted.peer(timezone="Europe/Zurich"), profile=profile.overridden(QUICK)) as session:
        return find_qa_images(session, PLAN, window, **options)


def search(scripted, window=DAY, profile=ARIA, **options):
    images, warnings = listed(scripted, window, profile, **options)
    assert warnings == ()
    return images


def numbers(images):
    return [int(one.sop_instance_uid.rsplit(".", 1)[1]) for one in images]


def answering(scripted, *images):
    scripted.script = lambda request: [(PENDING, one) for one in images]


def test_images_of_all_series_are_found_by_one_query_asked_until_it_is_stable(scripted):
    scripted.serve([image(3, series=2), image(1), image(2)])
    found = search(scripted)
    assert numbers(found) == [1, 2, 3]
    assert {one.series_instance_uid for one in found} == {"1.3.1", "1.3.2"}
    first = found[0]
    assert (first.acquisition_date, first.acquisition_time, first.beam_number) == ("20260102", "063001.500000", 1)
    assert (first.image_type, first.kv, first.label, first.undecided) == (tuple(PORTAL), False, "01:Flood", ())
    assert (first.day, first.study_instance_uid, first.sop_class_uid) == (date(2026, 1, 2), "1.4", uids.RT_IMAGE)
    asked = scripted.requests
    assert len(asked) == ARIA.stable_counts
    assert all(one.identifier == asked[0].identifier for one in asked)
    assert (asked[0].level, asked[0].value("StudyInstanceUID"), asked[0].value("Modality")) == (
        "IMAGE",
        "1.4",
        "RTIMAGE",
    )
    assert asked[0].value("AcquisitionDate") == "20260102"
    assert asked[0].value("ImageType") == ""
    assert len(asked[0].identifier.ReferencedRTPlanSequence) == 1


@pytest.mark.parametrize("leave_out", [(), ("PrimaryDosimeterUnit",)])
def test_a_list_that_grows_is_asked_for_until_it_stands_still(scripted, leave_out):
    def script(request):
        there = range(1, min(len(scripted.requests), 4) + 1)
        return [(PENDING, image(number, leave_out=leave_out)) for number in there]

    scripted.script = script
    assert numbers(search(scripted)) == [1, 2, 3, 4]
    assert len(scripted.requests) == 6
    assert scripted.associations == 1


def test_images_that_are_left_open_must_stand_still_too(scripted):
    # Without a date an answer neither fits the day nor misses it: it is undecided to the query itself.
    def script(request):
        there = range(2, min(len(scripted.requests), 4) + 1)
        return [(PENDING, image(1)), *((PENDING, image(number, AcquisitionDate=None)) for number in there)]

    scripted.script = script
    assert numbers(search(scripted)) == [1, 2, 3, 4]


def test_a_list_that_never_stands_still_is_told(scripted):
    scripted.script = lambda request: [(PENDING, image(number)) for number in range(1, len(scripted.requests) + 1)]
    _, warnings = listed(scripted)
    assert [warning for warning in warnings if "did not stand still" in warning]


def test_the_suspicion_of_a_crop_is_told(scripted):
    scripted.script = lambda request: [(PENDING, image(1, SOPInstanceUID=f"1.5.{number}")) for number in range(1, 101)]
    images, warnings = listed(scripted)
    assert len(images) == 100
    assert [warning for warning in warnings if "100 matches is a round number" in warning]


def test_waiting_between_two_rounds_ends_with_a_cancellation(scripted):
    cancellation = Cancellation()

    def script(request):
        cancellation.cancel()
        return [(PENDING, image(1))]

    scripted.script = script
    with pytest.raises(CancelledError):
        search(scripted, cancellation=cancellation)
    assert len(scripted.requests) == 1


def test_date_and_time_are_compared_here(scripted):
    window = Window(datetime(2026, 1, 1, 7, 45, tzinfo=ZONE), datetime(2026, 1, 2, 6, 30, 3, tzinfo=ZONE))
    answering(
        scripted,
        image(1),
        image(2),
        image(3),
        image(4, AcquisitionDate="20260101", AcquisitionTime="074459"),
        image(5, AcquisitionDate="20260101", AcquisitionTime="074500"),
    )
    assert numbers(search(scripted, window)) == [5, 1, 2]
    assert scripted.requests[0].value("AcquisitionDate") == "20260101-20260102"


def test_images_of_other_plans_are_not_taken(scripted):
    other = {"ReferencedSOPInstanceUID": "1.2.99"}
    answering(scripted, image(1), image(2, ReferencedRTPlanSequence=other))
    assert numbers(search(scripted)) == [1]


@pytest.mark.parametrize("reference", [None, [], {"ReferencedSOPInstanceUID": ""}])
def test_a_plan_reference_that_is_absent_or_empty_is_for_the_object_to_tell(scripted, reference):
    if reference is None:
        answering(scripted, image(1, leave_out=("ReferencedRTPlanSequence",)))
    else:
        answering(scripted, image(1, ReferencedRTPlanSequence=reference))
    (only,) = search(scripted)
    assert only.undecided == ("ReferencedRTPlanSequence",)


@pytest.mark.parametrize(("images", "wanted"), [("portal", [1]), ("portal_dose", [2]), ("any", [1, 2, 3])])
def test_image_type_is_compared_as_a_whole(scripted, images, wanted):
    answering(
        scripted,
        image(1),
        image(2, ImageType=[*PORTAL, "ACQUIRED_DOSE"]),
        image(3, ImageType=[*PORTAL, "PREDICTED_DOSE"]),
    )
    assert numbers(search(scripted, images=images)) == wanted


@pytest.mark.parametrize(("kv", "wanted"), [(False, [1, 3, 4]), (True, [1, 2, 3, 4])])
def test_kv_images_in_the_same_series_go_by_their_dosimeter(scripted, kv, wanted):
    answering(
        scripted,
        image(1),
        image(2, PrimaryDosimeterUnit="MINUTE"),
        image(3, PrimaryDosimeterUnit=None),
        image(4, leave_out=("PrimaryDosimeterUnit",)),
    )
    found = search(scripted, kv=kv)
    assert numbers(found) == wanted
    assert [one.kv for one in found if one.sop_instance_uid != "1.5.2"] == [False, None, None]
    flagged = [one.sop_instance_uid for one in found if "PrimaryDosimeterUnit" in one.undecided]
    assert flagged == ([] if kv else ["1.5.3", "1.5.4"])


def test_an_image_without_acquisition_date_is_kept_and_flagged(scripted):
    answering(scripted, image(1), image(2, AcquisitionDate=None), image(3, AcquisitionTime=None))
    found = search(scripted)
    assert numbers(found) == [1, 3, 2]
    assert [one.undecided for one in found] == [(), (), ("AcquisitionDate",)]
    assert found[-1].day is None


def test_a_missing_time_on_the_windows_last_day_is_undecided(scripted):
    answering(scripted, image(1, AcquisitionTime=None))
    half = Window(datetime(2026, 1, 2, tzinfo=ZONE), datetime(2026, 1, 2, 7, 45, tzinfo=ZONE))
    (only,) = search(scripted, half)
    assert only.undecided == ("AcquisitionDate",)
    assert only.day == date(2026, 1, 2)


def test_a_missing_image_type_is_kept_and_flagged(scripted):
    answering(scripted, image(1, ImageType=None))
    assert search(scripted)[0].undecided == ("ImageType",)
    assert search(scripted, images="any")[0].undecided == ()


def test_an_image_that_is_listed_twice_is_one_image(scripted):
    answering(scripted, image(1), image(1))
    assert numbers(search(scripted)) == [1]


def test_a_peer_that_ignores_study_and_modality_mixes_nothing_in(scripted):
    answering(scripted, image(1), image(2, StudyInstanceUID="1.6"), image(3, Modality="CT"))
    assert numbers(search(scripted)) == [1]


def test_a_crop_is_an_error(scripted):
    scripted.script = lambda request: [(PENDING, image(1)), (0xC001, None)]
    with pytest.raises(CroppedAnswerError):
        search(scripted)


def test_an_image_without_its_uid_is_an_error(scripted):
    answering(scripted, image(1, SOPInstanceUID=None))
    with pytest.raises(PeerFailureError, match="without its SOP Instance UID"):
        search(scripted)


def test_an_archive_without_relational_queries_serves_too(scripted):
    scripted.serve([image(1), image(2, series=2), image(3, Modality="CT", series=3)], hierarchical=True)
    assert numbers(search(scripted, profile=GENERIC)) == [1, 2]


def test_another_kind_of_images_is_refused_before_any_query(scripted):
    with pytest.raises(ConfigurationError, match="portal, portal_dose, any"):
        search(scripted, images="drr")
    assert not scripted.requests


def test_a_connection_without_zone_is_refused(scripted):
    with FindSession(scripted.peer(), profile=ARIA) as session, pytest.raises(ConfigurationError, match="time zone"):
        find_qa_images(session, PLAN, DAY)


def test_an_image_is_json_ready(scripted):
    answering(scripted, image(1))
    told = search(scripted)[0].to_json()
    assert json.loads(json.dumps(told)) == told


def selection(**options):
    return Selection(plan_uid="1.2.9", window=DAY, zone=ZONE, **options)


def test_the_object_decides_what_the_answer_left_open():
    assert selection().of_object(image(1)).undecided == ()
    assert selection().of_object(image(1, PrimaryDosimeterUnit="MINUTE")) is None
    assert selection().of_object(image(1, leave_out=("ReferencedRTPlanSequence",))) is None
    assert selection().of_object(image(1, AcquisitionDate="20260103")) is None
    assert selection().of_object(image(1, leave_out=("PrimaryDosimeterUnit",))).undecided == ("PrimaryDosimeterUnit",)


def test_the_pixels_of_an_object_are_not_looked_at():
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    class Pixels(bytes):
        def __bool__(self):
            raise AssertionError("pixels were read")

    made = image(1)
    made._dict[Tag(0x7FE00010)] = RawDataElement(Tag(0x7FE00010), "OW", 2, Pixels(b"ab"), 0, True, True, True, True)
    assert selection().of_object(made) is not None
