"""C-MOVE to a third party: the peer sends objects to somebody else, and each is accounted for (semantics 10).

What should go there is listed at the source. What did is told by the weakest thing that the caller has: the peer's
report (``reported``), a C-FIND on the destination (``listed``), or the destination's own files (``verified``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.suboperations import SubOperations
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.query.find import OnQuery
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.patience import patient_profile
from airflow_provider_varian.retrieval.recheck import RECHECK_ROUNDS, check_rounds
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.retrieval.third_party_folder import WatchedFolder
from airflow_provider_varian.retrieval.third_party_job import OnChange, ThirdPartyJob
from airflow_provider_varian.retrieval.third_party_proof import FiledInFolder, ListedAtPeer, Proof
from airflow_provider_varian.retrieval.third_party_result import ThirdPartyResult
from airflow_provider_varian.waiting import Try

if TYPE_CHECKING:
    from airflow_provider_varian.retrieval.destination import DestinationPath


__all__ = ["ThirdPartyResult", "move_to_third_party"]


def move_to_third_party(
    peer: Peer,
    request: RetrievalRequest,
    *,
    destination: str,
    profile: Profile,
    manifest_root: str | Path | DestinationPath | Destination | None = None,
    retrieval_id: str = "",
    verify_peer: Peer | None = None,
    verify_profile: Profile | None = None,
    verify_path: str | Path | DestinationPath | None = None,
    stable_counts: int | None = None,
    stable_interval_seconds: float | None = None,
    settle_seconds: float | None = None,
    recheck_rounds: int = RECHECK_ROUNDS,
    on_change: OnChange | None = None,
    on_progress: Callable[[SubOperations], None] | None = None,
    on_account: OnChange | None = None,
    on_query: OnQuery | None = None,
    cancellation: Cancellation | None = None,
    task_try: Try | None = None,
) -> ThirdPartyResult:
    """Have a peer send objects to another AE that it knows, and account for each of them.

    What the destination has already is not moved again, but for plans, structure sets and doses, which may have
    changed (semantics 9): those are, unless an earlier try of the same work that did not finish proved them. Instances
    that are missing afterwards are asked for again, more narrowly, as in a retrieval.

    :param peer: whom to ask.
    :param request: level, unique keys, and which instances should go there.
    :param destination: AE title of the move destination.
    :param profile: the peer's habits.
    :param manifest_root: where the manifest is kept, as ``.dicom/{retrieval_id}.json``; ``None``: nowhere, and a
        retry knows of no earlier try.
    :param retrieval_id: identity of the work (:mod:`.identity`): a retry has the same.
    :param verify_peer: the destination as a peer that answers C-FIND: what it lists is *listed*.
    :param verify_profile: its habits.
    :param verify_path: folder in which the destination files what it gets, and which we can read: what is whole there
        is *verified*.
    :param stable_counts: equal lists in a row that make the source's list stable; ``None``: the profile's, also below.
    :param stable_interval_seconds: seconds between two of them.
    :param settle_seconds: how long nothing may change at the destination before what is missing is given up.
    :param recheck_rounds: how often to ask for the source's list again afterwards, at most; what is new in it is moved
        too; 0: never.
    :param on_change: called with the manifest each time that it was written.
    :param on_account: called with the account each time that it changed, whether it is kept or not.
    :param on_progress: called with each pending response.
    :param on_query: is told of each query, at the peer and at ``verify_peer``.
    :param cancellation: stops it from outside.
    :param task_try: which try of a task it is: what was left to wait in the same one goes on.
    :return: the judged move. Outcomes other than ``complete`` are not errors here.
    :raises CancelledError: cancelled; the manifest stays ``pending``.
    :raises Waiting: so it does while somebody else waits, which a peer with ``deferred_as`` asks for; it needs a
        manifest then.
    :raises UnknownMoveDestinationError: the peer does not know the destination (0xA801).
    :raises DicomError: when nothing could be moved because of it, or the proof could not be had from the start.
    """
    if not 0 < len(destination.strip()) <= 16:
        raise ConfigurationError(
            "the move destination is not an AE title of 1 to 16 characters",
            step="C-MOVE",
            hint="Name a trusted entity of the peer",
        )
    if verify_peer is not None and verify_path is not None:
        raise ConfigurationError(
            "both a peer and a folder are to verify what was moved",
            step="C-MOVE",
            hint="Name the folder alone: a whole file proves more than a list",
        )
    if manifest_root is not None and not retrieval_id:
        raise ConfigurationError("a manifest needs the ID of its retrieval", step="manifest")
    check_rounds(recheck_rounds)
    cancellation = cancellation or Cancellation()
    cancellation.raise_if_cancelled()
    profile = patient_profile(
        profile,
        stable_counts=stable_counts,
        stable_interval_seconds=stable_interval_seconds,
        settle_seconds=settle_seconds,
    )
    patients: dict[str, str] = {}
    proof: Proof | None = None
    if verify_peer is not None:
        proof = ListedAtPeer(
            verify_peer,
            profile=verify_profile or Profile(name="generic"),
            patients=patients,
            cancellation=cancellation,
            on_query=on_query,
        )
    elif verify_path is not None:
        proof = FiledInFolder(
            WatchedFolder(verify_path, quiet_seconds=profile.settle_seconds, cancellation=cancellation)
        )
    root = manifest_root
    job = ThirdPartyJob(
        peer,
        request=request,
        destination=destination,
        profile=profile,
        root=root if root is None or isinstance(root, Destination) else Destination(root),
        retrieval_id=retrieval_id,
        proof=proof,
        patients=patients,
        recheck_rounds=recheck_rounds,
        on_change=on_change,
        on_progress=on_progress,
        on_account=on_account,
        on_query=on_query,
        cancellation=cancellation,
        task_try=task_try,
    )
    return job.run()
