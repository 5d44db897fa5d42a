"""Faults of C-ECHO and C-STORE, which pynetdicom answers: on the wire, as our own clients see them."""

from __future__ import annotations

import time

import pytest
from pydicom import Dataset
from pynetdicom import build_context
from pynetdicom.dsutils import encode
from support.ports import wait_until
from support.simulated import identifier, peer_of

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import sender
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.command_set import StoreRequest
from airflow_provider_varian.dimse.echo import echo_peer
from airflow_provider_varian.errors import AssociationAbortedError, OutOfResourcesError, PeerFailureError
from airflow_provider_varian.simulator.daemon.faults import Fault, Kind, Step

ENDS = [Kind.ABORT, Kind.RESET, Kind.CLOSE]


@pytest.fixture
def echo(daemon):
    return lambda **extra: echo_peer(peer_of(daemon, **extra))


def plan(number=1):
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = uids.RT_PLAN, f"1.2.3.4.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    ds.PatientID, ds.PatientName, ds.Modality = "QA_TB_WL", "QA^TrueBeam1", "RTPLAN"
    return ds


@pytest.fixture
def store(daemon):
    """Store a plan; return the status of the answer, or ``None`` when the association ended without one."""

    def send(number=1, patience=10.0):
        offered = [build_context(uids.RT_PLAN, uids.IMPLICIT_VR_LITTLE_ENDIAN)]
        ds = plan(number)
        request = StoreRequest(sop_class_uid=uids.RT_PLAN, sop_instance_uid=ds.SOPInstanceUID, message_id=1)
        with associate(peer_of(daemon, dimse_timeout=patience), offered, step="C-STORE") as association:
            context = association.context_for(uids.RT_PLAN, step="C-STORE")
            with association.running(context), sender.sending(association.assoc) as found:
                answer = found.store(context.context_id, request, [encode(ds, True, True)])
        return answer.status if answer is not None else None

    return send


def held(client):
    return len(client.find_with(identifier("IMAGE", SeriesInstanceUID="1.2.3.4", SOPInstanceUID="")))


@pytest.mark.fault("status")
@pytest.mark.parametrize("step", [Step.REQUEST, Step.FINAL])
def test_an_echo_is_answered_with_the_status_that_was_asked_for(daemon, echo, step):
    daemon.faults.arm(Fault(kind=Kind.STATUS, step=step, service="C-ECHO", status=0x0110))
    with pytest.raises(PeerFailureError, match="0x0110"):
        echo()
    assert echo().seconds >= 0
    assert daemon.counts["faults"] == 1


@pytest.mark.fault("abort")
@pytest.mark.fault("reset")
@pytest.mark.fault("close")
@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("step", [Step.REQUEST, Step.FINAL])
def test_an_association_ends_instead_of_an_echo(daemon, echo, kind, step):
    daemon.faults.arm(Fault(kind=kind, step=step, service="C-ECHO", at=2))
    assert echo().seconds >= 0
    with pytest.raises(AssociationAbortedError):
        echo()
    assert echo().seconds >= 0
    wait_until(lambda: not daemon.counts["open"])


@pytest.mark.fault("stall")
@pytest.mark.fault("slow")
@pytest.mark.parametrize("kind", [Kind.STALL, Kind.SLOW])
def test_an_echo_comes_late(daemon, echo, kind):
    daemon.faults.arm(Fault(kind=kind, step=Step.REQUEST, service="C-ECHO", seconds=0.3))
    start = time.monotonic()
    echo()
    assert time.monotonic() - start >= 0.3


@pytest.mark.fault("stall")
def test_an_echo_that_stalls_longer_than_a_transaction_may_is_aborted(daemon, habit, echo):
    habit(transaction_seconds=0.2)
    daemon.faults.arm(Fault(kind=Kind.STALL, step=Step.REQUEST, service="C-ECHO", seconds=60.0))
    with pytest.raises(AssociationAbortedError):
        echo()


@pytest.mark.fault("restart")
def test_the_daemon_restarts_at_an_echo(daemon, echo):
    daemon.faults.arm(Fault(kind=Kind.RESTART, step=Step.REQUEST, service="C-ECHO", seconds=0.2))
    with pytest.raises(AssociationAbortedError):
        echo()
    assert daemon.counts["restarts"] == 1

    def works():
        try:
            return echo().seconds >= 0
        except AssociationAbortedError:
            return False

    wait_until(works)


@pytest.mark.fault("status")
@pytest.mark.parametrize(("step", "kept"), [(Step.REQUEST, 0), (Step.FINAL, 1)])
def test_a_store_is_answered_with_the_status_that_was_asked_for(daemon, client, store, step, kept):
    daemon.faults.arm(Fault(kind=Kind.STATUS, step=step, service="C-STORE", status=0xA702))
    assert store() == 0xA702
    assert held(client) == kept
    assert store() == 0x0000
    assert held(client) == 1


@pytest.mark.fault("abort")
@pytest.mark.fault("reset")
@pytest.mark.fault("close")
@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize(("step", "kept"), [(Step.REQUEST, 0), (Step.FINAL, 1)])
def test_an_association_ends_instead_of_the_answer_to_a_store(daemon, client, store, kind, step, kept):
    daemon.faults.arm(Fault(kind=kind, step=step, service="C-STORE"))
    assert store() is None
    assert held(client) == kept
    assert store() == 0x0000


@pytest.mark.fault("stall")
def test_a_store_stalls_and_goes_on(daemon, client, store):
    daemon.faults.arm(Fault(kind=Kind.STALL, step=Step.REQUEST, service="C-STORE", seconds=0.3))
    start = time.monotonic()
    assert store() == 0x0000
    assert time.monotonic() - start >= 0.3
    daemon.faults.arm(Fault(kind=Kind.STALL, step=Step.REQUEST, service="C-STORE", seconds=60.0))
    assert store(2, patience=0.2) is None, "nobody waits for it any more"
    wait_until(lambda: not daemon.counts["open"])
    assert held(client) == 1


def test_a_fault_of_one_service_leaves_the_others_alone(daemon, client, echo, store):
    daemon.faults.arm(Fault(kind=Kind.STATUS, step=Step.REQUEST, service="C-STORE", status=0xA700, times=0))
    assert echo().seconds >= 0
    assert held(client) == 0
    assert store() == 0xA700
    daemon.faults.disarm()
    daemon.faults.arm(Fault(kind=Kind.STATUS, step=Step.REQUEST, status=0xA700))
    with pytest.raises(OutOfResourcesError):
        client.find("STUDY", PatientID="QA_TB_WL")
    assert store() == 0x0000, "a fault of any service strikes whoever comes first"
