"""The spool of tasks is swept by them: of what nobody came for, and never of what a retrieval came for."""

from __future__ import annotations

import os
import time

import pytest
from pynetdicom.dsutils import encode
from support.archive import ROOT, Archive, rt_image

from airflow_provider_varian.dimse.sink import StoreRequest
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.receivers import NamedReceiver
from airflow_provider_varian.uids import IMPLICIT_VR_LITTLE_ENDIAN

MONTH = 30 * 86400
STRANGER = rt_image(1, study=f"{ROOT}.9", series=f"{ROOT}.9.1")


@pytest.fixture
def left(clinic):
    """Leave objects in the spool, a month ago; that was also when it was swept last."""
    spool = Spool(clinic.spool)

    def leave(*datasets, standing=False):
        with SpoolSink(spool, standing=standing) as sink:
            for ds in datasets:
                writer = sink.begin(
                    StoreRequest(
                        sop_class_uid=ds.SOPClassUID,
                        sop_instance_uid=ds.SOPInstanceUID,
                        transfer_syntax_uid=IMPLICIT_VR_LITTLE_ENDIAN,
                        called_ae_title="AIRFLOW",
                    )
                )
                writer.write(encode(ds, True, True))
                writer.commit()
        for item in spool.unclaimed():
            os.utime(item.path, (0, time.time() - MONTH))
        os.utime(spool.root / "lock", (0, time.time() - MONTH))
        return spool

    return leave


def test_a_retrieval_sweeps_what_nobody_came_for_and_only_now_and_then(clinic, left):
    spool = left(STRANGER)
    assert clinic.run(clinic.images(1)).outcome is Outcome.COMPLETE
    assert list(spool.unclaimed()) == []
    left(STRANGER)
    os.utime(spool.root / "lock")
    assert clinic.run(clinic.images(1, 2)).outcome is Outcome.COMPLETE
    assert len(list(spool.unclaimed())) == 1


def test_what_it_came_for_is_taken_before_anything_is_swept(clinic, left):
    spool = left(rt_image(1))
    uid = rt_image(1).SOPInstanceUID
    ledger = Ledger([Entry(sop_instance_uid=uid, state=State.MISSING)])
    manifest = Manifest(id="r-1", request=clinic.images(1).summary(), ledger=ledger, outcome=Outcome.PARTIAL)
    manifest.write(Destination(clinic.root))
    result = clinic.run(clinic.images(1))
    assert (result.outcome, clinic.archive.requests) == (Outcome.COMPLETE, [])
    assert list(spool.unclaimed()) == []


def test_a_dry_run_sweeps_nothing(clinic, left):
    spool = left(STRANGER)
    clinic.run(clinic.images(1), dry_run=True)
    assert len(list(spool.unclaimed())) == 1


def test_the_spool_of_a_standing_receiver_is_its_own_to_sweep(clinic, left):
    spool = left(STRANGER)
    with SpoolSink(spool, standing=True):
        os.utime(spool.root / "lock", (0, time.time() - MONTH))
        assert clinic.run(clinic.images(1)).outcome is Outcome.COMPLETE
        assert len(list(spool.unclaimed())) == 1


@pytest.mark.parametrize("standing", [True, False])
def test_also_while_it_does_not_run(clinic, left, standing):
    """It starts again, and a task gets by without it. The second one never ran as a version that left a mark."""
    spool = left(STRANGER, standing=standing)
    night = NamedReceiver(name="night", spool_root=spool.root)
    with Archive([rt_image(1)], get=True) as archive:
        peer = archive.peer(receiver="night", retrieve_method="auto")
        assert clinic.run(clinic.images(1), peer=peer, receiver=night).outcome is Outcome.COMPLETE
    assert len(list(spool.unclaimed())) == 1


def test_also_by_a_task_that_shares_its_spool_without_naming_it(clinic, left):
    spool = left(STRANGER, standing=True)
    assert clinic.run(clinic.images(1)).outcome is Outcome.COMPLETE
    assert len(list(spool.unclaimed())) == 1


def test_the_spool_of_a_task_is_swept_when_its_receiver_is_elsewhere(clinic, left, tmp_path):
    spool = left(STRANGER)
    night = NamedReceiver(name="night", store=str(tmp_path / "store"))
    with Archive([rt_image(1)], get=True) as archive:
        peer = archive.peer(receiver="night", retrieve_method="auto")
        assert clinic.run(clinic.images(1), peer=peer, receiver=night).outcome is Outcome.COMPLETE
    assert list(spool.unclaimed()) == []


@pytest.mark.parametrize(("days", "kept"), [(29, 0), (31, 1), (0, 1)])
def test_how_long_the_spool_of_tasks_keeps_it_can_be_said(clinic, left, days, kept):
    spool = left(STRANGER)
    clinic.run(clinic.images(1), spool_retention_seconds=days * 86400)
    assert len(list(spool.unclaimed())) == kept
