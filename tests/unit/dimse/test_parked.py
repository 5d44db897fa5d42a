"""A requestor's own reactor must never take a response meant for the caller (performance 7).

The window in which it can is a few instructions wide. Here it is held open: the reactor, having found
that nobody uses the association, goes no further until an answer is there; and the caller, as if it
had been preempted, does not look for answers until the reactor has had its turn.
"""

from __future__ import annotations

import queue
import threading
import time
from types import SimpleNamespace

import pytest
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import A_P_ABORT

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts, library, parked
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.find import iter_matches
from airflow_provider_varian.errors import ConfigurationError

MATCHES = 3


class WidenedWindow:
    """Holds the window of one requestor open."""

    def __init__(self):
        self.taken_without_waiting = 0
        self.reactor_is_inside = threading.Event()
        self.reactor_had_its_turn = threading.Event()
        self.answers = 0
        #: The final response is there, and so all before it.
        self.complete = False

    def install(self, event):
        window, assoc = self, event.assoc

        class Checkpoint(threading.Event):
            def wait(self, timeout=None):
                passed = super().wait(timeout)
                window.reactor_is_inside.set()
                deadline = time.monotonic() + 5
                while not assoc.dimse.msg_queue.queue and time.monotonic() < deadline and not assoc._kill:
                    time.sleep(0.001)
                return passed

        class Answers(queue.Queue):
            def put(self, item, *args, **options):
                window.answers += 1
                super().put(item, *args, **options)
                window.complete = window.complete or getattr(item[1], "Status", None) == 0x0000

            def get(self, block=True, timeout=None):
                if block:
                    window.wait_for_the_reactor()
                    return super().get(block, timeout)
                try:
                    item = super().get(block=False)
                    window.taken_without_waiting += 1
                    return item
                finally:
                    if window.answers:
                        window.reactor_had_its_turn.set()

        checkpoint = Checkpoint()
        checkpoint.set()
        assoc._reactor_checkpoint = checkpoint
        assoc.dimse.msg_queue = Answers()

    def wait_for_the_reactor(self):
        """Wait until every answer is there and a reactor, if one runs, has looked for one."""
        deadline = time.monotonic() + 5
        while not self.complete and time.monotonic() < deadline:
            time.sleep(0.001)
        self.reactor_had_its_turn.wait(0.3)


@pytest.fixture
def window():
    return WidenedWindow()


def test_the_library_alone_loses_an_answer_and_reports_success(scp, find_handler, study_query, window):
    """Shows that the window is real: when this fails, pynetdicom no longer needs to be parked."""
    port = scp([find_handler(MATCHES)])
    ae = AE(ae_title="STOCK")
    ae.add_requested_context(uids.STUDY_ROOT_FIND, uids.IMPLICIT_VR_LITTLE_ENDIAN)
    assoc = ae.associate("127.0.0.1", port, ae_title="VMSDBD", evt_handlers=[(evt.EVT_CONN_OPEN, window.install)])
    assert window.reactor_is_inside.wait(5)
    answers = list(assoc.send_c_find(study_query, uids.STUDY_ROOT_FIND))
    assoc.release()
    assert answers[-1][0].Status == 0x0000
    assert len([match for _, match in answers if match is not None]) < MATCHES
    assert window.taken_without_waiting > 0


def test_a_parked_requestor_loses_none(scp, peer_at, find_handler, study_query, window):
    port = scp([find_handler(MATCHES)])
    handlers = [(evt.EVT_CONN_OPEN, window.install)]
    with associate(
        peer_at(port), contexts.find(uids.STUDY_ROOT_FIND), step="C-FIND", extra_handlers=handlers
    ) as association:
        for _ in range(3):
            window.answers, window.complete = 0, False
            found = list(iter_matches(association, uids.STUDY_ROOT_FIND, study_query))
            assert len(found) == MATCHES
    assert window.taken_without_waiting == 0


def test_a_parked_requestor_keeps_the_librarys_own_verbs_safe(scp, peer_at, find_handler, study_query, window):
    port = scp([find_handler(MATCHES)])
    handlers = [(evt.EVT_CONN_OPEN, window.install)]
    with associate(
        peer_at(port), contexts.find(uids.STUDY_ROOT_FIND), step="C-FIND", extra_handlers=handlers
    ) as association:
        answers = list(association.assoc.send_c_find(study_query, uids.STUDY_ROOT_FIND))
    assert len([match for _, match in answers if match is not None]) == MATCHES


def test_an_acceptor_is_not_parked(scp, peer_at, find_handler, study_query):
    # Its reactor is the one that serves requests.
    port = scp([find_handler(MATCHES), (evt.EVT_CONN_OPEN, parked.park)])
    with associate(peer_at(port), contexts.find(uids.STUDY_ROOT_FIND), step="C-FIND") as association:
        assert len(list(iter_matches(association, uids.STUDY_ROOT_FIND, study_query))) == MATCHES


def test_every_private_name_that_is_used_exists():
    assert library.missing_names() == []


def test_a_release_of_pynetdicom_without_them_is_refused_in_words(monkeypatch):
    from pynetdicom.association import Association

    monkeypatch.delattr(Association, "_run_reactor")
    with pytest.raises(ConfigurationError, match=r"Association\._run_reactor.*pynetdicom>=3\.0\.4,<3\.1"):
        library.check()


def test_who_waits_too_long_for_a_release_is_woken_though_the_association_is_being_killed():
    closed, told = [], queue.Queue()
    assoc = SimpleNamespace(
        is_requestor=True,
        _kill=True,
        _reactor_checkpoint=threading.Event(),
        dul=SimpleNamespace(
            socket=SimpleNamespace(_shutdown_socket=lambda: closed.append(True)),
            is_alive=lambda: True,
            to_user_queue=told,
        ),
    )
    parked.park(SimpleNamespace(assoc=assoc))
    with parked.bounded_release(assoc, -1.0):
        # As kill() does.
        assoc._reactor_checkpoint.set()
        assoc._run_reactor()
    assert closed == [True]
    assert isinstance(told.get_nowait(), A_P_ABORT)
    assert told.empty()
