"""Tests that run at the same time do not take each other's ports."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from support.ports import free_port

_OTHER_PROCESS = """
import json, sys
from support.ports import free_port
print(json.dumps([free_port() for _ in range(20)]), flush=True)
sys.stdin.read()
"""


def test_two_processes_get_different_ports_also_while_nobody_listens_on_them(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", _OTHER_PROCESS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        # As of another run of the tests on this machine.
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    try:
        theirs = set(json.loads(other.stdout.readline()))
        ours = {free_port() for _ in range(20)}
    finally:
        other.communicate(timeout=60)
    assert len(theirs) == len(ours) == 20
    assert not theirs & ours


def test_a_port_that_somebody_listens_on_is_not_given():
    following = free_port() + 1
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # somebody else has it, then: as good
            taken.bind(("127.0.0.1", following))
        assert free_port() != following
