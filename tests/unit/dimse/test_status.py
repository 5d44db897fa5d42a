"""Statuses in words and as errors (PS3.7 Annex C, PS3.4 C.4 and B.2.3)."""

from __future__ import annotations

import pytest

from airflow_provider_varian.dimse import status
from airflow_provider_varian.errors import (
    CroppedAnswerError,
    OutOfResourcesError,
    PeerFailureError,
    RefusedByPeerError,
    UnknownMoveDestinationError,
)


@pytest.mark.parametrize(
    ("service", "code", "words"),
    [
        ("C-MOVE", 0xA801, "move destination unknown (0xA801)"),
        ("C-FIND", 0xA700, "refused: out of resources (0xA700)"),
        ("C-STORE", 0xA900, "data set does not match SOP class (0xA900)"),
        ("C-GET", 0xA900, "identifier does not match SOP class (0xA900)"),
        ("C-FIND", 0xC123, "unable to process (0xC123)"),
        ("C-STORE", 0xC123, "cannot understand (0xC123)"),
        ("C-STORE", 0xA7FF, "refused: out of resources (0xA7FF)"),
        ("C-STORE", 0xB123, "warning (0xB123)"),
        ("C-ECHO", 0x0122, "SOP class not supported (0x0122)"),
        ("C-ECHO", 0x7777, "unknown status (0x7777)"),
    ],
)
def test_a_status_is_described_by_its_service(service, code, words):
    assert status.describe(service, code) == words


@pytest.mark.parametrize("code", [0x0000, 0x0001, 0x0107, 0x0116, 0xB000, 0xB007, 0xFF00])
def test_success_and_warnings_are_no_errors(code):
    assert status.error_for("C-STORE", code, peer="X@h:1") is None


@pytest.mark.parametrize(
    ("service", "code", "error"),
    [
        ("C-MOVE", 0xA801, UnknownMoveDestinationError),
        ("C-FIND", 0xA801, PeerFailureError),
        ("C-MOVE", 0xA702, OutOfResourcesError),
        ("C-FIND", 0x0213, OutOfResourcesError),
        ("C-FIND", 0xFE00, CroppedAnswerError),
        ("C-FIND", 0x0124, RefusedByPeerError),
        ("C-ECHO", 0x0211, PeerFailureError),
    ],
)
def test_failures_become_errors_of_the_tree(service, code, error):
    found = status.error_for(service, code, peer="X@h:1")
    assert type(found) is error
    assert found.status == code
    assert found.peer == "X@h:1"
    assert found.hint


def test_a_comment_is_repeated_without_what_may_be_an_identifier():
    found = status.error_for(
        "C-MOVE",
        0xC000,
        peer="X@h:1",
        comment="Cannot export RT Plan 'Prostata Muster' of 4711 with an empty Beam Sequence",
    )
    assert "Cannot export RT Plan" in str(found)
    for secret in ("Prostata", "Muster", "4711"):
        assert secret not in str(found)
