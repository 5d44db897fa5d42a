"""How objects leave the daemon: streamed or by pynetdicom's own path, from files or from memory, the same arrives."""

from __future__ import annotations

import threading

import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from support.ports import wait_until
from support.simulated import UNTIL, Client, identifier, peer_of, trusted

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts, library
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.get import get
from airflow_provider_varian.errors import AssociationAbortedError
from airflow_provider_varian.simulator.daemon import wire
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.holdings.data_directory import DataDirectory


@pytest.fixture(params=["streamed", "library"])
def path(request, monkeypatch):
    """Both ways of sending."""
    if request.param == "library":
        monkeypatch.setattr(library, "missing_for_streaming", lambda: ["DULServiceProvider._recv_pdu"])
    return request.param


class Sink:
    """Takes a C-GET's objects; ``taken`` runs after each, before it is answered."""

    def __init__(self, taken=None):
        self.objects = []
        self.taken = taken or (lambda _: None)

    def begin(self, _):
        sink, parts = self, []

        class Incoming:
            def write(self, data):
                parts.append(bytes(data))

            def commit(self):
                sink.objects.append(b"".join(parts))
                sink.taken(len(sink.objects))

            def abandon(self):
                pass

        return Incoming()


@pytest.fixture
def series(plans):
    return identifier("SERIES", SeriesInstanceUID=plans["QA", "WL_10MV"].image_series_uid(UNTIL))


@pytest.fixture
def getting(daemon, habit):
    """Return a context manager: an association for C-GET."""
    habit(get=True, creation_at_export=False)
    return lambda: associate(
        peer_of(daemon), contexts.get(uids.STUDY_ROOT_GET, [uids.RT_IMAGE, uids.CT_IMAGE]), step="C-GET"
    )


def test_both_paths_and_both_services_bring_the_same_bytes(getting, client, receiver, series, monkeypatch):
    brought = []
    for missing in ([], ["DULServiceProvider._recv_pdu"]):
        monkeypatch.setattr(library, "missing_for_streaming", lambda missing=missing: missing)
        sink = Sink()
        with getting() as association:
            assert get(association, uids.STUDY_ROOT_GET, series, sink=sink).completed == 10
        assert client.move("SERIES", SeriesInstanceUID=series.SeriesInstanceUID).completed == 10
        brought.append(sink.objects)
    brought += [
        [each.request.DataSet.getvalue() for each in receiver.stored[part]] for part in (slice(10), slice(10, 20))
    ]
    assert [objects == brought[0] for objects in brought] == [True] * 4
    assert len(set(brought[0])) == 10


def test_a_cancelled_get_stops_with_fe00_and_counts(getting, series, path):
    with getting() as association:

        def cancel(count):
            if count == 3:
                association.cancel_request()

        sink = Sink(cancel)
        report = get(association, uids.STUDY_ROOT_GET, series, sink=sink)
    assert (report.status, report.completed, report.failed, report.remaining) == (0xFE00, 3, 0, 7)
    assert len(sink.objects) == 3


def test_a_client_that_aborts_a_get_ends_it(daemon, getting, series, path, monkeypatch):
    finished = threading.Event()
    serve = daemon._serve

    def watched(exchange):
        serve(exchange)
        finished.set()

    monkeypatch.setattr(daemon, "_serve", watched)
    daemon.stop()
    daemon.start()

    with getting() as association:

        def abort(count):
            if count == 3:
                association.assoc.abort()

        sink = Sink(abort)
        with pytest.raises(AssociationAbortedError):
            get(association, uids.STUDY_ROOT_GET, series, sink=sink)
    assert finished.wait(10), "the daemon gives up"
    assert len(sink.objects) == 3


def test_a_slow_step_between_two_objects_does_not_hold_pynetdicom_up(daemon, getting, series, path, monkeypatch):
    """What a client says then is heard: here its abort."""
    heard = []
    respond = wire.Exchange.respond

    def slow(exchange, *arguments, **options):
        association.assoc.abort()
        deadline = threading.Event()
        for _ in range(100):
            if exchange.broken:
                heard.append(True)
                break
            deadline.wait(0.02)
        respond(exchange, *arguments, **options)

    monkeypatch.setattr(wire.Exchange, "respond", slow)
    with pytest.raises(AssociationAbortedError), getting() as association:
        get(association, uids.STUDY_ROOT_GET, series, sink=Sink())
    # The client may know of its own abort before the daemon has looked.
    wait_until(lambda: heard)


@pytest.fixture
def folder(tmp_path, clinic, plans):
    """Three files in Implicit VR Little Endian, ASCII text."""
    from airflow_provider_varian.query.level import Level
    from airflow_provider_varian.simulator.holdings.tree import Search, walk

    uid = plans["QA", "WL_10MV"].image_series_uid(UNTIL)
    for number, chain in enumerate(list(walk(clinic, Search(Level.IMAGE, identifier("", SeriesInstanceUID=uid))))[:3]):
        ds = chain[-1].fetch()
        ds.SpecificCharacterSet = "ISO_IR 100"
        ds.ensure_file_meta()
        ds.file_meta.TransferSyntaxUID = uids.IMPLICIT_VR_LITTLE_ENDIAN
        ds.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    return tmp_path


@pytest.mark.parametrize("character_set", ["ISO_IR 100", "ISO_IR 192", ""])
@pytest.mark.parametrize("creation", [True, False])
def test_files_go_out_unread_with_the_daemons_habits(folder, receiver, character_set, creation, path, monkeypatch):
    behaviour = Behaviour(character_set=character_set, creation_at_export=creation)
    holdings = DataDirectory(folder)
    # From here on no file is decoded any more.
    for patient in holdings._tree.values():
        for study in patient.branches.values():
            for below in study.branches.values():
                for node in below.files:
                    node.fetch = None
    originals = {ds.SOPInstanceUID: ds for ds in map(dcmread, folder.iterdir())}
    with SimulatedDaemon(holdings, trusted=[trusted(receiver.port)], behaviour=behaviour) as daemon:
        series_uid = next(iter(originals.values())).SeriesInstanceUID
        assert Client(peer_of(daemon)).move("SERIES", SeriesInstanceUID=series_uid).completed == 3
    for stored in receiver.stored:
        received = dcmread(DicomBytesIO(stored.request.DataSet.getvalue()), force=True)
        original = originals.pop(received.SOPInstanceUID)
        assert received.get("SpecificCharacterSet", "") == character_set
        assert (received.InstanceCreationDate != original.InstanceCreationDate) is creation
        for ds in (received, original):
            for keyword in ("SpecificCharacterSet", "InstanceCreationDate", "InstanceCreationTime"):
                ds.pop(keyword, None)
        assert received == original
    assert not originals


def test_a_file_that_is_replaced_goes_out_as_it_is_then(folder, receiver):
    with SimulatedDaemon(DataDirectory(folder), trusted=[trusted(receiver.port)]) as daemon:
        ds = dcmread(folder / "0.dcm")
        ds.RTImageLabel = "REPLACED"
        ds.save_as(folder / "0.dcm")
        assert Client(peer_of(daemon)).move("IMAGE", SOPInstanceUID=ds.SOPInstanceUID).completed == 1
    assert receiver.stored[0].dataset.RTImageLabel == "REPLACED"
