"""Objects that come into a spool as from the network."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.sink import StoreRequest
from airflow_provider_varian.receiver.spool_sink import SpoolSink


def receive(sink: SpoolSink, data_set: Dataset) -> None:
    """Put an object into a spool, as a receiver does that the daemon sends it to."""
    writer = sink.begin(
        StoreRequest(
            sop_class_uid=data_set.SOPClassUID,
            sop_instance_uid=data_set.SOPInstanceUID,
            transfer_syntax_uid=uids.IMPLICIT_VR_LITTLE_ENDIAN,
            calling_ae_title="VMSDBD",
            called_ae_title="AIRFLOW",
        )
    )
    writer.write(encode(data_set, True, True))
    writer.commit()
