"""The hook: a connection turned into a peer at first use, and one method per verb."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification
from support.parking import CLOSED_FOR_GOOD
from support.quiet import AFTER, QUIET, WITHIN, Clock

from airflow_provider_varian.errors import ConfigurationError, OutOfResourcesError, PermanentRejectionError, QueryError
from airflow_provider_varian.hooks.dicom import DicomHook


def test_nothing_is_looked_up_before_it_is_used():
    hook = DicomHook("no_such_connection")
    with pytest.raises(ConfigurationError, match="no connection 'no_such_connection'"):
        hook.echo()


def test_a_connection_of_another_type_is_refused(connect):
    connect("mail", conn_type="smtp")
    with pytest.raises(ConfigurationError, match="type 'smtp'"):
        _ = DicomHook("mail").peer


def test_the_peer_is_looked_up_once(aria, monkeypatch):
    hook = DicomHook(aria)
    peer = hook.peer
    monkeypatch.delenv("AIRFLOW_CONN_ARIA")
    assert hook.peer is peer
    assert (peer.called_ae_title, peer.timezone) == ("VMSDBD", "Europe/Zurich")


def test_echo_tells_who_the_peer_is(aria):
    assert DicomHook(aria).echo().negotiated.implementation_version_name == "DB Svc 16.1"


def test_find_returns_plain_mappings(aria):
    found = DicomHook(aria).find("IMAGE", {"PatientID": "QA_TB_WL", "Modality": "RTPLAN", "RTPlanLabel": ""})
    assert {answer["RTPlanLabel"] for answer in found.answers} >= {"WL_10MV", "PF_6MV", "OPEN_6MV"}


def test_iter_find_yields_the_same(aria):
    keys = {"PatientID": "QA_TB_WL", "Modality": "RTPLAN"}
    hook = DicomHook(aria)
    assert list(hook.iter_find("IMAGE", keys)) == hook.find("IMAGE", keys).answers


def test_a_bad_query_touches_no_network(aria, daemon):
    with pytest.raises(QueryError, match="Did you mean PatientID"):
        DicomHook(aria).find("IMAGE", {"PatientId": "X"})
    assert not daemon.counts


@pytest.fixture
def down_database():
    """A daemon that answers C-ECHO while its database is down."""
    ae = AE("VMSDBD")
    ae.add_supported_context(Verification)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)

    def fail(event):
        yield 0xA700, None

    handlers = [(evt.EVT_C_ECHO, lambda event: 0x0000), (evt.EVT_C_FIND, fail), *CLOSED_FOR_GOOD]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    yield server.server_address[1]
    server.shutdown()


def test_a_daemon_without_its_database_echoes_but_is_not_available(connect, down_database):
    hook = DicomHook(connect("half", port=down_database))
    hook.echo()
    with pytest.raises(OutOfResourcesError):
        hook.ensure_available()


def test_an_available_daemon_lists_nothing_for_it(aria, daemon):
    DicomHook(aria).ensure_available()
    assert daemon.counts["C-FIND"] == 1
    assert daemon.counts["association"] == 1


def test_associate_releases_at_the_end_of_the_block(aria):
    with DicomHook(aria).associate() as association:
        assoc = association.assoc
        assert assoc.is_established
    assert assoc.is_released


def test_test_button_names_what_works(aria):
    works, message = DicomHook(aria).test_connection()
    assert works
    assert "C-FIND answers" in message


def test_test_button_says_where_to_enter_an_unknown_calling_ae_title(daemon, connect):
    works, message = DicomHook(connect("wrong", port=daemon.address[1], calling_ae_title="AIRFLOV")).test_connection()
    assert not works
    assert "AIRFLOV" in message
    assert "Trusted Application Entities" in message


def test_test_button_never_raises_for_a_wrong_field(connect):
    works, message = DicomHook(connect("wrong", port=104, timezone="Mars/Olympus")).test_connection()
    assert not works
    assert "timezone" in message


def test_a_rejection_is_typed(daemon, connect):
    with pytest.raises(PermanentRejectionError):
        DicomHook(connect("wrong", port=daemon.address[1], calling_ae_title="AIRFLOV")).echo()


def test_select_and_retrieve_bring_the_objects_to_the_default_storage(aria, storage):
    hook = DicomHook(aria)
    request = hook.select("IMAGE", {"PatientID": "QA_TB_WL", "Modality": "RTPLAN"})
    result = hook.retrieve(request, retrieval_id="00000000-0000-5000-8000-000000000001")
    assert str(result.outcome) == "complete"
    assert len(list(storage.rglob("RTPLAN.*.dcm"))) == result.counts["verified"] == 6


def test_what_nobody_has_selects_nothing(aria):
    assert DicomHook(aria).select("IMAGE", {"PatientID": "NOBODY", "Modality": "RTPLAN"}).expected == ()


def test_unique_keys_go_into_the_request_unasked(aria, daemon):
    request = DicomHook(aria).select(None, {"SeriesInstanceUID": "1.2.3"})
    assert str(request.level) == "SERIES"
    assert not daemon.counts


def test_a_whole_patient_must_be_asked_for(aria):
    with pytest.raises(QueryError, match="every object of the patient"):
        DicomHook(aria).select(None, {"PatientID": "QA_TB_WL"})


def test_series_found_by_other_keys_are_retrieved_by_their_uids(aria):
    request = DicomHook(aria).select("SERIES", {"PatientID": "QA_TB_WL", "Modality": "RTPLAN"})
    assert len(request.keys["SeriesInstanceUID"]) == 6


def test_async_verbs_give_what_the_sync_ones_give(aria):
    async def both():
        hook = DicomHook(aria)
        return await asyncio.gather(
            hook.aecho(), hook.afind("IMAGE", {"PatientID": "QA_TB_WL", "Modality": "RTPLAN"}, limit=1)
        )

    echo, found = asyncio.run(both())
    assert echo.negotiated.implementation_version_name == "DB Svc 16.1"
    assert found.limited


def test_cancelling_a_coroutine_cancels_the_verb(aria):
    ended = threading.Event()
    began = threading.Event()

    class Waiting(DicomHook):
        def echo(self, *, cancellation=None):
            began.set()
            try:
                cancellation.pause(30)
            finally:
                ended.set()

    async def cancelled():
        task = asyncio.create_task(Waiting(aria).aecho())
        await asyncio.to_thread(began.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert ended.wait(10)


def test_the_loop_stays_free_while_a_verb_waits(aria):
    began, release = threading.Event(), threading.Event()

    class Waiting(DicomHook):
        def echo(self, *, cancellation=None):
            began.set()
            return release.wait(5)

    async def ticking():
        task = asyncio.create_task(Waiting(aria).aecho())
        await asyncio.to_thread(began.wait, 5)
        release.set()  # comes too late when the verb holds the loop
        return await task

    assert asyncio.run(ticking())


def test_quiet_hours_are_waited_for_without_a_place_in_the_pool(aria, monkeypatch):
    from dataclasses import replace

    from airflow_provider_varian.hooks import worker_threads

    clock = Clock(monkeypatch, WITHIN)
    monkeypatch.setattr(worker_threads, "shared_pool", lambda: pytest.fail("the pool was used in quiet hours"))
    pool = ThreadPoolExecutor(max_workers=1)
    hook = DicomHook(aria)
    hook.__dict__["peer"] = replace(hook.peer, **QUIET)

    async def waiting():
        task = asyncio.create_task(hook.aecho())
        async with asyncio.timeout(30):
            while clock.looks < 5:
                await asyncio.sleep(0.01)
        assert not task.done()
        monkeypatch.setattr(worker_threads, "shared_pool", lambda: pool)
        clock.now = AFTER
        return await task

    assert asyncio.run(waiting()).seconds >= 0
    pool.shutdown()


def test_retrieved_files_are_part_10(aria, storage):
    hook = DicomHook(aria)
    request = hook.select("IMAGE", {"PatientID": "QA_TB_WL", "Modality": "RTPLAN"}, limit=1)
    result = hook.retrieve(request, retrieval_id="00000000-0000-5000-8000-000000000003")
    assert str(result.outcome) == "limited"
    (file,) = storage.rglob("*.dcm")
    assert Path(file).read_bytes()[128:132] == b"DICM"
