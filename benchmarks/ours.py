"""Our clients: a worker process that is asked to do one thing after the other."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from benchmarks import proc, processes
from benchmarks.archives import CLIENT, Archive
from benchmarks.proc import Usage
from benchmarks.processes import ContestantError

NAME: Final = "airflow-provider-varian"


class Worker:
    """A process that does what clients do; see :mod:`.worker`.

    :param process: it.
    :param log: what it says besides its answers.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def do(self, verb: str, archive: Archive, *, called: str, calling: str = CLIENT, **more: Any) -> Answer:
        """Have something done.

        :param verb: ``get``, ``find``, ``retrieve`` or ``store``.
        :param archive: whom to ask.
        :raises ContestantError: it could not be done.
        """
        request = {"verb": verb, "port": archive.port, "called": called, "calling": calling} | more
        with proc.watched(self.pid) as usage:
            answer = self._ask(request)
        if error := answer.get("error"):
            raise ContestantError(str(error))
        return Answer(float(answer.pop("seconds")), usage, answer)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        into, out = self._process.stdin, self._process.stdout
        if into is None or out is None:
            raise ContestantError("the worker has no pipes")
        try:
            into.write(json.dumps(request).encode() + b"\n")
            into.flush()
            line = out.readline()
        except OSError:
            line = b""
        if not line:
            raise ContestantError(f"the worker has ended: {processes.said(self._log)}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Answer:
    """What came of it.

    :param seconds: wall time, in the worker.
    :param usage: what the worker used meanwhile.
    :param facts: what else it told.
    """

    def __init__(self, seconds: float, usage: Usage, facts: dict[str, Any]) -> None:
        self.seconds, self.usage, self.facts = seconds, usage, facts

    def must(self, **facts: Any) -> Answer:
        """Return it if it told these facts.

        :raises ContestantError: when it told others.
        """
        for name, value in facts.items():
            if self.facts.get(name) != value:
                raise ContestantError(f"{name} is {self.facts.get(name)!r}, not {value!r}")
        return self


@contextmanager
def working(root: Path) -> Iterator[Worker]:
    """Run a worker until the block ends.

    :param root: an existing folder for what it says.
    """
    log = root / "worker.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            processes.module("worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            env=processes.STOCK,
        )
    try:
        yield Worker(process, log)
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                # It may have ended with a request in the pipe.
                with suppress(OSError):
                    pipe.close()
        processes.stop(process)
