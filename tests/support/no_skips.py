"""CI skips nothing: with ``CI=true`` a test that skips itself has failed, and so has a module of them."""

from __future__ import annotations

import os

import pytest


def _judge(report: pytest.TestReport | pytest.CollectReport, *, is_expected: bool = False) -> None:
    if report.skipped and not is_expected and os.environ.get("CI") == "true":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"CI skips nothing, and this was: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    _judge(report, is_expected=hasattr(report, "wasxfail"))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    _judge(report)
    return report
