"""Storing files: each accounted for, a retry sends the rest alone, nobody's name written down, flat memory."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tracemalloc
import uuid
from pathlib import Path

import fsspec
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from support.archive import rt_image
from support.datasets import differences, elements, part10, wire_bytes
from support.dicom_files import EXPLICIT, IMPLICIT, compressed_file, dicom_file, image_file
from support.identifiers import forms_of, found_in
from support.raw_peer import parse_command, raw_peer
from support.storage_peer import StoragePeer

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import sender, slices
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.sink import StoreRequest
from airflow_provider_varian.errors import (
    CancelledError,
    ConfigurationError,
    DestinationWriteError,
    PeerUnreachableError,
)
from airflow_provider_varian.receiver.file_meta import encode_file_meta
from airflow_provider_varian.retrieval import outgoing
from airflow_provider_varian.retrieval import store as storing
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.sent import SentDocument, load_document
from airflow_provider_varian.retrieval.store import store_files


@pytest.fixture
def storage():
    with StoragePeer() as running:
        yield running


@pytest.fixture
def files(tmp_path):
    return tmp_path / "files"


@pytest.fixture
def send(storage, tmp_path):
    """Send files to the peer; the account goes below ``tmp_path / "root"``, each time under the same ID."""

    def run(*named, **settings):
        arguments = {"store_id": "an-id", "destination": Destination(tmp_path / "root")} | settings
        peer = arguments.pop("peer", None) or storage.peer()
        return store_files(peer, list(named), **arguments)

    return run


def account_of(tmp_path):
    return json.loads((tmp_path / "root" / ".dicom" / "sent-an-id.json").read_text())


def test_bytes_arrive_as_they_lie_in_the_file_and_the_account_names_each(send, storage, files, tmp_path):
    paths = [image_file(files, 1), image_file(files, 2, IMPLICIT)]
    result = send(files)
    assert (str(result.outcome), result.error) == ("complete", None)
    assert [data for _, _, data in storage.received] == [wire_bytes(path) for path in paths]
    written = account_of(tmp_path)
    assert (written["schema_version"], written["outcome"], written["attempts"]) == (1, "complete", 1)
    assert written["peer"]["name"] == storage.peer().name
    assert written["peer"]["accepted_contexts"]
    assert written["objects"][0] == {
        "position": 1,
        "sop_instance_uid": rt_image(1).SOPInstanceUID,
        "sop_class_uid": uids.RT_IMAGE,
        "study_instance_uid": rt_image(1).StudyInstanceUID,
        "transfer_syntax_uid": EXPLICIT,
        "sent_transfer_syntax_uid": EXPLICIT,
        "state": "stored",
        "status": "0x0000",
        "bytes": paths[0].stat().st_size,
        "sha256": hashlib.sha256(paths[0].read_bytes()).hexdigest(),
        "attempts": 1,
    }
    assert result.document_path == str(tmp_path / "root" / ".dicom" / "sent-an-id.json")
    assert result.names == {1: str(paths[0]), 2: str(paths[1])}


def test_nothing_is_read_nor_called_unless_the_connection_allows_it(send, storage, files, tmp_path, monkeypatch):
    image_file(files, 1)
    monkeypatch.setattr(storing, "list_sources", lambda *args, **kwargs: pytest.fail("files were looked at"))
    with pytest.raises(ConfigurationError, match="allow_store"):
        send(files, peer=storage.peer(allow_store=False))
    assert storage.associations == 0
    assert not (tmp_path / "root").exists()


def test_what_is_no_object_is_refused_in_words_and_the_others_go(send, storage, files, tmp_path):
    image_file(files, 1)
    (files / "0002.dcm").write_text("Dear Sir or Madam")
    (files / "0003.dcm").write_bytes(b"")
    directory = rt_image(4)
    directory.SOPClassUID = "1.2.840.10008.1.3.10"
    dicom_file(files / "0004.dcm", directory)
    nameless = rt_image(5)
    path = dicom_file(files / "0005.dcm", nameless)
    path.write_bytes(path.read_bytes().replace(b"\x08\x00\x18\x00UI", b"\x08\x00\x19\x00UI"))
    whole = image_file(files, 6)
    whole.write_bytes(whole.read_bytes()[:-100])
    other = image_file(files, 7)
    content = other.read_bytes()
    other.write_bytes(content.replace(rt_image(7).SOPInstanceUID.encode(), rt_image(8).SOPInstanceUID.encode(), 1))
    image_file(files, 9).rename(files / "0009.dcm")
    result = send(files)
    told = {each.position: (str(each.state), each.reason) for each in result.document.files}
    assert {place: state for place, (state, _) in told.items()} == {
        1: "stored",
        2: "refused",
        3: "refused",
        4: "refused",
        5: "refused",
        6: "failed",
        7: "refused",
        8: "stored",
    }
    for place, words in {
        2: "not a DICOM file",
        3: "not a DICOM file",
        4: "a DICOMDIR",
        5: "no SOP Instance UID",
        6: "cut or broken",
        7: "name different objects",
    }.items():
        assert words in told[place][1]
    assert str(result.outcome) == "partial"
    assert isinstance(result.error, ConfigurationError)
    assert [uid.rpartition(".")[2] for uid in storage.uids] == ["1", "9"]
    assert result.counts | {"bytes": 0} == {
        "files": 8,
        "unsent": 0,
        "stored": 2,
        "warning": 0,
        "failed": 1,
        "unanswered": 0,
        "refused": 5,
        "earlier": 0,
        "duplicate": 0,
        "bytes": 0,
    }


@pytest.mark.parametrize("syntax", [uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, uids.EXPLICIT_VR_BIG_ENDIAN])
def test_deflated_and_big_endian_files_are_refused(send, storage, files, syntax):
    path, ds = image_file(files, 1), rt_image(1)
    request = StoreRequest(sop_class_uid=ds.SOPClassUID, sop_instance_uid=ds.SOPInstanceUID, transfer_syntax_uid=syntax)
    path.write_bytes(encode_file_meta(request) + wire_bytes(path))
    result = send(path)
    assert [str(each.state) for each in result.document.files] == ["refused"]
    assert "deflated, big endian or none" in result.document.files[0].reason
    assert storage.associations == 0


def test_a_pipe_is_refused_and_not_waited_for(send, files):
    files.mkdir()
    os.mkfifo(files / "pipe")
    result = send(files)
    assert result.document.files[0].reason == "it is not a regular file"
    assert str(result.outcome) == "nothing"


def test_the_preamble_stays_here(send, storage, files):
    path = dicom_file(files / "a.dcm", rt_image(1), preamble=b"MZ" + bytes(124) + b"!!")
    send(path)
    assert b"MZ" not in storage.received[0][2]
    assert storage.received[0][2] == wire_bytes(path)


def test_a_retry_sends_what_was_not_accepted_and_nothing_else(send, storage, files, tmp_path):
    for number in range(1, 5):
        image_file(files, number)
    storage.answer = lambda uid: {"2": 0xA700, "3": 0xB007}.get(uid[-1], 0)
    first = send(files)
    assert str(first.outcome) == "partial"
    assert first.error.transient
    storage.received.clear()
    storage.answer = lambda uid: 0
    second = send(files)
    assert [uid[-1] for uid in storage.uids] == ["2"]
    assert (str(second.outcome), second.counts["earlier"], second.counts["warning"]) == ("complete", 3, 1)
    objects = account_of(tmp_path)["objects"]
    assert [each["attempts"] for each in objects] == [1, 2, 1, 1]
    assert objects[2]["status"] == "0xB007"
    assert account_of(tmp_path)["attempts"] == 2
    # Each try was answered: nothing went twice for want of an answer.
    assert account_of(tmp_path)["warnings"] == []
    storage.received.clear()
    associations = storage.associations
    assert str(send(files).outcome) == "complete"
    assert (storage.uids, storage.associations) == ([], associations)


def test_other_content_under_the_same_uid_is_sent_again(send, storage, files):
    path = image_file(files, 1)
    send(path)
    image_file(files, 1, RTImageLabel="changed")
    assert str(send(path).outcome) == "complete"
    assert len(storage.received) == 2
    assert storage.received[1][2] == wire_bytes(path)


def test_what_an_earlier_try_sent_stays_in_the_account(send, files, tmp_path):
    first, second = image_file(files, 1), image_file(files, 2)
    send(first)
    send(second)
    assert [each.get("position") for each in account_of(tmp_path)["objects"]] == [1, None]
    assert account_of(tmp_path)["counts"]["files"] == 1


def test_two_files_of_one_object_are_one_and_two_contents_are_not_both_sent(send, storage, files):
    one = image_file(files, 1)
    (files / "copy.dcm").write_bytes(one.read_bytes())
    image_file(files / "other", 1, RTImageLabel="other")
    result = send(files, recursive=True)
    assert [(str(each.state), each.duplicate) for each in result.document.files] == [
        ("stored", False),
        ("stored", True),
        ("refused", False),
    ]
    assert "number 1 holds the same SOP Instance UID" in result.document.files[2].reason
    assert len(storage.received) == 1


def test_a_second_content_that_was_refused_is_not_sent_by_the_retry_either(send, storage, files, tmp_path):
    image_file(files, 1)
    image_file(files / "other", 1, RTImageLabel="other")
    for _ in range(2):
        assert [str(each.state) for each in send(files, recursive=True).document.files] == ["stored", "refused"]
        assert [each.get("attempts", 0) for each in account_of(tmp_path)["objects"]] == [1, 0]
    assert len(storage.received) == 1


def test_a_whole_copy_stands_in_for_a_cut_file(send, storage, files):
    cut = image_file(files, 1)
    whole = files / "copy.dcm"
    whole.write_bytes(cut.read_bytes())
    cut.write_bytes(cut.read_bytes()[:-100])
    again = files / "copy2.dcm"
    again.write_bytes(cut.read_bytes())
    result = send(files)
    assert [str(each.state) for each in result.document.files] == ["failed", "stored", "failed"]
    assert "cut or broken" in result.document.files[0].reason
    assert "cut or broken" in result.document.files[2].reason
    assert [data for _, _, data in storage.received] == [wire_bytes(whole)]


def test_copies_are_read_once_each_to_be_compared(send, files, monkeypatch):
    content = image_file(files, 1).read_bytes()
    for number in (2, 3, 4):
        (files / f"copy{number}.dcm").write_bytes(content)
    looked = []
    look = storing.look_through
    monkeypatch.setattr(storing, "look_through", lambda path, head: looked.append(path.name) or look(path, head))
    assert send(files).counts["duplicate"] == 3
    # The first once more, when its turn comes.
    assert sorted(looked) == ["0001.dcm", "0001.dcm", "copy2.dcm", "copy3.dcm", "copy4.dcm"]


def test_a_copy_is_not_called_stored_when_the_other_file_was_changed_meanwhile(send, storage, files, monkeypatch):
    path = image_file(files, 1)
    (files / "copy.dcm").write_bytes(path.read_bytes())
    associate = storing.dimse_store.associate

    def change_first(*args, **kwargs):
        image_file(files, 1, RTImageLabel="changed")
        return associate(*args, **kwargs)

    monkeypatch.setattr(storing.dimse_store, "associate", change_first)
    assert [str(each.state) for each in send(files).document.files] == ["stored", "unsent"]
    assert storage.received[0][2] == wire_bytes(path)


def test_what_another_peer_accepted_is_sent_to_this_one(send, storage, files, tmp_path, caplog):
    image_file(files, 1)
    send(files)
    with StoragePeer() as other:
        result = send(files, peer=other.peer())
        assert (result.counts["stored"], result.counts["earlier"]) == (1, 0)
        assert len(other.received) == 1
    assert account_of(tmp_path)["warnings"] == [
        f"earlier tries sent to {storage.peer().name}, not to this peer: each file is sent"
    ]
    assert "not to this peer" in caplog.text


@pytest.mark.parametrize("spoil", ["cut", "unreadable"])
def test_what_was_accepted_stays_so_while_its_file_cannot_be_read(send, storage, files, monkeypatch, spoil):
    path = image_file(files, 1)
    send(files)
    content = path.read_bytes()
    with monkeypatch.context() as patch:
        if spoil == "cut":
            path.write_bytes(content[:-100])
        else:
            patch.setattr(
                storing, "look_through", lambda *args: (_ for _ in ()).throw(OSError(5, "Input/output error"))
            )
        result = send(files)
        assert [str(each.state) for each in result.document.files] == ["failed"]
        assert result.error.transient is (spoil == "unreadable")
    path.write_bytes(content)
    assert (str(send(files).outcome), len(storage.received)) == ("complete", 1)


def test_an_object_that_was_sent_twice_is_recorded(send, storage, files, tmp_path):
    lost = []
    storage.answer = lambda uid: lost.append(uid) if not lost else 0
    image_file(files, 1)
    assert str(send(files).outcome) == "complete"
    assert account_of(tmp_path)["objects"][0]["attempts"] == 2
    assert account_of(tmp_path)["warnings"] == ["sent again, because an answer had not come: 1 of the objects"]


def test_an_object_without_an_answer_that_a_retry_sends_is_recorded_too(send, storage, files, tmp_path):
    storage.answer = lambda uid: None
    image_file(files, 1)
    assert send(files).counts["unanswered"] == 1
    storage.answer = lambda uid: 0
    assert str(send(files).outcome) == "complete"
    assert account_of(tmp_path)["objects"][0]["attempts"] == 3
    assert account_of(tmp_path)["warnings"] == ["sent again, because an answer had not come: 1 of the objects"]


def test_explicit_becomes_implicit_where_the_peer_takes_nothing_else(files, send):
    ds = rt_image(1)
    ds.PatientName = "Müller^Jörg"
    ds.add_new(0x00091001, "UN", b"private!")
    ds.PatientComments = ""
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    item.PurposeOfReferenceCodeSequence = [Dataset()]
    item.PurposeOfReferenceCodeSequence[0].CodeMeaning = "Übung"
    ds.ReferencedRTPlanSequence = [item]
    ds.ExposureTime = "10.50"
    ds.ProcedureCodeSequence = [Dataset()]
    ds.ProcedureCodeSequence[0].CodeMeaning = "Ärger"
    path = dicom_file(files / "a.dcm", ds)
    trailing = rt_image(2)
    trailing.add_new(0xFFFCFFFC, "OB", bytes(10))
    dicom_file(files / "b.dcm", trailing)
    # Text that its character set does not have, as the wild holds it: it must stay the same bytes.
    path.write_bytes(path.read_bytes().replace("Jörg".encode(), b"J\xffrg ").replace("Ärger".encode(), b"\xff\xffrger"))
    with StoragePeer({uids.RT_IMAGE: [uids.IMPLICIT_VR_LITTLE_ENDIAN]}) as storage:
        result = send(files, peer=storage.peer())
        assert str(result.outcome) == "complete", result.document.message
        (_, _, one), (_, _, two) = storage.received
    assert b"M\xc3\xbcller^J\xffrg " in one
    assert b"\xff\xffrger" in one
    came, was = part10(one), dcmread(path)
    for each in (came, was):
        del each[0x00100010], each.ProcedureCodeSequence  # cannot be decoded
    assert not differences(elements(came), elements(was))
    assert not differences(elements(part10(two)), elements(dcmread(files / "b.dcm")))
    assert result.document.files[0].sent_transfer_syntax_uid == IMPLICIT


def test_a_compressed_file_goes_as_it_is(files, send):
    path = compressed_file(files, 1)
    with StoragePeer({uids.RT_IMAGE: ["1.2.840.10008.1.2.4.50"]}) as storage:
        assert str(send(path, peer=storage.peer()).outcome) == "complete"
        assert storage.received[0][2] == wire_bytes(path)
    with StoragePeer() as storage:
        result = send(path, peer=storage.peer(), store_id="another")
    assert str(result.outcome) == "nothing"
    assert "never re-encoded" in result.document.files[0].reason


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT], ids=["as it is", "re-encoded"])
def test_memory_stays_flat_whatever_the_size(files, send, storage, syntax):
    ds = rt_image(1)
    ds.PixelData = b""
    path = dicom_file(files / "large.dcm", ds, syntax)
    content = path.read_bytes()
    size = 60_000_000
    # Pixel Data stands at the end; only its length and value are exchanged.
    path.write_bytes(content[:-4] + size.to_bytes(4, "little"))
    with path.open("r+b") as file:
        file.truncate(len(content) + size)
    received = []

    def play(wire):
        wire.accept(max_pdu=131072)
        _, command = wire.read_pdu()
        count, last = 0, False
        while not last:
            _, body = wire.read_pdu()
            count, last = count + len(body) - 6, bool(body[5] & 2)
        received.append(count)
        wire.respond(parse_command(command[6:]) | {"context": command[4]}, 0)
        wire.wait_for_end()

    largest = []
    take = slices.Content.take

    def taken(self, count):
        parts = take(self, count)
        largest.append(sum(map(len, parts)))
        return parts

    with raw_peer(play) as port, pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices.Content, "take", taken)
        peer = storage.peer(dimse_timeout=60.0)
        object.__setattr__(peer, "port", port)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            result = send(path, peer=peer)
            assert tracemalloc.get_traced_memory()[1] - before < 8_000_000
        finally:
            tracemalloc.stop()
    assert str(result.outcome) == "complete", result.document.message
    assert received[0] > size
    assert len(largest) > 100
    assert max(largest) <= slices.BLOCK_BYTES


def test_no_name_of_a_file_and_none_of_a_patient_is_told(send, storage, files, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    name, patient = "Quixotte^Dulcinea", "ZX98765"
    for number in (1, 2, 3):
        ds = rt_image(number, patient=patient, PatientName=name)
        dicom_file(files / f"Quixotte_Dulcinea_{patient}_{number}.dcm", ds)
    (files / f"Quixotte_Dulcinea_{patient}.txt").write_text("letter")
    (files / f"Quixotte_gone_{patient}.dcm").symlink_to(tmp_path / "nowhere")
    storage.answer = lambda uid: {"1": (0xC001, f"{name} {patient}"), "2": 0xA700}.get(uid[-1], 0)
    result = send(files)
    assert result.counts["files"] == 5
    with pytest.raises(ConfigurationError) as missing:
        send(files / f"Quixotte_{patient}_9.dcm")
    told = [
        (tmp_path / "root" / ".dicom" / "sent-an-id.json").read_text(),
        caplog.text,
        str(result.error),
        str(missing.value),
        repr(result),
        *(str(each.args) + each.getMessage() for each in caplog.records),
    ]
    words = list(forms_of(patient, name))
    assert not found_in("".join(told).encode(), words)
    assert found_in(patient.encode(), words)


def test_a_folder_is_looked_into_deeply_only_when_asked_and_hidden_files_never(send, storage, files):
    image_file(files, 1)
    image_file(files / "below" / "further", 2)
    image_file(files / ".dicom", 3)
    image_file(files, 4).rename(files / ".half-written.dcm")
    assert send(files, store_id="a").counts["files"] == 1
    assert send(files, files, recursive=True, store_id="b").counts["files"] == 2
    assert [uid[-1] for uid in storage.uids] == ["1", "1", "2"]


def test_an_empty_folder_is_empty_and_calls_nobody(send, storage, files):
    files.mkdir()
    assert str(send(files).outcome) == "empty"
    assert storage.associations == 0


def test_files_of_a_store_are_sent_too(send, storage, files):
    from upath import UPath

    root = UPath(f"memory://{uuid.uuid4().hex}")
    for number, name in ((1, "a.dcm"), (2, "below/b.dcm"), (3, ".dicom/c.dcm")):
        path = image_file(files, number)
        fsspec.filesystem("memory").pipe_file(f"{root.path}/{name}", path.read_bytes())
    assert send(root, store_id="a").counts["files"] == 1
    result = send(str(root), store_id="b", recursive=True)
    assert (result.counts["files"], result.counts["stored"]) == (2, 2)
    assert [data for _, _, data in storage.received[1:]] == [wire_bytes(files / f"000{n}.dcm") for n in (1, 2)]
    assert send(root / "a.dcm", store_id="c").counts["stored"] == 1
    with pytest.raises(ConfigurationError, match=r"number 2 .*not there"):
        send(root / "a.dcm", root / "z.dcm", store_id="d")


def test_a_file_that_is_written_to_while_it_is_sent_is_not_called_stored(send, storage, files):
    path = image_file(files, 1)

    def change(uid):
        os.utime(path, ns=(1, 1))
        return 0

    storage.answer = change
    result = send(path)
    assert [str(each.state) for each in result.document.files] == ["failed"]
    assert "changed while it was sent" in result.document.files[0].reason
    assert (result.document.files[0].attempts, result.error.transient) == (1, True)


def test_a_file_that_is_shortened_while_it_is_looked_at_fails_and_harms_nobody(send, storage, files, monkeypatch):
    # Mapped into memory, it would end this very process.
    path = image_file(files, 1)
    image_file(files, 2)
    walk = outgoing.iter_elements

    def shorten_first(data, *args, **kwargs):
        if not storage.received:
            os.truncate(path, 0)
        return walk(data, *args, **kwargs)

    monkeypatch.setattr(outgoing, "iter_elements", shorten_first)
    monkeypatch.setattr(outgoing, "_stamp", lambda status: (status.st_size, 0, 0))
    storage.answer = lambda uid: 0
    result = send(path)
    assert [str(each.state) for each in result.document.files] == ["failed"]
    assert "cut or broken" in result.document.files[0].reason


def test_a_file_that_grows_while_it_is_looked_at_is_worth_a_retry(send, storage, files, monkeypatch):
    path = image_file(files, 1)
    walk = outgoing._walk

    def grow(*args):
        with path.open("ab") as file:
            file.write(bytes(8))
        return walk(*args)

    monkeypatch.setattr(outgoing, "_walk", grow)
    result = send(path)
    assert result.document.files[0].reason == "it is being written to"
    assert (storage.received, result.error.transient) == ([], True)


def test_a_file_that_is_another_when_its_turn_comes_is_not_sent(send, storage, files, monkeypatch):
    path = image_file(files, 1)
    associate = storing.dimse_store.associate

    def exchange(*args, **kwargs):
        path.write_bytes(image_file(files / "other", 2).read_bytes())
        return associate(*args, **kwargs)

    monkeypatch.setattr(storing.dimse_store, "associate", exchange)
    result = send(path)
    assert result.document.files[0].reason == "the file is another than a moment ago"
    assert (storage.received, result.error.transient) == ([], True)


@pytest.mark.parametrize("window", [12, 100])
def test_elements_are_walked_alike_whatever_is_read_at_a_time(files, monkeypatch, window):
    ds = rt_image(1)
    ds.ReferencedRTPlanSequence = [Dataset(), Dataset()]
    ds.ReferencedRTPlanSequence[1].ReferencedSOPInstanceUID = "1.2.3"
    path = dicom_file(files / "a.dcm", ds)
    head = outgoing.head_of(outgoing.read_front(path))
    expected = outgoing.look_through(path, head)
    monkeypatch.setattr(outgoing, "_WINDOW", window)
    assert outgoing.look_through(path, head) == expected
    assert path.read_bytes()[expected.pixels.offset :] == ds.PixelData


def test_a_peer_that_is_not_there_leaves_them_unsent_and_the_account_says_so(send, storage, files, tmp_path):
    image_file(files, 1)
    with raw_peer(lambda wire: None) as port:
        pass
    peer = storage.peer()
    object.__setattr__(peer, "port", port)
    result = send(files, peer=peer)
    assert (str(result.outcome), type(result.error)) == ("nothing", PeerUnreachableError)
    assert account_of(tmp_path)["objects"][0]["state"] == "unsent"
    assert "refused" in account_of(tmp_path)["message"]


def test_a_cancelled_run_leaves_a_pending_account_of_what_was_sent(send, storage, files, tmp_path):
    for number in (1, 2, 3):
        image_file(files, number)
    cancellation = Cancellation()

    def cancel_after_one(document: SentDocument):
        if document.counts()["stored"]:
            cancellation.cancel()

    with pytest.raises(CancelledError):
        send(files, on_change=cancel_after_one, cancellation=cancellation)
    written = account_of(tmp_path)
    assert (written["outcome"], written["counts"]["stored"], written["counts"]["unsent"]) == ("pending", 1, 2)
    storage.received.clear()
    assert str(send(files).outcome) == "complete"
    assert len(storage.received) == 2


def test_an_answer_that_comes_while_it_is_cancelled_is_written_down(send, storage, files, tmp_path):
    for number in (1, 2):
        image_file(files, number)
    cancellation = Cancellation()
    storage.answer = lambda uid: cancellation.cancel() or 0
    with pytest.raises(CancelledError):
        send(files, cancellation=cancellation)
    assert [each["state"] for each in account_of(tmp_path)["objects"]] == ["stored", "unsent"]


@pytest.mark.parametrize("unwritable", [False, True])
def test_what_is_raised_into_the_work_leaves_an_account_of_what_was_sent(
    send, storage, files, tmp_path, monkeypatch, caplog, unwritable
):
    class TimeOut(BaseException):
        """As Airflow raises it at the end of a task's execution_timeout."""

    for number in (1, 2, 3):
        image_file(files, number)
    store = sender.StreamingSender.store

    def interrupt_the_second(self, context_id, request, slices):
        if request.sop_instance_uid == rt_image(2).SOPInstanceUID:
            if unwritable:
                monkeypatch.setattr(SentDocument, "write", refuse)
            raise TimeOut
        return store(self, context_id, request, slices)

    def refuse(self, destination):
        raise DestinationWriteError("the disk is full")

    monkeypatch.setattr(sender.StreamingSender, "store", interrupt_the_second)
    with pytest.raises(TimeOut):
        send(files)
    states = [each["state"] for each in account_of(tmp_path)["objects"]]
    assert states == (["unsent"] * 3 if unwritable else ["stored", "unanswered", "unsent"])
    assert ("the disk is full" in caplog.text) is unwritable


def test_the_account_is_on_storage_before_anything_is_sent(send, storage, files, tmp_path):
    image_file(files, 1)
    seen = []
    storage.answer = lambda uid: seen.append(account_of(tmp_path)["outcome"]) or 0
    send(files)
    assert seen == ["pending"]
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DestinationWriteError):
        send(files, destination=Destination(tmp_path / "taken"))
    assert len(storage.received) == 1


def test_a_folder_that_a_console_made_in_s3_is_no_file(send, files, monkeypatch):
    fs = fsspec.filesystem("memory")
    root = f"/{uuid.uuid4().hex}"
    fs.pipe_file(f"{root}/a.dcm", image_file(files, 1).read_bytes())
    # s3fs lists such keys; the file system in memory cannot hold any.
    find = fs.find
    monkeypatch.setattr(type(fs), "find", lambda self, path, **how: [f"{root}/", f"{root}/sub/", *find(path, **how)])
    result = send(f"memory:/{root}", recursive=True)
    assert (result.counts["files"], str(result.outcome)) == (1, "complete")


def test_an_error_of_a_store_is_told_without_what_it_says(send, files, monkeypatch):
    fs = fsspec.filesystem("memory")
    path = f"/{uuid.uuid4().hex}/Quixotte.dcm"
    fs.pipe_file(path, image_file(files, 1).read_bytes())

    def refuse(*args, **kwargs):
        raise PermissionError(13, f"Forbidden: {path}", path)

    monkeypatch.setattr(type(fs), "open", refuse)
    result = send(f"memory:/{path}")
    (told,) = result.document.files
    assert told.reason == "it cannot be read (Permission denied: the store answered PermissionError)"
    assert result.error.transient


def test_without_a_place_for_it_the_account_is_not_kept(send, storage, files, tmp_path):
    image_file(files, 1)
    assert send(files, destination=None).document_path == ""
    assert str(send(files, destination=None).outcome) == "complete"
    assert len(storage.received) == 2
    assert not (tmp_path / "root").exists()


_ODD = SentDocument(id="an-id").to_json() | {"objects": [{"state": "stored", "bytes": "seven"}]}


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", '{"schema_version": 1}', '{"schema_version": 0}', json.dumps(_ODD)]
)
def test_an_unreadable_account_is_said_and_all_is_sent_again(send, storage, files, tmp_path, text, caplog):
    image_file(files, 1)
    send(files)
    (tmp_path / "root" / ".dicom" / "sent-an-id.json").write_text(text)
    assert str(send(files).outcome) == "complete"
    assert len(storage.received) == 2
    assert "not readable" in caplog.text


def test_an_account_of_a_later_version_is_refused(files, send, tmp_path):
    image_file(files, 1)
    send(files)
    later = account_of(tmp_path) | {"schema_version": 2}
    (tmp_path / "root" / ".dicom" / "sent-an-id.json").write_text(json.dumps(later))
    with pytest.raises(ConfigurationError, match="schema version 2"):
        send(files)


def test_what_is_written_is_read_back_the_same(files, send, tmp_path):
    image_file(files, 1)
    (files / "letter.txt").write_text("x")
    result = send(files)
    again = load_document(Destination(tmp_path / "root"), "an-id")
    assert again is not None
    assert again.to_json() == result.document.to_json()


def test_an_unreadable_file_is_told_and_may_be_retried(send, files, storage, monkeypatch):
    image_file(files, 1)
    image_file(files, 2)
    read = Path(files / "0001.dcm")
    opened = os.open

    def refuse(path, *args, **kwargs):
        if Path(os.fspath(path)) == read:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    result = send(files)
    assert result.document.files[0].reason == "it cannot be read (Permission denied)"
    assert result.error.transient
    assert len(storage.received) == 1
