"""Presentation contexts: never more than 128, radiotherapy first, never deflated."""

from __future__ import annotations

import pytest

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.errors import QueryError


def abstract(proposed):
    return [str(context.abstract_syntax) for context in proposed]


def everything(expected=None):
    services = contexts.verification()
    for find, move in (
        (uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_MOVE),
        (uids.PATIENT_ROOT_FIND, uids.PATIENT_ROOT_MOVE),
    ):
        services += contexts.find(find) + contexts.move(move)
    services += contexts.find(uids.PATIENT_ROOT_GET)
    return services + contexts.get(uids.STUDY_ROOT_GET, expected)


def test_all_services_and_storage_fit_into_one_association():
    assert len(everything()) <= 128
    assert len(everything([f"1.2.3.{number}" for number in range(120)])) <= 128
    assert len(contexts.storage_contexts()) == 120


def test_expected_classes_come_first_and_then_radiotherapy():
    found = abstract(contexts.storage_contexts([uids.CT_IMAGE, "1.2.3", uids.CT_IMAGE]))
    assert found[:2] == [uids.CT_IMAGE, "1.2.3"]
    rest = [uid for uid in uids.RADIOTHERAPY_STORAGE if uid != uids.CT_IMAGE]
    assert found[2 : 2 + len(rest)] == rest
    assert len(found) == len(set(found)) == 120


def test_private_classes_of_varian_are_offered_and_accepted():
    private = {
        uids.VARIAN_HALCYON_RT_PLAN,
        uids.VARIAN_MOTION_MANAGEMENT,
        uids.VARIAN_LONG_TERM_ARCHIVE_RECORD,
    }
    assert private <= set(abstract(contexts.storage_contexts()))
    assert private <= set(abstract(contexts.receiver_contexts()))


def test_we_ask_to_be_the_scp_of_storage_only():
    for context in contexts.get(uids.STUDY_ROOT_GET):
        role = (context.scu_role, context.scp_role)
        assert role == ((None, None) if context.abstract_syntax == uids.STUDY_ROOT_GET else (False, True))


def test_more_expected_classes_than_fit_are_refused():
    with pytest.raises(QueryError, match="121 storage classes"):
        contexts.storage_contexts([f"1.2.3.{number}" for number in range(121)])


def test_what_a_caller_changes_about_its_contexts_is_its_own():
    for contexts_of in (contexts.receiver_contexts, contexts.storage_contexts):
        changed = contexts_of()[-1]
        changed.scu_role, changed.scp_role, changed.context_id = True, False, 7
        again = contexts_of()[-1]
        assert again.abstract_syntax == changed.abstract_syntax
        assert again.context_id is None
        assert (again.scu_role, again.scp_role) != (True, False)


def test_nothing_deflated_is_ever_proposed_or_accepted():
    for context in everything() + contexts.receiver_contexts():
        assert uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN not in context.transfer_syntax
        assert not any("Deflated" in syntax.name for syntax in context.transfer_syntax)


def test_a_receiver_takes_compressed_and_uncompressed_objects_of_every_class():
    accepted = contexts.receiver_contexts()
    assert len(abstract(accepted)) == len(set(abstract(accepted)))
    assert set(abstract(contexts.storage_contexts())) <= set(abstract(accepted))
    for context in accepted[1:]:
        assert {*uids.UNCOMPRESSED_TRANSFER_SYNTAXES, *uids.COMPRESSED_TRANSFER_SYNTAXES} == set(
            context.transfer_syntax
        )
