"""What pynetdicom's own requestors and servers need in tests: event handlers for them."""

from __future__ import annotations

from typing import Any, Final

from pynetdicom import evt

from airflow_provider_varian.dimse import parked, socket_manners

#: For a server: a peer that resets the connection leaves pynetdicom's socket open, and the test that runs when it is
#: collected fails.
CLOSED_FOR_GOOD: Final[list[Any]] = [(evt.EVT_CONN_OPEN, socket_manners.close_for_good)]
#: For ``AE.associate``: unparked, it loses answers that come quickly (performance 7).
PARKED: Final[list[Any]] = [(evt.EVT_CONN_OPEN, parked.park), (evt.EVT_ACSE_SENT, socket_manners.close_for_good)]
