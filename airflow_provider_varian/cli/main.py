"""Entry point of ``varian-dicom``: parse, run the verb, turn errors into a message and an exit status.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 partial, short or limited, 4 nothing found.
"""

from __future__ import annotations

import logging
import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from airflow_provider_varian import __version__
from airflow_provider_varian.cli.output import Output, printable
from airflow_provider_varian.cli.peer_options import as_options
from airflow_provider_varian.cli.verb import ExitStatus, Verb
from airflow_provider_varian.cli.verbs import (
    echo,
    find,
    move,
    plans,
    receive,
    report,
    retrieve,
    rt_images,
    simulate,
    store,
    treated,
)
from airflow_provider_varian.errors import (
    ConfigurationError,
    DicomError,
    EmptyResultError,
    IncompleteRetrievalError,
    NotFoundError,
    QueryError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

VERBS: Final[tuple[Verb, ...]] = (
    echo.VERB,
    find.VERB,
    plans.VERB,
    treated.VERB,
    rt_images.VERB,
    retrieve.VERB,
    move.VERB,
    store.VERB,
    receive.VERB,
    report.VERB,
    simulate.VERB,
)

_EXIT_STATUS_OF_ERROR: Final[tuple[tuple[type[DicomError], ExitStatus], ...]] = (
    (ConfigurationError, ExitStatus.WRONG_USAGE),
    (QueryError, ExitStatus.WRONG_USAGE),
    (IncompleteRetrievalError, ExitStatus.INCOMPLETE),
    (EmptyResultError, ExitStatus.NOTHING_FOUND),
    (NotFoundError, ExitStatus.NOTHING_FOUND),
    (DicomError, ExitStatus.FAILED),
)

_SAY_WHAT_IS_WAITED_FOR: Final = ("airflow_provider_varian.dimse.turn", "airflow_provider_varian.dimse.quiet_hours")

_EPILOG = """\
exit status: 0 done, 1 failed, 2 wrong usage, 3 partial, short or limited, 4 nothing found

Not affiliated with or endorsed by Varian. Not a medical device.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status.

    :param argv: the arguments without the program's name; default: those of the process.
    """
    arguments, unknown = parser().parse_known_args(argv)
    if unknown:
        arguments.refuse(_about_unknown(unknown[0], takes_keys=hasattr(arguments, "keys")))
    verb: Verb = arguments.verb
    output = Output(as_json=getattr(arguments, "json", False))
    try:
        with _logging(verb, verbose=arguments.verbose):
            return verb.run(arguments, output)
    except DicomError as error:
        # Where the peer is a connection, its fields are what there is to change.
        options = as_options(error.hint) if getattr(arguments, "peer", None) else ""
        told = f"{str(error).removesuffix('.')}. On the command line {options}" if options else str(error)
        output.note(f"varian-dicom {verb.name}: {told}")
        return next(status for kind, status in _EXIT_STATUS_OF_ERROR if isinstance(error, kind))
    except KeyboardInterrupt:
        output.note(f"varian-dicom {verb.name}: interrupted")
        return ExitStatus.FAILED
    except BrokenPipeError:
        # The reader has gone, as in `varian-dicom find ... | head`: nobody is left to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.FAILED


class _OneSafeLine(logging.Formatter):
    """What is logged may quote a peer: a terminal must obey none of it.

    :param with_time: begin with the time.
    """

    def __init__(self, *, with_time: bool) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S%z")
        self._with_time = with_time

    def format(self, record: logging.LogRecord) -> str:
        time = f"{self.formatTime(record, self.datefmt)} " if self._with_time else ""
        return printable(f"{time}{record.levelname.lower()}: {record.getMessage()}")


class _OnceAMinute(logging.Filter):
    """Leaves out a line that was written lately: a peer that does the same wrong thing for ever fills no disk."""

    def __init__(self) -> None:
        from airflow_provider_varian.receiver.once import Once

        super().__init__()
        self._said = Once(again_seconds=60.0)

    def filter(self, record: logging.LogRecord) -> bool:
        return self._said.first(record.name, record.getMessage())


@contextmanager
def _logging(verb: Verb, *, verbose: bool) -> Iterator[None]:
    """Log what is ours to standard error, for as long as the verb runs."""
    # Ours alone: the libraries below log what we say better, and at DEBUG what peers send.
    ours = logging.getLogger("airflow_provider_varian")
    before = ours.handlers, ours.level, ours.propagate
    # Airflow, once imported for --conn, shows what pynetdicom says at INFO.
    theirs = logging.getLogger("pynetdicom")
    their_level = theirs.level
    # What goes wrong with a single association of a verb that stands is told by ourselves.
    theirs.setLevel(logging.CRITICAL if verb.stands else logging.ERROR)
    handler = logging.StreamHandler(sys.stderr)
    # systemd's journal sets the variable, and puts the time in front by itself.
    handler.setFormatter(_OneSafeLine(with_time=verb.stands and "JOURNAL_STREAM" not in os.environ))
    if verb.stands:
        handler.addFilter(_OnceAMinute())
    # Airflow, once imported for --conn, would say everything a second time.
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(logging.DEBUG if verbose else logging.INFO if verb.stands else logging.WARNING)
    # Who looks on has to know what a verb waits for.
    for name in _SAY_WHAT_IS_WAITED_FOR:
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)
    try:
        yield
    finally:
        ours.handlers, ours.propagate = before[0], before[2]
        ours.setLevel(before[1])
        for name in _SAY_WHAT_IS_WAITED_FOR:
            logging.getLogger(name).setLevel(logging.NOTSET)
        theirs.setLevel(their_level)


def parser() -> ArgumentParser:
    """Return the parser with all verbs."""
    root = ArgumentParser(
        prog="varian-dicom",
        description="Talk to a Varian ARIA DICOM DB Daemon, or to any other DICOM archive.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    root.add_argument("--version", action="version", version=f"varian-dicom {__version__}")
    subparsers = root.add_subparsers(metavar="VERB", required=True, title="verbs")
    for verb in VERBS:
        sub = subparsers.add_parser(
            verb.name,
            help=verb.summary,
            description=verb.summary[0].upper() + verb.summary[1:] + ".",
            epilog="examples:\n" + verb.examples,
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        verb.add_arguments(sub)
        sub.add_argument("-v", "--verbose", action="store_true", help="log what happens on the way")
        sub.set_defaults(verb=verb, refuse=sub.error)
    return root


def _about_unknown(typed: str, *, takes_keys: bool) -> str:
    """Say what is wrong with an argument that nobody knows; what is no option may be a patient's ID or name."""
    name, equals, _ = typed.partition("=")
    if name.startswith("-"):
        return f"{name} is no option of this verb"
    if equals and takes_keys:
        return "a key has to follow -k: write -k PatientID=..."
    return "there is an argument too many, which is no option; it is not repeated, since it may name a patient"
