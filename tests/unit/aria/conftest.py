from __future__ import annotations

import pytest
from support.scripted_peer import ScriptedPeer


@pytest.fixture
def scripted():
    """A C-FIND SCP on loopback; a test sets its ``script``."""
    peer = ScriptedPeer()
    yield peer
    peer.stop()
