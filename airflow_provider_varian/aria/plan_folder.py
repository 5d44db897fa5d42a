"""A plan's own folder: ``{plan UID}/{CT|RTSTRUCT|RTPLAN|RTDOSE|...}/{SOPInstanceUID}.dcm``, whole or known not to be.

Objects are copied here from the pool of the run (:mod:`.plan_pool`): by a hard link where the destination is local,
else by an upload that is read back. Each is written once. The index ``plan-set.json`` is written last, and says
``pending`` from the first change until then: **a folder is what its index says, and without one, or while that is
pending, it is not whole.** A run that changes nothing leaves the index as it is.

A plan, structure set or dose that came in another version takes the place of the older one, which is kept as
``.dicom/versions/{SOPInstanceUID}/...`` of the destination first; but not that of a version of a later day, which
another run has filed meanwhile. When a new version names other doses than the one before, and all of them are here,
those that nothing names any more are put among the versions as well.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final

from airflow_provider_varian.aria.copies import copy_once
from airflow_provider_varian.aria.plan_pool import Got
from airflow_provider_varian.aria.plan_set import Member, PlanSet, Role
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.retrieval.conflicts import ConflictFiles, conflict_path
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.held import Verify
from airflow_provider_varian.retrieval.revision import is_later, revision_of
from airflow_provider_varian.retrieval.schema import check_schema_version
from airflow_provider_varian.retrieval.verify import same_content, sha256_of
from airflow_provider_varian.retrieval.versions import version_path
from airflow_provider_varian.uids import CHANGING_STORAGE, STORAGE_BY_MODALITY, is_uid

logger = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
INDEX_NAME: Final = "plan-set.json"
#: What the index says between the first change of a folder and its end.
PENDING: Final = "pending"
_SUFFIX: Final = ".dcm"
_OBJECT_KEYS: Final = frozenset({"sop_instance_uid", "sop_class_uid", "role", "path", "bytes", "sha256"})
#: Planning images are filed by what they are: CT as a rule, MR or PT now and then.
_IMAGE_FOLDERS: Final = {uid: modality for modality in ("CT", "MR", "PT") for uid in STORAGE_BY_MODALITY[modality]}
_FOLDERS: Final = tuple(dict.fromkeys((*(role.folder for role in Role), *_IMAGE_FOLDERS.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filed:
    """An object in a plan's folder.

    :param path: below the destination's root.
    :param bytes: size of its file.
    :param sha256: of its file.
    :param is_new: it was not there before.
    :param superseded: where the version is kept whose place it took; None when it took none.
    :param conflicts: other contents under its UID, kept beside it.
    """

    path: PurePosixPath
    bytes: int
    sha256: str
    is_new: bool = False
    superseded: PurePosixPath | None = None
    conflicts: tuple[PurePosixPath, ...] = ()


class PlanFolder:
    """The folder of one plan.

    :param destination: the destination of the exports.
    :param plan_uid: SOP Instance UID of the plan.
    :param volatile: keywords that the peer rewrites at each export: they make no other version.
    :param verify: is a file whole when it has the size that the last index says (``path``), or the ``hash`` too?
    :param cancellation: stops it from outside.
    """

    def __init__(
        self,
        destination: Destination,
        plan_uid: str,
        *,
        volatile: Iterable[str] = (),
        verify: Verify = "path",
        cancellation: Cancellation,
    ) -> None:
        if not is_uid(plan_uid):
            raise ConfigurationError("the plan's UID is none", hint="Give its SOP Instance UID: digits and dots")
        self._destination = destination
        self._volatile = frozenset(volatile)
        self._verify = verify
        self._cancellation = cancellation
        self.path = PurePosixPath(plan_uid)
        self._before = _read_index(destination, self.index_path)
        self._former = {str(each["sop_instance_uid"]): each for each in self._before.get("objects", ())}
        self._conflicts = ConflictFiles(destination)
        self._is_marked = False
        self._filed: dict[str, Filed] = {}

    @property
    def index_path(self) -> PurePosixPath:
        """Where the index is, below the destination's root."""
        return self.path / INDEX_NAME

    @property
    def uri(self) -> str:
        """Path or URI of the folder."""
        return self._destination.uri_of(self.path)

    def held(self) -> dict[str, PurePosixPath]:
        """Return what is held in it, by SOP Instance UID.

        Objects are put at their final paths whole or not at all. What is not as an export left it is not held, and
        is replaced by what comes.
        """
        found = {}
        for uid, path in self._objects():
            self._cancellation.raise_if_cancelled()
            if self._is_as_it_was(uid, path):
                found[uid] = path
            else:
                logger.warning("Object %s is not as it was filed: it is asked for again", uid)
        return found

    def _objects(self) -> Iterator[tuple[str, PurePosixPath]]:
        for folder in _FOLDERS:
            for path in self._destination.names_beside(self.path / folder / "any", ""):
                if path.suffix == _SUFFIX and is_uid(path.stem):
                    yield path.stem, path

    def _is_as_it_was(self, uid: str, path: PurePosixPath) -> bool:
        each = self._former.get(uid)
        if each is None:
            return True
        if each["bytes"] != self._destination.size(path):
            return False
        if self._verify != "hash":
            return True
        with self._destination.local_copy(path) as local:
            return sha256_of(local) == str(each["sha256"])

    def file(self, member: Member, got: Got) -> Filed:
        """Put an object that is here into the folder; harmless when it is there.

        :param member: what it is to the plan.
        :param got: where it is.
        :raises DestinationWriteError: when it cannot be written, or reads back differently.
        """
        self._cancellation.raise_if_cancelled()
        if got.path is None:
            raise ValueError("an object that is not here cannot be filed")
        final = self.path / _folder_of(member) / f"{member.sop_instance_uid}{_SUFFIX}"
        if final == got.path and (sha256 := self._known_sha256(member, got)):
            filed = Filed(path=final, bytes=got.bytes, sha256=sha256)
        else:
            with self._destination.local_copy(got.path) as source:
                filed = self._put(source, final, member, got)
        kept = (self._keep_conflict(other, final) for other in got.conflicts)
        # Those of earlier exports too: a conflict ends when a person has removed the other content.
        filed = replace(filed, conflicts=tuple(dict.fromkeys((*kept, *self._conflicts.beside(final)))))
        self._filed[member.sop_instance_uid] = filed
        return filed

    def finish(self, plan_set: PlanSet, *, with_label: bool = False) -> bool:
        """Write the index, last; say whether the folder or it changed.

        :param plan_set: what belongs to the plan, judged.
        :param with_label: write the plan's label and course into it too.
        """
        left = self._put_away(plan_set)
        roles = {member.sop_instance_uid: member for member in plan_set.members}
        objects = [
            {
                "sop_instance_uid": uid,
                "sop_class_uid": roles[uid].sop_class_uid,
                "role": str(roles[uid].role),
                "path": str(filed.path.relative_to(self.path)),
                "bytes": filed.bytes,
                "sha256": filed.sha256,
            }
            for uid, filed in sorted(self._filed.items())
        ]
        content = {
            "schema_version": SCHEMA_VERSION,
            "state": str(plan_set.completeness),
            "plan_set": plan_set.to_json(with_label=with_label),
            "objects": objects,
            "left": left,
        }
        before = {key: value for key, value in self._before.items() if key != "written"}
        if not self._is_marked and before == json.loads(json.dumps(content)):
            return False
        self._write_index(content)
        return True

    def _put(self, source: Path, final: PurePosixPath, member: Member, got: Got) -> Filed:
        if final == got.path:
            return Filed(path=final, bytes=got.bytes, sha256=sha256_of(source))
        may_change = member.sop_class_uid in CHANGING_STORAGE
        # Another task of the run may have put a newer version into the pool since.
        sha256 = sha256_of(source) if may_change or not got.sha256 else got.sha256
        superseded: PurePosixPath | None = None
        is_new = self._destination.size(final) is None
        if is_new:
            self._mark()
            is_new = copy_once(self._destination, source, final, sha256=sha256)
        if not is_new and (may_change or not self._is_as_it_was(member.sop_instance_uid, final)):
            sha256, superseded = self._renewed(source, final, member, sha256)
        elif not is_new or may_change:
            with self._destination.local_copy(final) as local:
                sha256 = sha256_of(local)
        return Filed(
            path=final,
            bytes=source.stat().st_size if is_new else self._destination.size(final) or 0,
            sha256=sha256,
            is_new=is_new,
            superseded=superseded,
        )

    def _renewed(
        self, source: Path, final: PurePosixPath, member: Member, sha256: str
    ) -> tuple[str, PurePosixPath | None]:
        """Put another version in the place of what is there; return what is there then, and where the older one is."""
        uid = member.sop_instance_uid
        with self._destination.local_copy(final) as local:
            there = sha256_of(local)
            if there == sha256 or self._is_same(local, source):
                return there, None
            if is_later(revision_of(local), revision_of(source)):
                logger.warning("Object %s: the plan's folder has a version of a later day, which stays", uid)
                return there, None
            self._mark()
            kept = version_path(uid, there)
            copy_once(self._destination, local, kept, sha256=there)
        replaced = self._destination.replace(
            source, final, sha256=sha256, instead_of=there, pause=self._cancellation.pause
        )
        if replaced:
            logger.info("Object %s: a newer version came; the older one is kept", uid)
            return sha256, kept
        # Another run was quicker: what it filed was asked for at the same time as ours.
        copy_once(self._destination, source, version_path(uid, sha256), sha256=sha256)
        logger.warning("Object %s: another run has filed a version meanwhile; ours is kept among the versions", uid)
        with self._destination.local_copy(final) as local:
            return sha256_of(local), None

    def _is_same(self, first: Path, second: Path) -> bool:
        """Say whether two files hold the same, but for what the peer rewrites at each export."""
        try:
            return same_content(first, second, volatile=self._volatile)
        except Exception:  # noqa: BLE001 - pydicom raises many kinds; what cannot be read is not the same
            return False

    def _keep_conflict(self, other: PurePosixPath, final: PurePosixPath) -> PurePosixPath:
        """Keep another content of an image beside it: the pool goes away."""
        with self._destination.local_copy(other) as source:
            sha256 = sha256_of(source)
            kept = conflict_path(final, sha256)
            copy_once(self._destination, source, kept, sha256=sha256)
        return kept

    def _put_away(self, plan_set: PlanSet) -> list[str]:
        """Put what the plan set names no more among the versions; return what is left in the folder unnamed.

        Only what an export filed, only structure sets and doses of a role that was looked for, and only when all that
        is named now is here: a list of the peer that wobbles must not empty a folder.
        """
        named = {member.sop_instance_uid for member in plan_set.members}
        wanted = {str(role) for role in plan_set.wanted if role is not Role.PLAN}
        left = []
        for uid, path in sorted(self._objects()):
            if uid in named:
                continue
            each = self._former.get(uid)
            may_go = each is not None and each["sop_class_uid"] in CHANGING_STORAGE and each["role"] in wanted
            if not (may_go and plan_set.completeness == "complete" and self._put_among_versions(uid, path)):
                left.append(str(path.relative_to(self.path)))
        return left

    def _put_among_versions(self, uid: str, path: PurePosixPath) -> bool:
        self._mark()
        with self._destination.local_copy(path) as local:
            sha256 = sha256_of(local)
            copy_once(self._destination, local, version_path(uid, sha256), sha256=sha256)
        logger.info("Object %s: the plan does not name it any more; it is kept among the versions", uid)
        return self._destination.remove(path, sha256=sha256, pause=self._cancellation.pause)

    def _known_sha256(self, member: Member, got: Got) -> str:
        """Return what the last index says of an object that is as long as it was."""
        each = self._former.get(member.sop_instance_uid)
        return str(each["sha256"]) if each is not None and each["bytes"] == got.bytes else ""

    def _mark(self) -> None:
        """Let the index say that the folder is being changed; once."""
        if self._is_marked:
            return
        self._is_marked = True
        if self._before and self._before.get("state") != PENDING:
            self._write_index({**self._before, "state": PENDING})

    def _write_index(self, content: Mapping[str, Any]) -> None:
        written = {**content, "written": datetime.now(UTC).isoformat(timespec="seconds")}
        self._destination.write_text(self.index_path, json.dumps(written, indent=1) + "\n")


def filed_uids(destination: Destination, plan_uid: str) -> frozenset[str]:
    """Return what a plan's folder holds, as its index says: nothing while it is pending.

    :param destination: the destination of the exports.
    :param plan_uid: SOP Instance UID of the plan.
    """
    index = _read_index(destination, PurePosixPath(plan_uid) / INDEX_NAME)
    if index.get("state") == PENDING:
        return frozenset()
    return frozenset(str(each["sop_instance_uid"]) for each in index.get("objects", ()))


def _read_index(destination: Destination, path: PurePosixPath) -> dict[str, Any]:
    """Read an index; empty when there is none, or when it is none that can be read."""
    text = destination.read_text(path)
    if text is None:
        return {}
    try:
        found = json.loads(text)
        check_schema_version(found, SCHEMA_VERSION, what="a plan's index")
        well = all(each.keys() >= _OBJECT_KEYS for each in found["objects"])
    except (ValueError, KeyError, TypeError, AttributeError):
        well = False
    if not well:
        logger.warning("The index %s cannot be read; it is made anew", destination.uri_of(path))
        return {}
    return dict(found)


def _folder_of(member: Member) -> str:
    if member.role is Role.IMAGE:
        return _IMAGE_FOLDERS.get(member.sop_class_uid, Role.IMAGE.folder)
    return member.role.folder
