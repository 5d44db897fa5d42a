"""The spool lets go of an object when what was made of it is durable, and told where nothing else tells of it."""

from __future__ import annotations

import pytest

from airflow_provider_varian.errors import DestinationWriteError
from airflow_provider_varian.receiver.spooled import SpooledObject
from airflow_provider_varian.retrieval import letting_go
from airflow_provider_varian.retrieval.letting_go import LettingGo


class World:
    """Spool, destination, manifest and clock, as far as letting go uses them; notes what is done in order."""

    def __init__(self):
        self.done = []
        self.now = 0.0
        self.failing = False

    def sync(self):
        if self.failing:
            raise DestinationWriteError("the disk is gone", step="publish")
        self.done.append("sync")

    def tell(self):
        if self.failing:
            raise DestinationWriteError("the disk is gone", step="publish")
        self.done.append("tell")

    def let_go(self, item):
        self.done.append(item.sop_instance_uid)

    def monotonic(self):
        return self.now


@pytest.fixture
def world(monkeypatch):
    world = World()
    monkeypatch.setattr(letting_go, "time", world)
    return world


@pytest.fixture
def held(world):
    return LettingGo(world, world, world.tell)


def item(number):
    return SpooledObject(place=f"/spool/claimed/x/{number}", sop_instance_uid=str(number))


def test_a_hundred_are_synced_once_and_only_then_let_go_of(world, held):
    for number in range(99):
        held.when_durable(item(number))
        held.if_due()
    assert world.done == []
    held.when_durable(item(99))
    held.if_due()
    assert world.done[0] == "sync"
    assert sorted(world.done[1:], key=int) == [str(number) for number in range(100)]


@pytest.mark.parametrize(("kind", "first"), [("when_durable", "sync"), ("when_told", "tell")])
def test_one_that_has_waited_for_long_enough_is_let_go_of(world, held, kind, first):
    getattr(held, kind)(item(1))
    world.now = 1.9
    held.if_due()
    getattr(held, kind)(item(2))
    assert world.done == []
    world.now = 2.1
    held.if_due()
    assert world.done[0] == first
    assert sorted(world.done[1:]) == ["1", "2"]
    world.done.clear()
    getattr(held, kind)(item(3))
    held.if_due()
    assert world.done == [], "the next one's time begins anew"


def test_time_is_no_reason_to_write_the_manifest_while_a_slow_peer_sends(world, held):
    held.when_told(item(1))
    held.when_durable(item(2))
    world.now = 60.0
    held.if_due(is_hurried=False)
    assert world.done == ["sync", "2"]
    for number in range(3, 102):
        held.when_told(item(number))
    held.if_due(is_hurried=False)
    assert world.done[2] == "tell"
    assert len(world.done) == 103


def test_at_the_end_all_are_let_go_of_and_of_nothing_nothing_is_told(world, held):
    held.all()
    assert world.done == []
    held.when_told(item(1))
    held.when_durable(item(2))
    held.all()
    assert world.done == ["tell", "1", "sync", "2"]
    held.all()
    assert len(world.done) == 4


@pytest.mark.parametrize("kind", ["when_durable", "when_told"])
def test_what_is_not_durable_or_not_told_stays(world, held, kind):
    getattr(held, kind)(item(1))
    world.failing = True
    with pytest.raises(DestinationWriteError):
        held.all()
    assert world.done == []
    world.failing = False
    held.all()
    assert world.done[1:] == ["1"]
