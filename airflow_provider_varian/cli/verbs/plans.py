"""``varian-dicom plans``: which plans has a patient?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_provider_varian.cli.peer_options import peer_from_arguments
from airflow_provider_varian.cli.recipes import add_recipe_arguments, asking
from airflow_provider_varian.cli.verb import ExitStatus, Verb

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from airflow_provider_varian.cli.output import Output

_EXAMPLES: Final = """\
  varian-dicom plans --conn aria --patient QA_TB_WL
  varian-dicom plans --peer VMSDBD@aria-db:51402 --patient QA_TB_WL --course QA --approval APPROVED --json
"""
_COLUMNS: Final = ("label", "course", "approval_status", "intent", "plan_date", "sop_instance_uid")


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--patient", required=True, metavar="ID", help="Patient ID, exact")
    parser.add_argument("--label", help="RT Plan Label, exact and as long as it is")
    parser.add_argument("--course", metavar="ID", help="Course ID: labels are unique inside a course at most")
    parser.add_argument("--approval", metavar="STATUS", help="APPROVED, UNAPPROVED or REJECTED")
    parser.add_argument("--intent", metavar="INTENT", help="Plan Intent, e.g. CURATIVE or VERIFICATION")
    add_recipe_arguments(parser)


def _run(arguments: Namespace, output: Output) -> ExitStatus:
    from airflow_provider_varian.aria.plans import list_plans, select_plans

    # Warnings about a list have been logged, and the log is on standard error; so in the other recipes.
    with asking(arguments, peer_from_arguments(arguments)) as (session, _):
        plans, _ = list_plans(session, arguments.patient)
    wanted = {name: getattr(arguments, name) for name in ("label", "course", "approval", "intent")}
    found = [plan.to_json() for plan in select_plans(plans, **wanted)]

    def show() -> None:
        if found:
            output.table(_COLUMNS, found)
        output.note(f"{len(found)} of the patient's {len(plans)} plans")

    output.result(found, show)
    return ExitStatus.DONE if found else ExitStatus.NOTHING_FOUND


VERB: Final = Verb(
    name="plans",
    summary="list the plans of a patient; label, course, approval and intent are compared here",
    examples=_EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
)
