"""A scripted Query/Retrieve SCP on loopback: real DIMSE, told how to misbehave.

It holds synthetic data sets, answers C-FIND at IMAGE level, and answers C-MOVE and C-GET at every
level. How it goes wrong is set on its attributes, which tests may change while it runs.
"""

from __future__ import annotations

import socket
import threading
import time
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_MOVE
from pynetdicom.dsutils import decode, encode
from support.parking import CLOSED_FOR_GOOD, PARKED

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts, quiet
from airflow_provider_varian.dimse.peer import Peer

ROOT = "1.2.826.0.1.3680043.10.1511"
UNIQUE = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
FIND = (uids.STUDY_ROOT_FIND, uids.PATIENT_ROOT_FIND)
MOVE = (uids.STUDY_ROOT_MOVE, uids.PATIENT_ROOT_MOVE)
GET = (uids.STUDY_ROOT_GET, uids.PATIENT_ROOT_GET)


def rt_image(number, *, study=f"{ROOT}.1", series=f"{ROOT}.1.1", patient="QA_TB_WL", **attributes):
    """Return a small RT Image whose UID ends in its number."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "PORTAL"]
    ds.InstanceCreationDate = "20260101"
    ds.InstanceCreationTime = "070000"
    ds.SOPClassUID = uids.RT_IMAGE
    ds.SOPInstanceUID = f"{series}.{number}"
    ds.AcquisitionDate = "20260102"
    ds.AcquisitionTime = f"0630{number % 60:02d}"
    ds.Modality = "RTIMAGE"
    ds.PatientName = "Phantom^Ünique"
    ds.PatientID = patient
    ds.StudyInstanceUID = study
    ds.SeriesInstanceUID = series
    ds.InstanceNumber = number
    ds.Rows = ds.Columns = 16
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PixelRepresentation = 0
    ds.PixelData = bytes([number % 256]) * 512
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


class Archive:
    """The peer; a context manager.

    Attributes that script it: ``delivers(level, uid)`` says whether an object is sent; ``late`` are
    sent ``late_seconds`` after the final response; ``extra`` are sent unasked; ``move_status`` ends a C-MOVE
    at once; ``abort_after`` aborts after so many objects, once; ``prepare(ds)`` changes what is sent.
    """

    def __init__(self, instances, *, get=False, port=0, tls=None):
        self.instances = {ds.SOPInstanceUID: ds for ds in instances}
        self.get_enabled = get
        self.destinations = {}
        self.delivers = lambda level, uid: True
        self.prepare = lambda ds: ds
        self.late = set()
        self.late_seconds = 0.3
        self.extra = []
        self.move_status = None
        #: Final status of a C-MOVE for one instance alone, by its UID.
        self.refused_instances: dict[str, int] = {}
        self.get_status = None
        #: What the final response of a C-MOVE says instead of the truth, by element; ``failed_uids`` is its list.
        #: None stands for an element that is not there.
        self.final = lambda level: {}
        self.abort_after = None
        self.pending = True
        self.on_move = lambda: None
        self.on_find = lambda: None
        self.on_sent = lambda uid: None
        #: Called after each PDU of an association on which a C-MOVE sends.
        self.on_pdu = lambda: None
        self.requests = []
        self.sent = []
        self.finds = 0
        self.answers = []
        self._threads = []
        self._port = port
        self._tls = tls

    def __enter__(self):
        quiet.silence()
        ae = AE("VMSDBD")
        ae.implementation_version_name = "SCRIPTED"
        ae.network_timeout = 20
        for context in contexts.receiver_contexts():
            ae.add_supported_context(context.abstract_syntax, ImplicitVRLittleEndian, scu_role=True, scp_role=True)
        for uid in (*FIND, *MOVE, *(GET if self.get_enabled else ())):
            ae.add_supported_context(uid, ImplicitVRLittleEndian)
        handlers = [
            (evt.EVT_CONN_OPEN, self._take_over_moves),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_C_GET, self._get),
            *CLOSED_FOR_GOOD,
        ]
        self._ae = ae
        self._server = ae.start_server(
            ("127.0.0.1", self._port), block=False, evt_handlers=handlers, ssl_context=self._tls
        )
        return self

    def __exit__(self, *_):
        for thread in self._threads:
            thread.join(10)
        self._ae.shutdown()

    def stop_listening(self):
        """Take no more associations, as a daemon that is going down."""
        self._server.shutdown()

    @property
    def port(self):
        return self._server.socket.getsockname()[1]

    def peer(self, *, receiver_port=None, **settings):
        """Return the connection to this archive; its move destination is known under AIRFLOW."""
        defaults = {
            "called_ae_title": "VMSDBD",
            "receiver_host": "127.0.0.1",
            "receiver_port": receiver_port,
            "retrieve_method": "move",
            "connect_timeout": 5.0,
            "acse_timeout": 5.0,
            "dimse_timeout": 5.0,
            "network_timeout": 10.0,
            "retrieve_deadline": 30.0,
        }
        if receiver_port is not None:
            self.destinations["AIRFLOW"] = ("127.0.0.1", receiver_port)
        return Peer(host="127.0.0.1", port=self.port, **(defaults | settings))

    def asked(self, verb=None):
        """Return the levels that were asked, in order."""
        return [level for name, level, _ in self.requests if verb in (None, name)]

    def matching(self, identifier):
        """Return the instances that an identifier's unique keys name."""
        found = list(self.instances.values())
        for keyword in UNIQUE:
            value = identifier.get(keyword)
            if value:
                wanted = {str(value)} if isinstance(value, str) else {str(part) for part in value}
                found = [ds for ds in found if str(ds.get(keyword)) in wanted]
        return found

    def store(self, instances, *, destination="AIRFLOW", called=None):
        """Send objects to a destination and return the statuses that were answered."""
        host, port = self.destinations[destination]
        if not _is_taken(host, port):
            return None
        ae = AE("VMSDBD")
        for uid in dict.fromkeys(ds.SOPClassUID for ds in instances):
            ae.add_requested_context(uid, ImplicitVRLittleEndian)
        handlers = [*PARKED, (evt.EVT_PDU_SENT, lambda event: self.on_pdu())]
        assoc = ae.associate(host, port, ae_title=called or destination, evt_handlers=handlers)
        if not assoc.is_established:
            return None
        statuses = []
        for ds in instances:
            answer = assoc.send_c_store(self.prepare(sendable(ds)))
            statuses.append(answer.get("Status"))
            self.answers.append(answer.get("Status"))
            self.sent.append(str(ds.SOPInstanceUID))
            self.on_sent(str(ds.SOPInstanceUID))
        assoc.release()
        return statuses

    def _find(self, event):
        self.finds += 1
        self.on_find()
        identifier = event.identifier
        for ds in self.matching(identifier):
            answer = Dataset()
            for element in identifier:
                if element.keyword in ds:
                    answer.add(ds[element.keyword])
            answer.SpecificCharacterSet = "ISO_IR 192"
            answer.QueryRetrieveLevel = identifier.QueryRetrieveLevel
            yield 0xFF00, answer
        yield 0x0000, None

    def _chosen(self, verb, identifier):
        level = str(identifier.QueryRetrieveLevel)
        keys = {element.keyword: element.value for element in identifier}
        self.requests.append((verb, level, keys))
        return [ds for ds in self.matching(identifier) if self.delivers(level, str(ds.SOPInstanceUID))]

    def _get(self, event):
        chosen = self._chosen("C-GET", event.identifier) + self.extra
        if self.get_status is not None:
            yield 1
            yield self.get_status, None
            return
        yield len(chosen)
        for ds in chosen:
            if self._is_to_abort():
                event.assoc.abort()
                return
            self.sent.append(str(ds.SOPInstanceUID))
            yield 0xFF00, self.prepare(sendable(ds))

    def _is_to_abort(self):
        if self.abort_after is None or len(self.sent) < self.abort_after:
            return False
        self.abort_after = None
        return True

    def _take_over_moves(self, event):
        serve = event.assoc._serve_request

        def serve_or_move(message, context_id):
            if isinstance(message, C_MOVE):
                self._move(event.assoc, message, context_id)
            else:
                serve(message, context_id)

        event.assoc._serve_request = serve_or_move

    def _move(self, assoc, request, context_id):
        identifier = decode(request.Identifier, True, True)
        chosen = self._chosen("C-MOVE", identifier)
        self.on_move()
        if self.move_status is not None:
            self._respond(assoc, request, context_id, self.move_status)
            return
        if len(chosen) == 1 and (refusal := self.refused_instances.get(str(chosen[0].SOPInstanceUID))):
            self._respond(assoc, request, context_id, refusal)
            return
        now = [ds for ds in chosen if str(ds.SOPInstanceUID) not in self.late] + self.extra
        later = [ds for ds in chosen if str(ds.SOPInstanceUID) in self.late]
        destination = str(request.MoveDestination).strip()
        if destination not in self.destinations:
            self._respond(assoc, request, context_id, 0xA801)
            return
        done = 0
        for ds in now:
            if self._is_to_abort():
                assoc.abort()
                return
            self.store([ds], destination=destination)
            done += 1
            if self.pending:
                self._respond(assoc, request, context_id, 0xFF00, completed=done, remaining=len(now) - done)
        if later:
            thread = threading.Thread(target=self._send_late, args=(later, destination))
            self._threads.append(thread)
            thread.start()
        said = {"completed": done} | self.final(str(identifier.QueryRetrieveLevel))
        self._respond(assoc, request, context_id, said.pop("status", 0x0000), **said)

    def _send_late(self, instances, destination):
        time.sleep(self.late_seconds)
        self.store(instances, destination=destination)

    def _respond(
        self, assoc, request, context_id, status, *, completed=0, failed=0, warning=0, remaining=None, failed_uids=()
    ):
        response = C_MOVE()
        response.MessageIDBeingRespondedTo = request.MessageID
        response.AffectedSOPClassUID = request.AffectedSOPClassUID
        if status is not None:
            response.Status = status
        response.NumberOfCompletedSuboperations = completed
        response.NumberOfFailedSuboperations = failed
        response.NumberOfWarningSuboperations = warning
        response.NumberOfRemainingSuboperations = remaining
        if failed_uids:
            identifier = Dataset()
            identifier.FailedSOPInstanceUIDList = list(failed_uids)
            response.Identifier = BytesIO(encode(identifier, True, True))
        assoc.dimse.send_msg(response, context_id)


def _is_taken(host, port):
    """Say whether somebody listens, without calling: pynetdicom leaks the socket of a refused connection."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def sendable(ds):
    """Return a copy that pynetdicom can send."""
    sent = Dataset(ds)
    sent.file_meta = Dataset()
    sent.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    sent.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    sent.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    sent.file_meta.ImplementationClassUID = generate_uid(prefix=None)
    return sent
