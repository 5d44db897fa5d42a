"""One Airflow for all tests of this folder, and the peers that its tasks talk to.

Starting it takes half a minute, and so does many a task; so all that the tests ask of it is asked for at once, and
runs side by side while they look at one thing after the other.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from support.airflow_page import Standalone, standalone
from support.airflow_process import ROOT, Home, connection_to, new_home
from support.asked_runs import AskedRun, wait_for
from support.ends import TIMED_OUT, WAYS
from support.faulty import Faulty, Gate
from support.ports import free_port

from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.simulator.daemon.faults import Fault, Kind, Step
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.facts import case_facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

ZONE = ZoneInfo("Europe/Zurich")
HERE = Path(__file__).parent
#: The order of the modules: those first whose tasks wait for what their tests do; the last one looks at all that
#: is left.
ORDER = ("test_retries", "test_kills", "test_deferred", "test_run_types", "test_privacy")
#: What is left to be run by hand on the oldest Airflow: two thirds of all tasks.
LONG = ("test_kills", "test_deferred")
#: What is there when a task is ended: each has a peer of its own, which holds up the third object.
BEFORE = 2
#: How many DAGs there are: two that are shipped, and those of the folder beside.
_DAGS = 9
#: Told by a task on purpose; no patient of the clinic.
NAMED = {"id": "PLANTED_4711", "name": "Żółtowski^Grażyna"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Put the tests of this folder first, in their order: nothing else takes as long."""
    ours = [item for item in items if item.path.parent == HERE]
    if version("apache-airflow-core").startswith("3.1."):
        for item in ours:
            if item.path.stem in LONG:
                item.add_marker(pytest.mark.slow)
    items[:] = sorted(ours, key=lambda item: ORDER.index(item.path.stem)) + [item for item in items if item not in ours]


class Site:
    """Peers, Airflow, and what was asked of it.

    :ivar page: Airflow.
    :ivar home: its home.
    :ivar daemons: the simulated peers by connection.
    :ivar ports: the ports of our receivers by connection.
    :ivar gates: what holds up an object, by connection.
    :ivar runs: what was asked for.
    :ivar patients: the clinical patients that the peers hold.
    :ivar kept_while_waiting: what was in Airflow's database while fifty tasks waited.
    """

    page: Standalone
    home: Home
    kept_while_waiting: dict[str, bytes]

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.kept_while_waiting = {}
        self.daemons: dict[str, SimulatedDaemon] = {}
        self.ports: dict[str, int] = {}
        self.gates: dict[str, Gate] = {}
        self.runs: dict[str, AskedRun] = {}
        self.sink = SpoolSink(Spool(root / "standing"), standing=True)
        stack.callback(self.sink.close)
        self._stack = stack
        self._connections = {}
        # Today's images are taken before 07:45, where the interval of the scheduled run ends at the latest.
        self.today = datetime.now(ZONE).date()
        lately = Clinic(days=10, patients=1, matrix=16, until=self.today, timezone=ZONE)
        self.clinic = Clinic(days=2, patients=2, matrix=16, until=date(2026, 11, 20), timezone=ZONE)
        machines = Clinic(days=2, patients=0, matrix=16, until=date(2026, 11, 20), timezone=ZONE)
        self.patients = [*case_facts(lately), *case_facts(self.clinic)]
        self._peer("aria", lately)
        self._peer("clinic", self.clinic)
        #: What is waited for is not there yet, and the daemon answers no C-ECHO with success.
        self.nothing_yet = Faulty(self.clinic, hidden=lambda uid: True)
        self._peer("waited", self.nothing_yet)
        self.daemons["waited"].faults.arm(
            Fault(kind=Kind.STATUS, step=Step.REQUEST, service="C-ECHO", status=0x0110, times=0)
        )
        self._peer("unwanted", Faulty(machines, hidden=lambda uid: True))
        self._peer("held_up", Faulty(machines, hidden=self._gate("held_up", before=0)))
        for way in WAYS:
            self._peer(way, Faulty(machines, broken=self._gate(way, before=BEFORE)))
        aria = self._connections["aria"]
        self._connections["stranger"] = aria | {"extra": aria["extra"] | {"calling_ae_title": "STRANGER"}}
        self._connections["misconfigured"] = aria | {"extra": aria["extra"] | {"colour": "blue"}}
        self._connections["late"] = connection_to(free_port(), receiver_port=free_port(), zone=ZONE)
        self.home = self._new_home(root)

    def _peer(self, name: str, holdings) -> None:
        port = self.ports[name] = free_port()
        trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=port)]
        daemon = SimulatedDaemon(holdings, trusted=trusted, timezone=ZONE)
        self.daemons[name] = self._stack.enter_context(daemon)
        self._connections[name] = connection_to(daemon.address[1], receiver_port=port, zone=ZONE)
        # Who is held up waits for as long as a busy machine needs to come to him.
        self._connections[name]["extra"] |= {"dimse_timeout": 1200, "network_timeout": 1200}

    def _gate(self, name: str, before: int) -> Gate:
        self.gates[name] = Gate(before)
        return self.gates[name]

    def _new_home(self, root: Path) -> Home:
        home = new_home(root / "airflow", connections=self._connections)
        bundle = "airflow.dag_processing.bundles.local.LocalDagBundle"
        folders = {"shipped": ROOT / "dags", "on_purpose": HERE / "dags"}
        home.environment.update(
            {
                "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
                    [{"name": name, "classpath": bundle, "kwargs": {"path": str(at)}} for name, at in folders.items()]
                ),
                "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
                # Nobody changes a DAG.
                "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "1800",
                # A worker learns that its task is to end by its next heartbeat, and others that a triggerer is gone.
                "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
                # So long a worker is not heard of until its tasks are tried again; SQLite holds up others for seconds.
                "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "180",
                "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
                "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
                "AIRFLOW__VARIAN__RECEIVERS": json.dumps({"night": str(root / "standing")}),
                "WAITED_FOR": self.patients[-1].patient_id,
                "NAMED": json.dumps(NAMED),
            }
        )
        return home

    def begin_late(self) -> None:
        """Let the peer be there that was not."""
        trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=free_port())]
        port = self._connections["late"]["port"]
        self._stack.enter_context(SimulatedDaemon(self.clinic, port=port, trusted=trusted, timezone=ZONE))

    def ask_for_failures(self) -> None:
        self.runs["failing"] = AskedRun.ask(self.page, "failing_on_purpose")

    def ask_for_ends(self) -> None:
        for way in WAYS:
            dag = "ended_by_its_time" if way == TIMED_OUT else "ended_on_purpose"
            self.runs[way] = AskedRun.ask(self.page, dag, peer=way)

    def ask_for_waits(self) -> None:
        pool = {"name": "waiting", "slots": 6, "include_deferred": False}
        self.page.rest("POST", "pools", pool)
        for dag in ("waiting_in_vain", "waiting_for_more"):
            self.runs[dag] = AskedRun.ask(self.page, dag)

    def ask_for_run_types(self) -> None:
        """Ask for the daily QA in each way, and of other days each time."""
        by_api, manual, backfilled = (self.today - timedelta(days=ago) for ago in (1, 2, 3))
        self.days = SimpleNamespace(by_api=by_api, manual=manual, backfilled=backfilled)
        dag = "daily_machine_qa"
        self.page.rest("PATCH", f"dags/{dag}", {"is_paused": False})  # the scheduler makes its run by itself
        self.page.backfill(
            dag_id=dag,
            # The run of an interval that begins on a day judges the next one.
            from_date=_at(backfilled - timedelta(days=1), 0),
            to_date=_at(backfilled, 0),
            max_active_runs=1,
        )
        self.runs["by_api"] = AskedRun.ask(self.page, dag, first_day=str(by_api))
        self.runs["manual"] = AskedRun.ask(self.page, dag, logical_date=_at(manual, 12))

    def ask_for_patients(self) -> None:
        self.runs["by_row"] = AskedRun.ask(self.page, "patients_by_row")
        self.runs["by_form"] = AskedRun.ask(self.page, "patient_by_form", patient=self.typed.patient_id)

    @property
    def named(self) -> dict[str, str]:
        """Who is told on purpose."""
        return NAMED

    @property
    def typed(self):
        """The patient whose ID a person types into a form."""
        return self.patients[-2]


def _at(day: date, hour: int) -> str:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC).isoformat()


@pytest.fixture(scope="session")
def site(tmp_path_factory, request):
    """An Airflow that has been asked for all that the tests of this folder look at."""
    wanted = {item.path.stem for item in request.session.items if item.path.parent == HERE}
    with ExitStack() as stack:
        made = Site(tmp_path_factory.mktemp("standalone"), stack)
        # Whoever is held up goes before the daemons do.
        for gate in made.gates.values():
            stack.callback(gate.opened.set)
        made.page = stack.enter_context(standalone(made.home, parallelism=11))
        asks = {
            # First, while nobody else writes: a backfill is asked for in a transaction that SQLite gives up otherwise.
            "test_run_types": made.ask_for_run_types,
            "test_retries": made.ask_for_failures,
            "test_kills": made.ask_for_ends,
            "test_deferred": made.ask_for_waits,
            "test_privacy": made.ask_for_patients,
        }
        wait_for(lambda: made.page.rest("GET", "dags")["total_entries"] == _DAGS, "the DAGs")
        assert made.page.rest("GET", "importErrors")["import_errors"] == []
        for name, ask in asks.items():
            if name in wanted:
                ask()
        yield made
