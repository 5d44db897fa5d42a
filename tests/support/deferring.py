"""An operator that defers, its trigger, and its going on: each from what Airflow keeps of it, as in a process anew."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred


@dataclass
class PutOff:
    """What Airflow keeps of a deferred task."""

    path: str
    arguments: dict[str, Any]
    method: str
    kwargs: dict[str, Any]

    @property
    def trigger(self) -> Any:
        """The trigger as the triggerer makes it."""
        module, _, name = self.path.rpartition(".")
        return getattr(importlib.import_module(module), name)(**self.arguments)

    @property
    def kind(self) -> str:
        return self.path.rpartition(".")[2]


def deferred(run: Callable[[], Any]) -> PutOff:
    """Run what defers, and return what is kept of it."""
    with pytest.raises(TaskDeferred) as caught:
        run()
    path, arguments = caught.value.trigger.serialize()
    kept = json.loads(json.dumps([arguments, caught.value.kwargs or {}]))
    return PutOff(path, kept[0], caught.value.method_name, kept[1])


def fired(trigger: Any) -> dict[str, Any]:
    """Run a trigger as the triggerer does; return its event, as it is kept."""

    async def scene() -> Any:
        async with asyncio.timeout(60):
            try:
                return (await anext(trigger.run())).payload
            finally:
                await trigger.cleanup()

    payload: dict[str, Any] = json.loads(json.dumps(asyncio.run(scene())))
    return payload


def going_on(put_off: PutOff, operator: Any, context: Any, event: dict[str, Any]) -> Callable[[], Any]:
    """Return what goes on with the task, by an operator made anew."""
    return lambda: getattr(operator, put_off.method)(context, event=event, **put_off.kwargs)
