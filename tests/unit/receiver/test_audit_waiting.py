"""What an audit sink does not take waits on this host's disk: nothing is lost, and nobody waits for a dead server."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
from datetime import UTC, datetime

import pytest

from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.receiver import audit_waiting
from airflow_provider_varian.receiver.audit_waiting import WaitingSink
from airflow_provider_varian.receiver.audit_xml import AuditMessage

WHEN = datetime(2026, 3, 29, 1, 2, 3, 456000, tzinfo=UTC)
DOWN = OSError(errno.ECONNREFUSED, "Connection refused")


def message(number, *, warns=False):
    return AuditMessage(xml=f"<AuditMessage n='{number} Grün'/>", when=WHEN, warns=warns)


class Sink:
    name = "the sink"

    def __init__(self):
        self.down = None
        self.batches = []
        self.calls = self.closed = 0

    def write(self, messages):
        self.calls += 1
        if self.down is not None:
            raise self.down
        self.batches.append(list(messages))

    def close(self):
        self.closed += 1

    @property
    def messages(self):
        return [each for batch in self.batches for each in batch]


@pytest.fixture
def sink():
    return Sink()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "spool" / "audit"


def test_what_the_sink_takes_leaves_no_trace_on_the_disk(sink, folder):
    waiting = WaitingSink(sink, folder)
    waiting.write([message(1)])
    waiting.close()
    assert sink.messages == [message(1)]
    assert (sink.closed, waiting.name, folder.exists()) == (1, "the sink", False)


def test_what_it_does_not_take_waits_and_goes_first_the_next_time(sink, folder, caplog):
    sink.down = DOWN
    first = WaitingSink(sink, folder)
    first.write([message(1), message(2, warns=True)])
    first.write([message(3)])
    assert first.waiting() == 3
    assert caplog.text.count("the sink cannot be written: Connection refused") == 1
    assert str(folder) in caplog.text
    assert "AuditMessage" not in caplog.text
    sink.down = None
    with caplog.at_level(logging.WARNING):
        WaitingSink(sink, folder).write([message(4)])
    assert sink.messages == [message(1), message(2, warns=True), message(3), message(4)]
    assert first.waiting() == 0
    assert "3 messages that waited were handed over to the sink" in caplog.text


def test_what_waits_is_for_our_user_alone_and_durable(sink, folder, monkeypatch):
    synced = []
    fsync = os.fsync

    def note(descriptor):
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    sink.down = DOWN
    waiting = WaitingSink(sink, folder)
    waiting.write([message(1)])
    monkeypatch.setattr(os, "fsync", note)
    waiting.write([message(2)])
    assert synced == [False, True], "the file, then the folder that names it"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_sink_that_is_down_is_left_alone_for_a_while(sink, folder, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(audit_waiting.time, "monotonic", lambda: clock[0])
    sink.down = DOWN
    waiting = WaitingSink(sink, folder)
    for number in range(50):
        waiting.write([message(number)])
    assert (sink.calls, waiting.waiting()) == (1, 50)
    clock[0] += 61
    sink.down = None
    waiting.write([message(50)])
    assert sink.messages == [message(number) for number in range(51)]


def test_a_sink_that_somebody_has_to_mend_loses_nothing_either(sink, folder, caplog):
    sink.down = ConfigurationError("the audit file may be written by others", hint="Mend it")
    waiting = WaitingSink(sink, folder)
    waiting.write([message(1)])
    assert waiting.waiting() == 1
    assert "may be written by others. Mend it" in caplog.text


def test_where_neither_is_possible_it_is_an_error(sink, folder, monkeypatch, caplog):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    sink.down = DOWN
    folder.mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        WaitingSink(sink, folder).write([message(1)])
    assert list(folder.iterdir()) == [], "no half of a message is left"
    assert "waits in" not in caplog.text, "nothing is said that is not so"


def test_what_was_not_taken_after_all_waits_on(sink, folder):
    sink.down = DOWN
    WaitingSink(sink, folder).write([message(1)])
    again = WaitingSink(sink, folder)
    again.write([message(2)])
    sink.down = None
    WaitingSink(sink, folder).write([])
    assert sink.messages == [message(1), message(2)]


def test_what_somebody_else_hands_over_is_left_to_him(sink, folder):
    sink.down = DOWN
    WaitingSink(sink, folder).write([message(1)])
    sink.down = None
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        WaitingSink(sink, folder).write([message(2)])
        assert sink.messages == [message(2)]
    WaitingSink(sink, folder).write([message(3)])
    assert sink.messages == [message(2), message(1), message(3)]


def test_much_that_waits_is_handed_over_in_batches_and_not_all_at_once(sink, folder, monkeypatch):
    monkeypatch.setattr(audit_waiting, "_BATCH", 2)
    monkeypatch.setattr(audit_waiting, "_AT_ONCE", 5)
    sink.down = DOWN
    WaitingSink(sink, folder).write([message(number) for number in range(7)])
    sink.down = None
    waiting = WaitingSink(sink, folder)
    waiting.write([message(7)])
    assert [len(batch) for batch in sink.batches] == [2, 2, 1, 1]
    waiting.write([message(8)])
    assert waiting.waiting() == 0
    assert sorted(each.xml for each in sink.messages) == [message(number).xml for number in range(9)]


@pytest.mark.parametrize(
    "text", ["", "{", '{"xml": "<a/>"}', '{"xml": "<a/>", "when": "never", "warns": false}', "[1]"]
)
def test_what_is_no_message_is_set_aside_and_holds_up_nothing(sink, folder, caplog, text):
    sink.down = DOWN
    WaitingSink(sink, folder).write([message(1)])
    (folder / "0.json").write_text(text)
    sink.down = None
    WaitingSink(sink, folder).write([message(2)])
    assert sink.messages == [message(1), message(2)]
    assert (folder / "0.json.unreadable").read_text() == text
    assert "is no message that waits" in caplog.text
