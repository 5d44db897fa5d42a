"""Who a task instance is: the name under which a retry finds what an earlier try did."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


def retrieval_id(context: Context, part: str = "") -> str:
    """Return the UUID of the task instance's work, the same for each of its tries.

    :param context: Airflow's context.
    :param part: names one of several retrievals of a task, each with a manifest and claims of its own.
    """
    from airflow_provider_varian.retrieval.identity import retrieval_id_of_task

    instance = context["ti"]
    whole = retrieval_id_of_task(
        dag_id=instance.dag_id,
        run_id=instance.run_id,
        task_id=instance.task_id,
        map_index=-1 if instance.map_index is None else instance.map_index,
    )
    return str(uuid.uuid5(uuid.UUID(whole), part)) if part else whole


def try_id(context: Context) -> str:
    """Return the ID of a try of a task instance, the same for each of its pieces when it is deferred in between.

    Airflow gives a task instance another ID for each try, when it is cleared too.

    :param context: Airflow's context.
    """
    return str(context["ti"].id)
