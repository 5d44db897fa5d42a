"""Who is asked: DCMTK's archive, and a stub that costs nothing; each a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import processes
from benchmarks.data import Study

ARCHIVE: Final = "BENCHQR"
CLIENT: Final = "CLIENT"


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that runs.

    :param name: for tables.
    :param port: where it listens, on loopback.
    """

    name: str
    port: int


@contextmanager
def dcmqrscp(
    root: Path, studies: Sequence[Study], destinations: Mapping[str, int], *, stock: bool = False
) -> Iterator[Archive]:
    """Run DCMTK's archive, filled with studies.

    :param root: a folder for it, created here.
    :param destinations: ports of loopback by the AE titles that a C-MOVE may send to.
    :param stock: with Nagle's algorithm on, as it is installed.
    """
    store, port = root / "store", processes.free_port()
    store.mkdir(parents=True)
    hosts = "\n".join(f"{title.lower()} = ({title}, 127.0.0.1, {number})" for title, number in destinations.items())
    config = root / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
        f"HostTable BEGIN\n{hosts}\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\n{ARCHIVE} {store} RW (2000, 1024mb) ANY\nAETable END\n"
    )
    environment = processes.STOCK if stock else processes.ENVIRONMENT
    with processes.serving(["dcmqrscp", "-c", str(config)], port, root / "log", environment):
        for study in studies:
            fill(port, study)
        yield Archive("dcmqrscp", port)


def fill(port: int, study: Study) -> None:
    """Send a study to an archive."""
    processes.run("storescu", "-R", "-aet", CLIENT, "-aec", ARCHIVE, "127.0.0.1", str(port), *map(str, study.files))


@contextmanager
def stub(root: Path, *, answers: int = 0, files: Sequence[Path] = ()) -> Iterator[Archive]:
    """Run the stub.

    :param root: a folder for it, created here.
    :param answers: how many each C-FIND gets.
    :param files: what each C-GET brings.
    """
    root.mkdir(parents=True)
    port = processes.free_port()
    command = processes.module("stub", port, "--answers", answers, "--files", *files)
    with processes.serving(command, port, root / "log"):
        yield Archive("prebuilt PDUs", port)
