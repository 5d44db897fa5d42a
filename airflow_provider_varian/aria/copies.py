"""A second place for a whole object within one destination: by a hard link where it is local, else by an upload."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from airflow_provider_varian.receiver.folders import sync_folder
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.local_store import make_folder
from airflow_provider_varian.retrieval.verify import sha256_of


def copy_once(destination: Destination, source: Path, final: PurePosixPath, *, sha256: str = "") -> bool:
    """Give an object of a destination another place in it, once, durably and whole.

    A newer version never changes what was copied: it replaces one name, and what the others name stays.

    :param destination: where both are.
    :param source: the object as a local file, as :meth:`Destination.local_copy` gives it.
    :param final: its other place.
    :param sha256: of the file, where it is known.
    :return: False when something is there already; nothing is changed then.
    :raises DestinationWriteError: when it cannot be written, or reads back differently.
    """
    if destination.is_local:
        with destination.local_copy(final) as target:
            linked = _linked(source, target)
        if linked is not None:
            return linked
    return destination.publish(source, final, sha256=sha256 or sha256_of(source))


def _linked(source: Path, target: Path) -> bool | None:
    """Give a durable file another name, durably; False when that is taken, ``None`` where it cannot be had."""
    make_folder(target.parent)
    try:
        os.link(source, target)
    except FileExistsError:
        linked = False
    except OSError:
        return None
    else:
        linked = True
    sync_folder(target.parent)
    return linked
