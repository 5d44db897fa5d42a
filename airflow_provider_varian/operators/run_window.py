"""Which days a run lists and judges: Airflow's run in the clinic's time."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from airflow_provider_varian.errors import ConfigurationError

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from airflow_provider_varian.query.window import RunWindow


def run_window_of(
    run: Any,
    zone: ZoneInfo,
    *,
    first_day: str | date | None = None,
    last_day: str | date | None = None,
    lookback_days: int,
) -> RunWindow:
    """Return what a run lists and judges (semantics 2 and 3).

    Days that somebody gave come first, then the run's data interval, then the 24 hours before ``run_after``: a run
    without a logical date (from the API, an asset, or the form) has no data interval, and no ``ds`` either.

    :param run: Airflow's run, ``dag_run`` of the context.
    :param zone: the clinic's zone.
    :param first_day: first day, ISO text or a date; empty text counts as not given.
    :param last_day: last day; the same.
    :param lookback_days: days before that are listed and judged again.
    :raises ConfigurationError: when a day cannot be read.
    :raises QueryError: when the interval is empty.
    """
    from airflow_provider_varian.query.window import run_window

    return run_window(
        zone,
        data_interval_start=run.data_interval_start,
        data_interval_end=run.data_interval_end,
        run_after=run.run_after,
        first_day=_day("first_day", first_day),
        last_day=_day("last_day", last_day),
        lookback_days=lookback_days,
    )


def _day(name: str, value: str | date | None) -> date | None:
    if value is None or isinstance(value, date):
        return value
    text = value.strip()
    # What a template makes of a form field that was left empty.
    if text in ("", "None"):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{name} is {text!r}", hint="Write a day as YYYY-MM-DD.") from None
