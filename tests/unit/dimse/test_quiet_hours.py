"""Quiet hours are the clinic's wall clock, whatever that does, and whoever meets them waits (semantics 1 and 4)."""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from support.ports import free_port
from support.quiet import AFTER, BEFORE, QUIET, WITHIN, Clock

from airflow_provider_varian.dimse import contexts, quiet_hours
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.available import ensure_available
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.check import check
from airflow_provider_varian.dimse.echo import echo, echo_peer
from airflow_provider_varian.dimse.lasting import LastingAssociation
from airflow_provider_varian.dimse.quiet_hours import await_past, covers_week, end_of_quiet, quiet_until
from airflow_provider_varian.dimse.turn import BY_HAND
from airflow_provider_varian.errors import CancelledError, ConfigurationError

ZURICH = "Europe/Zurich"
ARIA = {"daily": ["03:50-04:30"], "sunday": ["00:00-01:45"]}


def at(text, timezone=ZURICH, fold=0):
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(timezone), fold=fold)


def end(text, windows, timezone=ZURICH, fold=0):
    """Return the end as its wall clock shows it, with the offset."""
    until = end_of_quiet(at(text, timezone, fold), windows, timezone)
    return until.isoformat(timespec="minutes") if until else None


@pytest.mark.parametrize(
    ("instant", "until"),
    [
        ("2026-11-21T03:49:59.999999", None),
        ("2026-11-21T03:50", "2026-11-21T04:30+01:00"),
        ("2026-11-21T04:29:59.999999", "2026-11-21T04:30+01:00"),
        ("2026-11-21T04:30", None),
        ("2026-11-21T00:30", None),  # a Saturday
        ("2026-11-22T00:30", "2026-11-22T01:45+01:00"),  # a Sunday
        ("2026-11-22T03:55", "2026-11-22T04:30+01:00"),  # which has the daily ones too
    ],
)
def test_a_window_holds_on_its_days_from_its_beginning_to_before_its_end(instant, until):
    assert end(instant, ARIA) == until


def test_the_wall_clock_is_the_clinics_and_not_utc():
    assert quiet_hours.end_of_quiet(datetime(2026, 7, 1, 2, 0, tzinfo=UTC), ARIA, ZURICH) is not None  # 04:00 there
    assert quiet_hours.end_of_quiet(datetime(2026, 7, 1, 4, 0, tzinfo=UTC), ARIA, ZURICH) is None


@pytest.mark.parametrize(
    ("instant", "until"),
    [
        ("2026-11-20T21:59", None),
        ("2026-11-20T22:00", "2026-11-21T02:00+01:00"),
        ("2026-11-21T01:59", "2026-11-21T02:00+01:00"),
        ("2026-11-21T02:00", None),
        ("2026-11-21T22:30", None),  # it begins on Fridays only
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins(instant, until):
    assert end(instant, {"friday": ["22:00-02:00"]}) == until


def test_the_end_of_one_inside_another_goes_on():
    windows = {"saturday": ["20:00-24:00", "21:00-22:00"], "sunday": ["00:00-01:00", "00:30-03:00", "03:00-04:00"]}
    assert end("2026-11-21T20:30", windows) == "2026-11-22T04:00+01:00"
    # The short window inside a long one does not end it.
    assert end("2026-11-21T21:30", {"saturday": ["20:00-23:00", "21:00-22:00"]}) == "2026-11-21T23:00+01:00"


def test_a_whole_day_and_almost_a_whole_week():
    assert end("2026-11-22T12:00", {"sunday": ["00:00-24:00"]}) == "2026-11-23T00:00+01:00"
    days = {day: ["00:00-24:00"] for day in quiet_hours.WEEKDAYS}
    days["monday"] = ["00:01-24:00"]
    assert end("2026-11-23T00:01", days) == "2026-11-30T00:00+01:00"
    assert end("2026-11-23T00:00", days) is None
    assert not covers_week(days)
    assert covers_week(days | {"sunday": ["00:00-00:01", "00:01-24:00"], "monday": ["00:00-24:00"]})


def test_the_hour_that_comes_twice_is_quiet_both_times():
    # 2026-10-25: 03:00 CEST becomes 02:00 CET.
    windows = {"daily": ["02:15-02:45"]}
    assert end("2026-10-25T02:14", windows) is None
    assert end("2026-10-25T02:15", windows) == "2026-10-25T02:45+01:00"
    assert end("2026-10-25T02:30", windows, fold=1) == "2026-10-25T02:45+01:00"
    assert end("2026-10-25T02:45", windows, fold=1) is None
    assert end("2026-10-26T02:50", windows) is None  # a day like others


def test_an_hour_that_does_not_come_takes_no_window_away():
    # 2026-03-29: 02:00 CET becomes 03:00 CEST. A service that restarts at 02:30 does so at 03:30 or not at all.
    windows = {"daily": ["02:15-02:45"]}
    assert end("2026-03-29T03:30", windows) == "2026-03-29T03:45+02:00"
    assert end("2026-03-29T03:45", windows) is None
    # One that is only begun, or only ended, in the hour that is left out.
    assert end("2026-03-29T03:10", {"daily": ["02:30-03:15"]}) == "2026-03-29T03:15+02:00"
    assert end("2026-03-29T01:40", {"daily": ["01:30-02:30"]}) == "2026-03-29T03:30+02:00"
    # Over it, the wall clock counts: the window is an hour shorter.
    until = end_of_quiet(at("2026-03-29T00:00"), {"daily": ["00:00-06:00"]}, ZURICH)
    assert until.astimezone(UTC) - at("2026-03-29T00:00").astimezone(UTC) == timedelta(hours=5)


def test_a_zone_in_which_midnight_is_left_out():
    # Beirut, 2026-03-29: 00:00 becomes 01:00.
    windows = {"sunday": ["00:00-00:30"], "saturday": ["23:00-24:00"]}
    assert end("2026-03-28T23:30", windows, "Asia/Beirut") == "2026-03-29T01:30+03:00"


# ---------------------------------------------------------------------------------------------------- waiting


def test_a_task_waits_until_they_are_over_and_says_until_when_once(scp, peer_at, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "airflow_provider_varian")
    clock = Clock(monkeypatch, WITHIN)
    clock.over_after(6)
    waited = []
    port = scp()
    peer = peer_at(port, **QUIET)
    with associate(peer, contexts.verification(), step="C-ECHO", on_wait=waited.append) as association:
        assert clock.now == AFTER
        echo(association)
    assert clock.looks > 3
    assert waited[0] > 0
    said = [record.getMessage() for record in caplog.records if "uiet" in record.getMessage()]
    assert said == [f"Quiet hours of VMSDBD@127.0.0.1:{port}: waiting until 2026-11-21 04:00 (UTC)"]


def test_nobody_waits_before_or_after_or_without_them(scp, peer_at, monkeypatch):
    port = scp()
    clock = Clock(monkeypatch, BEFORE)
    echo_peer(peer_at(port, **QUIET))
    clock.now = AFTER
    echo_peer(peer_at(port, **QUIET))
    clock.now = WITHIN
    echo_peer(peer_at(port))
    assert clock.looks == 0


def test_the_wait_can_be_cancelled(peer_at, monkeypatch):
    Clock(monkeypatch, WITHIN)
    cancellation = Cancellation()
    threading.Timer(0.1, cancellation.cancel).start()
    with pytest.raises(CancelledError):
        echo_peer(peer_at(1, **QUIET), cancellation=cancellation)


def test_quiet_hours_without_a_zone_are_refused(peer_at):
    with pytest.raises(ConfigurationError, match="Set timezone"):
        quiet_until(peer_at(1, quiet_hours=QUIET["quiet_hours"]))


def test_a_trigger_waits_without_a_thread(peer_at, monkeypatch):
    clock = Clock(monkeypatch, WITHIN)
    clock.over_after(6)
    asyncio.run(await_past(peer_at(1, **QUIET)))
    assert clock.now == AFTER


# ---------------------------------------------------------------------------------- those who ask and look on


def test_the_test_button_does_not_wait_and_says_that_it_is_quiet_time(scp, peer_at, monkeypatch, find_handler):
    Clock(monkeypatch, WITHIN)
    report = check(peer_at(scp([find_handler(0)]), **QUIET))
    assert report.ok
    assert "works" in report.summary
    assert "quiet time of this connection until 2026-11-21 04:00 (UTC): tasks wait" in report.summary


def test_the_test_button_says_so_too_when_the_peer_is_down(peer_at, monkeypatch):
    Clock(monkeypatch, WITHIN)
    report = check(peer_at(free_port(), **QUIET))
    assert not report.ok
    assert "TCP connection failed" in report.summary
    assert "may be down on purpose" in report.summary


def test_outside_of_them_the_test_button_says_nothing(scp, peer_at, monkeypatch, find_handler):
    Clock(monkeypatch, AFTER)
    assert "quiet" not in check(peer_at(scp([find_handler(0)]), **QUIET)).summary


def test_who_asks_by_hand_does_not_wait(scp, peer_at, monkeypatch, find_handler):
    Clock(monkeypatch, WITHIN)
    peer = peer_at(scp([find_handler(0)]), request_pause_seconds=3600, **QUIET)
    echo_peer(peer, patience=BY_HAND)
    ensure_available(peer, patience=BY_HAND)


# ------------------------------------------------------------------------------------- between two requests


def test_an_association_is_released_while_they_last_and_another_one_goes_on(scp, peer_at, monkeypatch):
    from pynetdicom import evt

    seen, released = [], threading.Event()
    clock = Clock(monkeypatch, BEFORE)

    def on_release(_):
        seen.append(("released", clock.now))
        released.set()
        clock.over_after(3)

    port = scp([(evt.EVT_ACCEPTED, lambda _: seen.append(("opened", clock.now))), (evt.EVT_RELEASED, on_release)])
    with LastingAssociation(peer_at(port, **QUIET), contexts.verification(), step="C-ECHO") as lasting:
        first = lasting.next()
        echo(first)
        assert lasting.next() is first
        clock.now = WITHIN
        second = lasting.next()
        echo(second)
        assert second is not first
        assert not first.assoc.is_established
    assert seen[:3] == [("opened", BEFORE), ("released", WITHIN), ("opened", AFTER)]


def test_an_association_that_cannot_be_had_again_ends_the_block_with_the_reason(scp, peer_at, monkeypatch):
    clock = Clock(monkeypatch, BEFORE)
    cancellation = Cancellation()
    peer = peer_at(scp(), **QUIET)
    with LastingAssociation(peer, contexts.verification(), step="C-ECHO", cancellation=cancellation) as lasting:
        clock.now = WITHIN
        threading.Timer(0.1, cancellation.cancel).start()
        with pytest.raises(CancelledError):
            lasting.next()
