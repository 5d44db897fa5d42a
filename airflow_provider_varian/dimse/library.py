"""The names of pynetdicom that we use although it does not document them, checked in one place.

``pynetdicom>=3.0.4,<3.1`` is pinned for them. A release that renames one must not be met with an
``AttributeError`` in the middle of a night's retrieval, but with this module's words at import.
"""

from __future__ import annotations

from typing import Final

import pynetdicom
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider

from airflow_provider_varian.errors import ConfigurationError

# Attributes that __init__ sets are looked for among the names that its code uses.
_METHODS: Final = (
    (Association, ("_run_reactor", "_abort_blocking", "kill", "lock")),
    (ACSE, ("is_aborted", "is_release_requested", "send_release")),
    (DIMSEServiceProvider, ("send_msg",)),
    (DULServiceProvider, ("idle_timer_expired", "peek_next_pdu", "receive_pdu")),
)
_ATTRIBUTES: Final = (
    (Association, ("_reactor_checkpoint", "_is_paused", "_kill", "acse", "dul", "dimse")),
    (DIMSEServiceProvider, ("msg_queue",)),
    (DULServiceProvider, ("socket",)),
)


def missing_names() -> list[str]:
    """Return the names that this release of pynetdicom lacks, as ``Class.name``."""
    missing = [f"{owner.__name__}.{name}" for owner, names in _METHODS for name in names if not hasattr(owner, name)]
    for owner, names in _ATTRIBUTES:
        used = owner.__init__.__code__.co_names
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
