"""What of C-STORE requests is taken past pynetdicom; what comes of it on the wire is in :mod:`test_streaming`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.raw_peer import build_command

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.bounds import Bounds
from airflow_provider_varian.dimse.command_set import Command
from airflow_provider_varian.dimse.storage import StoreObserver
from airflow_provider_varian.dimse.store_taker import Parties, StoreTaker

WHOLE = {
    "affected_class": uids.CT_IMAGE,
    "command": 0x0001,
    "message_id": 1,
    "priority": 0,
    "data_set": 1,
    "affected_instance": "1.2.3",
}


@pytest.mark.parametrize(
    ("fields", "taken"),
    [({}, True), ({"data_set": 0x0101}, False), ({"priority": 7}, False), ({"message_id": None}, False)],
)
def test_a_request_that_is_odd_is_left_to_pynetdicom(fields, taken):
    taker = StoreTaker(
        SimpleNamespace(_accepted_cx={}),
        sink=SimpleNamespace(begin=lambda request: None),
        bounds=Bounds(),
        observer=StoreObserver(),
        send=lambda message: None,
        parties=Parties(calling_ae_title="PEER", called_ae_title="US", source_address="127.0.0.1"),
    )
    command = Command(build_command(**{name: value for name, value in (WHOLE | fields).items() if value is not None}))
    assert taker.begin(1, command) is taken
