"""What a try has asked for, and how narrowly: it is kept over a wait that somebody else does (:mod:`..waiting`).

Whoever goes on after such a wait must not ask for the same again in the same way: the peer would send it twice, and a
peer that sends late would be asked for ever. Only narrower requests may follow, as they would have without the wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from airflow_provider_varian.query.level import Level
from airflow_provider_varian.retrieval.earlier import is_unfinished
from airflow_provider_varian.retrieval.ledger import Ledger
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.plan import Ask, Stage
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.waiting import QuietHours, Try, Waiting

#: Where the account is in :attr:`.manifest.Manifest.waiting`.
_ASKED: Final = "asked"
#: And which try it is of.
_TRY: Final = "try"


class Asked:
    """The account of one try: what was asked for before the wait, and since.

    :param before: as :meth:`to_json` returned it; ``None`` when the try is not one that goes on.
    """

    def __init__(self, before: Mapping[str, Any] | None = None) -> None:
        self._before: dict[str, dict[str, Stage]] = {
            verb: {uid: Stage[name] for name, uids in stages.items() if name in Stage.__members__ for uid in uids}
            for verb, stages in (before or {}).get(_ASKED, {}).items()
        }
        self._now: dict[str, dict[str, Stage]] = {}

    def has(self, verb: str) -> bool:
        """Say whether something was asked for by a method before the wait."""
        return bool(self._before.get(verb))

    def note(self, verb: str, stage: Stage, ask: Ask) -> None:
        """Note that a request is put now."""
        # What is asked for by name is not asked for in the same way once more, whatever that stage is called.
        by_name = Stage.SINGLE if len(ask.brings) == 1 else Stage.IMAGE
        narrow = max(stage, by_name) if ask.level is Level.IMAGE else stage
        asked = self._now.setdefault(verb, {})
        for uid in ask.brings:
            asked[uid] = max(narrow, asked.get(uid, narrow))

    def rest(self, verb: str, stage: Stage, ledger: Ledger) -> Ledger:
        """Return the account as a stage may see it: what was asked for so narrowly before the wait is not outstanding.

        :param verb: the method.
        :param stage: how narrowly is asked now.
        :param ledger: what is outstanding.
        """
        before = self._before.get(verb, {})
        done = {
            entry.sop_instance_uid for entry in ledger.outstanding if before.get(entry.sop_instance_uid, -1) >= stage
        }
        if not done:
            return ledger
        return Ledger(
            replace(entry, state=State.VERIFIED) if uid in done else entry for uid, entry in ledger.entries.items()
        )

    def to_json(self, ledger: Ledger) -> dict[str, Any]:
        """Return what has to be kept over a wait.

        :param ledger: what is outstanding: of the rest nothing is asked for any more.
        """
        wanted, told = {entry.sop_instance_uid for entry in ledger.outstanding}, dict[str, dict[str, list[str]]]()
        for verb in self._before.keys() | self._now.keys():
            stages = {**self._before.get(verb, {}), **self._now.get(verb, {})}
            for uid, stage in stages.items():
                if uid in wanted:
                    told.setdefault(verb, {}).setdefault(stage.name, []).append(uid)
        return {_ASKED: told}


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What a piece of a try has to know of what was left.

    :param goes_on: it was left in the same try, only to have somebody else wait.
    :param has_settled: who has waited until nothing came any more.
    :param waiting: what was noted then; ``None`` when it does not go on.
    :param was_killed: a try before this one was, and may have left the peer at work.
    :param was_broken_off: a try before this one came to no good end.
    :param was_looking: what is held was looked for in this try, so that what stands there is of this try.
    """

    goes_on: bool
    has_settled: bool
    waiting: Mapping[str, Any] | None
    was_killed: bool
    was_broken_off: bool
    was_looking: bool

    @classmethod
    def of(cls, previous: Manifest | None, task_try: Try | None, retrieval_id: str) -> Before:
        """Return it.

        :param previous: what was left.
        :param task_try: see :func:`goes_on`.
        :param retrieval_id: of the work.
        """
        waiting = previous.waiting if previous is not None and goes_on(previous, task_try) else None
        noted = waiting or {}
        return cls(
            goes_on=waiting is not None,
            has_settled=waiting is not None and task_try is not None and task_try.waited_out == retrieval_id,
            waiting=waiting,
            was_killed=bool(noted.get("killed")) if waiting is not None else _is_pending(previous),
            was_broken_off=bool(noted.get("broken_off")) if waiting is not None else is_unfinished(previous),
            was_looking=bool(noted.get("looked")),
        )

    @property
    def is_late(self) -> bool:
        """Whether the wait was for what has been asked for."""
        return bool((self.waiting or {}).get("is_late"))

    @property
    def has_asked(self) -> bool:
        """Whether this try has asked for anything that may still come."""
        return self.is_late or any((self.waiting or {}).get(_ASKED, {}).values())

    def noted(self, *, looked: bool) -> dict[str, bool]:
        """Return what the next piece has to know of the tries before.

        :param looked: whether what is held was looked for in this try by now.
        """
        return {"killed": self.was_killed, "broken_off": self.was_broken_off, "looked": looked or self.was_looking}


def _is_pending(previous: Manifest | None) -> bool:
    return previous is not None and previous.outcome is Outcome.PENDING


def goes_on(previous: Manifest | None, task_try: Try | None) -> bool:
    """Say whether work goes on that was left only to have somebody else wait, in the same try.

    :param previous: what was left.
    :param task_try: the try that begins, or goes on; ``None``: one that is never put off.
    """
    if previous is None or task_try is None:
        return False
    waiting = previous.waiting or {}
    return previous.outcome is Outcome.PENDING and bool(waiting.get(_TRY)) and waiting[_TRY] == task_try.id


def is_judged(previous: Manifest | None, request: RetrievalRequest, task_try: Try | None) -> bool:
    """Say whether a request was judged in an earlier piece of the same try, so that what was judged stands.

    A task of several retrievals begins with the first again when it goes on: what that did not bring was asked for in
    vain, and a retry may bring it.

    :param previous: what was left.
    :param request: what is asked for now.
    :param task_try: the try that goes on; ``None``: one that is never put off.
    """
    if previous is None or task_try is None or not previous.judged_in or previous.judged_in != task_try.id:
        return False
    now, names = request.summary(), {item.sop_instance_uid for item in request.expected or ()}
    asks_the_same = all(previous.request.get(key) == now[key] for key in ("level", "uids"))
    return asks_the_same and names <= previous.ledger.entries.keys()


def put_off(manifest: Manifest, waiting: Waiting, task_try: Try | None, **more: Any) -> None:
    """Note in the manifest that somebody else is to wait.

    :param manifest: of the try, which stays pending; what is to be known to go on stands there already.
    :param waiting: for what.
    :param task_try: which try it is.
    :param more: what else is to be known.
    """
    is_late = not isinstance(waiting.awaited, QuietHours)
    before = manifest.waiting or {}
    of_try = {_TRY: "" if task_try is None else task_try.id}
    manifest.waiting = {**before, **more, "for": waiting.words, "is_late": is_late, **of_try}
    manifest.message = waiting.words


def keep_flags(ledger: Ledger, before: Ledger) -> None:
    """Let what is held stand as the same try left it: to that it is not what was there before.

    :param ledger: of the try, where what is here was found again.
    :param before: of the same try, before somebody else waited.
    """
    for uid, entry in ledger.entries.items():
        earlier = before.entries.get(uid)
        if earlier is None:
            continue
        entry.found_late = entry.found_late or earlier.found_late
        if entry.is_here and earlier.is_here and entry.path == earlier.path:
            entry.held, entry.duplicate = earlier.held, earlier.duplicate
