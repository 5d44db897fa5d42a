"""Somebody to whom an archive sends: a Storage SCP on loopback that files what it gets under names of its own."""

from __future__ import annotations

import socketserver
import threading
from pathlib import Path

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dsutils import encode_file_meta
from pynetdicom.transport import ThreadedAssociationServer
from support.parking import CLOSED_FOR_GOOD

from airflow_provider_varian.dimse import contexts


class FilingStation:
    """A File Daemon, more or less; a context manager.

    What comes is written to ``{folder}/{patient ID}/{running number}.dcm``, bytes as they came. Attributes that
    script it, which tests may change while it runs: ``keeps(uid)`` says whether an object is filed at all (it is
    acknowledged in any case), ``delay`` seconds later than it was acknowledged, ``spoil(data)`` changes its bytes.
    """

    def __init__(self, folder: Path | None = None, *, ae_title: str = "VMSFD"):
        self.folder = folder
        self.ae_title = ae_title
        self.got: list[str] = []
        self.keeps = lambda uid: True
        self.delay = 0.0
        self.spoil = lambda data: data
        self.on_store = lambda dataset: None
        self._timers: list[threading.Timer] = []

    def __enter__(self):
        ae = AE(self.ae_title)
        ae.implementation_version_name = "FILING"
        for context in contexts.receiver_contexts():
            ae.add_supported_context(context.abstract_syntax, ImplicitVRLittleEndian)
        self._server = ae.make_server(
            ("127.0.0.1", 0),
            server_class=ThreadedAssociationServer,
            evt_handlers=[(evt.EVT_C_STORE, self._store), *CLOSED_FOR_GOOD],
        )
        # pynetdicom's start_server looks twice a second whether it shall stop.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        for timer in self._timers:
            timer.join(20)
        socketserver.TCPServer.shutdown(self._server)
        self._thread.join()
        self._server.server_close()

    @property
    def address(self) -> tuple[str, int]:
        return self._server.server_address

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def _store(self, event):
        uid = str(event.request.AffectedSOPInstanceUID)
        self.got.append(uid)
        if not self.keeps(uid):
            return 0x0000
        dataset = event.dataset
        if self.folder is not None:
            meta = event.file_meta
            data = bytes(128) + b"DICM" + encode_file_meta(meta) + event.request.DataSet.getvalue()
            path = self.folder / str(dataset.PatientID) / f"{len(self.got):08d}.dcm"
            self._later(lambda: self._file(path, self.spoil(data)))
        self._later(lambda: self.on_store(dataset))
        return 0x0000

    def _later(self, what):
        if not self.delay:
            what()
            return
        timer = threading.Timer(self.delay, what)
        self._timers.append(timer)
        timer.start()

    def _file(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
