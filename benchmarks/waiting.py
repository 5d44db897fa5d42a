"""What waiting costs a triggerer: a thousand triggers in Airflow's own ``TriggerRunner``, in a process of its own.

Beside nothing at all, and beside as many of Airflow's own time triggers. The peer is the simulated DB Daemon, in
another process; what is waited for never comes, so everybody waits to the end. Counted is from a minute after the
start, over whole intervals: processor time of the runner's process with all of its threads, its memory, how late its
loop was at most, and at the peer how many queries and associations there were, and how many associations at once.

Left out of Airflow is the supervisor: it hands out triggers and takes events, of which there are none here.

    python -m benchmarks.waiting [--triggers 1000] [--interval 60] [--intervals 3] [--only finds]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, Final

from benchmarks import proc

_TITLE: Final = "VMSDBD"
_LOOK_SECONDS: Final = 0.002
_TICK_SECONDS: Final = 0.1
_TIME: Final = "airflow.providers.standard.triggers.temporal.DateTimeTrigger"
_ROWS: Final = {
    "nothing": "no trigger",
    "times": "`DateTimeTrigger` of Airflow",
    "finds": "`DicomFindTrigger`, each with a query of its own",
    "same": "`DicomFindTrigger`, ten queries among them",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a row cost.

    :param cpu_percent: of one core, meanwhile.
    :param resident_mb: at the end.
    :param latest_seconds: how late the loop was at most.
    :param threads: of the process, at the end.
    """

    cpu_percent: float
    resident_mb: float
    latest_seconds: float
    threads: int


def main() -> None:
    """Measure each row, and print a table."""
    options = _options()
    if options.role == "peer":
        _serve()
    elif options.role == "runner":
        asyncio.run(_run(options))
    else:
        _measure(options)


def _measure(options: argparse.Namespace) -> None:
    print(f"{options.triggers} triggers, every {options.interval:g} s, over {options.intervals} intervals\n")
    print("| waiting | CPU, % of a core | memory, MB | loop late, at most | queries | associations | at once |")
    print("|---|---|---|---|---|---|---|")
    for row in options.only:
        with _peer() as peer, tempfile.TemporaryDirectory(prefix="bench-waiting-") as home:
            cost, counts = _row(row, options, peer, Path(home))
        print(
            f"| {_ROWS[row]} | {cost.cpu_percent:.2f} | {cost.resident_mb:.0f} | {1000 * cost.latest_seconds:.0f} ms | "
            f"{counts['C-FIND']} | {counts['association']} | {counts['most']} |",
            flush=True,
        )


def _row(row: str, options: argparse.Namespace, peer: _Peer, home: Path) -> tuple[Cost, dict[str, int]]:
    connection = {"conn_type": "dicom", "host": "127.0.0.1", "port": peer.port, "extra": {"called_ae_title": _TITLE}}
    environment = os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__FERNET_KEY": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "AIRFLOW_CONN_BENCH": json.dumps(connection),
    }
    command = [sys.executable, "-m", "benchmarks.waiting", "--role", "runner", "--only", row]
    for name in ("triggers", "interval", "intervals"):
        command += [f"--{name}", str(getattr(options, name))]
    log = home / "log"
    with (
        log.open("w") as said,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=said, text=True) as runner,
    ):
        before: dict[str, int] = {}
        for line in runner.stdout or ():
            if line.startswith("BEGIN"):
                before = peer.ask()
            elif line.startswith("END "):
                after = peer.ask()
                counts = {name: after[name] - before[name] for name in ("association", "C-FIND")}
                return Cost(**json.loads(line.removeprefix("END "))), {**counts, "most": after["most"]}
    sys.exit(f"{row}: the runner ended without a result\n{log.read_text()[-2000:]}")


# ----------------------------------------------------------------------------------------------------------- the peer


@dataclass(frozen=True, slots=True)
class _Peer:
    """The daemon's process.

    :param port: where it listens.
    :param ask: tells what it has done since it was last asked for the most at once, and in all.
    """

    port: int
    process: subprocess.Popen[str]

    def ask(self) -> dict[str, int]:
        """Return counts, and how many associations there were at once since the last time."""
        _in(self.process).write("\n")
        _in(self.process).flush()
        counts: dict[str, int] = json.loads(_out(self.process).readline())
        return counts


@contextmanager
def _peer() -> Iterator[_Peer]:
    command = [sys.executable, "-m", "benchmarks.waiting", "--role", "peer"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield _Peer(int(_out(process).readline()), process)
        _in(process).close()


def _in(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdin is not None
    return process.stdin


def _out(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def _serve() -> None:
    """Be the peer until standard input ends; tell counts for each line of it."""
    from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
    from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
    from airflow_provider_varian.simulator.holdings.synthetic import Clinic

    clinic = Clinic(days=5, patients=2, matrix=16, until=date(2026, 11, 20))
    most, over = [0], threading.Event()
    trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=1)]
    with SimulatedDaemon(clinic, trusted=trusted) as daemon:

        def look() -> None:
            while not over.wait(_LOOK_SECONDS):
                most[0] = max(most[0], proc.connections_to(daemon.address[1]))

        looking = threading.Thread(target=look)
        looking.start()
        print(daemon.address[1], flush=True)
        for _ in sys.stdin:
            told = {name: daemon.counts[name] for name in ("association", "C-FIND")}
            print(json.dumps({**told, "most": most[0]}), flush=True)
            most[0] = 0
        over.set()
        looking.join()


# --------------------------------------------------------------------------------------------------------- the runner


async def _run(options: argparse.Namespace) -> None:
    """Run the triggers in Airflow's runner, and print what it cost."""
    from airflow.executors.workloads import RunTrigger  # type: ignore[attr-defined]
    from airflow.jobs.triggerer_job_runner import TriggerRunner
    from airflow.models.trigger import Trigger

    class Runner(TriggerRunner):
        """Airflow's, with nobody above it."""

        async def init_comms(self) -> None:
            never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.comms_decoder = SimpleNamespace(_reader_task=asyncio.ensure_future(never))  # type: ignore[assignment]

        async def sync_state_to_supervisor(self, finished_ids: list[int]) -> None:
            if self.events or self.failed_triggers:
                print(
                    f"a trigger did not wait: {[*self.events, *self.failed_triggers][0]}", file=sys.stderr, flush=True
                )
                os._exit(1)

    (row,) = options.only
    runner = Runner()  # type: ignore[no-untyped-call]
    for number, (path, kwargs) in enumerate(_triggers(row, options)):
        kept = Trigger.encrypt_kwargs(dict(kwargs))
        runner.to_create.append(RunTrigger(id=number, classpath=path, encrypted_kwargs=kept, ti=None))
    running = asyncio.create_task(runner.arun())  # type: ignore[no-untyped-call]
    # Whole intervals, between two polls, after the first of them.
    await asyncio.sleep(max(10.0, options.interval))
    await asyncio.sleep((-time.monotonic() + options.interval / 2) % options.interval)
    if len(runner.triggers) != (0 if row == "nothing" else options.triggers):
        sys.exit(f"{len(runner.triggers)} triggers run")
    print("BEGIN", flush=True)
    began, used = time.monotonic(), time.process_time()
    late = await _lateness(options.interval * options.intervals)
    cost = Cost(
        cpu_percent=100 * (time.process_time() - used) / (time.monotonic() - began),
        resident_mb=proc.resident_now_mb(os.getpid()),
        latest_seconds=late,
        threads=threading.active_count(),
    )
    print("END " + json.dumps(asdict(cost)), flush=True)
    running.cancel()
    os._exit(0)


async def _lateness(seconds: float) -> float:
    """Return by how much the loop was late at most; measuring takes as much as Airflow's own watchdog."""
    most, end = 0.0, time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        await asyncio.sleep(_TICK_SECONDS)
        most = max(most, time.monotonic() - now - _TICK_SECONDS)
    return most


def _triggers(row: str, options: argparse.Namespace) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from airflow_provider_varian.triggers.dicom import DicomFindTrigger

    common = {"dicom_conn_id": "bench", "poke_interval": options.interval}
    for number in range(options.triggers):
        if row == "times":
            yield _TIME, {"moment": datetime(2100, 1, 1, tzinfo=UTC), "end_from_trigger": False}
        elif row in ("finds", "same"):
            study = f"1.2.3.{number % 10 if row == 'same' else number}"
            yield DicomFindTrigger(level="STUDY", keys={"StudyInstanceUID": study}, **common).serialize()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.waiting", description=__doc__.splitlines()[0] if __doc__ else None
    )
    add = parser.add_argument
    add("--triggers", type=int, default=1000)
    add("--interval", type=float, default=60.0, help="seconds between two polls of a trigger")
    add("--intervals", type=int, default=3, help="how many are measured")
    add("--only", type=lambda text: text.split(","), default=list(_ROWS), help=", ".join(_ROWS))
    add("--role", choices=("peer", "runner"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
