"""What proves that a third party has what a peer sent to it (semantics 10).

Three kinds, the weakest first: nothing but the peer's report; a C-FIND on the destination, which *lists* an instance;
the destination's own files, read by us, which *verify* it.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import DicomError, TransientDicomError
from airflow_provider_varian.query.find import OnQuery
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.model import model_for
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.retrieval.layout import Layout
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.retrieval.listing import list_instances
from airflow_provider_varian.retrieval.outcome import State
from airflow_provider_varian.retrieval.plan import MAX_UIDS
from airflow_provider_varian.retrieval.third_party_folder import WatchedFolder
from airflow_provider_varian.uids import CHANGING_STORAGE
from airflow_provider_varian.waiting import WORTH_SECONDS, Listed, ListedSeries, Waiting

#: Between two looks into a folder.
_LOOK_SECONDS: Final = 0.1
#: So many series tell somebody else what is waited for: they are kept in a row of Airflow's database.
_MOST_SERIES: Final = 50


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look at the destination told.

    :param proven: the instances that are there, as the ledger is to say it, by SOP Instance UID.
    :param changed: when something that matters was last seen to change, by the monotonic clock; minus infinity for
        never.
    """

    proven: Mapping[str, Entry]
    changed: float


class Proof(Protocol):
    """Tells which instances the destination has."""

    #: What an instance is called that is proven so.
    state: State
    #: How many seconds to leave between two looks at least.
    look_seconds: float
    #: How many seconds its looks waited in all until the destination could be asked.
    waited: float

    @property
    def where(self) -> str:
        """The place, as messages name it."""

    def look(self, wanted: Sequence[Entry], *, now: float) -> Sight:
        """Look for instances.

        :param wanted: what is not proven yet.
        :param now: the monotonic clock at the start of the look.
        :raises DicomError: when the destination cannot be asked, or its folder not be read.
        """

    def disregard(self, entries: Iterable[Entry]) -> None:
        """Take what is there of some instances for an earlier version, until the peer has sent them.

        :raises DicomError: as :meth:`look`.
        """

    def problem_of(self, entry: Entry) -> str:
        """Say what is known of an instance that is not proven; empty when nothing is."""


def may_change(entry: Entry) -> bool:
    """Say whether an instance may have other content next time: a plan, a structure set, a dose (semantics 9)."""
    return not entry.sop_class_uid or entry.sop_class_uid in CHANGING_STORAGE


class ListedAtPeer:
    """The destination lists it, by a C-FIND at IMAGE level.

    :param peer: the destination as a Query/Retrieve SCP.
    :param profile: its habits.
    :param patients: PatientIDs by SOP Instance UID, as far as they are known when a look is taken; peers of the
        Patient Root model need them.
    :param cancellation: stops a query from outside.
    :param on_query: is told of each query.
    """

    state = State.LISTED

    def __init__(
        self,
        peer: Peer,
        *,
        profile: Profile,
        patients: Mapping[str, str],
        cancellation: Cancellation | None = None,
        on_query: OnQuery | None = None,
    ) -> None:
        self._peer = peer
        self._on_query = on_query
        # What is listed once is listed; that everything is there is waited for by looking again.
        self._profile = replace(profile, stable_counts=1)
        self.look_seconds = profile.stable_interval_seconds
        self._by_patient = model_for(Level.IMAGE, peer.information_model).top is Level.PATIENT
        self._patients = patients
        self._cancellation = cancellation
        self.waited = 0.0
        self._to_be_sent: set[str] = set()
        #: How many instances of each series the last look has listed, expected or not.
        self._in_series: Counter[tuple[str, str]] = Counter()
        #: How many instances were listed and did not count.
        self._count = 0
        self._grew = -math.inf

    @property
    def where(self) -> str:
        """The destination as a peer."""
        return self._peer.name

    def look(self, wanted: Sequence[Entry], *, now: float) -> Sight:
        """Ask for the series of what is wanted."""
        listed = self._listed(wanted)
        if len(listed) > self._count:
            self._grew = now
        proven = {
            entry.sop_instance_uid: replace(entry, state=self.state)
            for entry in wanted
            if entry.sop_instance_uid in listed
            # A list does not tell an earlier version from a later one: the peer must have said that it sent it.
            and (entry.state is State.REPORTED or entry.sop_instance_uid not in self._to_be_sent)
        }
        self._count = len(listed) - len(proven)
        return Sight(proven, self._grew)

    def disregard(self, entries: Iterable[Entry]) -> None:
        """Count these only once the peer has reported them as sent."""
        self._to_be_sent |= {entry.sop_instance_uid for entry in entries}

    def problem_of(self, entry: Entry) -> str:
        """Say that it is not listed."""
        return f"{self._peer.name} does not list it"

    def left_to_others(
        self, retrieval_id: str, missing: Sequence[Entry], quiet_seconds: float, most_seconds: float
    ) -> Waiting | None:
        """Return what asks somebody else to wait until instances are listed; ``None`` where that cannot be.

        :param retrieval_id: of which move.
        :param missing: what the last look did not prove; of so many series, as many as may be kept are waited for.
        :param quiet_seconds: how long nothing may change before they are given up.
        :param most_seconds: how long to wait at most.
        """
        if not self._peer.deferred_as or not all(entry.series_instance_uid for entry in missing):
            return None
        lacking = Counter((entry.study_instance_uid, entry.series_instance_uid) for entry in missing)
        series = tuple(
            ListedSeries(
                keys={keyword: str(value) for keyword, value in keys.items()},
                at_least=self._in_series[at] + lacking[at],
            )
            for keys in self._keys(missing)[:_MOST_SERIES]
            for at in ((str(keys.get("StudyInstanceUID", "")), str(keys["SeriesInstanceUID"])),)
        )
        return Waiting(
            Listed(
                deferred_as=self._peer.deferred_as,
                retrieval_id=retrieval_id,
                series=series,
                quiet_seconds=quiet_seconds,
                most_seconds=most_seconds,
            ),
            f"{len(missing)} instances are not listed by {self._peer.name} yet: it is asked again until nothing has "
            f"changed for {quiet_seconds:g} s",
        )

    def _listed(self, wanted: Sequence[Entry]) -> set[str]:
        uids = {entry.sop_instance_uid for entry in wanted}
        expected, _, _ = list_instances(
            self._peer,
            self._keys(wanted),
            layout=Layout(),
            profile=self._profile,
            cancellation=self._cancellation,
            on_wait=self._wait,
            on_query=self._on_query,
        )
        self._in_series = Counter((item.study_instance_uid, item.series_instance_uid) for item in expected)
        return {item.sop_instance_uid for item in expected} & uids

    def _wait(self, seconds: float) -> None:
        self.waited += seconds

    def _keys(self, wanted: Sequence[Entry]) -> list[Mapping[str, str | Sequence[str]]]:
        keys: dict[tuple[str, str, str], list[str]] = {}
        for entry in wanted:
            patient = self._patients.get(entry.sop_instance_uid, "") if self._by_patient else ""
            at = (patient, entry.study_instance_uid, entry.series_instance_uid)
            keys.setdefault(at, []).append(entry.sop_instance_uid)
        queries: list[Mapping[str, str | Sequence[str]]] = []
        for (patient, study, series), uids in keys.items():
            upper = {"PatientID": patient, "StudyInstanceUID": study, "SeriesInstanceUID": series}
            named = {keyword: value for keyword, value in upper.items() if value}
            if series:
                queries.append(named)
            else:
                queries += [
                    {**named, "SOPInstanceUID": uids[start : start + MAX_UIDS]}
                    for start in range(0, len(uids), MAX_UIDS)
                ]
        return queries


class FiledInFolder:
    """The destination's file of it is whole, and hashed.

    :param folder: where the destination files what it gets.
    """

    state = State.VERIFIED
    look_seconds = _LOOK_SECONDS

    def __init__(self, folder: WatchedFolder) -> None:
        self._folder = folder
        self.waited = 0.0

    @property
    def where(self) -> str:
        """The folder."""
        return self._folder.uri

    def look(self, wanted: Sequence[Entry], *, now: float) -> Sight:
        """Read what is new or changed, and whole."""
        changed = self._folder.refresh((entry.sop_instance_uid for entry in wanted), now=now)
        proven: dict[str, Entry] = {}
        for entry in wanted:
            uid = entry.sop_instance_uid
            found = self._folder.whole(uid, sop_class_uid=entry.sop_class_uid, now=now)
            if found is not None:
                proven[uid] = replace(
                    entry,
                    state=self.state,
                    # Not where it lies: a File Daemon's folders have the names of patients (semantics 26).
                    bytes=found.inspection.file_bytes,
                    sha256=found.inspection.sha256_file,
                    sha256_data_set=found.inspection.sha256_data_set,
                    transfer_syntax_uid=found.inspection.transfer_syntax_uid,
                    sop_class_uid=found.inspection.sop_class_uid,
                    duplicate=found.others > 0,
                )
        return Sight(proven, changed)

    def disregard(self, entries: Iterable[Entry]) -> None:
        """Count only what is written from here on."""
        uids = [entry.sop_instance_uid for entry in entries]
        if uids:
            self._folder.refresh(uids, now=time.monotonic())
            self._folder.disregard(uids)

    def problem_of(self, entry: Entry) -> str:
        """Say what its file lacks, or that there is none."""
        return self._folder.problem_of(entry.sop_instance_uid) or "no file of it is there"


@dataclass(slots=True, kw_only=True)
class Watch:
    """Looks at a destination until everything is proven, or nothing changes any more.

    :param proof: what to look at.
    :param quiet_seconds: how long nothing may change before what is missing is given up.
    :param cancellation: stops it from outside.
    :param leaves: given what is missing, how long nothing may change, and how long to wait at most, returns what asks
        somebody else to wait; ``None`` when that cannot be.
    """

    proof: Proof
    quiet_seconds: float
    cancellation: Cancellation
    leaves: Callable[[Sequence[Entry], float, float], Waiting | None] = lambda missing, quiet, most: None
    #: Why the last look failed; None when it did not.
    error: DicomError | None = field(default=None, init=False)

    def first(self, entries: Mapping[str, Entry], *, take: Callable[[Entry], None], until: float) -> None:
        """Look once, and wait only for files that are being written right now.

        :param entries: what to look for, by SOP Instance UID.
        :param take: called with each that is proven.
        :param until: when to stop at the latest, by the monotonic clock.
        :raises DicomError: when the destination cannot be asked: before anything is moved that could not be proven.
        """
        self._until_quiet(dict(entries), take=take, until=until, last=-math.inf)
        if self.error is not None:
            raise self.error

    def settle(
        self, entries: Mapping[str, Entry], *, take: Callable[[Entry], None], until: float, may_leave: bool = True
    ) -> float:
        """Look until everything is proven, or nothing changed for long enough; :attr:`error` tells what failed.

        :param entries: what to look for, by SOP Instance UID.
        :param take: called with each that is proven.
        :param until: when to stop at the latest, by the monotonic clock; one look is taken in any case.
            It stands still while the destination cannot be asked: in its quiet hours, or for want of an association.
        :param may_leave: a long wait may be left to somebody else.
        :return: for how many seconds it stood.
        :raises CancelledError: cancelled.
        :raises Waiting: it is; one has looked before.
        """
        return self._until_quiet(dict(entries), take=take, until=until, last=time.monotonic(), may_leave=may_leave)

    def _until_quiet(
        self,
        left: dict[str, Entry],
        *,
        take: Callable[[Entry], None],
        until: float,
        last: float,
        may_leave: bool = False,
    ) -> float:
        stood, is_first = 0.0, True
        while left:
            self.cancellation.raise_if_cancelled()
            now, before = time.monotonic(), self.proof.waited
            sight = self._look(list(left.values()), now)
            waited = self.proof.waited - before
            for uid, entry in sight.proven.items():
                take(entry)
                del left[uid]
            last = max(last, sight.changed)
            stood += waited
            if not left or now - last >= self.quiet_seconds or now >= until:
                break
            until += waited
            if is_first or sight.changed >= now:
                # When that came, while nobody could look, is not known: that it is quiet begins to count after it.
                last += waited
            is_first = False
            if may_leave and self.error is None and self.quiet_seconds - (now - last) >= WORTH_SECONDS:
                self._leave(list(left.values()), until - now)
            # A look that takes long is not taken again at once.
            self.cancellation.pause(max(self.proof.look_seconds, time.monotonic() - now - waited))
        return stood

    def _leave(self, missing: Sequence[Entry], most_seconds: float) -> None:
        if (waiting := self.leaves(missing, self.quiet_seconds, most_seconds)) is not None:
            raise waiting

    def _look(self, wanted: Sequence[Entry], now: float) -> Sight:
        try:
            sight = self.proof.look(wanted, now=now)
        except TransientDicomError as error:
            self.error = error
            return Sight({}, -math.inf)
        self.error = None
        return sight
