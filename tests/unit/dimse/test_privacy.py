"""What may be said in logs."""

from __future__ import annotations

import pytest

from airflow_provider_varian.privacy import harmless, key_names, row_key


def test_keys_are_named_without_values():
    assert key_names({"PatientID": "4711", "Modality": "RTPLAN"}) == "Modality, PatientID"
    assert key_names({}) == "no keys"


def test_row_keys_are_random_and_say_nothing():
    keys = {row_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)


@pytest.mark.parametrize(
    ("comment", "said"),
    [
        ("Unexpected exception during MOVE", "Unexpected exception during MOVE"),
        ("Unable to find patient Muster^Hans (4711)", "Unable to find patient … (…)"),
        ("Muster", ""),
        ("患者", ""),
        ("", ""),
        ("SOP class not supported.", "SOP class not supported."),
    ],
)
def test_a_comment_of_a_peer_keeps_technical_words_only(comment, said):
    assert harmless(comment) == said
