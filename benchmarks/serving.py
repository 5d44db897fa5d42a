"""How fast the simulated DB Daemon serves, beside DCMTK's ``dcmqrscp``: the same files, clients and receiver.

Each round asks each server for each study once, in turn, on loopback, by ``movescu`` to one ``storescp +B``
that writes to memory, and by ``getscu``. A request is timed from the start of the client to its end. In the
round before the first, which is not counted, what arrives is compared with the files, element by element;
the simulator keeps its habits, so the name of the character set and the time of creation are its own.

    python -m benchmarks.serving [--rounds 7] [--ct 200] [--plans 400] [--max-pdu 16384]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pynetdicom
from pydicom import dcmread

from benchmarks import data, proc, processes

#: Of the daemon's own making (quirks 16 and 23).
_HABITS = ("SpecificCharacterSet", "InstanceCreationDate", "InstanceCreationTime")
_DCMTK, _OURS = "dcmqrscp", "simulate"


@dataclass
class Row:
    """One way of asking for one study, measured."""

    verb: str
    study: data.Study
    seconds: dict[str, list[float]] = field(default_factory=lambda: {_DCMTK: [], _OURS: []})
    cpu: dict[str, list[float]] = field(default_factory=lambda: {_DCMTK: [], _OURS: []})

    def ratios(self) -> list[float]:
        """Return the simulator's time over DCMTK's, round by round."""
        return [ours / theirs for ours, theirs in zip(self.seconds[_OURS], self.seconds[_DCMTK], strict=True)]

    def line(self) -> str:
        """Return the row of the table."""
        ratios, count = self.ratios(), len(self.study.files)
        each = {name: 1000 * statistics.median(found) / count for name, found in self.seconds.items()}
        speed = self.study.bytes / statistics.median(self.seconds[_OURS]) / 1e6
        cpu = {name: 1000 * statistics.mean(found) / count for name, found in self.cpu.items()}
        return (
            f"| {self.verb} | {self.study.name} | **{statistics.median(ratios):.2f}** "
            f"({min(ratios):.2f}-{max(ratios):.2f}) | {each[_DCMTK]:.2f} | {each[_OURS]:.2f} | {speed:.0f} "
            f"| {cpu[_DCMTK]:.2f} | {cpu[_OURS]:.2f} |"
        )


@dataclass(frozen=True)
class Server:
    """A contestant that runs."""

    name: str
    port: int
    process: int

    def cpu_seconds(self) -> float:
        """Return the processor time so far; DCMTK's children count once their parent has looked for them."""
        if self.name == _DCMTK:
            processes.run("echoscu", "-aet", "BENCH", "-aec", "BENCHQR", "127.0.0.1", str(self.port))
        return proc.cpu_seconds(self.process)


def main() -> None:
    """Measure, and print a table."""
    try:
        _run(_options())
    except processes.ContestantError as error:
        sys.exit(str(error))


def _run(options: argparse.Namespace) -> None:
    processes.needed("dcmqrscp", "storescp", "storescu", "movescu", "getscu", "echoscu")
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="serving-", dir=memory) as name, ExitStack() as stack:
        root = Path(name)
        files, arrived = root / "files", root / "arrived"
        files.mkdir()
        arrived.mkdir()
        studies = [data.ct_slices(files, options.ct), data.rt_plans(files, options.plans)]
        receiver = processes.free_port()
        command = ["storescp", "+B", "-od", str(arrived), "--max-pdu", str(options.max_pdu), str(receiver)]
        stack.enter_context(processes.serving(command, receiver, root / "storescp.log"))
        servers = [_dcmqrscp(root, studies, receiver, stack), _simulator(root, files, receiver, stack)]
        rows = [Row(verb, study) for verb in ("C-MOVE", "C-GET") for study in studies]
        for number in range(options.rounds + 1):
            for row in rows:
                for server in servers:
                    _measure(row, server, arrived, counted=number > 0)
        _print(rows, servers, options)


def _measure(row: Row, server: Server, arrived: Path, *, counted: bool) -> None:
    for path in arrived.iterdir():
        path.unlink()
    before = server.cpu_seconds()
    start = time.perf_counter()
    _ASK[row.verb](server, row.study, arrived)
    seconds = time.perf_counter() - start
    if len(list(arrived.iterdir())) != len(row.study.files):
        sys.exit(f"{server.name} did not send all of {row.study.name} by {row.verb}")
    if not counted:
        _compare(row.study, arrived)
        return
    row.seconds[server.name].append(seconds)
    row.cpu[server.name].append(server.cpu_seconds() - before)


def _move(server: Server, study: data.Study, _: Path) -> None:
    processes.run("movescu", "-S", "-aet", "BENCH", "-aec", "BENCHQR", "-aem", "BENCH", *_keys(study),
                  "127.0.0.1", str(server.port))  # fmt: skip


def _get(server: Server, study: data.Study, arrived: Path) -> None:
    processes.run("getscu", "-S", "+B", "-aet", "BENCH", "-aec", "BENCHQR", "-od", str(arrived), *_keys(study),
                  "127.0.0.1", str(server.port))  # fmt: skip


_ASK: dict[str, Callable[[Server, data.Study, Path], None]] = {"C-MOVE": _move, "C-GET": _get}


def _keys(study: data.Study) -> list[str]:
    return ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study.uid}"]


def _compare(study: data.Study, arrived: Path) -> None:
    sent = {ds.SOPInstanceUID: ds for ds in map(dcmread, study.files)}
    for path in arrived.iterdir():
        received = dcmread(path)
        original = sent.pop(received.SOPInstanceUID)
        for ds in (received, original):
            for keyword in _HABITS:
                ds.pop(keyword, None)
        if received != original:
            sys.exit(f"an object of {study.name} arrived changed")
    if sent:
        sys.exit(f"{len(sent)} objects of {study.name} did not arrive")


def _dcmqrscp(root: Path, studies: list[data.Study], receiver: int, stack: ExitStack) -> Server:
    port, store = processes.free_port(), root / "dcmqrscp"
    store.mkdir()
    config = root / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
        f"HostTable BEGIN\nbench = (BENCH, 127.0.0.1, {receiver})\nHostTable END\n"
        f"VendorTable BEGIN\nVendorTable END\nAETable BEGIN\nBENCHQR {store} RW (2000, 4096mb) ANY\nAETable END\n"
    )
    process = stack.enter_context(processes.serving(["dcmqrscp", "-c", str(config)], port, root / "dcmqrscp.log"))
    for study in studies:
        processes.run("storescu", "-R", "-aet", "BENCH", "-aec", "BENCHQR", "127.0.0.1", str(port),
                      *map(str, study.files))  # fmt: skip
    return Server(_DCMTK, port, process)


def _simulator(root: Path, files: Path, receiver: int, stack: ExitStack) -> Server:
    program = Path(sys.executable).with_name("varian-dicom")
    port = processes.free_port()
    command = [str(program), "simulate", "--ae-title", "BENCHQR", "--port", str(port), "--data", str(files),
               "--trust", f"BENCH@127.0.0.1:{receiver}", "--quirk", "get=on"]  # fmt: skip
    process = stack.enter_context(processes.serving(command, port, root / "simulate.log"))
    return Server(_OURS, port, process)


def _print(rows: list[Row], servers: list[Server], options: argparse.Namespace) -> None:
    print("\n".join(_machine(options)))
    print()
    print("| verb | what | ratio (min-max) | dcmqrscp, ms each | simulate, ms each | simulate, MB/s "
          "| dcmqrscp, CPU ms each | simulate, CPU ms each |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(row.line())
    print()
    for server in servers:
        print(f"Largest resident memory of {server.name}: {proc.resident_mb(server.process):.0f} MB.")


def _machine(options: argparse.Namespace) -> Iterator[str]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    version = subprocess.run(["dcmqrscp", "--version"], capture_output=True, text=True, check=False).stdout.split()
    yield f"{os.cpu_count()} x {model}, {platform.system()} {platform.release()}, Python {platform.python_version()},"
    yield f"pynetdicom {pynetdicom.__version__}, pydicom {pydicom.__version__}, DCMTK {' '.join(version[2:3])};"
    yield f"{options.rounds} rounds and one to warm up, PDUs of {options.max_pdu} bytes to storescp,"
    yield f"load {os.getloadavg()[0]:.1f} at the end."


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ct", type=int, default=200, help="CT slices of 0.5 MB")
    parser.add_argument("--plans", type=int, default=400, help="RT Plans of 20 KB")
    parser.add_argument("--max-pdu", type=int, default=16384, help="what storescp announces")
    return parser.parse_args()


if __name__ == "__main__":
    main()
