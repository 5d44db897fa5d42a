"""A receiver's server in this process, over a sink in memory, and somebody who writes down what it is told."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE
from support.parking import PARKED
from support.ports import wait_until

from airflow_provider_varian.dimse import socket_manners
from airflow_provider_varian.dimse.bounds import Bounds
from airflow_provider_varian.receiver.admission import Admission, Entry, OptionAdvice
from airflow_provider_varian.receiver.limits import Limits
from airflow_provider_varian.receiver.observer import Observer
from airflow_provider_varian.receiver.server import ReceiverServer
from airflow_provider_varian.uids import RT_IMAGE, VERIFICATION

#: Long enough for any machine, so that no test waits for them; those that do set their own.
PATIENT = Limits(
    handshake_seconds=60,
    idle_seconds=60,
    min_free_bytes=0,
    bounds=Bounds(read_seconds=60, association_seconds=60),
)


def limits(**changes) -> Limits:
    """Return patient limits with changes; those of bounds too."""
    bounds = {name: changes.pop(name) for name in list(changes) if name in Bounds.__slots__}
    return replace(PATIENT, bounds=replace(PATIENT.bounds, **bounds), **changes)


def entry(title="AIRFLOW", *networks, calling=()) -> Entry:
    """Return an entry; without networks everybody on loopback may call."""
    nets = tuple(ipaddress.ip_network(each) for each in networks or ("127.0.0.0/8", "::1"))
    return Entry(ae_title=title, networks=nets, calling_ae_titles=frozenset(calling))


class MemorySink:
    """Keeps objects in memory."""

    def __init__(self):
        self.objects = []
        self.abandoned = 0

    def begin(self, request):
        return _Kept(self, request)


class _Kept:
    def __init__(self, sink, request):
        self.sink, self.request, self.pieces, self.done = sink, request, [], False

    def write(self, data):
        self.pieces.append(bytes(data))

    def commit(self):
        self.done = True
        self.sink.objects.append((self.request.sop_instance_uid, b"".join(self.pieces)))

    def abandon(self):
        if not self.done:
            self.done = True
            self.sink.abandoned += 1


class Recorder(Observer):
    """Writes down what it is told, as tuples that begin with the name of the call."""

    def __init__(self):
        self.calls = []
        self.facts = []
        self._lock = threading.Lock()

    def _note(self, *call):
        with self._lock:
            self.calls.append(call)

    def connected(self, source):
        self._note("connected", source)

    def refused(self, source, reason):
        self._note("refused", str(reason))

    def associated(self, facts):
        self.facts.append(facts)
        self._note("associated", facts.number)

    def ended(self, facts, how):
        self._note("ended", facts.number, str(how))

    def stored(self, facts, request, size, seconds, study_instance_uid=""):
        self._note("stored", facts.number, request.sop_instance_uid, size, study_instance_uid)

    def not_stored(self, facts, request, status, reason):
        self._note("not_stored", facts.number, request.sop_instance_uid, status)

    def disconnected(self, source):
        self._note("disconnected", source)

    def named(self, name):
        with self._lock:
            return [call[1:] for call in self.calls if call[0] == name]

    @property
    def refusals(self):
        return [reason for (reason,) in self.named("refused")]

    def await_(self, name, count=1):
        """Wait until a call of this name was made so often."""
        wait_until(lambda: len(self.named(name)) >= count, what=f"{count} calls of {name}: {self.calls}")


@contextmanager
def running(sink=None, *, entries=None, host="127.0.0.1", max_pdu=16384, **settings) -> Iterator[ReceiverServer]:
    """Run a server until the block ends; its recorder is ``server.recorder``, its sink ``server.sink``."""
    changes = settings.pop("limits", PATIENT)
    recorder = settings.pop("observer", None) or Recorder()
    sink = MemorySink() if sink is None else sink
    server = ReceiverServer(
        ae_title="AIRFLOW",
        admission=Admission(entries or [entry()], OptionAdvice()),
        sink=sink,
        limits=changes,
        max_pdu=max_pdu,
        observer=recorder,
        **settings,
    )
    server.recorder, server.sink = recorder, sink
    server.start(host, 0)
    try:
        yield server
    finally:
        server.stop()


def call(server, *, called="AIRFLOW", calling="ANYBODY", source=None, contexts=(RT_IMAGE, VERIFICATION), tls=None):
    """Ask for an association with pynetdicom."""
    ae = AE(calling)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
    for uid in contexts:
        ae.add_requested_context(uid, ImplicitVRLittleEndian)
    bind = (source, 0) if source else ("", 0)
    # The handlers close a socket for good whose handshake failed.
    manners = [*socket_manners.handlers(), *PARKED]
    return ae.associate(*server.address, ae_title=called, bind_address=bind, tls_args=tls, evt_handlers=manners)


def connect(server, words=b"", *, source=None) -> socket.socket:
    """Connect, say something, and leave it at that."""
    opened = socket.create_connection(server.address, timeout=30, source_address=(source, 0) if source else None)
    if words:
        opened.sendall(words)
    return opened


def is_closed(opened: socket.socket) -> bool:
    """Read to the end; say whether there is one before our patience ends."""
    try:
        while opened.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def is_open(opened: socket.socket) -> bool:
    """Say whether nothing has come, not even the end."""
    opened.setblocking(False)
    try:
        return bool(opened.recv(1, socket.MSG_PEEK)) and False
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        opened.settimeout(30)


def association_request(
    called="AIRFLOW", calling="ANYBODY", *, contexts=(RT_IMAGE,), application="1.2.840.10008.3.1.1.1"
) -> bytes:
    """Return an A-ASSOCIATE-RQ (PS3.8 9.3.2) in bytes."""

    def item(kind, content):
        return struct.pack(">BxH", kind, len(content)) + content

    proposed = b"".join(
        item(0x20, bytes((2 * number + 1, 0, 0, 0)) + item(0x30, uid.encode()) + item(0x40, b"1.2.840.10008.1.2"))
        for number, uid in enumerate(contexts)
    )
    user = item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3"))
    titles = called.ljust(16).encode() + calling.ljust(16).encode() + bytes(32)
    body = struct.pack(">HH", 1, 0) + titles + item(0x10, application.encode()) + proposed + user
    return struct.pack(">BxI", 1, len(body)) + body


def rejection(opened: socket.socket) -> tuple[int, ...] | None:
    """Read an A-ASSOCIATE-RJ; return result, source and reason, or ``None`` when something else came."""
    answer = b""
    while len(answer) < 10 and (piece := opened.recv(10 - len(answer))):
        answer += piece
    return tuple(answer[7:10]) if answer[:1] == b"\x03" else None
