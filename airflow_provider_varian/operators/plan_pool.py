"""The pool of a run of exports: where it is, who waits for whom, and when it goes away.

What a pool is for: :mod:`airflow_provider_varian.aria.plan_pool`. It lies in the destination, so that all workers see
it, under the run: a retry and a cleared task find what was brought. When every plan is exported, the task that tells of
the run takes out of it what the plans' own folders hold; what was only read, to know what belongs to whom, stays, so
that neither a rerun nor the run of the next week need have it sent again. A pool that nobody has used for two weeks is
removed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from airflow_provider_varian.errors import DestinationWriteError
from airflow_provider_varian.hooks.settings import below, spool_root
from airflow_provider_varian.operators.identity import retrieval_id

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_varian.aria.plan_export import Site
    from airflow_provider_varian.aria.plan_pool import PlanPool
    from airflow_provider_varian.dimse.cancellation import Cancellation
    from airflow_provider_varian.hooks.dicom import DicomHook
    from airflow_provider_varian.operators.retrieving import Retrieving
    from airflow_provider_varian.retrieval.destination import Destination
    from airflow_provider_varian.retrieval.request import Expected, RetrievalRequest
    from airflow_provider_varian.retrieval.result import RetrievalResult
    from airflow_provider_varian.retrieval.retrieve import OnChange

log = logging.getLogger(__name__)

_POOLS: Final = PurePosixPath(".dicom/pool")
_SIGN: Final = "pool.json"
#: A pool that no task has used for so long is removed, whatever became of its run.
KEPT_DAYS: Final = 14
#: So many pools of earlier runs are looked into, the last used.
_FORMER: Final = 4


def pool_of_run(context: Context) -> PurePosixPath:
    """Return where the pools of a run lie, below the destination: one folder for each connection."""
    from airflow_provider_varian.retrieval.identity import retrieval_id_of_task

    instance = context["ti"]
    return _POOLS / retrieval_id_of_task(dag_id=instance.dag_id, run_id=instance.run_id, task_id="pool")


def site_of(
    context: Context,
    hook: DicomHook,
    *,
    root: ObjectStoragePath,
    patient_id: str,
    plan_uid: str,
    retrieving: Retrieving,
    cancellation: Cancellation,
) -> Site:
    """Return where a plan set comes from and where it goes, for a task of a run.

    :param context: Airflow's context.
    :param hook: the peer.
    :param root: the destination of the exports.
    :param patient_id: whose plan it is.
    :param plan_uid: the plan.
    :param retrieving: how objects are retrieved.
    :param cancellation: stops it from outside.
    """
    from airflow_provider_varian.aria.plan_export import Site
    from airflow_provider_varian.aria.pseudonyms import patient_pseudonym
    from airflow_provider_varian.aria.turns import turn
    from airflow_provider_varian.retrieval.destination import Destination

    destination = Destination(root)
    pool = _pool(context, hook, destination)
    waiting = partial(
        turn,
        _locks_folder(destination),
        wait_seconds=hook.peer.retrieve_deadline,
        cancellation=cancellation,
    )

    def patient_turn() -> AbstractContextManager[None]:
        return waiting(name=patient_pseudonym(destination.random_id(), hook.dicom_conn_id, patient_id))

    def plan_turn() -> AbstractContextManager[None]:
        return waiting(name=f"plan-{plan_uid}")

    def known_failure(item: Expected) -> str:
        known = hook.profile.expected_failure(sop_class_uid=item.sop_class_uid, answered=item.values)
        return known.reason if known is not None else ""

    return Site(
        peer_name=hook.peer.called_ae_title,
        finder=partial(hook.find_session, cancellation=cancellation),
        retrieve=_Retrieve(context, hook, below(root, *pool.parts), plan_uid, retrieving, cancellation),
        destination=destination,
        pool=pool,
        former_pools=_former_pools(destination, pool),
        patient_turn=patient_turn,
        plan_turn=plan_turn,
        volatile=frozenset(hook.profile.volatile_attributes),
        method=hook.peer.retrieve_method,
        verify=retrieving.verify or "path",
        known_failure=known_failure,
        task_try=hook.task_try,
    )


def reading_pool(
    context: Context,
    hook: DicomHook,
    *,
    root: ObjectStoragePath,
    retrieving: Retrieving,
    cancellation: Cancellation,
) -> PlanPool:
    """Return the run's pool for a task that reads objects of several patients, and files none."""
    from contextlib import nullcontext

    from airflow_provider_varian.aria.plan_pool import PlanPool
    from airflow_provider_varian.retrieval.destination import Destination

    destination = Destination(root)
    pool = _pool(context, hook, destination)
    return PlanPool(
        destination=destination,
        folder=pool,
        own={},
        retrieve=_Retrieve(context, hook, below(root, *pool.parts), "list", retrieving, cancellation),
        patient_id="",
        turn=nullcontext,
    )


def thin_pool(context: Context, root: ObjectStoragePath, *, exported: Iterable[str]) -> None:
    """Take out of the run's pools what plans' own folders hold.

    :param context: Airflow's context, of any task of the run.
    :param root: the destination of the exports.
    :param exported: SOP Instance UIDs of the plans of the run, all of which are exported.
    """
    from airflow_provider_varian.aria.plan_folder import filed_uids
    from airflow_provider_varian.retrieval.destination import Destination

    destination = Destination(root)
    filed = {uid for plan in exported for uid in filed_uids(destination, plan)}
    own = pool_of_run(context)
    for name in destination.folders_in(own):
        pooled = destination.names_beside(own / name / "any", "")
        _remove(root, [path for path in pooled if path.stem in filed])


def sweep_pools(context: Context, root: ObjectStoragePath) -> None:
    """Remove pools of other runs that no task has used for :data:`KEPT_DAYS` days."""
    from airflow_provider_varian.retrieval.destination import Destination

    destination = Destination(root)
    oldest = datetime.now(UTC) - timedelta(days=KEPT_DAYS)
    for name in destination.folders_in(_POOLS):
        if name != pool_of_run(context).name and _last_used(destination, _POOLS / name) < oldest:
            log.info("Removing the pool %s, which no task has used for %d days", name, KEPT_DAYS)
            _remove(root, [_POOLS / name])


class _Retrieve:
    """Retrieves into the pool; see :class:`airflow_provider_varian.aria.plan_pool.Retrieve`."""

    def __init__(
        self,
        context: Context,
        hook: DicomHook,
        pool: ObjectStoragePath,
        name: str,
        retrieving: Retrieving,
        cancellation: Cancellation,
    ) -> None:
        self._context = context
        self._hook = hook
        self._pool = pool
        self._name = name
        self._retrieving = retrieving
        self._cancellation = cancellation

    def __call__(self, request: RetrievalRequest, *, part: str, layout: str, on_change: OnChange) -> RetrievalResult:
        return self._hook.retrieve(
            request,
            retrieval_id=retrieval_id(self._context, f"{self._name} {part}"),
            destination=self._pool,
            layout=layout,
            on_change=on_change,
            cancellation=self._cancellation,
            **asdict(self._retrieving),
        )


def _pool(context: Context, hook: DicomHook, destination: Destination) -> PurePosixPath:
    """Return the pool of a run and a connection, with a sign that it is in use."""
    from airflow_provider_varian.retrieval.layout import safe_value

    of_run = pool_of_run(context)
    destination.write_text(of_run / _SIGN, json.dumps({"used": datetime.now(UTC).isoformat(timespec="seconds")}))
    return of_run / safe_value(hook.dicom_conn_id)


def _former_pools(destination: Destination, own: PurePosixPath) -> tuple[PurePosixPath, ...]:
    """Return the pools of earlier runs with the same connection, the last used first; none that may go meanwhile."""
    oldest = datetime.now(UTC) - timedelta(days=KEPT_DAYS - 1)
    used = {name: _last_used(destination, _POOLS / name) for name in destination.folders_in(_POOLS)}
    names = sorted((name for name, when in used.items() if when > oldest), key=lambda name: used[name], reverse=True)
    return tuple(_POOLS / name / own.name for name in names if name != own.parent.name)[:_FORMER]


def _last_used(destination: Destination, pool: PurePosixPath) -> datetime:
    """Return when a task used a pool last; now, where that cannot be told."""
    text = destination.read_text(pool / _SIGN)
    try:
        return datetime.fromisoformat(json.loads(text or "")["used"])
    except (ValueError, KeyError, TypeError):
        return datetime.now(UTC)


def _locks_folder(destination: Destination) -> Path:
    """Return a local folder for locks: in the destination where workers share it, else on this worker alone."""
    if destination.is_local:
        return Path(destination.uri) / ".dicom" / "locks"
    return spool_root() / "export-locks"


def _remove(root: ObjectStoragePath, paths: Sequence[PurePosixPath]) -> None:
    """Remove files, or folders with all that is in them."""
    if not paths:
        return
    try:
        root.fs.rm([below(root, *path.parts).path for path in paths], recursive=True)
    except FileNotFoundError:
        return
    except Exception as error:  # noqa: BLE001 - each store raises what its client library raises
        raise DestinationWriteError(
            f"what is in a pool below {root} cannot be removed ({type(error).__name__})",
            step="export",
            hint="Let this process remove it, or remove .dicom/pool by hand: the exported plans do not need it",
        ) from None
