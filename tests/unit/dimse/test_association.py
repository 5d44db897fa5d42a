"""An association always ends, and one that cannot be had says why."""

from __future__ import annotations

import logging
import socket
import threading
import time
import tracemalloc
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from pynetdicom import AE, evt
from pynetdicom.pdu import A_ASSOCIATE_AC
from support.ports import wait_until
from support.raw_peer import raw_peer

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts, library, parked, streaming
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.connection import Connection
from airflow_provider_varian.dimse.echo import echo, echo_peer
from airflow_provider_varian.dimse.peer import UserIdentity
from airflow_provider_varian.dimse.quiet import QuietAE, silence
from airflow_provider_varian.errors import (
    AssociationAbortedError,
    CancelledError,
    ConfigurationError,
    ContextRejectedError,
    NotFoundError,
    PeerTimeoutError,
    PeerUnreachableError,
    PermanentRejectionError,
    TransientRejectionError,
)
from airflow_provider_varian.waiting import QuietHours, Waiting


def no_threads_left(before):
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        left = [thread for thread in threading.enumerate() if thread not in before and thread.is_alive()]
        if not any("Requestor" in thread.name or type(thread).__name__ == "DULServiceProvider" for thread in left):
            return True
        time.sleep(0.02)
    return False


def test_is_released_at_the_end_of_the_block(scp, peer_at):
    released = threading.Event()
    port = scp([(evt.EVT_RELEASED, lambda _: released.set())])
    before = set(threading.enumerate())
    with associate(peer_at(port), contexts.verification(), step="C-ECHO") as association:
        assert association.assoc.is_established
        assert association.accepts(uids.VERIFICATION)
        assert not association.accepts(uids.STUDY_ROOT_FIND)
        assert association.negotiated.accepted == ((uids.VERIFICATION, uids.IMPLICIT_VR_LITTLE_ENDIAN),)
        assert association.negotiated.implementation_version_name.startswith("PYNETDICOM")
    assert released.wait(5)
    assert association.assoc.is_released
    assert no_threads_left(before)


def test_is_aborted_when_the_block_raises(scp, peer_at):
    aborted = threading.Event()
    port = scp([(evt.EVT_ABORTED, lambda _: aborted.set())])
    with (
        pytest.raises(RuntimeError, match="ours"),
        associate(peer_at(port), contexts.verification(), step="C-ECHO") as association,
    ):
        raise RuntimeError("ours")
    assert aborted.wait(5)
    assert not association.assoc.is_established


@pytest.mark.parametrize(
    "error", [NotFoundError("no such plan"), Waiting(QuietHours(deferred_as="aria"), "quiet hours")], ids=repr
)
def test_is_released_when_the_block_finds_something_missing_or_is_put_off(scp, peer_at, error):
    ended = []
    port = scp([(evt.EVT_ABORTED, lambda _: ended.append("aborted")), (evt.EVT_RELEASED, lambda _: ended.append("ok"))])
    with (
        pytest.raises(type(error)),
        associate(peer_at(port), contexts.verification(), step="C-ECHO") as association,
    ):
        raise error
    wait_until(lambda: ended)
    assert ended == ["ok"]
    assert association.assoc.is_released


def test_release_that_the_peer_never_answers_does_not_hold_us(peer_at):
    def play(wire):
        wire.accept()
        wire.ignore_everything()

    before = set(threading.enumerate())
    with raw_peer(play) as port:
        start = time.monotonic()
        with associate(peer_at(port, acse_timeout=0.5), contexts.verification(), step="C-ECHO"):
            pass
        assert time.monotonic() - start < 4
        assert no_threads_left(before)


def test_unknown_host_is_told_by_name(peer_at):
    from dataclasses import replace

    peer = replace(peer_at(104), host="no-such-host.invalid")
    with pytest.raises(PeerUnreachableError, match=r"host name 'no-such-host\.invalid' cannot be found"):
        echo_peer(peer)


def test_refused_connection_names_the_port(peer_at):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        port = bound.getsockname()[1]
        with pytest.raises(PeerUnreachableError, match=f"refused: nothing listens on port {port}"):
            echo_peer(peer_at(port))


def test_a_peer_that_cannot_be_reached_is_told_by_us_alone(peer_at, caplog):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(PeerUnreachableError):
            echo_peer(peer_at(bound.getsockname()[1]))
        theirs = [record for record in caplog.records if record.name.startswith("pynetdicom")]
        assert [record.getMessage() for record in theirs if record.levelno >= logging.WARNING] == []


def test_what_others_in_the_process_cannot_reach_is_still_logged(caplog):
    silence()

    def connect():
        logging.getLogger("pynetdicom.transport").error("nothing there")

    for ae in (AE(), QuietAE()):
        # pynetdicom opens a connection in a thread that knows its association.
        thread = threading.Thread(target=connect)
        thread.assoc = SimpleNamespace(ae=ae)
        thread.start()
        thread.join()
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors] == ["nothing there"]


def test_connection_that_times_out_is_told_as_such(peer_at):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        try:
            with pytest.raises(PeerUnreachableError, match=r"no connection within 0\.3 s.*firewall"):
                echo_peer(peer_at(port, connect_timeout=0.3))
        finally:
            for filler in fillers:
                filler.close()


REJECTIONS = [
    *[((1, 1, reason), reason in (2, 3, 7)) for reason in (1, 2, 3, 7)],
    *[((1, 2, reason), reason == 2) for reason in (1, 2)],
    *[((1, 3, reason), False) for reason in (1, 2)],
    *[((2, 1, reason), False) for reason in (1, 2, 3, 7)],
    *[((2, 2, reason), False) for reason in (1, 2)],
    *[((2, 3, reason), False) for reason in (1, 2)],
]


@pytest.mark.parametrize(("code", "permanent"), REJECTIONS)
def test_rejections_are_permanent_or_transient_by_their_code(peer_at, code, permanent):
    rejected = pytest.raises((PermanentRejectionError, TransientRejectionError))
    with raw_peer(lambda wire: wire.reject(*code)) as port, rejected as caught:
        echo_peer(peer_at(port))
    assert isinstance(caught.value, PermanentRejectionError) is permanent
    assert caught.value.transient is not permanent
    assert f"({code[0]}/{code[1]}/{code[2]})" in str(caught.value)


@pytest.mark.parametrize("code", [(1, 1, 3), (1, 1, 1)])
def test_unknown_calling_title_says_to_enter_it_under_trusted_entities(peer_at, code):
    rejected = pytest.raises((PermanentRejectionError, TransientRejectionError))
    with raw_peer(lambda wire: wire.reject(*code)) as port, rejected as caught:
        echo_peer(peer_at(port, calling_ae_title="AF_TEST"))
    assert 'Enter the calling AE title "AF_TEST"' in caught.value.hint
    assert "Trusted Application Entities" in caught.value.hint
    assert "restart" in caught.value.hint


def test_unknown_called_title_says_which_field_to_change(scp, peer_at):
    port = scp(require_called_aet=True)
    with pytest.raises(PermanentRejectionError, match="called_ae_title"):
        echo_peer(peer_at(port, called_ae_title="WRONG"))


def test_refused_service_is_named(scp, peer_at):
    port = scp(services=[uids.STUDY_ROOT_FIND])
    with pytest.raises(ContextRejectedError, match="Verification SOP Class"):
        echo_peer(peer_at(port))


def test_service_refused_among_others_is_named_when_it_is_used(scp, peer_at):
    port = scp(services=[uids.STUDY_ROOT_FIND])
    proposed = [*contexts.verification(), *contexts.find(uids.STUDY_ROOT_FIND)]
    with associate(peer_at(port), proposed, step="C-ECHO") as association:
        with pytest.raises(ContextRejectedError, match="Verification SOP Class"):
            echo(association)
        assert association.assoc.is_established


def test_peer_that_aborts_the_negotiation(peer_at):
    def play(wire):
        wire.read_pdu()
        wire.abort()
        wire.wait_for_end()

    with raw_peer(play) as port, pytest.raises(AssociationAbortedError, match="the peer aborted"):
        echo_peer(peer_at(port))


def test_abort_by_the_peers_service_provider_is_one_too(peer_at):
    def play(wire):
        wire.read_pdu()
        wire.abort(source=2, reason=1)
        wire.wait_for_end()

    with raw_peer(play) as port, pytest.raises(AssociationAbortedError, match="the peer aborted"):
        echo_peer(peer_at(port))


def test_peer_that_answers_and_closes_before_we_look_is_still_heard(peer_at, monkeypatch):
    """pynetdicom looks whether the socket is open before it looks for the answer."""
    from pynetdicom.transport import AssociationSocket

    connect = AssociationSocket.connect

    def slow_to_tell(self, primitive):
        ready, self._ready = self._ready, threading.Event()
        connect(self, primitive)

        def tell():
            wait_until(lambda: not self._is_connected)
            ready.set()

        threading.Thread(target=tell).start()

    monkeypatch.setattr(AssociationSocket, "connect", slow_to_tell)
    rejected = pytest.raises(PermanentRejectionError, match="calling AE title not recognised")
    with raw_peer(lambda wire: wire.reject(1, 1, 3)) as port, rejected:
        echo_peer(peer_at(port))


def test_peer_that_hangs_up_in_the_negotiation(peer_at):
    with raw_peer(lambda wire: wire.read_pdu()) as port, pytest.raises(AssociationAbortedError, match="TLS"):
        echo_peer(peer_at(port))


def test_peer_that_speaks_something_else(peer_at):
    def play(wire):
        wire.socket.sendall(b"220 mail.example.org ESMTP\r\n")
        wire.ignore_everything()

    with raw_peer(play) as port, pytest.raises(AssociationAbortedError, match="not DICOM"):
        echo_peer(peer_at(port))


def test_peer_that_is_silent_times_out(peer_at):
    with raw_peer(lambda wire: wire.ignore_everything()) as port:
        start = time.monotonic()
        with pytest.raises(PeerTimeoutError, match=r"no answer to the association request within 0\.5 s"):
            echo_peer(peer_at(port, acse_timeout=0.5))
        assert time.monotonic() - start < 4


def test_peer_that_stalls_in_the_middle_of_its_answer_times_out(peer_at):
    def play(wire):
        _, body = wire.read_pdu()
        wire.socket.sendall(wire.accept_pdu(body)[:50])
        wire.wait_for_end()

    before = set(threading.enumerate())
    with raw_peer(play) as port:
        start = time.monotonic()
        with pytest.raises(PeerTimeoutError):
            echo_peer(peer_at(port, acse_timeout=0.5, network_timeout=60))
        assert time.monotonic() - start < 6
        assert no_threads_left(before)


def test_too_many_contexts_are_refused_before_any_network(peer_at):
    proposed = contexts.storage_contexts() + contexts.storage_contexts()
    refused = pytest.raises(ConfigurationError, match="240 presentation contexts cannot be proposed")
    with refused, associate(peer_at(1), proposed, step="C-GET"):
        pass


def test_user_identity_is_sent_and_its_confirmation_demanded(peer_at):
    seen = []

    def play(wire):
        wire.accept()
        seen.append(wire.request)
        wire.read_message()

    with raw_peer(play) as port:
        peer = peer_at(port, user_identity=UserIdentity("physics", "secret"), require_user_identity=True)
        with pytest.raises(PermanentRejectionError, match="without confirming the user identity") as caught:
            echo_peer(peer)
    assert b"\x02\x01\x00\x07physics\x00\x06secret" in seen[0]
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(peer)


def test_user_identity_that_is_confirmed_passes(peer_at):
    def play(wire):
        wire.accept(items=b"\x59\x00\x00\x02\x00\x00")
        request, _ = wire.read_message()
        wire.respond(request, 0x0000)
        wire.read_message()

    with raw_peer(play) as port:
        peer = peer_at(port, user_identity=UserIdentity("physics"), require_user_identity=True)
        assert echo_peer(peer).seconds >= 0


def test_abort_of_an_idle_association_is_noticed(peer_at):
    go = threading.Event()

    def play(wire):
        wire.accept()
        go.wait(5)
        wire.abort()
        wire.wait_for_end()

    with raw_peer(play) as port, associate(peer_at(port), contexts.verification(), step="C-ECHO") as association:
        go.set()
        wait_until(lambda: not association.assoc.is_established)
        assert association.assoc.is_aborted
        with pytest.raises(AssociationAbortedError, match="the peer aborted"):
            echo(association)


@pytest.fixture
def releasing():
    """A peer that releases once it is told to: what it plays, what tells it, and what it sets once it is answered."""
    go, answered = threading.Event(), threading.Event()

    def play(wire):
        wire.accept()
        go.wait(5)
        wire.socket.sendall(b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00")
        kind, _ = wire.read_pdu()
        assert kind == 6
        answered.set()

    return play, go, answered


def test_release_of_an_idle_association_is_answered(peer_at, releasing):
    play, go, answered = releasing
    with raw_peer(play) as port, associate(peer_at(port), contexts.verification(), step="C-ECHO") as association:
        go.set()
        assert answered.wait(5)
        wait_until(lambda: association.assoc.is_released)
        with pytest.raises(AssociationAbortedError):
            echo(association)


def test_who_leaves_while_the_peer_releases_lets_the_answer_out_first(peer_at, releasing):
    play, go, answered = releasing
    with raw_peer(play) as port:
        with associate(peer_at(port), contexts.verification(), step="C-ECHO") as association:
            send = association.assoc.dul._send
            # Held back for much longer than the watch takes to call the association ended, as where other threads run
            # first: whoever leaves then closes the connection before the answer is out.
            association.assoc.dul._send = lambda pdu: (time.sleep(0.3), send(pdu))
            parked.claim(association.assoc)
            go.set()
            wait_until(lambda: parked.end_waits(association.assoc))
        assert answered.wait(5)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_release_that_both_sides_ask_for_at_once_is_quick(peer_at):
    def play(wire):
        wire.accept()
        request, _ = wire.read_message()
        wire.respond(request, 0x0000)
        wire.socket.sendall(b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00")
        wire.ignore_everything()

    with raw_peer(play) as port:
        for _ in range(5):
            start = time.monotonic()
            with associate(peer_at(port, acse_timeout=1.0), contexts.verification(), step="C-ECHO") as association:
                echo(association)
            assert time.monotonic() - start < 3
            assert not association.assoc.is_established


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_release_that_crosses_ours_in_the_last_moment_is_quick(peer_at, monkeypatch):
    """pynetdicom's thread does not survive that."""

    def play(wire):
        wire.accept()
        wire.socket.sendall(b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00")
        wire.ignore_everything()

    monkeypatch.setattr(parked, "_has_ended", lambda assoc: False)
    with raw_peer(play) as port:
        with associate(peer_at(port), contexts.verification(), step="C-ECHO") as association:
            wait_until(lambda: parked.end_waits(association.assoc))
            monkeypatch.setattr(parked, "end_waits", lambda assoc: False)
            start = time.monotonic()
        assert time.monotonic() - start < 3
        assert not association.assoc.is_established


def test_peer_that_accepts_and_releases_at_once(peer_at):
    def play(wire):
        wire.accept()
        wire.socket.sendall(b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00")
        wire.ignore_everything()

    with raw_peer(play) as port, pytest.raises(AssociationAbortedError):
        echo_peer(peer_at(port))


def test_silence_on_an_idle_association_ends_it(peer_at):
    def play(wire):
        wire.accept()
        wire.wait_for_end()

    with raw_peer(play) as port:
        peer = peer_at(port, network_timeout=0.3)
        with associate(peer, contexts.verification(), step="C-ECHO") as association:
            wait_until(lambda: not association.assoc.is_established)
            assert association.assoc.is_aborted


def test_cancelled_before_it_begins_touches_no_network(peer_at):
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(CancelledError):
        echo_peer(peer_at(1), cancellation=cancellation)


def test_cancelled_during_the_negotiation_ends_it(peer_at):
    cancellation, asked = Cancellation(), threading.Event()

    def play(wire):
        wire.read_pdu()
        asked.set()
        wire.wait_for_end()

    def cancel():
        asked.wait(5)
        cancellation.cancel()

    with raw_peer(play) as port:
        threading.Thread(target=cancel).start()
        start = time.monotonic()
        with pytest.raises(CancelledError):
            echo_peer(peer_at(port, acse_timeout=30), cancellation=cancellation)
        assert time.monotonic() - start < 5


def test_cancelled_while_connecting_ends_it(peer_at):
    cancellation = Cancellation()
    with socket.socket() as server, ExitStack() as stack:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        # A full backlog: the kernel leaves further connections hanging.
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        start = time.monotonic()
        threading.Timer(0.5, cancellation.cancel).start()
        with pytest.raises(CancelledError):
            echo_peer(peer_at(port, connect_timeout=30), cancellation=cancellation)
        assert 0.4 < time.monotonic() - start < 5


HEADS = {
    "4 GiB of data": b"\x04\x00\xff\xff\xff\xff",
    "4 GiB of anything": b"\x7f\x00\xff\xff\xff\xff",
    "4 GiB of an acceptance": b"\x02\x00\xff\xff\xff\xff",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
@pytest.mark.parametrize("accepted", [False, True], ids=["before", "after"])
def test_a_peer_that_claims_four_gibibytes_is_sent_away_and_takes_no_memory(peer_at, head, accepted):
    aborted = threading.Event()

    def play(wire):
        if accepted:
            wire.accept()
            wire.read_message()
        else:
            wire.read_pdu()
        wire.socket.sendall(head + bytes(100_000))
        if wire.read_pdu()[0] == 7:
            aborted.set()

    tracemalloc.start()
    with raw_peer(play) as port:
        with pytest.raises(AssociationAbortedError):
            echo_peer(peer_at(port))
        assert aborted.wait(10)
    # A connection's buffer of 1 MiB, and what an association takes.
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


def test_an_acceptance_that_lies_is_not_decoded(peer_at, monkeypatch):
    decoded = []
    monkeypatch.setattr(A_ASSOCIATE_AC, "decode", lambda *_: decoded.append(True))

    def play(wire):
        _, body = wire.read_pdu()
        answer = wire.accept_pdu(body)
        wire.socket.sendall(
            b"\x02\x00" + len(answer[6:] * 2).to_bytes(4, "big") + answer[6:] + b"\x21\x00\xff\xff" * 50
        )
        wire.socket.sendall(bytes(200_000))
        wire.ignore_everything()

    with raw_peer(play) as port, pytest.raises(AssociationAbortedError):
        echo_peer(peer_at(port))
    assert decoded == []


def test_with_a_pynetdicom_that_lacks_names_its_own_reading_is_used_after_one_warning(
    scp, peer_at, monkeypatch, caplog
):
    monkeypatch.setattr(library, "missing_for_streaming", lambda: ["DULServiceProvider._recv_pdu"])
    monkeypatch.setattr(streaming, "_warned", threading.Event())
    port = scp()
    for _ in range(2):
        with associate(peer_at(port), contexts.verification(), step="C-ECHO") as association:
            assert streaming.of(association.assoc) is None
            # As pynetdicom has it: what is hurried is only the beginning.
            assert association.assoc.dul._run_loop_delay == 0.001
            echo(association)
    assert sum("more slowly" in record.getMessage() for record in caplog.records) == 1


def test_what_is_proposed_stays_as_it_was(scp, peer_at):
    proposed = contexts.get(uids.STUDY_ROOT_GET, [uids.CT_IMAGE]) + contexts.verification()
    before = [dict(vars(context)) for context in proposed]
    for _ in range(2):
        with associate(peer_at(scp()), proposed, step="C-ECHO") as association:
            assert association.assoc.requestor.requested_contexts[1].context_id == 3
            # Nothing that is negotiated is shared with what is proposed the next time.
            for context in association.assoc.requestor.requested_contexts:
                context.scu_role = context.scp_role = False
    assert [dict(vars(context)) for context in proposed] == before


def test_an_idle_association_of_ours_sleeps(scp, peer_at, monkeypatch):
    waits, stock = [], Connection.wait
    monkeypatch.setattr(Connection, "wait", lambda *args, **options: waits.append(1) or stock(*args, **options))
    with associate(peer_at(scp()), contexts.verification(), step="C-ECHO") as association:
        echo(association)
        waits.clear()
        time.sleep(0.8)
        assert len(waits) < 6
        echo(association)
