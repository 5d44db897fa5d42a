"""What a retrieval makes of what a receiver says in its store about how far it is."""

from __future__ import annotations

import threading
import time

import pytest
from support.archive import ROOT, rt_image
from support.ports import wait_until
from support.published import Published
from support.spooled import begin

from airflow_provider_varian.errors import PeerTimeoutError
from airflow_provider_varian.receiver import progress, publishing
from airflow_provider_varian.receiver.admission import Entry as Admitted
from airflow_provider_varian.receiver.progress import Progress
from airflow_provider_varian.receiver.publishing import Publisher
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.receiver.standing import ReceiverSettings, StandingReceiver
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.outcome import Outcome
from airflow_provider_varian.retrieval.receivers import NamedReceiver
from airflow_provider_varian.retrieval.store_place import StorePlace

IMAGE, OTHER = rt_image(1), rt_image(2)
UID, OTHER_UID = str(IMAGE.SOPInstanceUID), str(OTHER.SOPInstanceUID)
LAG, UNSEEN = StorePlace.lag_seconds, StorePlace.unseen_seconds
#: Between what is written in a test, and what is read.
SLOW = 30.0


@pytest.fixture
def published(tmp_path, monkeypatch):
    monkeypatch.setattr(StorePlace, "skew_seconds", 0.5)
    with Published(tmp_path) as it:
        yield it


@pytest.fixture
def first(published):
    """A retrieval that has asked for an image."""
    return published.sharer("first", IMAGE).ask(IMAGE)


@pytest.fixture
def say(published):
    """Return a function that says how far a receiver is; times are seconds ago."""

    def write(name="r", *, written=0.0, until=0.0, since=None, **said):
        now = time.time()
        since = None if since is None else now - since
        folder = published.store / "published"
        folder.mkdir(parents=True, exist_ok=True)
        document = Progress(written=now - written, until=now - until, since=since, **said)
        (folder / f"{name}.json").write_text(document.text())

    return write


def test_who_says_nothing_is_waited_for_as_long_as_may_be_needed(first):
    first.look()
    assert (first.arrivals.lag_seconds, first.arrivals.unseen_seconds) == (LAG, UNSEEN)


def test_what_waits_is_waited_for_until_all_is_seen_that_was_received_before(first, say):
    say(until=1000.0, waiting=3, since=1000.0)
    first.look()
    for seconds in (first.arrivals.lag_seconds, first.arrivals.unseen_seconds):
        assert 1000.0 <= seconds <= 1000.0 + SLOW
    say(until=1.0, waiting=3, since=1.0)
    first.look()
    assert LAG <= first.arrivals.lag_seconds <= 1.0 + SLOW


def test_when_nothing_waits_nothing_is_waited_for_but_a_word_that_is_recent_enough(first, say):
    say(until=60.0, written=60.0)
    first.look()
    assert first.arrivals.lag_seconds == LAG
    assert 60.0 <= first.arrivals.unseen_seconds <= 60.0 + SLOW
    say()
    first.look()
    assert first.arrivals.lag_seconds == LAG
    assert first.arrivals.unseen_seconds <= SLOW


@pytest.mark.parametrize("written", [progress.VALID_SECONDS + 1.0, 86400.0, -60.0])
def test_what_was_said_long_ago_or_by_another_clock_is_nothing(first, say, written):
    say(until=7200.0, written=written, waiting=3, since=7200.0, arriving=(UID,))
    first.look()
    assert (first.arrivals.lag_seconds, first.arrivals.unseen_seconds) == (LAG, UNSEEN)
    assert not first.arrivals.is_receiving()
    assert not first.arrivals.heard


def test_what_is_said_grows_old_between_two_looks_too(first, say, monkeypatch):
    say(until=10.0, waiting=3, since=10.0)
    first.look()
    assert first.arrivals.lag_seconds >= 10.0
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 60.0)
    assert 70.0 <= first.arrivals.lag_seconds <= 70.0 + SLOW
    monkeypatch.setattr(time, "time", lambda: now() + progress.VALID_SECONDS + SLOW)
    assert (first.arrivals.lag_seconds, first.arrivals.unseen_seconds) == (LAG, UNSEEN)


def test_of_several_receivers_the_last_one_counts_and_who_is_gone_does_not(first, say):
    say("quick")
    say("slow", until=500.0, waiting=1, since=500.0)
    say("gone", until=9000.0, written=9000.0, waiting=7, since=9000.0)
    first.look()
    assert 500.0 <= first.arrivals.lag_seconds <= 500.0 + SLOW


def test_what_cannot_be_read_is_nothing(first, published):
    folder = published.store / "published"
    folder.mkdir(parents=True)
    (folder / "r.json").write_text("{")
    (folder / "strange").write_text(Progress(written=time.time(), until=0.0, waiting=1).text())
    first.look()
    assert (first.arrivals.lag_seconds, first.arrivals.unseen_seconds) == (LAG, UNSEEN)


# Signs of life


def test_what_is_on_its_way_in_is_a_sign_of_life(first, say):
    first.arrivals._activity = time.monotonic() - 1000.0
    say(arriving=(OTHER_UID,))
    first.look()
    assert not first.arrivals.is_receiving()
    assert not first.arrivals.heard
    assert first.arrivals.idle_for() >= 1000.0 - SLOW
    say(arriving=(OTHER_UID, UID))
    first.look()
    assert first.arrivals.is_receiving()
    assert first.arrivals.heard
    assert first.arrivals.idle_for() <= SLOW


def test_what_has_come_is_none_when_it_comes_again(first, say, published):
    published.publish(IMAGE)
    assert first.look() == [UID]
    say(arriving=(UID,))
    first.look()
    assert not first.arrivals.is_receiving()


def test_quiet_is_known_up_to_what_has_been_published_only(first, say):
    first.arrivals._activity = time.monotonic() - 1000.0
    say(until=900.0, waiting=1, since=900.0)
    first.look()
    assert 100.0 - SLOW <= first.arrivals.idle_for() <= 100.0
    say(until=900.0, written=20.0)  # nothing waits
    first.look()
    assert first.arrivals.idle_for() >= 1000.0


# Words


def test_the_warning_says_what_waits_and_not_that_nothing_came(first, say):
    say(until=500.0, waiting=17, since=700.0)
    first.look()
    words = first.arrivals.silence_warning()
    assert "17 objects wait to be published since" in words
    assert time.strftime("%Y-%m-%d %H:", time.localtime(time.time() - 700.0)) in words
    assert "nothing arrived" not in words
    assert "is the standing receiver 'night' running" not in words


def test_the_warning_says_that_all_is_there_that_came(first, say):
    say()
    first.look()
    words = first.arrivals.silence_warning()
    assert "which has all that was received up to" in words
    assert "are its AE title, host and port what the trusted entity" in words


def test_the_warning_asks_who_says_nothing(first):
    first.look()
    words = first.arrivals.silence_warning()
    assert "does it publish (its log says what waits)" in words
    assert "is the standing receiver 'night' running" in words


# On the wire


class Slow(Destination):
    """A store that takes nothing before it is let."""

    def __init__(self, root):
        super().__init__(root)
        self.let = threading.Event()

    def publish(self, source, relative, *, sha256):
        assert self.let.wait(60)
        return Destination(self.uri).publish(source, relative, sha256=sha256)


@pytest.fixture
def elsewhere(clinic, tmp_path, monkeypatch):
    """The clinic, whose peer sends to a receiver "on another host", which publishes when it is let."""
    monkeypatch.setattr(StorePlace, "look_seconds", 0.05)
    monkeypatch.setattr(StorePlace, "lag_seconds", 0.4)
    monkeypatch.setattr(StorePlace, "unseen_seconds", 0.4)
    monkeypatch.setattr(StorePlace, "skew_seconds", 0.1)
    for name, seconds in (("_GATHER", 0.01), ("_LOOK", 0.02), ("_IDLE", 0.05)):
        monkeypatch.setattr(publishing, f"{name}_SECONDS", seconds)
    settings = ReceiverSettings(
        spool=tmp_path / "elsewhere", entries=(Admitted(ae_title="AIRFLOW", networks=()),), host="127.0.0.1", port=0
    )
    with StandingReceiver(settings) as receiver:
        clinic.store = Slow(str(tmp_path / "store"))
        publisher = Publisher(receiver.spool, clinic.store, again=lambda: clinic.store, threads=2)
        clinic.receiver = receiver
        clinic.archive.destinations["AIRFLOW"] = receiver.address
        run, named = clinic.run, NamedReceiver(name="night", store=str(tmp_path / "store"))
        clinic.run = lambda request, **more: run(
            request,
            **({"peer": clinic.archive.peer(receiver="night"), "receiver": named, "settle_seconds": 0.1} | more),
        )
        # The publisher's own threads say it: on a busy machine later than a retrieval asks.
        clinic.when_said = lambda waiting: wait_until(
            lambda: any(said.waiting == waiting for said in clinic.said()), what="a word about what waits"
        )
        clinic.said = lambda: [
            Progress.parsed(path.read_text()) for path in (tmp_path / "store" / "published").glob("*.json")
        ]
        publisher.start()
        try:
            yield clinic
        finally:
            clinic.store.let.set()
            publisher.stop()


@pytest.mark.parametrize("counts", [True, False])
def test_what_waits_to_be_published_is_waited_for_and_not_asked_for_again(elsewhere, counts):
    """Also where the peer does not say how much it has sent."""
    if not counts:
        elsewhere.archive.pending = False
        elsewhere.archive.final = lambda level: dict.fromkeys(("completed", "failed", "warning", "remaining"))
    timer = threading.Timer(1.5, elsewhere.store.let.set)  # much longer than one waits for who says nothing

    def when_all_is_sent(uid):
        if len(elsewhere.archive.sent) == 3:
            elsewhere.when_said(3)
            timer.start()

    elsewhere.archive.on_sent = when_all_is_sent
    result = elsewhere.run(elsewhere.images(1, 2, 3))
    assert (result.outcome, result.counts["verified"]) == (Outcome.COMPLETE, 3)
    assert elsewhere.archive.asked("C-MOVE") == ["IMAGE"]
    assert len(elsewhere.archive.sent) == 3
    assert result.manifest.warnings == []


def test_it_is_not_waited_for_longer_than_a_retrieval_may_take(elsewhere, caplog):
    peer = elsewhere.archive.peer(receiver="night", retrieve_deadline=8.0)
    elsewhere.archive.on_sent = lambda uid: elsewhere.when_said(2) if len(elsewhere.archive.sent) == 2 else None
    started = time.monotonic()
    with pytest.raises(PeerTimeoutError, match="takes longer than"):
        elsewhere.run(elsewhere.images(1, 2), peer=peer)
    assert 8.0 <= time.monotonic() - started < 30.0
    assert "2 objects wait to be published since" in caplog.text
    assert elsewhere.archive.asked("C-MOVE") == ["IMAGE"]


def test_what_is_known_not_to_have_come_is_not_waited_for(elsewhere, monkeypatch):
    monkeypatch.setattr(StorePlace, "unseen_seconds", 1000.0)
    monkeypatch.setattr("airflow_provider_varian.receiver.telling.SAID_SECONDS", 0.2)
    elsewhere.store.let.set()
    elsewhere.archive.delivers = lambda level, uid: uid != f"{ROOT}.1.1.2"
    elsewhere.archive.final = lambda level: {"completed": 2}
    result = elsewhere.run(elsewhere.images(1, 2))
    assert (result.outcome, result.counts["verified"]) == (Outcome.PARTIAL, 1)
    assert result.error is None  # its time is not over


def test_a_peer_that_is_silent_while_it_sends_one_large_object_is_not_given_up(elsewhere):
    elsewhere.store.let.set()
    elsewhere.archive.pending = False
    elsewhere.archive.delivers = lambda level, uid: uid == OTHER_UID
    peer = elsewhere.archive.peer(receiver="night", dimse_timeout=3.0)

    def send_for_long():
        # As the receiver does that takes it, for twice as long as one waits for a word.
        with SpoolSink(elsewhere.receiver.spool, standing=True) as sink:
            on_its_way = begin(sink, IMAGE)
            wait_until(lambda: any(UID in said.arriving for said in elsewhere.said()), what="a word about it")
            time.sleep(6.0)
            on_its_way.commit()

    elsewhere.archive.on_move = send_for_long
    result = elsewhere.run(elsewhere.images(1, 2), peer=peer)
    assert (result.outcome, result.error) == (Outcome.COMPLETE, None)
    assert elsewhere.archive.asked("C-MOVE") == ["IMAGE"]
