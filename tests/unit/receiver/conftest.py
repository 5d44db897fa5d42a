"""A spool, and requests to store into it."""

from __future__ import annotations

import pytest
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from support.archive import rt_image

from airflow_provider_varian.dimse.sink import StoreRequest
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.uids import IMPLICIT_VR_LITTLE_ENDIAN


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


@pytest.fixture
def data_set():
    """Return a function that encodes an image."""

    def encode(ds):
        buffer = DicomBytesIO()
        buffer.is_little_endian = buffer.is_implicit_VR = True
        write_dataset(buffer, ds)
        return buffer.getvalue()

    return encode


@pytest.fixture
def put(data_set):
    """Return a function that writes one image into a sink."""

    def write(sink, ds=None, *, pieces=(), **changes):
        ds = ds or rt_image(1)
        request = {
            "sop_class_uid": ds.SOPClassUID,
            "sop_instance_uid": ds.SOPInstanceUID,
            "transfer_syntax_uid": IMPLICIT_VR_LITTLE_ENDIAN,
            "calling_ae_title": "VMSDBD",
            "called_ae_title": "AIRFLOW",
        } | changes
        incoming = sink.begin(StoreRequest(**request))
        try:
            for piece in pieces or [data_set(ds)]:
                incoming.write(piece)
            incoming.commit()
        finally:
            incoming.abandon()

    return write
