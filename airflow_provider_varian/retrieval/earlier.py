"""What an earlier try of the same work found, and how it stays in the account.

Lists wobble while data is being written (varian-daemon 1.4): an instance that was found once and did not come
must not turn a retrieval ``complete``, or ``empty``, by being left out of the next list.

*The same work* is a retrieval ID (:mod:`.identity`): a task instance, or a command with its keys. A DAG may have
been edited between two tries, though, and a manifest names UIDs only, so not every edit can be seen. The rule:

- Another level, other UIDs altogether, or keys of other names are other work: nothing is kept. UIDs that are the
  same in part are no sign of an edit, since a selection by C-FIND makes a list of series that wobbles too.
- A request that says all of itself (UIDs alone, listed here) and says the same as before keeps everything.
- Any other request keeps what an unfinished try (``pending``, ``partial``) found. A finished one owes nothing;
  and had its keys been edited, its instances would be counted for what they are not.

In doubt an entry is kept, which is loud, rather than dropped, which is silent. What is kept without being listed is
asked for by name, and named in a warning that says how to end it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.outcome import Outcome, State

_UNFINISHED: Final = (Outcome.PENDING, Outcome.PARTIAL)


def is_unfinished(previous: Manifest | None) -> bool:
    """Say whether an earlier try still owes something: it was killed, or something did not come."""
    return previous is not None and previous.outcome in _UNFINISHED


def forget_fetched(previous: Manifest) -> None:
    """Take what a finished try brought for held: whether it is still current is to be found out anew."""
    for entry in previous.ledger.entries.values():
        entry.fetched = False


def begun(
    retrieval_id: str,
    *,
    request: Mapping[str, Any],
    peer_ae_title: str,
    layout: str,
    warnings: Iterable[str],
    previous: Manifest | None,
    goes_on: bool = False,
) -> Manifest:
    """Return the manifest that a try begins with.

    :param retrieval_id: the retrieval ID.
    :param request: what is asked for, as the manifest says it.
    :param peer_ae_title: who is asked.
    :param layout: the template that paths are made with.
    :param warnings: what to know of how the request was made.
    :param previous: the manifest of the earlier try, if there is one.
    :param goes_on: it is no other try: somebody else has waited meanwhile (:mod:`.asked`).
    """
    manifest = Manifest(
        id=retrieval_id,
        request=dict(request),
        peer={"ae_title": peer_ae_title},
        attempts=1,
        layout=layout,
        warnings=list(warnings),
    )
    if previous is not None:
        go_on(manifest, previous, is_same_try=goes_on)
    return manifest


def go_on(manifest: Manifest, previous: Manifest, *, is_same_try: bool = False) -> None:
    """Let the manifest of a try go on with what an earlier try wrote.

    :param manifest: that of the try that begins; it has nothing but what is asked for.
    :param previous: that of the earlier try.
    :param is_same_try: it is no other try: somebody else has waited meanwhile.
    """
    manifest.attempts = previous.attempts + (not is_same_try)
    if is_same_try:
        manifest.waiting = previous.waiting
        manifest.warnings = list(dict.fromkeys((*previous.warnings, *manifest.warnings)))
        manifest.timings = {**manifest.timings, **previous.timings}
    # A try that finds everything held asks nobody: what is known of the peer stays known.
    manifest.peer = {**previous.peer, **manifest.peer}
    manifest.requests = previous.requests
    manifest.fallbacks = previous.fallbacks
    # Until the new list is there, the account of the earlier try stands: a kill must not lose it.
    manifest.ledger = previous.ledger.copy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """Which instances a try is about.

    :param entries: by SOP Instance UID, as they were found.
    :param kept: how many of them an earlier try found and the list does not name.
    :param limited: whether a limit that the user set was hit.
    """

    entries: dict[str, Entry]
    kept: int
    limited: bool


def expectation(
    listed: Iterable[Entry],
    *,
    previous: Manifest | None,
    request: Mapping[str, Any],
    listed_here: bool,
    limited: bool,
) -> Expectation:
    """Join what is listed with what an earlier try of the same work found.

    With a limit, what an earlier try took is taken first, and new instances fill up to the limit: else each try
    could bring others.

    :param listed: the instances that the peer lists now.
    :param previous: the manifest of an earlier try, if there is one.
    :param request: what is asked for, as the manifest says it (``RetrievalRequest.summary``).
    :param listed_here: ``listed`` is all that the request's own keys name, not a selection by other keys.
    :param limited: the list stops at the request's limit.
    """
    names = {entry.sop_instance_uid: entry for entry in listed}
    earlier = _earlier_entries(previous, request, listed_here=listed_here)
    kept = {uid: entry.anew() for uid, entry in earlier.items() if uid not in names}
    limit: int | None = request["limit"]
    if previous is not None and kept:
        # A shorter list does not say that the limit is not hit any more.
        limited = limited or (previous.request.get("limited") is True and previous.request.get("limit") == limit)
    if limit is None:
        return Expectation(entries=names | kept, kept=len(kept), limited=limited)
    first = [names.get(uid) or kept[uid] for uid in earlier]
    first += [entry for uid, entry in names.items() if uid not in earlier]
    entries = {entry.sop_instance_uid: entry for entry in first[:limit]}
    return Expectation(entries=entries, kept=sum(uid in kept for uid in entries), limited=limited or len(first) > limit)


def still_unexpected(ledger: Ledger, *, destination: Destination, spool: Spool | None) -> dict[str, Entry]:
    """Return what came unasked in earlier tries, as far as it is still true to tell of it.

    What is listed by now is expected, and stands in one place alone. What was published stays told while its file
    is there with the size that it had, and in conflict while the other content is; what was left in the spool, while
    it lies there. The rest is dropped.

    :param ledger: the account, with what should come.
    :param destination: where objects are.
    :param spool: where objects are received; ``None``: it is not looked at, and what was left there is believed.
    """
    kept = {}
    for uid, entry in ledger.unexpected.items():
        if uid in ledger.entries:
            continue
        if entry.is_here:
            if destination.size(PurePosixPath(entry.path)) != entry.bytes:
                continue
            entry.conflicts = [path for path in entry.conflicts if destination.size(PurePosixPath(path)) is not None]
            if entry.state is State.CONFLICT and not entry.conflicts:
                entry.state, entry.reason = State.VERIFIED, ""
            # Whether it is still current is to be found out anew, when it comes again.
            entry.fetched = False
        elif spool is not None and not spool.still_has(uid):
            continue
        kept[uid] = entry
    return kept


def _earlier_entries(
    previous: Manifest | None, request: Mapping[str, Any], *, listed_here: bool
) -> Mapping[str, Entry]:
    if previous is None or _is_other_work(previous.request, request):
        return {}
    says_all = listed_here and not request["keys_left_out"] and previous.request.get("uids") == request["uids"]
    return previous.ledger.entries if says_all or is_unfinished(previous) else {}


def _is_other_work(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Say whether two requests differ in what both of them name."""
    if before.get("level") != now["level"]:
        return True
    if before.get("keys_left_out") and now["keys_left_out"] and before["keys_left_out"] != now["keys_left_out"]:
        return True
    uids: Mapping[str, Any] = before.get("uids") or {}
    return any(set(uids[keyword]).isdisjoint(now["uids"][keyword]) for keyword in uids.keys() & now["uids"].keys())
