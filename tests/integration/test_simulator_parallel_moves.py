"""Several clients of the simulator that move at the same time, each to a receiver of its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from support import dcmtk
from support.held import all_held
from support.ports import free_port
from support.simulated import UNTIL, Client, peer_of, receiving, trusted

from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

TITLES = ("FIRST", "SECOND", "THIRD", "FOURTH")
#: No client waits longer for the others.
PATIENCE = 30


@pytest.fixture(scope="module")
def clinic() -> Clinic:
    return Clinic(seed=1, patients=2, days=2, until=UNTIL, matrix=16)


@pytest.fixture(scope="module")
def wanted(clinic) -> list[tuple[str, set[str]]]:
    """Four series of a machine's images with their instances, of different sizes."""
    series: dict[str, set[str]] = {}
    for each in all_held(clinic):
        if each.modality == "RTIMAGE" and each.birth_date is None:
            series.setdefault(each.series, set()).add(each.uid)
    chosen = sorted(series.items(), key=lambda item: len(item[1]))[-len(TITLES) :]
    assert len({len(instances) for _, instances in chosen}) > 1
    return chosen


def test_each_of_four_clients_gets_its_own_objects_while_all_are_moving(clinic, wanted):
    all_are_receiving = threading.Barrier(len(TITLES), timeout=PATIENCE)

    with ExitStack() as stack:
        receivers = {title: stack.enter_context(receiving(title)) for title in TITLES}

        def wait_for_the_others(receiver):
            def before(_):
                if not receiver.stored:
                    all_are_receiving.wait()

            return before

        for receiver in receivers.values():
            receiver.before = wait_for_the_others(receiver)
        entities = [trusted(each.port, ae_title=title) for title, each in receivers.items()]
        daemon = stack.enter_context(SimulatedDaemon(clinic, trusted=entities))

        def move(title, series):
            # One budget for all, since all of them are this user on this machine.
            peer = peer_of(daemon, calling_ae_title=title, max_associations=len(TITLES))
            return Client(peer).move("SERIES", to=title, SeriesInstanceUID=series)

        with ThreadPoolExecutor(len(TITLES)) as pool:
            reports = list(pool.map(move, TITLES, [series for series, _ in wanted]))
        most = daemon.counts["most_outgoing_open"]

    assert most == len(TITLES), "all were under way at once"
    for title, report, (_, instances) in zip(TITLES, reports, wanted, strict=True):
        received = receivers[title]
        assert (report.status, report.completed, report.failed) == (0x0000, len(instances), 0)
        assert sorted(received.uids) == sorted(instances)
        assert {each.called for each in received.stored} == {title}
        originators = {each.request.MoveOriginatorApplicationEntityTitle for each in received.stored}
        assert originators == {title}
        assert received.associations == 1


@pytest.mark.peers
def test_each_of_four_movescus_gets_its_own_objects(clinic, wanted, program, tmp_path):
    program("storescp"), program("movescu")
    ports = {title: free_port() for title in TITLES}
    with ExitStack() as stack:
        folders = {
            title: stack.enter_context(dcmtk.storescp(tmp_path / title, ae_title=title, port=port))[0]
            for title, port in ports.items()
        }
        entities = [trusted(port, ae_title=title) for title, port in ports.items()]
        daemon = stack.enter_context(SimulatedDaemon(clinic, trusted=entities))

        def move(title, series):
            return dcmtk.run("movescu", "-S", "-aet", title, "-aec", "VMSDBD", "-aem", title,
                             "-k", "QueryRetrieveLevel=SERIES", "-k", f"SeriesInstanceUID={series}",
                             *map(str, daemon.address))  # fmt: skip

        with ThreadPoolExecutor(len(TITLES)) as pool:
            done = list(pool.map(move, TITLES, [series for series, _ in wanted]))

    assert [each.returncode for each in done] == [0] * len(TITLES), [each.stderr for each in done]
    for title, (_, instances) in zip(TITLES, wanted, strict=True):
        found = [path.name.removeprefix("RI.").removesuffix(".dcm") for path in folders[title].iterdir()]
        assert sorted(found) == sorted(instances)
