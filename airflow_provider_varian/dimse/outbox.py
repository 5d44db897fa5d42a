"""Messages that are left to pynetdicom's thread, which sends them at once (PS3.7 6.3.1, PS3.8 9.3.5).

pynetdicom makes them of pydicom's data sets, and encodes each command set twice: 2 ms of processor time for a request.
Here they come encoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA

from airflow_provider_varian.dimse import framing

_COMMAND: Final = 1
_LAST: Final = 2


def post(assoc: Association, context_id: int, command: bytes, data_set: bytes = b"") -> None:
    """Leave a message.

    :param assoc: an established association.
    :param context_id: the presentation context.
    :param command: the command set.
    :param data_set: as the context encodes it; empty: none follows.
    :raises ValueError: the peer's PDUs are too small for any message.
    """
    size = framing.fragment_size(assoc.dimse.maximum_pdu_size)
    for value in (*_fragments(command, size, _COMMAND), *_fragments(data_set, size, 0)):
        primitive: Any = P_DATA()
        primitive.presentation_data_value_list.append((context_id, value))
        assoc.dul.send_pdu(primitive)


def _fragments(data: bytes, size: int, kind: int) -> Iterator[bytes]:
    """Cut into presentation data values, each with its message control header (PS3.8 E.2)."""
    for start in range(0, len(data), size):
        last = _LAST if start + size >= len(data) else 0
        yield bytes([kind | last]) + data[start : start + size]
