"""``varian-dicom move``: have the peer send objects to somebody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow_provider_varian.cli.arguments import not_negative, seconds
from airflow_provider_varian.cli.audit_options import add_trail_arguments, work_trail
from airflow_provider_varian.cli.interrupt import interruptible
from airflow_provider_varian.cli.keys import add_key_arguments, level_of, parse_keys, refuse_keys_without_values
from airflow_provider_varian.cli.peer_options import add_peer_arguments, peer_beside, peer_from_arguments
from airflow_provider_varian.cli.verb import ExitStatus, Verb
from airflow_provider_varian.cli.verbs.retrieve import EXIT_STATUS_OF_OUTCOME
from airflow_provider_varian.retrieval.outcome import Outcome

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping

    from airflow_provider_varian.cli.output import Output
    from airflow_provider_varian.dimse.cancellation import Cancellation
    from airflow_provider_varian.dimse.peer import Peer
    from airflow_provider_varian.dimse.suboperations import SubOperations
    from airflow_provider_varian.retrieval.third_party import ThirdPartyResult
    from airflow_provider_varian.retrieval.trail import WorkTrail

_EXAMPLES: Final = """\
  varian-dicom move --peer VMSDBD@aria-db:51402 --calling AIRFLOW --destination VMSFD -k SOPInstanceUID=1.2.246.352.71.5
  varian-dicom move --conn aria --destination RESEARCH --verify-peer RESEARCH@pacs:104 --manifest /srv/moves \\
      -k StudyInstanceUID=1.2.246.352.62.1
"""


def _add_arguments(parser: ArgumentParser) -> None:
    add_peer_arguments(parser)
    add_key_arguments(parser)
    add = parser.add_argument
    add("--destination", required=True, metavar="AET", help="a trusted entity of the peer")
    proof = parser.add_argument_group("proof", "without it the peer's own reports are all that is known")
    one = proof.add_mutually_exclusive_group()
    one.add_argument("--verify-peer", metavar="AET@HOST:PORT", help="ask the destination by C-FIND what it has")
    one.add_argument("--verify-conn", metavar="ID", help="the same, by an Airflow connection")
    one.add_argument("--verify-path", metavar="DIR", help="look for whole files where the destination files them")
    add(
        "--manifest",
        metavar="DIR",
        help="keep the account below DIR/.dicom, so that the same command asks for what is missing alone",
    )
    add("--settle", type=seconds, metavar="SECONDS", help="how long nothing may change before the rest is given up")
    add(
        "--recheck",
        type=not_negative,
        metavar="N",
        help="ask for the list again afterwards, at most N times, for what is new; default: 3",
    )
    add("--json", action="store_true", help="print the result as JSON")
    add_trail_arguments(parser)


def _run(arguments: Namespace, output: Output) -> ExitStatus:
    keys = parse_keys(arguments.keys)
    refuse_keys_without_values(keys)
    peer = peer_from_arguments(arguments)
    verify_peer = None
    if arguments.verify_peer or arguments.verify_conn:
        verify_peer = peer_beside(
            address=arguments.verify_peer, conn_id=arguments.verify_conn, calling=peer.calling_ae_title
        )
    with work_trail(arguments, peer) as trail, interruptible() as cancellation:
        moved = _move(arguments, output, peer, verify_peer, keys, trail, cancellation)
    if not moved.counts["found"]:
        output.note("nothing found")
    _show(arguments.destination, moved, output)
    return EXIT_STATUS_OF_OUTCOME[moved.outcome]


def _move(
    arguments: Namespace,
    output: Output,
    peer: Peer,
    verify_peer: Peer | None,
    keys: Mapping[str, Any],
    trail: WorkTrail | None,
    cancellation: Cancellation,
) -> ThirdPartyResult:
    from airflow_provider_varian.aria.profile import profile_for
    from airflow_provider_varian.retrieval.destination import Destination
    from airflow_provider_varian.retrieval.identity import retrieval_id_of_command
    from airflow_provider_varian.retrieval.recheck import RECHECK_ROUNDS
    from airflow_provider_varian.retrieval.selection import select
    from airflow_provider_varian.retrieval.third_party import move_to_third_party
    from airflow_provider_varian.retrieval.trail import Asking
    from airflow_provider_varian.retrieval.trail_exports import Moving

    asking = Asking(trail)
    profile = profile_for(peer)
    root = Destination(arguments.manifest) if arguments.manifest else None
    request = select(peer, arguments.level, keys, profile=profile, cancellation=cancellation, on_query=asking)
    retrieval_id = ""
    if root is not None:
        retrieval_id = retrieval_id_of_command(
            peer=peer.name,
            destination=root.uri,
            request={
                "level": str(level_of(arguments.level, keys)),
                "keys": keys,
                "move_destination": arguments.destination,
            },
            destination_id=root.random_id(),
        )
    with output.progress(f"{peer.name} sends to {arguments.destination}") as advance:

        def on_progress(report: SubOperations) -> None:
            done = (report.completed or 0) + (report.failed or 0) + (report.warning or 0)
            advance(done, None if report.remaining is None else done + report.remaining, "")

        with Moving(trail, peer, arguments.destination) as told:
            return move_to_third_party(
                peer,
                request,
                destination=arguments.destination,
                profile=profile,
                manifest_root=root,
                retrieval_id=retrieval_id,
                verify_peer=verify_peer,
                verify_profile=profile_for(verify_peer) if verify_peer is not None else None,
                verify_path=arguments.verify_path,
                settle_seconds=arguments.settle,
                recheck_rounds=RECHECK_ROUNDS if arguments.recheck is None else arguments.recheck,
                cancellation=cancellation,
                on_account=told.changed,
                on_query=asking,
                on_progress=on_progress,
            )


def _show(destination: str, moved: ThirdPartyResult, output: Output) -> None:
    from airflow_provider_varian.reports.text import headline, missing_lines

    def show() -> None:
        output.line(headline(moved.manifest))
        if moved.outcome is Outcome.REPORTED:
            output.line(f"by the peer's own counts; whether {destination} has them is not seen from here")
        counts = {name: count for name, count in moved.counts.items() if count or name == "found"}
        output.pairs(({"manifest": moved.manifest_path} if moved.manifest_path else {}) | counts)
        # All of them: without --manifest this is the only place that names them.
        for line in missing_lines(moved.manifest, at_most=None):
            output.line(line)

    output.result(moved.to_json(), show)


VERB: Final = Verb(
    name="move",
    summary="have the peer send objects to somebody else (C-MOVE)",
    examples=_EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
)
