"""Contestants as processes: watched while they run, ended when they are done."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import pytest

from benchmarks import proc, processes
from benchmarks.processes import ContestantError


def test_what_a_client_used_is_told():
    ended = processes.run(sys.executable, "-c", "x = bytearray(b'x' * 30_000_000); sum(range(3_000_000))")
    assert ended.seconds > 0
    assert ended.cpu_seconds > 0
    assert ended.peak_mb > 5


def test_a_client_that_fails_is_told_of_with_what_it_said():
    with pytest.raises(ContestantError, match=r"exit status 3.*no such peer"):
        processes.run(sys.executable, "-c", "import sys; print('no such peer'); sys.exit(3)")


def test_a_server_that_does_not_listen_is_told_of(tmp_path):
    with (
        pytest.raises(ContestantError, match="does not listen: it fell"),
        processes.serving([sys.executable, "-c", "print('it fell')"], processes.free_port(), tmp_path / "log"),
    ):
        pass


def test_another_server_on_the_port_is_not_taken_for_ours(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert proc.listens(os.getpid(), port)
        with (
            pytest.raises(ContestantError, match="Address already in use"),
            processes.serving(processes.module("raw_copy", port, tmp_path / "copy"), port, tmp_path / "log"),
        ):
            pass
    assert not proc.listens(os.getpid(), port)


def test_a_server_is_ended_with_its_block(tmp_path):
    port = processes.free_port()
    command = processes.module("raw_copy", port, tmp_path / "copy")
    with processes.serving(command, port, tmp_path / "log") as process:
        assert os.path.exists(f"/proc/{process}")
    assert not os.path.exists(f"/proc/{process}")


def test_growth_is_what_came_on_top_meanwhile():
    script = "\n".join(
        [
            "import sys",
            "kept = b'y' * 40_000_000",
            "for line in sys.stdin:",
            "    x = b'x' * int(line)",
            "    del x",
            "    print(flush=True)",
        ]
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:

        def hold(size):
            with proc.watched(process.pid) as usage:
                process.stdin.write(f"{size}\n")
                process.stdin.flush()
                process.stdout.readline()
            return usage

        hold(1)
        large, small = hold(64_000_000), hold(1)
        process.stdin.close()
    assert large.growth_mb > 50
    assert small.growth_mb < 10
    assert large.threads == 1


def test_processor_time_of_children_counts():
    before = proc.cpu_seconds(os.getpid())
    processes.run(sys.executable, "-c", "import time\nwhile time.process_time() < 0.2: pass")
    assert proc.cpu_seconds(os.getpid()) - before >= 0.15


def test_a_process_is_forked_after_whoever_looks_has_looked(monkeypatch):
    order, inside, go_on = [], threading.Event(), threading.Event()

    def look(*_):
        inside.set()
        go_on.wait(20)
        order.append("looked")
        return 0.0

    def look_once():
        with proc.looked_at(os.getpid()):
            pass

    def fork():
        child = os.fork()
        if child == 0:
            os._exit(0)
        order.append("forked")
        os.waitpid(child, 0)

    monkeypatch.setattr(proc, "_megabytes", look)
    looking, forking = threading.Thread(target=look_once), threading.Thread(target=fork)
    looking.start()
    assert inside.wait(20)
    forking.start()
    # Time in which it could do what it must not.
    forking.join(0.3)
    go_on.set()
    forking.join(20)
    looking.join(20)
    assert order[0] == "looked"
    assert "forked" in order


def test_dcmtk_runs_without_and_with_nagles_algorithm():
    assert processes.ENVIRONMENT["TCP_NODELAY"] == "1"
    assert "TCP_NODELAY" not in processes.STOCK
