"""How far a publisher is, as it says in the store."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest
from support.archive import rt_image
from support.ports import wait_until
from support.spooled import begin

from airflow_provider_varian.errors import DestinationWriteError
from airflow_provider_varian.receiver import progress, publishing, telling
from airflow_provider_varian.receiver.backlog import Backlog
from airflow_provider_varian.receiver.progress import Progress
from airflow_provider_varian.receiver.published import Notes
from airflow_provider_varian.receiver.publishing import Publisher
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.retrieval.destination import Destination

HOUR = 3600.0


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def sink(spool):
    with SpoolSink(spool, standing=True) as standing:
        yield standing


@pytest.fixture
def received(spool, sink, put):
    """Receive images; return their files. ``ago``: how long ago each was written."""

    def receive(*ago):
        there = {item.path for item in spool.unclaimed()}
        for number, seconds in enumerate(ago, len(there) + 1):
            put(sink, rt_image(number))
            (item,) = spool.unclaimed({rt_image(number).SOPInstanceUID})
            os.utime(item.path, (time.time() - seconds,) * 2)
        return [
            item.path
            for number in range(len(there) + 1, len(there) + len(ago) + 1)
            for item in spool.unclaimed({rt_image(number).SOPInstanceUID})
        ]

    return receive


def documents(root):
    return {path.name: json.loads(path.read_text()) for path in (root / "published").glob("*.json")}


def said(root):
    (document,) = documents(root).values()
    return document


class Holding(Destination):
    """A store that holds up what it is told to."""

    def __init__(self, root):
        super().__init__(root)
        self.held = {}
        self.asked = []

    def publish(self, source, relative, *, sha256):
        self.asked.append(source.name)
        if source.name in self.held:
            assert self.held[source.name].wait(60)
        return Destination(self.uri).publish(source, relative, sha256=sha256)


# The document


def test_when_all_is_there_it_says_up_to_when(spool, root, received):
    received(10.0, 20.0)
    before = time.time()
    Publisher(spool, Destination(root)).run_once()
    after = time.time()
    document = said(root)
    assert before <= document["until"] <= document["written"] <= after
    assert document | {"waiting": 0, "since": None, "arriving": []} == document
    assert set(document) == {"written", "until", "waiting", "since", "arriving"}


def test_nothing_was_ever_received(spool, root):
    before = time.time()
    Publisher(spool, Destination(root)).run_once()
    assert said(root)["until"] >= before


def test_while_something_waits_it_says_since_when_and_how_much(spool, root, received, monkeypatch):
    monkeypatch.setattr(publishing, "_GATHER_SECONDS", 0.01)
    monkeypatch.setattr(publishing, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(telling, "SAID_SECONDS", 1000.0)
    store = Holding(root)
    old, middle, _ = received(HOUR, 60.0, 30.0)
    store.held = {path.name: threading.Event() for path in (old, middle)}
    publisher = Publisher(spool, store, again=lambda: store, threads=2)
    publisher.start()
    try:
        wait_until(lambda: documents(root) and said(root)["waiting"] == 3, what="a word")
        assert said(root)["until"] == said(root)["since"] == pytest.approx(old.stat().st_mtime)
        written = said(root)["written"]
        wait_until(lambda: said(root)["written"] > written, what="the same once more: it still does")
        store.held[old.name].set()
        wait_until(lambda: said(root)["waiting"] == 1, what="the oldest and the youngest in the store")
        assert said(root)["until"] == pytest.approx(middle.stat().st_mtime)
        # Another one comes, and is brought at once: it is not what is waited for.
        received(0.0)
        publisher._rounds.wake()
        wait_until(lambda: len(store.asked) == 4, what="the one that came")
        store.held[middle.name].set()
        wait_until(lambda: said(root)["waiting"] == 0, what="all of them")
        assert said(root)["until"] > time.time() - 60.0
        assert said(root)["since"] is None
    finally:
        for event in store.held.values():
            event.set()
        publisher.stop()


def test_what_alone_fails_waits_and_holds_up_no_time(spool, root, received):
    bad, _ = received(HOUR, 60.0)
    path = root / "objects" / bad.parent.name / bad.name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    before = time.time()
    publisher = Publisher(spool, Destination(root))
    for _ in range(2):
        publisher.run_once()
        assert said(root)["waiting"] == 1
        assert said(root)["since"] == pytest.approx(bad.stat().st_mtime)
        assert said(root)["until"] >= before


def test_what_is_arriving_is_said_by_its_uid_and_nothing_else(spool, root, sink):
    publisher = Publisher(spool, Destination(root))
    on_its_way = begin(sink, rt_image(7), calling_ae_title="SECRET")
    publisher.run_once()
    assert said(root)["arriving"] == [rt_image(7).SOPInstanceUID]
    (text,) = [path.read_text() for path in (root / "published").iterdir()]
    for other in ("SECRET", "AIRFLOW", "QA_TB_WL", "Phantom", rt_image(7).StudyInstanceUID + '"'):
        assert other not in text
    on_its_way.commit()
    publisher.run_once()
    assert said(root)["arriving"] == []


def test_no_more_is_said_to_arrive_than_is_of_use_and_the_first_before_the_rest(spool, root, sink, monkeypatch):
    monkeypatch.setattr(progress, "MAXIMUM_ARRIVING", 2)
    many = [begin(sink, rt_image(number)) for number in (5, 3, 4)]
    Publisher(spool, Destination(root)).run_once()
    assert said(root)["arriving"] == [rt_image(number).SOPInstanceUID for number in (5, 3)]
    for writer in many:
        writer.abandon()


def test_the_threads_say_it_soon_after_something_began_to_arrive(spool, root, sink, monkeypatch):
    monkeypatch.setattr(publishing, "_GATHER_SECONDS", 0.01)
    monkeypatch.setattr(publishing, "_IDLE_SECONDS", 0.05)
    monkeypatch.setattr(publishing, "CLAIMS_SECONDS", 1000.0)
    publisher = Publisher(spool, Destination(root))
    publisher.start()
    try:
        wait_until(lambda: documents(root), what="a first word")
        on_its_way = begin(sink, rt_image(7))
        wait_until(lambda: said(root)["arriving"], what="what is arriving")
        on_its_way.abandon()
        wait_until(lambda: not said(root)["arriving"], what="that it is not any more")
    finally:
        publisher.stop()


def test_it_is_not_written_again_before_there_is_something_new(spool, root, received, monkeypatch):
    texts = []

    class Told(Destination):
        def write_text(self, relative, text):
            texts.append(text)
            super().write_text(relative, text)

    received(1.0)
    publisher = Publisher(spool, Told(root))
    publisher.run_once()
    assert len(texts) == 1
    for _ in range(3):
        publisher.run_once()
    assert len(texts) == 1
    received(1.0)
    publisher.run_once()
    assert len(texts) == 2
    monkeypatch.setattr(telling, "SAID_SECONDS", 0.0)
    publisher.run_once()
    assert len(texts) == 3, "who lives says so, now and then"


# Who says it


def test_two_spools_of_one_store_and_a_restart(spool, root, tmp_path):
    Publisher(spool, Destination(root)).run_once()
    ours = documents(root)
    Publisher(spool, Destination(root)).run_once()
    assert documents(root).keys() == ours.keys()
    Publisher(Spool(tmp_path / "other"), Destination(root)).run_once()
    assert len(documents(root)) == 2


def test_a_name_that_a_power_failure_emptied_is_made_anew(spool, root):
    notes = Notes(spool, str(root))
    assert notes.publisher == Notes(spool, str(root)).publisher
    notes.root.with_suffix(".id").write_text("")
    anew = Notes(spool, str(root)).publisher
    assert len(anew) == 16
    assert anew == Notes(spool, str(root)).publisher != notes.publisher


def test_what_was_said_by_who_has_been_gone_for_long_is_removed(spool, root):
    folder = root / "published"
    folder.mkdir(parents=True)
    now = time.time()
    for name, written in (("gone", now - 3 * 86400), ("down", now - HOUR)):
        (folder / f"{name}.json").write_text(Progress(written=written, until=written).text())
    (folder / "broken.json").write_text("{")
    (folder / "strange.txt").write_text(Progress(written=0.0, until=0.0).text())
    Publisher(spool, Destination(root)).run_once()
    names = {path.name for path in folder.iterdir()}
    assert len(names) == 4
    assert {"down.json", "broken.json", "strange.txt"} < names


def test_that_it_cannot_be_said_is_said_once_and_holds_up_nothing(spool, root, received, caplog):
    class Mute(Destination):
        tried = 0

        def write_text(self, relative, text):
            Mute.tried += 1
            raise DestinationWriteError("not allowed here")

    publisher = Publisher(spool, Mute(root))
    for number in range(3):
        received(1.0)
        publisher.run_once()
        assert len(list(root.glob("objects/*/*.dcm"))) == number + 1
    assert not publisher.troubled
    assert caplog.text.count("cannot be told in the store") == 1
    assert Mute.tried == 1, "nor is it tried with each object"


def test_while_the_store_is_down_nothing_is_said(spool, root, received):
    class Down(Destination):
        def publish(self, source, relative, *, sha256):
            raise DestinationWriteError("down")

    received(1.0, 2.0)
    publisher = Publisher(spool, Down(root))
    publisher.run_once()
    assert publisher.troubled
    assert documents(root) == {}


def test_a_spool_that_cannot_be_looked_at_is_no_reason_not_to_say_the_rest(spool, root, monkeypatch):
    from airflow_provider_varian.errors import ReceiverUnavailableError

    def fail(self):
        raise ReceiverUnavailableError("no")

    monkeypatch.setattr(Spool, "arriving", fail)
    Publisher(spool, Destination(root)).run_once()
    assert said(root)["arriving"] == []


# What it is made of


def test_a_document_is_read_as_it_was_written():
    progress_ = Progress(written=3.0, until=2.0, waiting=4, since=1.5, arriving=("1.2", "1.3"))
    assert Progress.parsed(progress_.text()) == progress_
    assert Progress.parsed(Progress(written=3.0, until=2.0).text()) == Progress(written=3.0, until=2.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        "{}",
        "[" * 100_000,
        json.dumps({"written": 1, "until": 1, "waiting": 0, "since": None}),
        json.dumps({"written": 1, "until": float("nan"), "waiting": 0, "since": None, "arriving": []}),
        json.dumps({"written": float("inf"), "until": 1, "waiting": 0, "since": None, "arriving": []}),
        json.dumps({"written": 1, "until": 1, "waiting": -1, "since": None, "arriving": []}),
        json.dumps({"written": 1, "until": 1, "waiting": 0, "since": None, "arriving": 7}),
    ],
)
def test_what_is_no_document_is_none(text):
    assert Progress.parsed(text) is None


def test_of_a_document_of_somebody_elses_only_uids_are_taken_and_not_too_many():
    document = {"written": 1, "until": 1, "waiting": 0, "since": None}
    many = [f"1.{number}" for number in range(1000)]
    assert Progress.parsed(json.dumps(document | {"arriving": ["../x", "Doe^Jane", 7.5, "1.2"]})).arriving == (
        "7.5",
        "1.2",
    )
    assert Progress.parsed(json.dumps(document | {"arriving": many})).arriving == tuple(many[:100])


def test_several_together():
    first = Progress(written=10.0, until=9.0, waiting=2, since=8.0, arriving=("1.1",))
    second = Progress(written=11.0, until=7.0, arriving=("1.2",))
    assert Progress.of_all([first, second]) == Progress(
        written=10.0, until=7.0, waiting=2, since=8.0, arriving=("1.1", "1.2")
    )


@pytest.mark.parametrize(("age", "valid"), [(0.0, True), (-2.0, True), (-2.1, False), (92.0, True), (92.1, False)])
def test_for_how_long_it_says_something(age, valid):
    assert Progress(written=1000.0 - age, until=0.0).is_valid(1000.0, skew=2.0) is valid


# Up to when


@pytest.fixture
def backlog(spool, root):
    return Backlog(spool, Notes(spool, str(root)))


def test_the_time_is_that_of_the_oldest_that_waits_also_of_those_whose_turn_it_is_not(backlog, received):
    times = [path.stat().st_mtime for path in received(50.0, 40.0, 30.0)]
    first, second = backlog.look([], 2)
    assert (backlog.count, backlog.has_more) == (3, True)
    assert backlog.until() == backlog.since() == times[0]
    backlog.done(first.path.name)
    assert backlog.until() == times[1]
    backlog.done(second.path.name)
    assert backlog.until() == backlog.since() == times[2]
    assert backlog.count == 1


def test_what_was_brought_there_while_one_looked_does_not_wait(backlog, received, monkeypatch):
    one, two = received(50.0, 40.0)
    backlog.look([], 2)
    lstat = type(one).lstat

    def late(path):
        if path == two:  # the first has been listed, or will be
            backlog.done(one.name)
        return lstat(path)

    monkeypatch.setattr(type(one), "lstat", late)
    assert backlog.look([one.name, two.name], 2) == []
    assert backlog.count == 1
    assert backlog.until() == pytest.approx(two.stat().st_mtime)


def test_what_is_put_off_is_tried_again_later_and_holds_up_no_time_then_either(backlog, received, monkeypatch):
    (one,) = received(50.0)
    before = time.time()
    assert len(backlog.look([], 5)) == 1
    assert backlog.put_off(one.name) is True
    assert backlog.look([], 5) == []
    assert backlog.until() >= before
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 61.0)
    assert len(backlog.look([], 5)) == 1
    assert backlog.until() >= before
    assert backlog.since() == pytest.approx(one.stat().st_mtime)
    assert backlog.put_off(one.name) is False
    backlog.done(one.name)
    assert backlog.count == 0
