"""A receiver as tasks run it, in a process of its own that attacks can be measured on, until its input ends.

Its settings are a JSON object on the command line: those of :class:`robustness.attack_receivers.Small`, and ``tls``,
PEM text by the names of :class:`~airflow_provider_varian.dimse.peer.TlsSettings`.

    python -m robustness.attack_in_task SPOOL SETTINGS
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from airflow_provider_varian.dimse.peer import Peer, TlsSettings
from airflow_provider_varian.receiver.in_task import InTaskReceiver
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    settings = json.loads(sys.argv[2])
    peer = Peer(
        host="127.0.0.1",
        port=104,
        called_ae_title="PEER",
        receiver_host="127.0.0.1",
        receiver_port=settings["port"],
        connect_timeout=settings["handshake_seconds"],
        acse_timeout=settings["association_seconds"],
        network_timeout=settings["read_seconds"],
        dimse_timeout=settings["read_seconds"],
        max_pdu=settings["max_pdu"],
        tls=TlsSettings(**settings["tls"]) if settings["tls"] else None,
    )
    spool = Spool(Path(sys.argv[1]))
    spool.reconcile()
    with SpoolSink(spool) as sink, InTaskReceiver(peer, sink) as receiver:
        print("listening on {}:{}".format(*receiver.address), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
