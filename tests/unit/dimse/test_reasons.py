"""The hints of failures name what can be changed, and only that."""

from __future__ import annotations

import pytest

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.reasons import rejection


@pytest.mark.parametrize("reason", [1, 2])
def test_a_busy_peer_says_how_to_bound_the_associations(reason):
    error = rejection(Peer(host="127.0.0.1", port=104, called_ae_title="VMSDBD"), "C-ECHO", 2, 3, reason)
    assert error.transient
    assert "Airflow pool" in error.hint
    assert "lower max_associations" in error.hint
