"""Standing receivers by name: a spool of this host, or the store to which a receiver elsewhere publishes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_varian.errors import ReceiverUnavailableError
from airflow_provider_varian.receiver.spool import Spool

if TYPE_CHECKING:
    from airflow_provider_varian.retrieval.destination import DestinationPath


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedReceiver:
    """A standing receiver: one of the two says where its objects are found.

    :param name: what messages call it.
    :param spool_root: the folder of its spool, on this host.
    :param store: the store to which it publishes, as :class:`.destination.Destination` takes it.
    """

    name: str
    spool_root: Path | None = None
    store: str | DestinationPath | None = None

    def spool(self) -> Spool | None:
        """Return its spool on this host; ``None`` when it is read from a store.

        :raises ReceiverUnavailableError: when there is none: nothing is made where a receiver should be.
        """
        root = self.spool_root
        if root is None:
            return None
        if not os.path.isdir(root / "new"):  # False as well where another user's folder may not be looked into
            raise ReceiverUnavailableError(
                f"{root} is not the spool of a receiver on this host, and should be that of the standing receiver "
                f"{self.name!r}",
                step="receiver",
                hint="Start varian-dicom receive with this --spool, as the same user. For a receiver on another host "
                "name the store to which it publishes",
            )
        return Spool(root)
