"""PEM text that came through a form's field of one line, which takes the line breaks out."""

from __future__ import annotations

import pytest
from support.certificates import Authority

from airflow_provider_varian.dimse.peer import peer_from_connection
from airflow_provider_varian.dimse.tls import client_context


@pytest.mark.parametrize("between", ["", " ", "\r\n"])
def test_certificates_and_keys_survive_a_field_of_one_line(between):
    authority = Authority()
    ours = authority.issue("airflow.example.org")
    pem = {
        "tls_ca_certificate": authority.certificate + authority.certificate,  # a chain
        "tls_certificate": ours.certificate,
        "tls_private_key": ours.key,
    }
    extra = {key: between.join(text.split("\n")) for key, text in pem.items()}
    extra |= {"called_ae_title": "A", "tls": True}
    peer = peer_from_connection(host="aria", port=104, extra=extra)
    assert client_context(peer.tls).get_ca_certs()
    assert peer.tls.private_key.split() == ours.key.split()


def test_what_is_no_pem_stays_as_it_is():
    extra = {"called_ae_title": "A", "tls": True, "tls_ca_certificate": "no certificate\nat all"}
    peer = peer_from_connection(host="aria", port=104, extra=extra)
    assert peer.tls.ca_certificate == "no certificate\nat all"
