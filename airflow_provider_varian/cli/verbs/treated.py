"""``varian-dicom treated``: which plans were treated in some days?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_provider_varian.cli.peer_options import peer_from_arguments
from airflow_provider_varian.cli.recipes import add_day_arguments, add_recipe_arguments, asking, days_of, joined
from airflow_provider_varian.cli.verb import ExitStatus, Verb

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from airflow_provider_varian.cli.output import Output

_EXAMPLES: Final = """\
  varian-dicom treated --conn aria --from 2026-11-16 --to 2026-11-20
  varian-dicom treated --peer VMSDBD@aria-db:51402 --timezone Europe/Zurich --from 2026-11-20 --patient-ids --json
"""
_COLUMNS: Final = ("plan_uid", "days", "records", "machines")


def _add_arguments(parser: ArgumentParser) -> None:
    add_day_arguments(parser)
    parser.add_argument("--patient-ids", action="store_true", help="tell whose plans they are")
    add_recipe_arguments(parser)


def _run(arguments: Namespace, output: Output) -> ExitStatus:
    from airflow_provider_varian.aria.treated import find_treated

    peer = peer_from_arguments(arguments)
    window, zone = days_of(arguments, peer)
    with asking(arguments, peer) as (session, settings):
        found = find_treated(session, window, zone=zone, **settings)
    plans = [
        plan.to_json() | ({"patient_id": plan.patient_id} if arguments.patient_ids else {}) for plan in found.plans
    ]

    def show() -> None:
        if plans:
            columns = (*_COLUMNS, *(("patient_id",) if arguments.patient_ids else ()))
            output.table(
                columns, [plan | {name: joined(plan[name]) for name in ("days", "machines")} for plan in plans]
            )
        output.note(f"{len(plans)} plans of {len(found.patient_ids)} patients")

    output.result(plans, show)
    if found.undecided:
        # A plan may be missing for each of them.
        output.note(f"records of which it is not known of which plan they are, or of when: {len(found.undecided)}")
        for record in found.undecided:
            output.note(f"  {record.sop_instance_uid}: {record.reason}")
        return ExitStatus.INCOMPLETE
    return ExitStatus.DONE if plans else ExitStatus.NOTHING_FOUND


VERB: Final = Verb(
    name="treated",
    summary="list the plans that were treated in some days, by their treatment records",
    examples=_EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
)
