"""TLS: 1.2 or later, both sides verified, no key left behind."""

from __future__ import annotations

import os
import ssl
import tempfile

import pytest
from support.certificates import Authority
from support.raw_peer import raw_peer

from airflow_provider_varian.dimse.echo import echo_peer
from airflow_provider_varian.dimse.peer import TlsSettings
from airflow_provider_varian.dimse.tls import client_context, server_context
from airflow_provider_varian.errors import AssociationAbortedError, ConfigurationError, PeerUnreachableError


@pytest.fixture(scope="module")
def authority():
    return Authority()


def settings(authority, issued=None, **others):
    own = {"certificate": issued.certificate, "private_key": issued.key} if issued else {}
    return TlsSettings(ca_certificate=authority.certificate, **own, **others)


def test_both_sides_are_verified(scp, peer_at, authority):
    port = scp(tls=server_context(settings(authority, authority.issue("aria.example.org"))))
    ours = authority.issue("airflow.example.org")
    assert echo_peer(peer_at(port, tls=settings(authority, ours))).seconds >= 0
    named = settings(authority, ours, server_name="aria.example.org")
    assert echo_peer(peer_at(port, tls=named)).seconds >= 0


def test_a_peer_of_another_authority_is_not_trusted(scp, peer_at, authority):
    port = scp(tls=server_context(settings(authority, authority.issue("aria.example.org"))))
    with pytest.raises(PeerUnreachableError, match=r"TLS handshake failed: the peer's certificate.*tls_ca_certificate"):
        echo_peer(peer_at(port, tls=settings(Authority("another"))))


def test_a_peer_of_another_name_is_not_trusted(scp, peer_at, authority):
    port = scp(tls=server_context(settings(authority, authority.issue("aria.example.org"))))
    with pytest.raises(PeerUnreachableError, match="tls_server_name"):
        echo_peer(peer_at(port, tls=settings(authority, server_name="other.example.org")))


def test_a_receiver_demands_a_certificate(scp, peer_at, authority):
    port = scp(tls=server_context(settings(authority, authority.issue("aria.example.org"))))
    with pytest.raises((AssociationAbortedError, PeerUnreachableError), match="certificate"):
        echo_peer(peer_at(port, tls=settings(authority)))


def test_a_peer_without_tls_is_told_as_such(scp, peer_at, authority):
    port = scp(network_timeout=1)
    with pytest.raises(PeerUnreachableError, match=r"TLS handshake|no connection"):
        echo_peer(peer_at(port, tls=settings(authority), connect_timeout=1.0))


def test_a_handshake_that_never_ends_times_out(peer_at, authority):
    timed_out = pytest.raises(PeerUnreachableError, match=r"within 0\.4 s")
    with raw_peer(lambda wire: wire.ignore_everything()) as port, timed_out:
        echo_peer(peer_at(port, tls=settings(authority), connect_timeout=0.4))


def test_nothing_older_than_1_2_is_spoken(authority):
    issued = authority.issue("x")
    for context in (client_context(settings(authority)), server_context(settings(authority, issued))):
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert context.verify_mode == ssl.CERT_REQUIRED
    assert client_context(settings(authority)).check_hostname


def test_no_key_stays_on_the_disk_and_none_is_readable_by_others(authority, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    modes = []
    original = ssl.SSLContext.load_cert_chain

    def spy(self, path, *args, **options):
        modes.append(os.stat(path).st_mode & 0o777)
        return original(self, path, *args, **options)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    client_context(settings(authority, authority.issue("x")))
    with pytest.raises(ConfigurationError):
        client_context(TlsSettings(certificate="nonsense", private_key="nonsense"))
    assert modes == [0o600, 0o600]
    assert list(tmp_path.iterdir()) == []


def test_a_key_with_a_password(authority):
    issued = authority.issue("x", password="secret")
    client_context(settings(authority, issued, private_key_password="secret"))
    for password in ("", "wrong"):
        with pytest.raises(ConfigurationError, match="tls_private_key") as caught:
            client_context(settings(authority, issued, private_key_password=password))
        assert "secret" not in str(caught.value)


def test_a_receiver_without_a_certificate_is_refused(authority):
    with pytest.raises(ConfigurationError, match="tls_certificate"):
        server_context(settings(authority))


def test_an_authority_that_is_none_is_named():
    with pytest.raises(ConfigurationError, match="tls_ca_certificate"):
        client_context(TlsSettings(ca_certificate="nonsense"))
