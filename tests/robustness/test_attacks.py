"""Every attack of the table, on each way to run the receiver: it ends as said, and leaves nothing behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from robustness.attack_disk import small_file_system
from robustness.attack_receivers import TLS, Receiver, at_rest, running
from robustness.attack_stage import Attack, Stage
from robustness.attack_table import CASES, case, limits_of
from support import lying_pdus as wire
from support.identifiers import forms_of, found_in

#: What our logging begins a line with, in a task and of a verb that stands.
_LINE = re.compile(
    r"(INFO|WARNING|ERROR) (airflow_provider_varian|pynetdicom)[\w.]*: |\d{4}-\d\d-\d\dT[\d:+]+ (info|warning|error): "
)
#: For one connection or object of a peer.
_MOST_LINES = 8


@pytest.fixture(scope="module")
def receivers(tmp_path_factory) -> Iterator[Callable[..., Receiver]]:
    """Return a function that gives the one receiver of a kind, which all attacks share and have to leave alive."""
    started: dict[Any, Receiver] = {}
    with ExitStack() as stack:

        def receiver(way, over, limits, small_disk) -> Receiver:
            key = (way, over, limits, small_disk)
            if key not in started:
                jail = tmp_path_factory.mktemp(f"{way}-{over}")
                if small_disk:
                    stack.enter_context(small_file_system(jail / "spool"))
                started[key] = stack.enter_context(running(way, jail, tls=over == TLS, limits=limits))
                warm_up(started[key])
            return started[key]

        yield receiver


def warm_up(receiver: Receiver) -> None:
    """Let it load and cache what the first associations need, so that memory and threads can be compared."""
    stage = Stage(receiver)
    receiver.threads_idle, receiver.sockets_idle = receiver.threads(), receiver.sockets()
    for _ in range(5):
        stage.good_peer()
    forget(receiver)


def forget(receiver: Receiver) -> None:
    """Take out what is stored, as claims would."""
    for paths in receiver.stored().values():
        for path in paths:
            path.unlink()
    receiver.acknowledged.clear()


@pytest.mark.parametrize(("attack", "way", "over"), [pytest.param(*each, id=case(*each)) for each in CASES])
def test_attack(attack: Attack, way: str, over: str, receivers) -> None:
    receiver = receivers(way, over, limits_of(attack, over), attack.small_disk)
    stage = Stage(receiver)
    assert receiver.alive, "an attack before this one ended the receiver"
    elsewhere, logged = receiver.elsewhere(), len(receiver.log)
    receiver.forget_peak()
    memory, _ = receiver.memory()

    try:
        attack.play(stage)

        _, most = receiver.memory()
        assert receiver.alive
        at_rest(receiver)
        stage.good_peer()
        at_rest(receiver)
        receiver.check_stored()
    finally:
        forget(receiver)
    assert receiver.elsewhere() == elsewhere
    assert most - memory < attack.growth_mib * 2**20, f"{(most - memory) / 2**20:.1f} MiB more memory"
    check_log(receiver.log[logged:], attack.never_logged, occasions=stage.occasions)


def check_log(text: str, never: tuple[str, ...], *, occasions: int) -> None:
    """Fail when the log tells of patients, of what a peer made up, of an error of ours, or far too much.

    :param occasions: how many connections and objects there were to tell of.
    """
    words = set(forms_of(wire.PLANTED_ID, wire.PLANTED_NAME)) | {word.encode() for word in never}
    assert not found_in(text.encode(), words)
    assert not [word for word in never if word in text]
    assert "Traceback" not in text, text
    lines = text.splitlines()
    assert [line for line in lines if not _LINE.match(line)] == []
    assert len(lines) <= _MOST_LINES * occasions, text


@pytest.mark.parametrize(
    "line",
    [
        "INFO airflow_provider_varian.x: stored for Zqplanted^Personname",
        "INFO airflow_provider_varian.x: stored for zqplantedid77",
        "WARNING airflow_provider_varian.x: refused /tmp/made-up",
        "Traceback (most recent call last):",
        "not a line of ours",
        "INFO airflow_provider_varian.x: y\n" * (3 * _MOST_LINES + 1),
    ],
)
def test_a_log_that_tells_too_much_is_found_out(line):
    check_log("INFO airflow_provider_varian.x: stored 1.2.3\n", ("made-up",), occasions=3)
    with pytest.raises(AssertionError):
        check_log(line, ("made-up",), occasions=3)
