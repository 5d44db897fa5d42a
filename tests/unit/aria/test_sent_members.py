"""What another AE was sent of a plan, and what it is owed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.plan_objects import expected, members

from airflow_provider_varian.aria.sent_members import SentMembers, digest_of, read_sent_members
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.ledger import Ledger
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.outcome import State

ITEMS = [expected(each) for each in members(images=2)]
PLAN = next(item for item in ITEMS if item.sop_instance_uid == "1.2.3.1")
REVIEWED = replace(PLAN, values={**PLAN.values, "ReviewDate": "20260801"})


@pytest.fixture
def destination(tmp_path):
    return Destination(tmp_path)


def sent(items, *, lacking=()) -> SentMembers:
    """Return the account after a sending."""
    ledger = Ledger(item.entry() for item in items)
    for uid, entry in ledger.entries.items():
        entry.state = State.MISSING if uid in lacking else State.REPORTED
    account = SentMembers(id="x")
    account.note(Manifest(id="m", ledger=ledger), items)
    return account


def owed(account, items, **settings) -> set[str]:
    return {item.sop_instance_uid for item in account.owed(items, **settings)}


def test_what_was_sent_is_not_owed():
    assert owed(SentMembers(id="x"), ITEMS) == {item.sop_instance_uid for item in ITEMS}
    assert owed(sent(ITEMS), ITEMS) == set()


def test_a_plan_that_was_reviewed_again_is_owed_and_nothing_else():
    others = [item for item in ITEMS if item is not PLAN]
    assert owed(sent(ITEMS), [REVIEWED, *others]) == {"1.2.3.1"}
    assert owed(sent(ITEMS), [REVIEWED, *others], refresh="never") == set()
    assert owed(sent([REVIEWED, *others]), [REVIEWED, *others]) == set()


def test_always_is_of_what_may_change_alone():
    assert owed(sent(ITEMS), ITEMS, refresh="always") == {"1.2.3.1", "1.2.3.2", "1.2.3.5"}


def test_what_did_not_arrive_is_owed_also_when_an_older_revision_did():
    account = sent(ITEMS, lacking=("1.2.3.5",))
    assert owed(account, ITEMS) == {"1.2.3.5"}
    ledger = Ledger([REVIEWED.entry()])
    ledger.entries["1.2.3.1"].state = State.MISSING
    account.note(Manifest(id="m", ledger=ledger), [REVIEWED])
    assert owed(account, ITEMS) == {"1.2.3.1", "1.2.3.5"}


def test_it_is_read_as_it_was_written(destination):
    assert read_sent_members(destination, "x") == SentMembers(id="x")
    account = sent(ITEMS)
    account.write(destination)
    assert read_sent_members(destination, "x") == account


def test_what_cannot_be_read_owes_everything_and_a_later_version_is_refused(destination, tmp_path, caplog):
    sent(ITEMS).write(destination)
    (path,) = (tmp_path / ".dicom" / "sent-plans").iterdir()
    whole = json.loads(path.read_text())
    for content in ("{", "[]", json.dumps(whole | {"members": {"1.2": {"revision": "", "color": 1}}})):
        path.write_text(content)
        assert read_sent_members(destination, "x").members == {}
    assert "not readable" in caplog.text
    path.write_text(json.dumps(whole | {"schema_version": 99}))
    with pytest.raises(ConfigurationError, match="schema version 99"):
        read_sent_members(destination, "x")


def test_a_sending_is_told_by_its_objects_and_their_revisions():
    assert digest_of(ITEMS) == digest_of(reversed(ITEMS))
    assert len({digest_of(ITEMS), digest_of(ITEMS[1:]), digest_of([REVIEWED, *ITEMS[1:]])}) == 3
