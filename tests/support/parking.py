"""For tests that send by pynetdicom's own requestor: unparked, it loses answers that come quickly (performance 7)."""

from __future__ import annotations

from typing import Any, Final

from pynetdicom import evt

from airflow_provider_varian.dimse import parked

#: Event handlers for ``AE.associate``.
PARKED: Final[list[Any]] = [(evt.EVT_CONN_OPEN, parked.park)]
