"""A receiver that a simulated daemon sends to, and a client that asks it."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date

from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pynetdicom import AE, evt
from pynetdicom.transport import ThreadedAssociationServer
from support.parking import CLOSED_FOR_GOOD
from support.ports import free_port

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.find import iter_matches
from airflow_provider_varian.dimse.move import move
from airflow_provider_varian.dimse.peer import Peer, peer_from_connection
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity

UNTIL = date(2026, 11, 20)
MATRIX = 64


def identifier(level: str, **keys) -> Dataset:
    dataset = Dataset()
    if level:
        dataset.QueryRetrieveLevel = level
    if any(not str(value).isascii() for value in keys.values()):
        dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in keys.items():
        setattr(dataset, keyword, value)
    return dataset


def uids_of(plan) -> list[str]:
    """Return the SOP Instance UIDs of a plan's images of the last day, in order."""
    return [image.sop_instance_uid for image in plan.images(UNTIL)]


class CountingSink:
    """Takes the objects of a C-GET, and only counts them."""

    def __init__(self) -> None:
        self.brought = 0

    def begin(self, _):
        return self

    def write(self, data):
        pass

    def commit(self):
        self.brought += 1

    def abandon(self):
        pass


@dataclass
class Stored:
    request: object
    calling: str
    called: str
    transfer_syntax: str
    contexts: list[tuple[str, list[str]]]
    dataset: Dataset


@dataclass
class Receiver:
    """A Storage SCP that keeps what it gets; ``status`` answers, ``before`` runs first."""

    port: int
    stored: list[Stored] = field(default_factory=list)
    status: int = 0x0000
    before: object = None
    associations: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def take(self, event) -> int:
        if self.before is not None:
            self.before(event)
        primitive = event.assoc.requestor.primitive
        proposed = [
            (str(cx.abstract_syntax), [str(syntax) for syntax in cx.transfer_syntax])
            for cx in primitive.presentation_context_definition_list
        ]
        dataset = dcmread(DicomBytesIO(event.request.DataSet.getvalue()), force=True)
        self.stored.append(
            Stored(
                event.request,
                primitive.calling_ae_title.strip(),
                primitive.called_ae_title.strip(),
                str(event.context.transfer_syntax),
                proposed,
                dataset,
            )
        )
        return self.status

    @property
    def uids(self) -> list[str]:
        return [each.dataset.SOPInstanceUID for each in self.stored]


@contextmanager
def receiving(ae_title: str = "AIRFLOW") -> Iterator[Receiver]:
    ae = AE(ae_title=ae_title)
    for uid in (uids.RT_IMAGE, uids.RT_PLAN, uids.CT_IMAGE):
        ae.add_supported_context(uid, [uids.EXPLICIT_VR_LITTLE_ENDIAN, uids.IMPLICIT_VR_LITTLE_ENDIAN])
    receiver = Receiver(free_port())

    def count(_) -> None:
        receiver.associations += 1

    server = ae.make_server(
        ("127.0.0.1", receiver.port),
        server_class=ThreadedAssociationServer,
        evt_handlers=[
            (evt.EVT_C_STORE, receiver.take),
            (evt.EVT_ESTABLISHED, count),
            (evt.EVT_RELEASED, lambda _: receiver.ended.set()),
            (evt.EVT_ABORTED, lambda _: receiver.ended.set()),
            *CLOSED_FOR_GOOD,
        ],
    )
    # pynetdicom's start_server looks twice a second whether it shall stop.
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        socketserver.TCPServer.shutdown(server)
        thread.join()
        server.server_close()


def trusted(port: int = 1, **more) -> TrustedEntity:
    return TrustedEntity(**{"ae_title": "AIRFLOW", "host": "127.0.0.1", "port": port} | more)


def as_latin_1(name: str) -> str:
    """Return what is left of a person's name in ISO_IR 100."""
    return name.split("=")[0].encode("latin-1", "replace").decode("latin-1")


@dataclass
class Client:
    """Asks a daemon, one association per question."""

    peer: Peer

    def find(self, level: str, *, model: str = uids.STUDY_ROOT_FIND, **keys) -> list[Dataset]:
        return self.find_with(identifier(level, **keys), model=model)

    def find_with(self, keys: Dataset, *, model: str = uids.STUDY_ROOT_FIND) -> list[Dataset]:
        with associate(self.peer, contexts.find(model), step="C-FIND") as association:
            return [match.identifier for match in iter_matches(association, model, keys)]

    def move(self, level: str, *, to: str = "AIRFLOW", model: str = uids.STUDY_ROOT_MOVE, progress=None, **keys):
        with associate(self.peer, contexts.move(model), step="C-MOVE") as association:
            return move(association, model, identifier(level, **keys), destination=to, on_progress=progress)


def peer_of(daemon: SimulatedDaemon, **extra) -> Peer:
    host, port = daemon.address
    fields = {"called_ae_title": daemon.ae_title, "calling_ae_title": "AIRFLOW"} | extra
    return peer_from_connection(host=host, port=port, extra=fields)
