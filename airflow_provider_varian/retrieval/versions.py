"""Newer versions of held objects: when to ask for one, and how it takes the place of the older (semantics 9).

The final path holds one whole version at any moment. The older one is made durable first, as
``.dicom/versions/{SOPInstanceUID}/{start of its SHA-256}.dcm``; then the newer one replaces it in one step. A kill
between the two leaves the older version at both places.

Two retrievals may bring different versions at the same time, and no clock tells which of them is newer. But what is
asked for after a look at the final path is at least as new as what was seen there. So that alone is replaced; where
something else has come in between, what we brought is kept beside the versions, and asked for again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from airflow_provider_varian.errors import ConfigurationError, DestinationWriteError
from airflow_provider_varian.retrieval.destination import OWN_FOLDER, Destination, Pause
from airflow_provider_varian.retrieval.excerpt import Excerpt
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.retrieval.revision import (
    Verdict,
    is_later,
    judge_revision,
    revision_in,
    revision_of,
)
from airflow_provider_varian.retrieval.verify import is_object, sha256_of
from airflow_provider_varian.uids import CHANGING_STORAGE

logger = logging.getLogger(__name__)

#: What to do about a held object of a class whose objects may change under their UID: ask for it again when the peer
#: holds another revision or does not say (``if_changed``), never, or always.
Refresh = Literal["if_changed", "never", "always"]

_CHOICES: Final = ("if_changed", "never", "always")
_DIGITS: Final = 12
#: In the place of a SHA-256: something is there that cannot be read.
_UNREADABLE: Final = "unreadable"


def check_refresh(refresh: str) -> None:
    """Refuse what is none of the choices.

    :raises ConfigurationError: names them.
    """
    if refresh not in _CHOICES:
        raise ConfigurationError(f"refresh is {refresh!r}", hint=f"Choose one of {', '.join(_CHOICES)}")


def version_path(sop_instance_uid: str, sha256: str) -> PurePosixPath:
    """Return where an older version is kept, below the destination's root.

    :param sop_instance_uid: which object.
    :param sha256: SHA-256 of the version's file, in hexadecimal.
    """
    return OWN_FOLDER / "versions" / sop_instance_uid / f"{sha256[:_DIGITS]}.dcm"


@dataclass(frozen=True, slots=True)
class _Look:
    """What was at a path, and how often the object had been asked for by then."""

    sha256: str
    attempts: int


class Versions:
    """Decides which held objects are asked for again, and files what comes then.

    :param destination: where objects are.
    :param refresh: when to ask again.
    """

    def __init__(self, destination: Destination, refresh: Refresh) -> None:
        self._destination = destination
        self._refresh = refresh
        #: Why what is held is not taken for current, by SOP Instance UID.
        self._in_doubt: dict[str, Verdict] = {}
        #: What was seen where, by SOP Instance UID and path.
        self._looks: dict[tuple[str, PurePosixPath], _Look] = {}

    @property
    def undecided(self) -> int:
        """How many held objects are asked for again because the peer does not say whether they changed."""
        return 0 if self._refresh == "always" else list(self._in_doubt.values()).count(Verdict.UNDECIDED)

    def is_current(self, entry: Entry, path: PurePosixPath, answered: Mapping[str, Any], *, fetched: bool) -> bool:
        """Say whether what is held may stay as it is; else it has to be asked for.

        :param entry: the instance.
        :param path: where it is held.
        :param answered: what the peer says of it, by keyword.
        :param fetched: an unfinished try of the same retrieval brought it. It is not asked for twice, unless the peer
            says that it changed since.
        """
        self._in_doubt.pop(entry.sop_instance_uid, None)
        if self._refresh == "never" or (entry.sop_class_uid and entry.sop_class_uid not in CHANGING_STORAGE):
            return True
        with self._destination.local_copy(path) as local:
            held = revision_of(local)
        sop_class_uid = entry.sop_class_uid or str(held.get("SOPClassUID") or "")
        if sop_class_uid and sop_class_uid not in CHANGING_STORAGE:
            return True
        verdict = judge_revision(answered, held)
        is_same = verdict is Verdict.SAME and self._refresh != "always"
        # Of a file that says nothing at all, not even its class, nobody knows what it is.
        if held and verdict is not Verdict.CHANGED and (fetched or is_same):
            return True
        self._in_doubt[entry.sop_instance_uid] = verdict
        return False

    def look(self, entry: Entry, path: PurePosixPath) -> None:
        """Remember what is at a path, before the object is asked for: that alone is replaced by what comes.

        :param entry: the instance, which is to be asked for.
        :param path: where it may belong.
        """
        if self._refresh == "never" or (entry.sop_class_uid and entry.sop_class_uid not in CHANGING_STORAGE):
            return
        found = self._sha256_at(path)
        self._looks[entry.sop_instance_uid, path] = _Look(found, entry.attempts)
        if found and not entry.older and entry.sop_instance_uid in self._in_doubt:
            entry.older = str(path)

    def _sha256_at(self, path: PurePosixPath) -> str:
        if self._destination.size(path) is None:
            return ""
        try:
            with self._destination.local_copy(path) as local:
                return sha256_of(local)
        except DestinationWriteError:
            return _UNREADABLE

    def is_in_doubt(self, sop_instance_uid: str) -> bool:
        """Say whether something is held that was not taken for current."""
        return sop_instance_uid in self._in_doubt

    def is_outdated(self, sop_instance_uid: str) -> bool:
        """Say whether something is held that changed, as the peer says."""
        return self._in_doubt.get(sop_instance_uid) is Verdict.CHANGED

    def reason(self, sop_instance_uid: str) -> str:
        """Say what is held of an instance that did not come; empty when nothing is."""
        if sop_instance_uid not in self._in_doubt:
            return ""
        if self.is_outdated(sop_instance_uid):
            return "an older version is held"
        return "a version is held that may be older than the peer's"

    def may_replace(self, entry: Entry, sop_class_uid: str) -> bool:
        """Say whether other content than what is held is a newer version, and not a conflict.

        What this retrieval has brought already is as new as what comes after it: two contents then are a conflict.
        """
        return self._refresh != "never" and sop_class_uid in CHANGING_STORAGE and not entry.fetched

    def is_told_by_the_ledger_alone(self, sop_class_uid: str, excerpt: Excerpt, answered: Mapping[str, Any]) -> bool:
        """Say whether a retry would ask again for what just came, if the manifest did not say that it came.

        :param sop_class_uid: its class.
        :param excerpt: what was kept of its head.
        :param answered: what the peer says of it, by keyword.
        """
        if self._refresh == "never" or sop_class_uid not in CHANGING_STORAGE:
            return False
        return self._refresh == "always" or judge_revision(answered, revision_in(excerpt)) is Verdict.UNDECIDED

    def keep(self, source: Path, sop_instance_uid: str, sha256: str) -> PurePosixPath:
        """Keep a version beside the others, durably, and return where.

        :param source: its file.
        :param sop_instance_uid: which object.
        :param sha256: SHA-256 of the file.
        """
        kept = version_path(sop_instance_uid, sha256)
        self._destination.publish(source, kept, sha256=sha256)
        return kept

    def replace(
        self, source: Path, path: PurePosixPath, entry: Entry, sha256: str, *, pause: Pause
    ) -> PurePosixPath | None:
        """Put a newer version in the place of what is held, after keeping that.

        :param source: the file of the newer version.
        :param path: the final path.
        :param entry: the instance.
        :param sha256: SHA-256 of the newer version's file.
        :param pause: how to wait while another process replaces something.
        :return: where the older version is kept; ``None`` when what is there may be the newer one, since another
            retrieval has filed it meanwhile. Then ours is kept beside the versions.
        :raises DestinationWriteError: when it cannot be written.
        """
        uid = entry.sop_instance_uid
        with self._destination.local_copy(path) as local:
            older = sha256_of(local)
            kept = self.keep(local, uid, older) if self._is_older(entry, path, older, local, source) else None
        if kept is not None and self._destination.replace(source, path, sha256=sha256, instead_of=older, pause=pause):
            logger.info("Object %s: a newer version came; the older one is kept", uid)
            entry.older = "" if entry.older == str(path) else entry.older
            return kept
        ours = self.keep(source, uid, sha256)
        logger.warning("Object %s: another retrieval has filed a version meanwhile; ours is kept as %s", uid, ours)
        self._in_doubt.pop(uid, None)
        self.look(entry, path)
        return None

    def _is_older(self, entry: Entry, path: PurePosixPath, found: str, local: Path, source: Path) -> bool:
        """Say whether what is at a path is older than what was brought."""
        look = self._looks.get((entry.sop_instance_uid, path))
        if look is None:
            # Nobody could tell before that it belongs there. The days that both files name have to do.
            return not is_later(revision_of(local), revision_of(source))
        return look.sha256 == found and entry.attempts > look.attempts

    def retire(self, entry: Entry, *, pause: Pause) -> None:
        """Take the older version away from its path, after keeping it, where the newer one is filed under another.

        :param entry: the instance, whose newer version is durable at its own path.
        :param pause: as in :meth:`replace`.
        :raises DestinationWriteError: when it cannot be kept, or not be removed.
        """
        uid, path = entry.sop_instance_uid, PurePosixPath(entry.older)
        look = self._looks.get((uid, path))
        if entry.older != entry.path and look is not None and self._destination.size(path) is not None:
            with self._destination.local_copy(path) as local:
                # What else may be there by now is not ours to remove.
                kept = self.keep(local, uid, look.sha256) if self._is_still(look, local, uid) else None
            if kept is not None and self._destination.remove(path, sha256=look.sha256, pause=pause):
                logger.info("Object %s: a newer version is filed under another path; the older one is kept", uid)
                entry.superseded = str(kept)
        entry.older = ""

    def _is_still(self, look: _Look, local: Path, sop_instance_uid: str) -> bool:
        return sha256_of(local) == look.sha256 and is_object(local, sop_instance_uid)
