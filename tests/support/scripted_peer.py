"""A real SCP of C-FIND and C-ECHO on loopback whose answers a test writes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from support.parking import CLOSED_FOR_GOOD
from support.ports import wait_until

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.peer import Peer

PENDING = 0xFF00
PENDING_WITHOUT_OPTIONAL_KEYS = 0xFF01

#: In a script, instead of a status: wait for the C-CANCEL.
UNTIL_CANCELLED = -1

Answers = Iterable[tuple[int, Dataset | None]]


@dataclass
class Request:
    """What the peer was asked."""

    identifier: Dataset
    model: str

    @property
    def level(self) -> str:
        return str(self.identifier.QueryRetrieveLevel)

    def value(self, keyword: str) -> str | None:
        value = self.identifier.get(keyword)
        return None if value is None else str(value)


def dataset(**values: Any) -> Dataset:
    """Make a data set; a dict becomes a sequence of one item, None an empty element."""
    made = Dataset()
    for keyword, value in values.items():
        if isinstance(value, dict):
            value = [dataset(**value)]
        setattr(made, keyword, value)
    return made


class ScriptedPeer:
    """Answers C-FIND by ``script``, a function of the request; keeps all requests."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.cancelled = threading.Event()
        self.aborted = threading.Event()
        self.associations = 0
        self.echoes = 0
        #: How many associations are open, and were at most.
        self.open: set[int] = set()
        self.most_open = 0
        self.script: Callable[[Request], Answers] = lambda request: ()
        ae = AE(ae_title="VMSDBD")
        for uid in (uids.STUDY_ROOT_FIND, uids.PATIENT_ROOT_FIND):
            ae.add_supported_context(uid, [uids.IMPLICIT_VR_LITTLE_ENDIAN])
        ae.add_supported_context(uids.VERIFICATION)
        handlers: list[Any] = [
            (evt.EVT_C_FIND, self._on_find),
            (evt.EVT_C_ECHO, self._on_echo),
            (evt.EVT_CONN_CLOSE, lambda event: self.open.discard(id(event.assoc))),
            (evt.EVT_ABORTED, lambda event: self.aborted.set()),
            (evt.EVT_ACCEPTED, self._on_accepted),
            *CLOSED_FOR_GOOD,
        ]
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.socket.getsockname()[1]
        return port

    def peer(self, **settings: Any) -> Peer:
        return Peer(host="127.0.0.1", port=self.port, called_ae_title="VMSDBD", dimse_timeout=20, **settings)

    def stop(self) -> None:
        # It takes up to half a second, for which no test has to wait.
        threading.Thread(target=self._server.shutdown, daemon=True).start()

    def abort_all(self) -> None:
        """Abort whatever association is open."""
        for association in self._server.active_associations:
            association.abort()

    def serve(self, rows: list[Dataset], *, hierarchical: bool = False) -> None:
        """Answer from a list of flat instances, with a matching of its own, simple and strict."""
        self.script = lambda request: _served(rows, request, hierarchical=hierarchical)

    def _on_accepted(self, event: evt.Event) -> None:
        self.associations += 1
        self.open.add(id(event.assoc))
        self.most_open = max(self.most_open, len(self.open))

    def _on_echo(self, event: evt.Event) -> int:
        self.echoes += 1
        return 0x0000

    def _on_find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        request = Request(event.identifier, str(event.request.AffectedSOPClassUID))
        self.requests.append(request)
        for status, answer in self.script(request):
            if status == UNTIL_CANCELLED:
                # pynetdicom sends before it reads: it would not see a C-CANCEL while it has more to say.
                wait_until(lambda: event.is_cancelled, what="the C-CANCEL")
            # pynetdicom says so once and forgets.
            if status == UNTIL_CANCELLED or event.is_cancelled:
                self.cancelled.set()
                yield 0xFE00, None
                return
            yield status, answer


_UNIQUE = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}


def _served(rows: list[Dataset], request: Request, *, hierarchical: bool) -> Iterator[tuple[int, Dataset | None]]:
    keys = [
        element
        for element in request.identifier
        if element.keyword not in ("QueryRetrieveLevel", "SpecificCharacterSet")
    ]
    if hierarchical:
        top = "PATIENT" if request.model == uids.PATIENT_ROOT_FIND else "STUDY"
        levels = list(_UNIQUE)
        for level in levels[levels.index(top) : levels.index(request.level)]:
            if not request.identifier.get(_UNIQUE[level]):
                yield 0xA900, None
                return
    seen = set()
    for row in rows:
        unique = row.get(_UNIQUE[request.level])
        if unique in seen or not all(_fits(row, key) for key in keys):
            continue
        seen.add(unique)
        answer = Dataset()
        for key in keys:
            answer[key.tag] = (
                row[key.tag] if key.tag in row else key.__class__(key.tag, key.VR, [] if key.VR == "SQ" else None)
            )
        answer.SpecificCharacterSet = "ISO_IR 192"
        yield PENDING, answer


def _fits(row: Dataset, key: Any) -> bool:
    if key.VR == "SQ" or not key.value:
        return True
    value = str(row.get(key.tag).value) if key.tag in row else ""
    wanted = [str(part) for part in key.value] if key.VM > 1 else [str(key.value)]
    if key.VR == "DA" and "-" in wanted[0]:
        first, last = wanted[0].split("-")
        return bool(value) and (first or "0") <= value <= (last or "9")
    return any(fnmatchcase(value, one) for one in wanted) if key.VR != "UI" else value in wanted
