"""Why an instance did not come, in words: what was done for it, and what the peer said (prior-art 2, 13).

A final status is about a whole request, and counts name nobody. What is told of an instance is therefore the answer
to the last request that asked for it, unless the peer has named it as failed: that says more than a success after it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import MappingProxyType
from typing import Final, Literal

from airflow_provider_varian.dimse import status
from airflow_provider_varian.retrieval.ledger import Ledger
from airflow_provider_varian.retrieval.manifest import RequestReport
from airflow_provider_varian.retrieval.outcome import State

#: Counts of sub-operations, as they are told.
_COUNTS: Final = ("completed", "failed", "warning")
_TIMES: Final = MappingProxyType({1: "once", 2: "twice"})


class Reasons:
    """Keeps, for each instance that does not come, what the peer said about it.

    :param ledger: where the words go.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._named: set[str] = set()

    def note(self, report: RequestReport, lacking: Collection[str]) -> None:
        """Remember the answer to a request for the instances that it did not bring.

        :param report: what the peer reported.
        :param lacking: SOP Instance UIDs of what is outstanding after it.
        """
        failed = set(report.failed_sop_instance_uids)
        for uid in lacking:
            entry = self._ledger.entries[uid]
            if entry.state is not State.FOUND:
                continue  # it came, and is not well formed: that is the reason
            if uid in failed:
                self._named.add(uid)
                entry.reason = f"the peer names it as failed: {_answer(report)}"
            elif uid not in self._named:
                entry.reason = f"the peer's answer: {_answer(report)}"


def judge_missing(ledger: Ledger, *, otherwise: str = "", held: Callable[[str], str] = lambda uid: "") -> None:
    """Call *missing* what was found and has not come, and say why; at the end of a retrieval.

    :param ledger: the account.
    :param otherwise: why an instance was not even asked for.
    :param held: says, by SOP Instance UID, which version is here all the same; empty for none.
    """
    for entry in ledger.entries.values():
        if entry.state is State.FOUND:
            entry.state = State.MISSING
            parts = (held(entry.sop_instance_uid), _asked(entry.attempts), entry.reason or otherwise)
            entry.reason = "; ".join(part for part in parts if part)


def _asked(times: int) -> str:
    if not times:
        return "never asked for"
    return f"asked for {_TIMES.get(times) or f'{times} times'}, never came"


def _answer(report: RequestReport) -> str:
    if report.status is None:
        return f"none, {report.problem or 'the request was not finished'}"
    service: Literal["C-GET", "C-MOVE"] = "C-GET" if report.method == "C-GET" else "C-MOVE"
    counts = [f"{count} {name}" for name in _COUNTS if (count := getattr(report, name)) is not None]
    return f"{status.describe(service, report.status)}, {', '.join(counts) if counts else 'without counts'}"
