"""Where audit messages go: a protected file, or a syslog server over TLS."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import ssl
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC
from pathlib import Path
from typing import Final, Protocol

from airflow_provider_varian.dimse import tls
from airflow_provider_varian.dimse.peer import TlsSettings
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.receiver.audit_xml import AuditMessage

#: The port of syslog over TLS (RFC 5425 4.1).
SYSLOG_TLS_PORT: Final = 6514
#: How long a syslog server may take to be reached, and to take a batch.
_CONNECT_SECONDS: Final = 5.0
_SEND_SECONDS: Final = 10.0
#: Facility 10 (security/authorization), severity 5 (normal but significant) or 4 (warning), as PS3.15 A.6 says.
_FACILITY: Final = 10
_NORMAL, _WARNING = 5, 4
_APP_NAME: Final = "varian-dicom"
_MSGID: Final = "DICOM+RFC3881"
#: RFC 5424 6.4: what follows is UTF-8.
_BOM: Final = b"\xef\xbb\xbf"


class AuditSink(Protocol):
    """Takes messages; called from one thread."""

    def write(self, messages: Sequence[AuditMessage]) -> None:
        """Write messages so that they stay, all of them.

        :raises OSError: when they may not have been written; they are written again then.
        :raises ConfigurationError: likewise, and somebody has to change something.
        """

    def close(self) -> None:
        """End."""

    @property
    def name(self) -> str:
        """Which it is, for messages."""


class AuditFile:
    """A file that its owner alone may write, one message a line, durable before the next batch is begun.

    It is opened anew when it was moved away, so a site may rotate it with what it rotates logs with. Several processes
    may write to one: each batch is written under a lock (``flock``).

    :param path: the file; made (0600) when it does not exist.
    :raises ConfigurationError: when it cannot be written, or others may write it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path).absolute()
        self._descriptor = -1
        try:
            self._open()
        except OSError as error:
            raise self._wrong(f"cannot be opened: {error.strerror or error}") from error

    @property
    def name(self) -> str:
        """Its path."""
        return str(self._path)

    def write(self, messages: Sequence[AuditMessage]) -> None:
        """Append messages; see :class:`AuditSink`."""
        if not self._is_ours():
            self.close()
            self._open()
        rest = memoryview("".join(f"{message.xml}\n" for message in messages).encode("utf-8"))
        try:
            with _alone(self._descriptor):
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError:
            self.close()  # opened anew for the next batch, which begins a line of its own then
            raise

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o600)
        try:
            self._check(os.fstat(descriptor), self._path.parent.stat())
            with _alone(descriptor):
                self._end_line(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _check(self, found: os.stat_result, folder: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise self._wrong("is not a file")
        if found.st_uid not in (0, os.geteuid()):
            raise self._wrong("belongs to somebody else")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise self._wrong("may be written by others")
        # Who may write the folder may put another file in its place, unless the folder is sticky.
        if folder.st_uid not in (0, os.geteuid()):
            raise self._wrong("lies in a folder of somebody else")
        if folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not folder.st_mode & stat.S_ISVTX:
            raise self._wrong("lies in a folder that others may write")

    @staticmethod
    def _end_line(descriptor: int) -> None:
        """End the line that a power failure or a full disk has cut."""
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            os.write(descriptor, b"\n")

    def _is_ours(self) -> bool:
        if self._descriptor < 0:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.lstat())
        except FileNotFoundError:
            return False

    def _wrong(self, what: str) -> ConfigurationError:
        return ConfigurationError(
            f"the audit file {self._path} {what}",
            step="audit",
            hint="Give a file in a folder that this process's user alone may write; others may read it at most",
        )


@contextlib.contextmanager
def _alone(descriptor: int) -> Iterator[None]:
    """Keep other processes from writing to a file meanwhile: a batch that the disk takes in pieces stays together."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class AuditSyslog:
    """A syslog server over TLS (PS3.15 A.6): RFC 5424 messages, framed by their length (RFC 5425).

    The server's certificate is verified. Syslog does not acknowledge: what was handed to a connection that breaks
    right after may be lost, and what was not handed over whole is sent again, so a message may come twice.

    :param host: the server.
    :param port: its port.
    :param settings: authority and name of the server, and a certificate of ours when it wants one.
    :raises ConfigurationError: when a certificate or key cannot be used.
    """

    def __init__(self, host: str, port: int = SYSLOG_TLS_PORT, settings: TlsSettings | None = None) -> None:
        settings = settings or TlsSettings()
        self._where = (host, port)
        self._server_name = settings.server_name or host
        self._context = tls.client_context(settings)
        self._connection: ssl.SSLSocket | None = None

    @property
    def name(self) -> str:
        """Host and port."""
        host, port = self._where
        return f"syslog server {host}:{port}"

    def write(self, messages: Sequence[AuditMessage]) -> None:
        """Send messages; see :class:`AuditSink`."""
        if self._connection is not None and _is_closed(self._connection):
            self.close()
        connection = self._connection or self._connect()
        try:
            connection.sendall(b"".join(_framed(_syslog(message)) for message in messages))
        except BaseException:
            self._drop()
            raise

    def close(self) -> None:
        """Say goodbye, and hang up."""
        if self._connection is not None:
            with contextlib.suppress(OSError, ValueError):
                # Without it the server could take the end for a cut (RFC 5425 4.4).
                self._connection = self._unwrapped(self._connection)
        self._drop()

    @staticmethod
    def _unwrapped(connection: ssl.SSLSocket) -> ssl.SSLSocket:
        connection.settimeout(1.0)
        connection.unwrap()
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self) -> ssl.SSLSocket:
        raw = socket.create_connection(self._where, timeout=_CONNECT_SECONDS)
        try:
            self._connection = self._context.wrap_socket(raw, server_hostname=self._server_name)
        except BaseException:
            raw.close()
            raise
        self._connection.settimeout(_SEND_SECONDS)
        return self._connection


def _is_closed(connection: ssl.SSLSocket) -> bool:
    """Say whether the server has hung up; it has nothing else to send."""
    readable, _, _ = select.select([connection], [], [], 0)
    if not readable:
        return False
    try:
        connection.settimeout(0)
        return not connection.recv(1)
    except ssl.SSLWantReadError:
        return False  # e.g. a session ticket
    except OSError:
        return True
    finally:
        connection.settimeout(_SEND_SECONDS)


def _syslog(message: AuditMessage) -> bytes:
    """Return one message as RFC 5424 has it."""
    priority = _FACILITY * 8 + (_WARNING if message.warns else _NORMAL)
    when = message.when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    host = "".join(char for char in socket.gethostname() if "!" <= char <= "~")[:255] or "-"
    header = f"<{priority}>1 {when} {host} {_APP_NAME} {os.getpid()} {_MSGID} - "
    return header.encode("ascii") + _BOM + message.xml.encode("utf-8")


def _framed(message: bytes) -> bytes:
    """Return a message behind its length (RFC 5425 4.3)."""
    return b"%d %b" % (len(message), message)
