from __future__ import annotations

import pytest

from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntities, TrustedEntity


def test_an_entry_is_read_as_the_command_line_gives_it():
    entry = TrustedEntity.parse("Db Client@127.0.0.1:11112")
    assert (entry.ae_title, entry.host, entry.port) == ("Db Client", "127.0.0.1", 11112)
    with pytest.raises(ConfigurationError, match="AET@host:port"):
        TrustedEntity.parse("AIRFLOW")


def test_a_title_is_trusted_at_its_own_computer_only():
    entities = TrustedEntities([TrustedEntity.parse("A@10.0.0.1:1"), TrustedEntity.parse("B@localhost:2")])
    assert entities.client("A", "10.0.0.1").port == 1
    assert entities.client("A", "10.0.0.2") is None
    assert entities.client("B", "127.0.0.1").port == 2
    assert entities.client("C", "10.0.0.1") is None
    assert entities.client("A ", None).port == 1, "padding is not significant, and the address may be left out"


def test_ipv4_over_ipv6_is_the_same_computer():
    assert TrustedEntity.parse("A@10.0.0.1:1").is_at("::ffff:10.0.0.1")


def test_a_name_that_cannot_be_resolved_is_nobodys():
    assert not TrustedEntity.parse("A@no-such-host.invalid:1").is_at("10.0.0.1")


def test_a_title_at_two_computers_is_trusted_at_both_and_moves_go_to_the_first():
    entities = TrustedEntities([TrustedEntity.parse("A@10.0.0.1:1"), TrustedEntity.parse("A@10.0.0.2:2")])
    assert entities.client("A", "10.0.0.2").port == 2
    assert entities.destination("A").port == 1
    assert entities.destination("B") is None
