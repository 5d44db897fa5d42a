"""A plan's folder: written once, whole or known not to be, the newest version in its place and the older one kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import PurePosixPath

import pytest
from support.dicom_files import dicom_file
from support.plan_objects import PLAN_UID, member, members, object_of, plan_set, pooled
from upath import UPath

from airflow_provider_varian.aria.plan_folder import PlanFolder, filed_uids
from airflow_provider_varian.aria.plan_pool import Got
from airflow_provider_varian.aria.plan_set import Role, Standing
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import CancelledError, ConfigurationError, DestinationWriteError
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.verify import sha256_of

INDEX = PurePosixPath(PLAN_UID) / "plan-set.json"


@pytest.fixture(params=["folder", "store"])
def destination(request, tmp_path):
    if request.param == "folder":
        return Destination(tmp_path / "root")
    return Destination(UPath(f"memory://{tmp_path.name}"))


@pytest.fixture
def put(destination, tmp_path):
    """Export members: ``put(members)``; what came of each is returned, and whether the folder changed."""

    def export(some, *, attributes=None, judged=None, folder=None):
        folder = folder or _folder(destination)
        filed = {}
        for each in some:
            if each.standing is Standing.HELD:
                got = pooled(destination, tmp_path, each, **(attributes or {}).get(each.sop_instance_uid, {}))
                filed[each.sop_instance_uid] = folder.file(each, got)
        return filed, folder.finish(judged or plan_set(some))

    return export


def _folder(destination, **more) -> PlanFolder:
    return PlanFolder(destination, PLAN_UID, **{"cancellation": Cancellation()} | more)


def _index(destination) -> dict:
    return json.loads(destination.read_text(INDEX))


def _hash(destination, path) -> str:
    with destination.local_copy(PurePosixPath(path)) as local:
        return sha256_of(local)


def test_each_role_has_its_folder_and_the_index_names_what_is_there(destination, put):
    filed, changed = put(members())
    assert changed
    assert {str(each.path) for each in filed.values()} == {
        f"{PLAN_UID}/RTPLAN/1.2.3.1.dcm",
        f"{PLAN_UID}/RTSTRUCT/1.2.3.2.dcm",
        f"{PLAN_UID}/CT/1.2.3.4.1.dcm",
        f"{PLAN_UID}/CT/1.2.3.4.2.dcm",
        f"{PLAN_UID}/RTDOSE/1.2.3.5.dcm",
    }
    index = _index(destination)
    assert index["state"] == "complete"
    for each in index["objects"]:
        path = PurePosixPath(PLAN_UID) / each["path"]
        assert (destination.size(path), _hash(destination, path)) == (each["bytes"], each["sha256"])
    assert filed_uids(destination, PLAN_UID) == set(filed)


def test_planning_images_are_filed_by_what_they_are(destination, put):
    mr = member("1.2.3.4.1", Role.IMAGE, sop_class_uid="1.2.840.10008.5.1.4.1.1.4")
    filed, _ = put([mr])
    assert filed["1.2.3.4.1"].path.parent.name == "MR"


def test_locally_an_object_is_not_stored_twice(tmp_path, put, destination):
    filed, _ = put(members())
    if destination.is_local:
        pool = tmp_path / "root/.dicom/pool/run"
        assert all((tmp_path / "root" / each.path).samefile(pool / each.path.name) for each in filed.values())


def test_where_there_are_no_hard_links_objects_are_copied(tmp_path, put, destination, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("airflow_provider_varian.aria.copies.os.link", refuse)
    filed, _ = put(members())
    assert all(destination.size(each.path) for each in filed.values())
    assert _index(destination)["state"] == "complete"


def test_a_second_export_changes_nothing(destination, put):
    put(members())
    before = destination.read_text(INDEX)
    filed, changed = put(members())
    assert not changed
    assert not any(each.is_new for each in filed.values())
    assert destination.read_text(INDEX) == before


def test_without_an_index_the_folder_is_not_whole(destination, tmp_path):
    """A kill before the end: objects are there, and nothing says that it is all of them."""
    folder = _folder(destination)
    some = members()
    for each in some[:3]:
        folder.file(each, pooled(destination, tmp_path, each))
    assert destination.read_text(INDEX) is None
    assert filed_uids(destination, PLAN_UID) == frozenset()
    assert set(_folder(destination).held()) == {each.sop_instance_uid for each in some[:3]}


def test_the_index_is_pending_from_the_first_change_to_the_last(destination, put, tmp_path):
    put(members())
    folder = _folder(destination)
    some = members()
    for each in some:
        folder.file(each, pooled(destination, tmp_path, each))
    assert _index(destination)["state"] == "complete"  # nothing has changed yet
    record = member("1.2.3.6.1", Role.RECORD)
    folder.file(record, pooled(destination, tmp_path, record))
    assert _index(destination)["state"] == "pending"
    assert filed_uids(destination, PLAN_UID) == frozenset()
    # Killed here. The next export finds all of it there, and ends what was begun.
    _, changed = put([*some, record])
    assert changed
    assert _index(destination)["state"] == "complete"


def test_a_file_that_somebody_removed_comes_back_and_the_index_does_not_stay_pending(destination, put, tmp_path):
    put(members())
    path = PurePosixPath(PLAN_UID) / "CT" / "1.2.3.4.1.dcm"
    assert destination.remove(path, sha256=_hash(destination, path))
    put(members())
    assert destination.size(path)
    assert _index(destination)["state"] == "complete"


def test_a_newer_version_takes_the_place_of_the_older_one_which_is_kept(destination, put):
    put(members(), attributes={PLAN_UID: {"ApprovalStatus": "UNAPPROVED", "RTPlanDate": "20260101"}})
    older = _hash(destination, f"{PLAN_UID}/RTPLAN/{PLAN_UID}.dcm")
    filed, changed = put(members(), attributes={PLAN_UID: {"ApprovalStatus": "APPROVED", "RTPlanDate": "20260102"}})
    assert changed
    kept = filed[PLAN_UID].superseded
    assert _hash(destination, kept) == older
    assert _hash(destination, f"{PLAN_UID}/RTPLAN/{PLAN_UID}.dcm") == filed[PLAN_UID].sha256 != older
    (plan,) = [each for each in _index(destination)["objects"] if each["role"] == "plan"]
    assert plan["sha256"] == filed[PLAN_UID].sha256


def test_an_older_version_does_not_take_the_place_of_a_newer_one(destination, put, caplog):
    """Two runs: the one that asked earlier files later."""
    put(members(), attributes={PLAN_UID: {"RTPlanDate": "20260102"}})
    newer = _hash(destination, f"{PLAN_UID}/RTPLAN/{PLAN_UID}.dcm")
    filed, _ = put(members(), attributes={PLAN_UID: {"RTPlanDate": "20260101"}})
    assert filed[PLAN_UID].sha256 == newer == _hash(destination, f"{PLAN_UID}/RTPLAN/{PLAN_UID}.dcm")
    assert "a version of a later day, which stays" in caplog.text


def test_a_version_that_another_task_put_into_the_pool_meanwhile_is_the_one_that_is_filed(destination, tmp_path):
    plan = members()[0]
    got = pooled(destination, tmp_path, plan, RTPlanDate="20260101")
    newer = pooled(destination, tmp_path, plan, RTPlanDate="20260102")
    filed = _folder(destination).file(plan, got)
    assert filed.sha256 == newer.sha256 == _hash(destination, filed.path)


def test_what_the_peer_rewrites_at_each_export_is_no_newer_version(destination, put):
    put(members(), attributes={PLAN_UID: {"InstanceCreationTime": "101500"}})
    before = _hash(destination, f"{PLAN_UID}/RTPLAN/{PLAN_UID}.dcm")
    filed, changed = put(
        members(),
        attributes={PLAN_UID: {"InstanceCreationTime": "111500"}},
        folder=_folder(destination, volatile={"InstanceCreationTime"}),
    )
    assert not changed
    assert filed[PLAN_UID].sha256 == before
    assert filed[PLAN_UID].superseded is None


def test_a_file_that_cannot_be_read_is_replaced_and_kept(destination, put, tmp_path):
    path = PurePosixPath(PLAN_UID) / "RTPLAN" / f"{PLAN_UID}.dcm"
    destination.write_text(path, "no DICOM")
    filed, _ = put(members())
    assert _hash(destination, path) == filed[PLAN_UID].sha256
    assert destination.size(filed[PLAN_UID].superseded) == len("no DICOM")


def test_images_never_change(destination, put):
    put(members())
    before = _hash(destination, f"{PLAN_UID}/CT/1.2.3.4.1.dcm")
    _, changed = put(members(), attributes={"1.2.3.4.1": {"InstanceNumber": "9"}})
    assert not changed
    assert _hash(destination, f"{PLAN_UID}/CT/1.2.3.4.1.dcm") == before


@pytest.mark.parametrize(("verify", "spoiled"), [("path", b"cut"), ("hash", None)])
def test_what_is_not_as_it_was_filed_is_not_held_and_is_replaced(destination, put, tmp_path, verify, spoiled):
    """A file that was cut short shows by its size; one that was changed, by its hash alone."""
    put(members())
    path = PurePosixPath(PLAN_UID) / "CT" / "1.2.3.4.1.dcm"
    with destination.local_copy(path) as local:
        whole = local.read_bytes()
    other = spoiled or whole[:-1] + bytes([whole[-1] ^ 1])
    destination.remove(path, sha256=_hash(destination, path))
    (tmp_path / "other").write_bytes(other)
    destination.publish(tmp_path / "other", path, sha256=sha256_of(tmp_path / "other"))
    folder = _folder(destination, verify=verify)
    assert "1.2.3.4.1" not in folder.held()
    assert len(folder.held()) == len(members()) - 1
    filed, _ = put(members(), folder=folder)
    assert _hash(destination, path) == filed["1.2.3.4.1"].sha256
    assert destination.size(path) == len(whole)
    assert destination.size(filed["1.2.3.4.1"].superseded) == len(other)


def test_a_dose_that_the_plan_names_no_more_goes_to_the_versions(destination, put):
    put(members())
    new = [*members()[:-1], member("1.2.3.7", Role.PLAN_DOSE)]
    put(new)
    assert destination.size(PurePosixPath(PLAN_UID) / "RTDOSE" / "1.2.3.5.dcm") is None
    (kept,) = destination.names_beside(PurePosixPath(".dicom/versions/1.2.3.5/any"), "")
    assert destination.size(kept)
    assert _index(destination)["left"] == []


@pytest.mark.parametrize("why", ["incomplete", "not wanted"])
def test_a_dose_stays_when_the_list_may_only_be_short(destination, put, why):
    put(members())
    some = members()[:-1]
    judged = plan_set([*some, member("1.2.3.8", Role.STRUCTURE_SET, Standing.MISSING)])
    if why == "not wanted":
        judged = replace(plan_set(some), wanted=frozenset({Role.PLAN, Role.IMAGE}))
    put(some, judged=judged)
    assert destination.size(PurePosixPath(PLAN_UID) / "RTDOSE" / "1.2.3.5.dcm")
    assert _index(destination)["left"] == ["RTDOSE/1.2.3.5.dcm"]


def test_what_other_people_put_there_stays(destination, put):
    put(members())
    stranger = PurePosixPath(PLAN_UID) / "RTDOSE" / "1.2.9.9.dcm"
    destination.write_text(stranger, "mine")
    put(members())
    assert destination.read_text(stranger) == "mine"
    assert _index(destination)["left"] == ["RTDOSE/1.2.9.9.dcm"]


def test_another_content_of_an_image_is_kept_beside_it_and_told_until_it_is_removed(destination, put, tmp_path):
    image = member("1.2.3.4.1", Role.IMAGE)
    got = pooled(destination, tmp_path, image)
    other = PurePosixPath(".dicom/pool/run/other.dcm")
    file = dicom_file(tmp_path / "other.dcm", object_of(image, InstanceNumber="9"))
    destination.publish(file, other, sha256=sha256_of(file))
    (kept,) = _folder(destination).file(image, replace(got, conflicts=(other,))).conflicts
    assert kept.parent == PurePosixPath(PLAN_UID) / "CT"
    assert _hash(destination, kept) == sha256_of(file)
    # The next export, to which nothing comes any more.
    own = Got(is_here=True, path=kept.with_name("1.2.3.4.1.dcm"), bytes=got.bytes, held=True)
    assert _folder(destination).file(image, own).conflicts == (kept,)
    destination.remove(kept, sha256=sha256_of(file))
    assert _folder(destination).file(image, own).conflicts == ()


def test_label_and_course_are_told_only_to_who_asks(destination):
    labelled = plan_set([], label="Smith boost", course="C1")
    _folder(destination).finish(labelled)
    assert "Smith" not in destination.read_text(INDEX)
    _folder(destination).finish(labelled, with_label=True)
    assert _index(destination)["plan_set"]["label"] == "Smith boost"


def test_an_index_that_cannot_be_read_is_made_anew(destination, put, caplog):
    destination.write_text(INDEX, '{"schema_version": 1, "objects": [{}]}')
    put(members())
    assert _index(destination)["state"] == "complete"
    assert "cannot be read" in caplog.text


def test_an_index_of_a_later_version_is_refused(destination):
    destination.write_text(INDEX, '{"schema_version": 2, "objects": []}')
    with pytest.raises(ConfigurationError, match="schema version 2"):
        _folder(destination)


def test_a_plan_uid_that_is_none_makes_no_folder(destination):
    with pytest.raises(ConfigurationError, match="none"):
        PlanFolder(destination, "../x", cancellation=Cancellation())


def test_a_cancelled_export_stops_between_two_objects(destination, tmp_path):
    cancellation = Cancellation()
    folder = _folder(destination, cancellation=cancellation)
    cancellation.cancel()
    with pytest.raises(CancelledError):
        folder.file(members()[0], pooled(destination, tmp_path, members()[0]))


def test_an_object_that_left_the_pool_meanwhile_is_worth_a_retry(destination):
    gone = Got(is_here=True, path=PurePosixPath(".dicom/pool/run/1.2.3.1.dcm"))
    with pytest.raises(DestinationWriteError):
        _folder(destination).file(members()[0], gone)
