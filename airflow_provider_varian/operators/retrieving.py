"""What the operators that retrieve have in common: how to retrieve, and when an incomplete outcome is final."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow_provider_varian.errors import ConfigurationError, DicomError
from airflow_provider_varian.operators.base import DicomOperator

if TYPE_CHECKING:
    from airflow_provider_varian.retrieval.held import Verify
    from airflow_provider_varian.retrieval.versions import Refresh

#: Statuses about one request: keys that the peer does not take, and an end before the end (PS3.4 C.4.2.1.5).
_ABOUT_ONE_REQUEST: Final = (0xA900, 0xFE00)

OnPartial = Literal["fail", "accept"]
OnEmpty = Literal["skip", "fail", "accept"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieving:
    """How objects are retrieved; the fields are arguments of :meth:`.hooks.dicom.DicomHook.retrieve`."""

    port_wait_seconds: float | None = None
    verify: Verify | None = None
    refresh: Refresh = "if_changed"
    recheck_rounds: int | None = None
    stable_counts: int | None = None
    stable_interval_seconds: float | None = None
    settle_seconds: float | None = None


class RetrievingOperator(DicomOperator):
    """Base of the operators that retrieve; what the arguments mean, each of them tells for itself."""

    def __init__(
        self,
        *,
        destination: str | None = None,
        on_partial: OnPartial = "fail",
        port_wait_seconds: float | None = None,
        verify: Literal["path", "hash"] | None = None,
        refresh: Literal["if_changed", "never", "always"] = "if_changed",
        recheck_rounds: int | None = None,
        stable_counts: int | None = None,
        stable_interval_seconds: float | None = None,
        settle_seconds: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.destination = destination
        self.on_partial = on_partial
        self.port_wait_seconds = port_wait_seconds
        self.verify = verify
        self.refresh = refresh
        self.recheck_rounds = recheck_rounds
        self.stable_counts = stable_counts
        self.stable_interval_seconds = stable_interval_seconds
        self.settle_seconds = settle_seconds

    def check_choices(self) -> None:
        """Refuse values that are none of the allowed ones, before anybody is asked for anything.

        :raises ConfigurationError: names the argument and the allowed values.
        """
        check_choice("on_partial", self.on_partial, ("fail", "accept"))
        if self.verify is not None:
            check_choice("verify", self.verify, ("path", "hash"))
        check_choice("refresh", self.refresh, ("if_changed", "never", "always"))

    @property
    def retrieving(self) -> Retrieving:
        """How to retrieve."""
        return Retrieving(
            port_wait_seconds=self.port_wait_seconds,
            verify=self.verify,
            refresh=self.refresh,
            recheck_rounds=self.recheck_rounds,
            stable_counts=self.stable_counts,
            stable_interval_seconds=self.stable_interval_seconds,
            settle_seconds=self.settle_seconds,
        )


def is_lasting(error: DicomError) -> bool:
    """Say whether what went wrong on the way of a retrieval would meet a retry too.

    A permanent error does, unless the peer said it of one request alone: the retry asks for the missing only, and
    more narrowly.

    :param error: what went wrong last.
    """
    return not error.transient and error.status not in _ABOUT_ONE_REQUEST


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is none of the allowed ones.

    :raises ConfigurationError: names the argument and the allowed values.
    """
    if value not in allowed:
        raise ConfigurationError(f"{name} is {value!r}", hint=f"Choose one of {', '.join(allowed)}.")
