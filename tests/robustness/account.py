"""What must hold after each retrieval, whatever has happened to it: judged from files, not by what it says of itself.

Nothing here uses how the package verifies: files are found by walking the folder, read by pydicom, and compared with
the source element by element.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

#: What an export sets anew (varian-daemon 1.4), and what only a file has.
_OF_THE_EXPORT = ("InstanceCreationDate", "InstanceCreationTime")

Source = Callable[[str], Dataset]


def objects_in(root: Path) -> list[Path]:
    """List the files at final paths: all that is not below ``.dicom``."""
    return sorted(path for path in root.rglob("*") if path.is_file() and ".dicom" not in path.relative_to(root).parts)


def whole_objects(root: Path, source: Source) -> dict[str, Path]:
    """Return the files at final paths by SOP Instance UID; each must be whole, once, and equal to its source."""
    found: dict[str, Path] = {}
    for path in objects_in(root):
        held = plain(dcmread(path))
        uid = str(held.SOPInstanceUID)
        assert uid not in found, f"{uid} is held twice: {found[uid]} and {path}"
        assert path.name.split(".", 1)[1] == f"{uid}.dcm", path
        assert held == as_sent(source(uid)), f"{path} is not what the source holds"
        found[uid] = path
    return found


def plain(data_set: Dataset) -> Dataset:
    """Return a data set without what an export sets."""
    result = Dataset()
    for element in data_set:
        if element.keyword not in _OF_THE_EXPORT and element.tag.element != 0:
            result.add(element)
    return result


def as_sent(data_set: Dataset) -> Dataset:
    """Return a data set as any client of the daemon reads it: in Implicit VR, text in Unicode (varian-daemon 1.1)."""
    data_set.SpecificCharacterSet = "ISO_IR 192"
    written = DicomBytesIO()
    written.is_little_endian, written.is_implicit_VR = True, True
    write_dataset(written, data_set)
    written.seek(0)
    return plain(read_dataset(written, is_implicit_VR=True, is_little_endian=True))


def read_manifest(root: Path, retrieval_id: str) -> dict[str, Any] | None:
    """Read a manifest as JSON; it is there whole, or not at all."""
    path = root / ".dicom" / f"{retrieval_id}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def check_files(root: Path, spool: Path, source: Source) -> dict[str, Path]:
    """Check what is there after a kill: nothing at a final path that is not whole; return what is there."""
    held = whole_objects(root, source) if root.exists() else {}
    for path in (spool / "new").glob("*/*.dcm"):
        # Acknowledged, hence durable, hence whole.
        held_back = plain(dcmread(path))
        assert held_back == as_sent(source(str(held_back.SOPInstanceUID))), path
    return held


def check_account(root: Path, retrieval_id: str, source: Source) -> dict[str, Any]:
    """Check a judged retrieval: the sum, the files behind it, and a reason for each instance that is not here."""
    manifest = read_manifest(root, retrieval_id)
    assert manifest is not None
    instances = manifest["instances"]
    states = [each["state"] for each in instances]
    counts = manifest["counts"]
    named = {state: states.count(state) for state in ("missing", "failed", "conflict")}
    assert len({each["sop_instance_uid"] for each in instances}) == len(instances)
    assert counts["found"] == len(instances) == counts["verified"] + sum(named.values()), counts
    assert counts["verified"] == states.count("verified")
    assert {state: counts[state] for state in named} == named
    held = whole_objects(root, source)
    for each in instances:
        if each["state"] == "verified":
            path = root / each["path"]
            assert held[each["sop_instance_uid"]] == path
            assert each["bytes"] == path.stat().st_size
            assert each.get("sha256", "") in ("", hashlib.sha256(path.read_bytes()).hexdigest())
        else:
            assert each.get("reason"), f"{each['sop_instance_uid']} is {each['state']} without a reason"
            assert each["sop_instance_uid"] not in held or each["state"] == "conflict"
    complete = all(state == "verified" for state in states)
    assert manifest["outcome"] in (("complete", "empty", "limited", "short") if complete else ("partial", "pending"))
    return manifest


def check_nothing_is_left(root: Path, spool: Path, *, killed: bool = False, unasked: Collection[str] = ()) -> None:
    """Check that neither spool nor destination holds anything beyond objects and accounts.

    :param killed: a process was killed, which leaves its temporary files in ``.dicom/tmp`` for a day.
    :param unasked: what came by C-MOVE and nobody asked for: it stays in the spool, unclaimed.
    """
    left = [path for path in spool.rglob("*") if path.is_file() and path != spool / "lock"]
    left = [path for path in left if not (path.match("new/*/*.dcm") and path.name.rsplit(".", 2)[0] in unasked)]
    assert left == [], "the spool is empty"
    assert sorted(path.name for path in (*spool.glob("claimed/*"), *spool.glob("tmp/*"))) == []
    own = [path for path in (root / ".dicom").rglob("*") if path.is_file()]
    unknown = [path for path in own if path.parent != root / ".dicom" or path.suffix != ".json"]
    if killed:
        unknown = [path for path in unknown if not (path.parent.name == "tmp" and path.suffix == ".part")]
    assert unknown == []
