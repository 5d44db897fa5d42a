"""Who receives: DCMTK's ``storescp``, a raw copy, and ours in both ways of running; each a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import arrived, proc, processes, sender
from benchmarks.contest import Contestant, Sample
from benchmarks.load import Load
from benchmarks.results import Goal
from benchmarks.sender import Sent

#: DCMTK's largest PDU, and ours by default: both get the same.
MAX_PDU: Final = 131072
STORESCP: Final = "storescp +B"
RAW_COPY: Final = "raw copy"
PLAIN: Final = "pynetdicom's own example"
STANDING: Final = "varian-dicom receive"
IN_TASK: Final = "in-task receiver"


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver that runs.

    :param name: for tables.
    :param port: where it listens, on loopback.
    :param process: its process number.
    :param folder: where it writes, at any depth.
    :param pattern: which files below the folder are objects.
    :param speaks_dicom: or else the raw copy's own words.
    """

    name: str
    port: int
    process: int
    folder: Path
    pattern: str = "*"
    speaks_dicom: bool = True

    def files(self) -> list[Path]:
        """Return what it has received."""
        return [path for path in self.folder.glob(self.pattern) if path.is_file()]

    def arrived(self) -> arrived.Digests:
        """Return the digests of what it has received."""
        return arrived.in_files(self.files())

    def clear(self) -> None:
        """Remove what it has received."""
        for path in self.files():
            path.unlink()

    def sent(self, load: Load, limit: int | None = None) -> Sent:
        """Send to it, in the way that it understands."""
        return (sender.send if self.speaks_dicom else sender.copy)(self.port, load, limit=limit)

    def sent_at_once(self, loads: Sequence[Load]) -> Sent:
        """Send to it over several associations."""
        return (sender.send_at_once if self.speaks_dicom else sender.copy_at_once)(self.port, loads)

    def contestant(
        self, load: Load, send: Send | None = None, *, limit: int | None = None, goal: Goal | None = None
    ) -> Contestant:
        """Return it as a contestant that receives what is sent.

        :param load: what is sent.
        :param send: sends it; ``None``: prebuilt PDUs do.
        :param limit: so many of these at most, which then are not compared.
        :param goal: what it should reach.
        """

        def run() -> Sample:
            with proc.watched(self.process) as usage:
                done = send(self) if send else self.sent(load, limit)
            size = load.size * done.objects // load.count
            return Sample(seconds=done.seconds, objects=done.objects, size=size, usage=usage, latencies=done.latencies)

        arrived = self.arrived if limit is None else None
        return Contestant(name=self.name, run=run, clear=self.clear, arrived=arrived, ours=self.ours, goal=goal)

    @property
    def ours(self) -> bool:
        """Whether it is of this project."""
        return self.name.startswith((STANDING, IN_TASK))


#: Sends to a receiver.
Send = Callable[[Receiver], Sent]


@contextmanager
def storescp(
    root: Path, *, name: str = STORESCP, port: int = 0, fork: bool = False, stock: bool = False
) -> Iterator[Receiver]:
    """Run DCMTK's receiver, which writes what comes as it comes and promises nothing.

    :param root: a folder for it, created here.
    :param port: where to listen; 0: where nobody does.
    :param fork: whether each association has a process of its own.
    :param stock: with Nagle's algorithm on, as it is installed.
    """
    folder = root / "received"
    folder.mkdir(parents=True)
    port = port or processes.free_port()
    command = ["storescp", "+B", "-aet", sender.CALLED, "-od", str(folder), "--max-pdu", str(MAX_PDU)]
    command += ["--fork"] if fork else []
    with _running([*command, str(port)], port, root, stock=stock) as process:
        yield Receiver(name, port, process, folder)


@contextmanager
def raw_copy(root: Path, *, durable: bool = False) -> Iterator[Receiver]:
    """Run the limit.

    :param root: a folder for it, created here.
    :param durable: whether what is acknowledged is on the disk.
    """
    folder, port = root / "received", processes.free_port()
    folder.mkdir(parents=True)
    command = processes.module("raw_copy", port, folder, *(["--durable"] if durable else []))
    name = f"{RAW_COPY}, durable" if durable else RAW_COPY
    with _running(command, port, root) as process:
        yield Receiver(name, port, process, folder / "new", speaks_dicom=False)


@contextmanager
def plain_pynetdicom(root: Path) -> Iterator[Receiver]:
    """Run what one gets without this project.

    :param root: a folder for it, created here.
    """
    folder, port = root / "received", processes.free_port()
    folder.mkdir(parents=True)
    with _running(processes.module("plain_pynetdicom", port, folder), port, root) as process:
        yield Receiver(PLAIN, port, process, folder)


@contextmanager
def standing(root: Path, *, durable: bool, port: int = 0, ae_title: str = sender.CALLED) -> Iterator[Receiver]:
    """Run our standing receiver.

    :param root: a folder for it, created here.
    :param durable: as it is by default, or without fsync.
    """
    spool, port = root / "spool", port or processes.free_port()
    root.mkdir(parents=True)
    program = Path(sys.executable).with_name("varian-dicom")
    command = [str(program), "receive", "--ae-title", ae_title, "--port", str(port), "--spool", str(spool)]
    command += ["--allow-from", "127.0.0.0/8"] + ([] if durable else ["--durability", "none"])
    with _running(command, port, root) as process:
        yield _of_spool(STANDING, port, process, spool)


@contextmanager
def in_task(root: Path, *, durable: bool, port: int = 0, ae_title: str = sender.CALLED) -> Iterator[Receiver]:
    """Run the receiver that a retrieval runs in its own process, here without one.

    :param root: a folder for it, created here.
    :param durable: as it is by default, or without fsync.
    """
    spool, port = root / "spool", port or processes.free_port()
    root.mkdir(parents=True)
    command = processes.module("in_task", port, spool, "--ae-title", ae_title, *([] if durable else ["--no-fsync"]))
    with _running(command, port, root) as process:
        yield _of_spool(IN_TASK, port, process, spool)


def _of_spool(name: str, port: int, process: int, spool: Path) -> Receiver:
    return Receiver(name, port, process, spool, pattern="new/*/*.dcm")


@contextmanager
def _running(command: list[str], port: int, root: Path, *, stock: bool = False) -> Iterator[int]:
    environment = processes.STOCK if stock else processes.ENVIRONMENT
    with processes.serving(command, port, root / "log", environment) as process:
        yield process
