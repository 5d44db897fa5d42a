"""A process that has everything imported, one thread, and forks a retrieval each time it is told to.

A child can count each call that changes a file system, and kill itself by SIGKILL right before or right after the
one that it is told, or in the midst of a write; or it kills itself after so many seconds, whatever it does then. An
order is a line of JSON on standard input, and so is the answer on standard output.

    python -m robustness.forker
"""

from __future__ import annotations

import builtins
import functools
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from robustness.clinic_side import METHODS, peer_at, series_request, waiting

from airflow_provider_varian.errors import DicomError
from airflow_provider_varian.retrieval.retrieve import retrieve

#: Calls that change what is on storage, or decide whether it is durable.
_CALLS = (
    "rename",
    "replace",
    "link",
    "unlink",
    "remove",
    "mkdir",
    "rmdir",
    "fsync",
    "write",
    "writev",
    "truncate",
    "fchmod",
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
#: What sys.addaudithook tells of calls that change something; each has to be one that was counted.
_AUDITED = (
    "os.rename",
    "os.link",
    "os.symlink",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "os.chmod",
    "shutil.move",
)


class KillPoints:
    """Counts the calls below some folders, and ends the process at one of them.

    :param folders: what happens elsewhere is not counted.
    :param at: the how many-th, from 1; 0 = never.
    :param when: ``before``, ``after`` or ``amid``: with half of what is written; elsewhere that is ``before``.
    """

    def __init__(self, folders: list[str], at: int, when: str) -> None:
        self._folders = tuple(folders)
        self._at, self._when = at, when
        self._lock = threading.Lock()
        self._inside = threading.local()
        #: What was called, in order: name and where.
        self.calls: list[str] = []
        self.unseen: list[str] = []

    def install(self) -> None:
        for name in _CALLS:
            setattr(os, name, self._counted(name, getattr(os, name)))
        os.open = self._opening(os.open)  # type: ignore[assignment]
        builtins.open = io.open = self._opening_file(io.open)  # type: ignore[assignment]
        sys.addaudithook(self._audit)

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def counted(*arguments: Any, **more: Any) -> Any:
            half = (lambda: call(arguments[0], _half(arguments[1]))) if name == "write" else None
            return self._through(name, arguments[0], functools.partial(call, *arguments, **more), half)

        return counted

    def _opening(self, call: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(call)
        def counted(path: Any, flags: int, *arguments: Any, **more: Any) -> int:
            opening = functools.partial(call, path, flags, *arguments, **more)
            return self._through("open", path, opening) if flags & _WRITING else opening()

        return counted

    def _opening_file(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def counted(file: Any, mode: str = "r", *arguments: Any, **more: Any) -> Any:
            opening = functools.partial(call, file, mode, *arguments, **more)
            if not set(mode) & set("wax+") or not self._is_ours(file):
                return opening()
            return _Written(self, self._through("open", file, opening), file)

        return counted

    def _through(self, name: str, where: Any, call: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        if getattr(self._inside, "yes", False) or not self._is_ours(where):
            return call()
        with self._lock:
            self.calls.append(f"{name} {_text_of(where)}")
            due = len(self.calls) == self._at
        if due and self._when == "amid" and half is not None:
            half()
        if due and self._when != "after":
            os.kill(os.getpid(), signal.SIGKILL)
        self._inside.yes = True
        try:
            return call()
        finally:
            self._inside.yes = False
            if due:
                os.kill(os.getpid(), signal.SIGKILL)

    def _is_ours(self, where: Any) -> bool:
        return _text_of(where).startswith(self._folders)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _AUDITED or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING):
            where = arguments[0]
            if self._is_ours(where) and not getattr(self._inside, "yes", False):
                self.unseen.append(f"{event} {_text_of(where)}")


class _Written:
    """A file open for writing whose writes are counted."""

    def __init__(self, points: KillPoints, file: Any, path: Any) -> None:
        self._points, self._file, self._path = points, file, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: Any) -> int:
        def half() -> None:
            self._file.write(_half(data))
            self._file.flush()

        return int(self._points._through("write", self._path, functools.partial(self._file.write, data), half))


def _half(data: Any) -> Any:
    return data[: len(data) // 2]


def _text_of(where: Any) -> str:
    """Return the path that a path or a descriptor stands for."""
    if isinstance(where, int):
        try:
            return os.readlink(f"/proc/self/fd/{where}")
        except OSError:
            return ""
    return os.fsdecode(where)


def _child(order: dict[str, Any]) -> None:
    points = KillPoints([order["root"], order["spool"]], order.get("at", 0), order.get("when", "before"))
    if order.get("counts_calls"):
        points.install()
    if "kill_after_seconds" in order:
        threading.Thread(target=_kill_after, args=(order["kill_after_seconds"],), daemon=True).start()
    answer: dict[str, Any] = {}
    try:
        result = retrieve(
            peer_at(order["host"], order["port"], order["receiver_port"], **order.get("connection", {})),
            series_request(*order["series"]),
            method=METHODS[order["method"]],
            destination=order["root"],
            spool_root=order["spool"],
            **waiting(),
        )
        answer = {"outcome": str(result.outcome), "counts": dict(result.counts)}
    except DicomError as error:
        answer = {"error": str(error)}
    answer |= {"calls": points.calls, "unseen": points.unseen}
    with open(order["answer"], "w") as file:
        json.dump(answer, file)


def _kill_after(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if not pid:
            try:
                _child(order)
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}), flush=True)


if __name__ == "__main__":
    main()
