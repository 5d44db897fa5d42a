"""What lies in a spool is brought to a store, once and whole, whatever is killed or down in between."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath

import pytest
from support import s3
from support.archive import rt_image
from support.ports import wait_until

from airflow_provider_varian.errors import DestinationWriteError
from airflow_provider_varian.receiver import publishing, withdrawing
from airflow_provider_varian.receiver.observer import AssociationFacts
from airflow_provider_varian.receiver.progress import Progress
from airflow_provider_varian.receiver.published import Note, Notes
from airflow_provider_varian.receiver.publishing import Publisher
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.receiver.sweep import Sweeper
from airflow_provider_varian.receiver.upkeep import UpkeepObserver
from airflow_provider_varian.retrieval.destination import Destination


class Told(UpkeepObserver):
    """Remembers what it was told."""

    def __init__(self):
        self.names = []
        self.sizes = []
        self.failures = []

    def published(self, name, size, seconds):
        self.names.append(name)
        self.sizes.append(size)
        assert seconds >= 0

    def publish_failed(self, reason):
        self.failures.append(reason)


@pytest.fixture
def told():
    return Told()


@pytest.fixture(autouse=True)
def now(monkeypatch):
    """Look for claims in each round."""
    monkeypatch.setattr(publishing, "CLAIMS_SECONDS", 0.0)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def publisher(spool, root, told):
    return Publisher(spool, Destination(root), observer=told)


@pytest.fixture
def received(spool, put):
    """Receive images; return their objects by number."""

    def receive(*numbers):
        with SpoolSink(spool) as sink:
            for number in numbers:
                put(sink, rt_image(number))
        return [find(spool, number) for number in numbers]

    return receive


def find(spool, number):
    (item,) = spool.unclaimed({rt_image(number).SOPInstanceUID})
    return item


def final(item):
    return PurePosixPath("objects") / item.path.parent.name / item.path.name


def claim(root, item, retrieval_id="r-1"):
    Destination(root).write_text(PurePosixPath("claims") / item.path.name / retrieval_id, "")


def in_store(root):
    """Return the paths of all objects and claims."""
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return {str(path) for path in found if path.parts[0] not in {".dicom", "published"}}


def test_an_object_is_brought_to_its_final_name_and_stays_in_the_spool(spool, root, publisher, received, told):
    (item,) = received(1)
    assert publisher.run_once() is False
    assert in_store(root) == {str(final(item))}
    assert (root / final(item)).read_bytes() == item.path.read_bytes()
    assert told.names == [item.path.name]
    assert told.sizes == [item.path.stat().st_size]
    assert publisher.backlog == 0
    assert publisher.trouble() is None


def test_what_is_published_is_not_published_again(spool, root, received, told, publisher):
    (item,) = received(1)
    publisher.run_once()
    (root / final(item)).unlink()
    publisher.run_once()
    Publisher(spool, Destination(root), observer=told).run_once()
    assert told.names == [item.path.name]


@pytest.fixture
def settled(spool, monkeypatch):
    """Follow no claims after the first round; let all folders have changed last at one time, a minute ago or so."""
    now = time.time()

    def settle(seconds=-60.0):
        monkeypatch.setattr(publishing, "CLAIMS_SECONDS", 3600.0)
        when = now + seconds
        for folder in (*spool.new.glob("*"), *(spool.root / "published").glob("*/*")):
            os.utime(folder, (when, when))

    return settle


def test_folders_that_have_not_changed_are_not_listed_again(spool, publisher, received, told, settled, monkeypatch):
    received(1, 2, 3)
    publisher.run_once()
    settled()
    publisher.run_once()
    listed, listdir = [], os.listdir

    def traced(folder):
        if Path(folder).name != "tmp":  # what is arriving
            listed.append(Path(folder))
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", traced)
    publisher.run_once()
    assert listed == [spool.new]
    monkeypatch.setattr(os, "listdir", listdir)
    (item,) = received(4)
    monkeypatch.setattr(os, "listdir", traced)
    publisher.run_once()
    assert {path.name for path in listed} == {"new", item.path.parent.name}
    assert told.names[3:] == [item.path.name]


def test_a_second_change_at_the_same_time_is_not_overlooked(publisher, received, told, settled):
    received(1)
    publisher.run_once()
    settled(60.0)
    publisher.run_once()
    received(2)
    settled(60.0)
    publisher.run_once()
    assert len(told.names) == 2


def test_what_was_let_go_of_is_not_brought_again(publisher, received, told, spool):
    received(1)
    publisher.run_once()
    (note,) = (spool.root / "published").glob("*/*/*")
    note.rename(f"{note}.gone")
    publisher.run_once()
    assert len(told.names) == 1


def test_what_becomes_free_without_a_change_of_its_folder_is_published(spool, publisher, put, told, settled):
    with SpoolSink(spool) as sink:
        put(sink)
        settled()
        publisher.run_once()
        assert told.names == []
    publisher.run_once()
    assert len(told.names) == 1


def test_the_oldest_comes_first_and_a_batch_is_bounded(spool, publisher, received, told, monkeypatch):
    monkeypatch.setattr(publishing, "_BATCH", 2)
    items = received(1, 2, 3, 4, 5)
    for age, item in zip((30, 10, 50, 20, 40), items, strict=True):
        os.utime(item.path, (0, time.time() - age))
    assert publisher.run_once() is True
    assert told.names == [items[2].path.name, items[4].path.name]
    assert publisher.backlog == 3
    assert publisher.run_once() is True
    assert publisher.run_once() is False
    assert told.names == [items[place].path.name for place in (2, 4, 0, 3, 1)]


def test_a_claimed_object_leaves_spool_and_store_and_later_its_claim(spool, root, publisher, received, monkeypatch):
    item, other = received(1, 2)
    publisher.run_once()
    claim(root, item)
    publisher.run_once()
    assert [found.path for found in spool.unclaimed()] == [other.path]
    assert in_store(root) == {str(final(other)), f"claims/{item.path.name}/r-1"}
    publisher.run_once()
    assert f"claims/{item.path.name}/r-1" in in_store(root)
    monkeypatch.setattr(withdrawing, "CLAIMS_KEPT_SECONDS", 0.0)
    publisher.run_once()
    assert in_store(root) == {str(final(other))}
    assert list((root / "claims").iterdir()) == []
    assert notes(spool) == [other.path.name]


def notes(spool):
    return sorted(path.name for path in (spool.root / "published").glob("*/*/*"))


def brought(bucket):
    """Return the objects and claims in a bucket; what the publisher says is left out."""
    return {key: content for key, content in bucket.contents().items() if not key.startswith("published/")}


def test_what_is_not_claimed_stays(root, publisher, received):
    (item,) = received(1)
    publisher.run_once()
    (root / "claims" / item.path.name).mkdir(parents=True)
    (root / "claims" / "strange").mkdir()
    publisher.run_once()
    assert item.path.exists()
    assert (root / final(item)).exists()


def test_a_claim_of_what_was_never_published_takes_nothing_from_the_spool(root, publisher, received):
    (item,) = received(1)
    claim(root, item)
    publisher.run_once()
    assert item.path.exists()
    assert (root / final(item)).exists()


@pytest.mark.parametrize("how", ["claimed here", "swept"])
def test_what_has_left_the_spool_leaves_the_store(spool, root, publisher, received, how):
    item, other = received(1, 2)
    publisher.run_once()
    if how == "swept":
        os.utime(item.path, (0, 0))
        assert Sweeper(spool).sweep().removed == 1
    else:
        assert len(spool.claim("r-1", {item.sop_instance_uid})) == 1
    publisher.run_once()
    assert in_store(root) == {str(final(other))}


def test_what_is_not_published_and_swept_never_was_there(spool, root, publisher, received):
    (item,) = received(1)
    os.utime(item.path, (0, 0))
    Sweeper(spool).sweep()
    publisher.run_once()
    assert in_store(root) == set()


def test_what_a_living_retrieval_receives_for_itself_is_not_published(spool, root, publisher, put, told):
    with SpoolSink(spool) as sink:
        put(sink)
        publisher.run_once()
        assert told.names == []
        assert publisher.backlog == 0
    publisher.run_once()
    assert len(told.names) == 1


def test_what_a_standing_receiver_receives_is(spool, root, publisher, put, told):
    with SpoolSink(spool, standing=True) as sink:
        put(sink)
        publisher.run_once()
        assert len(told.names) == 1


def test_another_store_begins_anew(spool, root, publisher, received, told, tmp_path):
    received(1)
    publisher.run_once()
    Publisher(spool, Destination(tmp_path / "other"), observer=told).run_once()
    assert len(told.names) == 2
    assert in_store(tmp_path / "other") == in_store(root)


def test_of_two_receivers_with_one_store_each_touches_its_own(spool, root, publisher, received, tmp_path, put):
    from airflow_provider_varian.receiver.spool import Spool

    other_spool = Spool(tmp_path / "other-spool")
    with SpoolSink(other_spool) as sink:
        put(sink, rt_image(1))
    theirs = find(other_spool, 1)
    other = Publisher(other_spool, Destination(root))
    other.run_once()
    (ours,) = received(1)
    publisher.run_once()
    claim(root, theirs)
    for _ in range(2):
        publisher.run_once()
    assert in_store(root) == {str(final(ours)), str(final(theirs)), f"claims/{theirs.path.name}/r-1"}
    other.run_once()
    assert str(final(theirs)) not in in_store(root)
    assert ours.path.exists()


def test_what_is_there_already_is_compared_and_not_written_again(root, publisher, received, told):
    (item,) = received(1)
    path = root / final(item)
    path.parent.mkdir(parents=True)
    path.write_bytes(item.path.read_bytes())
    before = path.stat()
    publisher.run_once()
    assert told.names == [item.path.name]
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("content", [b"short", None])
def test_what_is_there_and_differs_is_not_touched_and_not_taken_for_published(
    root, publisher, received, told, content, spool
):
    item, other = received(1, 2)
    path = root / final(item)
    path.parent.mkdir(parents=True)
    # Of the same size, when it is not short.
    path.write_bytes(content or bytes(item.path.stat().st_size))
    there = path.read_bytes()
    publisher.run_once()
    assert told.failures == ["store"]
    assert not publisher.troubled
    assert told.names == [other.path.name], "the others come all the same"
    assert path.read_bytes() == there
    assert item.path.exists()
    assert publisher.backlog == 1
    publisher.run_once()
    assert told.failures == ["store"], "and it is not tried at once again"


def test_what_was_changed_in_the_store_is_left_there_and_said(root, publisher, received, caplog, spool):
    (item,) = received(1)
    publisher.run_once()
    (root / final(item)).write_bytes(b"changed")
    spool.claim("r-1", {item.sop_instance_uid})
    publisher.run_once()
    assert (root / final(item)).read_bytes() == b"changed"
    assert "is not what was published, and is left there" in caplog.text


SCRIPT = """
import os, sys
from airflow_provider_varian.receiver import published, publishing, withdrawing
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.retrieval.destination import Destination
import airflow_provider_varian.retrieval.local_store as local_store

where, spool, root = sys.argv[1:]
die = lambda *args, **kwargs: os._exit(9)
def die_after(function):
    def call(*args, **kwargs):
        function(*args, **kwargs)
        os._exit(9)
    return call

publisher = publishing.Publisher(Spool(spool), Destination(root))
publishing.CLAIMS_SECONDS = withdrawing.CLAIMS_KEPT_SECONDS = 0.0
match where:
    case "before the note": published.Notes.begin = die
    case "after the note": published.Notes.begin = die_after(published.Notes.begin)
    case "in the middle": local_store._link = die
    case "before it is noted as published": published.Note.becomes = die
    case "after it is noted as published": published.Note.becomes = die_after(published.Note.becomes)
    case "before it is removed from the store": Destination.remove = die
    case "after it was removed from the store": Destination.remove = die_after(Destination.remove)
publisher.run_once()
os._exit(0)
"""


def run_and_die(where, spool, root):
    ended = subprocess.run([sys.executable, "-c", SCRIPT, where, str(spool.root), str(root)], timeout=60)
    assert ended.returncode == 9


@pytest.mark.parametrize(
    "where",
    [
        "before the note",
        "after the note",
        "in the middle",
        "before it is noted as published",
        "after it is noted as published",
    ],
)
def test_a_kill_at_any_moment_of_publishing_is_made_good(spool, root, publisher, received, where):
    (item,) = received(1)
    content = item.path.read_bytes()
    run_and_die(where, spool, root)
    publisher.run_once()
    assert in_store(root) == {str(final(item))}
    assert (root / final(item)).read_bytes() == content
    assert item.path.exists()
    assert notes(spool) == [item.path.name]


class Killed(BaseException):
    """Nothing of ours is there to catch it."""


@pytest.mark.parametrize("what", ["begin", "becomes"])
def test_what_was_being_published_at_a_kill_and_is_claimed_here_leaves_the_store(
    spool, root, publisher, received, what, monkeypatch
):
    def die(*_):
        raise Killed

    (item,) = received(1)
    with monkeypatch.context() as patched:
        patched.setattr(*((Notes, "begin", die) if what == "begin" else (Note, "becomes", die)))
        with pytest.raises(Killed):
            publisher.run_once()
    assert in_store(root) == (set() if what == "begin" else {str(final(item))})
    spool.claim("r-1", {item.sop_instance_uid})
    publisher.run_once()
    assert in_store(root) == set()


@pytest.mark.parametrize("where", ["before it is removed from the store", "after it was removed from the store"])
def test_a_kill_while_a_claim_is_followed_is_made_good(spool, root, publisher, received, where, monkeypatch):
    (item,) = received(1)
    publisher.run_once()
    claim(root, item)
    run_and_die(where, spool, root)
    publisher.run_once()
    assert in_store(root) == {f"claims/{item.path.name}/r-1"}
    assert list(spool.unclaimed()) == []
    monkeypatch.setattr(withdrawing, "CLAIMS_KEPT_SECONDS", 0.0)
    publisher.run_once()
    assert in_store(root) == set()
    assert notes(spool) == []


def test_a_note_that_a_power_failure_emptied_loses_nothing(spool, root, publisher, received):
    (item,) = received(1)
    publisher.run_once()
    (note,) = (spool.root / "published").glob("*/*/*")
    note.write_bytes(b"")
    spool.claim("r-1", {item.sop_instance_uid})
    publisher.run_once()
    assert in_store(root) == set()


class Down(Destination):
    """A store that is down when it is told to be."""

    def __init__(self, root):
        super().__init__(root)
        self.down = True
        self.asked = 0

    def publish(self, source, relative, *, sha256):
        self.asked += 1
        if self.down:
            raise DestinationWriteError("the store cannot be reached", hint="Start it")
        return super().publish(source, relative, sha256=sha256)


def test_a_store_that_is_down_is_left_in_peace_and_gets_everything_later(spool, root, received, told, caplog):
    store = Down(root)
    publisher = Publisher(spool, store, observer=told)
    items = received(1, 2, 3, 4)
    assert publisher.trouble() is None
    with caplog.at_level(logging.INFO):
        publisher.run_once()
        assert store.asked == 2, "two tell that it is the store"
        assert publisher.troubled
        assert publisher.backlog == 4
        assert str(root) in publisher.trouble()
        assert "4 objects wait: the store cannot be reached. Start it" in publisher.trouble()
        publisher.run_once()
        assert store.asked == 3, "one tells that it still is"
        store.down = False
        publisher.run_once()
    assert sorted(told.names) == sorted(item.path.name for item in items)
    assert told.failures == ["store"] * 3
    assert publisher.trouble() is None
    assert caplog.text.count("It is tried again") == 1
    assert caplog.text.count("takes objects again") == 1


def test_it_waits_longer_and_longer_for_a_store_that_is_down(spool, root, received, monkeypatch):
    publisher = Publisher(spool, Down(root))
    received(1, 2, 3)
    waits = []
    monkeypatch.setattr(publisher._rounds, "pause", waits.append)
    for _ in range(12):
        assert publisher._round() == 0.0
    asked = waits[1::2]
    assert asked[:4] == [1.0, 2.0, 4.0, 8.0]
    assert asked[-1] == 300.0


def test_an_object_that_cannot_be_read_is_counted_and_the_others_come(spool, publisher, received, told, monkeypatch):
    item, other = received(1, 2)
    opening = Path.open

    def bad_sector(path, *args, **kwargs):
        if path == item.path:
            raise OSError(5, "Input/output error")
        return opening(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", bad_sector)
    publisher.run_once()
    assert told.names == [other.path.name]
    assert told.failures == ["spool"]
    assert not publisher.troubled


def test_what_is_claimed_while_it_is_published_is_no_failure(spool, root, received, told):
    class Claiming(Destination):
        def publish(self, source, relative, *, sha256):
            spool.claim("r-1", {item.sop_instance_uid})
            return super().publish(source, relative, sha256=sha256)

    (item,) = received(1)
    publisher = Publisher(spool, Claiming(root), observer=told)
    publisher.run_once()
    publisher.run_once()
    assert told.failures == []
    assert in_store(root) == set()


def test_its_thread_publishes_what_is_received_and_follows_claims(spool, root, received, told, monkeypatch):
    monkeypatch.setattr(publishing, "_GATHER_SECONDS", 0.01)
    monkeypatch.setattr(publishing, "CLAIMS_SECONDS", 1000.0)
    publisher = Publisher(spool, Destination(root), observer=told)
    publisher.start()
    try:
        facts = AssociationFacts(number=1, source_address="", calling_ae_title="", called_ae_title="")
        for number in (1, 2):
            received(number)
            publisher.stored(facts, None, 1, 0.1)
            wait_until(lambda wanted=number: len(told.names) == wanted, what="an object in the store")
    finally:
        publisher.stop()
        publisher.stop()
    received(3)
    assert len(told.names) == 2


def test_of_two_receivers_with_one_spool_one_publishes_and_the_other_takes_over(
    spool, root, received, told, monkeypatch
):
    monkeypatch.setattr(publishing, "_GATHER_SECONDS", 0.01)
    monkeypatch.setattr(publishing, "CLAIMS_SECONDS", 0.05)
    first, second = (Publisher(spool, Destination(root), observer=Told()) for _ in range(2))
    first.start()
    received(1)
    wait_until(lambda: len(first._observer.names) == 1, what="an object in the store")
    second.start()
    received(2)
    wait_until(lambda: len(first._observer.names) == 2, what="another")
    assert second._observer.names == []
    first.stop()
    received(3)
    wait_until(lambda: len(second._observer.names) == 1, what="the second to take over")
    second.stop()
    assert len(first._observer.names) == 2
    assert first._observer.failures == second._observer.failures == []


@pytest.fixture(scope="module")
def s3_store(tmp_path_factory):
    with s3.store(tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture
def bucket(s3_store):
    with s3_store.bucket() as made:
        yield made


def test_on_s3_an_object_is_written_once_claimed_and_removed(spool, bucket, received, told, monkeypatch):
    publisher = Publisher(spool, Destination(bucket.root), observer=told)
    item, other = received(1, 2)
    publisher.run_once()
    objects = [key for key in bucket.door.written() if not key.startswith("qa/published/")]
    assert sorted(objects) == sorted(f"qa/{final(found)}" for found in (item, other))
    assert brought(bucket) == {str(final(found)): found.path.read_bytes() for found in (item, other)}
    Destination(bucket.root).write_text(PurePosixPath("claims") / item.path.name / "r-1", "")
    publisher.run_once()
    assert set(brought(bucket)) == {str(final(other)), f"claims/{item.path.name}/r-1"}
    assert [found.path for found in spool.unclaimed()] == [other.path]
    monkeypatch.setattr(withdrawing, "CLAIMS_KEPT_SECONDS", 0.0)
    publisher.run_once()
    assert set(brought(bucket)) == {str(final(other))}


def test_on_s3_an_upload_whose_answer_was_lost_is_compared_and_taken(spool, bucket, received, told):
    answers = [s3.LOSE_THE_ANSWER]
    bucket.door.before = lambda request: answers.pop() if request.writes and answers else None
    publisher = Publisher(spool, Destination(bucket.root), observer=told)
    (item,) = received(1)
    publisher.run_once()
    assert not answers
    publisher._backlog.put_off_none()
    publisher.run_once()
    assert told.names == [item.path.name]
    assert brought(bucket) == {str(final(item)): item.path.read_bytes()}


def test_an_s3_that_is_down_is_said_and_gets_everything_later(spool, bucket, received, told):
    publisher = Publisher(spool, Destination(bucket.root), observer=told)
    items = received(1, 2, 3)
    bucket.door.before = lambda request: 500
    publisher.run_once()
    assert "s3://" in publisher.trouble()
    assert len(list(spool.unclaimed())) == 3
    bucket.door.before = lambda request: None
    publisher.run_once()
    publisher.run_once()
    assert publisher.trouble() is None
    assert brought(bucket) == {str(final(found)): found.path.read_bytes() for found in items}


def test_on_s3_following_costs_one_listing_however_much_is_published(spool, bucket, received):
    publisher = Publisher(spool, Destination(bucket.root))
    received(*range(1, 9))
    publisher.run_once()
    bucket.door.requests.clear()
    publisher.run_once()
    assert len(bucket.door.requests) <= 2


def test_on_s3_several_at_once_are_each_written_once_and_read_back(spool, bucket, received):
    items = received(*range(1, 13))
    Publisher(spool, Destination(bucket.root), again=lambda: Destination(bucket.root)).run_once()
    keys = [f"qa/{final(item)}" for item in items]
    assert sorted(key for key in bucket.door.written() if "/published/" not in key) == sorted(keys)
    assert set(keys) <= {request.key for request in bucket.door.requests if request.method == "GET"}
    assert brought(bucket) == {str(final(item)): item.path.read_bytes() for item in items}


def test_on_s3_how_far_it_is_is_one_request(spool, bucket, received):
    received(1)
    Publisher(spool, Destination(bucket.root)).run_once()
    (word,) = [request for request in bucket.door.requests if "/published/" in request.key and request.writes]
    assert word.method == "PUT"
    (text,) = [text for key, text in bucket.contents().items() if key.startswith("published/")]
    assert Progress.parsed(text.decode()).waiting == 0
