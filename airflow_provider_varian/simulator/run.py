"""The simulated daemon as a process: what ``varian-dicom simulate`` runs."""

from __future__ import annotations

import errno
import logging
import queue
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from airflow_provider_varian.errors import ConfigurationError, ReceiverUnavailableError
from airflow_provider_varian.simulator.clinic.calendar import FIRST_CLINICAL, newest_patient
from airflow_provider_varian.simulator.clinic.sessions import PUNCTUAL, Punctuality
from airflow_provider_varian.simulator.daemon import limits
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.faults import Fault
from airflow_provider_varian.simulator.daemon.limits import Limit
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.holdings.data_directory import DataDirectory
from airflow_provider_varian.simulator.holdings.synthetic import Clinic
from airflow_provider_varian.simulator.holdings.tree import Holdings

log = logging.getLogger(__name__)

#: Below, lines and leaves are lost between pixels; above, no panel has as many, and an image takes seconds.
MATRIX: Final = limits.between(32, 4096, "a number of rows")
#: Ten years of machine QA.
DAYS: Final = limits.between(1, 3660, "a number of days")
#: Room for the days before, and for what is planned after.
UNTIL: Final = limits.between(date(1700, 1, 1), date(2999, 12, 31), "a date")

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions:
    """The options of ``simulate``.

    :param ae_title: AE title of the daemon.
    :param host: address to listen on.
    :param port: port to listen on; 0 picks a free one.
    :param trusted: trusted entities; see :meth:`.TrustedEntity.parse`.
    :param seed: of the synthetic clinic.
    :param patients: number of clinical patients, beside the machines' QA patients.
    :param days: number of days with QA images.
    :param until: last of those days; ``None`` = today in the clinic's zone, moving on.
    :param punctuality: which QA sessions are missing, and which reach ARIA late.
    :param matrix: rows and columns of portal images.
    :param timezone: the clinic's zone.
    :param data: serve the DICOM files of this folder instead of the synthetic clinic.
    :param imports: folder for what clients store; ``None`` = it is kept in memory.
    :param behaviour: the daemon's habits; see :meth:`.Behaviour.with_settings`.
    :param faults: what goes wrong; see :meth:`.Fault.parse`.
    :raises ConfigurationError: for a number that no clinic could have, naming it and what is allowed.
    """

    ae_title: str = "VMSDBD"
    host: str = "127.0.0.1"
    port: int = 51402
    trusted: tuple[TrustedEntity, ...] = ()
    seed: int = 1
    patients: int = 10
    days: int = 30
    until: date | None = None
    punctuality: Punctuality = PUNCTUAL
    matrix: int = 1280
    timezone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    data: Path | None = None
    imports: Path | None = None
    behaviour: Behaviour = field(default_factory=Behaviour)
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a clinic that cannot be, rather than serve another one than was asked for."""
        limits.AE_TITLE.check("ae_title", self.ae_title)
        limits.NOT_NEGATIVE.check("seed", self.seed)
        MATRIX.check("matrix", self.matrix)
        DAYS.check("days", self.days)
        if self.until is not None:
            UNTIL.check("until", self.until)
        until = self.until or datetime.now(self.timezone).date()
        planned = newest_patient(until) + 1 - FIRST_CLINICAL
        Limit(
            allowed=f"from 0 to {planned}: one is planned each weekday, and so many have been up to {until}",
            fits=lambda patients: 0 <= patients <= planned,
        ).check("patients", self.patients)

    def daemon(self) -> SimulatedDaemon:
        """Build the daemon; it does not listen yet.

        :raises ConfigurationError: when the folder of ``data`` cannot be served, or has not what a habit asks for, or
            the one of ``imports`` cannot be had.
        """
        daemon = SimulatedDaemon(
            self._holdings(),
            ae_title=self.ae_title,
            host=self.host,
            port=self.port,
            trusted=self.trusted,
            behaviour=self.behaviour,
            timezone=self.timezone,
            imports=self.imports,
        )
        daemon.faults.arm(*self.faults)
        return daemon

    def _holdings(self) -> Holdings:
        if self.data is not None:
            return DataDirectory(self.data)
        return Clinic(
            seed=self.seed,
            patients=self.patients,
            days=self.days,
            until=self.until,
            punctuality=self.punctuality,
            matrix=self.matrix,
            timezone=self.timezone,
        )


def run(options: SimulatorOptions, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; in the main thread only, which is where signals arrive.

    :param options: what to serve, and how.
    :param announce: takes the one line ``listening on HOST:PORT`` when the daemon is ready.
    :raises ConfigurationError: when the address or the folder cannot be had.
    :raises ReceiverUnavailableError: when the port is taken.
    """
    # The one queue whose put() may be called from a signal handler, on top of a get() in the same thread.
    stop: queue.SimpleQueue[int] = queue.SimpleQueue()
    with _told_by_signals(stop), _listening(options) as daemon:
        host, port = daemon.address
        announce(f"listening on {f'[{host}]' if ':' in host else host}:{port}")
        stop.get()
        log.info("Stopping")


@contextmanager
def _listening(options: SimulatorOptions) -> Iterator[SimulatedDaemon]:
    daemon = options.daemon()
    try:
        daemon.start()
    except ConfigurationError as error:
        # A port that is taken now may be free later: nothing is wrong with the options.
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE:
            raise ReceiverUnavailableError(
                f"port {options.port} of {options.host} is taken, perhaps by another simulator",
                hint="End it, or choose another port; --port 0 picks a free one",
            ) from error
        raise
    try:
        yield daemon
    finally:
        daemon.stop()


@contextmanager
def _told_by_signals(stop: queue.SimpleQueue[int]) -> Iterator[None]:
    previous = {number: signal.signal(number, lambda received, _: stop.put(received)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
