"""``varian-dicom echo``: does the peer answer, and who is it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_provider_varian.cli.interrupt import interruptible
from airflow_provider_varian.cli.peer_options import add_peer_arguments, peer_from_arguments
from airflow_provider_varian.cli.verb import ExitStatus, Verb

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from airflow_provider_varian.cli.output import Output

_EXAMPLES: Final = """\
  varian-dicom echo --peer VMSDBD@aria-db:51402 --calling AIRFLOW
  varian-dicom echo --conn dicom_default --json
"""


def _add_arguments(parser: ArgumentParser) -> None:
    add_peer_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def _run(arguments: Namespace, output: Output) -> ExitStatus:
    from airflow_provider_varian.dimse import quiet_hours
    from airflow_provider_varian.dimse.echo import echo_peer
    from airflow_provider_varian.dimse.turn import BY_HAND

    peer = peer_from_arguments(arguments)
    if (until := quiet_hours.quiet_until(peer)) is not None:
        output.note(f"note: {quiet_hours.note_of(until)}.")
    with interruptible() as cancellation:
        echo = echo_peer(peer, cancellation=cancellation, patience=BY_HAND)
    answer = {
        "peer": peer.name,
        "calling_ae_title": peer.calling_ae_title,
        "seconds": round(echo.seconds, 4),
        "implementation_version_name": echo.negotiated.implementation_version_name,
        "implementation_class_uid": echo.negotiated.implementation_class_uid,
        "max_pdu": echo.negotiated.max_pdu,
    }

    def show() -> None:
        output.line(f"{peer.name} answers {peer.calling_ae_title} in {echo.seconds * 1000:.0f} ms")
        output.pairs(
            {
                "implementation": f"{answer['implementation_version_name']} ({answer['implementation_class_uid']})",
                "maximum PDU": f"{answer['max_pdu']} bytes",
            }
        )

    output.result(answer, show)
    return ExitStatus.DONE


VERB: Final = Verb(
    name="echo",
    summary="verify that the peer answers (C-ECHO)",
    examples=_EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
)
