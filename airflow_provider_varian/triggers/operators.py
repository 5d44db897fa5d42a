"""The triggers behind the deferrable operators: each waits for what an operator has come to, and then lets it go on.

What is asked, is asked in the poll rounds of the sensors' triggers. An operator looks again itself when it goes on:
here it is only found out when that may be worth it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_varian.errors import DicomError
from airflow_provider_varian.triggers import sealing
from airflow_provider_varian.triggers.asking import FindQuestion, PeerAsker
from airflow_provider_varian.triggers.criteria import Borne, LateCriterion, ListedCriterion
from airflow_provider_varian.triggers.dicom import (
    MAX_TRANSIENT_FAILURES,
    DicomReceivedTrigger,
    PeerTrigger,
    event_of,
    failed,
)
from airflow_provider_varian.triggers.keys_text import text_of
from airflow_provider_varian.triggers.peers import peer_of
from airflow_provider_varian.triggers.rounds import Several, registry

if TYPE_CHECKING:
    from airflow_provider_varian.dimse.peer import Peer
    from airflow_provider_varian.query.find import OnQuery
    from airflow_provider_varian.query.query import Query
    from airflow_provider_varian.waiting import LateObjects, Listed

#: How often one looks while nothing may change for a while: so many times in it, and within these seconds.
_LOOKS: Final = 5.0
_LEAST_SECONDS, _MOST_SECONDS = 1.0, 15.0


class DicomQuietHoursTrigger(BaseTrigger):
    """Wait until the quiet hours of a connection are over; at once, when it has none any more.

    Fires one event, as :class:`.dicom.DicomTrigger` does.

    :param dicom_conn_id: the connection.
    """

    def __init__(self, *, dicom_conn_id: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dicom_conn_id = dicom_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return import path and arguments; Airflow keeps them in its database."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {"dicom_conn_id": self.dicom_conn_id}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait; nobody is asked."""
        from airflow_provider_varian.dimse.quiet_hours import await_past

        borne = Borne(MAX_TRANSIENT_FAILURES)
        while True:
            try:
                await await_past(await peer_of(self.dicom_conn_id))
            except DicomError as error:
                if not borne.bears(error):
                    yield failed(error)
                    return
                self.log.warning("not yet: %s", error)
                await asyncio.sleep(_MOST_SECONDS)
            else:
                break
        yield event_of(status="success", message="it is no quiet time of the connection", facts={})


class DicomLateTrigger(DicomReceivedTrigger):
    """Wait until a standing receiver has what a C-MOVE was asked for, or nothing comes any more.

    The facts are how many objects there are that nobody has claimed, and whether it was waited until nothing came.

    :param quiet_seconds: how long nothing may come before what is missing is given up.
    :param most_seconds: how long is looked at most.
    """

    def __init__(self, *, most_seconds: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.most_seconds = most_seconds

    @classmethod
    def of(cls, late: LateObjects) -> Self:
        """Return what waits for late objects."""
        return cls(
            dicom_conn_id=late.deferred_as,
            keys=text_of(late.keys),
            at_least=late.at_least,
            quiet_seconds=late.quiet_seconds,
            most_seconds=late.most_seconds,
            poke_interval=_interval(late.quiet_seconds),
        )

    def arguments(self) -> dict[str, Any]:
        """See :meth:`.dicom.DicomTrigger.arguments`; keys are UIDs."""
        return {**super().arguments(), "most_seconds": self.most_seconds}

    def criterion(self) -> LateCriterion:
        """See :meth:`.dicom.DicomTrigger.criterion`."""
        return LateCriterion(
            at_least=self.at_least,
            quiet_seconds=self.quiet_seconds,
            most_seconds=self.most_seconds,
            poll_seconds=self.poke_interval,
        )


class DicomListedTrigger(PeerTrigger):
    """Wait until the destination of a third-party move lists what was sent to it, or nothing changes any more.

    :param series: unique keys of series, each with how many instances are listed when all of them are; or these
        encrypted, as the trigger itself serialises them.
    :param quiet_seconds: how long nothing may change before what is missing is given up.
    :param most_seconds: how long is looked at most.
    """

    def __init__(
        self,
        *,
        series: list[tuple[dict[str, str], int]] | str,
        quiet_seconds: float,
        most_seconds: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.quiet_seconds = quiet_seconds
        self.most_seconds = most_seconds
        self._sealed = series if isinstance(series, str) else None
        self._series = None if isinstance(series, str) else series
        self._telling: OnQuery | None = None

    @classmethod
    def of(cls, listed: Listed) -> Self:
        """Return what waits for what a destination lists."""
        return cls(
            dicom_conn_id=listed.deferred_as,
            series=[(each.keys, each.at_least) for each in listed.series],
            quiet_seconds=listed.quiet_seconds,
            most_seconds=listed.most_seconds,
            poke_interval=_interval(listed.quiet_seconds),
        )

    def arguments(self) -> dict[str, Any]:
        """See :meth:`.dicom.DicomTrigger.arguments`; keys are encrypted.

        :raises DicomError: when they cannot be.
        """
        if self._sealed is None:
            self._sealed = sealing.seal(json.dumps(self._series))
        return {
            **super().arguments(),
            "series": self._sealed,
            "quiet_seconds": self.quiet_seconds,
            "most_seconds": self.most_seconds,
        }

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} {self.dicom_conn_id}>"

    def criterion(self) -> ListedCriterion:
        """See :meth:`.dicom.DicomTrigger.criterion`."""
        return ListedCriterion(
            at_least=tuple(at_least for _, at_least in self._opened()),
            quiet_seconds=self.quiet_seconds,
            most_seconds=self.most_seconds,
            poll_seconds=self.poke_interval,
        )

    async def join(self, due: float) -> Several:
        """See :meth:`.dicom.DicomTrigger.join`."""
        peer = await self.peer()
        questions = [
            FindQuestion("IMAGE", text_of(keys), undecided="keep", at_least=at_least, each_once=True, tell=self._tell)
            for keys, at_least in self._opened()
        ]
        return Several([registry().join(peer, partial(PeerAsker, peer), question, due) for question in questions])

    def _opened(self) -> list[tuple[dict[str, str], int]]:
        if self._series is None:
            self._series = [(keys, at_least) for keys, at_least in json.loads(sealing.unseal(self._sealed or ""))]
        return self._series

    def _tell(self, peer: Peer, query: Query) -> None:
        """Tell the audit trail of each query, once, and for which task; called in the thread that asks."""
        if self._telling is None:
            from airflow_provider_varian.hooks import audit

            self._telling = audit.asking(peer, audit.requestor_of(self.task_instance)) or _nothing
        self._telling(peer, query)


def _nothing(peer: Peer, query: Query) -> None:
    """There is no audit trail."""


def _interval(quiet_seconds: float) -> float:
    return min(max(quiet_seconds / _LOOKS, _LEAST_SECONDS), _MOST_SECONDS)
