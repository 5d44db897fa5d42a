"""``varian-dicom rt-images``: which RT Images were acquired in some days?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow_provider_varian.cli.peer_options import peer_from_arguments
from airflow_provider_varian.cli.recipes import add_day_arguments, add_recipe_arguments, asking, days_of
from airflow_provider_varian.cli.verb import ExitStatus, Verb
from airflow_provider_varian.errors import ConfigurationError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from airflow_provider_varian.aria.plans import PlanRef
    from airflow_provider_varian.aria.rt_images import RTImage
    from airflow_provider_varian.cli.output import Output
    from airflow_provider_varian.query.find import FindSession

_EXAMPLES: Final = """\
  varian-dicom rt-images --conn aria --from 2026-11-20 --patient QA_TB_WL --plan WL_10MV --kind portal --energy mv
  varian-dicom rt-images --conn aria --from 2026-11-16 --to 2026-11-20 --machine TrueBeam1 --json
"""
_COLUMNS: Final = ("acquired", "machine", "beam_number", "energy", "image_type", "label", "sop_instance_uid")
_ENERGIES: Final = {True: "kV", False: "MV", None: ""}


def _add_arguments(parser: ArgumentParser) -> None:
    add_day_arguments(parser)
    group = parser.add_argument_group("images", "Without more: of the whole clinic.")
    group.add_argument("--patient", metavar="ID", help="Patient ID, exact; with --plan")
    group.add_argument("--plan", metavar="LABEL", help="of the patient's plan of this label alone")
    group.add_argument("--course", metavar="ID", help="Course ID of that plan, where several bear the label")
    group.add_argument("--machine", metavar="NAME", help="of this machine alone")
    group.add_argument(
        "--kind", default="any", choices=("portal", "portal_dose", "predicted", "drr", "any"), help="default: any"
    )
    group.add_argument("--energy", default="any", choices=("mv", "kv", "any"), help="default: any")
    add_recipe_arguments(parser)


def _run(arguments: Namespace, output: Output) -> ExitStatus:
    from airflow_provider_varian.aria.rt_images import find_rt_images

    if bool(arguments.patient) is not bool(arguments.plan) or (arguments.course and not arguments.plan):
        raise ConfigurationError(
            "--patient, --plan and --course name a plan together", hint="Give --patient and --plan, or neither"
        )
    peer = peer_from_arguments(arguments)
    window, zone = days_of(arguments, peer)
    with asking(arguments, peer) as (session, settings):
        images, _ = find_rt_images(
            session,
            window,
            plan=_plan(session, arguments),
            machine=arguments.machine,
            kind=arguments.kind,
            energy=arguments.energy,
            zone=zone,
            **settings,
        )

    def show() -> None:
        if images:
            output.table(_COLUMNS, [_row(image) for image in images])
        output.note(f"{len(images)} RT Images")

    output.result([image.to_json() for image in images], show)
    if unclear := sum(1 for image in images if image.undecided):
        output.note(f"of {unclear} of them the peer does not answer all that decides: their objects tell")
    return ExitStatus.DONE if images else ExitStatus.NOTHING_FOUND


def _plan(session: FindSession, arguments: Namespace) -> PlanRef | None:
    from airflow_provider_varian.aria.plans import list_plans, one_plan

    if not arguments.plan:
        return None
    plans, _ = list_plans(session, arguments.patient)
    return one_plan(plans, label=arguments.plan, course=arguments.course, peer=session.peer.name)


def _row(image: RTImage) -> dict[str, Any]:
    return {
        "acquired": str(image.acquired or image.acquisition_date or ""),
        "machine": image.machine,
        "beam_number": image.beam_number,
        "energy": _ENERGIES[image.kv],
        "image_type": "\\".join(image.image_type or ()),
        "label": image.label,
        "sop_instance_uid": image.sop_instance_uid,
    }


VERB: Final = Verb(
    name="rt-images",
    summary="list the RT Images of a plan, a machine or the whole clinic that were acquired in some days",
    examples=_EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
)
