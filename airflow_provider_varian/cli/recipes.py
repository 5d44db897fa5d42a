"""What the verbs on ARIA's own terms share: a session with the peer, and days of the clinic."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_varian.cli.arguments import iso_date, time_zone
from airflow_provider_varian.cli.audit_options import add_trail_arguments, work_trail
from airflow_provider_varian.cli.interrupt import interruptible
from airflow_provider_varian.cli.peer_options import add_peer_arguments
from airflow_provider_varian.errors import ConfigurationError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterable, Iterator, Mapping
    from zoneinfo import ZoneInfo

    from airflow_provider_varian.dimse.peer import Peer
    from airflow_provider_varian.query.find import FindSession
    from airflow_provider_varian.query.window import Window


def add_recipe_arguments(parser: ArgumentParser) -> None:
    """Add the options of the peer, of the output and of the trail."""
    add_peer_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON list with one mapping per line of the table")
    add_trail_arguments(parser)


def add_day_arguments(parser: ArgumentParser) -> None:
    """Add the options that say which days of the clinic are meant."""
    group = parser.add_argument_group("days", "Of the clinic, both included.")
    group.add_argument("--from", dest="first_day", type=iso_date, required=True, metavar="DAY", help="e.g. 2026-11-16")
    group.add_argument("--to", dest="last_day", type=iso_date, metavar="DAY", help="default: the first day")
    group.add_argument(
        "--timezone",
        type=time_zone,
        metavar="ZONE",
        help="of the clinic, e.g. Europe/Zurich; else the connection's",
    )


def days_of(arguments: Namespace, peer: Peer) -> tuple[Window, ZoneInfo]:
    """Return the window that was typed, and the clinic's zone.

    :raises ConfigurationError: when no zone is known, or the last day lies before the first.
    """
    from airflow_provider_varian.query.window import clinic_zone, day_window

    zone = arguments.timezone or clinic_zone(peer.timezone)
    last = arguments.last_day or arguments.first_day
    if last < arguments.first_day:
        raise ConfigurationError("--to lies before --from", hint="Name the first day first")
    return day_window(arguments.first_day, last, zone), zone


@contextmanager
def asking(arguments: Namespace, peer: Peer) -> Iterator[tuple[FindSession, Mapping[str, Any]]]:
    """Open a session with the peer; what a recipe takes to be stopped by Ctrl-C comes beside it."""
    from airflow_provider_varian.aria.profile import profile_for
    from airflow_provider_varian.query.find import FindSession
    from airflow_provider_varian.retrieval.trail import Asking

    with (
        work_trail(arguments, peer) as trail,
        interruptible() as cancellation,
        FindSession(peer, profile=profile_for(peer), cancellation=cancellation, on_query=Asking(trail)) as session,
    ):
        yield session, {"cancellation": cancellation}


def joined(values: Iterable[object]) -> str:
    """Return several values as the text of one cell."""
    return " ".join(map(str, values))
