from __future__ import annotations

from pydicom.config import IGNORE
from pydicom.uid import UID

from airflow_provider_varian.simulator.clinic.identity import Identity, UidRoot, with_leading_zero
from airflow_provider_varian.uids import is_uid


def test_the_same_seed_gives_the_same_uids_and_another_seed_others():
    first, again, other = Identity(7), Identity(7), Identity(8)
    uid = first.uid(UidRoot.IMAGE, 3, 1, 2, 20261120, 5)
    assert uid == again.uid(UidRoot.IMAGE, 3, 1, 2, 20261120, 5)
    assert uid != other.uid(UidRoot.IMAGE, 3, 1, 2, 20261120, 5)
    assert first.draw("a", 1).random() == again.draw("a", 1).random()
    assert first.draw("a", 1).random() != first.draw("a", 2).random()


def test_uids_have_arias_shapes_and_are_valid():
    identity = Identity(7)
    shapes = {UidRoot.PLAN: "1.2.246.352.71.5.", UidRoot.PLAN_SERIES: "1.2.246.352.71.2.",
              UidRoot.IMAGE: "1.2.246.352.62.1.", UidRoot.IMAGE_SERIES: "1.2.246.352.62.2."}  # fmt: skip
    for root, shape in shapes.items():
        uid = identity.uid(root, 10_099, 1, 2, 20261120, 5)
        assert uid.startswith(shape)
        assert is_uid(uid)
        assert all(part == "0" or not part.startswith("0") for part in uid.split("."))


def test_a_uid_names_its_patient_and_a_foreign_uid_none():
    identity = Identity(7)
    assert identity.patient_of(identity.uid(UidRoot.STUDY, 104, 1)) == 104
    assert identity.patient_of(Identity(8).uid(UidRoot.STUDY, 104, 1)) is None
    assert identity.patient_of("1.2.3") is None
    assert identity.patient_of("") is None


def test_a_uid_with_a_leading_zero_names_its_patient_and_is_no_valid_uid():
    identity = Identity(7)
    odd = with_leading_zero(identity.uid(UidRoot.DOSE, 104, 1, 3))
    assert odd.endswith(".1.03")
    assert identity.patient_of(odd) == 104
    assert odd != identity.uid(UidRoot.DOSE, 104, 1, 3)
    assert not UID(odd, IGNORE).is_valid
