"""The in-task receiver in a process of its own, so that its time and memory can be told from others'.

python -m benchmarks.in_task PORT SPOOL [--no-fsync]
"""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.receiver.in_task import InTaskReceiver
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from benchmarks.sender import CALLED, CALLING


def main() -> None:
    """Receive until the process is ended."""
    parser = argparse.ArgumentParser(description="receive as a retrieval does")
    parser.add_argument("port", type=int)
    parser.add_argument("spool", type=Path)
    parser.add_argument("--ae-title", default=CALLED)
    parser.add_argument("--no-fsync", action="store_true")
    options = parser.parse_args()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    peer = Peer(
        host="127.0.0.1",
        port=1,
        called_ae_title=CALLING,
        calling_ae_title=options.ae_title,
        receiver_host="127.0.0.1",
        receiver_port=options.port,
    )
    with SpoolSink(Spool(options.spool), durable=not options.no_fsync) as sink, InTaskReceiver(peer, sink):
        over.wait()


if __name__ == "__main__":
    main()
