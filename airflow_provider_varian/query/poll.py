"""One poll round: what many want to know of a peer, over one short association.

Whoever waits for a peer asks again and again. An association for each would take the peer's budget from those who
work with it, so all of a moment share one, put their requests one after the other, and let go of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.turn import POLL, Patience
from airflow_provider_varian.errors import (
    AssociationAbortedError,
    CancelledError,
    DicomError,
    PeerTimeoutError,
    QuietHoursError,
)
from airflow_provider_varian.query.asking import STEP
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.query.profile import Profile

_T = TypeVar("_T")

#: After these there is no association any more, or nobody who may use it.
_ENDING = (AssociationAbortedError, PeerTimeoutError, QuietHoursError, CancelledError)


@dataclass(frozen=True, slots=True)
class Round(Generic[_T]):
    """What a round came to.

    :param outcomes: of each request what it returned, or its error; in the order of the requests.
    :param ended_by: which request ended the association, so that those after it could not be put; ``None``: none did.
    """

    outcomes: tuple[_T | DicomError, ...]
    ended_by: int | None = None


def poll(
    peer: Peer,
    requests: Sequence[Callable[[FindSession], _T]],
    *,
    profile: Profile,
    verifies: bool = False,
    step: str = STEP,
    cancellation: Cancellation | None = None,
    patience: Patience = POLL,
) -> Round[_T]:
    """Put requests to a peer over one association, one after the other.

    An error of one request is its own, unless the association ends by it: then it is that of all that come after. The
    error of an association that does not come about is everybody's.

    :param peer: whom to ask.
    :param requests: called with the open session, one by one.
    :param profile: the peer's habits.
    :param verifies: propose Verification too.
    :param step: what the association is for, e.g. ``"C-ECHO"``: its errors say it.
    :param cancellation: ends it from outside.
    :param patience: how long to wait until the peer may be called.
    :raises CancelledError: cancelled.
    """
    outcomes: list[_T | DicomError] = []
    begun = False
    session = FindSession(
        peer,
        profile=profile,
        cancellation=cancellation,
        patience=patience,
        verifies=verifies,
        step=step,
        # A thousand lines a minute would drown what else a triggerer logs.
        log_level=logging.INFO if len(requests) == 1 else logging.DEBUG,
    )
    try:
        with session:
            begun = True
            for request in requests:
                try:
                    outcomes.append(request(session))
                except DicomError as error:
                    if isinstance(error, _ENDING):
                        raise
                    outcomes.append(error)
    except CancelledError:
        raise
    except DicomError as error:
        missing = len(requests) - len(outcomes)
        culprit = len(outcomes) if begun and missing and not isinstance(error, QuietHoursError) else None
        return Round((*outcomes, *[error] * missing), culprit)
    return Round(tuple(outcomes))
