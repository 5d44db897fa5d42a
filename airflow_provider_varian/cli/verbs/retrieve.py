"""``varian-dicom retrieve``: bring objects here, and account for each of them."""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_varian.cli.arguments import listening_address, not_negative, positive, seconds
from airflow_provider_varian.cli.audit_options import add_trail_arguments, work_trail
from airflow_provider_varian.cli.interrupt import interruptible
from airflow_provider_varian.cli.keys import add_key_arguments, level_of, parse_keys, refuse_keys_without_values
from airflow_provider_varian.cli.peer_options import add_peer_arguments, peer_from_arguments
from airflow_provider_varian.cli.verb import ExitStatus, Verb
from airflow_provider_varian.connection_fields import FIELDS_BY_KEY
from airflow_provider_varian.errors import ConfigurationError, ContextRejectedError
from airflow_provider_varian.retrieval.outcome import Outcome, State

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Iterator, Mapping

    from airflow_provider_varian.cli.output import Output
    from airflow_provider_varian.dimse.cancellation import Cancellation
    from airflow_provider_varian.dimse.peer import Peer
    from airflow_provider_varian.dimse.suboperations import SubOperations
    from airflow_provider_varian.retrieval.destination import Destination
    from airflow_provider_varian.retrieval.manifest import Manifest
    from airflow_provider_varian.retrieval.receivers import NamedReceiver
    from airflow_provider_varian.retrieval.retrieve import RetrievalResult
    from airflow_provider_varian.retrieval.trail import WorkTrail

_EXAMPLES: Final = """\
  varian-dicom retrieve --peer VMSDBD@aria-db:51402 --calling AIRFLOW --listen 11112 --out /srv/qa \\
      -k SeriesInstanceUID=1.2.246.352.61.2.5
  varian-dicom retrieve --conn dicom_default --out /srv/qa --dry-run \\
      -k PatientID=QA_TB_WL -k Modality=RTIMAGE -k AcquisitionDate=20260105
"""

EXIT_STATUS_OF_OUTCOME: Final = {
    Outcome.COMPLETE: ExitStatus.DONE,
    Outcome.REPORTED: ExitStatus.DONE,
    Outcome.PARTIAL: ExitStatus.INCOMPLETE,
    Outcome.SHORT: ExitStatus.INCOMPLETE,
    Outcome.LIMITED: ExitStatus.INCOMPLETE,
    Outcome.EMPTY: ExitStatus.NOTHING_FOUND,
    Outcome.PENDING: ExitStatus.FAILED,
}
_ALWAYS_SHOWN: Final = ("found", "verified", "bytes")


def _add_arguments(parser: ArgumentParser) -> None:
    add_peer_arguments(parser)
    add_key_arguments(parser)
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="where objects go: a folder, or a URI such as s3://bucket/qa")
    add("--method", choices=FIELDS_BY_KEY["retrieve_method"].choices, help="auto: C-GET where accepted, else C-MOVE")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--listen",
        type=listening_address,
        metavar="[HOST:]PORT",
        help="port of our trusted entity, to which a C-MOVE sends",
    )
    where.add_argument(
        "--receiver",
        metavar="DIR_OR_URI",
        help="a standing receiver to which a C-MOVE sends: its spool on this host, or the store that it publishes to",
    )
    add("--layout", metavar="TEMPLATE", help="path below DIR, e.g. {AcquisitionDate}/{Modality}.{SOPInstanceUID}.dcm")
    add("--limit", type=positive, metavar="N", help="take so many at most (exit status 3 when there are more)")
    add("--minimum", type=positive, metavar="N", help="how many there must be at least (exit status 3 when fewer)")
    add("--spool", metavar="DIR", help="where this command receives objects; default: .dicom/spool below --out")
    add(
        "--port-wait", type=seconds, default=60.0, metavar="SECONDS", help="wait for a taken port; default: %(default)g"
    )
    add(
        "--refresh",
        choices=("if_changed", "never", "always"),
        default="if_changed",
        help="fetch plans, structure sets and doses that are held again, since they may change; default: %(default)s",
    )
    add("--verify", choices=("path", "hash"), help="what makes an object held; default: hash after an unfinished try")
    add(
        "--recheck",
        type=not_negative,
        metavar="N",
        help="ask for the list again afterwards, at most N times, for what is new; default: 3",
    )
    add("--settle", type=seconds, metavar="SECONDS", help="seconds of quiet after which late objects are given up")
    add("--dry-run", action="store_true", help="list what would be retrieved, retrieve and write nothing")
    add("--json", action="store_true", help="print the result as JSON")
    add_trail_arguments(parser)


def _run(arguments: Namespace, output: Output) -> ExitStatus:
    keys = parse_keys(arguments.keys)
    refuse_keys_without_values(keys)
    host, port = arguments.listen or (None, None)
    peer = peer_from_arguments(arguments, receiver_host=host, receiver_port=port, retrieve_method=arguments.method)
    receiver = _receiver(arguments, peer)
    has_nowhere = peer.receiver_port is None and receiver is None
    if peer.retrieve_method == "move" and has_nowhere:
        raise ConfigurationError(
            "C-MOVE needs a port on which we receive",
            hint="Add --listen with the port of our trusted entity, or --receiver for a standing receiver.",
        )
    try:
        with work_trail(arguments, peer) as trail, interruptible() as cancellation:
            result = _retrieve(arguments, output, peer, receiver, keys, trail, cancellation)
    except ContextRejectedError as error:
        if has_nowhere and peer.retrieve_method == "auto":
            error.hint = "The peer has no C-GET: add --listen with the port of our trusted entity, for C-MOVE."
        raise
    if arguments.dry_run:
        return _show_plan(result, output)
    _show(result, output)
    return EXIT_STATUS_OF_OUTCOME[result.outcome]


def _retrieve(
    arguments: Namespace,
    output: Output,
    peer: Peer,
    receiver: NamedReceiver | None,
    keys: Mapping[str, Any],
    trail: WorkTrail | None,
    cancellation: Cancellation,
) -> RetrievalResult:
    from airflow_provider_varian.aria.profile import profile_for
    from airflow_provider_varian.retrieval.destination import Destination
    from airflow_provider_varian.retrieval.identity import retrieval_id_of_command
    from airflow_provider_varian.retrieval.layout import Layout
    from airflow_provider_varian.retrieval.recheck import RECHECK_ROUNDS
    from airflow_provider_varian.retrieval.retrieve import retrieve
    from airflow_provider_varian.retrieval.selection import select
    from airflow_provider_varian.retrieval.trail import Asking, Retrieving

    asking = Asking(trail)
    profile = profile_for(peer)
    destination = Destination(arguments.out)
    layout = Layout(arguments.layout) if arguments.layout else Layout()
    with _spool(arguments, destination, receiver) as spool:
        request = select(
            peer,
            arguments.level,
            keys,
            profile=profile,
            layout=layout,
            minimum=arguments.minimum,
            limit=arguments.limit,
            cancellation=cancellation,
            on_query=asking,
        )
        retrieval_id = retrieval_id_of_command(
            peer=peer.name,
            destination=destination.uri,
            request={"level": str(level_of(arguments.level, keys)), "keys": keys},
            minimum=arguments.minimum,
            limit=arguments.limit,
            # A dry run leaves no trace in the destination, not even the ID that is kept there.
            destination_id="" if arguments.dry_run else destination.random_id(),
        )
        with (
            _progress(output, peer) as (on_change, on_progress),
            Retrieving(trail, peer, on_change=on_change) as told,
        ):
            return retrieve(
                peer,
                request,
                profile=profile,
                destination=destination,
                spool_root=spool,
                retrieval_id=retrieval_id,
                layout=layout,
                port_wait_seconds=arguments.port_wait,
                verify=arguments.verify,
                refresh=arguments.refresh,
                recheck_rounds=RECHECK_ROUNDS if arguments.recheck is None else arguments.recheck,
                settle_seconds=arguments.settle,
                on_change=told.changed,
                on_progress=on_progress,
                cancellation=cancellation,
                receiver=receiver,
                on_query=asking,
                observer=told,
                dry_run=arguments.dry_run,
            )


def _receiver(arguments: Namespace, peer: Peer) -> NamedReceiver | None:
    """Return the standing receiver that is named by an option, else by the connection."""
    from airflow_provider_varian.retrieval.receivers import NamedReceiver

    if named := arguments.receiver:
        if "://" in named:
            return NamedReceiver(name=named, store=named)
        return NamedReceiver(name=named, spool_root=Path(named).expanduser().absolute())
    if not peer.receiver or arguments.listen:
        return None
    try:
        # As for a connection: standard output belongs to the verb's result.
        with redirect_stdout(sys.stderr):
            from airflow_provider_varian.hooks.settings import named_receiver
    except ImportError:
        raise ConfigurationError(
            "a standing receiver by name needs Airflow, whose configuration says where it is",
            hint="Say where it is by --receiver DIR_OR_URI instead.",
        ) from None
    return named_receiver(peer.receiver)


@contextmanager
def _spool(arguments: Namespace, destination: Destination, receiver: NamedReceiver | None) -> Iterator[Path]:
    if arguments.dry_run:
        with tempfile.TemporaryDirectory(prefix="varian-dicom-") as folder:
            yield Path(folder)
        return
    if arguments.spool is None and not destination.is_local:
        if receiver is not None and receiver.spool_root is not None and arguments.method != "get":
            yield receiver.spool_root
            return
        raise ConfigurationError(
            "--out is not a folder of this machine, and objects are received on one",
            hint="Add --spool with a folder on a local disk.",
        )
    yield Path(arguments.spool) if arguments.spool else Path(destination.uri) / ".dicom" / "spool"


@contextmanager
def _progress(
    output: Output, peer: Peer
) -> Iterator[tuple[Callable[[Manifest], None], Callable[[SubOperations], None]]]:
    """Count what is here: by the ledger when it was written, in between by what the peer reports."""
    seen: dict[str, int] = {"here": 0, "found": 0}
    with output.progress(f"retrieving from {peer.name}") as advance:

        def on_change(manifest: Manifest) -> None:
            seen["here"], seen["found"] = manifest.ledger.count(State.VERIFIED), len(manifest.ledger.entries)
            advance(seen["here"], seen["found"] or None, "")

        def on_progress(report: SubOperations) -> None:
            advance(min(seen["here"] + (report.completed or 0), seen["found"]), seen["found"] or None, "")

        yield on_change, on_progress


def _show(result: RetrievalResult, output: Output) -> None:
    from airflow_provider_varian.reports.mapping import missing_mappings
    from airflow_provider_varian.reports.text import headline, missing_lines

    manifest = result.manifest
    answer = {
        "outcome": str(result.outcome),
        "message": manifest.message,
        "manifest": result.manifest_path,
        "counts": result.counts,
        "missing": missing_mappings(manifest),
    }
    shown = {name: count for name, count in result.counts.items() if count or name in _ALWAYS_SHOWN}

    def show() -> None:
        output.line(headline(manifest))
        output.pairs({"manifest": result.manifest_path, **shown})
        lines = missing_lines(manifest, rest="varian-dicom report --all names them")
        for line in lines:
            output.line(line)
        if lines:
            output.note("the same command again asks for what is missing alone")

    output.result(answer, show)


def _show_plan(result: RetrievalResult, output: Output) -> ExitStatus:
    instances = [entry.to_json() for entry in result.manifest.ledger.entries.values()]
    columns = ("SOPInstanceUID", "SeriesInstanceUID", "state")
    rows = [
        {
            "SOPInstanceUID": entry.sop_instance_uid,
            "SeriesInstanceUID": entry.series_instance_uid,
            "state": "held" if entry.held else "to retrieve",
        }
        for entry in result.manifest.ledger.entries.values()
    ]

    def show() -> None:
        if rows:
            output.table(columns, rows)
        output.note(f"{len(rows)} found, {result.counts['held']} of them held already; nothing was retrieved")
        if limited:
            output.note("there may be more: a limit was hit")
        if short:
            output.note(f"at least {minimum} are expected")

    limited = bool(result.manifest.request.get("limited"))
    minimum = result.manifest.request.get("minimum")
    short = minimum is not None and len(rows) < minimum
    answer = {"dry_run": True, "limited": limited, "short": short, "counts": result.counts, "instances": instances}
    output.result(answer, show)
    if limited or short:
        return ExitStatus.INCOMPLETE
    return ExitStatus.DONE if rows else ExitStatus.NOTHING_FOUND


VERB: Final = Verb(
    name="retrieve",
    summary="bring objects here, by C-GET or by C-MOVE to ourselves, and account for each",
    examples=_EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
)
