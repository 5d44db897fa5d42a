"""A store that speaks S3, with a door in front of it that counts, refuses, holds up and loses requests.

The store is ``moto_server``, a process of its own. It keeps everything in memory and lets everybody in.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from support.ports import free_port, is_listening, wait_until
from upath import UPath

#: As many keys as the store lists at once; S3 itself says 1000.
PAGE = 20
#: A request whose answer is lost: the store did what was asked.
LOSE_THE_ANSWER = -1

_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "QAKEY", "AWS_SECRET_ACCESS_KEY": "qa-secret", "AWS_DEFAULT_REGION": "us-east-1"}
_ERRORS = {403: "AccessDenied", 404: "NoSuchBucket", 500: "InternalError", 501: "NotImplemented"}
_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclass(frozen=True)
class Request:
    """What a client asked of the store."""

    method: str
    bucket: str
    key: str
    query: dict[str, list[str]]
    headers: dict[str, str]

    @property
    def writes(self) -> bool:
        """Whether it lets an object be seen: a PUT of it, or the end of an upload in parts."""
        in_parts = self.method == "POST" and "uploadId" in self.query
        return bool(self.key) and ((self.method == "PUT" and "uploadId" not in self.query) or in_parts)


@dataclass
class Door:
    """Where clients connect to; hands on what they ask, and what the store answers.

    :param store_port: where the store listens.

    ``before`` is called with each request, from many threads; it may wait. What it returns, if anything, is the status
    that the client gets without the store being asked, or ``LOSE_THE_ANSWER``.
    """

    store_port: int
    before: Callable[[Request], int | None] = lambda request: None
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        # The store looks whether a condition holds, and writes, in two steps; S3 does it in one.
        self._writing = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def written(self) -> list[str]:
        """Return the keys that were asked to be written, in order."""
        return [request.key for request in self.requests if request.writes]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                url = urlsplit(self.path)
                bucket, _, key = unquote(url.path).lstrip("/").partition("/")
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, bucket, key, parse_qs(url.query, keep_blank_values=True), headers)
                door.requests.append(request)
                status = door.before(request)
                if status not in (None, LOSE_THE_ANSWER):
                    self._answer(status, {"Content-Type": "application/xml"}, _error(status, request))
                    return
                with door._writing if request.writes else nullcontext():
                    told = door._hand_on(self.command, self.path, headers, body)
                if status == LOSE_THE_ANSWER:
                    self.close_connection = True
                    return
                self._answer(*told)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _hand_on(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.store_port, timeout=60)
        try:
            sent = {name: value for name, value in headers.items() if name not in _CONNECTION}
            connection.request(method, path, body, {**sent, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            dropped = _CONNECTION - {"content-length"} if method == "HEAD" else _CONNECTION
            told = {name: value for name, value in answer.getheaders() if name.lower() not in dropped}
            return answer.status, told, answer.read()
        finally:
            connection.close()


def _error(status: int, request: Request) -> bytes:
    """Return an error as a store words it: it may name the key."""
    code = _ERRORS[status]
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{escape(request.key)}</Message></Error>".encode()


@dataclass
class Store:
    """A running store, and the door to it."""

    door: Door

    @property
    def options(self) -> dict[str, Any]:
        """Settings of s3fs with which it asks at the door, and gives up soon."""
        return {
            "key": _CREDENTIALS["AWS_ACCESS_KEY_ID"],
            "secret": _CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            "endpoint_url": self.door.url,
            "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 5, "read_timeout": 60},
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same by the environment, for programs."""
        return {**_CREDENTIALS, "AWS_ENDPOINT_URL": self.door.url, "AWS_MAX_ATTEMPTS": "1"}

    def path(self, uri: str, **options: Any) -> UPath:
        """Return a path in the store; all have one client, which takes its time to begin."""
        path = UPath(uri, **{**self.options, **options})
        assert path.fs  # made in this thread: fsspec gives each thread clients of its own
        return path

    @contextmanager
    def bucket(self) -> Iterator[Bucket]:
        """Make a bucket; the door is open, and has seen nothing."""
        made = Bucket(f"clinic-{uuid.uuid4().hex}", self)
        made.fs.mkdir(made.name)
        self.door.requests.clear()
        try:
            yield made
        finally:
            self.door.before = lambda request: None


@dataclass
class Bucket:
    """A bucket of its own."""

    name: str
    store: Store

    def __post_init__(self) -> None:
        self.uri = f"s3://{self.name}/qa"
        self.root = self.store.path(self.uri)
        self.fs = self.root.fs
        self.door = self.store.door

    def put(self, key: str, content: bytes) -> None:
        """Write a key, as somebody else does."""
        self.fs.pipe_file(f"{self.name}/{key}", content)

    def contents(self) -> dict[str, bytes]:
        """Return what is in the store, by key below the destination."""
        self.fs.invalidate_cache()
        return {path.removeprefix(f"{self.name}/qa/"): self.fs.cat_file(path) for path in self.fs.find(self.name)}

    def open_uploads(self) -> list[object]:
        """Return the uploads in parts that neither ended nor were given up."""
        return list(self.fs.list_multipart_uploads(self.name))


@contextmanager
def store(folder: Path) -> Iterator[Store]:
    """Run the store.

    :param folder: for what it prints.
    """
    port = free_port()
    environment = {
        **os.environ,
        "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE),
        "S3_UPLOAD_PART_MIN_SIZE": "1",
    }
    with (folder / "moto.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            wait_until(
                lambda: is_listening(port) or process.poll() is not None, seconds=90, what="moto_server", every=0.1
            )
            assert process.poll() is None, (folder / "moto.log").read_text()
            door = Door(port)
            try:
                yield Store(door)
            finally:
                door.stop()
        finally:
            process.terminate()
            process.wait(30)
