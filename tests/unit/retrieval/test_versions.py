"""Plans change under their UID: when they are asked for again, and what becomes of the older version."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import time
import traceback
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pydicom
import pytest
from pynetdicom import evt
from support.archive import ROOT, Archive, rt_image
from support.spooled import receive
from support.stores import CopyOnly, InPlace, ObjectStore, Refusing, Root

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import CancelledError, ConfigurationError, DestinationWriteError
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.retrieval import intake, letting_go, local_store, versions
from airflow_provider_varian.retrieval.audit import audit
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.retrieval.manifest import Manifest, load_manifest
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.request import Expected, RetrievalRequest
from airflow_provider_varian.retrieval.versions import version_path

SERIES = f"{ROOT}.1.1"
PLAN, IMAGE = f"{SERIES}.1", f"{SERIES}.2"


def plan(**attributes):
    """Return a plan as it was made; what is given differs."""
    made = {"ApprovalStatus": "UNAPPROVED", "RTPlanDate": "20260101", "RTPlanTime": "101500", "RTPlanLabel": "A"}
    return rt_image(1, SOPClassUID=uids.RT_PLAN, Modality="RTPLAN", **(made | attributes))


def approved(**attributes):
    return plan(ApprovalStatus="APPROVED", ReviewDate="20260102", **attributes)


@pytest.fixture
def clinic(clinic):
    """The same with a plan and an image, and little patience for what never comes."""
    clinic.archive.instances = {ds.SOPInstanceUID: ds for ds in (plan(), rt_image(2))}
    run = clinic.run
    clinic.run = lambda request=None, **settings: run(
        request, **({"settle_seconds": 0.05, "recheck_rounds": 0} | settings)
    )
    return clinic


def change(clinic, ds):
    clinic.archive.instances[ds.SOPInstanceUID] = ds
    clinic.archive.sent.clear()


def forget(clinic, *keywords):
    """Let the peer's C-FIND leave out some attributes."""
    find = clinic.archive._find

    def forgetting(event):
        for status, answer in find(event):
            for keyword in keywords:
                if answer is not None and keyword in answer:
                    delattr(answer, keyword)
            yield status, answer

    clinic.archive._server.bind(evt.EVT_C_FIND, forgetting)


DATES = ("ApprovalStatus", "RTPlanDate", "RTPlanTime", "ReviewDate")


def final(clinic, uid=PLAN):
    (path,) = [path for path in clinic.root.rglob(f"*{uid}*.dcm") if ".dicom" not in path.parts]
    return path


def kept(clinic, uid=PLAN):
    return sorted((clinic.root / ".dicom" / "versions" / uid).glob("*"))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def label(path):
    return str(pydicom.dcmread(path).RTPlanLabel)


def entry_of(result, uid=PLAN):
    return result.manifest.ledger.entries[uid]


# What is asked for again


@pytest.mark.parametrize("retrieval_id", ["r-1", "r-2"])
def test_a_plan_that_changed_is_fetched_and_the_old_one_kept(clinic, retrieval_id):
    clinic.run()
    old = final(clinic).read_bytes()
    change(clinic, approved(RTPlanLabel="B"))
    result = clinic.run(retrieval_id=retrieval_id)
    assert (result.outcome, clinic.archive.sent) == (Outcome.COMPLETE, [PLAN])
    assert label(final(clinic)) == "B"
    (version,) = kept(clinic)
    assert version.read_bytes() == old
    assert version.name == f"{hashlib.sha256(old).hexdigest()[:12]}.dcm"
    entry = entry_of(result)
    assert (entry.state, entry.held, entry.sha256) == (State.VERIFIED, False, sha256(final(clinic)))
    assert entry.superseded == str(version.relative_to(clinic.root))
    assert not [path for path in clinic.root.rglob("*conflict*")]


def test_a_plan_that_did_not_change_is_not_fetched(clinic):
    clinic.run()
    clinic.archive.sent.clear()
    for name in ("r-1", "r-2"):
        result = clinic.run(retrieval_id=name)
        assert (result.outcome, result.counts["held"], clinic.archive.sent) == (Outcome.COMPLETE, 2, [])
        assert result.manifest.warnings == []


def test_without_any_manifest_the_file_tells(clinic):
    clinic.run()
    (clinic.root / ".dicom" / "r-1.json").unlink()
    assert clinic.run(retrieval_id="r-2").counts["held"] == 2
    change(clinic, approved())
    assert clinic.run(retrieval_id="r-3").counts["held"] == 1


@pytest.mark.parametrize(
    ("sop_class_uid", "modality", "date"),
    [
        (uids.RT_STRUCTURE_SET, "RTSTRUCT", "StructureSetDate"),
        (uids.RT_DOSE, "RTDOSE", "ContentDate"),
        (uids.RT_ION_PLAN, "RTPLAN", "RTPlanDate"),
        (uids.VARIAN_HALCYON_RT_PLAN, "RTPLAN", "RTPlanDate"),
    ],
)
def test_each_class_that_changes_is_judged(clinic, sop_class_uid, modality, date):
    def made(day):
        return rt_image(1, SOPClassUID=sop_class_uid, Modality=modality, **{date: day})

    clinic.archive.instances[PLAN] = made("20260101")
    clinic.run()
    assert clinic.run(retrieval_id="r-2").counts["held"] == 2
    change(clinic, made("20260102"))
    result = clinic.run(retrieval_id="r-3")
    assert (result.outcome, clinic.archive.sent) == (Outcome.COMPLETE, [PLAN])
    assert pydicom.dcmread(final(clinic))[date].value == "20260102"


@pytest.mark.parametrize("refresh", ["if_changed", "always"])
def test_an_image_is_never_fetched_again(clinic, refresh):
    clinic.run()
    change(clinic, rt_image(2, ContentDate="20260909", PixelData=b"\7" * 512))
    assert clinic.run(retrieval_id="r-2", refresh=refresh).outcome is Outcome.COMPLETE
    assert IMAGE not in clinic.archive.sent
    assert kept(clinic, IMAGE) == []


@pytest.mark.parametrize(("number", "fetched"), [(1, True), (2, False)])
def test_of_an_object_of_unknown_class_the_file_tells_it(clinic, number, fetched):
    clinic.run()
    clinic.archive.sent.clear()
    known = {
        "StudyInstanceUID": f"{ROOT}.1",
        "SeriesInstanceUID": SERIES,
        "Modality": ["RTPLAN", "RTIMAGE"][number - 1],
    }
    item = Expected.from_answer(known | {"SOPInstanceUID": f"{SERIES}.{number}"})
    result = clinic.run(RetrievalRequest(level=Level.IMAGE, expected=(item,)), retrieval_id="r-2")
    assert (result.outcome, bool(clinic.archive.sent)) == (Outcome.COMPLETE, fetched)


BY_UID = "{StudyInstanceUID}/{SOPInstanceUID}.dcm"


def test_of_an_object_of_unknown_class_a_file_that_says_nothing_is_not_current(clinic):
    clinic.run(layout=BY_UID)
    forget(clinic, "SOPClassUID")
    final(clinic).write_bytes(b"\0" * final(clinic).stat().st_size)
    clinic.archive.sent.clear()
    result = clinic.run(layout=BY_UID, retrieval_id="r-2")
    assert (result.outcome, clinic.archive.sent) == (Outcome.COMPLETE, [PLAN])
    assert label(final(clinic)) == "A"


def test_a_plan_that_was_reviewed_since_is_fetched(clinic):
    clinic.run()
    forget(clinic, "ApprovalStatus")
    change(clinic, approved(RTPlanLabel="B"))
    assert clinic.run(retrieval_id="r-2").outcome is Outcome.COMPLETE
    assert (clinic.archive.sent, label(final(clinic))) == ([PLAN], "B")
    clinic.run(retrieval_id="r-3")
    assert clinic.archive.sent == [PLAN]


def test_never_asks_for_nothing_again(clinic):
    clinic.run()
    change(clinic, approved())
    result = clinic.run(retrieval_id="r-2", refresh="never")
    assert (result.outcome, result.counts["held"], clinic.archive.sent) == (Outcome.COMPLETE, 2, [])


def test_always_asks_and_leaves_what_is_the_same(clinic):
    clinic.run()
    before = final(clinic).stat()
    change(clinic, plan(InstanceCreationTime="235959"))
    result = clinic.run(retrieval_id="r-2", refresh="always")
    assert (result.outcome, result.counts["held"], clinic.archive.sent) == (Outcome.COMPLETE, 2, [PLAN])
    assert (final(clinic).stat().st_ino, final(clinic).stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (kept(clinic), entry_of(result).superseded, entry_of(result).duplicate) == ([], "", False)
    assert entry_of(result).sha256 == sha256(final(clinic))
    assert result.manifest.warnings == []


def test_a_peer_that_does_not_say_is_asked_again_with_a_warning(clinic):
    clinic.run()
    forget(clinic, *DATES)
    change(clinic, approved())
    result = clinic.run(retrieval_id="r-2")
    assert (result.outcome, clinic.archive.sent, len(kept(clinic))) == (Outcome.COMPLETE, [PLAN], 1)
    (warning,) = result.manifest.warnings
    assert warning.startswith("1 plans, structure sets or doses are held, and the peer does not say")


def test_a_selection_asks_for_the_revision_too(clinic):
    from airflow_provider_varian.retrieval.selection import select

    def selected(level):
        keys = {"PatientID": "QA_TB_WL", "Modality": "RTPLAN"}
        return select(clinic.peer, level, keys, profile=clinic.profile)

    clinic.run(selected("IMAGE"))
    for level in ("IMAGE", "SERIES", "STUDY"):
        assert entry_of(clinic.run(selected(level), retrieval_id=f"r-{level}")).held
    change(clinic, approved())
    assert clinic.run(selected("IMAGE"), retrieval_id="r-3").outcome is Outcome.COMPLETE
    assert clinic.archive.sent == [PLAN]


def test_a_dry_run_tells_what_would_be_fetched_again(clinic):
    clinic.run()
    change(clinic, approved())
    result = clinic.run(retrieval_id="r-2", dry_run=True)
    assert (result.counts["held"], entry_of(result).held) == (1, False)
    assert clinic.archive.sent == []


def test_a_choice_that_is_none_is_refused_before_any_network(clinic):
    with pytest.raises(ConfigurationError, match="if_changed, never, always"):
        clinic.run(refresh="sometimes")
    assert clinic.archive.finds == 0


# What does not come


def test_a_new_version_that_does_not_come_is_missing_and_the_old_one_stays(clinic):
    clinic.run()
    old = final(clinic).read_bytes()
    change(clinic, approved())
    clinic.archive.delivers = lambda level, uid: uid != PLAN
    result = clinic.run(retrieval_id="r-2")
    assert (result.outcome, result.counts["missing"]) == (Outcome.PARTIAL, 1)
    assert entry_of(result).state is State.MISSING
    assert entry_of(result).reason.startswith("an older version is held; asked for once, never came; ")
    assert (final(clinic).read_bytes(), kept(clinic)) == (old, [])
    clinic.archive.delivers = lambda level, uid: True
    result = clinic.run(retrieval_id="r-2")
    assert (result.outcome, clinic.archive.sent, len(kept(clinic))) == (Outcome.COMPLETE, [PLAN], 1)


def test_what_may_be_older_is_not_claimed_either(clinic):
    clinic.run()
    forget(clinic, *DATES)
    clinic.archive.delivers = lambda level, uid: uid != PLAN
    result = clinic.run(retrieval_id="r-2")
    assert result.outcome is Outcome.PARTIAL
    assert entry_of(result).reason.startswith("a version is held that may be older than the peer's; ")


# Conflicts


def test_two_contents_within_one_retrieval_stay_a_conflict(clinic):
    clinic.run()
    clinic.archive.extra = [approved(RTPlanLabel="C")]
    change(clinic, approved(RTPlanLabel="B"))
    result = clinic.run(retrieval_id="r-2")
    entry = entry_of(result)
    assert (result.outcome, entry.state) == (Outcome.PARTIAL, State.CONFLICT)
    # Which of the two the receiver writes down first is chance.
    assert sorted(label(clinic.root / path) for path in (entry.path, *entry.conflicts)) == ["B", "C"]
    assert label(clinic.root / entry.superseded) == "A"


def test_two_contents_of_a_first_retrieval_are_a_conflict(clinic):
    clinic.archive.extra = [approved(RTPlanLabel="B")]
    result = clinic.run()
    assert (result.outcome, entry_of(result).state, kept(clinic)) == (Outcome.PARTIAL, State.CONFLICT, [])


BY_LABEL = "{RTPlanName}/{SOPInstanceUID}.dcm"


@pytest.mark.parametrize(
    ("refresh", "outcome", "versions_kept"),
    [("never", Outcome.PARTIAL, 0), ("if_changed", Outcome.COMPLETE, 1), ("always", Outcome.COMPLETE, 1)],
)
def test_other_content_at_a_path_that_was_not_known_before(clinic, refresh, outcome, versions_kept):
    """The peer does not answer what the layout names: what is held is met when the object is here."""
    clinic.run(layout=BY_LABEL)
    change(clinic, approved())
    result = clinic.run(layout=BY_LABEL, refresh=refresh, retrieval_id="r-2")
    assert (result.outcome, len(kept(clinic))) == (outcome, versions_kept)
    assert (entry_of(result).state is State.CONFLICT) is (refresh == "never")


def test_a_file_that_was_spoiled_is_replaced_and_kept(clinic):
    clinic.run()
    path = final(clinic)
    spoiled = path.read_bytes()[:300]
    path.write_bytes(spoiled)
    clinic.archive.sent.clear()
    result = clinic.run()
    assert (result.outcome, clinic.archive.sent) == (Outcome.COMPLETE, [PLAN])
    assert [version.read_bytes() for version in kept(clinic)] == [spoiled]
    assert label(final(clinic)) == "A"


# What cannot be read


BY_PATIENT = "{PatientID}/{SOPInstanceUID}.dcm"


@pytest.mark.parametrize("case", ["hash", "path", "changed", "no file"])
def test_what_is_held_and_cannot_be_read_is_an_error_without_its_path(clinic, monkeypatch, case):
    clinic.run(layout=BY_PATIENT)
    change(clinic, approved() if case == "changed" else plan())
    uid = PLAN
    if case == "no file":
        final(clinic).unlink()
        (clinic.root / "QA_TB_WL" / f"{PLAN}.dcm").mkdir()
    else:
        forget(clinic, *([] if case == "changed" else DATES))
        open_ = Path.open

        def deny(path, *args, **kwargs):  # as another user's file is; the tests may run as root
            if path.parent.name == "QA_TB_WL" and "x" not in (args or "r")[0]:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return open_(path, *args, **kwargs)

        monkeypatch.setattr(Path, "open", deny)
        uid = IMAGE if case == "hash" else PLAN
    with pytest.raises(DestinationWriteError, match=r"cannot be read: (Permission denied|Is a directory)") as caught:
        clinic.run(
            clinic.images(2) if case == "hash" else None, layout=BY_PATIENT, verify="hash" if case == "hash" else None
        )
    assert "QA_TB_WL" not in "".join(traceback.format_exception(caught.value)).replace(str(clinic.root), "")
    assert uid in str(caught.value)
    entry = load_manifest(Destination(clinic.root), "r-1").ledger.entries[uid]
    assert (entry.state, entry.reason) == (State.FAILED, "what lies at its final path cannot be read")
    assert clinic.archive.sent
    monkeypatch.undo()


# Tries that did not finish


def partial(clinic, **settings):
    """Retrieve the plan, and not the image."""
    clinic.archive.delivers = lambda level, uid: uid != IMAGE
    result = clinic.run(**settings)
    assert result.outcome is Outcome.PARTIAL
    clinic.archive.delivers = lambda level, uid: True
    clinic.archive.sent.clear()


@pytest.mark.parametrize("refresh", ["if_changed", "always"])
def test_what_an_unfinished_try_fetched_is_not_fetched_by_its_retries(clinic, refresh):
    forget(clinic, *DATES)
    clinic.run(retrieval_id="r-0")
    (clinic.root / ".dicom" / "r-0.json").unlink()
    final(clinic, IMAGE).unlink()
    partial(clinic, refresh=refresh)
    partial(clinic, refresh=refresh)
    assert clinic.run(refresh=refresh).outcome is Outcome.COMPLETE
    assert clinic.archive.sent == [IMAGE]
    # Once it has finished, a rerun finds out anew.
    clinic.run(refresh=refresh)
    assert clinic.archive.sent == [IMAGE, PLAN]


def test_what_an_unfinished_try_fetched_is_fetched_again_when_it_cannot_be_read_any_more(clinic):
    partial(clinic)
    final(clinic).write_bytes(b"\0" * final(clinic).stat().st_size)
    assert clinic.run(verify="path").outcome is Outcome.COMPLETE
    assert sorted(clinic.archive.sent) == [PLAN, IMAGE]
    assert label(final(clinic)) == "A"


def test_what_changed_since_an_unfinished_try_fetched_it_is_fetched(clinic):
    partial(clinic)
    change(clinic, approved(RTPlanLabel="B"))
    assert clinic.run().outcome is Outcome.COMPLETE
    assert sorted(clinic.archive.sent) == [PLAN, IMAGE]
    assert label(final(clinic)) == "B"


def test_a_try_that_was_killed_before_it_began_forgets_that_a_finished_one_fetched(clinic):
    forget(clinic, *DATES)
    clinic.run()
    cancellation = Cancellation()
    clinic.archive.on_find = cancellation.cancel
    with pytest.raises(CancelledError):
        clinic.run(cancellation=cancellation)
    clinic.archive.on_find = lambda: None
    clinic.archive.sent.clear()
    clinic.run()
    assert clinic.archive.sent == [PLAN]


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it, and nothing is written after it."""


@contextmanager
def killed_at(monkeypatch, owner, name, when):
    """Kill the block ``before`` or ``after`` a step."""
    step = getattr(owner, name)

    def dying(*args, **kwargs):
        if when == "before":
            raise Killed
        step(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(Killed):
            yield


@pytest.mark.parametrize(
    ("owner", "name", "when"),
    [
        (versions.Versions, "keep", "before"),
        (versions.Versions, "keep", "after"),
        (Destination, "replace", "before"),
        (Destination, "replace", "after"),
        (Spool, "let_go", "before"),
        (Spool, "let_go", "after"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.parametrize("told", [True, False], ids=["dates", "no dates"])
def test_a_kill_leaves_old_or_new_whole_and_the_retry_completes(clinic, monkeypatch, owner, name, when, told):
    if not told:
        forget(clinic, *DATES)
    clinic.run()
    old = final(clinic).read_bytes()
    change(clinic, approved(RTPlanLabel="B"))
    with killed_at(monkeypatch, owner, name, when):
        clinic.run(retrieval_id="r-2")
    replaced = name == "let_go" or (name, when) == ("replace", "after")
    assert label(final(clinic)) == ("B" if replaced else "A")
    if replaced:
        clinic.archive.sent.clear()
    result = clinic.run(retrieval_id="r-2")
    assert (result.outcome, label(final(clinic))) == (Outcome.COMPLETE, "B")
    assert old in [version.read_bytes() for version in kept(clinic)]
    if replaced:
        assert clinic.archive.sent == []


def test_after_a_kill_the_account_names_the_older_version_and_no_duplicate(clinic, monkeypatch):
    clinic.run()
    change(clinic, approved(RTPlanLabel="B"))
    with killed_at(monkeypatch, Spool, "let_go", "before"):
        clinic.run(retrieval_id="r-2")
    entry = entry_of(clinic.run(retrieval_id="r-2"))
    assert (entry.superseded, entry.duplicate) == (str(kept(clinic)[0].relative_to(clinic.root)), False)


@pytest.fixture
def plans(clinic):
    """The same with seven plans of which the peer tells no date."""
    made = [rt_image(n, SOPClassUID=uids.RT_PLAN, Modality="RTPLAN") for n in range(1, 8)]
    clinic.archive.instances = {ds.SOPInstanceUID: ds for ds in made}
    return clinic


@pytest.mark.parametrize(("together", "seconds", "writes"), [(100, 60.0, 1), (3, 60.0, 3), (100, -1.0, 7)])
def test_the_manifest_is_written_for_many_objects_together_before_the_spool_lets_go(
    plans, monkeypatch, together, seconds, writes
):
    steps = []

    def noted(name, step):
        def run(*args, **kwargs):
            steps.append(name)
            return step(*args, **kwargs)

        return run

    monkeypatch.setattr(letting_go, "_TOGETHER", together)
    monkeypatch.setattr(letting_go, "_TOGETHER_SECONDS", seconds)
    monkeypatch.setattr(intake.Intake, "take_meanwhile", lambda intake: False)
    for owner, name in ((Destination, "publish"), (Spool, "let_go")):
        monkeypatch.setattr(owner, name, noted(name, getattr(owner, name)))
    result = plans.run(on_change=lambda manifest: steps.append("manifest"))
    assert result.outcome is Outcome.COMPLETE
    first, last = steps.index("publish"), len(steps) - steps[::-1].index("let_go")
    assert steps[first:last].count("manifest") == writes
    told = 0
    for number, step in enumerate(steps):
        if step == "manifest":
            told = steps[:number].count("publish")
        assert steps[: number + 1].count("let_go") <= told
    assert (steps.count("publish"), steps.count("let_go")) == (7, 7)


def test_a_manifest_that_cannot_be_written_hides_no_other_end(plans, monkeypatch):
    write, publish, cancellation = Manifest.write, Destination.publish, Cancellation()

    def publish_and_cancel(*args, **kwargs):
        cancellation.cancel()
        return publish(*args, **kwargs)

    def failing(manifest, destination):
        if cancellation.cancelled:
            raise DestinationWriteError("the destination is full")
        write(manifest, destination)

    monkeypatch.setattr(Destination, "publish", publish_and_cancel)
    monkeypatch.setattr(Manifest, "write", failing)
    with pytest.raises(CancelledError):
        plans.run(cancellation=cancellation)


@pytest.mark.parametrize("name", ["publish", "let_go"])
def test_what_a_killed_try_filed_is_not_asked_for_again_told_or_not(plans, monkeypatch, name):
    calls, owner = [], Destination if name == "publish" else Spool
    step = getattr(owner, name)

    def dying(*args, **kwargs):
        calls.append(name)
        if len(calls) == 4:
            raise Killed
        return step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        if name == "publish":
            patch.setattr(letting_go.LettingGo, "all", lambda held: None)
        with pytest.raises(Killed):
            plans.run()
    plans.archive.sent.clear()
    result = plans.run()
    assert (result.outcome, plans.archive.sent, result.counts["duplicate"]) == (Outcome.COMPLETE, [], 0)
    assert kept(plans) == []
    assert not list((plans.spool / "claimed").glob("*/*"))


def test_a_manifest_that_cannot_be_written_keeps_what_was_published_in_the_spool(plans, monkeypatch):
    write, fails = Manifest.write, []

    def failing(manifest, destination):
        if fails or any(entry.is_here for entry in manifest.ledger.entries.values()):
            fails.append(manifest)
            raise DestinationWriteError("the destination is full")
        write(manifest, destination)

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "write", failing)
        with pytest.raises(DestinationWriteError, match="is full"):
            plans.run()
    assert len(list((plans.spool / "claimed").glob("*/*.dcm"))) == 7
    plans.archive.sent.clear()
    assert (plans.run().outcome, plans.archive.sent) == (Outcome.COMPLETE, [])


# What lies in the spool


def claim(clinic, ds, retrieval_id):
    """Leave an object that an earlier try of a retrieval has claimed."""
    with SpoolSink(Spool(clinic.spool)) as sink:
        receive(sink, ds)
        sink.spool.claim(retrieval_id, {ds.SOPInstanceUID}, owner=sink.owner.name)


def test_a_leftover_never_replaces_what_is_held(clinic):
    clinic.run()
    claim(clinic, plan(RTPlanLabel="OLD"), "r-2")
    change(clinic, approved(RTPlanLabel="B"))
    result = clinic.run(retrieval_id="r-2")
    assert (result.outcome, clinic.archive.sent) == (Outcome.COMPLETE, [PLAN])
    assert label(final(clinic)) == "B"
    assert sorted(label(version) for version in kept(clinic)) == ["A", "OLD"]


def test_a_leftover_of_what_is_held_is_no_news_when_the_peer_says_that_it_changed(clinic):
    clinic.run()
    claim(clinic, plan(), "r-2")
    change(clinic, approved(RTPlanLabel="B"))
    assert clinic.run(retrieval_id="r-2").outcome is Outcome.COMPLETE
    assert (clinic.archive.sent, label(final(clinic))) == ([PLAN], "B")


def test_a_leftover_beside_what_is_current_is_kept_and_no_conflict(clinic):
    clinic.run()
    claim(clinic, plan(RTPlanLabel="OLD"), "r-2")
    clinic.archive.sent.clear()
    result = clinic.run(retrieval_id="r-2")
    assert (result.outcome, result.counts["held"], clinic.archive.sent) == (Outcome.COMPLETE, 2, [])
    assert [label(version) for version in kept(clinic)] == ["OLD"]


@pytest.mark.parametrize("refresh", ["if_changed", "always", "never"])
def test_a_leftover_that_changed_since_is_kept_and_the_object_asked_for(clinic, refresh):
    claim(clinic, plan(RTPlanLabel="OLD"), "r-1")
    change(clinic, approved(RTPlanLabel="B"))
    result = clinic.run(refresh=refresh)
    assert (result.outcome, sorted(clinic.archive.sent)) == (Outcome.COMPLETE, [PLAN, IMAGE])
    assert label(final(clinic)) == "B"
    assert [label(version) for version in kept(clinic)] == ["OLD"]


def test_a_leftover_that_changed_since_is_not_claimed_when_the_newer_one_does_not_come(clinic):
    claim(clinic, plan(RTPlanLabel="OLD"), "r-1")
    change(clinic, approved(RTPlanLabel="B"))
    clinic.archive.delivers = lambda level, uid: uid != PLAN
    result = clinic.run()
    assert (result.outcome, entry_of(result).state) == (Outcome.PARTIAL, State.MISSING)


def test_with_never_a_leftover_is_a_conflict_as_ever(clinic):
    clinic.run()
    claim(clinic, plan(RTPlanLabel="OLD"), "r-2")
    assert clinic.run(retrieval_id="r-2", refresh="never").outcome is Outcome.PARTIAL


# Elsewhere, and at the same time as others


@pytest.mark.parametrize("fs", [ObjectStore, InPlace, Refusing, CopyOnly])
def test_in_other_stores_too(clinic, tmp_path, fs):
    ObjectStore.store.clear()
    (tmp_path / "out").mkdir()
    root = Destination(Root(fs(), tmp_path / "out"))
    clinic.run(destination=root)
    change(clinic, approved(RTPlanLabel="B"))
    result = clinic.run(destination=root, retrieval_id="r-2")
    assert result.outcome is Outcome.COMPLETE
    entry = entry_of(result)
    for path, expected in ((entry.path, "B"), (entry.superseded, "A")):
        with root.local_copy(PurePosixPath(path)) as local:
            assert label(local) == expected
    assert clinic.run(destination=root, retrieval_id="r-3").counts["held"] == 2


@pytest.mark.parametrize("fs", [None, ObjectStore, InPlace])
def test_nothing_is_replaced_that_somebody_else_replaced_by_now(tmp_path, fs):
    ObjectStore.store.clear()
    root = Destination(tmp_path / "out" if fs is None else Root(fs(), tmp_path / "out"))
    (tmp_path / "out").mkdir()
    files = {}
    for name in ("old", "theirs", "ours"):
        files[name] = tmp_path / name
        files[name].write_text(name)
    path = PurePosixPath("a.dcm")
    root.publish(files["old"], path, sha256=sha256(files["old"]))
    assert root.replace(files["theirs"], path, sha256=sha256(files["theirs"]), instead_of=sha256(files["old"]))
    assert not root.replace(files["ours"], path, sha256=sha256(files["ours"]), instead_of=sha256(files["old"]))
    absent = PurePosixPath("b.dcm")
    assert not root.replace(files["ours"], absent, sha256=sha256(files["ours"]), instead_of=sha256(files["old"]))
    with root.local_copy(path) as local:
        assert local.read_text() == "theirs"
    with pytest.raises(DestinationWriteError, match="reads back differently"):
        root.replace(files["ours"], path, sha256="0" * 64, instead_of=sha256(files["theirs"]))


def test_the_version_of_another_retrieval_is_kept_too(clinic, monkeypatch):
    clinic.run()
    final_path, replace_ = final(clinic), Destination.replace
    between = [b"theirs"]

    def slow(destination, *args, **kwargs):
        if between:
            final_path.write_bytes(between.pop())
        return replace_(destination, *args, **kwargs)

    monkeypatch.setattr(Destination, "replace", slow)
    change(clinic, approved(RTPlanLabel="B"))
    result = clinic.run(retrieval_id="r-2")
    # Theirs came after we looked: it may be the newer one.
    assert (result.outcome, entry_of(result).state) == (Outcome.PARTIAL, State.FAILED)
    assert entry_of(result).reason.startswith("another retrieval filed a version meanwhile")
    assert final_path.read_bytes() == b"theirs"
    assert sorted(label(version) for version in kept(clinic)) == ["A", "B"]
    # What is asked for now is as new as what is seen now.
    assert clinic.run(retrieval_id="r-2").outcome is Outcome.COMPLETE
    assert label(final(clinic)) == "B"
    assert b"theirs" in [version.read_bytes() for version in kept(clinic)]


def test_the_slower_of_two_retrievals_does_not_replace_the_newer_version(clinic, monkeypatch):
    publish = Destination.publish
    between = ["r-2"]

    def slow(destination, source, relative, **settings):
        if between and relative.suffix == ".dcm":
            name = between.pop()
            change(clinic, approved(RTPlanLabel="B"))
            with Archive([approved(RTPlanLabel="B")], get=True) as other:
                peer = replace(clinic.peer, port=other.port, retrieve_method="get")
                assert clinic.run(clinic.images(1), peer=peer, retrieval_id=name).outcome is Outcome.COMPLETE
        return publish(destination, source, relative, **settings)

    monkeypatch.setattr(Destination, "publish", slow)
    result = clinic.run(clinic.images(1))
    assert label(final(clinic)) == "B"
    assert [label(version) for version in kept(clinic)] == ["A"]
    assert (entry_of(result).is_here, result.outcome) == (False, Outcome.PARTIAL)
    result = clinic.run(clinic.images(1))
    assert (result.outcome, label(clinic.root / entry_of(result).path)) == (Outcome.COMPLETE, "B")


def test_what_comes_before_it_was_asked_for_replaces_nothing(clinic):
    """A straggler of a killed try was sent before we looked at what is held."""
    clinic.run()
    root, doubtful = Destination(clinic.root), versions.Versions(Destination(clinic.root), "if_changed")
    entry, path = Entry(sop_instance_uid=PLAN, sop_class_uid=uids.RT_PLAN), final(clinic).relative_to(clinic.root)
    new = clinic.root / "new"
    new.write_bytes(b"new")
    doubtful.look(entry, PurePosixPath(path))
    assert doubtful.replace(new, PurePosixPath(path), entry, sha256(new), pause=time.sleep) is None
    entry.attempts += 1
    assert doubtful.replace(new, PurePosixPath(path), entry, sha256(new), pause=time.sleep) is not None
    assert root.size(PurePosixPath(path)) == 3


def test_at_a_path_that_nobody_knew_before_the_later_day_stays_until_the_peer_is_asked_again(clinic):
    clinic.archive.instances = {PLAN: plan(RTPlanDate="20260202", RTPlanLabel="LATER")}
    clinic.run(layout=BY_LABEL)
    change(clinic, plan(RTPlanLabel="EARLIER"))
    result = clinic.run(layout=BY_LABEL, retrieval_id="r-2")
    assert (result.outcome, clinic.archive.sent) == (Outcome.COMPLETE, [PLAN, PLAN])
    assert label(final(clinic)) == "EARLIER"
    assert sorted(label(version) for version in kept(clinic)) == ["EARLIER", "LATER"]


def test_an_object_that_others_keep_replacing_is_not_claimed(clinic, monkeypatch):
    clinic.run()
    monkeypatch.setattr(Destination, "replace", lambda *args, **kwargs: False)
    change(clinic, approved())
    result = clinic.run(retrieval_id="r-2")
    assert (result.outcome, entry_of(result).state) == (Outcome.PARTIAL, State.FAILED)
    assert label(final(clinic)) == "A"


def test_another_process_that_replaces_something_is_waited_for_not_for_ever(clinic, monkeypatch):
    clinic.run()
    change(clinic, approved(RTPlanLabel="B"))
    monkeypatch.setattr(local_store, "_REPLACING_SECONDS", 0.2)
    with (clinic.root / ".dicom" / "tmp" / "replacing.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DestinationWriteError, match=r"another process has been replacing something .* for 0.2 s"):
            clinic.run(retrieval_id="r-2")
        monkeypatch.setattr(local_store, "_REPLACING_SECONDS", 600.0)
        cancellation = Cancellation()
        locked = local_store._locked
        monkeypatch.setattr(local_store, "_locked", lambda file: locked(file) or cancellation.cancel())
        with pytest.raises(CancelledError):
            clinic.run(retrieval_id="r-3", cancellation=cancellation)
    assert label(final(clinic)) == "A"
    monkeypatch.undo()
    assert clinic.run(retrieval_id="r-2").outcome is Outcome.COMPLETE
    assert label(final(clinic)) == "B"


BY_DATE = "{SOPInstanceUID}.{RTPlanDate}.dcm"


@pytest.fixture
def dated(clinic):
    """The same with a plan alone, filed by its date, whose date has changed."""
    del clinic.archive.instances[IMAGE]
    run = clinic.run
    clinic.run = lambda request=None, **settings: run(request, **({"layout": BY_DATE} | settings))
    clinic.run()
    change(clinic, plan(RTPlanDate="20260202", RTPlanLabel="B"))
    return clinic


def test_where_the_path_of_the_newer_version_is_another_one_the_older_is_kept_beside_the_versions(dated):
    result = dated.run()
    assert result.outcome is Outcome.COMPLETE
    assert (final(dated).name, label(final(dated))) == (f"{PLAN}.20260202.dcm", "B")
    assert [label(version) for version in kept(dated)] == ["A"]
    assert (entry_of(result).superseded, entry_of(result).older) == (str(kept(dated)[0].relative_to(dated.root)), "")
    result = dated.run()
    assert (result.counts["held"], dated.archive.sent) == (1, [PLAN])


@pytest.mark.parametrize("told", [True, False], ids=["dates", "no dates"])
@pytest.mark.parametrize(
    ("owner", "name", "when"),
    [
        (Destination, "publish", "after"),
        (versions.Versions, "keep", "after"),
        (Destination, "remove", "before"),
        (Destination, "remove", "after"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_kill_before_the_older_path_is_empty_is_made_good_by_the_retry(dated, monkeypatch, owner, name, when, told):
    if not told:
        forget(dated, "ApprovalStatus", "RTPlanTime", "ReviewDate")
    with killed_at(monkeypatch, owner, name, when):
        dated.run()
    result = dated.run()
    assert (result.outcome, dated.archive.sent) == (Outcome.COMPLETE, [PLAN])
    assert (final(dated).name, label(final(dated))) == (f"{PLAN}.20260202.dcm", "B")
    assert [label(version) for version in kept(dated)] == ["A"]


def test_the_older_path_is_emptied_when_another_retrieval_has_brought_the_newer_version(dated):
    assert dated.run(retrieval_id="r-2").outcome is Outcome.COMPLETE
    assert label(dated.root / f"{PLAN}.20260101.dcm") == "A"
    entry = entry_of(dated.run())
    assert (entry.held, dated.archive.sent) == (True, [PLAN])
    assert final(dated).name == f"{PLAN}.20260202.dcm"
    assert entry.superseded == str(kept(dated)[0].relative_to(dated.root))


def test_the_older_path_is_known_still_when_the_newer_version_came_late(dated):
    dated.archive.delivers = lambda level, uid: False
    result = dated.run()
    assert (result.outcome, entry_of(result).older) == (Outcome.PARTIAL, f"{PLAN}.20260101.dcm")
    dated.archive.delivers = lambda level, uid: True
    assert dated.run().outcome is Outcome.COMPLETE
    assert final(dated).name == f"{PLAN}.20260202.dcm"


@pytest.mark.parametrize("content", [b"a person's own", None])
def test_what_else_is_at_the_older_path_by_now_is_not_removed(dated, monkeypatch, content):
    old = dated.root / f"{PLAN}.20260101.dcm"
    publish, other = Destination.publish, content or old.read_bytes() + b"\0\0"

    def slow(*args, **kwargs):
        if old.exists():
            old.write_bytes(other)
        return publish(*args, **kwargs)

    if content:
        old.write_bytes(content)
    else:
        monkeypatch.setattr(Destination, "publish", slow)
    assert dated.run().outcome is Outcome.COMPLETE
    assert old.read_bytes() == other


def test_a_dry_run_removes_nothing(dated, monkeypatch):
    with killed_at(monkeypatch, Destination, "publish", "after"):
        dated.run()
    dated.run(dry_run=True)
    assert (dated.root / f"{PLAN}.20260101.dcm").exists()


@pytest.mark.parametrize("fs", [None, ObjectStore, InPlace, Refusing, CopyOnly])
def test_only_what_was_looked_at_is_removed(tmp_path, fs):
    ObjectStore.store.clear()
    (tmp_path / "out").mkdir()
    root = Destination(tmp_path / "out" if fs is None else Root(fs(), tmp_path / "out"))
    (tmp_path / "old").write_text("old")
    path, found = PurePosixPath("a/b.dcm"), sha256(tmp_path / "old")
    assert not root.remove(path, sha256=found)
    root.publish(tmp_path / "old", path, sha256=found)
    assert not root.remove(path, sha256="0" * 64)
    assert root.size(path) == 3
    assert root.remove(path, sha256=found)
    assert root.size(path) is None


def test_a_version_lies_by_its_uid_and_the_start_of_its_sum():
    assert str(version_path("1.2.3", "0123456789abcdef" * 4)) == ".dicom/versions/1.2.3/0123456789ab.dcm"


def test_the_manifest_tells_of_the_old_version(clinic):
    clinic.run()
    change(clinic, approved())
    clinic.run(retrieval_id="r-2")
    told = json.loads((clinic.root / ".dicom" / "r-2.json").read_text())["instances"]
    (instance,) = [instance for instance in told if instance["sop_instance_uid"] == PLAN]
    assert (clinic.root / instance["superseded"]).exists()
    assert load_manifest(Destination(clinic.root), "r-2").ledger.entries[PLAN].superseded == instance["superseded"]


def test_the_manifest_of_the_old_version_holds_still(clinic):
    clinic.run()
    root = Destination(clinic.root)
    change(clinic, approved())
    clinic.run(retrieval_id="r-2")
    assert audit(load_manifest(root, "r-1"), root).differences == {}
    kept(clinic)[0].write_bytes(b"spoiled")
    assert audit(load_manifest(root, "r-1"), root).differences == {PLAN: verify_reason(clinic, root)}


def verify_reason(clinic, root):
    size, was = final(clinic).stat().st_size, load_manifest(root, "r-1").ledger.entries[PLAN].bytes
    return f"has {size} bytes instead of {was}"


def test_by_get_a_changed_plan_comes_too(clinic):
    clinic.run()
    with Archive([approved(RTPlanLabel="B"), rt_image(2)], get=True) as running:
        result = clinic.run(peer=replace(clinic.peer, port=running.port, retrieve_method="get"), retrieval_id="r-2")
        assert (result.outcome, running.sent) == (Outcome.COMPLETE, [PLAN])
    assert label(final(clinic)) == "B"


def test_the_manifest_says_that_it_came_before_the_spool_lets_go(clinic, monkeypatch):
    forget(clinic, *DATES)
    steps = []

    def noted(name, step):
        def run(*args, **kwargs):
            steps.append(name)
            return step(*args, **kwargs)

        return run

    for owner, name in ((Destination, "publish"), (Spool, "let_go")):
        monkeypatch.setattr(owner, name, noted(name, getattr(owner, name)))
    clinic.run(clinic.images(1), on_change=lambda manifest: steps.append("manifest"))
    first = steps.index("publish")
    assert steps[first : first + 3] == ["publish", "manifest", "let_go"]
