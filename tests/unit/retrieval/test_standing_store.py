"""Retrieving through a standing receiver elsewhere, from the store to which it publishes."""

from __future__ import annotations

import json
import threading
import time

import pydicom
import pytest
from support.archive import ROOT, rt_image
from support.published import Published, publish
from support.spooled import receive

from airflow_provider_varian import uids
from airflow_provider_varian.errors import CancelledError, DestinationWriteError, ReceiverUnavailableError
from airflow_provider_varian.receiver.admission import Entry as Admitted
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.standing import ReceiverSettings, StandingReceiver
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.receivers import NamedReceiver
from airflow_provider_varian.retrieval.store_place import StorePlace
from airflow_provider_varian.retrieval.wanted import StoreDocuments, Wanted

IMAGE, OTHER = rt_image(1), rt_image(2)
PLAN = rt_image(3, SOPClassUID=uids.RT_PLAN, Modality="RTPLAN")
UID = str(IMAGE.SOPInstanceUID)


@pytest.fixture
def published(tmp_path, monkeypatch):
    monkeypatch.setattr(StorePlace, "skew_seconds", 0.0)
    with Published(tmp_path) as it:
        yield it


def test_a_copy_is_fetched_verified_and_then_claimed(published):
    first = published.sharer("first", IMAGE).ask(IMAGE)
    (name,) = published.publish(IMAGE)
    assert first.look() == [UID]
    (item,) = published.spool.claimed("first")
    assert item.path.name == name
    (original,) = (published.store / "objects").rglob("*.dcm")
    assert item.path.read_bytes() == original.read_bytes()
    assert item.path.stat().st_mode & 0o777 == 0o600
    assert published.claims() == [f"{name}/first"]
    assert first.look() == []  # although the store shows it until the receiver has removed it


def test_what_another_one_has_claimed_is_its(published):
    first, second = (published.sharer(name, IMAGE).ask(IMAGE) for name in ("first", "second"))
    published.publish(IMAGE)
    assert first.look() == [UID]
    assert second.look() == []
    published.publish(IMAGE)
    assert first.look() == []
    assert second.look() == [UID]
    assert len(published.claims()) == 2


def test_only_the_folders_of_what_is_wanted_are_listed(published, monkeypatch):
    listed = []
    names_beside = Destination.names_beside

    def names(self, path, prefix):
        listed.append(str(path.parent))
        return names_beside(self, path, prefix)

    monkeypatch.setattr(Destination, "names_beside", names)
    first = published.sharer("first", IMAGE).ask(IMAGE)
    first.look()
    # Before it is asked for, and after.
    assert listed == ["published", f"objects/{published.spool.shard(UID).name}"] * 2


def test_between_two_looks_is_a_pause_also_while_one_waits(published, monkeypatch):
    first = published.sharer("first", IMAGE).ask(IMAGE)
    first.look()
    monkeypatch.setattr(Destination, "names_beside", lambda *_: pytest.fail("looked at once again"))
    assert first.arrivals.take() == []
    assert first.arrivals.idle_for() >= 0


def test_a_look_can_be_cancelled(published):
    first = published.sharer("first", IMAGE).ask(IMAGE)
    published.cancellation.cancel()
    with pytest.raises(CancelledError):
        first.look()


# Kills


def test_what_was_fetched_and_not_claimed_is_claimed_by_the_retry(published, monkeypatch):
    first = published.sharer("first", IMAGE).ask(IMAGE)
    (name,) = published.publish(IMAGE)

    def killed(self, item):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StorePlace, "_claim", killed)
        with pytest.raises(KeyboardInterrupt):
            first.look()
    first.die()
    assert [item.sop_instance_uid for item in published.spool.claimed("first")] == [UID]
    assert published.claims() == []
    retry = published.sharer("first", IMAGE)
    assert retry.arrivals.leftovers(set()) == []
    assert published.claims() == [f"{name}/first"]


def test_what_was_received_another_way_is_not_claimed_in_the_store(published):
    published.send(IMAGE)  # over a C-GET, say
    (item,) = published.spool.unclaimed()
    published.spool.take("first", item)
    published.sharer("first", IMAGE).arrivals.leftovers(set())
    assert published.claims() == []


def test_a_kill_while_fetching_leaves_the_store_as_it_was(published, monkeypatch):
    first = published.sharer("first", IMAGE).ask(IMAGE)
    (name,) = published.publish(IMAGE)

    def killed(self, *arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "adopt", killed)
        with pytest.raises(KeyboardInterrupt):
            first.look()
    first.die()
    assert (published.claims(), published.spool.claimed("first")) == ([], [])
    assert published.sharer("first", IMAGE).ask(IMAGE).arrivals.leftovers({UID})[0].path.name == name


def test_a_retry_on_another_host_fetches_what_is_still_there(published):
    (name,) = published.publish(IMAGE)
    claim = published.store / "claims" / name / "first"
    claim.parent.mkdir(parents=True)
    claim.write_text("fetched\n")  # by the try that was killed, on a host that is not this one
    retry = published.sharer("first", IMAGE)
    assert [item.sop_instance_uid for item in retry.arrivals.leftovers({UID})] == [UID]


# What is not as it should be


def test_what_vanishes_while_it_is_fetched_is_somebody_elses(published, monkeypatch):
    first = published.sharer("first", IMAGE).ask(IMAGE)
    published.publish(IMAGE)
    fetch = StorePlace._fetch

    def vanish(self, path):
        (published.store / path).unlink()
        return fetch(self, path)

    monkeypatch.setattr(StorePlace, "_fetch", vanish)
    assert first.look() == []
    assert published.claims() == []
    assert [path.name for path in published.own.owner.folder.iterdir()] == ["lock"]


@pytest.mark.parametrize("spoil", [lambda data: data[:-2] + b"!!", lambda data: data[:-2]])
def test_what_reads_differently_the_second_time_is_not_claimed(published, monkeypatch, spoil):
    first = published.sharer("first", IMAGE).ask(IMAGE)
    published.publish(IMAGE)
    write = StorePlace._write

    def spoilt(self, reader, target):
        write(self, reader, target)
        target.write_bytes(spoil(target.read_bytes()))

    monkeypatch.setattr(StorePlace, "_write", spoilt)
    with pytest.raises(ReceiverUnavailableError, match="reads differently the second time"):
        first.look()
    assert (published.claims(), published.spool.claimed("first")) == ([], [])
    assert [path.name for path in published.own.owner.folder.iterdir()] == ["lock"]


def test_a_store_that_cannot_be_used_is_named_as_the_receivers(published):
    published.store.write_text("no folder")
    with pytest.raises(ReceiverUnavailableError, match="the store of the standing receiver 'night' cannot be used"):
        published.sharer("first", IMAGE).arrivals.start()


def test_what_cannot_be_told_to_others_does_not_stand_in_the_way_once_it_was_asked(published, monkeypatch, caplog):
    first = published.sharer("first", IMAGE).ask(IMAGE)
    published.publish(IMAGE)

    def fail(self, name, text):
        raise DestinationWriteError("the store is away")

    monkeypatch.setattr(StoreDocuments, "write", fail)
    first.arrivals._look_ended = float("-inf")
    first.arrivals._told = float("-inf")
    assert [item.sop_instance_uid for item in first.arrivals.take()] == [UID]
    first.ledger.entries[UID].state = State.VERIFIED
    first.arrivals.answered()
    first.arrivals.stop()
    assert caplog.text.count("could not be written") == 3
    with pytest.raises(DestinationWriteError):
        published.sharer("second", OTHER).ask(OTHER)


def test_a_look_that_fails_while_the_peer_sends_is_no_reason_to_end(published, monkeypatch, caplog):
    first = published.sharer("first", IMAGE).ask(IMAGE)
    first.arrivals._look_ended = float("-inf")

    def fail(self, uids_, whole):
        raise ReceiverUnavailableError("the store is away")

    monkeypatch.setattr(StorePlace, "copies", fail)
    assert first.arrivals.idle_for() >= 0
    assert "the store is away" in caplog.text
    with pytest.raises(ReceiverUnavailableError):
        first.look()


def test_names_that_are_no_objects_are_left_out(published):
    first = published.sharer("first", IMAGE).ask(IMAGE)
    folder = published.store / "objects" / published.spool.shard(UID).name
    folder.mkdir(parents=True)
    for name in ("index.html", f"{UID}.dcm", f"{UID}.0123456789ab.dcm", f"{UID}.zzz.dcm"):
        (folder / name).write_bytes(b"")
    assert first.look() == []


# Clocks


def test_a_plan_that_is_published_late_and_came_before_is_not_taken_whatever_the_clocks_say(tmp_path, monkeypatch):
    """The receiver's clock is ahead: what came before we asked seems to have come afterwards."""
    with Published(tmp_path) as published:
        ahead = time.time_ns
        with monkeypatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: ahead() + 1_500_000_000)
            published.sink, local = published.receiving, published.sink
            published.send(PLAN)
            published.sink = local
        first = published.sharer("first", PLAN)
        # It is published while we give the clocks their time, before the peer is asked.
        monkeypatch.setattr(StorePlace, "pause", lambda self, seconds: publish(published.elsewhere, published.store))
        first.ask(PLAN)
        assert first.look() == []
        assert len(published.publish(PLAN)) == 1
        assert len(first.look()) == 1


def test_a_plan_that_we_asked_for_is_taken_also_by_a_clock_that_is_behind(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(StorePlace, "pause", lambda self, seconds: waited.append(seconds))
    with Published(tmp_path) as published:
        asked = time.time()
        first = published.sharer("first", PLAN).ask(PLAN)
        assert waited == [2.0]  # asked for so much later than what is taken may have begun
        behind = asked + 2.0 - 1.9  # sent after the wait, by a clock that is 1.9 s behind
        monkeypatch.setattr(time, "time_ns", lambda: int(behind * 1e9))
        published.publish(PLAN)
        assert len(first.look()) == 1


def test_a_plan_that_seems_too_old_by_a_clock_that_is_far_behind_is_said_and_not_taken(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(StorePlace, "pause", lambda self, seconds: None)
    with Published(tmp_path) as published:
        first = published.sharer("first", PLAN).ask(PLAN)
        now = time.time()
        monkeypatch.setattr(time, "time_ns", lambda: int((now - 60.0) * 1e9))
        published.publish(PLAN, PLAN)
        assert first.look() == first.look() == []
    assert caplog.text.count("Do the clocks of the receiver's host and of this one agree?") == 1


def test_an_image_is_taken_also_by_a_clock_that_is_far_behind(tmp_path, monkeypatch):
    with Published(tmp_path) as published:
        published.publish(IMAGE)  # this one is old, as the next one says that it is
        monkeypatch.setattr(StorePlace, "skew_seconds", 0.0)
        first = published.sharer("first", IMAGE).ask(IMAGE)
        now = time.time()
        monkeypatch.setattr(time, "time_ns", lambda: int((now - 60.0) * 1e9))
        (name,) = published.publish(IMAGE)
        assert first.look() == [UID]
        assert published.claims() == [f"{name}/first"]


def test_a_further_copy_is_explained_also_by_a_clock_that_is_behind(tmp_path, monkeypatch):
    with Published(tmp_path) as published:
        first = published.sharer("first", IMAGE).ask(IMAGE)
        published.publish(IMAGE)
        assert first.look() == [UID]
        second = published.sharer("second", IMAGE).ask(IMAGE)
        now = time.time()
        monkeypatch.setattr(time, "time_ns", lambda: int((now - 1.9) * 1e9))
        published.publish(IMAGE)
        assert first.look() == []
        assert second.look() == [UID]


def test_an_old_plan_that_is_found_before_it_is_asked_for_is_no_doubt_about_clocks(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(StorePlace, "pause", lambda self, seconds: None)
    with Published(tmp_path) as published:
        published.publish(PLAN)
        assert published.sharer("first", PLAN).ask(PLAN).look() == []
    assert caplog.text == ""


def test_for_images_no_clock_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(StorePlace, "pause", lambda self, seconds: pytest.fail("waited"))
    with Published(tmp_path) as published:
        first = published.sharer("first", IMAGE).ask(IMAGE)
        published.publish(IMAGE)
        assert first.look() == [UID]


def test_who_gave_no_sign_of_life_for_long_does_not_keep_others_from_anything(published):
    published.sharer("second", IMAGE).ask(IMAGE)
    first = published.sharer("first", IMAGE)
    published.publish(IMAGE)
    assert first.look() == []
    path = published.store / "wanted" / "second.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"seen": time.time() - 3600.0}))
    assert first.look() == [UID]


def test_what_was_left_in_the_store_long_ago_is_removed_at_the_next_start(published):
    folder = published.store / "wanted"
    folder.mkdir(parents=True)
    (published.store / "objects").mkdir()
    for name, seen in (("old", 0.0), ("recent", time.time() - 3600.0)):
        about = {"ae_title": "AIRFLOW", "began": 0.0, "seen": seen, "ended": False}
        said = {"asked": [UID], "waits": [UID], "whole": [], **about}
        (folder / f"{name}.json").write_text(json.dumps(said))
    published.sharer("first", IMAGE).arrivals.start()
    assert [path.name for path in folder.iterdir()] == ["recent.json"]


def test_a_copy_that_is_another_ones_is_looked_into_once(published, monkeypatch):
    first, second = (published.sharer(name, IMAGE).ask(IMAGE) for name in ("first", "second"))
    published.publish(IMAGE)
    assert first.look()
    published.publish(IMAGE)
    assert first.look() == []
    with monkeypatch.context() as patch:
        patch.setattr(StoreDocuments, "names", lambda self: pytest.fail("read once again"))
        assert first.look() == []
    assert second.look() == [UID]


def test_who_waits_gives_signs_of_life_while_its_peer_is_at_work(published, monkeypatch):
    first = published.sharer("first", IMAGE).ask(IMAGE)
    second = published.sharer("second", IMAGE)  # wants it too, and has not asked
    now, written = time.time, []
    write = StoreDocuments.write
    monkeypatch.setattr(StoreDocuments, "write", lambda *what: (written.append(what), write(*what)))
    for minute in range(1, 21):
        monkeypatch.setattr(time, "time", lambda minute=minute: now() + 60.0 * minute)
        first.arrivals._look_ended = float("-inf")
        first.arrivals.idle_for()
    assert 3 <= len(written) <= 4  # each five minutes
    published.publish(IMAGE)
    assert second.look() == []
    assert first.look() == [UID]


def test_a_sign_of_life_is_given_soon_after_the_clock_was_set_back(published, monkeypatch):
    wanted = Wanted(StoreDocuments(Destination(str(published.store))), "first", ae_title="AIRFLOW")
    wanted.give_sign()
    assert not (published.store / "wanted").exists()  # nothing is waited for
    wanted.tell(asked=["1.2"], waits=["1.2"], whole=[])
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3600.0)
    wanted.give_sign()
    assert json.loads((published.store / "wanted" / "first.json").read_text())["seen"] < now() - 3000.0


# To another AE title of the receiver


def test_what_was_sent_to_another_title_is_not_claimed(published, monkeypatch):
    first = published.sharer("first", IMAGE).ask(IMAGE)
    with monkeypatch.context() as patch:
        patch.setattr(published, "send", lambda ds: receive(published.sink, ds, called_ae_title="TBOX"))
        published.publish(IMAGE)
    assert first.look() == []
    assert [path.name for path in published.own.owner.folder.iterdir()] == ["lock"]
    assert (published.claims(), published.spool.claimed("first")) == ([], [])
    with monkeypatch.context() as patch:
        patch.setattr(StorePlace, "_fetch", lambda *_: pytest.fail("fetched again"))
        assert first.look() == []
    published.publish(IMAGE)
    assert first.look() == [UID]


# On the wire


@pytest.fixture
def elsewhere(clinic, tmp_path, monkeypatch):
    """The clinic, whose peer sends to a receiver "on another host", which publishes."""
    monkeypatch.setattr(StorePlace, "look_seconds", 0.05)
    monkeypatch.setattr(StorePlace, "lag_seconds", 0.5)
    monkeypatch.setattr(StorePlace, "unseen_seconds", 1.0)
    monkeypatch.setattr(StorePlace, "skew_seconds", 0.1)
    store, over = tmp_path / "store", threading.Event()
    settings = ReceiverSettings(
        spool=tmp_path / "elsewhere",
        entries=(Admitted(ae_title="AIRFLOW", networks=()),),
        host="127.0.0.1",
        port=0,
    )
    with StandingReceiver(settings) as receiver:

        def keep_publishing():
            while not over.wait(0.05):
                if clinic.publishes():
                    publish(receiver.spool, store)
                for claim in (store / "claims").glob("*/*"):
                    for path in (store / "objects").rglob(claim.parent.name):
                        path.unlink()

        clinic.publishes = lambda: True
        thread = threading.Thread(target=keep_publishing)
        thread.start()
        clinic.archive.destinations["AIRFLOW"] = receiver.address
        clinic.store = store
        run = clinic.run
        defaults = {
            "peer": clinic.archive.peer(receiver="night"),
            "receiver": NamedReceiver(name="night", store=str(store)),
        }
        clinic.run = lambda request=None, **more: run(request, **(defaults | more))
        yield clinic
        over.set()
        thread.join()


def test_a_series_comes_through_the_store(elsewhere):
    result = elsewhere.run()
    assert result.outcome is Outcome.COMPLETE
    files = [path for path in elsewhere.root.rglob("*.dcm") if ".dicom" not in path.parts]
    assert len(files) == result.counts["verified"] == 5
    assert {str(pydicom.dcmread(path).SOPInstanceUID) for path in files} == {f"{ROOT}.1.1.{n}" for n in range(1, 6)}
    assert result.counts["duplicate"] == 0
    assert elsewhere.archive.asked("C-MOVE") == ["SERIES"]
    assert list((elsewhere.spool / "claimed").iterdir()) == []


def test_two_at_once_through_the_store(elsewhere, tmp_path):
    results = {}

    def run(name, numbers):
        request = elsewhere.images(*numbers)
        results[name] = elsewhere.run(request, destination=tmp_path / name, retrieval_id=name)

    wanted = {"first": (1, 2, 3), "second": (2, 3, 4)}
    threads = [threading.Thread(target=run, args=item) for item in wanted.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for name, numbers in wanted.items():
        assert results[name].outcome is Outcome.COMPLETE
        assert results[name].counts | {"unexpected": 0, "conflict": 0, "duplicate": 0} == results[name].counts
        found = {path.name.split(".")[-2] for path in (tmp_path / name).rglob("*.dcm")}
        assert found == {str(number) for number in numbers}


def test_nothing_that_arrives_is_said_and_what_to_check(elsewhere):
    elsewhere.archive.delivers = lambda level, uid: False
    elsewhere.archive.final = lambda level: {"completed": 5}
    result = elsewhere.run(settle_seconds=0.05)
    assert result.outcome is Outcome.PARTIAL
    assert "none has been found in the store of the standing receiver 'night' so far" in result.manifest.warnings[0]
    assert "does it publish" in result.manifest.warnings[0]


def test_what_the_peer_says_that_it_sent_is_waited_for_longer(elsewhere, monkeypatch):
    """The receiver has it, and others' objects are in front: to ask again would only make that worse."""
    monkeypatch.setattr(StorePlace, "unseen_seconds", 30.0)
    answered = []
    respond = elsewhere.archive._respond
    elsewhere.archive._respond = lambda *what, **more: (respond(*what, **more), answered.append(time.monotonic()))
    elsewhere.publishes = lambda: bool(answered) and time.monotonic() > answered[-1] + 2.0
    monkeypatch.setattr(StorePlace, "lag_seconds", 0.2)
    result = elsewhere.run(elsewhere.images(1, 2), settle_seconds=0.1)
    assert (result.outcome, len(elsewhere.archive.sent)) == (Outcome.COMPLETE, 2)
    assert result.manifest.warnings == []


def test_what_the_peer_does_not_say_that_it_sent_is_not_waited_for_longer(elsewhere, monkeypatch):
    monkeypatch.setattr(StorePlace, "unseen_seconds", 1000.0)
    elsewhere.archive.delivers = lambda level, uid_: uid_ != f"{ROOT}.1.1.2"
    result = elsewhere.run(elsewhere.images(1, 2), settle_seconds=0.05)
    assert (result.outcome, result.counts["verified"]) == (Outcome.PARTIAL, 1)
    assert result.error is None  # its time is not over


def test_a_dry_run_through_a_store_writes_nothing(elsewhere, tmp_path):
    before = sorted(path for path in tmp_path.rglob("*") if "elsewhere" not in path.parts)
    assert elsewhere.run(dry_run=True).counts["found"] == 5
    assert sorted(path for path in tmp_path.rglob("*") if "elsewhere" not in path.parts) == before
