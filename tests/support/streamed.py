"""A receiver of one thread less: pynetdicom's acceptor with our reading in place, and a sink that remembers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pynetdicom import AE, evt

from airflow_provider_varian.dimse import contexts, quiet, socket_manners, streaming
from airflow_provider_varian.dimse.bounds import Bounds
from airflow_provider_varian.dimse.storage import StoreObserver


class MemorySink:
    """Keeps what was committed.

    :param trouble: maps ``(step, SOP Instance UID)`` to what is raised there; steps are begin, write and commit.
    """

    def __init__(self, trouble=None):
        self.trouble = trouble or (lambda step, uid: None)
        self.requests = []
        self.objects = []
        self.steps = []
        #: Begun and not abandoned nor committed: fragments.
        self.open = 0

    def step(self, name, request):
        self.steps.append((name, request.sop_instance_uid))
        problem = self.trouble(name, request.sop_instance_uid)
        if problem is not None:
            raise problem

    def begin(self, request):
        self.requests.append(request)
        self.step("begin", request)
        self.open += 1
        return _Incoming(self, request)


class _Incoming:
    def __init__(self, sink, request):
        self.sink, self.request, self.data, self.over = sink, request, bytearray(), False
        self.wrote = False

    def write(self, data):
        self.data += data
        if not self.wrote:
            self.wrote = True
            self.sink.step("write", self.request)

    def commit(self):
        self.sink.step("commit", self.request)
        self.sink.objects.append((self.request, bytes(self.data)))
        self._end()

    def abandon(self):
        self.sink.steps.append(("abandon", self.request.sop_instance_uid))
        self._end()

    def _end(self):
        self.sink.open -= not self.over
        self.over = True


class Noting(StoreObserver):
    """Notes what it is told."""

    def __init__(self):
        self.calls = []
        self.active = 0

    def activity(self):
        self.active += 1

    def stored(self, request, size, seconds):
        assert seconds >= 0
        self.calls.append(("stored", request.sop_instance_uid, size))

    def not_stored(self, request, status, reason):
        self.calls.append(("not stored", request.sop_instance_uid, status, reason))

    def ended_by_us(self, how):
        self.calls.append(("ended by us", how))


class Receiver:
    """What :func:`receiving` yields; ``sink``, ``observer`` and ``bounds`` may be changed between associations."""

    def __init__(self, server, bounds):
        self.server = server
        self.bounds = bounds
        self.sink, self.observer = MemorySink(), Noting()
        self.associations = []

    @property
    def port(self) -> int:
        return self.server.socket.getsockname()[1]

    def fresh(self, trouble=None):
        """Begin anew; return sink and observer."""
        self.sink, self.observer = MemorySink(trouble), Noting()
        return self.sink, self.observer

    def attach(self, event):
        self.associations.append(event.assoc)
        streaming.attach(event, self.sink, self.bounds, self.observer)


@contextmanager
def receiving(bounds=None, *, tls=None, max_pdu=16384, server_class=None, **settings) -> Iterator[Receiver]:
    """Run a receiver.

    :param settings: of pynetdicom's application entity.
    """
    quiet.silence()
    ae = AE("RECEIVER")
    ae.maximum_pdu_size = max_pdu
    ae.supported_contexts = contexts.receiver_contexts()
    ae.maximum_associations = 1000
    ae.network_timeout = 20
    for name, value in settings.items():
        setattr(ae, name, value)
    options = {"server_class": server_class} if server_class else {}
    server = ae.make_server(("127.0.0.1", 0), ssl_context=tls, evt_handlers=socket_manners.handlers(), **options)
    receiver = Receiver(server, bounds or Bounds())
    server.bind(evt.EVT_CONN_OPEN, receiver.attach)
    server.bind(evt.EVT_C_ECHO, lambda event: 0x0000)
    ae._servers.append(server)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        for association in list(ae.active_associations):
            association.abort()
        server.shutdown()
        thread.join(10)
