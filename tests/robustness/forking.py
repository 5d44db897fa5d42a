"""Retrievals in processes that can be killed: the other end of :mod:`robustness.forker`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustness.clinic_side import Site
from support.ports import wait_until

TOP = Path(__file__).parents[2]
#: When a process kills itself, beside the call that it is told; see :mod:`robustness.forker`.
WHENS = ("before", "after", "amid")


class Forker:
    """The process that forks retrievals; see :mod:`robustness.forker`."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TOP), str(TOP / "tests")])}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "robustness.forker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def run(self, order: dict[str, Any]) -> int:
        """Fork one retrieval and wait for its end; return the signal that ended it, 0 for none."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(json.loads(self._process.stdout.readline())["signal"])

    def retrieve(self, place: Site, series: Sequence[str], method: str, **order: Any) -> dict[str, Any] | None:
        """Retrieve some series in a process of its own; return what came of it, or ``None`` when it was killed.

        :param order: what else to tell the process: when to be killed, settings of the connection.
        """
        host, port = place.daemon.address
        place.folder.mkdir(exist_ok=True)
        answer = place.folder / "answer.json"
        answer.unlink(missing_ok=True)
        order |= {"host": host, "port": port, "receiver_port": place.port, "series": list(series), "method": method}
        order |= {"root": str(place.root), "spool": str(place.spool), "answer": str(answer)}
        ended_by = self.run(order)
        # What the daemon still does for one who is gone must not be taken for the next one's.
        counts = place.daemon.counts
        wait_until(lambda: not counts["open"] and not counts["outgoing_open"], what="the daemon to be at rest")
        if ended_by:
            assert ended_by == signal.SIGKILL
            return None
        return dict(json.loads(answer.read_text()))

    def stop(self) -> None:
        self._process.communicate(timeout=30)  # the end of its input ends it


def kind_of(call: str) -> str:
    """Return what a call does and to what kind of file, without names that are made up for one."""
    name, _, path = call.partition(" ")
    path = path[path.rindex("/out") if "/out" in path else path.rindex("/spool") :]
    return f"{name} {re.sub(r'[0-9a-f.]*[0-9][0-9a-f.]*|/[0-9a-f]{2}$', '*', path)}"


def points_of(calls: list[str], when: str, *, all_of_them: bool) -> list[int]:
    """Return the numbers of the calls at which to kill: all, or of each kind the first, or the last for ``after``."""
    numbers = [number for number, call in enumerate(calls, start=1) if when != "amid" or call.startswith("write ")]
    if all_of_them:
        return numbers
    kinds: dict[str, list[int]] = {}
    for number in numbers:
        kinds.setdefault(kind_of(calls[number - 1]), []).append(number)
    return sorted(found[-1 if when == "after" else 0] for found in kinds.values())
