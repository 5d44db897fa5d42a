"""Triggers as Airflow keeps them: made again, in another process, from what they serialise."""

from __future__ import annotations

import importlib
import json
from typing import Any

from airflow.triggers.base import BaseTrigger


def made_again(trigger: BaseTrigger) -> Any:
    """Return a trigger as a triggerer makes it again; fail where it is not the same one.

    What is kept is plain: Airflow 3.1 gives other values back encoded.
    """
    path, kwargs = trigger.serialize()
    kept = json.loads(json.dumps(kwargs))
    module, _, name = path.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**kept)
    assert type(again) is type(trigger)
    assert again.serialize() == (path, kept)
    given = {name: value for name, value in vars(trigger).items() if not name.startswith("_")}
    assert {name: getattr(again, name) for name in given} == given  # none is left to its default
    assert all(isinstance(value, (str, int, float, bool)) for value in kept.values())
    return again
