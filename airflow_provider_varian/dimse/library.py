"""The names of pynetdicom that we use although it does not document them, checked in one place.

``pynetdicom>=3.0.4,<3.1`` is pinned for them. A release that renames one must not be met with an
``AttributeError`` in the middle of a night's retrieval, but with this module's words at import.
"""

from __future__ import annotations

import os
import select
from types import ModuleType
from typing import Final

import pynetdicom
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationSocket

from airflow_provider_varian.errors import ConfigurationError

# Attributes that __init__ sets are looked for among the names that its code uses.
_METHODS: Final = (
    (Association, ("_run_reactor", "_abort_blocking", "kill", "lock")),
    (ACSE, ("is_aborted", "is_release_requested", "send_release")),
    (DIMSEServiceProvider, ("send_msg",)),
    (DULServiceProvider, ("idle_timer_expired", "peek_next_pdu", "receive_pdu")),
)
_ATTRIBUTES: Final = (
    (Association, ("_dul_ready", "_reactor_checkpoint", "_is_paused", "_kill", "acse", "dul", "dimse")),
    (DIMSEServiceProvider, ("msg_queue",)),
    (DULServiceProvider, ("socket",)),
)
# What the streaming sender and the streaming reader need beyond that; without it objects go by pynetdicom's own path.
_STREAMING_METHODS: Final = (
    (
        DULServiceProvider,
        (
            "_process_recv_primitive",
            "_decode_pdu",
            "_is_transport_event",
            "_send",
            "send_pdu",
            "kill_dul",
            "stop_dul",
            "run",
        ),
    ),
    (AssociationSocket, ("close", "send")),
    (Timer, ("expired", "remaining", "restart", "timeout")),
    # Not pynetdicom's, but of the system: other than Linux has none.
    (os, ("eventfd",)),
    (select, ("poll",)),
)
_STREAMING_ATTRIBUTES: Final = (
    (Association, ("_accepted_cx",)),
    (DIMSEServiceProvider, ("cancel_req", "message")),
    (
        DULServiceProvider,
        (
            "_idle_timer",
            "_kill_thread",
            "_recv_pdu",
            "_run_loop_delay",
            "artim_timer",
            "event_queue",
            "state_machine",
            "to_provider_queue",
            "to_user_queue",
        ),
    ),
    (AssociationSocket, ("socket",)),
    (StateMachine, ("current_state",)),
)

_Names = tuple[tuple[type | ModuleType, tuple[str, ...]], ...]


def missing_names() -> list[str]:
    """Return the names that this release of pynetdicom lacks, as ``Class.name``."""
    return _missing(_METHODS, _ATTRIBUTES)


def missing_for_streaming() -> list[str]:
    """Return the names without which objects cannot be streamed, as ``Class.name``."""
    return _missing(_STREAMING_METHODS, _STREAMING_ATTRIBUTES)


def _missing(methods: _Names, attributes: _Names) -> list[str]:
    missing = [f"{owner.__name__}.{name}" for owner, names in methods for name in names if not hasattr(owner, name)]
    for owner, names in attributes:
        used = owner.__init__.__code__.co_names  # type: ignore[misc]  # of the class, whose __init__ is its own
        missing += [f"{owner.__name__}.{name}" for name in names if name not in used]
    return missing


def check() -> None:
    """Raise :class:`ConfigurationError` when this release of pynetdicom cannot be used."""
    if missing := missing_names():
        raise ConfigurationError(
            f"pynetdicom {pynetdicom.__version__} lacks what this provider needs: {', '.join(missing)}",
            hint="Install pynetdicom>=3.0.4,<3.1",
        )


check()
