from __future__ import annotations

import socket
import threading

import pytest
from pynetdicom import AE, build_context
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation, UserIdentityNegotiation
from support.ports import wait_until
from support.simulated import peer_of, trusted

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.echo import echo_peer
from airflow_provider_varian.errors import ConfigurationError, PermanentRejectionError, RefusedByPeerError
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon


def open_association(daemon, offered, calling="AIRFLOW", ext_neg=None):
    host, port = daemon.address
    assoc = AE(ae_title=calling).associate(host, port, contexts=offered, ae_title=daemon.ae_title, ext_neg=ext_neg)
    try:
        return assoc, {str(cx.abstract_syntax): str(cx.transfer_syntax[0]) for cx in assoc.accepted_contexts}
    finally:
        if assoc.is_established:
            assoc.release()


@pytest.mark.quirk(2, "max_pdu", "implementation_class_uid", "implementation_version_name")
def test_it_introduces_itself_as_db_svc_16_1_or_as_told(daemon, habit):
    def introduction():
        negotiated = echo_peer(peer_of(daemon)).negotiated
        return negotiated.implementation_class_uid, negotiated.implementation_version_name, negotiated.max_pdu

    assert introduction() == ("1.2.246.352.70.2.1.162.2", "DB Svc 16.1", 64234)
    habit(implementation_class_uid="1.2.3", implementation_version_name="DB Svc 18", max_pdu=16384)
    assert introduction() == ("1.2.3", "DB Svc 18", 16384)


@pytest.mark.quirk(1, "check_calling_ae_title")
@pytest.mark.quirk(1, "check_called_ae_title")
@pytest.mark.parametrize(
    ("calling", "called", "switch", "reason"),
    [("NOBODY", "VMSDBD", "check_calling_ae_title", 3), ("AIRFLOW", "WRONG", "check_called_ae_title", 7)],
)
def test_who_is_not_known_is_rejected_unless_a_switch_lets_all_in(daemon, habit, calling, called, switch, reason):
    def ask():
        offered = [build_context(uids.VERIFICATION, uids.IMPLICIT_VR_LITTLE_ENDIAN)]
        return AE(ae_title=calling).associate(*daemon.address, contexts=offered, ae_title=called)

    assoc = ask()
    assert assoc.is_rejected
    answer = assoc.acceptor.primitive
    assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, reason)
    assert daemon.counts["rejected"] == 1
    habit(**{switch: False})
    assoc = ask()
    assert assoc.is_established
    assoc.release()


@pytest.mark.quirk(1, "check_source_address")
def test_a_trusted_title_from_another_computer_is_rejected(daemon, habit):
    daemon.trust([trusted(host="192.0.2.7")])
    with pytest.raises(PermanentRejectionError, match="Trusted Application Entities"):
        echo_peer(peer_of(daemon))
    habit(check_source_address=False)
    assert echo_peer(peer_of(daemon)).seconds >= 0


@pytest.mark.quirk(21)
def test_a_title_with_a_blank_inside_works(clinic):
    entities = [trusted(), trusted(ae_title="Air flow")]
    with SimulatedDaemon(clinic, ae_title="Db Daemon", trusted=entities) as daemon:
        assert echo_peer(peer_of(daemon)).seconds >= 0
        assert echo_peer(peer_of(daemon, calling_ae_title="Air flow")).seconds >= 0
        for other in ({"called_ae_title": "Db"}, {"called_ae_title": "DbDaemon"}, {"calling_ae_title": "Air"}):
            with pytest.raises(PermanentRejectionError):
                echo_peer(peer_of(daemon, **other))


@pytest.mark.quirk(2, "implicit_only")
def test_only_implicit_vr_little_endian_is_taken_even_when_more_is_offered(daemon, habit):
    offered = [build_context(uids.STUDY_ROOT_FIND, [uids.EXPLICIT_VR_LITTLE_ENDIAN, uids.IMPLICIT_VR_LITTLE_ENDIAN]),
               build_context(uids.STUDY_ROOT_MOVE, [uids.EXPLICIT_VR_LITTLE_ENDIAN])]  # fmt: skip
    assert open_association(daemon, offered)[1] == {uids.STUDY_ROOT_FIND: uids.IMPLICIT_VR_LITTLE_ENDIAN}
    habit(implicit_only=False)
    assert open_association(daemon, offered)[1] == dict.fromkeys(
        (uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_MOVE), uids.EXPLICIT_VR_LITTLE_ENDIAN
    )


@pytest.mark.quirk(3, "get", "patient_root", "patient_study_only")
def test_models_are_those_of_the_daemon_and_get_is_on_a_switch(daemon, habit):
    patient_study_only = "1.2.840.10008.5.1.4.1.2.3.1"
    both = {uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_MOVE, uids.PATIENT_ROOT_FIND, uids.PATIENT_ROOT_MOVE}
    get = {uids.STUDY_ROOT_GET, uids.PATIENT_ROOT_GET}
    offered = [build_context(uid, uids.IMPLICIT_VR_LITTLE_ENDIAN) for uid in (*both, *get, patient_study_only)]
    assert set(open_association(daemon, offered)[1]) == both
    habit(get=True)
    assert set(open_association(daemon, offered)[1]) == both | get
    habit(patient_root=False)
    study_root = {uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_MOVE}
    assert set(open_association(daemon, offered)[1]) == study_root | {uids.STUDY_ROOT_GET}
    habit(get=False, patient_study_only=True)
    assert set(open_association(daemon, offered)[1]) == study_root | {patient_study_only}


@pytest.mark.quirk(3, "patient_study_only")
def test_the_retired_model_knows_patients_and_studies_alone(client, habit):
    habit(patient_study_only=True)
    assert len(client.find("STUDY", model="1.2.840.10008.5.1.4.1.2.3.1", PatientID="QA_TB_WL")) == 2
    with pytest.raises(RefusedByPeerError, match="0xA900"):
        client.find("SERIES", model="1.2.840.10008.5.1.4.1.2.3.1", PatientID="QA_TB_WL")


@pytest.mark.quirk(None, "max_associations")
def test_more_clients_than_the_daemon_takes_are_rejected_for_now(daemon, habit):
    habit(max_associations=1)
    offered = [build_context(uids.VERIFICATION, uids.IMPLICIT_VR_LITTLE_ENDIAN)]
    ae = AE(ae_title="AIRFLOW")
    first = ae.associate(*daemon.address, contexts=offered, ae_title="VMSDBD")
    second = ae.associate(*daemon.address, contexts=offered, ae_title="VMSDBD")
    answer = second.acceptor.primitive
    assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
    habit(max_associations=2)
    third = ae.associate(*daemon.address, contexts=offered, ae_title="VMSDBD")
    assert third.is_established
    for assoc in (first, third):
        assoc.release()


@pytest.mark.quirk(4, "extended_negotiation")
def test_extended_negotiation_and_user_identity_are_not_answered(daemon, habit):
    relational = SOPClassExtendedNegotiation()
    relational.sop_class_uid = uids.STUDY_ROOT_FIND
    relational.service_class_application_information = b"\x01"
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field, identity.positive_response_requested = 1, b"me", True
    offered = [build_context(uids.STUDY_ROOT_FIND, uids.IMPLICIT_VR_LITTLE_ENDIAN)]
    assoc, accepted = open_association(daemon, offered, ext_neg=[relational, identity])
    assert accepted
    assert assoc.acceptor.sop_class_extended == {}
    assert assoc.acceptor.user_identity is None
    habit(extended_negotiation=True)
    assoc, _ = open_association(daemon, offered, ext_neg=[relational, identity])
    assert assoc.acceptor.sop_class_extended == {uids.STUDY_ROOT_FIND: b"\x01"}
    assert assoc.acceptor.user_identity is None
    assoc, _ = open_association(daemon, offered)
    assert assoc.acceptor.sop_class_extended == {}, "nobody asked"


def test_a_port_that_is_taken_is_named(daemon, clinic):
    host, port = daemon.address
    with pytest.raises(ConfigurationError, match=f"{host}:{port}"):
        SimulatedDaemon(clinic, host=host, port=port).start()


def test_stopping_ends_associations_connections_and_threads(clinic):
    before = set(threading.enumerate())
    daemon = SimulatedDaemon(clinic, trusted=[trusted()])
    daemon.start()
    host, port = daemon.address
    idle = AE(ae_title="AIRFLOW").associate(host, port, contexts=[build_context(uids.VERIFICATION)], ae_title="VMSDBD")
    with socket.create_connection((host, port)) as silent:
        wait_until(lambda: len(daemon._server.active_associations) == 2)
        daemon.stop()
        silent.settimeout(10)
        assert silent.recv(1) == b"", "a connection that never asked for an association is closed"
    wait_until(lambda: idle.is_aborted, what="the client to be told")

    def left():
        return {
            thread for thread in set(threading.enumerate()) - before
            if thread is not idle and "Acceptor" in thread.name and thread.is_established
        }  # fmt: skip

    wait_until(lambda: not left(), what="the threads to end")
    with pytest.raises(ConfigurationError, match="does not run"):
        daemon.address  # noqa: B018
    daemon.stop()


def test_a_connection_without_a_word_does_not_hold_up_the_stop(clinic):
    import time

    daemon = SimulatedDaemon(clinic, trusted=[trusted()])
    daemon.start()
    silent = socket.create_connection(daemon.address)
    wait_until(lambda: daemon._server.active_associations)
    silent.close()
    start = time.monotonic()
    daemon.stop()
    assert time.monotonic() - start < 2
