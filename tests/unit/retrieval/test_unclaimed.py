"""What a standing receiver holds that nobody has claimed: in its spool, or in its store; looked at and left alone."""

from __future__ import annotations

import shutil
import time

import pytest
from pydicom.dataset import Dataset
from support.archive import rt_image
from support.published import Published
from support.spooled import begin, receive

from airflow_provider_varian import uids
from airflow_provider_varian.errors import QueryError, ReceiverUnavailableError
from airflow_provider_varian.receiver.progress import FOLDER, Progress
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.retrieval import unclaimed
from airflow_provider_varian.retrieval.receivers import NamedReceiver
from airflow_provider_varian.retrieval.unclaimed import SpoolLook, place_of, wanted_of

IMAGE, OTHER = rt_image(1), rt_image(2)
PLAN = rt_image(3, SOPClassUID=uids.RT_PLAN, Modality="RTPLAN", StudyInstanceUID="1.2.3.9")


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


@pytest.fixture
def standing(spool):
    sink = SpoolSink(spool, standing=True)
    yield sink
    sink.close()


def fitting(look, **keys):
    return sorted(each.sop_instance_uid for each in look.fitting(wanted_of(keys)))


def uids_of(*datasets):
    return sorted(str(each.SOPInstanceUID) for each in datasets)


def files(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*.dcm")}


def test_objects_are_told_apart_by_uids_class_and_modality(spool, standing):
    for each in (IMAGE, OTHER, PLAN):
        receive(standing, each)
    before = files(spool.root)
    look = SpoolLook(spool).look()
    assert fitting(look) == uids_of(IMAGE, OTHER, PLAN)
    assert fitting(look, StudyInstanceUID=str(IMAGE.StudyInstanceUID)) == uids_of(IMAGE, OTHER)
    assert fitting(look, SeriesInstanceUID=str(IMAGE.SeriesInstanceUID), SOPClassUID=uids.RT_PLAN) == uids_of(PLAN)
    assert fitting(look, SOPInstanceUID=uids_of(IMAGE, PLAN)) == uids_of(IMAGE, PLAN)
    assert fitting(look, Modality="RTPLAN") == uids_of(PLAN)
    assert fitting(look, Modality=["RTPLAN", "RTIMAGE"], StudyInstanceUID="1.2.3.9") == uids_of(PLAN)
    assert look.is_running
    assert files(spool.root) == before


def test_what_was_sent_to_another_title_does_not_count_for_one(spool, standing):
    receive(standing, IMAGE)
    look = SpoolLook(spool).look()
    assert len(look.fitting({}, "AIRFLOW")) == 1
    assert look.fitting({}, "OTHER") == []


def test_what_is_claimed_or_a_retrievals_own_is_not_seen(spool, standing):
    receive(standing, IMAGE)
    receive(standing, OTHER)
    spool.claim("somebody", uids_of(IMAGE))
    own = SpoolSink(spool)
    receive(own, PLAN)
    assert fitting(SpoolLook(spool).look()) == uids_of(OTHER)
    own.close()
    assert fitting(SpoolLook(spool).look()) == uids_of(OTHER, PLAN)  # its writer is gone: anybody's


def test_a_head_is_read_once_and_forgotten_with_its_object(spool, standing, monkeypatch):
    read, heads = unclaimed._read_file, []

    def counted(item):
        heads.append(item.sop_instance_uid)
        return read(item)

    monkeypatch.setattr(unclaimed, "_read_file", counted)
    receive(standing, IMAGE)
    place = SpoolLook(spool)
    for _ in range(3):
        assert fitting(place.look()) == uids_of(IMAGE)
    receive(standing, OTHER)
    assert fitting(place.look()) == uids_of(IMAGE, OTHER)
    assert heads == [str(IMAGE.SOPInstanceUID), str(OTHER.SOPInstanceUID)]
    spool.claim("somebody", uids_of(IMAGE, OTHER))
    place.look()
    assert place._known._fronts == {}


def test_what_is_arriving_is_told_by_what_it_is(spool, standing):
    writer = begin(standing, IMAGE)
    look = SpoolLook(spool).look()
    assert look.objects == ()
    assert look.has_arriving(wanted_of({"StudyInstanceUID": str(IMAGE.StudyInstanceUID)}), "AIRFLOW")
    assert not look.has_arriving(wanted_of({"StudyInstanceUID": "1.2.3.9"}), "AIRFLOW")
    assert not look.has_arriving({}, "OTHER")
    writer.abandon()
    assert not SpoolLook(spool).look().has_arriving({})


def test_a_receiver_that_is_gone_is_seen(spool):
    sink = SpoolSink(spool, standing=True)
    assert SpoolLook(spool).look().is_running is True
    sink.close()
    assert SpoolLook(spool).look().is_running is False


def test_a_file_that_does_not_say_what_it_is_is_no_object(spool, standing):
    receive(standing, IMAGE)
    (item,) = spool.unclaimed()
    item.path.write_bytes(b"not DICOM")
    assert SpoolLook(spool).look().objects == ()


def test_an_object_without_its_modality_at_the_head_has_none(spool, standing):
    bare = Dataset()
    bare.SOPClassUID, bare.SOPInstanceUID = uids.RT_IMAGE, "1.2.3.4"
    bare.StudyInstanceUID, bare.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    receive(standing, bare)
    look = SpoolLook(spool).look()
    assert fitting(look) == ["1.2.3.4"]
    assert fitting(look, Modality="RTIMAGE") == []


def test_a_spool_that_is_gone_says_so(spool, standing, tmp_path):
    place = SpoolLook(spool)
    shutil.move(spool.root, tmp_path / "elsewhere")
    with pytest.raises(ReceiverUnavailableError, match="cannot be used"):
        place.look()
    with pytest.raises(ReceiverUnavailableError, match="not the spool of a receiver"):
        place_of(NamedReceiver(name="night", spool_root=spool.root))
    shutil.move(tmp_path / "elsewhere", spool.root)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"StudyInstanceUid": "1.2"}, "Did you mean StudyInstanceUID"),
        ({"PatientID": "X"}, "Choose from StudyInstanceUID"),
        ({"StudyInstanceUID": "1.2.*"}, "a value of StudyInstanceUID"),
        ({"StudyInstanceUID": []}, "a value of StudyInstanceUID"),
        ({"Modality": ["CT", 3]}, "a value of Modality"),
        ({"Modality": ""}, "a value of Modality"),
        ({"Modality": None}, "a value of Modality"),
    ],
)
def test_what_cannot_be_waited_for_is_refused_without_its_value(keys, says):
    with pytest.raises(QueryError, match=says) as raised:
        wanted_of(keys)
    assert "1.2.*" not in str(raised.value)


# ---------------------------------------------------------------------------------------------------------- the store


@pytest.fixture
def published(tmp_path):
    with Published(tmp_path) as it:
        yield it


def store_of(published):
    return place_of(NamedReceiver(name="night", store=str(published.store)))


def test_a_store_is_looked_at_in_the_same_way(published):
    assert store_of(published).look().objects == ()  # nothing was ever published
    published.publish(IMAGE, PLAN)
    look = store_of(published).look()
    assert fitting(look, Modality="RTPLAN") == uids_of(PLAN)
    assert fitting(look) == uids_of(IMAGE, PLAN)
    assert look.is_running is None
    assert all(abs(each.received - time.time()) < 60 for each in look.objects)
    assert len(look.fitting({}, "OTHER")) == 0


def test_what_is_claimed_in_the_store_is_not_seen(published):
    place = store_of(published)
    first = published.sharer("first", IMAGE).ask(IMAGE)
    published.publish(IMAGE, OTHER)
    assert fitting(place.look()) == uids_of(IMAGE, OTHER)
    first.look()
    assert fitting(place.look()) == uids_of(OTHER)
    assert len(list((published.store / "objects").rglob("*.dcm"))) == 2


def test_a_published_object_is_read_once(published, monkeypatch):
    place = store_of(published)
    published.publish(IMAGE)
    place.look()
    monkeypatch.setattr(unclaimed, "_read_stored", lambda *_: pytest.fail("read again"))
    assert fitting(place.look()) == uids_of(IMAGE)


def test_what_a_receiver_elsewhere_says_is_arriving_counts(published):
    now = time.time()
    said = Progress(written=now, until=now, arriving=(str(IMAGE.SOPInstanceUID),))
    folder = published.store / FOLDER
    folder.mkdir(parents=True)
    (folder / "0123456789abcdef.json").write_text(said.text())
    look = store_of(published).look()
    assert look.is_running is True
    assert look.has_arriving({})
    assert look.has_arriving(wanted_of({"SOPInstanceUID": uids_of(IMAGE)}))
    assert not look.has_arriving(wanted_of({"SOPInstanceUID": uids_of(OTHER)}))


def test_a_store_that_cannot_be_read_says_so(published):
    published.publish(IMAGE)
    (published.store / "claims").write_text("not a folder")
    with pytest.raises(ReceiverUnavailableError, match="the store of the standing receiver 'night'"):
        store_of(published).look()
