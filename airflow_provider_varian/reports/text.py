"""Manifests in words: the outcome first, then what is missing by name, then the rest.

Plain lines without markup or colour, for a terminal, a log or a page. They tell what a manifest holds, which is
nothing of a patient but UIDs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from airflow_provider_varian.dimse import status
from airflow_provider_varian.reports.account import Account, missing_of, moment
from airflow_provider_varian.reports.check import Check
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.retrieval.manifest import Manifest, RequestReport
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.sent import SentDocument, SentObject, SentOutcome

#: How many of a kind are named unless all are asked for.
NAMED_AT_MOST: Final = 10
#: Outcomes of which one line is enough where several manifests are told.
_ALL_WELL: Final = (Outcome.COMPLETE, Outcome.REPORTED, Outcome.EMPTY, SentOutcome.COMPLETE, SentOutcome.EMPTY)
_STEPS: Final = (("list", "list_seconds"), ("transfer", "transfer_seconds"), ("re-check", "recheck_seconds"))
_REPORTED: Final = ("completed", "failed", "warning", "remaining")
_WIDTH: Final = 11
_RUNNING_OR_STOPPED: Final = "not judged, since it is still running or was stopped"
_REST: Final = "--all names them"


def headline(document: Manifest | SentDocument) -> str:
    """Return the outcome in one line: the word, and what it means in numbers.

    :param document: a manifest, or the account of what was sent.
    """
    if str(document.outcome) == Outcome.PENDING:
        # Whoever is killed leaves no words: these are of an error that ended it.
        why = f"broke off: {document.message}" if document.message else _RUNNING_OR_STOPPED
        return f"{document.outcome}: {why}; {_so_far(document)}"
    return f"{document.outcome}: {document.message}"


def missing_lines(manifest: Manifest, *, at_most: int | None = NAMED_AT_MOST, rest: str = _REST) -> list[str]:
    """Name what is missing under its reasons, and what is in conflict; nothing when there is neither.

    :param manifest: what it says.
    :param at_most: how many of each to name; ``None``: all.
    :param rest: how to see the others.
    """
    everything = (*manifest.ledger.entries.values(), *manifest.ledger.unexpected.values())
    missing = [(_why(entry), entry.sop_instance_uid) for entry in missing_of(manifest)]
    conflicts = [
        f"{entry.sop_instance_uid}  {entry.path} and {', '.join(entry.conflicts) or 'another one'}"
        for entry in everything
        if entry.state is State.CONFLICT
    ]
    return [
        *_grouped("missing", missing, at_most, of=len(manifest.ledger.entries), rest=rest),
        *_listed("conflict", conflicts, at_most, "other content under the same UID; both are kept", rest=rest),
    ]


def account_lines(
    account: Account, *, check: Check | None = None, at_most: int | None = NAMED_AT_MOST, brief: bool = False
) -> list[str]:
    """Tell one manifest.

    :param account: what was read.
    :param check: what came of holding it against what is there; ``None`` when that was not done.
    :param at_most: how many of each kind to name; ``None``: all.
    :param brief: only the outcome and the path, when there is nothing that somebody should look at.
    """
    document = account.document
    if document is None:
        return [f"unreadable: {account.problem}", _named("manifest", account.path)]
    lines = [headline(document), _named("manifest", account.path)]
    if account.problem:
        lines.insert(1, f"not to be believed: {account.problem}")
    if brief and _is_all_well(account, check):
        return [*lines, *_times(document.timings)]
    lines += _of_sent(document, at_most) if isinstance(document, SentDocument) else _of_manifest(document, at_most)
    return [*lines, *_listed("warnings", document.warnings, None), *_checked(check, at_most)]


def summary_line(accounts: Sequence[Account]) -> str:
    """Return how many manifests there are of which outcome."""
    counts = Counter(account.outcome or "unreadable" for account in accounts)
    return f"{len(accounts)} manifests: " + ", ".join(f"{count} {word}" for word, count in counts.most_common())


def _so_far(document: Manifest | SentDocument) -> str:
    if isinstance(document, SentDocument):
        done = sum(each.state.is_accepted for each in document.files)
        here = f"{done} of {len(document.files)} files accepted so far"
    else:
        found = len(document.ledger.entries)
        here = f"{found - len(missing_of(document))} of {found} instances here so far" if found else "nothing found yet"
        if "move_destination" in document.request:
            here = here.replace("here", "there")
    return here


def _is_all_well(account: Account, check: Check | None) -> bool:
    document = account.document
    return (
        document is not None
        and document.outcome in _ALL_WELL
        and not document.warnings
        and not account.problem
        and (check is None or check.is_well)
    )


def _of_manifest(manifest: Manifest, at_most: int | None) -> Iterator[str]:
    entries = manifest.ledger.entries.values()
    yield from _request(manifest.request)
    yield from _peer(manifest.peer)
    yield from _times(manifest.timings, manifest.attempts)
    yield _named("counts", _in_numbers(manifest.ledger.counts()))
    yield from missing_lines(manifest, at_most=at_most)
    unexpected = manifest.ledger.unexpected.values()
    yield from _listed(
        "unexpected", [_with_reason(entry) for entry in unexpected], at_most, "came, and no list names it"
    )
    superseded = [
        f"{entry.sop_instance_uid}  {entry.superseded}" for entry in (*entries, *unexpected) if entry.superseded
    ]
    yield from _listed("superseded", superseded, at_most, "a newer version took its place; the older one is kept")
    late = [entry.sop_instance_uid for entry in entries if entry.found_late]
    yield from _listed("found late", late, at_most, "listed only after the transfer")
    came_here = "move_destination" not in manifest.request
    requests = _requests(manifest.requests, singly=at_most is None, came_here=came_here)
    yield from _listed("requests", requests, at_most, count=len(manifest.requests))
    fallbacks = [
        f"{_text(each, 'from')} -> {_text(each, 'to')}: {_text(each, 'reason')}" for each in manifest.fallbacks
    ]
    yield from _listed("fallbacks", fallbacks, at_most)


def _of_sent(document: SentDocument, at_most: int | None) -> Iterator[str]:
    yield from _peer(document.peer)
    yield from _times(document.timings, document.attempts)
    yield _named("counts", _in_numbers(document.counts()))
    files = document.files
    missing = [(each.reason or "no reason is known", _file(each)) for each in files if not each.state.is_accepted]
    yield from _grouped("missing", missing, at_most, of=len(files))
    remarks = [(_status(each), _file(each)) for each in files if each.state.is_accepted and each.status]
    yield from _grouped("remarks", remarks, at_most, of=len(files))


def _why(entry: Entry) -> str:
    if entry.state is State.FAILED:
        return f"came, and was refused here: {entry.reason or 'no reason is known'}"
    if entry.state is State.FOUND:
        return entry.reason or "listed, and not here yet"
    if entry.state is State.RECEIVED:
        return entry.reason or "received, and not filed yet"
    return entry.reason or "no reason is known"


def _with_reason(entry: Entry) -> str:
    return f"{entry.sop_instance_uid}  {entry.state}" + (f": {entry.reason}" if entry.reason else "")


def _file(each: SentObject) -> str:
    return f"file {each.position}" + (f"  {each.sop_instance_uid}" if each.sop_instance_uid else "")


def _status(each: SentObject) -> str:
    return "" if each.status is None else status.describe("C-STORE", each.status)


def _request(request: Mapping[str, Any]) -> Iterator[str]:
    parts = [f"{request['level']} level" if "level" in request else ""]
    uids = request.get("uids")
    for keyword, values in dict(uids).items() if isinstance(uids, Mapping) else ():
        parts.append(f"{keyword} {values[0]}" if len(values) == 1 else f"{len(values)} of {keyword}")
    if left_out := request.get("keys_left_out"):
        parts.append(f"selected by {', '.join(map(str, left_out))} (values are not written down)")
    for name, words in (("move_destination", "sent to"), ("method", "method"), ("minimum", "at least")):
        if request.get(name) is not None:
            parts.append(f"{words} {request[name]}")
    if request.get("limit") is not None:
        parts.append(f"at most {request['limit']}" + (" (hit: there may be more)" if request.get("limited") else ""))
    for name, words in (("verify_path", "proven by the files in"), ("verify_peer", "proven by C-FIND at")):
        if request.get(name) is not None:
            parts.append(f"{words} {request[name]}")
    yield _named("request", ", ".join(part for part in parts if part))


def _peer(peer: Mapping[str, Any]) -> Iterator[str]:
    uid = _text(peer, "implementation_class_uid")
    version = " ".join(filter(None, (_text(peer, "implementation_version_name"), f"({uid})" if uid else "")))
    name = _text(peer, "name") or _text(peer, "ae_title")
    yield _named("peer", f"{name}, {version}" if version else f"{name}, whose version is not known")


def _times(timings: Mapping[str, Any], attempts: int | None = None) -> Iterator[str]:
    started, finished = moment(timings.get("started")), moment(timings.get("finished"))
    parts = []
    if started is not None:
        parts.append(f"{started:%Y-%m-%d %H:%M:%S} UTC")
    seconds = timings.get("seconds")
    if not isinstance(seconds, (int, float)) and started is not None and finished is not None:
        seconds = (finished - started).total_seconds()
    if finished is None:
        parts.append("not finished")
    elif isinstance(seconds, (int, float)):
        steps = [f"{name} {timings[key]:.1f} s" for name, key in _STEPS if isinstance(timings.get(key), (int, float))]
        parts.append(f"took {seconds:.1f} s" + (f" ({', '.join(steps)})" if steps else ""))
    if attempts is not None and attempts > 1:
        parts.append(f"try {attempts}")
    yield _named("when", ", ".join(parts))


def _requests(reports: Sequence[RequestReport], *, singly: bool, came_here: bool) -> Iterator[str]:
    """Tell what was asked; requests that went alike are told as one, since there may be one for each instance.

    :param came_here: the objects came to us; of a move to a third party nobody sees from here what a request brought.
    """
    alike: dict[tuple[Any, ...], list[RequestReport]] = {}
    for number, report in enumerate(reports):
        given = tuple(getattr(report, name) is None for name in ("asked", *_REPORTED))
        kind = (report.attempt, report.method, report.level, report.status, report.problem, given)
        alike.setdefault((number,) if singly else kind, []).append(report)
    return (_asked(group, came_here=came_here) for group in alike.values())


def _asked(group: Sequence[RequestReport], *, came_here: bool) -> str:
    first = group[0]
    service: Literal["C-GET", "C-MOVE"] = "C-GET" if first.method == "C-GET" else "C-MOVE"
    asked = "an unknown number" if first.asked is None else str(_sum(group, "asked"))
    answer = "no final status" if first.status is None else status.describe(service, first.status)
    reported = [f"{_sum(group, name)} {name}" for name in _REPORTED if getattr(first, name) is not None]
    named = sum(len(report.failed_sop_instance_uids) for report in group)
    parts = [
        f"{_sum(group, 'received')} of {asked} came" if came_here else f"{asked} asked for",
        answer,
        f"reported {', '.join(reported)}" if reported else "no counts reported",
        f"{named} named as failed" if named else "",
        first.problem if first.problem != answer else "",
        f"{_sum(group, 'seconds'):.1f} s",
    ]
    times = f"{len(group)} x " if len(group) > 1 else ""
    return f"try {first.attempt}  {times}{service} {first.level}: " + "; ".join(part for part in parts if part)


def _sum(group: Iterable[RequestReport], name: str) -> Any:
    return sum(getattr(report, name) for report in group)


def _checked(check: Check | None, at_most: int | None) -> Iterator[str]:
    if check is None:
        return
    if check.impossible:
        yield _named("verify", f"not possible: {check.impossible}")
        return
    how = "size and SHA-256" if check.hashed == check.checked else f"size, and SHA-256 of {check.hashed} that have one"
    same = check.checked - len(check.differences) - len(check.replaced)
    yield _named("verify", f"{same} of {check.checked} are there as told, by {how}")
    different = [(words, uid) for uid, words in check.differences.items()]
    yield from _grouped("different", different, at_most, of=check.checked)
    replaced = [f"{uid}  {path}" for uid, path in check.replaced.items()]
    yield from _listed("replaced", replaced, at_most, "a newer version is there by now; this one is kept")


def _grouped(
    name: str, named: Sequence[tuple[str, str]], at_most: int | None, *, of: int, rest: str = _REST
) -> Iterator[str]:
    """Name things under the reason that they share."""
    if not named:
        return
    yield _named(name, f"{len(named)} of {of}")
    shown = named if at_most is None else named[:at_most]
    of_reason = Counter(reason for reason, _ in named)
    for reason, count in Counter(reason for reason, _ in shown).items():
        yield f"  {reason}" + (f" ({of_reason[reason]} of them)" if count < of_reason[reason] else "")
        yield from (f"    {thing}" for why, thing in shown if why == reason)
    yield from _more(len(named) - len(shown), rest)


def _listed(
    name: str,
    things: Iterable[Any],
    at_most: int | None,
    meaning: str = "",
    *,
    count: int | None = None,
    rest: str = _REST,
) -> Iterator[str]:
    every = [str(thing) for thing in things]
    if not every:
        return
    yield _named(name, f"{len(every) if count is None else count}" + (f", {meaning}" if meaning else ""))
    yield from (f"  {thing}" for thing in every[:at_most])
    yield from _more(len(every[at_most:]) if at_most is not None else 0, rest)


def _more(count: int, rest: str) -> Iterator[str]:
    if count > 0:
        yield f"  and {count} more ({rest})"


def _in_numbers(counts: Mapping[str, int]) -> str:
    shown = [
        f"{count:,} bytes" if name == "bytes" else f"{count} {name}"
        for name, count in counts.items()
        if count or name in ("found", "files")
    ]
    return ", ".join(shown)


def _named(name: str, words: str) -> str:
    return f"{name:<{_WIDTH}}{words}"


def _text(values: Any, name: str) -> str:
    found = values.get(name) if isinstance(values, Mapping) else None
    return found if isinstance(found, str) else ""
