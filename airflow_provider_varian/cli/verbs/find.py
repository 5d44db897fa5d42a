"""``varian-dicom find``: what does the peer hold?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow_provider_varian.cli.arguments import positive
from airflow_provider_varian.cli.audit_options import add_trail_arguments, work_trail
from airflow_provider_varian.cli.interrupt import interruptible
from airflow_provider_varian.cli.keys import add_key_arguments, level_of, parse_keys
from airflow_provider_varian.cli.peer_options import add_peer_arguments, peer_from_arguments
from airflow_provider_varian.cli.verb import ExitStatus, Verb

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterable, Mapping

    from airflow_provider_varian.cli.output import Output

_EXAMPLES: Final = """\
  varian-dicom find --peer VMSDBD@aria-db:51402 --level IMAGE -k PatientID=QA_TB_WL -k Modality=RTPLAN -k RTPlanLabel=
  varian-dicom find --conn dicom_default --level IMAGE -k PatientID=QA_TB_WL -k Modality=RTIMAGE \\
      -k AcquisitionDate=20260101-20260131 -k ReferencedRTPlanSequence.ReferencedSOPInstanceUID= --json
"""

# Of the protocol, not of what was asked.
_NOT_SHOWN: Final = frozenset({"QueryRetrieveLevel", "SpecificCharacterSet", "RetrieveAETitle", "InstanceAvailability"})


def _add_arguments(parser: ArgumentParser) -> None:
    add_peer_arguments(parser)
    add_key_arguments(parser)
    parser.add_argument("--limit", type=positive, metavar="N", help="stop after so many answers (exit status 3)")
    parser.add_argument("--json", action="store_true", help="print a JSON list with one mapping per answer")
    add_trail_arguments(parser)


def _run(arguments: Namespace, output: Output) -> ExitStatus:
    from airflow_provider_varian.aria.profile import profile_for
    from airflow_provider_varian.query.find import find
    from airflow_provider_varian.query.query import Query
    from airflow_provider_varian.retrieval.trail import Asking

    keys = parse_keys(arguments.keys)
    query = Query.build(level_of(arguments.level, keys), keys)
    peer = peer_from_arguments(arguments)
    with work_trail(arguments, peer) as trail, interruptible() as cancellation:
        found = find(
            peer,
            query,
            profile=profile_for(peer),
            limit=arguments.limit,
            cancellation=cancellation,
            on_query=Asking(trail),
        )
    # Warnings about the answer as a whole have been logged, and the log is on standard error.
    if found.limited:
        output.note(f"stopped after {len(found.answers)} answers, as --limit asked: there may be more")

    def show() -> None:
        if found.answers:
            output.table(_columns(keys, found.answers), found.answers)
        output.note(f"{len(found.answers)} found at {query.level} level")

    output.result(found.answers, show)
    if found.limited:
        return ExitStatus.INCOMPLETE
    return ExitStatus.DONE if found.answers else ExitStatus.NOTHING_FOUND


def _columns(keys: Iterable[str], answers: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what was asked for, in the order in which it was typed, then what else was answered."""
    answered = dict.fromkeys(keyword for answer in answers for keyword in answer if keyword not in _NOT_SHOWN)
    return list(dict.fromkeys([*keys, *answered]))


VERB: Final = Verb(
    name="find",
    summary="list what the peer holds (C-FIND); answers are compared again here",
    examples=_EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
)
