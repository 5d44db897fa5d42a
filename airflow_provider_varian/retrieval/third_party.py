"""C-MOVE to a third party: the peer sends objects to somebody else, and reports (semantics 10).

What the peer's counters say is all that is known here, so the outcome is ``reported`` at best.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from airflow_provider_varian.dimse import contexts, status
from airflow_provider_varian.dimse.association import PeerAssociation, associate
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.move import move
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.suboperations import SubOperations
from airflow_provider_varian.errors import ConfigurationError, UnknownMoveDestinationError
from airflow_provider_varian.query.model import model_for
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.retrieval.ledger import Ledger
from airflow_provider_varian.retrieval.outcome import Outcome
from airflow_provider_varian.retrieval.plan import Ask, Stage, asks_of, whole_asks
from airflow_provider_varian.retrieval.request import RetrievalRequest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThirdPartyResult:
    """What the peer reported.

    :param outcome: ``reported``; ``partial`` when the peer reports failures; ``empty`` when it
        reports that there was nothing to send.
    :param completed: sub-operations reported as completed; ``None`` when the peer gave no counts.
    :param failed: sub-operations reported as failed.
    :param warning: sub-operations reported with a warning: sent, with a remark.
    :param failed_sop_instance_uids: instances that the peer names as failed.
    :param requests: the final report of each request.
    """

    outcome: Outcome
    completed: int | None
    failed: int | None
    warning: int | None
    failed_sop_instance_uids: tuple[str, ...]
    requests: tuple[SubOperations, ...]

    def to_json(self) -> Mapping[str, Any]:
        """Return outcome and counts as JSON-ready mapping."""
        return {
            "outcome": str(self.outcome),
            "completed": self.completed,
            "failed": self.failed,
            "warning": self.warning,
            "failed_sop_instance_uids": list(self.failed_sop_instance_uids),
        }


def move_to_third_party(
    peer: Peer,
    request: RetrievalRequest,
    *,
    destination: str,
    profile: Profile,
    cancellation: Cancellation | None = None,
    on_progress: Callable[[SubOperations], None] | None = None,
) -> ThirdPartyResult:
    """Have a peer send objects to another AE that it knows.

    :param peer: whom to ask.
    :param request: level and unique keys, or the expected instances.
    :param destination: AE title of the move destination.
    :param profile: the peer's habits.
    :param cancellation: stops it from outside.
    :param on_progress: called with each pending response.
    :raises UnknownMoveDestinationError: the peer does not know the destination (0xA801).
    :raises DicomError: what the association or a final failure status stands for, when nothing at all
        was reported as sent.
    """
    if not 0 < len(destination.strip()) <= 16:
        raise ConfigurationError(
            "the move destination is not an AE title of 1 to 16 characters",
            step="C-MOVE",
            hint="Name a trusted entity of the peer",
        )
    for words in request.warnings:
        logger.warning("%s: %s", peer.name, words)
    asks = _asks(request, profile)
    if not asks:
        return ThirdPartyResult(
            outcome=Outcome.EMPTY, completed=0, failed=0, warning=0, failed_sop_instance_uids=(), requests=()
        )
    model = model_for(request.level, peer.information_model)
    reports: list[SubOperations] = []
    with associate(peer, contexts.move(model.move_uid), step="C-MOVE", cancellation=cancellation) as association:
        for identifier in (ask.identifier(model) for ask in asks):
            reports.append(_move(association, model.move_uid, identifier, destination, on_progress))
            association.cancellation.pause(peer.request_pause_seconds)
    return _judged(peer, destination, reports)


def _move(
    association: PeerAssociation,
    model_uid: str,
    identifier: Dataset,
    destination: str,
    on_progress: Callable[[SubOperations], None] | None,
) -> SubOperations:
    try:
        return move(
            association,
            model_uid,
            identifier,
            destination=destination,
            on_progress=on_progress,
            # Pending responses are optional and the objects go elsewhere, so silence says nothing (semantics 11):
            # only retrieve_deadline and the loss of the association end the wait.
            idle_for=lambda: 0.0,
        )
    except UnknownMoveDestinationError as error:
        error.hint = f"Enter {destination} with its own address and port under Trusted Application Entities"
        raise


def _asks(request: RetrievalRequest, profile: Profile) -> list[Ask]:
    """Return the requests: what the user named, or the instances that are known by name."""
    if request.expected is None:
        return whole_asks(request, profile)
    return asks_of(Stage.AS_ASKED, request, Ledger(item.entry() for item in request.expected), profile)


def _judged(peer: Peer, destination: str, reports: Sequence[SubOperations]) -> ThirdPartyResult:
    completed, failed, warning = (_sum(reports, name) for name in ("completed", "failed", "warning"))
    named = tuple(dict.fromkeys(uid for report in reports for uid in report.failed_sop_instance_uids))
    for report in reports:
        error = status.error_for("C-MOVE", report.status, peer=peer.name, comment=report.error_comment)
        if error is not None and not completed and not warning:
            if report.status == 0xA702:
                # What the peer says when it cannot reach the destination (varian-daemon 4.18).
                error.hint = (
                    f"Check that {destination} runs, that the peer's entry for it has the right address and port, "
                    "and the firewall between the two"
                )
            raise error
    # Counts are optional (PS3.4 C.4.2.1.6 ff.): a peer may name what failed and count nothing.
    failures = bool(failed or named) or any(
        status.error_for("C-MOVE", report.status, peer=peer.name) is not None for report in reports
    )
    outcome = Outcome.PARTIAL if failures else Outcome.REPORTED
    if outcome is Outcome.REPORTED and completed == 0 and not warning:
        outcome = Outcome.EMPTY
    return ThirdPartyResult(
        outcome=outcome,
        completed=completed,
        failed=failed,
        warning=warning,
        failed_sop_instance_uids=named,
        requests=tuple(reports),
    )


def _sum(reports: Sequence[SubOperations], name: str) -> int | None:
    """Add up a counter; ``None`` when the peer gave it nowhere."""
    given = [value for report in reports if (value := getattr(report, name)) is not None]
    return sum(given) if given else None
