"""C-MOVE to a third party with proof: what the destination lists, and what lies whole in its folder."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from pydicom import dcmread
from support.archive import ROOT, Archive, rt_image
from support.ports import free_port
from support.quiet import BEFORE, QUIET, WITHIN, Clock
from support.third_party import FilingStation

from airflow_provider_varian import uids, waiting
from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import (
    CancelledError,
    ConfigurationError,
    ContextRejectedError,
    DestinationWriteError,
    PeerTimeoutError,
    PeerUnreachableError,
    RefusedByPeerError,
    UnknownMoveDestinationError,
)
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.retrieval import third_party_proof
from airflow_provider_varian.retrieval.audit import audit_move
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.retrieval.third_party import move_to_third_party
from airflow_provider_varian.retrieval.third_party_folder import WatchedFolder
from airflow_provider_varian.retrieval.third_party_proof import Sight, Watch

PROFILE = Profile(
    name="plain", relational_queries=True, stable_counts=1, stable_interval_seconds=0.0, settle_seconds=0.25
)
SERIES = RetrievalRequest(
    level=Level.SERIES, keys={"StudyInstanceUID": f"{ROOT}.1", "SeriesInstanceUID": f"{ROOT}.1.1"}
)
UIDS = [f"{ROOT}.1.1.{number}" for number in range(4)]
PLAN = UIDS[3]


@pytest.fixture
def source():
    images = [rt_image(number) for number in range(3)]
    with Archive([*images, rt_image(3, SOPClassUID=uids.RT_PLAN)]) as running:
        yield running


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "filed").mkdir()
    return tmp_path / "filed"


@pytest.fixture
def station(source, folder):
    with FilingStation(folder) as running:
        source.destinations["VMSFD"] = running.address
        yield running


@pytest.fixture
def research(source):
    """An archive that lists what it was sent."""
    with Archive([]) as archive, FilingStation(ae_title="RESEARCH") as station:
        source.destinations["RESEARCH"] = station.address
        station.on_store = lambda ds: archive.instances.__setitem__(str(ds.SOPInstanceUID), ds)
        archive.station = station
        yield archive


@pytest.fixture(params=["listed", "verified"])
def proof(request, tmp_path):
    """Return ``run(...)`` and the scripted destination of each kind of proof."""
    source = request.getfixturevalue("source")
    if request.param == "listed":
        research = request.getfixturevalue("research")
        place = research.station
        settings = {
            "destination": "RESEARCH",
            "verify_peer": research.peer(),
            "verify_profile": Profile(name="generic", stable_interval_seconds=0.05),
        }
    else:
        place = request.getfixturevalue("station")
        settings = {"destination": "VMSFD", "verify_path": place.folder}

    def run(request=SERIES, **more):
        defaults = {"profile": PROFILE, "manifest_root": tmp_path / "moves", "retrieval_id": "m-1"}
        peer = more.pop("peer", source.peer())
        return move_to_third_party(peer, request, **(defaults | settings | more))

    run.source, run.place, run.state = source, place, State(request.param)
    return run


@pytest.fixture
def put_off(source, research, tmp_path):
    """Return ``run(...)``, which leaves long waits for the destination's list to somebody else."""

    def run(waited_out="", **more):
        return move_to_third_party(
            source.peer(),
            SERIES,
            **{
                "destination": "RESEARCH",
                "verify_peer": replace(research.peer(), deferred_as="research"),
                "verify_profile": Profile(name="generic", stable_interval_seconds=0.05),
                "profile": replace(PROFILE, settle_seconds=60.0),
                "manifest_root": tmp_path / "moves",
                "retrieval_id": "m-1",
                "task_try": waiting.Try(id="try", waited_out=waited_out),
            }
            | more,
        )

    return run


def states(result):
    return [str(entry.state) for entry in result.manifest.ledger.entries.values()]


def test_all_of_it_there_is_complete(proof, tmp_path):
    result = proof()
    assert (result.outcome, states(result)) == (Outcome.COMPLETE, [proof.state] * 4)
    assert proof.source.asked("C-MOVE") == ["SERIES"]
    written = json.loads((tmp_path / "moves" / ".dicom" / "m-1.json").read_text())
    assert (written["outcome"], written["counts"][proof.state]) == ("complete", 4)


def losing(place, **times):
    """Let the destination lose an instance so many times, by the last number of its UID: ``losing(place, _1=2)``."""
    left = {UIDS[int(name[1:])]: count for name, count in times.items()}

    def keeps(uid):
        left[uid] = left.get(uid, 0) - 1
        return left[uid] < 0

    place.keeps = keeps


def test_what_the_destination_lost_is_asked_for_again_by_name(proof):
    losing(proof.place, _1=1)
    result = proof()
    assert (result.outcome, proof.source.asked("C-MOVE")) == (Outcome.COMPLETE, ["SERIES", "IMAGE"])
    assert sorted(proof.place.got) == sorted([*UIDS, UIDS[1]])
    assert result.manifest.fallbacks[0]["reason"] == "1 of 4 instances outstanding"


def test_what_never_arrives_is_named_whatever_the_peer_reports(proof):
    losing(proof.place, _1=99)
    result = proof()
    assert (result.outcome, result.missing) == (Outcome.PARTIAL, (UIDS[1],))
    assert result.completed == 5
    assert UIDS[1] in result.manifest.message
    reason = result.manifest.ledger.entries[UIDS[1]].reason
    assert reason.startswith("asked for 2 times, the peer reports it as sent; ")
    assert reason.endswith("does not list it" if proof.state is State.LISTED else "no file of it is there")


def test_a_destination_that_the_peer_does_not_know_is_told_at_once_and_not_waited_for(put_off, source, research):
    with pytest.raises(UnknownMoveDestinationError, match="under Trusted Application Entities"):
        put_off(destination="NOBODY")
    # One look before; nobody has to wait, here or elsewhere, for what was refused.
    assert (source.asked("C-MOVE"), research.finds) == (["SERIES"], 1)


def test_a_move_that_is_not_even_proposed_to_the_end_is_told_at_once(put_off, source, research, monkeypatch):
    proposed = contexts.move
    monkeypatch.setattr(contexts, "move", lambda uid: proposed(f"{uid}.99"))
    with pytest.raises(ContextRejectedError):
        put_off()
    assert (source.asked("C-MOVE"), research.finds) == ([], 1)


def test_what_was_refused_each_time_is_not_waited_for(put_off, source, research):
    source.move_status = 0xA900
    with pytest.raises(RefusedByPeerError):
        put_off()
    assert (source.asked("C-MOVE")[:2], research.finds) == (["SERIES", "IMAGE"], 1)


def test_what_came_before_the_peer_hung_up_is_not_sent_twice(proof):
    proof.source.abort_after = 2
    result = proof()
    assert result.outcome is Outcome.COMPLETE
    assert sorted(proof.place.got) == sorted(UIDS)


def test_who_knows_what_went_wrong_waits_himself(put_off, source, research, monkeypatch):
    monkeypatch.setattr(third_party_proof, "WORTH_SECONDS", 0.1)
    source.final = lambda level: {"status": 0xA702}
    losing(research.station, _1=99)
    result = put_off(profile=PROFILE)
    assert (result.outcome, result.missing) == (Outcome.PARTIAL, (UIDS[1],))
    assert result.error.status == 0xA702


def test_what_the_peer_said_is_known_after_somebody_else_has_waited(put_off, source, research):
    losing(research.station, _1=99)
    source.final = lambda level: {"failed_uids": [UIDS[1]], "status": 0xB000}
    with pytest.raises(waiting.Waiting):
        put_off()
    with pytest.raises(waiting.Waiting):
        put_off("m-1")
    result = put_off("m-1")
    assert result.outcome is Outcome.PARTIAL
    reason = result.manifest.ledger.entries[UIDS[1]].reason
    assert reason.startswith("asked for 2 times, the peer names it as failed: ")


def test_a_retry_asks_for_the_missing_alone(proof):
    losing(proof.place, _1=99)
    assert proof().outcome is Outcome.PARTIAL
    losing(proof.place)
    proof.place.got.clear()
    result = proof()
    assert (result.outcome, proof.place.got) == (Outcome.COMPLETE, [UIDS[1]])
    assert (result.counts["held"], result.manifest.attempts) == (3, 2)


def test_a_retry_believes_what_the_try_before_it_proved_of_a_plan(proof):
    losing(proof.place, _1=99)
    assert proof().outcome is Outcome.PARTIAL
    losing(proof.place)
    proof.place.got.clear()
    result = proof()
    assert (result.outcome, proof.place.got, result.counts["held"]) == (Outcome.COMPLETE, [UIDS[1]], 3)


def test_a_retry_that_is_shown_a_list_believes_the_files_that_the_try_before_it_saw(source, station, tmp_path):
    with Archive(source.instances.values()) as lists:
        losing(station, _1=99)
        settings = {"manifest_root": tmp_path / "moves", "retrieval_id": "m-1"}
        assert filed(source, station, **settings).missing == (UIDS[1],)
        del lists.instances[UIDS[1]]
        losing(station)
        station.on_store = lambda ds: lists.instances.__setitem__(str(ds.SOPInstanceUID), ds)
        station.got.clear()
        result = filed(source, station, **settings, verify_path=None, verify_peer=lists.peer())
    assert (result.outcome, station.got) == (Outcome.COMPLETE, [UIDS[1]])


def test_a_rerun_of_what_is_complete_moves_no_image_again_but_what_may_have_changed(proof):
    proof()
    proof.place.got.clear()
    result = proof()
    assert (result.outcome, proof.place.got, result.counts["held"]) == (Outcome.COMPLETE, [PLAN], 3)


def test_a_finished_try_proves_nothing_of_a_plan_after_a_killed_one_either(proof):
    proof()
    cancellation = Cancellation()
    proof.source.on_find = cancellation.cancel
    with pytest.raises(CancelledError):
        proof(cancellation=cancellation)
    proof.source.on_find = lambda: None
    proof.place.got.clear()
    result = proof()
    assert (result.outcome, proof.place.got) == (Outcome.COMPLETE, [PLAN])


def test_what_is_there_is_proven_whatever_the_peer_says_of_it(proof):
    proof.source.final = lambda level: {"status": 0xB000, "failed": 2, "completed": 2, "failed_uids": UIDS[:2]}
    result = proof()
    assert (result.outcome, states(result)) == (Outcome.COMPLETE, [proof.state] * 4)
    assert proof.source.asked("C-MOVE") == ["SERIES"]
    assert {entry.reason for entry in result.manifest.ledger.entries.values()} == {""}


def test_another_run_moves_no_image_again_but_what_may_have_changed(proof):
    proof()
    proof.place.got.clear()
    result = proof(retrieval_id="m-2")
    assert (result.outcome, proof.place.got, result.counts["held"]) == (Outcome.COMPLETE, [PLAN], 3)


def test_an_earlier_version_at_the_destination_proves_nothing_of_a_plan(proof):
    proof()
    losing(proof.place, _3=99)
    if proof.state is State.LISTED:
        # The list cannot tell the versions apart; that the peer did not send it can.
        proof.source.delivers = lambda level, uid: uid != PLAN
        proof.source.final = lambda level: {"completed": 0}
    result = proof(retrieval_id="m-2")
    assert (result.outcome, result.missing) == (Outcome.PARTIAL, (PLAN,))


def test_late_arrivals_are_waited_for_as_long_as_they_keep_coming(proof):
    proof.place.delay = 0.3
    result = proof(settle_seconds=2.0)
    assert (result.outcome, proof.source.asked("C-MOVE")) == (Outcome.COMPLETE, ["SERIES"])


def test_the_deadline_bounds_the_wait(proof):
    proof.place.keeps = lambda uid: False
    started = time.monotonic()
    with pytest.raises(PeerTimeoutError, match="takes longer than 1 s"):
        proof(peer=proof.source.peer(retrieve_deadline=1.0), settle_seconds=300.0)
    assert time.monotonic() - started < 60


def test_a_killed_try_is_taken_up_after_its_stragglers(proof, tmp_path):
    cancellation = Cancellation()
    proof.source.on_sent = lambda uid: cancellation.cancel() if uid == UIDS[1] else None
    with pytest.raises(CancelledError):
        proof(cancellation=cancellation)
    written = json.loads((tmp_path / "moves" / ".dicom" / "m-1.json").read_text())
    assert (written["outcome"], written["counts"]["found"]) == ("pending", 4)
    proof.source.on_sent = lambda uid: None
    there = set(proof.place.got)
    proof.place.got.clear()
    result = proof()
    assert result.outcome is Outcome.COMPLETE
    # What the killed try brought is looked up first; the plan may be older than it, for all that is known.
    assert set(proof.place.got) - {PLAN} == set(UIDS[:3]) - there


def test_the_stragglers_of_a_killed_try_are_waited_for_before_anything_is_asked_for(proof, monkeypatch):
    del proof.source.instances[PLAN]
    cancellation = Cancellation()
    proof.source.on_move = cancellation.cancel
    proof.source.delivers = lambda level, uid: False
    with pytest.raises(CancelledError):
        proof(cancellation=cancellation)
    proof.source.requests.clear()
    look, late = Watch._look, list(proof.source.instances.values())

    def look_and_let_one_come(self, wanted, now):
        sight = look(self, wanted, now)
        if late:
            proof.source.store([late.pop()], destination=proof.place.ae_title)
        return sight

    monkeypatch.setattr(Watch, "_look", look_and_let_one_come)
    result = proof(settle_seconds=3.0)
    assert (result.outcome, result.counts["held"], proof.source.requests) == (Outcome.COMPLETE, 3, [])


def test_quiet_hours_of_the_source_before_it_is_listed_again_are_not_its_time(proof, monkeypatch):
    clock = Clock(monkeypatch, BEFORE)

    def quieten():
        proof.source.on_move = lambda: None
        late = rt_image(7)
        proof.source.instances[late.SOPInstanceUID] = late
        proof.source.delivers = lambda level, uid: level == "IMAGE" or uid != late.SOPInstanceUID
        clock.now = WITHIN
        # Longer than the deadline: two looks in 0.02 s.
        clock.over_after(900)

    proof.source.on_move = quieten
    result = proof(peer=proof.source.peer(retrieve_deadline=8, **QUIET))
    assert (result.outcome, result.counts["found"], clock.looks >= 900) == (Outcome.COMPLETE, 5, True)


def test_quiet_hours_of_the_proving_peer_are_not_the_time_of_the_source(source, research, monkeypatch):
    clock = Clock(monkeypatch, BEFORE)

    def quieten():
        source.on_move = lambda: None
        clock.now = WITHIN
        clock.over_after(900)

    source.on_move = quieten
    source.delivers = lambda level, uid: level == "IMAGE" or uid != UIDS[2]
    result = move_to_third_party(
        source.peer(retrieve_deadline=8),
        SERIES,
        destination="RESEARCH",
        profile=PROFILE,
        verify_peer=research.peer(**QUIET),
        verify_profile=Profile(name="generic", stable_interval_seconds=0.05),
    )
    assert (result.outcome, clock.looks >= 900) == (Outcome.COMPLETE, True)
    assert source.asked("C-MOVE") == ["SERIES", "IMAGE"]


class Waiting:
    """A proof whose looks have to wait so many seconds, and which proves nothing; time goes by as it says."""

    state, look_seconds, where = State.LISTED, 1.0, "somewhere"

    def __init__(self, monkeypatch, *seconds, grows_at=-1):
        self.now, self.looks, self.pauses, self.waited = 100.0, [], [], 0.0
        self._seconds, self._grows_at, self._grew = list(seconds), grows_at, -math.inf
        monkeypatch.setattr(third_party_proof, "time", SimpleNamespace(monotonic=lambda: self.now))

    def look(self, wanted, *, now):
        if len(self.looks) == self._grows_at:
            self._grew = now
        self.looks.append(self.now)
        seconds = self._seconds.pop(0) if self._seconds else 0.0
        self.now, self.waited = self.now + seconds, self.waited + seconds
        return Sight({}, self._grew)

    def pause(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds

    def raise_if_cancelled(self):
        pass


def test_while_nobody_may_look_neither_the_deadline_nor_the_quiet_comes_nearer(monkeypatch):
    waiting = Waiting(monkeypatch, 3600.0)
    watch = Watch(proof=waiting, quiet_seconds=3.0, cancellation=waiting)
    entries = {UIDS[0]: Entry(sop_instance_uid=UIDS[0])}
    assert watch.settle(entries, take=lambda entry: None, until=110.0) == 3600.0
    assert (waiting.looks, waiting.pauses) == ([100.0, 3701.0, 3702.0, 3703.0], [1.0] * 3)
    waiting = Waiting(monkeypatch, 3600.0)
    watch = Watch(proof=waiting, quiet_seconds=30.0, cancellation=waiting)
    watch.settle(entries, take=lambda entry: None, until=102.0)
    assert waiting.looks == [100.0, 3701.0, 3702.0]


@pytest.mark.parametrize(
    ("grows_at", "looks"), [(-1, [100.0, 101.0, 3702.0]), (1, [100.0, 101.0, 3702.0, 3703.0, 3704.0])]
)
def test_nothing_new_after_a_wait_is_quiet_as_long_as_the_wait_was(monkeypatch, grows_at, looks):
    waiting = Waiting(monkeypatch, 0.0, 3600.0, grows_at=grows_at)
    watch = Watch(proof=waiting, quiet_seconds=2.5, cancellation=waiting)
    entries = {UIDS[0]: Entry(sop_instance_uid=UIDS[0])}
    assert watch.settle(entries, take=lambda entry: None, until=200.0) == 3600.0
    assert waiting.looks == looks


def test_a_cancellation_ends_the_wait_for_the_destination(proof):
    cancellation = Cancellation()
    proof.place.keeps = lambda uid: False
    timer = threading.Timer(1.0, cancellation.cancel)
    timer.start()
    with pytest.raises(CancelledError):
        proof(settle_seconds=60.0, cancellation=cancellation)
    timer.join()


def test_two_kinds_of_proof_are_one_too_many(source, folder):
    with pytest.raises(ConfigurationError, match="both"):
        move_to_third_party(
            source.peer(), SERIES, destination="VMSFD", profile=PROFILE, verify_peer=source.peer(), verify_path=folder
        )
    assert source.finds == 0


# ------------------------------------------------------------------------------------------------------ listed


def test_a_destination_that_cannot_be_asked_is_found_out_before_anything_is_moved(source):
    source.destinations["VMSFD"] = ("127.0.0.1", free_port())
    nobody = replace(source.peer(), port=free_port(), called_ae_title="NOBODY")
    with pytest.raises(PeerUnreachableError, match="NOBODY"):
        move_to_third_party(source.peer(), SERIES, destination="VMSFD", profile=PROFILE, verify_peer=nobody)
    assert source.requests == []


def test_a_destination_that_stops_to_answer_leaves_what_was_reported_as_reported(source, research):
    source.on_move = research.stop_listening
    result = move_to_third_party(
        source.peer(), SERIES, destination="RESEARCH", profile=PROFILE, verify_peer=research.peer(connect_timeout=1.0)
    )
    assert (result.outcome, states(result)) == (Outcome.PARTIAL, ["reported"] * 4)
    assert isinstance(result.error, PeerUnreachableError)
    assert "0 of 4 instances" in result.manifest.message
    # What was not looked for is not known to be missing.
    assert source.asked("C-MOVE") == ["SERIES"]


def test_the_destination_is_asked_for_the_series_of_what_is_outstanding(source, research):
    asked = []
    research.on_find = lambda: asked.append(1)
    stranger = rt_image(77, series=f"{ROOT}.1.2")
    research.instances[stranger.SOPInstanceUID] = stranger
    result = move_to_third_party(
        source.peer(), SERIES, destination="RESEARCH", profile=PROFILE, verify_peer=research.peer()
    )
    assert (result.outcome, result.counts["found"]) == (Outcome.COMPLETE, 4)
    assert stranger.SOPInstanceUID not in result.manifest.ledger.entries
    assert asked


# ---------------------------------------------------------------------------------------------------- verified


def filed(source, station, **settings):
    defaults = {"destination": "VMSFD", "profile": PROFILE, "verify_path": station.folder}
    return move_to_third_party(source.peer(), SERIES, **(defaults | settings))


def test_each_file_is_hashed_and_no_name_that_the_destination_made_is_kept(source, station, tmp_path):
    result = filed(source, station, manifest_root=tmp_path / "moves", retrieval_id="m-1")
    entries = result.manifest.ledger.entries
    assert set(entries) == set(UIDS)
    paths = {str(dcmread(path).SOPInstanceUID): path for path in (station.folder / "QA_TB_WL").iterdir()}
    for uid, entry in entries.items():
        assert entry.sha256 == hashlib.sha256(paths[uid].read_bytes()).hexdigest()
        assert (entry.bytes, entry.transfer_syntax_uid) == (paths[uid].stat().st_size, "1.2.840.10008.1.2")
    assert result.manifest.request["verify_path"] == str(station.folder)
    # The folder is named after a patient; the manifest is not to say so.
    assert "QA_TB_WL" not in (tmp_path / "moves" / ".dicom" / "m-1.json").read_text()


def test_what_was_verified_is_found_again_under_any_name(source, station):
    manifest = filed(source, station).manifest

    def differences():
        return audit_move(manifest, WatchedFolder(station.folder, quiet_seconds=0.0)).differences

    paths = {str(dcmread(path).SOPInstanceUID): path for path in (station.folder / "QA_TB_WL").iterdir()}
    paths[UIDS[0]].rename(station.folder / "renamed")
    assert differences() == {}
    (station.folder / "renamed").unlink()
    paths[UIDS[1]].write_bytes(paths[UIDS[1]].read_bytes()[:-10])
    other = bytearray(paths[UIDS[2]].read_bytes())
    other[-1] ^= 1
    paths[UIDS[2]].write_bytes(other)
    found = differences()
    assert set(found) == set(UIDS[:3])
    assert found[UIDS[0]] == "no file of it is there"
    assert "not whole" in found[UIDS[1]]
    assert found[UIDS[2]] == "has another SHA-256"


@pytest.mark.parametrize("ending", [slice(0, -100), slice(0, 300)], ids=["inside the pixels", "inside the head"])
def test_a_truncated_file_verifies_nothing(source, station, ending):
    station.spoil = lambda data: data[ending]
    result = filed(source, station)
    assert (result.outcome, states(result)) == (Outcome.PARTIAL, ["missing"] * 4)


def test_a_file_that_is_whole_only_between_two_elements_waits_for_its_rest(source, station):
    """The lengths of a file that was written up to an element's end walk to its end; its writer goes on."""
    rest = {}

    def file_in_two_parts(path, data):
        path.parent.mkdir(parents=True, exist_ok=True)
        cut = len(data) - 512 - 8
        path.write_bytes(data[:cut])
        rest[path] = data[cut:]

        def finish():
            with path.open("ab") as file:
                file.write(rest[path])

        timer = threading.Timer(0.4, finish)
        station._timers.append(timer)
        timer.start()

    station._file = file_in_two_parts
    result = filed(source, station, settle_seconds=1.5)
    assert result.outcome is Outcome.COMPLETE
    files = {str(dcmread(path).SOPInstanceUID): path for path in rest}
    for uid, entry in result.manifest.ledger.entries.items():
        assert entry.bytes == files[uid].stat().st_size
        assert dcmread(files[uid]).PixelData


def test_a_file_of_another_class_or_with_another_object_inside_verifies_nothing(source, station):
    station.spoil = lambda data: data.replace(f"{ROOT}.1.1.1".encode(), f"{ROOT}.1.1.9".encode(), 1)
    result = filed(source, station)
    assert result.missing == (UIDS[1],)
    station.spoil = lambda data: data


def test_a_folder_that_is_not_there_is_found_out_before_anything_is_moved(source, station, tmp_path):
    with pytest.raises(DestinationWriteError, match="mounted on this machine"):
        filed(source, station, verify_path=tmp_path / "nowhere")
    assert source.requests == []


def test_a_folder_that_vanishes_leaves_what_was_reported_as_reported(source, station):
    gone = station.folder.with_name("gone")
    station.keeps = lambda uid: False
    source.on_move = lambda: station.folder.rename(gone)
    result = filed(source, station)
    assert (result.outcome, states(result)) == (Outcome.PARTIAL, ["reported"] * 4)
    assert isinstance(result.error, DestinationWriteError)


def test_files_of_others_are_read_once(source, station, monkeypatch):
    (station.folder / "others").mkdir()
    for number in range(50):
        (station.folder / "others" / f"{number}.dcm").write_bytes(bytes(128) + b"DICM" + bytes(100))
    read = []
    head = WatchedFolder._uid_of
    monkeypatch.setattr(WatchedFolder, "_uid_of", lambda self, name: read.append(name) or head(self, name))
    losing(station, _1=99)
    result = filed(source, station)
    assert result.missing == (UIDS[1],)
    assert len([name for name in read if name.startswith("others/")]) == 50
    assert len(read) == 53


def test_a_cancellation_ends_the_reading_of_a_folder(source, station, monkeypatch):
    for number in range(20):
        (station.folder / f"{number}.dcm").write_bytes(bytes(200))
    cancellation, read = Cancellation(), []
    head = WatchedFolder._uid_of

    def fifth(self, name):
        read.append(name)
        if len(read) == 5:
            cancellation.cancel()
        return head(self, name)

    monkeypatch.setattr(WatchedFolder, "_uid_of", fifth)
    with pytest.raises(CancelledError):
        filed(source, station, cancellation=cancellation)
    assert (len(read), source.requests) == (5, [])


@pytest.mark.parametrize("root", ["path", "URI", "store"])
def test_no_file_that_somebody_else_writes_to_is_ever_mapped(source, station, tmp_path, monkeypatch, root):
    """One that its writer shortens meanwhile would end the process by SIGBUS."""
    from upath import UPath

    mapped, make = [], mmap.mmap

    def note(number, *arguments, **settings):
        about = os.fstat(number)
        mapped.append((about.st_dev, about.st_ino))
        return make(number, *arguments, **settings)

    place = {"path": station.folder, "URI": station.folder.as_uri(), "store": UPath("memory://mapped-by-nobody")}[root]
    if root == "store":
        station._file = lambda path, data: (place / path.name).write_bytes(data)
        place.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(mmap, "mmap", note)
    # A link is another way to a file.
    aside = tmp_path / "aside"
    aside.write_bytes(sent_file(source, UIDS[0]))
    (station.folder / "link").symlink_to(aside)
    settings = {"verify_path": place, "manifest_root": tmp_path / "moves", "retrieval_id": "m-1"}
    result = filed(source, station, **settings)
    assert result.outcome is Outcome.COMPLETE
    assert filed(source, station, **settings).outcome is Outcome.COMPLETE
    assert audit_move(result.manifest, WatchedFolder(place, quiet_seconds=0.0)).checked == 4
    theirs = {(path.stat().st_dev, path.stat().st_ino) for path in [*station.files(), aside]}
    assert len(mapped) >= 12
    assert theirs.isdisjoint(mapped)


def test_a_file_is_read_again_when_it_changes_and_its_entry_moves_with_its_name(source, folder):
    watched = WatchedFolder(folder, quiet_seconds=0.0)
    (folder / "a").write_bytes(b"nothing yet")
    assert watched.refresh(UIDS, now=1.0) == -math.inf
    whole = sent_file(source, UIDS[0])
    (folder / "a").write_bytes(whole)
    assert watched.refresh(UIDS, now=2.0) == 2.0
    assert str(watched.whole(UIDS[0], sop_class_uid=uids.RT_IMAGE, now=2.0).path) == "a"
    assert watched.whole(UIDS[0], sop_class_uid=uids.RT_PLAN, now=2.0) is None
    assert "another SOP class" in watched.problem_of(UIDS[0])
    (folder / "sub").mkdir()
    (folder / "a").rename(folder / "sub" / "b")
    assert watched.refresh(UIDS, now=3.0) == 3.0
    assert str(watched.whole(UIDS[0], sop_class_uid="", now=3.0).path) == "sub/b"
    assert watched.refresh(UIDS, now=4.0) == 3.0


def test_a_file_that_was_there_before_counts_once_it_is_written_again(source, folder):
    watched = WatchedFolder(folder, quiet_seconds=0.0)
    (folder / "a").write_bytes(sent_file(source, PLAN))
    watched.refresh(UIDS, now=1.0)
    watched.disregard([PLAN])
    assert watched.whole(PLAN, sop_class_uid="", now=2.0) is None
    assert "earlier version" in watched.problem_of(PLAN)
    os.utime(folder / "a", (1, 1))
    watched.refresh(UIDS, now=3.0)
    assert watched.whole(PLAN, sop_class_uid="", now=3.0) is not None


def test_links_to_folders_are_not_followed_and_files_that_may_not_be_read_are_left(source, folder, tmp_path):
    (folder / "loop").symlink_to(folder)
    (folder / "dead").symlink_to(tmp_path / "nothing")
    (folder / "a").write_bytes(sent_file(source, UIDS[0]))
    watched = WatchedFolder(folder, quiet_seconds=0.0)
    assert watched.refresh(UIDS, now=1.0) == 1.0
    found = watched.whole(UIDS[0], sop_class_uid="", now=1.0)
    assert (str(found.path), found.others) == ("a", 0)


def test_a_folder_in_a_store_is_looked_into_the_same_way(source, tmp_path):
    from upath import UPath

    root = UPath("memory://filed-by-others")
    (root / "somebody").mkdir(parents=True, exist_ok=True)
    whole = sent_file(source, UIDS[0])
    (root / "somebody" / "1.dcm").write_bytes(whole)
    (root / "somebody" / "2.dcm").write_bytes(sent_file(source, UIDS[1])[:-50])
    watched = WatchedFolder(root, quiet_seconds=0.0)
    assert watched.refresh(UIDS, now=1.0) == 1.0
    found = watched.whole(UIDS[0], sop_class_uid="", now=1.0)
    assert str(found.path) == "somebody/1.dcm"
    assert found.inspection.sha256_file == hashlib.sha256(whole).hexdigest()
    assert watched.whole(UIDS[1], sop_class_uid="", now=1.0) is None
    assert watched.refresh(UIDS, now=2.0) == 1.0


def sent_file(source, uid) -> bytes:
    """Return an instance as a file."""
    from io import BytesIO

    from support.archive import sendable

    buffer = BytesIO()
    sendable(source.instances[uid]).save_as(buffer, implicit_vr=True, little_endian=True, enforce_file_format=True)
    return buffer.getvalue()
