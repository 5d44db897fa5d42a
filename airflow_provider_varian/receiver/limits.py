"""What a receiver takes at once, and for how long it waits: each a number with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_varian.dimse.bounds import Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a receiver.

    :param connections: at once, counted from the moment they are accepted. 64: several for each association, so that
        peers which connect and say nothing do not fill it before they are sent away. When it is full, the oldest
        one without an association is closed for a new one.
    :param connections_per_source: of one IP address. 32: half of all, so that one machine cannot fill it.
    :param associations: at once. 10: a daemon sends over one, or a few.
    :param associations_per_source: of one IP address. 8: who sends as fast as it can leaves room for others.
    :param handshake_seconds: for the TLS handshake. 10: it takes milliseconds, and a second over a slow line.
    :param idle_seconds: how long an association may be silent between two messages. 120: a daemon may take as long to
        export one object.
    :param min_free_bytes: free space of the spool's file system below which no object is begun (0xA700). 1 GiB: the
        objects that ten associations have begun can be finished, and others who use the disk live on. 0: no limit.
    :param objects_per_association: objects that one association may bring. ``None``: no limit.
    :param bytes_per_association: bytes of data sets that it may bring. ``None``: no limit.
    :param objects_per_source_hour: objects that one IP address may bring in an hour. ``None``: no limit.
    :param bytes_per_source_hour: bytes of data sets that it may bring in an hour. ``None``: no limit.
    :param bounds: of what comes over one association.
    """

    connections: int = 64
    connections_per_source: int = 32
    associations: int = 10
    associations_per_source: int = 8
    handshake_seconds: float = 10.0
    idle_seconds: float = 120.0
    min_free_bytes: int = 1 << 30
    objects_per_association: int | None = None
    bytes_per_association: int | None = None
    objects_per_source_hour: int | None = None
    bytes_per_source_hour: int | None = None
    bounds: Bounds = field(default_factory=Bounds)
