"""A destination on S3: written once to the final key, on the condition that nothing is there, and seen when whole."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import traceback
from pathlib import PurePosixPath

import pytest
import s3fs.core
import s3fs.utils
from support import s3
from support.archive import rt_image
from support.spooled import receive

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import DestinationWriteError, ReceiverUnavailableError
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.outcome import State
from airflow_provider_varian.retrieval.read_store import ReadStore
from airflow_provider_varian.retrieval.standing_arrivals import StandingArrivals
from airflow_provider_varian.retrieval.store_place import StorePlace
from airflow_provider_varian.retrieval.wanted import StoreDocuments, Wanted

REL = PurePosixPath("1.2/1.2.3/RTIMAGE.1.2.3.4.dcm")
MANIFEST = PurePosixPath(".dicom/x.json")
NAMES_A_PATIENT = PurePosixPath("QA_SECRET/x.dcm")
OURS, THEIRS = b"ours" * 1000, b"theirs" * 1000


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with s3.store(tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture
def bucket(store):
    with store.bucket() as made:
        yield made


@pytest.fixture
def file_of(tmp_path):
    def write(content):
        path = tmp_path / sha256(content)
        path.write_bytes(content)
        return path

    return write


@pytest.fixture
def in_parts(monkeypatch):
    """Make s3fs send these small files in parts, as it does from 100 MiB on."""
    monkeypatch.setattr(s3fs.core, "calculate_chunksize", lambda *_, **__: 1500)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def publish(bucket, file_of):
    def publish_(content, relative=REL):
        return Destination(bucket.root).publish(file_of(content), relative, sha256=sha256(content))

    return publish_


@pytest.fixture
def replace(bucket, file_of):
    def replace_(content, instead_of):
        return Destination(bucket.root).replace(
            file_of(content), REL, sha256=sha256(content), instead_of=sha256(instead_of)
        )

    return replace_


def at_once(*calls):
    """Run them in threads of their own; return what they returned, or raised."""
    results = [None] * len(calls)

    def run(place):
        try:
            results[place] = calls[place]()
        except DestinationWriteError as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def meet(bucket, writers=2):
    """Hold up the writers at the door until all of them have seen that nothing hinders them."""
    barrier = threading.Barrier(writers, timeout=60)
    met = []

    def before(request):
        if request.writes and len(met) < writers:
            met.append(request)
            barrier.wait()

    bucket.door.before = before
    return met


def test_an_object_is_written_once_to_its_final_key_on_the_condition_that_nothing_is_there(bucket, publish):
    assert publish(OURS) is True
    (request,) = [request for request in bucket.door.requests if request.method != "GET" and request.method != "HEAD"]
    assert (request.method, request.key) == ("PUT", f"qa/{REL}")
    assert request.headers["if-none-match"] == "*"
    assert bucket.contents() == {str(REL): OURS}
    assert publish(THEIRS) is False
    assert bucket.door.written() == [f"qa/{REL}"]
    assert bucket.contents() == {str(REL): OURS}


def test_a_large_object_is_written_in_parts_that_are_joined_on_the_same_condition(bucket, publish, in_parts):
    assert publish(OURS) is True
    assert [request.headers.get("if-none-match") for request in bucket.door.requests if request.writes] == ["*"]
    assert bucket.contents() == {str(REL): OURS}


@pytest.mark.parametrize("size", ["small", "in parts"])
def test_of_two_writers_at_once_one_wins_and_the_other_replaces_nothing(bucket, publish, request, size):
    if size == "in parts":
        request.getfixturevalue("in_parts")
    met = meet(bucket)
    ours, theirs = at_once(lambda: publish(OURS), lambda: publish(THEIRS))
    assert len(met) == 2
    assert {ours, theirs} == {True, False}
    assert bucket.contents() == {str(REL): OURS if ours else THEIRS}
    assert bucket.open_uploads() == []


def test_an_upload_that_fails_in_the_middle_leaves_nothing(bucket, publish, in_parts):
    bucket.door.before = lambda request: 500 if request.query.get("partNumber") == ["2"] else None
    with pytest.raises(DestinationWriteError, match="OSError"):
        publish(OURS)
    assert [request.query for request in bucket.door.requests if "partNumber" in request.query]
    assert bucket.contents() == {}
    assert bucket.open_uploads() == []
    bucket.door.before = lambda request: None
    assert publish(OURS) is True


def test_an_upload_that_is_refused_leaves_nothing(bucket, publish):
    bucket.door.before = lambda request: 500 if request.writes else None
    with pytest.raises(DestinationWriteError, match="OSError"):
        publish(OURS)
    assert bucket.contents() == {}


def test_an_upload_whose_answer_is_lost_is_there_once(bucket, publish):
    answers = [s3.LOSE_THE_ANSWER]
    bucket.door.before = lambda request: answers.pop() if request.writes and answers else None
    publish(OURS)
    assert not answers
    assert bucket.contents() == {str(REL): OURS}


def test_what_reads_back_differently_is_removed(bucket, file_of):
    with pytest.raises(DestinationWriteError, match="reads back differently"):
        Destination(bucket.root).publish(file_of(OURS), REL, sha256=sha256(THEIRS))
    assert bucket.contents() == {}


def knows_no_condition(request):
    return 501 if request.writes and {"if-none-match", "if-match"} & set(request.headers) else None


def test_a_store_without_conditions_is_written_all_the_same_and_says_so(bucket, publish, replace, caplog):
    bucket.door.before = knows_no_condition
    assert publish(OURS) is True
    assert replace(THEIRS, instead_of=OURS) is True
    assert publish(OURS) is False
    assert bucket.contents() == {str(REL): THEIRS}
    assert len(caplog.records) == 2
    assert "cannot write on a condition" in caplog.text


def test_without_conditions_nothing_is_removed_that_another_writer_put_over_ours(bucket, publish):
    putting = []

    def before(request):
        if request.method == "GET" and request.key.endswith(REL.name) and len(putting) == 1:
            putting.append("theirs")
            bucket.put(request.key, THEIRS)
        if (status := knows_no_condition(request)) is None and request.writes:
            putting.append("ours")
        return status

    bucket.door.before = before
    assert publish(OURS) is False
    assert bucket.contents() == {str(REL): THEIRS}


def test_a_newer_version_takes_the_place_of_what_was_looked_at_alone(bucket, publish, replace):
    publish(OURS)
    assert replace(THEIRS, instead_of=OURS) is True
    assert bucket.contents() == {str(REL): THEIRS}
    assert replace(b"third", instead_of=OURS) is False
    assert bucket.contents() == {str(REL): THEIRS}


def test_a_large_newer_version_goes_in_parts_without_a_condition(bucket, publish, replace, in_parts, caplog):
    publish(OURS)
    bucket.door.requests.clear()
    assert replace(THEIRS, instead_of=OURS) is True
    assert [request.method for request in bucket.door.requests if request.writes] == ["POST"]
    assert bucket.contents() == {str(REL): THEIRS}
    assert not caplog.records


def test_of_two_newer_versions_at_once_one_wins_and_the_other_replaces_nothing(bucket, publish, replace):
    publish(b"old")
    met = meet(bucket)
    ours, theirs = at_once(lambda: replace(OURS, b"old"), lambda: replace(THEIRS, b"old"))
    assert len(met) == 2
    assert {ours, theirs} == {True, False}
    assert bucket.contents() == {str(REL): OURS if ours else THEIRS}


def test_a_newer_version_whose_answer_is_lost_is_there(bucket, publish, replace):
    publish(b"old")
    answers = [s3.LOSE_THE_ANSWER]
    bucket.door.before = lambda request: answers.pop() if request.writes and answers else None
    assert replace(OURS, instead_of=b"old") is True
    assert not answers
    assert bucket.contents() == {str(REL): OURS}


def test_a_newer_version_that_fails_leaves_the_old_one(bucket, publish, replace):
    publish(b"old")
    bucket.door.before = lambda request: 500 if request.writes else None
    with pytest.raises(DestinationWriteError):
        replace(OURS, instead_of=b"old")
    assert bucket.contents() == {str(REL): b"old"}


def test_a_newer_version_that_was_replaced_in_turn_is_not_removed(bucket, publish, replace):
    publish(b"old")
    put = []

    def before(request):
        if put == [True] and request.method == "GET":
            put.append(False)
            bucket.put(request.key, THEIRS)
        if request.writes and not put:
            put.append(True)

    bucket.door.before = before
    with pytest.raises(DestinationWriteError, match="reads back differently"):
        replace(OURS, instead_of=b"old")
    assert bucket.contents() == {str(REL): THEIRS}


def test_a_manifest_is_the_old_one_or_the_new_one(bucket):
    destination = Destination(bucket.root)
    destination.write_text(MANIFEST, "the old one")
    bucket.door.before = lambda request: 500 if request.writes else None
    with pytest.raises(DestinationWriteError):
        destination.write_text(MANIFEST, "the new one")
    bucket.door.before = lambda request: None
    assert destination.read_text(MANIFEST) == "the old one"
    destination.write_text(MANIFEST, "the new one")
    assert destination.read_text(MANIFEST) == "the new one"
    assert set(bucket.contents()) == {str(MANIFEST)}


def test_the_id_of_a_destination_is_that_of_whoever_made_it_first(bucket):
    def be_faster(request):
        if request.writes:
            bucket.door.before = lambda request: None
            bucket.put("qa/.dicom/id", b"theirs")

    bucket.door.before = be_faster
    assert Destination(bucket.root).random_id() == "theirs"
    assert bucket.contents() == {".dicom/id": b"theirs"}


def test_a_folder_is_listed_whole_however_many_keys_it_has(bucket, publish):
    names = [f"RTIMAGE.1.{number}.dcm" for number in range(2 * s3.PAGE + 5)]
    bucket.fs.pipe({f"{bucket.name}/qa/{REL.with_name(name)}": b"x" for name in names})
    bucket.put(f"qa/{REL.parent}/below/RTIMAGE.1.1.dcm", b"x")
    bucket.door.requests.clear()
    destination = Destination(bucket.root)
    assert destination.names_beside(REL, "RT") == sorted(REL.with_name(name) for name in names)
    pages = [request for request in bucket.door.requests if "list-type" in request.query]
    assert len(pages) == 3
    assert destination.names_beside(REL, "RTIMAGE.1.44") == [REL.with_name("RTIMAGE.1.44.dcm")]
    assert destination.names_beside(PurePosixPath("elsewhere/x"), "") == []


def test_each_name_that_a_layout_can_make_is_held_under_it(bucket, publish):
    names = [
        "a b",
        "a+b",
        "a%20b",
        "50%",
        "a&b=c",
        "a#b",
        "a@b",
        "a;b,c",
        "[a]{b}",
        "'a'!(b)~$",
        "Grün",
        "日本",
        "e\u0301",
    ]
    held = {}
    destination = Destination(bucket.root)
    for name in names:
        relative = PurePosixPath(name) / f"{name}.1.2.dcm"
        held[str(relative)] = name.encode() + OURS
        assert publish(held[str(relative)], relative) is True
        assert destination.size(relative) == len(held[str(relative)])
        assert destination.names_beside(relative, name) == [relative]
    assert bucket.contents() == held
    assert publish(THEIRS, PurePosixPath("a b/a b.1.2.dcm")) is False


def test_a_folder_of_that_name_is_not_an_object(bucket, publish):
    publish(OURS)
    assert Destination(bucket.root).size(REL.parent) is None


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (403, "PermissionError", "credentials have to list, read, write and remove"),
        (404, "FileNotFoundError", "no such bucket"),
        (500, "OSError", "can be reached"),
    ],
)
def test_a_store_that_does_not_let_us_write_says_what_to_do_and_names_no_object(bucket, publish, status, kind, advice):
    bucket.door.before = lambda request: status if request.writes else None
    with pytest.raises(DestinationWriteError, match=kind) as caught:
        publish(OURS, NAMES_A_PATIENT)
    assert advice in str(caught.value)
    assert "QA_SECRET" not in "".join(traceback.format_exception(caught.value))


def test_a_store_without_credentials_says_that_they_are_missing(store, bucket, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(DestinationWriteError, match="NoCredentialsError") as caught:
        Destination(store.path(bucket.uri, key=None, secret=None, skip_instance_cache=True)).random_id()
    assert "no credentials" in caught.value.hint


# What a standing receiver publishes


def test_copies_of_a_standing_receiver_are_found_fetched_and_claimed(bucket, tmp_path):
    """Two retrievals on different hosts, through one bucket."""
    ds = rt_image(1)
    uid = str(ds.SOPInstanceUID)
    with SpoolSink(Spool(tmp_path / "elsewhere"), standing=True) as receiving:
        sharers = [_sharer(bucket, tmp_path / name, name, ds) for name in ("first", "second")]
        for arrivals in sharers:
            arrivals.start()
            arrivals.announce([uid], ())
            arrivals.asking([uid])
        for number in range(2):
            receive(receiving, ds)
            (item,) = receiving.spool.unclaimed()
            shard = item.path.parent.name
            copy = PurePosixPath("objects", shard, item.path.name)
            assert Destination(bucket.root).publish(item.path, copy, sha256=sha256(item.path.read_bytes()))
            original = item.path.read_bytes()
            item.path.unlink()
            taken = [arrivals.take(now=True) for arrivals in sharers]
            assert [len(items) for items in taken] == [1 - number, number]
            assert taken[number][0].path.read_bytes() == original
            claims = Destination(bucket.root).names_beside(PurePosixPath("claims", item.path.name, "-"), "")
            assert [claim.name for claim in claims] == [("first", "second")[number]]
            # As the retrieval does, before it looks again.
            sharers[number]._ledger.entries[uid].state = State.VERIFIED
        for arrivals in sharers:
            arrivals.stop()
            arrivals._place._owner.close()


@pytest.fixture
def published(bucket, tmp_path):
    """One image in the bucket, and a retrieval that has asked for it: (its arrivals, the key, the content)."""
    ds = rt_image(1)
    arrivals = _sharer(bucket, tmp_path / "first", "first", ds)
    arrivals.announce([str(ds.SOPInstanceUID)], ())
    arrivals.asking([str(ds.SOPInstanceUID)])
    with SpoolSink(Spool(tmp_path / "elsewhere"), standing=True) as receiving:
        receive(receiving, ds)
        (item,) = receiving.spool.unclaimed()
        content = item.path.read_bytes()
        key = f"qa/objects/{item.path.parent.name}/{item.path.name}"
        bucket.put(key, content)
        bucket.door.requests.clear()
        yield arrivals, key, content
    arrivals._place._owner.close()


def test_a_copy_is_fetched_without_a_file_beside_the_spool(bucket, published, monkeypatch):
    arrivals, key, content = published
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **_: pytest.fail("a temporary folder"))
    (item,) = arrivals.take(now=True)
    assert item.path.read_bytes() == content
    assert item.path.stat().st_mode & 0o777 == 0o600
    reads = [request for request in bucket.door.requests if request.method == "GET" and request.key == key]
    assert len(reads) == 2


def test_a_copy_that_is_replaced_while_it_is_read_is_read_from_its_start(bucket, published, monkeypatch):
    arrivals, key, content = published
    write, tries = StorePlace._write, []

    def replaced(self, reader, local):
        write(self, reader, local)
        tries.append(local.stat().st_size)
        if len(tries) == 1:
            local.write_bytes(content * 3)
            raise s3fs.utils.FileExpired("changed", key)

    monkeypatch.setattr(StorePlace, "_write", replaced)
    (item,) = arrivals.take(now=True)
    assert tries == [len(content)] * 2
    assert item.path.read_bytes() == content


@pytest.mark.parametrize("other", [lambda content: content[:-2] + b"!!", lambda content: content + b"!!"])
def test_a_copy_that_reads_differently_the_second_time_is_not_taken(bucket, published, monkeypatch, other):
    arrivals, key, content = published
    write = StorePlace._write

    def and_then(self, reader, local):
        write(self, reader, local)
        bucket.put(key, other(content))

    monkeypatch.setattr(StorePlace, "_write", and_then)
    with pytest.raises(ReceiverUnavailableError, match="reads differently the second time"):
        arrivals.take(now=True)
    assert [path.name for path in arrivals._place._owner.folder.iterdir()] == ["lock"]
    assert not any("/claims/" in key for key in bucket.door.written())


def _sharer(bucket, folder, name, ds):
    spool, ledger = Spool(folder), Ledger([Entry(sop_instance_uid=ds.SOPInstanceUID, sop_class_uid=ds.SOPClassUID)])
    store = ReadStore(bucket.root)
    peer = Peer(host="127.0.0.1", port=104, called_ae_title="VMSDBD")
    place = StorePlace(
        store,
        name="night",
        peer=peer,
        spool=spool,
        owner=spool.register(),
        retrieval_id=name,
        ledger=ledger,
        cancellation=Cancellation(),
    )
    wanted = Wanted(StoreDocuments(store), name, ae_title="AIRFLOW")
    return StandingArrivals(place, wanted, ledger=ledger, peer=peer)
