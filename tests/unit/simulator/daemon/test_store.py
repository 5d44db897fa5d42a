"""C-STORE to the daemon: whose objects it takes, what it answers, and where they are found afterwards."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from support.ports import wait_until
from support.simulated import Client, identifier, peer_of, receiving, trusted

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.store_service import IMPORTED_CLASSES
from airflow_provider_varian.simulator.facts import case_facts
from airflow_provider_varian.simulator.holdings.data_directory import DataDirectory
from airflow_provider_varian.simulator.holdings.imported import Imported

KNOWN = {"patient": "QA_TB_WL", "name": "QA^TrueBeam1"}
STRANGER = {"patient": "NEW_1", "name": "Neu^Ünique"}


def plan(number=1, *, patient, name, study="1.2.3", series="1.2.3.4", sop_class=uids.RT_PLAN, **more):
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, f"{series}.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.StudyID = study, series, "C9"
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = patient, name, "", "O"
    ds.Modality, ds.RTPlanLabel = "RTPLAN", "Imported"
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


def as_stored(ds):
    """Say of a data set how it is encoded, as a file does."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uids.IMPLICIT_VR_LITTLE_ENDIAN
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


@contextmanager
def storing(daemon, *classes):
    """An association that may store objects of some classes."""
    offered = [build_context(uid, uids.IMPLICIT_VR_LITTLE_ENDIAN) for uid in classes or (uids.RT_PLAN,)]
    assoc = AE(ae_title="AIRFLOW").associate(*daemon.address, contexts=offered, ae_title=daemon.ae_title)
    try:
        yield assoc
    finally:
        assoc.release()


def store(daemon, ds):
    with storing(daemon, ds.SOPClassUID) as assoc:
        answer = assoc.send_c_store(as_stored(ds))
    return answer.Status, str(answer.get("ErrorComment") or "")


def send_bytes(assoc, sop_class, uid, content):
    """Store what pynetdicom would not send: bytes that are no data set, or another one than the command says."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, uid
    request.DataSet = io.BytesIO(content)
    assoc._reactor_checkpoint.clear()
    assoc.dimse.send_msg(request, assoc.accepted_contexts[0].context_id)
    answer = assoc.dimse.get_msg(block=True)[1]
    assoc._reactor_checkpoint.set()
    return answer.Status


def labels(client, **keys):
    return [row.RTPlanLabel for row in client.find("IMAGE", RTPlanLabel="", **keys)]


@pytest.mark.quirk(None, "store")
def test_an_object_of_a_known_patient_is_found_and_moved_from_then_on(daemon, client, receiver):
    held = len(client.find("SERIES", PatientID="QA_TB_WL"))
    sent = plan(**KNOWN)
    assert store(daemon, sent) == (0x0000, "")
    assert labels(client, SeriesInstanceUID="1.2.3.4") == ["Imported"]
    assert labels(client, PatientID="QA_TB_WL", StudyID="C9") == ["Imported"]
    assert len(client.find("SERIES", PatientID="QA_TB_WL")) == held + 1
    [patient] = client.find("PATIENT", model=uids.PATIENT_ROOT_FIND, PatientID="QA_TB_WL",
                            NumberOfPatientRelatedStudies="")  # fmt: skip
    assert patient.NumberOfPatientRelatedStudies == 3
    assert client.move("SERIES", SeriesInstanceUID="1.2.3.4").completed == 1
    assert receiver.stored[0].dataset.PatientName == "QA^TrueBeam1"
    assert (daemon.counts["C-STORE"], daemon.counts["imported"]) == (1, 1)


@pytest.mark.quirk(None, "store")
def test_import_can_be_switched_off(daemon, habit):
    habit(store=False)
    with storing(daemon, uids.RT_PLAN, uids.VERIFICATION) as assoc:
        assert [str(cx.abstract_syntax) for cx in assoc.accepted_contexts] == [uids.VERIFICATION]
    habit(store=False, get=True)
    assert store(daemon, plan(**KNOWN)) == (0x0124, "Import is not permitted")
    assert daemon.counts["C-STORE"] == 1


def test_what_can_be_imported_is_accepted_in_implicit_vr_little_endian_alone(daemon, habit):
    offered = [build_context(uid, [uids.EXPLICIT_VR_LITTLE_ENDIAN, uids.IMPLICIT_VR_LITTLE_ENDIAN])
               for uid in (*IMPORTED_CLASSES, "1.2.840.10008.5.1.4.1.1.104.1")]  # fmt: skip
    host, port = daemon.address

    def accepted():
        assoc = AE(ae_title="AIRFLOW").associate(host, port, contexts=offered, ae_title="VMSDBD")
        assoc.release()
        return {str(cx.abstract_syntax): str(cx.transfer_syntax[0]) for cx in assoc.accepted_contexts}

    assert accepted() == dict.fromkeys(IMPORTED_CLASSES, uids.IMPLICIT_VR_LITTLE_ENDIAN)
    habit(implicit_only=False)
    assert set(accepted().values()) == {uids.EXPLICIT_VR_LITTLE_ENDIAN}


@pytest.mark.quirk(None, "automatic_patient_creation")
def test_a_stranger_is_refused_unless_patients_are_made_automatically(daemon, client, habit, receiver):
    assert store(daemon, plan(**STRANGER)) == (0xC001, "No such patient; Automatic Patient Creation is off")
    assert client.find("STUDY", PatientID="NEW_1") == []
    habit(automatic_patient_creation=True)
    assert store(daemon, plan(**STRANGER)) == (0x0000, "")
    [found] = client.find("PATIENT", model=uids.PATIENT_ROOT_FIND, PatientID="NEW*", PatientName="")
    assert found.PatientName == "Neu^Ünique"
    assert client.move("PATIENT", model=uids.PATIENT_ROOT_MOVE, PatientID="NEW_1").completed == 1
    # From here on he is known.
    habit(automatic_patient_creation=False)
    assert store(daemon, plan(2, **STRANGER)) == (0x0000, "")
    assert store(daemon, plan(3, patient="NEW_1", name="Alt^Ünique"))[0] == 0xC002


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("QA^TrueBeam1", 0x0000),
        ("qa^truebeam1^Middle^Dr", 0x0000),
        ("QB^TrueBeam1", 0xC002),
        ("QA^TrueBeam2", 0xC002),
        ("QA", 0xC002),
        ("", 0xC002),
    ],
)
def test_last_and_first_name_must_be_the_patients(daemon, habit, name, status):
    habit(automatic_patient_creation=True)  # which makes no second patient of the same ID
    assert store(daemon, plan(patient="QA_TB_WL", name=name))[0] == status


@pytest.mark.quirk(None, "patient_match_birth_date")
def test_the_birth_date_must_be_the_patients_where_a_switch_says_so(clinic, daemon, habit):
    case = next(case_facts(clinic))
    who = {"patient": case.patient_id, "name": case.name.split("=")[0]}
    other, same = "19000101", case.birth_date.strftime("%Y%m%d")
    assert store(daemon, plan(1, **who, PatientBirthDate=other))[0] == 0x0000
    habit(patient_match_birth_date=True)
    assert store(daemon, plan(2, **who, PatientBirthDate=other)) == (
        0xC002, "The patient with this ID has another birth date",
    )  # fmt: skip
    assert store(daemon, plan(2, **who))[0] == 0xC002
    assert store(daemon, plan(2, **who, PatientBirthDate=same))[0] == 0x0000


def test_the_same_instance_again_replaces_it_the_clinics_own_too(daemon, client, plans, receiver):
    own = plans["QA", "WL_10MV"]
    place = {"study": own.study_instance_uid, "series": own.series_instance_uid}
    again = plan(**KNOWN, **place, SOPInstanceUID=own.sop_instance_uid)
    assert labels(client, SOPInstanceUID=own.sop_instance_uid) == ["WL_10MV"]
    for label in ("First", "Second"):
        again.RTPlanLabel = label
        assert store(daemon, again)[0] == 0x0000
        assert labels(client, SeriesInstanceUID=own.series_instance_uid) == [label]
    client.move("SERIES", SeriesInstanceUID=own.series_instance_uid)
    assert [each.dataset.RTPlanLabel for each in receiver.stored] == ["Second"]
    # The clinic's own study keeps what the clinic says of it, and all else that lies in it.
    [study] = client.find("STUDY", StudyInstanceUID=own.study_instance_uid, StudyID="", ModalitiesInStudy="")
    assert (study.StudyID, sorted(study.ModalitiesInStudy)) == ("QA", ["RTIMAGE", "RTPLAN"])


@pytest.mark.parametrize("taken", ["study", "series", "instance"])
def test_a_uid_that_is_in_use_elsewhere_is_refused(daemon, plans, habit, taken):
    own = plans["QA", "WL_10MV"]
    other = {"study": plans["QA_2025", "PF_6MV"].study_instance_uid, "series": "1.2.3.9"}
    if taken == "study":
        new = plan(patient="$QA Halcyon2_2026", name="$QA^Halcyon2", study=own.study_instance_uid)
    elif taken == "series":
        new = plan(**KNOWN, **other | {"series": own.series_instance_uid})
    else:
        new = plan(**KNOWN, **other, SOPInstanceUID=own.sop_instance_uid)
    status, comment = store(daemon, new)
    assert status == 0xC003
    key = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}[taken]
    assert comment == f"{key} is in use elsewhere"


@pytest.mark.parametrize(
    ("keyword", "value", "status"),
    [
        ("PatientID", "", 0xC001),
        ("StudyInstanceUID", "", 0xC000),
        ("SeriesInstanceUID", "1.2..3", 0xC000),
        ("SOPClassUID", uids.RT_DOSE, 0xA900),
        ("SOPInstanceUID", "1.2.99", 0xA900),
    ],
)
def test_what_is_not_what_the_command_says_or_has_no_place_is_refused(daemon, keyword, value, status):
    said = plan(**KNOWN)
    sent = plan(**KNOWN, **{keyword: value})
    with storing(daemon) as assoc:
        assert send_bytes(assoc, said.SOPClassUID, said.SOPInstanceUID, encode(sent, True, True)) == status
    assert daemon.counts["imported"] == 0


@pytest.mark.parametrize("cut", [1, 10, 15])
def test_a_data_set_that_cannot_be_decoded_is_refused(daemon, client, cut):
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.9"
    ds = plan(**KNOWN, ReferencedRTPlanSequence=[item])
    content = encode(ds, True, True)
    with storing(daemon) as assoc:
        assert send_bytes(assoc, ds.SOPClassUID, ds.SOPInstanceUID, content) == 0x0000
        assert send_bytes(assoc, ds.SOPClassUID, ds.SOPInstanceUID, content[:-cut]) == 0xC000
        assert send_bytes(assoc, ds.SOPClassUID, ds.SOPInstanceUID, b"\xff" * 40) == 0xC000
        # An element in an item that is longer than the item.
        nested = b"\x08\x00\x55\x11\x06\x00\x00\x00"
        assert content.count(nested) == 1
        longer = content.replace(nested, nested[:4] + b"\x46\x00\x00\x00")
        assert send_bytes(assoc, ds.SOPClassUID, ds.SOPInstanceUID, longer) == 0xC000
    assert store(daemon, plan(2, **KNOWN))[0] == 0x0000


@pytest.mark.parametrize("explicit", [False, True])
def test_a_data_set_that_ends_in_the_head_of_an_element_is_refused(daemon, client, habit, explicit):
    habit(implicit_only=not explicit)
    ds = plan(**KNOWN, ApprovalStatus="APPROVED")
    content = encode(ds, not explicit, True)
    last = content.rindex(b"\x0e\x30\x02\x00")
    offered = [build_context(ds.SOPClassUID, str(ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian))]
    assoc = AE(ae_title="AIRFLOW").associate(*daemon.address, contexts=offered, ae_title=daemon.ae_title)
    for left in range(1, 8):
        assert send_bytes(assoc, ds.SOPClassUID, ds.SOPInstanceUID, content[: last + left]) == 0xC000, left
    assert client.find("IMAGE", SOPInstanceUID=ds.SOPInstanceUID) == []
    for whole in (content[:last], content):
        assert send_bytes(assoc, ds.SOPClassUID, ds.SOPInstanceUID, whole) == 0x0000
    assoc.release()


def test_an_imported_class_can_be_had_by_c_get(daemon, habit):
    habit(get=True)
    ds = plan(**KNOWN, sop_class="1.2.840.10008.5.1.4.1.1.6.1", Modality="US")
    model = uids.STUDY_ROOT_GET

    assert store(daemon, ds)[0] == 0x0000
    offered = [build_context(model), build_context(ds.SOPClassUID)]
    role = [build_role(ds.SOPClassUID, scp_role=True)]
    got = []
    handlers = [(evt.EVT_C_STORE, lambda event: got.append(event.dataset.SOPInstanceUID) or 0x0000)]
    assoc = AE(ae_title="AIRFLOW").associate(
        *daemon.address, contexts=offered, ext_neg=role, ae_title="VMSDBD", evt_handlers=handlers
    )
    statuses = [
        status.Status for status, _ in assoc.send_c_get(identifier("SERIES", SeriesInstanceUID="1.2.3.4"), model)
    ]
    assoc.release()
    assert (statuses[-1], got) == (0x0000, [ds.SOPInstanceUID])


def test_imports_in_a_folder_outlive_the_daemon(clinic, tmp_path):
    folder = tmp_path / "made" / "imports"
    behaviour = Behaviour(automatic_patient_creation=True)
    with receiving() as receiver:
        for number in (1, 2):
            entities = [trusted(receiver.port)]
            with SimulatedDaemon(clinic, trusted=entities, behaviour=behaviour, imports=folder) as daemon:
                client = Client(peer_of(daemon))
                assert len(client.find("IMAGE", PatientID="NEW_1")) == number - 1
                assert store(daemon, plan(number, **STRANGER))[0] == 0x0000
                assert client.move("PATIENT", model=uids.PATIENT_ROOT_MOVE, PatientID="NEW_1").completed == number
    assert receiver.uids == ["1.2.3.4.1", "1.2.3.4.1", "1.2.3.4.2"]
    assert sorted(path.name for path in folder.iterdir()) == ["1.2.3.4.1.dcm", "1.2.3.4.2.dcm"]
    assert dcmread(folder / "1.2.3.4.1.dcm").PatientName == "Neu^Ünique"


def test_what_cannot_be_written_is_refused_for_lack_of_resources(clinic, tmp_path):
    folder = tmp_path / "imports"
    with SimulatedDaemon(clinic, trusted=[trusted()], imports=folder) as daemon:
        folder.rmdir()
        assert store(daemon, plan(**KNOWN)) == (0xA700, "The object cannot be written")
        assert Client(peer_of(daemon)).find("IMAGE", SOPInstanceUID="1.2.3.4.1") == []


def test_files_of_others_are_overlaid_as_well(tmp_path):
    as_stored(plan(1, **STRANGER)).save_as(tmp_path / "1.dcm", enforce_file_format=True)
    with SimulatedDaemon(DataDirectory(tmp_path), trusted=[trusted()]) as daemon:
        client = Client(peer_of(daemon))
        assert store(daemon, plan(2, **STRANGER, study="1.2.5", series="1.2.5.1"))[0] == 0x0000
        assert {row.SOPInstanceUID for row in client.find("IMAGE", PatientID="NEW_1", SOPInstanceUID="")} == {
            "1.2.3.4.1", "1.2.5.1.2",
        }  # fmt: skip


def test_of_two_clients_with_one_new_patient_the_first_says_who_it_is(daemon, client, habit, monkeypatch):
    habit(automatic_patient_creation=True)
    both, inside = threading.Event(), []
    keep = Imported.keep

    def keep_slowly(*arguments):
        inside.append(1)
        if len(inside) > 1:
            both.set()
        # The other one has come as well, and must wait where it is.
        wait_until(lambda: daemon.counts["C-STORE"] == 2, what="the other client")
        both.wait(0.1)
        keep(*arguments)

    monkeypatch.setattr(Imported, "keep", keep_slowly)
    objects = [plan(1, patient="NEW_1", name="Neu^One"), plan(2, patient="NEW_1", name="Neu^Two")]
    with ThreadPoolExecutor(2) as pool:
        statuses = [status for status, _ in pool.map(lambda ds: store(daemon, ds), objects)]
    assert sorted(statuses) == [0x0000, 0xC002]
    assert len(client.find("IMAGE", PatientID="NEW_1")) == 1


@pytest.mark.parametrize("roles", [{"scu_role": True}, {"scu_role": True, "scp_role": True}])
def test_a_client_that_proposes_roles_stores_beside_c_get(daemon, habit, roles):
    habit(get=True)
    offered = [build_context(uids.RT_PLAN, uids.IMPLICIT_VR_LITTLE_ENDIAN)]
    role = [build_role(uids.RT_PLAN, **roles)]
    assoc = AE(ae_title="AIRFLOW").associate(*daemon.address, contexts=offered, ext_neg=role, ae_title="VMSDBD")
    assert assoc.send_c_store(as_stored(plan(**KNOWN))).Status == 0x0000
    assoc.release()


def test_imports_are_logged_without_identifiers(daemon, habit, simulator_log):
    for settings in ({}, {"automatic_patient_creation": True}):
        habit(**settings)
        for who in (STRANGER, KNOWN, KNOWN | {"name": "Other^Name"}):
            comment = store(daemon, plan(**who))[1]
            assert not any(part in comment for part in ("NEW", "QA_", "Neu", "Other"))
    assert simulator_log.text.count("C-STORE status=0x0000") == 2
    assert "C-STORE status=0xC001 No such patient" in simulator_log.text
    assert not any(part in simulator_log.text for part in ("NEW_1", "QA_TB_WL", "Neu", "TrueBeam1", "Other", "1.2.3.4"))
