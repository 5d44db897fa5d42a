"""The C-STORE handler: 0x0000 only for what the sink has committed."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, evt
from support.parking import PARKED

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.sink import StorageRefused
from airflow_provider_varian.dimse.storage import store_handler


class Sink:
    def __init__(self, at="", problem=None):
        self.at, self.problem = at, problem
        self.requests, self.data, self.steps = [], b"", []

    def _step(self, name):
        self.steps.append(name)
        if name == self.at:
            raise self.problem

    def begin(self, request):
        self.requests.append(request)
        self._step("begin")
        return self

    def write(self, data):
        self._step("write")
        self.data += bytes(data)

    def commit(self):
        self._step("commit")

    def abandon(self):
        self._step("abandon")


@pytest.fixture
def store(scp):
    """Return a function that stores a plan through a handler and returns the status data set."""

    def run(sink, sop_class=uids.RT_PLAN, **originator):
        port = scp([(evt.EVT_C_STORE, store_handler(sink))], storage=True)
        plan = Dataset()
        plan.SOPClassUID, plan.SOPInstanceUID, plan.PatientID = sop_class, "1.2.3", "QA_TB_WL"
        plan.file_meta = FileMetaDataset()
        plan.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        ae = AE(ae_title="SENDER")
        ae.add_requested_context(sop_class, ImplicitVRLittleEndian)
        assoc = ae.associate("127.0.0.1", port, ae_title="OUR TITLE", evt_handlers=PARKED)
        assert assoc.is_established
        status = assoc.send_c_store(plan, **originator)
        assoc.release()
        return status

    return run


@pytest.mark.parametrize("sop_class", [uids.RT_PLAN, uids.VARIAN_HALCYON_RT_PLAN])
def test_an_object_is_committed_and_answered_with_success(store, sop_class):
    sink = Sink()
    status = store(sink, sop_class, originator_aet="AIRFLOW", originator_id=7)
    assert status.Status == 0x0000
    assert sink.steps == ["begin", "write", "commit", "abandon"]
    request = sink.requests[0]
    assert (request.sop_class_uid, request.sop_instance_uid) == (sop_class, "1.2.3")
    assert request.transfer_syntax_uid == uids.IMPLICIT_VR_LITTLE_ENDIAN
    assert (request.calling_ae_title, request.called_ae_title) == ("SENDER", "OUR TITLE")
    assert request.source_address == "127.0.0.1"
    assert (request.move_originator_ae_title, request.move_originator_message_id) == ("AIRFLOW", 7)
    assert sink.data.startswith(b"\x08\x00\x16\x00")


@pytest.mark.parametrize("at", ["begin", "write", "commit"])
@pytest.mark.parametrize(
    ("problem", "status"),
    [(StorageRefused(0xA900, "does not match"), 0xA900), (OSError(28, "full"), 0xA700), (KeyError("x"), 0xC000)],
    ids=["refused", "disk full", "bug"],
)
def test_a_failure_at_any_step_is_answered_and_leaves_no_fragment(store, at, problem, status):
    sink = Sink(at, problem)
    answer = store(sink)
    assert answer.Status == status
    assert answer.ErrorComment
    assert at == "begin" or sink.steps[-1] == "abandon"


def test_no_identifier_reaches_the_log(store, caplog):
    store(Sink("commit", OSError(28, "No space left on device")))
    assert "1.2.3" in caplog.text
    assert "QA_TB_WL" not in caplog.text
