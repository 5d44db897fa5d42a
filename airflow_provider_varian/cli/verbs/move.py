"""``varian-dicom move``: have the peer send objects to somebody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_provider_varian.cli.interrupt import interruptible
from airflow_provider_varian.cli.keys import add_key_arguments, parse_keys, refuse_keys_without_values
from airflow_provider_varian.cli.peer_options import add_peer_arguments, peer_from_arguments
from airflow_provider_varian.cli.verb import ExitStatus, Verb
from airflow_provider_varian.cli.verbs.retrieve import EXIT_STATUS_OF_OUTCOME
from airflow_provider_varian.retrieval.outcome import Outcome

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from airflow_provider_varian.cli.output import Output
    from airflow_provider_varian.dimse.suboperations import SubOperations
    from airflow_provider_varian.retrieval.third_party import ThirdPartyResult

_EXAMPLES: Final = """\
  varian-dicom move --peer VMSDBD@aria-db:51402 --calling AIRFLOW --destination VMSFD -k SOPInstanceUID=1.2.246.352.71.5
"""


def _add_arguments(parser: ArgumentParser) -> None:
    add_peer_arguments(parser)
    add_key_arguments(parser)
    parser.add_argument("--destination", required=True, metavar="AET", help="a trusted entity of the peer")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _run(arguments: Namespace, output: Output) -> ExitStatus:
    from airflow_provider_varian.aria.profile import profile_for
    from airflow_provider_varian.retrieval.selection import select
    from airflow_provider_varian.retrieval.third_party import move_to_third_party

    keys = parse_keys(arguments.keys)
    refuse_keys_without_values(keys)
    peer = peer_from_arguments(arguments)
    profile = profile_for(peer)
    with interruptible() as cancellation:
        request = select(peer, arguments.level, keys, profile=profile, cancellation=cancellation)
        if request.expected == ():
            output.result({"outcome": str(Outcome.EMPTY)}, lambda: None)
            output.note("nothing found")
            return ExitStatus.NOTHING_FOUND
        with output.progress(f"{peer.name} sends to {arguments.destination}") as advance:

            def on_progress(report: SubOperations) -> None:
                done = (report.completed or 0) + (report.failed or 0) + (report.warning or 0)
                advance(done, None if report.remaining is None else done + report.remaining, "")

            moved = move_to_third_party(
                peer,
                request,
                destination=arguments.destination,
                profile=profile,
                cancellation=cancellation,
                on_progress=on_progress,
            )
    _show(arguments.destination, moved, output)
    return EXIT_STATUS_OF_OUTCOME[moved.outcome]


def _show(destination: str, moved: ThirdPartyResult, output: Output) -> None:
    def show() -> None:
        counts = {"completed": moved.completed, "failed": moved.failed, "warning": moved.warning}
        told = {word: "not told by the peer" if count is None else count for word, count in counts.items()}
        output.line(f"{moved.outcome}: by the peer's own counts; whether {destination} has them is not seen from here")
        output.pairs(told)
        for uid in moved.failed_sop_instance_uids:
            output.line(f"failed     {uid}")

    output.result(moved.to_json(), show)


VERB: Final = Verb(
    name="move",
    summary="have the peer send objects to somebody else (C-MOVE)",
    examples=_EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
)
