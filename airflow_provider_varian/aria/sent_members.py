"""What another AE was sent of a plan: of each object the revision that went, so that only what is new goes.

"Sent once" is once per revision (semantics 18). One JSON document per plan and AE, ``.dicom/sent-plans/{ID}.json``,
written when a sending has come to its end: UIDs, states and digests of dates. Killed before that, the next try sends
the same once more, which is harmless: they are the same UIDs, and the manifests tell of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Final

from airflow_provider_varian.retrieval.destination import OWN_FOLDER, Destination
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.outcome import State
from airflow_provider_varian.retrieval.request import Expected
from airflow_provider_varian.retrieval.revision import REVISION_KEYWORDS
from airflow_provider_varian.retrieval.schema import check_schema_version
from airflow_provider_varian.retrieval.versions import Refresh
from airflow_provider_varian.uids import CHANGING_STORAGE

logger = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
#: States of what went out, as far as somebody says.
_SENT: Final = (State.REPORTED, State.LISTED, State.VERIFIED)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentMember:
    """An object that was sent.

    :param revision: what :func:`revision_of` returned then.
    :param state: ``reported``, ``listed`` or ``verified``, as of a third-party move (semantics 10).
    """

    revision: str
    state: str


@dataclass(slots=True, kw_only=True)
class SentMembers:
    """What one AE was sent of one plan.

    :param id: names the document: the same for each run.
    :param members: by SOP Instance UID.
    :param manifest: ID of the manifest of the last sending; empty before the first.
    """

    id: str
    members: dict[str, SentMember] = field(default_factory=dict)
    manifest: str = ""

    def owed(self, expected: Iterable[Expected], *, refresh: Refresh = "if_changed") -> tuple[Expected, ...]:
        """Return what has to be sent: what was not, and what may change and is another revision than the one sent.

        :param expected: the members, with what the peer answered of them.
        :param refresh: ``always``: plans, structure sets and doses in any case; ``never``: nothing twice.
        """
        return tuple(item for item in expected if self._is_owed(item, refresh))

    def _is_owed(self, item: Expected, refresh: Refresh) -> bool:
        before = self.members.get(item.sop_instance_uid)
        if before is None:
            return True
        if item.sop_class_uid not in CHANGING_STORAGE or refresh == "never":
            return False
        return refresh == "always" or before.revision != revision_of(item)

    def note(self, manifest: Manifest, sent: Iterable[Expected]) -> None:
        """Take in what became of a sending.

        :param manifest: its account.
        :param sent: what was asked for.
        """
        self.manifest = manifest.id
        for item in sent:
            entry = manifest.ledger.entries[item.sop_instance_uid]
            if entry.state in _SENT:
                self.members[item.sop_instance_uid] = SentMember(revision=revision_of(item), state=str(entry.state))
            else:
                # An older revision that is there is not what was wanted.
                self.members.pop(item.sop_instance_uid, None)

    def write(self, destination: Destination) -> None:
        """Write it, whole or not at all.

        :raises DestinationWriteError: when it cannot be written.
        """
        content = {
            "schema_version": SCHEMA_VERSION,
            "manifest": self.manifest,
            "members": {uid: asdict(member) for uid, member in sorted(self.members.items())},
        }
        destination.write_text(_path(self.id), json.dumps(content, indent=1) + "\n")


def read_sent_members(destination: Destination, sent_id: str) -> SentMembers:
    """Read what was sent; nothing when there is no document, or none that can be read.

    :raises ConfigurationError: when a later version of this package wrote it.
    """
    text = destination.read_text(_path(sent_id))
    if text is None:
        return SentMembers(id=sent_id)
    try:
        found = json.loads(text)
        check_schema_version(found, SCHEMA_VERSION, what="what was sent of a plan", step="C-MOVE")
        members = {str(uid): SentMember(**each) for uid, each in found["members"].items()}
        return SentMembers(id=sent_id, members=members, manifest=str(found["manifest"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # Everything is sent again: harmless, since it has the same UIDs.
        logger.warning("What was sent as %s is not readable (%s)", sent_id, type(error).__name__)
        return SentMembers(id=sent_id)


def revision_of(item: Expected) -> str:
    """Return what tells one revision of an object from another: its dates and state; empty for what never changes."""
    if item.sop_class_uid not in CHANGING_STORAGE:
        return ""
    said = [str(item.values.get(keyword) or "") for keyword in REVISION_KEYWORDS]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def digest_of(items: Iterable[Expected]) -> str:
    """Return what tells one sending of a plan from another: which objects in which revisions."""
    said = sorted((item.sop_instance_uid, revision_of(item)) for item in items)
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _path(sent_id: str) -> PurePosixPath:
    return OWN_FOLDER / "sent-plans" / f"{sent_id}.json"
