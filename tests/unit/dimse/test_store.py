"""C-STORE as SCU: what is allowed, in which contexts objects go, and that each one is accounted for."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from support.raw_peer import raw_peer
from support.storage_peer import StoragePeer

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import cancellation as cancelling
from airflow_provider_varian.dimse import library, quiet_hours, store
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.slices import FileRange
from airflow_provider_varian.dimse.store import StoreState, UnsendableError
from airflow_provider_varian.errors import (
    AssociationAbortedError,
    CancelledError,
    ConfigurationError,
    ContextRejectedError,
    OutOfResourcesError,
    PeerTimeoutError,
    PeerUnreachableError,
    RefusedByPeerError,
)

EXPLICIT, IMPLICIT = uids.EXPLICIT_VR_LITTLE_ENDIAN, uids.IMPLICIT_VR_LITTLE_ENDIAN
JPEG = "1.2.840.10008.1.2.4.50"


@dataclass(eq=False)
class Thing:
    """An object in memory; what it gives depends on the transfer syntax that is asked for."""

    number: int
    sop_class_uid: str = uids.RT_IMAGE
    transfer_syntax_uid: str = EXPLICIT
    error: Exception | None = None
    slices: list = field(default_factory=list)
    opened_in: list = field(default_factory=list)

    @property
    def sop_instance_uid(self):
        return f"1.2.3.{self.number}"

    @contextmanager
    def opened(self, transfer_syntax_uid):
        self.opened_in.append(transfer_syntax_uid)
        if self.error is not None:
            raise self.error
        yield self.slices or [b"object" + bytes([self.number % 256, 0])]


@dataclass
class Account:
    """What was told of each try."""

    told: list = field(default_factory=list)

    def __call__(self, outgoing, sent):
        self.told.append((outgoing.number, sent))

    @property
    def states(self):
        return [(number, str(sent.state)) for number, sent in self.told]

    def of(self, number):
        return next(sent for each, sent in reversed(self.told) if each == number)


def things(count, **more):
    return [Thing(number, **more) for number in range(1, count + 1)]


@pytest.fixture
def account():
    return Account()


@pytest.fixture
def storage():
    with StoragePeer() as running:
        yield running


def test_nothing_is_opened_or_called_unless_the_connection_allows_it(storage, account):
    thing = Thing(1)
    with pytest.raises(ConfigurationError, match=r"allow_store.*Automatic Patient Creation"):
        store.store(storage.peer(allow_store=False), [thing], on_sent=account)
    assert (storage.associations, thing.opened_in, account.told) == (0, [], [])


def test_objects_arrive_as_they_are_and_each_is_told_of(storage, account):
    assert store.store(storage.peer(), things(3), on_sent=account) is None
    assert account.states == [(1, "stored"), (2, "stored"), (3, "stored")]
    assert storage.received[1] == ("1.2.3.2", EXPLICIT, b"object\x02\0")
    assert storage.associations == 1


def test_pynetdicoms_own_path_does_the_same(storage, account, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "missing_for_streaming", lambda: ["DULServiceProvider._recv_pdu"])
    (tmp_path / "file").write_bytes(b"objects!")
    storage.answer = lambda uid: None if uid.endswith(".3") else 0
    in_a_file = Thing(2, slices=[FileRange(tmp_path / "file", 0, 8)])
    assert store.store(storage.peer(), [Thing(1), in_a_file, Thing(3), Thing(4)], on_sent=account) is None
    assert [data for _, _, data in storage.received] == [b"object\x01\0", b"objects!", b"object\x04\0"]
    assert account.of(3).state is StoreState.UNANSWERED


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007])
def test_a_warning_is_an_acceptance_with_a_remark(storage, account, status):
    storage.answer = lambda uid: status
    assert store.store(storage.peer(), things(1), on_sent=account) is None
    sent = account.of(1)
    assert (sent.state, sent.status, sent.error) == (StoreState.WARNING, status, None)
    assert sent.state.is_accepted
    assert f"0x{status:04X}" in sent.reason


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (0xA700, OutOfResourcesError, "out of resources"),
        (0xA7FF, OutOfResourcesError, "out of resources"),
        (0xA900, RefusedByPeerError, "does not match SOP class"),
        (0xA9AB, RefusedByPeerError, "does not match SOP class"),
        (0xC001, RefusedByPeerError, "cannot understand"),
        (0x0122, RefusedByPeerError, "SOP class not supported"),
        (0x0124, RefusedByPeerError, "not authorised"),
    ],
)
def test_a_failure_is_told_in_words_and_the_others_go_on(storage, account, status, kind, words):
    storage.answer = lambda uid: status if uid.endswith(".1") else 0
    assert store.store(storage.peer(), things(2), on_sent=account) is None
    sent = account.of(1)
    assert (sent.state, sent.status, type(sent.error)) == (StoreState.FAILED, status, kind)
    assert words in sent.reason
    assert account.of(2).state is StoreState.STORED


def test_of_a_comment_only_harmless_words_are_repeated(storage, account):
    storage.answer = lambda uid: (0xC001, "Patient Müller unknown")
    store.store(storage.peer(), things(1), on_sent=account)
    assert "patient" in account.of(1).reason.lower()
    assert "ller" not in account.of(1).reason + str(account.of(1).error)


def test_each_class_and_transfer_syntax_has_a_context_of_its_own(account):
    accepts = {uids.RT_IMAGE: [EXPLICIT, JPEG], uids.CT_IMAGE: [IMPLICIT]}
    objects = [
        Thing(1),
        Thing(2, transfer_syntax_uid=JPEG),
        Thing(3, sop_class_uid=uids.CT_IMAGE, transfer_syntax_uid=IMPLICIT),
        Thing(4),
    ]
    with StoragePeer(accepts) as storage:
        assert store.store(storage.peer(), objects, on_sent=account) is None
        assert [syntax for _, syntax, _ in storage.received] == [EXPLICIT, JPEG, IMPLICIT, EXPLICIT]
    assert storage.proposed == [
        [
            (uids.RT_IMAGE, [EXPLICIT]),
            (uids.RT_IMAGE, [IMPLICIT]),
            (uids.RT_IMAGE, [JPEG]),
            (uids.CT_IMAGE, [IMPLICIT]),
        ]
    ]


def test_where_only_implicit_is_taken_an_uncompressed_object_is_asked_for_in_it(account):
    plain, compressed = Thing(1), Thing(2, transfer_syntax_uid=JPEG)
    with StoragePeer({uids.RT_IMAGE: [IMPLICIT]}) as storage:
        assert store.store(storage.peer(), [plain, compressed], on_sent=account) is None
    assert plain.opened_in == [IMPLICIT]
    assert account.of(1).transfer_syntax_uid == IMPLICIT
    # A compressed one goes as it is, or not at all.
    assert compressed.opened_in == []
    assert account.of(2).state is StoreState.FAILED
    assert "JPEG Baseline" in account.of(2).reason
    assert "never re-encoded" in account.of(2).reason


def test_a_class_that_the_peer_does_not_take_fails_alone(storage, account):
    objects = [Thing(1, sop_class_uid=uids.RT_PLAN), Thing(2)]
    assert store.store(storage.peer(), objects, on_sent=account) is None
    assert isinstance(account.of(1).error, ContextRejectedError)
    assert "RT Plan Storage" in account.of(1).reason
    assert account.of(2).state is StoreState.STORED


def test_a_peer_that_takes_no_class_at_all_leaves_each_one_failed(storage, account):
    objects = things(2, sop_class_uid=uids.RT_PLAN)
    assert store.store(storage.peer(), objects, on_sent=account) is None
    assert account.states == [(1, "failed"), (2, "failed")]
    assert storage.associations == 1


def test_more_contexts_than_an_association_holds_go_over_several(account):
    classes = [f"1.2.826.0.1.3680043.10.1511.9.{number}" for number in range(70)]
    objects = [Thing(number, sop_class_uid=uid) for number, uid in enumerate([*classes, classes[0]])]
    with StoragePeer({uids.RT_IMAGE: [EXPLICIT]}) as storage:
        assert store.store(storage.peer(), objects, on_sent=account) is None
    assert [len(each) for each in storage.proposed] == [128, 12]
    assert sorted(number for number, _ in account.told) == list(range(71))


def test_what_cannot_be_sent_fails_alone(storage, account):
    objects = [
        Thing(1, error=UnsendableError("it is cut")),
        Thing(2, error=FileNotFoundError(2, "No such file or directory")),
        Thing(3),
    ]
    assert store.store(storage.peer(), objects, on_sent=account) is None
    assert [account.of(number).reason for number in (1, 2)] == [
        "it is cut",
        "it cannot be read and sent (No such file or directory)",
    ]
    assert [account.of(number).error.transient for number in (1, 2)] == [False, True]
    assert account.of(3).state is StoreState.STORED
    assert storage.associations == 1


def test_a_file_that_ends_in_the_middle_costs_the_association_and_not_the_rest(storage, account, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_bytes(bytes(3_000_000))
    read = os.preadv

    def read_while_somebody_shortens_it(descriptor, buffers, offset):
        if offset > 1_000_000:
            os.truncate(file, 1_000_000)
        return read(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", read_while_somebody_shortens_it)
    cut = Thing(1, slices=[FileRange(file, 0, 3_000_000)])
    assert store.store(storage.peer(), [cut, Thing(2)], on_sent=account) is None
    assert account.states == [(1, "failed"), (2, "stored")]
    assert storage.uids == ["1.2.3.2"]
    assert storage.associations == 2


def test_after_a_loss_the_rest_goes_over_one_new_association(storage, account):
    lost = []

    def answer(uid):
        if uid == "1.2.3.2" and not lost:
            lost.append(uid)
            return None
        return 0

    storage.answer = answer
    assert store.store(storage.peer(), things(4), on_sent=account) is None
    assert account.states == [(1, "stored"), (2, "unanswered"), (2, "stored"), (3, "stored"), (4, "stored")]
    assert storage.uids == ["1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.4"]
    assert storage.associations == 2


def test_an_object_that_brings_the_peer_down_is_left_after_two_tries(storage, account):
    storage.answer = lambda uid: None if uid in ("1.2.3.2", "1.2.3.4") else 0
    assert store.store(storage.peer(), things(5), on_sent=account) is None
    assert storage.uids == ["1.2.3.1", "1.2.3.3", "1.2.3.5"]
    assert [account.of(number).state for number in (2, 4)] == [StoreState.UNANSWERED] * 2
    assert [number for number, _ in account.told].count(2) == store.OBJECT_TRIES
    assert isinstance(account.of(2).error, AssociationAbortedError)
    assert "the peer may have it" in account.of(2).reason


def test_a_peer_that_answers_nothing_is_given_up(storage, account):
    storage.answer = lambda uid: None
    error = store.store(storage.peer(), things(50), on_sent=account)
    assert isinstance(error, AssociationAbortedError)
    assert storage.associations == store.LOSSES_IN_A_ROW
    assert {number for number, _ in account.told} == {1, 2}


def test_a_silent_peer_is_a_time_out(account):
    def play(wire):
        wire.accept()
        wire.ignore_everything()

    with raw_peer(play) as port, StoragePeer() as storage:
        peer = storage.peer(dimse_timeout=0.3)
        object.__setattr__(peer, "port", port)
        error = store.store(peer, things(1), on_sent=account)
    assert error is None
    assert account.states == [(1, "unanswered")] * 2
    assert isinstance(account.of(1).error, PeerTimeoutError)
    assert "0.3 s" in account.of(1).reason


def test_several_silences_in_a_row_are_told_as_time_outs(account, storage):
    def play(wire):
        wire.accept()
        wire.ignore_everything()

    with raw_peer(play) as port:
        peer = storage.peer(dimse_timeout=0.2)
        object.__setattr__(peer, "port", port)
        assert isinstance(store.store(peer, things(2), on_sent=account), PeerTimeoutError)
    assert account.states == [(1, "unanswered"), (1, "unanswered"), (2, "unanswered")]


def test_a_peer_that_aborts_after_a_long_object_was_not_silent(storage, account, tmp_path, monkeypatch):
    # It took longer to send than a peer may be silent; the peer read all the while.
    file = tmp_path / "file"
    file.write_bytes(bytes(1_500_000))
    read = os.preadv

    def read_slowly(*args):
        time.sleep(1.2)
        return read(*args)

    monkeypatch.setattr(os, "preadv", read_slowly)
    storage.answer = lambda uid: None
    large = Thing(1, slices=[FileRange(file, 0, 1_500_000)])
    store.store(storage.peer(dimse_timeout=3.0), [large], on_sent=account)
    assert isinstance(account.of(1).error, AssociationAbortedError)
    assert "aborted the association" in account.of(1).reason


def test_an_answer_that_comes_while_it_is_cancelled_is_told(storage, account):
    cancellation = Cancellation()
    storage.answer = lambda uid: cancellation.cancel() or 0
    with pytest.raises(CancelledError):
        store.store(storage.peer(), things(2), on_sent=account, cancellation=cancellation)
    assert account.states == [(1, "stored")]


@pytest.mark.parametrize("transient", [False, True])
def test_what_is_found_wrong_only_after_it_went_was_on_the_wire(storage, account, transient):
    class Changed(Thing):
        @contextmanager
        def opened(self, transfer_syntax_uid):
            yield [b"object\0\0"]
            raise UnsendableError("it was changed", transient=transient)

    assert (
        store.store(storage.peer(), [Changed(1), Thing(2, error=UnsendableError("it is cut"))], on_sent=account) is None
    )
    assert [(account.of(n).state, account.of(n).on_the_wire) for n in (1, 2)] == [("failed", True), ("failed", False)]
    assert account.of(1).error.transient is transient


def test_a_peer_that_is_not_there_leaves_everything_unsent(storage, account):
    with raw_peer(lambda wire: None) as port:
        pass
    peer = storage.peer()
    object.__setattr__(peer, "port", port)
    assert isinstance(store.store(peer, things(2), on_sent=account), PeerUnreachableError)
    assert account.told == []


def test_a_cancellation_ends_it_between_objects(storage, account):
    cancellation = Cancellation()

    def cancel_after_two(outgoing, sent):
        account(outgoing, sent)
        if outgoing.number == 2:
            cancellation.cancel()

    with pytest.raises(CancelledError):
        store.store(storage.peer(), things(5), on_sent=cancel_after_two, cancellation=cancellation)
    assert account.states == [(1, "stored"), (2, "stored")]
    assert storage.uids == ["1.2.3.1", "1.2.3.2"]


def test_a_cancellation_reaches_a_peer_that_does_not_answer(account, monkeypatch):
    monkeypatch.setattr(cancelling, "GRACE_SECONDS", 0.1)
    heard = threading.Event()

    def play(wire):
        wire.accept()
        wire.read_message()
        heard.set()
        wire.ignore_everything()

    cancellation = Cancellation()
    killer = threading.Thread(target=lambda: heard.wait(10) and cancellation.cancel())
    with raw_peer(play) as port, StoragePeer() as storage:
        peer = storage.peer(dimse_timeout=60.0)
        object.__setattr__(peer, "port", port)
        killer.start()
        with pytest.raises(CancelledError):
            store.store(peer, things(2), on_sent=account, cancellation=cancellation)
    killer.join()
    # The peer may have it: that it was not sent would be saying too much.
    assert account.states == [(1, "unanswered")]


def test_quiet_hours_that_begin_release_the_association_and_the_rest_waits(storage, account, monkeypatch):
    begun = []

    def quiet_until(peer):
        # They begin after the second object, and last until its association is over.
        if len(storage.received) == 2 and not begun:
            begun.append(True)
            return "quiet"
        return None

    monkeypatch.setattr(quiet_hours, "quiet_until", quiet_until)
    assert store.store(storage.peer(), things(4), on_sent=account) is None
    assert storage.associations == 2
    assert storage.uids == [f"1.2.3.{number}" for number in range(1, 5)]


def test_the_peers_pause_lies_between_objects_too(storage, account):
    came = []
    storage.answer = lambda uid: came.append(time.monotonic()) or 0
    other = Thing(9, sop_class_uid=uids.RT_PLAN)
    started = time.monotonic()
    objects = [Thing(1), Thing(2), *[other] * 40, Thing(3)]
    assert store.store(storage.peer(request_pause_seconds=0.3), objects, on_sent=account) is None
    assert [later - earlier >= 0.3 for earlier, later in pairwise(came)] == [True, True]
    assert storage.associations == 1
    # Not for those that were not sent.
    assert time.monotonic() - started < 10
