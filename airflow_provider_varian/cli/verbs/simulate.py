"""``varian-dicom simulate``: a made-up ARIA behind a DB Daemon, to try things without one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from airflow_provider_varian.cli.arguments import iso_date, not_negative, port_number, positive, share, time_zone
from airflow_provider_varian.cli.verb import ExitStatus, Verb

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from airflow_provider_varian.cli.output import Output

_EXAMPLES: Final = """\
  varian-dicom simulate --ae-title VMSDBD --port 51402 --trust AIRFLOW@127.0.0.1:11112
  varian-dicom simulate --port 0 --trust AIRFLOW@127.0.0.1:11112 --days 7 --matrix 256 --get
  varian-dicom simulate --trust AIRFLOW@127.0.0.1:11112 --data my-dicom-files --quirk row_limit=100
  varian-dicom simulate --trust AIRFLOW@127.0.0.1:11112 --fault abort@after-suboperation:at=3,times=2
"""


#: Value of ``--quirk`` and ``--fault`` that lists what there is.
_HELP: Final = "help"


def _add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--ae-title", default="VMSDBD", metavar="AET", help="AE title of the daemon; default: %(default)s")
    add("--host", default="127.0.0.1", help="address to listen on; default: %(default)s, this machine only")
    add("--port", type=port_number, default=51402, help="port to listen on, 0 for a free one; default: %(default)s")
    add(
        "--trust",
        action="append",
        default=[],
        metavar="AET@HOST:PORT",
        help="a trusted entity: who may call, and the port that C-MOVE to it sends to; repeatable",
    )
    add("--get", action="store_true", help="offer C-GET, as newer daemons do")
    add("--data", type=Path, metavar="DIR", help="serve the DICOM files in this folder instead of the clinic")
    add(
        "--import",
        dest="imports",
        type=Path,
        metavar="DIR",
        help="keep what clients store in this folder, and serve what it holds; default: in memory",
    )
    add("--seed", type=not_negative, default=1, metavar="N", help="makes another clinic; default: %(default)s")
    add("--patients", type=not_negative, default=10, metavar="N", help="clinical patients; default: %(default)s")
    add("--days", type=positive, default=30, metavar="N", help="days with machine QA, to 3660; default: %(default)s")
    add("--until", type=iso_date, metavar="DATE", help="the last of them, YYYY-MM-DD; default: today, moving on")
    add("--missing-sessions", type=share, default=0.0, metavar="SHARE", help="machines' days without QA, from 0 to 1")
    add("--late-sessions", type=share, default=0.0, metavar="SHARE", help="QA that is in ARIA 2 to 48 hours later")
    add(
        "--matrix",
        type=positive,
        default=1280,
        metavar="N",
        help="rows and columns of portal images, 32 to 4096; default: %(default)s. CT has 2/5 of them, dose 1/10",
    )
    add("--timezone", type=time_zone, default="UTC", metavar="ZONE", help="of the clinic; default: %(default)s")
    add(
        "--quirk",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a habit that differs from the usual, repeatable; `--quirk help` lists them",
    )
    add(
        "--fault",
        action="append",
        default=[],
        metavar="KIND@STEP[:NAME=VALUE,...]",
        help="something that goes wrong, once or times=N (0: always), at=N; repeatable; `--fault help` lists them",
    )


def _explain(output: Output, *, quirks: bool, faults: bool) -> None:
    """Print the switches, the faults, or both, as they are set on the command line."""
    from airflow_provider_varian.simulator.clinic.irregularities import Irregularity
    from airflow_provider_varian.simulator.daemon.behaviour import habits
    from airflow_provider_varian.simulator.daemon.faults import FAULT_KINDS
    from airflow_provider_varian.simulator.daemon.settings_text import written

    if quirks:
        output.table(
            ("quirk", "default", "meaning"),
            [{"quirk": each.name, "default": written(each.name, each.default), "meaning": each.meaning}
             for each in habits()],
        )  # fmt: skip
        output.line("")
        output.table(
            ("irregularities", "meaning"),
            [{"irregularities": each.value, "meaning": each.meaning} for each in Irregularity],
        )
    if faults:
        output.table(
            ("fault", "at the steps", "settings", "meaning"),
            [{"fault": each.kind, "at the steps": ", ".join(each.steps), "meaning": each.meaning,
              "settings": ", ".join(("at", "times", "service", *each.settings))}
             for each in FAULT_KINDS],
        )  # fmt: skip


def _run(arguments: Namespace, output: Output) -> ExitStatus:
    from airflow_provider_varian.simulator.clinic.sessions import Punctuality
    from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
    from airflow_provider_varian.simulator.daemon.faults import Fault
    from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
    from airflow_provider_varian.simulator.run import SimulatorOptions, run

    if _HELP in arguments.quirk or _HELP in arguments.fault:
        _explain(output, quirks=_HELP in arguments.quirk, faults=_HELP in arguments.fault)
        return ExitStatus.DONE
    habits = (["get=on"] if arguments.get else []) + arguments.quirk
    options = SimulatorOptions(
        ae_title=arguments.ae_title.strip(" "),
        host=arguments.host,
        port=arguments.port,
        trusted=tuple(TrustedEntity.parse(entity) for entity in arguments.trust),
        seed=arguments.seed,
        patients=arguments.patients,
        days=arguments.days,
        until=arguments.until,
        punctuality=Punctuality(missing=arguments.missing_sessions, late=arguments.late_sessions),
        matrix=arguments.matrix,
        timezone=arguments.timezone,
        data=arguments.data,
        imports=arguments.imports,
        behaviour=Behaviour().with_settings(habits),
        faults=tuple(Fault.parse(fault) for fault in arguments.fault),
    )
    if not options.trusted:
        output.note("nobody is trusted yet: add --trust AET@HOST:PORT")
    run(options, output.line)
    return ExitStatus.DONE


VERB: Final = Verb(
    name="simulate",
    summary="serve a made-up clinic as a DB Daemon would, until stopped by Ctrl-C or SIGTERM",
    examples=_EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
)
