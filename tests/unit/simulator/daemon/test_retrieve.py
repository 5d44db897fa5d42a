from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from pydicom import Dataset
from support.ports import free_port, wait_until
from support.simulated import Client, as_latin_1, identifier, peer_of, receiving, trusted, uids_of

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.get import get
from airflow_provider_varian.dimse.move import move
from airflow_provider_varian.errors import RefusedByPeerError, UnknownMoveDestinationError
from airflow_provider_varian.simulator.daemon.faults import Fault, Kind, Step


def without_export_time(dataset):
    kept = Dataset({element.tag: element for element in dataset})
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "SpecificCharacterSet"):
        kept.pop(keyword, None)
    return kept


@pytest.mark.parametrize("model", [uids.STUDY_ROOT_MOVE, uids.PATIENT_ROOT_MOVE])
def test_a_series_arrives_whole_with_counts_on_the_way(client, receiver, plan, series, model):
    progress = []
    report = client.move("SERIES", model=model, SeriesInstanceUID=series, progress=progress.append)
    assert (report.status, report.completed, report.failed, report.warning) == (0x0000, 10, 0, 0)
    assert report.remaining is None
    assert receiver.uids == uids_of(plan)
    assert [(step.status, step.remaining, step.completed) for step in progress] == [
        (0xFF00, 10 - done, done) for done in range(1, 10)
    ]


def test_what_arrives_is_what_the_clinic_made(client, clinic, receiver, plan):
    from airflow_provider_varian.query.level import Level
    from airflow_provider_varian.simulator.holdings.tree import Search, walk

    uid = uids_of(plan)[0]
    client.move("IMAGE", SOPInstanceUID=uid)
    (chain,) = walk(clinic, Search(Level.IMAGE, identifier("", SOPInstanceUID=uid)))
    received, made = receiver.stored[0].dataset, chain[-1].fetch()
    assert received.PixelData == made.PixelData
    assert received.to_json_dict().keys() == made.to_json_dict().keys() | {"00080005"}
    assert received.AcquisitionTime == made.AcquisitionTime


@pytest.mark.quirk(17)
def test_objects_come_on_one_new_association_with_the_move_named(client, receiver, plan, series):
    client.move("SERIES", SeriesInstanceUID=series)
    assert receiver.associations == 1
    first = receiver.stored[0]
    assert (first.calling, first.called) == ("VMSDBD", "AIRFLOW")
    assert first.request.MoveOriginatorApplicationEntityTitle == "AIRFLOW"
    assert first.request.MoveOriginatorMessageID == 1
    assert first.contexts == [(uids.RT_IMAGE, [uids.IMPLICIT_VR_LITTLE_ENDIAN])]
    assert len({each.request.MessageID for each in receiver.stored}) == 10


@pytest.mark.quirk(17, "store_calling_ae_title")
def test_the_daemon_may_call_under_another_title(client, receiver, habit, plan):
    habit(store_calling_ae_title="ARIAHOST")
    client.move("IMAGE", SOPInstanceUID=plan.sop_instance_uid)
    assert receiver.stored[0].calling == "ARIAHOST"


@pytest.mark.parametrize(
    "level",
    ["PATIENT", "STUDY", "SERIES", "IMAGE"],
)
def test_every_level_takes_a_patient(client, receiver, machine_qa, level):
    report = client.move(level, model=uids.PATIENT_ROOT_MOVE, PatientID="$QA Halcyon2_2026")
    count = machine_qa("$QA Halcyon2_2026").instances
    assert (report.status, report.completed, len(receiver.stored)) == (0x0000, count, count)


def test_lists_of_uids_are_moved(client, receiver, plan):
    wanted = uids_of(plan)[2:5]
    assert client.move("IMAGE", SOPInstanceUID=wanted).completed == 3
    assert receiver.uids == wanted


def test_a_key_below_the_level_narrows_rather_than_being_ignored(client, receiver, plan):
    report = client.move("STUDY", StudyInstanceUID=plan.study_instance_uid, SOPInstanceUID=uids_of(plan)[0])
    assert report.completed == 1


@pytest.mark.quirk(15, "move_unique_keys_only")
def test_other_keys_than_unique_ones_are_ignored(client, receiver, habit, series):
    report = client.move("SERIES", SeriesInstanceUID=series, PrimaryDosimeterUnit="MU", Modality="CT")
    assert report.completed == 10
    habit(move_unique_keys_only=False)
    assert client.move("IMAGE", SeriesInstanceUID=series, PrimaryDosimeterUnit="MU").completed == 8


@pytest.mark.parametrize("keys", [{}, {"Modality": "RTIMAGE"}, {"PatientID": ""}, {"PatientID": "*"}])
def test_a_move_of_everything_is_refused(client, receiver, keys):
    with pytest.raises(RefusedByPeerError, match="0xA900"):
        client.move("SERIES", **keys)
    assert receiver.stored == []


@pytest.mark.quirk(18, "unknown_destination_status")
def test_an_unknown_destination_is_a801(client, habit, series):
    with pytest.raises(UnknownMoveDestinationError, match="0xA801"):
        client.move("SERIES", to="NOWHERE", SeriesInstanceUID=series)
    habit(unknown_destination_status=0xC002)
    assert client.move("SERIES", to="NOWHERE", SeriesInstanceUID=series).status == 0xC002


@pytest.mark.quirk(18, "unreachable_destination_status")
def test_a_receiver_that_is_down_is_a702_with_everything_failed(daemon, client, habit, plan, series):
    daemon.trust([trusted(free_port())])
    report = client.move("SERIES", SeriesInstanceUID=series)
    assert (report.status, report.completed, report.failed) == (0xA702, 0, 10)
    assert list(report.failed_sop_instance_uids) == uids_of(plan)
    habit(unreachable_destination_status=0xA701)
    assert client.move("SERIES", SeriesInstanceUID=series).status == 0xA701


def test_a_receiver_without_the_class_is_a702(client, receiver, plan, monkeypatch):
    receiver.status = 0xA900
    report = client.move("IMAGE", SOPInstanceUID=plan.sop_instance_uid)
    assert (report.status, report.failed) == (0xA702, 1)
    assert report.failed_sop_instance_uids == (plan.sop_instance_uid,)


def test_some_failures_are_b000_with_the_failed_named(client, receiver, plan, series):
    def fail_third(_):
        receiver.status = 0xA700 if len(receiver.stored) == 2 else 0x0000

    receiver.before = fail_third
    report = client.move("SERIES", SeriesInstanceUID=series)
    assert (report.status, report.completed, report.failed) == (0xB000, 9, 1)
    assert report.failed_sop_instance_uids == (uids_of(plan)[2],)


def test_warnings_of_the_receiver_are_counted_as_such(client, receiver, plan):
    receiver.status = 0xB000
    report = client.move("IMAGE", SOPInstanceUID=plan.sop_instance_uid)
    assert (report.status, report.completed, report.warning, report.failed) == (0xB000, 0, 1, 0)


def test_a_receiver_that_aborts_half_way_fails_the_rest(client, receiver, plan, series):
    def abort_third(event):
        if len(receiver.stored) == 2:
            event.assoc.abort()

    receiver.before = abort_third
    report = client.move("SERIES", SeriesInstanceUID=series)
    assert (report.status, report.completed, report.failed) == (0xB000, 2, 8)


@pytest.mark.quirk(12, "not_found_status")
def test_what_is_nowhere_is_c001_with_nothing_sent(client, receiver, habit):
    report = client.move("SERIES", SeriesInstanceUID="1.2.3")
    assert (report.status, report.completed, report.failed) == (0xC001, 0, 0)
    habit(not_found_status=0)
    assert client.move("SERIES", SeriesInstanceUID="1.2.3").status == 0
    assert receiver.associations == 0


@pytest.mark.quirk(6)
def test_listed_ids_are_not_moved_by_exact_key_either(client, receiver, habit):
    assert client.move("STUDY", PatientID="$QA Halcyon2_2026").completed == len(receiver.stored) > 0
    receiver.stored.clear()
    habit(unmatchable_patient_ids=("$QA Halcyon2_2026",))
    assert client.move("STUDY", PatientID="$QA Halcyon2_2026").status == 0xC001
    assert receiver.stored == []


@pytest.mark.quirk(16, "creation_at_export")
def test_two_exports_differ_in_their_time_alone(client, daemon, receiver, plan, monkeypatch):
    from datetime import datetime

    uid = uids_of(plan)[0]
    moments = [datetime(2026, 11, 21, 8, 0, 0), datetime(2026, 11, 22, 9, 30, 0)]
    monkeypatch.setattr(daemon, "_now", lambda: moments[len(receiver.stored)])
    client.move("IMAGE", SOPInstanceUID=uid)
    client.move("IMAGE", SOPInstanceUID=uid)
    first, second = (each.dataset for each in receiver.stored)
    assert (first.InstanceCreationDate, second.InstanceCreationDate) == ("20261121", "20261122")
    assert second.InstanceCreationTime == "093000.000000"
    assert without_export_time(first) == without_export_time(second)


@pytest.mark.quirk(16, "creation_at_export")
def test_the_time_of_an_export_may_be_left_alone(client, receiver, habit, plan):
    habit(creation_at_export=False)
    client.move("IMAGE", SOPInstanceUID=uids_of(plan)[0])
    assert receiver.stored[0].dataset.InstanceCreationDate == "20261120"


@pytest.mark.quirk(23)
def test_the_character_set_is_that_of_the_destination(clinic, receiver):
    from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon

    entities = [trusted(receiver.port), trusted(receiver.port, ae_title="OLD", character_set="ISO_IR 100")]
    with SimulatedDaemon(clinic, trusted=entities) as daemon:
        client = Client(peer_of(daemon))
        keys = {"PatientID": "", "SOPInstanceUID": "", "PatientName": "", "RTPlanLabel": ""}
        plans = client.find("IMAGE", Modality="RTPLAN", RTPlanDate="19000101-", **keys)
        plan = next(each for each in plans if as_latin_1(str(each.PatientName)) != each.PatientName)
        client.move("IMAGE", SOPInstanceUID=plan.SOPInstanceUID)
        client.move("IMAGE", to="OLD", SOPInstanceUID=plan.SOPInstanceUID)
    new, old = (each.dataset for each in receiver.stored)
    assert (new.SpecificCharacterSet, old.SpecificCharacterSet) == ("ISO_IR 192", "ISO_IR 100")
    assert str(old.PatientName) == as_latin_1(str(new.PatientName)) != str(new.PatientName)
    assert [each.called for each in receiver.stored] == ["AIRFLOW", "OLD"]


@pytest.mark.quirk(23, "character_set", "client_character_sets")
def test_one_client_may_get_another_character_set_than_the_rest(clinic, receiver, client, daemon, habit, plan):
    daemon.trust([trusted(receiver.port), trusted(receiver.port, ae_title="OLD")])

    def named():
        before = len(receiver.stored)
        client.move("IMAGE", SOPInstanceUID=plan.sop_instance_uid)
        client.move("IMAGE", to="OLD", SOPInstanceUID=plan.sop_instance_uid)
        return [each.dataset.get("SpecificCharacterSet") for each in receiver.stored[before:]]

    assert named() == ["ISO_IR 192", "ISO_IR 192"]
    habit(client_character_sets=("OLD:ISO_IR 100",))
    assert named() == ["ISO_IR 192", "ISO_IR 100"]
    habit(client_character_sets=("OLD:",), character_set="ISO_IR 100")
    assert named() == ["ISO_IR 100", None]


@pytest.mark.quirk(None, "pending_responses")
def test_pending_responses_may_be_left_out(client, receiver, habit, series):
    habit(pending_responses=False)
    progress = []
    assert client.move("SERIES", SeriesInstanceUID=series, progress=progress.append).completed == 10
    assert progress == []


def test_a_cancelled_move_ends_with_fe00_and_counts(daemon, receiver, plan, series):
    proceed, reached = threading.Event(), threading.Event()

    def wait_at_third(_):
        if len(receiver.stored) == 2:
            reached.set()
            assert proceed.wait(20)

    receiver.before = wait_at_third
    reports = []
    with associate(peer_of(daemon), contexts.move(uids.STUDY_ROOT_MOVE), step="C-MOVE") as association:
        asking = threading.Thread(
            target=lambda: reports.append(
                move(
                    association,
                    uids.STUDY_ROOT_MOVE,
                    identifier("SERIES", SeriesInstanceUID=series),
                    destination="AIRFLOW",
                )
            )
        )
        asking.start()
        assert reached.wait(20)
        association.cancel_request()
        acceptors = daemon._server.active_associations
        wait_until(lambda: any(each.dimse.cancel_req for each in acceptors), what="the C-CANCEL to arrive")
        proceed.set()
        asking.join(20)
    (report,) = reports
    assert (report.status, report.completed, report.failed, report.remaining) == (0xFE00, 3, 0, 7)
    assert len(receiver.stored) == 3


def test_a_client_that_goes_away_ends_the_move(daemon, receiver, series):
    proceed, reached = threading.Event(), threading.Event()

    def wait_at_third(_):
        if len(receiver.stored) == 2:
            reached.set()
            assert proceed.wait(20)

    receiver.before = wait_at_third

    def ask():
        from airflow_provider_varian.errors import DicomError

        with pytest.raises(DicomError):
            Client(peer_of(daemon, dimse_timeout=4)).move("SERIES", SeriesInstanceUID=series)

    asking = threading.Thread(target=ask)
    asking.start()
    assert reached.wait(20)
    asking.join(20)
    wait_until(
        lambda: all(each.acse.is_aborted() or not each.is_established for each in daemon._server.active_associations),
        what="the daemon to hear of it",
    )
    proceed.set()
    assert receiver.ended.wait(20), "the association to the receiver ends"
    assert len(receiver.stored) == 3


def test_stopping_the_daemon_ends_a_move_at_once(clinic, plan, series):
    import time

    from airflow_provider_varian.errors import DicomError
    from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon

    proceed, reached = threading.Event(), threading.Event()
    with receiving() as receiver:

        def hang(_):
            reached.set()
            proceed.wait(30)

        receiver.before = hang
        daemon = SimulatedDaemon(clinic, trusted=[trusted(receiver.port)])
        daemon.start()
        peer = peer_of(daemon)

        def ask():
            with pytest.raises(DicomError):
                Client(peer).move("SERIES", SeriesInstanceUID=series)

        asking = threading.Thread(target=ask)
        asking.start()
        assert reached.wait(20)
        start = time.monotonic()
        daemon.stop()
        assert time.monotonic() - start < 4
        asking.join(20)
        assert not asking.is_alive()
        proceed.set()


class Sink:
    """Takes a C-GET's objects into memory."""

    def __init__(self):
        self.stored = []

    def begin(self, request):
        sink, parts = self, []

        class Incoming:
            def write(self, data):
                parts.append(bytes(data))

            def commit(self):
                sink.stored.append((request, b"".join(parts)))

            def abandon(self):
                pass

        return Incoming()


@pytest.mark.parametrize("model", [uids.STUDY_ROOT_GET, uids.PATIENT_ROOT_GET])
def test_a_get_brings_the_objects_on_the_same_association(daemon, habit, receiver, plan, series, model):
    habit(get=True)
    sink, progress = Sink(), []
    with associate(peer_of(daemon), contexts.get(model, [uids.RT_IMAGE]), step="C-GET") as association:
        keys = identifier("SERIES", SeriesInstanceUID=series)
        report = get(association, model, keys, sink=sink, on_progress=progress.append)
    assert (report.status, report.completed, report.failed) == (0x0000, 10, 0)
    assert [request.sop_instance_uid for request, _ in sink.stored] == uids_of(plan)
    assert {request.transfer_syntax_uid for request, _ in sink.stored} == {uids.IMPLICIT_VR_LITTLE_ENDIAN}
    assert all(len(content) > 64 * 64 * 2 for _, content in sink.stored)
    assert len(progress) == 9
    assert receiver.associations == 0


def test_a_get_of_a_class_that_was_not_offered_fails_that_object(daemon, habit, plan):
    habit(get=True)
    sink = Sink()
    offered = contexts.get(uids.STUDY_ROOT_GET, [uids.RT_IMAGE])
    only_images = [each for each in offered if each.abstract_syntax in (uids.STUDY_ROOT_GET, uids.RT_IMAGE)]
    with associate(peer_of(daemon), only_images, step="C-GET") as association:
        keys = identifier("IMAGE", SOPInstanceUID=[plan.sop_instance_uid, uids_of(plan)[0]])
        report = get(association, uids.STUDY_ROOT_GET, keys, sink=sink)
    assert (report.status, report.completed, report.failed) == (0xB000, 1, 1)
    assert report.failed_sop_instance_uids == (plan.sop_instance_uid,)


def test_import_is_refused(daemon, habit, plan):
    from pynetdicom import AE, build_context

    habit(get=True, store=False)
    ae = AE(ae_title="AIRFLOW")
    offered = [build_context(uids.RT_PLAN, uids.IMPLICIT_VR_LITTLE_ENDIAN)]
    assoc = ae.associate(*daemon.address, contexts=offered, ae_title="VMSDBD")
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = uids.RT_PLAN, "1.2.3"
    dataset.ensure_file_meta()
    dataset.file_meta.TransferSyntaxUID = uids.IMPLICIT_VR_LITTLE_ENDIAN
    dataset.set_original_encoding(True, True)
    assert assoc.send_c_store(dataset).Status == 0x0124
    assoc.release()


def test_retrieves_are_logged_without_identifiers(client, receiver, simulator_log, machine_qa):
    client.move("STUDY", PatientID="QA_TB_WL")
    count = machine_qa().instances
    assert f"C-MOVE STUDY keys=PatientID status=0x0000 completed={count} failed=0" in simulator_log.text
    assert "QA_TB_WL" not in simulator_log.text


def test_behaviour_is_replaced_as_a_whole(daemon):
    daemon.behaviour = replace(daemon.behaviour, get=True)
    assert daemon.behaviour.get


@pytest.mark.fault("status")
@pytest.mark.parametrize("service", ["C-MOVE", "C-GET"])
@pytest.mark.parametrize(
    ("step", "at", "done"),
    [(Step.BEFORE_SUBOPERATION, 1, 0), (Step.BEFORE_SUBOPERATION, 3, 2), (Step.AFTER_SUBOPERATION, 3, 3)],
)
def test_a_retrieve_that_is_cut_short_names_all_that_it_did_not_bring(
    daemon, client, habit, plan, series, service, step, at, done
):
    habit(get=True)
    daemon.faults.arm(Fault(kind=Kind.STATUS, step=step, at=at, status=0xA702))
    if service == "C-MOVE":
        report = client.move("SERIES", SeriesInstanceUID=series)
    else:
        offered = contexts.get(uids.STUDY_ROOT_GET, [uids.RT_IMAGE])
        with associate(peer_of(daemon), offered, step="C-GET") as association:
            keys = identifier("SERIES", SeriesInstanceUID=series)
            report = get(association, uids.STUDY_ROOT_GET, keys, sink=Sink())
    assert (report.status, report.completed, report.failed) == (0xA702, done, 10 - done)
    assert list(report.failed_sop_instance_uids) == uids_of(plan)[done:]


@pytest.mark.fault("status")
def test_a_retrieve_that_is_cut_short_names_none_twice(daemon, client, receiver, plan, series):
    def fail_first(_):
        receiver.status = 0x0000 if receiver.stored else 0xA700

    receiver.before = fail_first
    daemon.faults.arm(Fault(kind=Kind.STATUS, step=Step.BEFORE_SUBOPERATION, at=3, status=0xA701))
    report = client.move("SERIES", SeriesInstanceUID=series)
    assert (report.status, report.completed, report.failed) == (0xA701, 1, 9)
    assert list(report.failed_sop_instance_uids) == [uids_of(plan)[0], *uids_of(plan)[2:]]


@pytest.mark.fault("status")
def test_a_retrieve_that_is_cut_short_at_its_end_names_what_failed(daemon, client, plan, series):
    daemon.trust([trusted(free_port())])
    daemon.faults.arm(Fault(kind=Kind.STATUS, step=Step.FINAL, status=0xA701))
    report = client.move("SERIES", SeriesInstanceUID=series)
    assert (report.status, report.completed, report.failed) == (0xA701, 0, 10)
    assert list(report.failed_sop_instance_uids) == uids_of(plan)
