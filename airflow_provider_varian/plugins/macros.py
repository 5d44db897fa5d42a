"""Dates for templates, as the clinic has them: ``{{ macros.varian_dicom.date_range(dag_run, 'Europe/Zurich') }}``.

``ds`` is a day in UTC, and a run without a logical date (by the form, the API, an asset) has none: a query that is
made of it asks for the wrong day near midnight, or fails. These go by the rule of the dated recipes (semantics 2).
"""

from __future__ import annotations

from typing import Any


def date_range(dag_run: Any, timezone: str, lookback_days: int = 0) -> str:
    """Return the days that a run covers, as a key of DICOM's dates (DA): ``20261119``, or ``20261118-20261119``.

    A peer is asked by whole days (PS3.4 C.2.2.2.5): what lies on the first or the last of them, but outside of the
    run's interval, is among the answers.

    :param dag_run: the run, ``dag_run`` in a template.
    :param timezone: the clinic's zone, an IANA name; e.g. the connection's,
        ``conn.aria.extra_dejson.timezone``.
    :param lookback_days: days before that are asked for too, since data reaches an archive late.
    :raises AirflowFailException: not to be retried, when the zone is unknown, the run's interval is empty, or
        ``lookback_days`` is no number of days.
    """
    from airflow_provider_varian.operators.base import failing_fast
    from airflow_provider_varian.operators.run_window import run_window_of
    from airflow_provider_varian.query.window import clinic_zone, date_range_key

    with failing_fast():
        zone = clinic_zone(timezone)
        return date_range_key(run_window_of(dag_run, zone, lookback_days=lookback_days).window, zone)


def run_day(dag_run: Any, timezone: str) -> str:
    """Return the clinic's day that a run is of, the one on which its data interval ends: ``2026-11-19``.

    :param dag_run: the run, ``dag_run`` in a template.
    :param timezone: the clinic's zone, an IANA name.
    :raises AirflowFailException: not to be retried, when the zone is unknown or the run's interval is empty.
    """
    from airflow_provider_varian.operators.base import failing_fast
    from airflow_provider_varian.operators.run_window import run_window_of
    from airflow_provider_varian.query.window import clinic_zone

    with failing_fast():
        return run_window_of(dag_run, clinic_zone(timezone), lookback_days=0).run_day.isoformat()
