"""``varian-dicom receive``: a receiver that stands, for retrievals on this machine and on others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_provider_varian.cli.receiver_options import add_receiver_arguments, settings_from_arguments
from airflow_provider_varian.cli.receiver_services import add_service_arguments, services_from_arguments
from airflow_provider_varian.cli.verb import ExitStatus, Verb

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from airflow_provider_varian.cli.output import Output

_EXAMPLES: Final = """\
  varian-dicom receive --ae-title AIRFLOW --allow-from 10.1.2.3 --spool /srv/dicom-spool
  varian-dicom receive --host 127.0.0.1 --port 0 --spool spool
  varian-dicom receive --spool /srv/dicom-spool \\
      --ae-title AIRFLOW --allow-from 10.1.0.0/16 --ae-title RESEARCH --allow-from 10.2.7.1 --allow-calling PACS
  varian-dicom receive --allow-from 10.1.2.3 --spool /srv/dicom-spool --health-port 9464 --publish s3://bucket/arrivals
"""


def _add_arguments(parser: ArgumentParser) -> None:
    add_receiver_arguments(parser)
    add_service_arguments(parser)


def _run(arguments: Namespace, output: Output) -> ExitStatus:
    from airflow_provider_varian.receiver.observer import observers
    from airflow_provider_varian.receiver.standing import StandingReceiver, run

    settings = settings_from_arguments(arguments)
    beside = services_from_arguments(arguments, settings)
    receiver = StandingReceiver(settings, observer=observers(*beside.observers))
    run(receiver, output.line, services=beside.services, probes=beside.probes(receiver))
    return ExitStatus.DONE


VERB: Final = Verb(
    name="receive",
    summary="take what peers send into a spool, from which retrievals claim it, until stopped by Ctrl-C or SIGTERM",
    examples=_EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
    stands=True,
)
