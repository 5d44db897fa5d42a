"""Several objects are brought to a store at once: oldest first, each once, and no more than were asked for."""

from __future__ import annotations

import os
import threading
import time

import pytest
from support.archive import rt_image
from support.ports import wait_until

from airflow_provider_varian.errors import ConfigurationError, DestinationWriteError
from airflow_provider_varian.receiver import publishing, withdrawing
from airflow_provider_varian.receiver.publishing import Publisher
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.retrieval.destination import Destination


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(publishing, "_GATHER_SECONDS", 0.01)
    monkeypatch.setattr(publishing, "_LOOK_SECONDS", 0.05)


@pytest.fixture
def received(spool, put):
    """Receive images, each a second younger than the one before; return the names of their files."""

    def receive(*numbers):
        names = []
        with SpoolSink(spool) as sink:
            for number in numbers:
                put(sink, rt_image(number))
        for number in numbers:
            (item,) = spool.unclaimed({rt_image(number).SOPInstanceUID})
            written = time.time() - 1000 + number
            os.utime(item.path, (written, written))
            names.append(item.path.name)
        return names

    return receive


class Watched(Destination):
    """A store that notes who is at work, and holds up what it is told to."""

    def __init__(self, root, *, together=0):
        super().__init__(root)
        self.begun = []
        self.most = self.now = 0
        self.held = {}
        self.down = False
        self._together = threading.Barrier(together, timeout=60) if together else None
        self._lock = threading.Lock()

    def publish(self, source, relative, *, sha256):
        with self._lock:
            self.begun.append(source.name)
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            if self._together:
                self._together.wait()
            if source.name in self.held:
                assert self.held[source.name].wait(60)
            if self.down:
                raise DestinationWriteError("the store cannot be reached", hint="Start it")
            return Destination(self.uri).publish(source, relative, sha256=sha256)
        finally:
            with self._lock:
                self.now -= 1


def objects_in(root):
    return sorted(path.name for path in root.glob("objects/*/*.dcm"))


def test_four_at_once_unless_told_otherwise(spool, tmp_path, received):
    store = Watched(tmp_path / "store", together=4)  # none ends before four have begun
    names = received(*range(1, 9))
    Publisher(spool, store, again=lambda: store).run_once()
    assert store.most == 4
    assert sorted(store.begun) == objects_in(tmp_path / "store") == sorted(names)


def test_as_many_as_it_is_told(spool, tmp_path, received):
    store = Watched(tmp_path / "store", together=2)
    received(*range(1, 9))
    Publisher(spool, store, again=lambda: store, threads=2).run_once()
    assert store.most == 2


def test_each_thread_has_the_store_for_itself(spool, tmp_path, received):
    made, at_work, twice = [], set(), []

    class Own(Watched):
        def publish(self, source, relative, *, sha256):
            if self in at_work:
                twice.append(self)
            at_work.add(self)
            try:
                return super().publish(source, relative, sha256=sha256)
            finally:
                at_work.discard(self)

    def again():
        made.append(Own(tmp_path / "store"))
        return made[-1]

    names = received(*range(1, 31))
    publisher = Publisher(spool, Destination(tmp_path / "store"), again=again, threads=3)
    publisher.run_once()
    assert len(made) == 3
    assert twice == []
    assert sorted(name for store in made for name in store.begun) == objects_in(tmp_path / "store") == sorted(names)


def test_where_the_client_is_for_one_thread_one_at_a_time_asks_it(spool, tmp_path, received, monkeypatch):
    """Also of those who look for claims, and say how far it is."""
    lock, twice = threading.Lock(), []

    def alone(name):
        method = getattr(Destination, name)

        def call(self, *args, **kwargs):
            if not lock.acquire(blocking=False):
                twice.append(name)
                return method(self, *args, **kwargs)
            try:
                time.sleep(0.002)
                return method(self, *args, **kwargs)
            finally:
                lock.release()

        return call

    for name in ("publish", "size", "remove", "names_beside", "read_text", "write_text", "folders_in", "drop_folder"):
        monkeypatch.setattr(Destination, name, alone(name))
    monkeypatch.setattr(publishing, "CLAIMS_SECONDS", 0.0)
    monkeypatch.setattr(withdrawing, "CLAIMS_KEPT_SECONDS", 0.0)
    names = received(*range(1, 21))
    root = tmp_path / "store"
    publisher = Publisher(spool, Destination(root))
    publisher.start()
    try:
        wait_until(lambda: objects_in(root) == sorted(names), what="all of them")
        for name in names:
            (root / "claims" / name).mkdir(parents=True)
            (root / "claims" / name / "r-1").touch()
        wait_until(lambda: not objects_in(root) and not list((root / "claims").iterdir()), what="their end")
    finally:
        publisher.stop()
    assert twice == []
    assert list(spool.unclaimed()) == []


@pytest.mark.parametrize("threads", [0, 11])
def test_not_as_many_as_one_likes(spool, tmp_path, threads):
    with pytest.raises(ConfigurationError, match=f"{threads} objects at once"):
        Publisher(spool, Destination(tmp_path), threads=threads)


def test_the_oldest_come_first(spool, tmp_path, received):
    store = Watched(tmp_path / "store", together=3)
    names = received(*range(12, 0, -1))[::-1]
    Publisher(spool, store, again=lambda: store, threads=3).run_once()
    for place in range(0, 12, 3):  # of those that begin together nobody knows which is first
        assert sorted(store.begun[place : place + 3]) == sorted(names[place : place + 3])


def test_a_large_one_holds_up_nobody_and_none_is_begun_twice(spool, tmp_path, received):
    store = Watched(tmp_path / "store")
    (large,) = received(1)
    store.held[large] = threading.Event()
    publisher = Publisher(spool, store, again=lambda: store, threads=2)
    publisher.start()
    try:
        wait_until(lambda: store.begun == [large], what="the large one")
        others = received(2, 3, 4)
        publisher._rounds.wake()
        wait_until(lambda: objects_in(tmp_path / "store") == sorted(others), what="the others")
        looked = publisher._backlog._looked
        wait_until(lambda: publisher._backlog._looked > looked, what="another look")
        assert publisher.backlog == 1
        store.held[large].set()
        wait_until(lambda: publisher.backlog == 0, what="the large one in the store")
    finally:
        store.held[large].set()
        publisher.stop()
    assert sorted(store.begun) == sorted([large, *others])


def test_large_ones_come_one_at_a_time(spool, tmp_path, received, monkeypatch):
    monkeypatch.setattr(publishing, "_LARGE_BYTES", 1)
    store = Watched(tmp_path / "store")
    names = received(*range(1, 7))
    Publisher(spool, store, again=lambda: store).run_once()
    assert store.most == 1
    assert objects_in(tmp_path / "store") == sorted(names)


def test_a_store_that_is_down_is_left_in_peace(spool, tmp_path, received, caplog):
    store = Watched(tmp_path / "store")
    store.down = True
    names = received(*range(1, 31))
    publisher = Publisher(spool, store, again=lambda: store)
    publisher.run_once()
    # Two fail, and three were being brought at the same time.
    assert 2 <= len(store.begun) <= 5
    assert publisher.troubled
    assert publisher.backlog == 30
    assert caplog.text.count("It is tried again") == 1
    before = len(store.begun)
    publisher.run_once()
    assert store.begun[before:] == [names[0]], "one tells that it still is, the oldest"
    store.down = False
    publisher.run_once()
    assert objects_in(tmp_path / "store") == sorted(names)
    assert not publisher.troubled
    assert publisher.backlog == 0


def test_it_waits_no_longer_for_it_because_several_failed_at_once(spool, tmp_path, received, monkeypatch):
    store = Watched(tmp_path / "store", together=4)
    store.down = True
    received(1, 2, 3, 4)
    publisher, waits = Publisher(spool, store, again=lambda: store), []
    monkeypatch.setattr(publishing, "_LOOK_SECONDS", 60.0)
    monkeypatch.setattr(publisher._rounds, "pause", waits.append)
    assert publisher._round() == 0.0
    store._together = None
    for _ in range(3):
        publisher._round()
    assert waits[1::2] == [1.0, 2.0, 4.0, 8.0]


def test_a_stop_does_not_wait_for_ever_and_begins_nothing_more(spool, tmp_path, received, monkeypatch, caplog):
    monkeypatch.setattr(publishing, "_STOP_SECONDS", 0.2)
    store = Watched(tmp_path / "store")
    names = received(1, 2, 3, 4, 5)
    store.held = dict.fromkeys(names, threading.Event())
    publisher, other = (
        Publisher(spool, store, again=lambda: store, threads=2),
        Publisher(spool, Destination(tmp_path / "store")),
    )
    publisher.start()
    try:
        wait_until(lambda: len(store.begun) == 2, what="two at work")
        started = time.monotonic()
        publisher.stop()
        assert time.monotonic() - started < 20
        assert "does not end in time" in caplog.text
        assert other._round() == publishing.CLAIMS_SECONDS, "what is still at work has the lock"
    finally:
        store.held[names[0]].set()
    wait_until(lambda: not publisher._crew.names(), what="the end of the two")
    assert sorted(store.begun) == sorted(names[:2])
    publisher.stop()
    other.run_once()
    assert objects_in(tmp_path / "store") == sorted(names)


def test_what_goes_wrong_unexpectedly_is_said_and_the_next_round_comes(spool, tmp_path, received, monkeypatch, caplog):
    names = received(1)
    publisher = Publisher(spool, Destination(tmp_path / "store"))
    monkeypatch.setattr(publisher._rounds, "_after_error_seconds", 0.01)
    told = []

    def published(*_):
        told.append(1)
        if len(told) == 1:
            raise ValueError("an observer of somebody's")

    monkeypatch.setattr(publisher._observer, "published", published)
    publisher.start()
    try:
        wait_until(lambda: "failed unexpectedly" in caplog.text, what="a word about it")
        more = received(2)
        publisher._rounds.wake()
        wait_until(lambda: len(told) == 2, what="the next object")
    finally:
        publisher.stop()
    assert objects_in(tmp_path / "store") == sorted(names + more)
