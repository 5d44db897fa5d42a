"""Who gets what of a standing receiver's spool: never mixed, nothing lost, nothing old (semantics 9 and 11)."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace

import pytest
from support.archive import ROOT, rt_image
from support.shared_spool import PEER, Shared
from support.spooled import begin, receive

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import TlsSettings
from airflow_provider_varian.errors import CancelledError, ConfigurationError, ReceiverUnavailableError
from airflow_provider_varian.receiver import spool
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.receiver.writers import Writers
from airflow_provider_varian.retrieval import wanted as wanted_module
from airflow_provider_varian.retrieval.claims import Claims
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.outcome import State
from airflow_provider_varian.retrieval.spool_place import SpoolPlace
from airflow_provider_varian.retrieval.wanted import SpoolDocuments, Wanted

SERIES = f"{ROOT}.1.1"


def place_of(shared, name, ledger, *, peer=PEER, owner="", cancellation=None, wait_seconds=0.0):
    return SpoolPlace(
        shared.spool,
        name="night",
        peer=peer,
        retrieval_id=name,
        owner=owner,
        wait_seconds=wait_seconds,
        cancellation=cancellation or Cancellation(),
    )


def wanted_of(shared, name):
    return Wanted(SpoolDocuments(shared.spool), name, ae_title="TBOX" if name == "tbox" else "AIRFLOW")


@pytest.fixture
def shared(tmp_path):
    with Shared(tmp_path / "spool", place_of, wanted_of) as it:
        yield it


def plan(number, **attributes):
    return rt_image(number, SOPClassUID=uids.RT_PLAN, Modality="RTPLAN", **attributes)


IMAGE, OTHER, PLAN = rt_image(1), rt_image(2), plan(3)
UID = str(IMAGE.SOPInstanceUID)


def test_what_is_claimed_is_claimed_durably(shared, monkeypatch):
    synced = []
    monkeypatch.setattr(spool, "sync_folder", synced.append)
    first = shared.sharer("first", IMAGE).ask(IMAGE)
    shared.send(IMAGE)
    synced.clear()
    assert first.look() == [UID]
    assert shared.spool.root / "claimed" / "first" in synced


# Two that want the same


@pytest.mark.parametrize("ds", [IMAGE, PLAN])
def test_each_of_two_that_ask_gets_one_of_two_copies(shared, ds):
    first, second = shared.sharer("first", ds).ask(ds), shared.sharer("second", ds).ask(ds)
    shared.send(ds, ds)
    assert len(first.look()) == len(second.look()) == 1
    assert shared.unclaimed() == []


def test_what_came_for_who_waits_is_left_to_it_by_who_has_not_asked_yet(shared):
    first, second = shared.sharer("first", IMAGE).ask(IMAGE), shared.sharer("second", IMAGE)
    shared.send(IMAGE)
    assert second.look() == []
    assert first.look() == [UID]


@pytest.mark.parametrize("how", ["satisfied", "killed", "ended"])
def test_it_is_taken_unasked_when_nobody_waits_for_it(shared, how):
    first, second = shared.sharer("first", IMAGE).ask(IMAGE), shared.sharer("second", IMAGE)
    if how == "satisfied":
        shared.send(IMAGE)
        assert first.look() == [UID]
    elif how == "killed":
        first.die()
    else:
        first.end()
    shared.send(IMAGE)
    assert second.look() == [UID]


def test_who_has_been_answered_leaves_it_to_who_asks(shared):
    first, second = shared.sharer("first", IMAGE).ask(IMAGE), shared.sharer("second", IMAGE).ask(IMAGE)
    first.arrivals.answered()  # the peer did not send it
    shared.send(IMAGE)
    assert first.look() == []
    assert second.look() == [UID]


@pytest.mark.parametrize("how", ["waits", "killed", "ended"])
def test_a_further_copy_is_left_to_the_other_one_who_asked(shared, how):
    first, second = shared.sharer("first", PLAN).ask(PLAN), shared.sharer("second", PLAN).ask(PLAN)
    shared.send(PLAN)
    assert first.look()
    if how == "killed":
        second.die()
    elif how == "ended":
        second.end()
    shared.send(plan(3, RTPlanLabel="changed"))
    assert first.look() == []
    assert shared.unclaimed() == [str(PLAN.SOPInstanceUID)]


def test_a_further_copy_that_nobody_else_asked_for_is_looked_at(shared):
    first = shared.sharer("first", IMAGE).ask(IMAGE)
    shared.sharer("second", IMAGE)  # wants it, and has not asked
    shared.sharer("third", OTHER).ask(OTHER)
    shared.send(IMAGE, IMAGE)
    assert first.look() == [UID, UID]


def test_a_further_copy_is_not_explained_by_who_ended_long_before_it_came(shared, monkeypatch):
    monkeypatch.setattr(wanted_module, "ANSWERS_SECONDS", -1e-9)
    second = shared.sharer("second", IMAGE).ask(IMAGE)
    second.end()
    first = shared.sharer("first", IMAGE).ask(IMAGE)
    shared.send(IMAGE, IMAGE)
    assert first.look() == [UID, UID]


def test_a_further_copy_is_not_explained_by_who_began_after_it_came(shared):
    first = shared.sharer("first", IMAGE).ask(IMAGE)
    shared.send(IMAGE, IMAGE)
    shared.sharer("second", IMAGE).ask(IMAGE)
    assert first.look() == [UID, UID]


def test_the_retry_of_a_killed_try_goes_on_explaining_what_that_asked_for(shared):
    first, killed = shared.sharer("first", IMAGE).ask(IMAGE), shared.sharer("second", IMAGE).ask(IMAGE)
    shared.send(IMAGE, IMAGE)
    killed.die()
    shared.sharer("second", IMAGE).ask(IMAGE)  # its next try, which has not looked yet
    assert first.look() == [UID]


def test_the_retry_of_a_killed_try_goes_on_waiting_for_its_stragglers_after_the_first_of_them(shared):
    first = shared.sharer("first", IMAGE, OTHER).ask(IMAGE, OTHER)
    shared.send(IMAGE, OTHER)
    assert len(first.look()) == 2
    shared.sharer("second", IMAGE, OTHER).ask(IMAGE, OTHER).die()
    retry = shared.sharer("second", IMAGE, OTHER)  # has asked for nothing yet: it lets the stragglers come in first
    shared.send(IMAGE)
    assert retry.look() == [UID]
    shared.send(OTHER)
    assert first.look() == []
    assert retry.look() == [str(OTHER.SOPInstanceUID)]


def test_what_is_held_and_not_asked_for_is_nobodys_duplicate(shared):
    first = shared.sharer("first", IMAGE, OTHER)
    first.ledger.entries[UID].state = State.VERIFIED
    first.ask(OTHER)
    shared.send(IMAGE)  # pushed by somebody
    assert first.look() == []


def test_objects_of_nobody_are_not_seen(shared):
    first = shared.sharer("first", IMAGE).ask(IMAGE)
    shared.send(OTHER)
    assert first.look() == []
    assert not first.arrivals.heard


# Whole series


def test_what_nobody_listed_of_a_series_comes_once_to_each_who_asked_for_the_whole(shared):
    first = shared.sharer("first", IMAGE).ask(IMAGE, whole=[SERIES])
    second = shared.sharer("second", IMAGE).ask(IMAGE, whole=[SERIES])
    third = shared.sharer("third", IMAGE).ask(IMAGE)
    shared.send(OTHER, OTHER)
    assert third.look() == []
    assert first.look() == second.look() == [str(OTHER.SOPInstanceUID)]


def test_what_nobody_listed_is_left_to_who_asks_for_the_whole(shared):
    first = shared.sharer("first", IMAGE).ask(IMAGE, whole=[SERIES])
    first.arrivals.answered()
    second = shared.sharer("second", IMAGE).ask(IMAGE, whole=[SERIES])
    shared.send(OTHER)
    assert first.look() == []
    assert second.look() == [str(OTHER.SOPInstanceUID)]


# Nothing old


def test_a_plan_that_came_before_it_was_asked_for_is_not_taken(shared):
    first = shared.sharer("first", PLAN)
    shared.send(PLAN)
    first.ask(PLAN)
    assert first.look() == []
    assert not first.arrivals.heard
    shared.send(PLAN)
    assert len(first.look()) == 1
    assert len(shared.unclaimed()) == 1


def test_a_plan_that_was_on_its_way_when_it_was_asked_for_is_not_taken(shared):
    first = shared.sharer("first", PLAN)
    on_its_way = begin(shared.sink, PLAN)
    first.ask(PLAN)
    on_its_way.commit()
    assert first.look() == []


def test_an_image_that_came_before_this_try_is_not_taken_unless_an_earlier_try_asked_for_it(shared):
    shared.send(IMAGE, OTHER)
    first = shared.sharer("first", IMAGE, OTHER).ask(IMAGE, OTHER)
    assert first.look() == []
    assert [item.sop_instance_uid for item in first.arrivals.leftovers({UID})] == [UID]
    assert shared.unclaimed() == [str(OTHER.SOPInstanceUID)]


def test_leftovers_are_one_copy_of_images_that_nobody_waits_for(shared):
    third = rt_image(7)
    shared.send(IMAGE, IMAGE, PLAN, third)
    shared.sharer("second", third).ask(third)
    first = shared.sharer("first", IMAGE, PLAN, third)
    items = first.arrivals.leftovers({str(ds.SOPInstanceUID) for ds in (IMAGE, PLAN, third)})
    assert [item.sop_instance_uid for item in items] == [UID]
    assert sorted(shared.unclaimed()) == sorted(str(ds.SOPInstanceUID) for ds in (IMAGE, PLAN, third))


def test_a_task_with_a_receiver_of_its_own_leaves_what_others_wait_for(shared):
    second = shared.sharer("second", IMAGE).ask(IMAGE)
    shared.send(IMAGE)
    with SpoolSink(shared.spool) as own:
        earlier = Ledger([Entry(sop_instance_uid=UID)])
        claims = Claims(shared.spool, retrieval_id="first", owner=own.owner, peer=PEER, earlier=earlier)
        assert claims.unclaimed({UID}) == []
        second.end()
        assert [item.sop_instance_uid for item in claims.unclaimed({UID})] == [UID]


def test_without_an_earlier_try_nothing_is_left_over(shared):
    shared.send(IMAGE)
    assert shared.sharer("first", IMAGE).arrivals.leftovers(set()) == []


# To another AE title of the receiver


@pytest.mark.parametrize("ds", [IMAGE, PLAN])
def test_what_was_sent_to_another_title_is_not_seen(shared, ds):
    first = shared.sharer("first", ds).ask(ds)
    on_its_way = begin(shared.sink, ds, called_ae_title="TBOX")
    assert not first.arrivals.is_receiving()
    on_its_way.commit()
    assert first.look() == []
    assert not first.arrivals.heard
    assert first.arrivals.leftovers({str(ds.SOPInstanceUID)}) == []
    assert shared.unclaimed() == [str(ds.SOPInstanceUID)]
    shared.send(ds)
    assert len(first.look()) == 1


def test_what_is_waited_for_at_another_title_is_not_our_matter(shared):
    tbox = shared.sharer("tbox", IMAGE).ask(IMAGE)
    first = shared.sharer("first", IMAGE)
    shared.send(IMAGE)
    assert first.look() == [UID]
    shared.send(IMAGE)
    first.ask(IMAGE)
    shared.send(IMAGE)
    assert first.look() == [UID, UID]  # nobody else can have caused them
    tbox.die()


@pytest.mark.parametrize(
    ("parties", "taken"),
    [
        ({}, True),
        ({"called_ae_title": "TBOX"}, False),
        ({"called_ae_title": "US"}, False),  # over a C-GET: whose, nobody can tell
        ({"called_ae_title": ""}, False),
    ],
)
def test_leftovers_were_sent_to_us(shared, parties, taken):
    shared.send(IMAGE, **parties)
    peer = replace(PEER, calling_ae_title="US")
    with SpoolSink(shared.spool) as own:
        earlier = Ledger([Entry(sop_instance_uid=UID)])
        claims = Claims(shared.spool, retrieval_id="first", owner=own.owner, peer=peer, earlier=earlier)
        assert [item.sop_instance_uid for item in claims.unclaimed({UID})] == [UID] * taken
    assert shared.unclaimed() == [UID] * (not taken)


# Clocks


@pytest.fixture
def clock(monkeypatch):
    """Return a function that sets the clock back by so many seconds."""
    now, now_ns = time.time, time.time_ns

    def set_back(seconds):
        monkeypatch.setattr(time, "time", lambda: now() - seconds)
        monkeypatch.setattr(time, "time_ns", lambda: now_ns() - int(seconds * 1e9))

    return set_back


def test_an_image_is_taken_although_the_clock_was_set_back_since(shared, clock):
    shared.send(IMAGE)  # this one is old
    first = shared.sharer("first", IMAGE).ask(IMAGE)
    clock(60.0)
    assert first.look() == []
    shared.send(IMAGE)
    assert first.look() == [UID]
    assert shared.unclaimed() == [UID]


def test_a_plan_is_not_taken_when_the_clock_was_set_back_and_that_is_said_once(shared, clock, caplog):
    shared.send(PLAN)
    first = shared.sharer("first", PLAN)
    on_its_way = begin(shared.sink, PLAN)
    first.ask(PLAN)
    on_its_way.commit()
    assert first.look() == []
    assert caplog.text == ""  # they are older than the request, as they say
    second = shared.sharer("second", PLAN).ask(PLAN)
    clock(60.0)
    shared.send(PLAN, PLAN)
    assert second.look() == []
    assert caplog.text.count("Was one set back?") == 1


# What can be seen


def test_only_what_is_ours_is_a_sign_of_life(shared):
    first = shared.sharer("first", IMAGE).ask(IMAGE)
    first.look()
    before = first.arrivals._activity
    shared.send(OTHER)
    first.look()
    assert first.arrivals._activity == before
    assert first.arrivals.idle_for() > 0
    shared.send(IMAGE)
    assert first.look()
    assert first.arrivals.heard
    assert first.arrivals._activity > before


def test_quiet_is_known_up_to_the_last_look_only(shared):
    first = shared.sharer("first", IMAGE).ask(IMAGE)
    first.look()
    known = first.arrivals._looked - first.arrivals._activity
    first.arrivals._look_ended = time.monotonic() + 1000  # no look is due
    assert first.arrivals.idle_for() == known


def test_what_is_on_its_way_in_is_seen_when_it_is_ours(shared):
    first = shared.sharer("first", IMAGE).ask(IMAGE)
    others = begin(shared.sink, OTHER)
    assert not first.arrivals.is_receiving()
    ours = begin(shared.sink, IMAGE)
    assert first.arrivals.is_receiving()
    assert first.arrivals.heard
    for writer in (ours, others):
        writer.abandon()


def test_what_others_get_of_what_is_here_is_no_sign_of_life(shared):
    first = shared.sharer("first", IMAGE, OTHER).ask(IMAGE, OTHER)
    shared.sharer("second", IMAGE).ask(IMAGE)
    shared.send(IMAGE)
    assert first.look() == [UID]
    before = first.arrivals._activity
    on_its_way = begin(shared.sink, IMAGE)
    assert not first.arrivals.is_receiving()
    on_its_way.commit()
    first.look()
    assert first.arrivals._activity == before


def test_what_this_process_receives_comes_another_way(shared):
    with SpoolSink(shared.spool) as own:
        first = shared.sharer("first", IMAGE)
        first.arrivals._place = place_of(shared, "first", first.ledger, owner=own.owner.name)
        first.ask(IMAGE)
        receive(own, IMAGE)
        assert first.look() == []
    with SpoolSink(shared.spool) as of_another_task:
        receive(of_another_task, IMAGE)
        assert first.look() == []
    assert first.look() == [UID]  # that task is over


def test_each_look_sees_what_came_since_the_last_one(shared):
    """Folders are listed again when they have changed, also within one tick of the clock."""
    images = [rt_image(number) for number in range(1, 60)]
    first = shared.sharer("first", *images).ask(*images)
    for shard in shared.spool.new.iterdir():
        os.utime(shard, (0, 0))  # long quiet
    first.look()
    for ds in images:
        shared.send(ds)
        assert first.look() == [str(ds.SOPInstanceUID)]
    assert shared.unclaimed() == []


def test_a_change_within_the_tick_of_the_last_look_is_seen(shared):
    first = shared.sharer("first", IMAGE).ask(IMAGE)
    shard, now = shared.spool.shard(UID), time.time_ns()
    os.utime(shard, ns=(now, now))
    assert first.look() == []
    shared.send(IMAGE)
    os.utime(shard, ns=(now, now))
    assert first.look() == [UID]


def test_folders_that_have_not_changed_are_not_listed_again(shared, monkeypatch):
    first = shared.sharer("first", IMAGE).ask(IMAGE)
    os.utime(shared.spool.shard(UID), (0, 0))
    first.look()
    monkeypatch.setattr(Spool, "objects_in", lambda self, folder: pytest.fail("listed again"))
    first.look()


def test_what_does_not_say_what_it_is_stays_where_it_is(shared):
    first = shared.sharer("first", IMAGE).ask(IMAGE)
    shared.send(IMAGE)
    (item,) = shared.spool.unclaimed()
    item.path.write_bytes(b"no receipt")
    assert first.look() == []
    assert item.path.read_bytes() == b"no receipt"


# The receiver


def test_a_receiver_that_does_not_run_is_said_before_anything_is_asked(shared):
    first = shared.sharer("first", IMAGE)
    first.arrivals.start()
    shared.sink.close()
    with pytest.raises(ReceiverUnavailableError, match=r"no receiver is running on .* standing receiver 'night'"):
        first.arrivals.start()


def test_a_receiver_that_starts_again_is_waited_for_and_the_wait_can_be_cancelled(shared, monkeypatch):
    shared.sink.close()
    cancellation, begun = Cancellation(), []

    def pause(seconds):
        begun.append(SpoolSink(shared.spool, standing=True))

    place = place_of(shared, "first", None, cancellation=cancellation, wait_seconds=30.0)
    with monkeypatch.context() as patch:
        patch.setattr(cancellation, "pause", pause)
        place.open()
    begun[0].close()
    cancellation.cancel()
    with pytest.raises(CancelledError):
        place.open()


def test_over_tls_nobody_may_receive_in_clear_text(shared):
    shared.sink.close()
    place = place_of(shared, "first", None, peer=replace(PEER, tls=TlsSettings()))
    with SpoolSink(shared.spool, standing=True, tls=True) as receiver:
        place.open()
        assert Writers(receiver.owner.folder.parent).fragments(receiver.owner.name) == []
        with SpoolSink(shared.spool, standing=True), pytest.raises(ConfigurationError, match="clear text") as raised:
            place.open()
        assert "--tls-certificate" in raised.value.hint
        place.open()


# What others want


def documents(shared):
    return {path.name: json.loads(path.read_text()) for path in shared.spool.wanted.iterdir()}


def test_what_is_waited_for_is_written_before_it_is_asked_and_names_uids_only(shared):
    first = shared.sharer("first", IMAGE, OTHER)
    first.arrivals.announce([UID, str(OTHER.SOPInstanceUID)], [SERIES])
    (said,) = documents(shared).values()
    assert said["asked"] == said["waits"] == sorted([UID, str(OTHER.SOPInstanceUID)])
    assert said["whole"] == [SERIES]
    assert set(said) == {"ae_title", "asked", "waits", "whole", "began", "seen", "ended"}
    (path,) = shared.spool.wanted.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    first.arrivals.asking([UID])
    shared.send(IMAGE)
    first.look()
    assert documents(shared)["first.json"]["waits"] == [str(OTHER.SOPInstanceUID)]
    first.end()
    assert documents(shared)["first.json"]["ended"] is True


def test_what_cannot_be_read_is_left_out(shared, caplog):
    (shared.spool.wanted / "broken.json").write_text("{")
    (shared.spool.wanted / "a b.json").write_text(json.dumps({"asked": [], "waits": [], "whole": [], "began": 0}))
    (shared.spool.wanted / "latin.json").write_bytes(b"\xff")
    first = shared.sharer("first", IMAGE)
    shared.send(IMAGE)
    assert first.look() == [UID]
    assert "what retrieval broken waits for cannot be read" in caplog.text.lower()


def test_what_was_left_long_ago_is_removed_at_the_next_start(shared):
    for name, seen, stays in (("old", 0.0, False), ("recent", time.time(), True), ("living", 0.0, True)):
        about = {"ae_title": "AIRFLOW", "began": 0.0, "seen": seen, "ended": False}
        said = {"asked": [UID], "waits": [UID], "whole": [], **about}
        (shared.spool.wanted / f"{name}.json").write_text(json.dumps(said))
        assert stays or name == "old"
    shared.sharer("living", IMAGE)
    shared.sharer("first", IMAGE).arrivals.start()
    assert sorted(documents(shared)) == ["living.json", "recent.json"]
