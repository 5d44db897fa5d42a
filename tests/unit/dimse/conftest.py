"""Peers for the tests of the wire: pynetdicom's own SCPs, and bare sockets."""

from __future__ import annotations

import threading

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from support.parking import CLOSED_FOR_GOOD

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts, library, streaming
from airflow_provider_varian.dimse.peer import Peer

SERVICES = [
    uids.VERIFICATION,
    uids.STUDY_ROOT_FIND,
    uids.STUDY_ROOT_MOVE,
    uids.STUDY_ROOT_GET,
    uids.PATIENT_ROOT_FIND,
    uids.PATIENT_ROOT_MOVE,
]


@pytest.fixture
def peer_at():
    """Return a function that makes a peer at a loopback port, with short time-outs."""

    def make(port, **settings):
        defaults = {
            "called_ae_title": "VMSDBD",
            "connect_timeout": 5.0,
            "acse_timeout": 5.0,
            "dimse_timeout": 5.0,
            "network_timeout": 5.0,
            "retrieve_deadline": 20.0,
        }
        return Peer(host="127.0.0.1", port=port, **(defaults | settings))

    return make


@pytest.fixture
def scp():
    """Return a function that starts a pynetdicom SCP and returns its port; stopped after the test."""
    servers = []

    def start(handlers=(), *, services=SERVICES, storage=False, tls=None, **settings):
        ae = AE(ae_title="VMSDBD")
        ae.network_timeout = 20
        for name, value in settings.items():
            setattr(ae, name, value)
        for uid in services:
            ae.add_supported_context(uid, uids.IMPLICIT_VR_LITTLE_ENDIAN)
        if storage:
            for context in contexts.receiver_contexts()[1:]:
                ae.add_supported_context(
                    context.abstract_syntax, uids.IMPLICIT_VR_LITTLE_ENDIAN, scu_role=True, scp_role=True
                )
        server = ae.make_server(("127.0.0.1", 0), evt_handlers=[*handlers, *CLOSED_FOR_GOOD], ssl_context=tls)
        ae._servers.append(server)
        servers.append(server)
        # As start_server() does, but it would take half a second to stop.
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server.socket.getsockname()[1]

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture
def find_handler():
    """Return a function that makes a C-FIND handler which answers with so many studies."""

    def make(count, final=0x0000):
        def handle(event):
            for number in range(count):
                match = Dataset()
                match.QueryRetrieveLevel = "STUDY"
                match.StudyInstanceUID = f"1.2.3.{number}"
                yield 0xFF00, match
            yield final, None

        return (evt.EVT_C_FIND, handle)

    return make


@pytest.fixture
def study_query():
    """Return a study-level identifier."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = ""
    return identifier


@pytest.fixture(params=["ours", "pynetdicom's"])
def reading(request, monkeypatch):
    """Whose reading of the connection it is."""
    if request.param != "ours":
        monkeypatch.setattr(library, "missing_for_streaming", lambda: ["DULServiceProvider.reactor"])
        monkeypatch.setattr(streaming, "_warned", threading.Event())
    return request.param
