"""A Storage SCP on loopback that keeps the bytes it gets, and can be told how to misbehave."""

from __future__ import annotations

import threading

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from support.parking import CLOSED_FOR_GOOD

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import quiet
from airflow_provider_varian.dimse.peer import Peer


class StoragePeer:
    """The peer; a context manager.

    Attributes that script it, which tests may change while it runs: ``answer(uid)`` gives the status, or a
    ``(status, comment)`` pair, or ``None`` to abort instead of answering.

    :param accepts: transfer syntaxes by SOP class UID.
    """

    def __init__(self, accepts=None, *, tls=None):
        self.answer = lambda uid: 0x0000
        #: SOP Instance UID, transfer syntax and data set of each object that came whole.
        self.received: list[tuple[str, str, bytes]] = []
        self.associations = 0
        self.proposed: list[list[tuple[str, list[str]]]] = []
        self._accepts = accepts or {uids.RT_IMAGE: [uids.EXPLICIT_VR_LITTLE_ENDIAN, uids.IMPLICIT_VR_LITTLE_ENDIAN]}
        self._tls = tls

    def __enter__(self):
        quiet.silence()
        ae = AE("STORAGE")
        ae.network_timeout = 20
        for sop_class, syntaxes in self._accepts.items():
            ae.add_supported_context(sop_class, syntaxes)
        handlers = [(evt.EVT_C_STORE, self._take), (evt.EVT_ACCEPTED, self._note), *CLOSED_FOR_GOOD]
        self._server = ae.make_server(("127.0.0.1", 0), evt_handlers=handlers, ssl_context=self._tls)
        ae._servers.append(self._server)
        # As start_server() does, but it would take half a second to stop.
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()

    @property
    def port(self) -> int:
        return self._server.socket.getsockname()[1]

    @property
    def uids(self) -> list[str]:
        return [uid for uid, _, _ in self.received]

    def peer(self, **settings) -> Peer:
        defaults = {
            "called_ae_title": "STORAGE",
            "connect_timeout": 5.0,
            "acse_timeout": 5.0,
            "dimse_timeout": 10.0,
            "network_timeout": 10.0,
            "allow_store": True,
        }
        return Peer(host="127.0.0.1", port=self.port, **(defaults | settings))

    def _note(self, event):
        self.associations += 1
        proposed = event.assoc.requestor.primitive.presentation_context_definition_list
        self.proposed.append([(str(cx.abstract_syntax), [str(each) for each in cx.transfer_syntax]) for cx in proposed])

    def _take(self, event):
        uid = str(event.request.AffectedSOPInstanceUID)
        answer = self.answer(uid)
        if answer is None:
            event.assoc.abort()
            return 0xC000
        self.received.append((uid, str(event.context.transfer_syntax), event.request.DataSet.getvalue()))
        if isinstance(answer, int):
            return answer
        status = Dataset()
        status.Status, status.ErrorComment = answer
        return status
