"""Objects that come into a spool as from the network."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.sink import IncomingObject, StorageSink, StoreRequest


def begin(sink: StorageSink, data_set: Dataset, **hints: Any) -> IncomingObject:
    """Begin to store a data set, as a receiver does that the daemon sends it to; ``commit()`` of it is the end.

    :param hints: of a :class:`StoreRequest`, e.g. who sends.
    """
    writer = sink.begin(
        StoreRequest(
            sop_class_uid=data_set.SOPClassUID,
            sop_instance_uid=data_set.SOPInstanceUID,
            transfer_syntax_uid=uids.IMPLICIT_VR_LITTLE_ENDIAN,
            **({"calling_ae_title": "VMSDBD", "called_ae_title": "AIRFLOW"} | hints),
        )
    )
    writer.write(encode(data_set, True, True))
    return writer


def receive(sink: StorageSink, data_set: Dataset, **hints: Any) -> None:
    """Store a data set; see :func:`begin`."""
    begin(sink, data_set, **hints).commit()
