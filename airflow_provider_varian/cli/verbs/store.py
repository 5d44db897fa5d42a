"""``varian-dicom store``: send DICOM files to a peer."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_varian.cli.audit_options import add_trail_arguments, work_trail
from airflow_provider_varian.cli.interrupt import interruptible
from airflow_provider_varian.cli.peer_options import add_peer_arguments, peer_from_arguments
from airflow_provider_varian.cli.verb import ExitStatus, Verb
from airflow_provider_varian.errors import ConfigurationError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from airflow_provider_varian.cli.output import Output
    from airflow_provider_varian.dimse.peer import Peer
    from airflow_provider_varian.retrieval.destination import Destination
    from airflow_provider_varian.retrieval.sent import SentDocument
    from airflow_provider_varian.retrieval.store import StoreResult

_EXAMPLES: Final = """\
  varian-dicom store --peer RESEARCH@pacs:11112 --calling AIRFLOW /srv/export/plan.dcm
  varian-dicom store --conn research --recursive --out /srv/sent /srv/export

The daemon imports what it gets, often creating patients for it. A peer typed by hand is taken for consent; an Airflow
connection must have allow_store.
"""
_SHOW_SECONDS: Final = 0.2
EXIT_STATUS_OF_SENT: Final = {
    "complete": ExitStatus.DONE,
    "partial": ExitStatus.INCOMPLETE,
    "nothing": ExitStatus.FAILED,
    "pending": ExitStatus.FAILED,
    "empty": ExitStatus.NOTHING_FOUND,
}


def _add_arguments(parser: ArgumentParser) -> None:
    add_peer_arguments(parser)
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="DICOM files, folders of them, or URIs such as s3://bucket/qa")
    add("--recursive", action="store_true", help="look into folders inside folders too")
    add("--out", metavar="DIR", help="keep an account there; the same command again sends what was not accepted")
    add("--json", action="store_true", help="print the result as JSON")
    add_trail_arguments(parser)


def _run(arguments: Namespace, output: Output) -> ExitStatus:
    from airflow_provider_varian.dimse.store import check_allowed
    from airflow_provider_varian.retrieval.destination import Destination
    from airflow_provider_varian.retrieval.store import store_files
    from airflow_provider_varian.retrieval.trail_exports import Storing

    peer = _peer(arguments)
    check_allowed(peer)
    for name in arguments.files:
        # Not Path.exists(), which raises when it cannot look.
        if "://" not in name and not os.path.lexists(name):
            raise ConfigurationError(f"{name} is not there", hint="Check its path.")
    destination = Destination(arguments.out) if arguments.out else None
    with interruptible() as cancellation, output.progress(f"sending to {peer.name}") as advance:
        shown = float("-inf")

        def on_change(document: SentDocument) -> None:
            nonlocal shown
            # Counting goes over all files: not for each of many.
            if time.monotonic() - shown >= _SHOW_SECONDS:
                files = document.files
                advance(sum(each.state != "unsent" for each in files), len(files) or None, "")
                shown = time.monotonic()

        with work_trail(arguments, peer) as trail, Storing(trail, peer, on_change=on_change) as told:
            result = store_files(
                peer,
                arguments.files,
                store_id=_store_id(arguments, peer, destination),
                destination=destination,
                recursive=arguments.recursive,
                on_change=told.changed,
                cancellation=cancellation,
            )
    _show(result, output)
    if result.outcome == "empty" and not arguments.recursive:
        output.note("there is no file; add --recursive to look into folders inside folders")
    return EXIT_STATUS_OF_SENT[str(result.outcome)]


def _peer(arguments: Namespace) -> Peer:
    """Return the peer: one typed by hand is consent; of an Airflow connection its own ``allow_store`` rules."""
    if any(text.partition("=")[0].strip() == "allow_store" for text in arguments.settings):
        raise ConfigurationError(
            "--set allow_store is not taken here",
            hint="A peer typed by --peer is consent; with --conn the connection itself must have allow_store.",
        )
    return peer_from_arguments(arguments, allow_store=None if arguments.conn else True)


def _store_id(arguments: Namespace, peer: Peer, destination: Destination | None) -> str:
    from airflow_provider_varian.retrieval.identity import retrieval_id_of_command

    if destination is None:
        return str(uuid.uuid4())
    # The random ID in the destination keeps anybody from guessing file names back from the hash.
    return retrieval_id_of_command(
        peer=peer.name,
        destination=destination.uri,
        request={"store": list(map(_absolute, arguments.files)), "recursive": arguments.recursive},
        destination_id=destination.random_id(),
    )


def _absolute(name: str) -> str:
    return name if "://" in name else str(Path(name).absolute())


def _show(result: StoreResult, output: Output) -> None:
    rows = [_row(each.to_json(), result.names[each.position]) for each in result.document.files if each.position]
    answer = {
        "outcome": str(result.outcome),
        "message": result.document.message,
        "document": result.document_path or None,
        "counts": result.counts,
        "hints": list(result.hints),
        "objects": rows,
    }

    def show() -> None:
        if rows:
            columns = ("file", "sop_instance_uid", "state", "status", "reason")
            output.table(columns, rows)
        output.line(f"{result.outcome}: {result.document.message}")
        for hint in result.hints:
            if hint not in result.document.message:
                output.line(f"hint: {hint}")
        if result.document_path:
            output.pairs({"document": result.document_path})

    output.result(answer, show)


def _row(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {"file": name, **values}


VERB: Final = Verb(
    name="store",
    summary="send DICOM files to the peer, which imports them (C-STORE)",
    examples=_EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
)
