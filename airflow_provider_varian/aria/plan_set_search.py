"""What a patient has, by few C-FINDs: one list of the series, and one list of instances per modality that is needed.

A list that is too broad for the peer is asked for study by study, then series by series, as the list of the series
names them; so nothing is left out (semantics 13). Counts wobble and answers come cropped (varian-daemon 1.4): a series
of which fewer instances are listed than the peer counts, or none, is asked for again by itself. Where the peer does
not count, the lists are asked for until they stand still (semantics 11).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import QueryError
from airflow_provider_varian.query.find import FindResult, FindSession
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.query import Exact, Key, Query
from airflow_provider_varian.query.splitting import Split, find_whole
from airflow_provider_varian.retrieval.listing import list_until_stable
from airflow_provider_varian.retrieval.request import Expected
from airflow_provider_varian.retrieval.revision import REVISION_KEYWORDS
from airflow_provider_varian.uids import is_uid

#: Opens a session with the peer: called when there is something to ask, so that none is kept open meanwhile.
Finder = Callable[[], AbstractContextManager[FindSession]]

_OF_PLAN: Final = {"ReferencedSOPClassUID": None, "ReferencedSOPInstanceUID": None}
#: What is asked for of each modality beside its UIDs. Nothing of it is matched on; nothing that is absent is believed.
_RETURNED: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        # A plan without beams cannot be exported (varian-daemon 1.4): the flat key tells it.
        "RTPLAN": {"RTPlanLabel": None, "StudyID": None, "NumberOfBeams": None},
        "RTSTRUCT": {},
        "RTDOSE": {"DoseSummationType": None, "ReferencedRTPlanSequence": _OF_PLAN},
        # The flat key is answered with the plan's UID (varian-daemon 1.3).
        "RTRECORD": {"TreatmentDate": None, "ReferencedRTPlanSequence": _OF_PLAN, "ReferencedSOPInstanceUID": None},
        "RTIMAGE": {
            "ImageType": None,
            "AcquisitionDate": None,
            "ReferencedBeamNumber": None,
            "ReferencedRTPlanSequence": _OF_PLAN,
        },
        "REG": {"FrameOfReferenceUID": None},
        "CT": {"FrameOfReferenceUID": None, "ReferencedInstanceSequence": _OF_PLAN},
    }
)
_IMAGES: Final[Mapping[str, Any]] = MappingProxyType({"FrameOfReferenceUID": None})
_REVISED: Final = frozenset({"RTPLAN", "RTSTRUCT", "RTDOSE"})
#: How many instances are looked for by name before it is believed that the peer has none of them: a structure set can
#: name hundreds of slices that are not there, and each is a question of its own where lists of UIDs are not allowed.
_NAMES_AT_ONCE: Final = 4
#: How often a series is asked for by itself when the peer counts more in it than it lists.
_ROUNDS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRow:
    """A series as the peer lists it.

    :param series_instance_uid: which.
    :param study_instance_uid: its study.
    :param modality: (0008,0060); empty when not answered.
    :param count: Number of Series Related Instances; None when not answered.
    """

    series_instance_uid: str
    study_instance_uid: str
    modality: str
    count: int | None


class PatientLists:
    """The lists of one patient, asked for when they are needed and then kept.

    :param finder: opens a session with the peer.
    :param patient_id: Patient ID, exact.
    :param cancellation: stops the waiting between two rounds.
    :raises QueryError: when no patient is named, which would mean all of them.
    :ivar series: the series that the peer lists, by UID.
    :ivar answers: what was listed, by SOP Instance UID, as :meth:`FindSession.find` returns it.
    :ivar warnings: sentences without identifiers.
    """

    def __init__(self, finder: Finder, patient_id: str, *, cancellation: Cancellation | None = None) -> None:
        if not patient_id.strip():
            raise QueryError("a plan set is looked for in one patient, and none is named", hint="Give the Patient ID")
        self._finder = finder
        self._cancellation = cancellation
        self._found_by_pattern = False
        self._patient_id = patient_id
        self._has_series = False
        self._modalities: set[str] = set()
        self._by_series: set[str] = set()
        self._named: set[str] = set()
        self.series: dict[str, SeriesRow] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self.warnings: list[str] = []

    def need(self, *modalities: str) -> None:
        """See that all instances of some modalities are listed.

        :raises DicomError: what :func:`~airflow_provider_varian.query.splitting.find_whole` raises.
        """
        wanted = [each for each in modalities if each not in self._modalities]
        if not wanted:
            return
        with self._finder() as session:
            self._list_all_series(session)
            self._list_modalities(session, wanted)
            for modality in wanted:
                self._ask_again(session, modality)
        self._modalities.update(wanted)

    def need_series(self, uids: Iterable[str]) -> None:
        """See that all instances of some series are listed, whatever they are.

        A series that is in no list is asked for as well: the list of the series may be short.

        :raises DicomError: as :meth:`need`.
        """
        wanted = [uid for uid in dict.fromkeys(uids) if is_uid(uid) and not self._is_listed(uid)]
        if not wanted:
            return
        with self._finder() as session:
            for uid in wanted:
                self._list_series(session, uid)

    def is_whole(self, modalities: Iterable[str]) -> bool:
        """Say whether of some modalities as much is listed by now as the peer counts, where it counts."""
        return not any(self._short(each, unless_counted=0) for each in modalities)

    def look_for(self, uids: Collection[str]) -> None:
        """Look for instances by name, of which no list told: a few, and the others only when one of these is there.

        :raises DicomError: as :meth:`need`.
        """
        names = [uid for uid in uids if uid not in self.answers and uid not in self._named and is_uid(uid)]
        if not names:
            return
        with self._finder() as session:
            while part := [uid for uid in names if uid not in self.answers and uid not in self._named][:_NAMES_AT_ONCE]:
                self._list(session, {"SOPInstanceUID": part}, {"Modality": None, **_returned("CT")}, ())
                found = [uid for uid in part if uid in self.answers]
                if not found:
                    self._named.update(names)
                    return
                self._named.update(part)
                # Its neighbours are hardly less wanted than it, and one question brings them all.
                self._list_around(session, found)

    def _list_around(self, session: FindSession, uids: Iterable[str]) -> None:
        for series in dict.fromkeys(str(self.answers[uid].get("SeriesInstanceUID") or "") for uid in uids):
            if self._is_listed(series):
                self._warn("the peer listed less than it has: what was in no list was found by its UID")
            self._list_series(session, series)

    def expected(self, uids: Iterable[str]) -> list[Expected]:
        """Return what to retrieve, with what the peer said of it."""
        by_pattern = self._found_by_pattern
        return [Expected.from_answer(self.answers[uid], found_by_pattern=by_pattern) for uid in uids]

    # Asking -------------------------------------------------------------------------------------

    def _list_all_series(self, session: FindSession) -> None:
        if self._has_series:
            return
        keys = {"PatientID": Exact(self._patient_id), "Modality": None, "NumberOfSeriesRelatedInstances": None}
        by = (_ByUids("StudyInstanceUID", lambda query: self._studies(session)),)
        found = find_whole(session, Query.build(Level.SERIES, keys), by=by)
        self._warn_of(found)
        self.series |= {row.series_instance_uid: row for row in map(_row, found.answers)}
        self._has_series = True

    def _studies(self, session: FindSession) -> list[str]:
        found = session.find(Query.build(Level.STUDY, {"PatientID": Exact(self._patient_id)}))
        return [str(answer.get("StudyInstanceUID") or "") for answer in found.answers]

    def _query(self, keys: Mapping[str, Any], returned: Mapping[str, Any]) -> Query:
        return Query.build(Level.IMAGE, {"PatientID": Exact(self._patient_id), **keys, **returned})

    def _list_modalities(self, session: FindSession, modalities: Sequence[str]) -> None:
        """List all of some modalities, also where the list of the series has none of it: that may be short as well."""

        def ask() -> FindResult:
            found = [self._list(session, {"Modality": each}, _returned(each), self._ways(each)) for each in modalities]
            return replace(found[0], answers=[answer for one in found for answer in one.answers])

        if all(row.count is not None for row in self.series.values()):
            ask()
        else:
            self._warn_of(list_until_stable(ask, profile=session.profile, cancellation=self._cancellation))

    def _list(
        self, session: FindSession, keys: Mapping[str, Any], returned: Mapping[str, Any], by: tuple[Split, ...]
    ) -> FindResult:
        found = find_whole(session, self._query(keys, returned), by=by)
        self._warn_of(found)
        self._found_by_pattern = self._found_by_pattern or found.found_by_pattern
        self._note(found.answers)
        return found

    def _note(self, answers: Iterable[dict[str, Any]]) -> None:
        for answer in answers:
            uid = str(answer.get("SOPInstanceUID") or "")
            if is_uid(uid):
                self.answers.setdefault(uid, answer)
                row = _row(answer)
                self.series.setdefault(row.series_instance_uid, row)
            else:
                self._warn("the peer listed instances without a usable SOP Instance UID: they are in no plan set")

    def _list_series(self, session: FindSession, uid: str) -> None:
        """List one series; its modality is asked for, not matched on."""
        row = self.series.get(uid)
        study = {"StudyInstanceUID": row.study_instance_uid} if row is not None else {}
        returned = {"Modality": None, **_returned(row.modality if row is not None else "")}
        self._list(session, {**study, "SeriesInstanceUID": uid}, returned, ())
        self._by_series.add(uid)

    def _ask_again(self, session: FindSession, modality: str) -> None:
        """Ask by itself for each series of which the list holds less than the peer counts, or nothing."""
        for round_ in range(_ROUNDS):
            short = self._short(modality, unless_counted=1 if round_ == 0 else 0)
            for row in short:
                self._list_series(session, row.series_instance_uid)
        short = self._short(modality, unless_counted=0)
        if short:
            self._warn(
                f"of {len(short)} series of {modality} the peer lists fewer instances than it counts, {_ROUNDS} times: "
                "what else they hold is in no plan set"
            )

    def _short(self, modality: str, *, unless_counted: int) -> list[SeriesRow]:
        """Return the series of which less is listed than the peer counts.

        :param unless_counted: how many there should be where it does not count.
        """
        listed = self._counts()
        return [
            row
            for row in self.series.values()
            if row.modality == modality
            and listed.get(row.series_instance_uid, 0) < (unless_counted if row.count is None else row.count)
        ]

    def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for answer in self.answers.values():
            series = str(answer.get("SeriesInstanceUID") or "")
            counts[series] = counts.get(series, 0) + 1
        return counts

    def _is_listed(self, series: str) -> bool:
        row = self.series.get(series)
        return series in self._by_series or (row is not None and row.modality in self._modalities)

    def _ways(self, modality: str) -> tuple[Split, ...]:
        """Return how a list of a modality is split: by study, then by series, as the list of the series names them."""
        rows = [row for row in self.series.values() if row.modality in (modality, "")]

        def series(query: Query) -> list[str]:
            study = query.get("StudyInstanceUID")
            studies = study.values if study is not None else ()
            return [row.series_instance_uid for row in rows if not studies or row.study_instance_uid in studies]

        studies = [row.study_instance_uid for row in rows]
        return _ByUids("StudyInstanceUID", lambda query: studies), _ByUids("SeriesInstanceUID", series)

    def _warn_of(self, found: FindResult) -> None:
        for sentence in found.warnings:
            self._warn(sentence)

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)


@dataclass(frozen=True, slots=True)
class _ByUids:
    """Splits a query by the UIDs of all studies, or series, that it can be about: nothing is left over."""

    keyword: str
    uids: Callable[[Query], Iterable[str]]

    def parts(self, query: Query) -> list[Query]:
        key = query.get(self.keyword)
        if key is not None and key.values:
            return []
        named = dict.fromkeys(uid for uid in self.uids(query) if uid)
        return [query.with_key(Key(self.keyword, "UI", (uid,))) for uid in named]

    def remainder(self) -> str:
        return ""


def _row(answer: Mapping[str, Any]) -> SeriesRow:
    count = answer.get("NumberOfSeriesRelatedInstances")
    return SeriesRow(
        series_instance_uid=str(answer.get("SeriesInstanceUID") or ""),
        study_instance_uid=str(answer.get("StudyInstanceUID") or ""),
        modality=str(answer.get("Modality") or "").strip(),
        count=count if isinstance(count, int) else None,
    )


def _returned(modality: str) -> dict[str, Any]:
    revised = dict.fromkeys(REVISION_KEYWORDS) if modality in _REVISED else {}
    return {"SOPClassUID": None, **revised, **_RETURNED.get(modality, _IMAGES)}
