"""Where the audit trail goes: a file that nobody else may write, or syslog over TLS that is verified."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import ssl
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.certificates import Authority
from support.ports import free_port, wait_until

from airflow_provider_varian.dimse import tls
from airflow_provider_varian.dimse.peer import TlsSettings
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.receiver import audit_sinks
from airflow_provider_varian.receiver.audit_sinks import AuditFile, AuditSyslog
from airflow_provider_varian.receiver.audit_xml import AuditMessage

WHEN = datetime(2026, 3, 29, 1, 2, 3, 456000, tzinfo=UTC)
MESSAGES = [AuditMessage(xml=f"<AuditMessage n='{number}'/>", when=WHEN) for number in range(3)]
WARNING = AuditMessage(xml="<AuditMessage n='Grün'/>", when=WHEN, warns=True)


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "audit"
    folder.mkdir(mode=0o755)
    return folder / "receiver.xml"


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def test_each_message_is_a_line_of_a_file_that_is_its_owners(path):
    file = AuditFile(path)
    file.write(MESSAGES)
    file.write([WARNING])
    file.close()
    file.close()
    assert lines(path) == [message.xml for message in (*MESSAGES, WARNING)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    AuditFile(path).write(MESSAGES[:1])
    assert len(lines(path)) == 5


def test_a_batch_is_durable_before_it_counts_as_written(path, monkeypatch):
    calls = []

    def traced(name):
        function = getattr(os, name)

        def call(*args):
            calls.append(name)
            return function(*args)

        return call

    for name in ("write", "fsync"):
        monkeypatch.setattr(os, name, traced(name))
    AuditFile(path).write(MESSAGES)
    assert calls == ["write", "fsync"]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o622])
def test_a_file_that_others_may_write_is_refused(path, mode):
    path.touch()
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="may be written by others"):
        AuditFile(path)


def test_a_file_that_others_may_read_is_taken(path):
    path.touch()
    path.chmod(0o644)
    AuditFile(path).write(MESSAGES)
    assert len(lines(path)) == 3


def test_a_folder_that_others_may_write_is_refused_unless_it_is_sticky(path):
    path.parent.chmod(0o777)
    with pytest.raises(ConfigurationError, match="lies in a folder that others may write"):
        AuditFile(path)
    path.parent.chmod(0o1777)
    AuditFile(path).write(MESSAGES)


def test_what_is_no_file_is_refused(path):
    link = path.with_name("link")
    link.symlink_to(path)
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        AuditFile(link)
    os.mkfifo(path.with_name("pipe"))
    with pytest.raises(ConfigurationError, match="is not a file"):
        AuditFile(path.with_name("pipe"))
    with pytest.raises(ConfigurationError, match="cannot be opened: No such file"):
        AuditFile(path.parent / "nowhere" / "x")


@pytest.mark.parametrize(("whose", "words"), [("file", "belongs to"), ("folder", "lies in a folder of")])
def test_what_belongs_to_somebody_else_is_refused(path, monkeypatch, whose, words):
    path.touch()
    theirs = os.stat_result((0, 0, 0, 0, 12345, 0, 0, 0, 0, 0))
    if whose == "file":
        monkeypatch.setattr(os, "fstat", lambda descriptor, _see=os.fstat: seen(_see(descriptor), theirs))
    else:
        monkeypatch.setattr(Path, "stat", lambda found, _see=Path.stat, **kw: seen(_see(found, **kw), theirs))
    with pytest.raises(ConfigurationError, match=f"{words} somebody else"):
        AuditFile(path)


def seen(found, theirs):
    """Return what there is, as somebody else's."""
    return os.stat_result((*found[:4], theirs.st_uid, *found[5:10]))


def test_a_file_that_becomes_writable_for_others_takes_nothing_when_it_is_opened_anew(path):
    file = AuditFile(path)
    path.rename(path.with_name("old"))
    path.touch()
    path.chmod(0o666)
    with pytest.raises(ConfigurationError, match="may be written by others"):
        file.write(MESSAGES)
    assert lines(path) == []
    path.chmod(0o600)
    file.write(MESSAGES)
    assert len(lines(path)) == 3


def test_it_goes_on_in_a_new_file_when_the_old_one_was_moved_away(path):
    file = AuditFile(path)
    file.write(MESSAGES[:1])
    path.rename(path.with_name("receiver.xml.1"))
    file.write(MESSAGES[1:])
    assert lines(path.with_name("receiver.xml.1")) == [MESSAGES[0].xml]
    assert lines(path) == [message.xml for message in MESSAGES[1:]]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_line_that_a_power_failure_cut_does_not_run_into_the_next(path):
    path.write_text("<AuditMess")
    path.chmod(0o600)
    AuditFile(path).write(MESSAGES[:1])
    assert lines(path) == ["<AuditMess", MESSAGES[0].xml]


def test_a_line_that_a_full_disk_cut_does_not_run_into_the_next(path, monkeypatch):
    file, write, calls = AuditFile(path), os.write, []

    def full_for_a_while(descriptor, data):
        calls.append(data)
        if len(calls) in (2, 3):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, bytes(data)[:10] if len(calls) == 1 else data)

    monkeypatch.setattr(os, "write", full_for_a_while)
    for _ in range(2):  # the second time there is no room for the end of the line either
        with pytest.raises(OSError, match="No space left"):
            file.write(MESSAGES)
    file.write(MESSAGES)
    assert lines(path) == [MESSAGES[0].xml[:10], *(message.xml for message in MESSAGES)]


def test_a_batch_that_did_not_become_durable_is_not_taken_for_written(path, monkeypatch):
    file, fsync = AuditFile(path), os.fsync

    def fails(descriptor):
        monkeypatch.setattr(os, "fsync", fsync)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="Input/output"):
        file.write(MESSAGES[:1])
    file.write(MESSAGES[:1])
    assert lines(path) == [MESSAGES[0].xml] * 2


def test_a_batch_that_the_disk_takes_in_pieces_is_not_mixed_with_that_of_another(path, monkeypatch):
    first, second, write = AuditFile(path), AuditFile(path), os.write
    pieces, threads = [], []

    def in_pieces(descriptor, data):
        if threading.current_thread() is not threading.main_thread():
            return write(descriptor, data)
        pieces.append(len(data))
        if not threads:
            threads.append(threading.Thread(target=second.write, args=(MESSAGES[1:2],)))
            threads[0].start()
            # He comes to the file while our batch is half there.
            threads[0].join(0.2)
        return write(descriptor, data[:20])

    monkeypatch.setattr(os, "write", in_pieces)
    first.write(MESSAGES[:1])
    threads[0].join(30)
    assert len(pieces) > 1
    assert lines(path) == [MESSAGES[0].xml, MESSAGES[1].xml]


AUTHORITY = Authority()


class SyslogServer:
    """Takes syslog over TLS, and keeps the messages as their lengths frame them (RFC 5425)."""

    def __init__(self, *, authority=AUTHORITY, name="syslog.clinic", port=0, client_authority=None):
        issued = authority.issue(name)
        settings = TlsSettings(
            certificate=issued.certificate, private_key=issued.key, ca_certificate=client_authority or ""
        )
        self._context = tls.server_context(settings)
        if client_authority is None:
            self._context.verify_mode = ssl.CERT_NONE
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.messages = []
        self.connections = 0
        self._open = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                raw, _ = self._listener.accept()
                connection = self._context.wrap_socket(raw, server_side=True)
            except ssl.SSLError:
                continue
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._read(connection)

    def _read(self, connection):
        data = b""
        with contextlib.suppress(OSError):
            while piece := connection.recv(65536):
                data += piece
                while match := re.match(rb"(\d+) ", data):
                    end = match.end() + int(match[1])
                    if len(data) < end:
                        break
                    self.messages.append(data[match.end() : end])
                    data = data[end:]
            assert data == b""
            if connection in self._open:
                connection.unwrap()

    def hang_up(self):
        hung_up, self._open = self._open, []
        for connection in hung_up:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def stop(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        self._thread.join(30)


@pytest.fixture
def server():
    running = SyslogServer()
    yield running
    running.stop()


def client(port, **settings):
    defaults = {"ca_certificate": AUTHORITY.certificate, "server_name": "syslog.clinic"}
    return AuditSyslog("127.0.0.1", port, TlsSettings(**(defaults | settings)))


def test_messages_come_as_rfc_5424_says_framed_by_their_length(server):
    sink = client(server.port)
    sink.write(MESSAGES)
    sink.write([WARNING])
    wait_until(lambda: len(server.messages) == 4, what="the messages")
    sink.close()
    assert server.connections == 1
    host = re.escape(socket.gethostname())
    expected = rf"<85>1 2026-03-29T01:02:03\.456Z {host} varian-dicom {os.getpid()} DICOM\+RFC3881 - "
    for got, message in zip(server.messages, MESSAGES, strict=False):
        header, bom, xml = got.partition(b"\xef\xbb\xbf")
        assert re.fullmatch(expected, header.decode("ascii"))
        assert (bom, xml.decode("utf-8")) == (b"\xef\xbb\xbf", message.xml)
    assert server.messages[3].startswith(b"<84>1 ")
    assert server.messages[3].endswith(WARNING.xml.encode("utf-8"))


def test_a_server_that_hung_up_is_called_again_and_gets_the_next(server):
    sink = client(server.port)
    sink.write(MESSAGES[:1])
    wait_until(lambda: server.messages, what="the first")
    server.hang_up()
    wait_until(lambda: audit_sinks._is_closed(sink._connection), what="the end of the connection")
    sink.write(MESSAGES[1:])
    wait_until(lambda: len(server.messages) == 3, what="the others")
    assert server.connections == 2
    sink.close()


def test_a_connection_that_is_idle_is_used_again(server):
    sink = client(server.port)
    sink.write(MESSAGES[:1])
    wait_until(lambda: server.messages, what="the first")
    assert not audit_sinks._is_closed(sink._connection)
    sink.write(MESSAGES[1:])
    wait_until(lambda: len(server.messages) == 3, what="the others")
    assert server.connections == 1
    sink.close()


@pytest.mark.parametrize(
    "settings", [{"ca_certificate": Authority("another").certificate}, {"server_name": "elsewhere.clinic"}]
)
def test_a_server_that_is_not_who_it_should_be_gets_nothing(server, settings):
    sink = client(server.port, **settings)
    with pytest.raises(ssl.SSLCertVerificationError):
        sink.write(MESSAGES)
    assert server.messages == []
    assert sink._connection is None


def test_it_shows_a_certificate_where_one_is_wanted():
    ours = Authority("ours")
    issued = ours.issue("receiver")
    server = SyslogServer(client_authority=ours.certificate)
    try:
        sink = client(server.port, certificate=issued.certificate, private_key=issued.key)
        sink.write(MESSAGES)
        wait_until(lambda: len(server.messages) == 3, what="the messages")
        sink.close()
    finally:
        server.stop()


def test_a_server_without_tls_gets_nothing():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        got = []

        def serve():
            connection, _ = listener.accept()
            with connection:
                got.append(connection.recv(4096))
                connection.sendall(b"hello\n")

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(OSError, match=r"."):
            client(listener.getsockname()[1]).write(MESSAGES)
        thread.join(30)
    assert b"Audit" not in got[0]


def test_a_server_that_is_not_there_is_an_error_and_it_is_called_again(monkeypatch):
    port = free_port()
    sink = client(port)
    assert str(port) in sink.name
    with pytest.raises(ConnectionRefusedError):
        sink.write(MESSAGES)
    server = SyslogServer(port=port)
    try:
        sink.write(MESSAGES)
        wait_until(lambda: len(server.messages) == 3, what="the messages")
        sink.close()
    finally:
        server.stop()


def test_less_than_tls_1_2_is_not_spoken():
    assert client(1)._context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert client(1)._context.verify_mode is ssl.CERT_REQUIRED
    assert client(1)._context.check_hostname
