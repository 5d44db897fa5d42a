"""Quirks that are patients rather than habits: they come with the synthetic clinic, and go by a switch."""

from __future__ import annotations

from collections import Counter

import pytest
from support.simulated import MATRIX, UNTIL, Client, peer_of, trusted

from airflow_provider_varian import uids
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.simulator.clinic.irregularities import ALL, Irregularity, irregularities_of
from airflow_provider_varian.simulator.clinic.patients import patient_id
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour, habits
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.holdings.data_directory import DataDirectory
from airflow_provider_varian.simulator.holdings.synthetic import Clinic
from airflow_provider_varian.simulator.run import SimulatorOptions


@pytest.fixture
def clinic():
    """Enough patients for each irregularity to occur."""
    return Clinic(seed=1, patients=2 * len(Irregularity), days=1, until=UNTIL, matrix=MATRIX)


@pytest.fixture
def number_with(clinic):
    def find(irregularity):
        """Return the number of a patient who has it in turn, and nothing else."""
        return next(
            number
            for number in clinic.clinical_numbers
            if irregularities_of(clinic.identity, number, frozenset(ALL)) == {irregularity}
        )

    return find


@pytest.fixture
def ask(clinic, client, number_with, habit):
    """Return the rows of the patient with an irregularity: as the clinic is, and with the irregularity gone."""

    def rows(irregularity, level="IMAGE", **keys):
        number = number_with(irregularity)
        found = []
        for setting in ((irregularity.value,), ("none",)):
            habit(irregularities=setting)
            wanted = patient_id(clinic.identity, number, clinic.irregularities)
            found.append(client.find(level, **({"PatientID": wanted} | keys)))
        habit(irregularities=(irregularity.value,))
        return found

    return rows


def labels_in_courses(rows):
    return Counter(label for label, _ in {(row.RTPlanLabel, row.StudyID) for row in rows})


@pytest.mark.quirk(6, "irregularities")
def test_an_id_of_more_than_sixteen_characters_is_found_by_pattern_alone(ask, client, habit):
    with_it, without = ask(Irregularity.LONG_PATIENT_ID, "STUDY")
    (long,) = {row.PatientID for row in with_it}
    assert len(long) > 16 >= len(without[0].PatientID)
    habit(unmatchable_patient_ids=(long,))
    assert client.find("STUDY", PatientID=long) == []
    assert {row.PatientID for row in client.find("STUDY", PatientID=f"*{long[1:]}")} == {long}


@pytest.mark.quirk(7, "irregularities")
def test_a_treated_plan_has_a_label_that_is_too_long_for_a_key(ask, client):
    def labels(rows):
        return {row.RTPlanLabel for row in rows if len(row.RTPlanLabel) > 12}

    plans = {"Modality": "RTPLAN", "RTPlanLabel": "", "SOPInstanceUID": ""}
    with_it, without = ask(Irregularity.LONG_PLAN_LABEL, **plans)
    (label,) = labels(with_it)
    assert labels(without) == set()
    assert client.find("IMAGE", PatientID=with_it[0].PatientID, **(plans | {"RTPlanLabel": label})) == []


@pytest.mark.quirk(8, "irregularities")
def test_two_courses_have_a_plan_of_the_same_label(ask):
    keys = {"Modality": "RTPLAN", "RTPlanLabel": "", "StudyID": "", "SOPInstanceUID": ""}
    with_it, without = map(labels_in_courses, ask(Irregularity.SAME_LABEL_IN_TWO_COURSES, **keys))
    assert max(with_it.values()) == 2
    assert max(without.values()) == 1


@pytest.mark.quirk(12, "irregularities")
def test_a_series_is_listed_that_has_no_instance(ask, client):
    keys = {"SeriesInstanceUID": "", "NumberOfSeriesRelatedInstances": ""}
    with_it, without = ask(Irregularity.EMPTY_SERIES, "SERIES", **keys)
    (empty,) = [row.SeriesInstanceUID for row in with_it if row.NumberOfSeriesRelatedInstances == 0]
    assert all(row.NumberOfSeriesRelatedInstances for row in without)
    assert client.find("IMAGE", SeriesInstanceUID=empty, SOPInstanceUID="") == []
    report = client.move("SERIES", SeriesInstanceUID=empty)
    assert (report.status, report.completed, report.failed) == (0xC001, 0, 0)


@pytest.mark.quirk(12, "irregularities")
def test_a_series_is_listed_and_cannot_be_moved(ask, client, receiver, habit):
    keys = {"Modality": "RTIMAGE", "SeriesInstanceUID": "", "StudyInstanceUID": ""}
    rows, _ = ask(Irregularity.SERIES_NOT_MOVABLE, "SERIES", **keys)
    reports = {row.SeriesInstanceUID: client.move("SERIES", SeriesInstanceUID=row.SeriesInstanceUID) for row in rows}
    refused = [uid for uid, report in reports.items() if report.status == 0xC001]
    assert len(refused) == 1
    assert (reports[refused[0]].completed, reports[refused[0]].failed) == (0, 0)
    instances = [row.SOPInstanceUID for row in client.find("IMAGE", SeriesInstanceUID=refused[0], SOPInstanceUID="")]
    assert instances
    assert client.move("IMAGE", SOPInstanceUID=instances).status == 0xC001, "nor one by one"
    series = {row.SeriesInstanceUID for row in rows}
    assert client.move("SERIES", SeriesInstanceUID=list(series)).status == 0xC001, "nor beside others"
    receiver.stored.clear()
    report = client.move("STUDY", StudyInstanceUID=rows[0].StudyInstanceUID)
    assert report.completed == len(receiver.stored) > 0, "the study goes on without it"
    assert set(instances).isdisjoint({*receiver.uids, *report.failed_sop_instance_uids})
    habit(irregularities=("none",))
    assert client.find("SERIES", SeriesInstanceUID=refused[0]) == [], "it is gone with the irregularity"


@pytest.mark.quirk(12, "irregularities")
def test_a_plan_without_beams_is_a_failed_sub_operation(ask, client):
    keys = {"Modality": "RTPLAN", "SOPInstanceUID": "", "SeriesInstanceUID": ""}
    with_it, without = ask(Irregularity.PLAN_WITHOUT_BEAMS, **keys)
    (hollow,) = {row.SOPInstanceUID for row in with_it} - {row.SOPInstanceUID for row in without}
    whole = next(row.SOPInstanceUID for row in with_it if hollow != row.SOPInstanceUID)
    report = client.move("IMAGE", SOPInstanceUID=[hollow, whole])
    assert (report.status, report.completed, report.failed) == (0xB000, 1, 1)
    assert report.failed_sop_instance_uids == (hollow,)
    alone = client.move("IMAGE", SOPInstanceUID=hollow)
    assert (alone.status, alone.completed, alone.failed) == (0xA702, 0, 1)


@pytest.mark.quirk(21, "irregularities")
def test_images_name_no_plan(ask):
    keys = {"SOPClassUID": uids.RT_IMAGE, "ReferencedRTPlanSequence": [], "SOPInstanceUID": ""}
    with_it, without = ask(Irregularity.IMAGES_WITHOUT_PLAN, **keys)
    assert any(not row.ReferencedRTPlanSequence for row in with_it)
    assert all(row.ReferencedRTPlanSequence for row in without)


@pytest.mark.quirk(21, "irregularities")
def test_drrs_lie_in_the_study_of_the_plan(ask, client, clinic):
    def drrs(rows):
        return [row for row in rows if "DRR" in (row.ImageType or ())]

    def named(row):
        return row.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID

    keys = {"SOPClassUID": uids.RT_IMAGE, "ImageType": "", "StudyInstanceUID": "", "ReferencedRTPlanSequence": []}
    two_studies = {Irregularity.DRRS, Irregularity.CT_IN_OTHER_STUDY}
    number = next(each for each in clinic.clinical_numbers if two_studies <= irregularities_of(clinic.identity, each))
    patient = {"PatientID": patient_id(clinic.identity, number, clinic.irregularities)}
    plans = client.find("IMAGE", **patient, Modality="RTPLAN", SOPInstanceUID="", StudyInstanceUID="")
    study_of = {row.SOPInstanceUID: row.StudyInstanceUID for row in plans}
    studies = {row.StudyInstanceUID for row in client.find("STUDY", **patient, StudyInstanceUID="")}
    assert studies > set(study_of.values()), "there is another in which they could lie"
    rows = drrs(client.find("IMAGE", **patient, **keys))
    assert rows
    assert [row.StudyInstanceUID for row in rows] == [study_of[named(row)] for row in rows]
    with_it, without = map(drrs, ask(Irregularity.DRRS, **keys))
    assert with_it
    assert without == []


@pytest.mark.quirk(21, "irregularities")
@pytest.mark.parametrize(
    ("irregularity", "sign"),
    [
        (Irregularity.PATIENT_ID_WITH_DOLLAR, "$"),
        (Irregularity.PATIENT_ID_WITH_BLANK, " "),
        (Irregularity.PATIENT_ID_WITH_UNDERSCORE, "_"),
    ],
)
def test_ids_have_signs_in_them(ask, irregularity, sign):
    with_it, without = ask(irregularity, "STUDY")
    assert with_it
    assert without
    assert sign in with_it[0].PatientID
    assert without[0].PatientID.isdigit()


@pytest.mark.quirk(22, "irregularities")
def test_a_plan_of_the_private_class_is_lost_by_who_does_not_take_it(ask, client, receiver, clinic, monkeypatch):
    keys = {"Modality": "RTPLAN", "SOPClassUID": "", "SOPInstanceUID": ""}
    with_it, without = ask(Irregularity.HALCYON_PLAN_CLASS, **keys)
    (private,) = {row.SOPClassUID for row in with_it}
    assert private == "1.2.246.352.70.1.70"
    assert {row.SOPClassUID for row in without} == {uids.RT_PLAN}
    report = client.move("IMAGE", SOPInstanceUID=with_it[0].SOPInstanceUID)
    assert (report.status, report.failed, receiver.stored) == (0xA702, 1, []), "the receiver does not take that class"


@pytest.mark.quirk(24, "irregularities")
def test_uids_have_a_component_with_a_leading_zero(ask):
    def leading(rows):
        return [row for row in rows if any(part[:1] == "0" != part for part in row.SOPInstanceUID.split("."))]

    with_it, without = ask(Irregularity.LEADING_ZERO_UID, Modality="RTDOSE", SOPInstanceUID="")
    assert leading(with_it)
    assert leading(without) == []


@pytest.mark.quirk(19, "irregularities")
def test_a_patient_has_more_plans_than_a_study_move_stands(ask, client, habit):
    with_it, without = ask(Irregularity.MANY_PLANS, Modality="RTPLAN", SOPInstanceUID="", StudyInstanceUID="")
    assert len(with_it) > 30
    assert len(without) < 10
    habit(move_exception_plan_series=30)
    assert client.move("STUDY", StudyInstanceUID=with_it[0].StudyInstanceUID).status == 0xC000


def test_the_switch_bears_the_number_of_each_quirk_that_patients_show():
    (numbers,) = [each.quirks for each in habits() if each.name == "irregularities"]
    assert set(numbers) == {each.quirk for each in Irregularity} - {None}


def test_the_command_line_chooses_irregular_patients():
    behaviour = Behaviour().with_settings(["irregularities=drrs, empty-series"])
    options = SimulatorOptions(until=UNTIL, behaviour=behaviour)
    assert options.daemon().holdings.irregularities == {Irregularity.DRRS, Irregularity.EMPTY_SERIES}
    for text, wanted in (("all", set(ALL)), ("none", set()), ("as held", set(ALL))):
        options = SimulatorOptions(until=UNTIL, behaviour=Behaviour().with_settings([f"irregularities={text}"]))
        assert set(options.daemon().holdings.irregularities) == wanted


def test_an_irregularity_that_nobody_knows_is_refused_with_the_nearest(clinic):
    with pytest.raises(ConfigurationError, match="Did you mean empty-series"):
        SimulatedDaemon(clinic, behaviour=Behaviour(irregularities=("emty-series",)))


def test_files_have_no_irregular_patients_to_choose_from(clinic, receiver, tmp_path):
    with SimulatedDaemon(clinic, trusted=[trusted(receiver.port)]) as daemon:
        rows = Client(peer_of(daemon)).find("IMAGE", PatientID="QA_TB_WL", Modality="RTPLAN", SOPInstanceUID="")
        Client(peer_of(daemon)).move("IMAGE", SOPInstanceUID=rows[0].SOPInstanceUID)
    dataset = receiver.stored[0].dataset
    dataset.ensure_file_meta()
    dataset.file_meta.TransferSyntaxUID = uids.IMPLICIT_VR_LITTLE_ENDIAN
    dataset.save_as(tmp_path / "plan.dcm", enforce_file_format=True)
    with pytest.raises(ConfigurationError, match="no irregular patients"):
        SimulatedDaemon(DataDirectory(tmp_path), behaviour=Behaviour(irregularities=("all",)))
