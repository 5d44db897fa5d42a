"""Asking for the list again after the transfer: what came into it meanwhile is retrieved in the same run.

A daemon's list grows while a machine is measuring (varian-daemon 1.4: images are appended to a series up to 18 minutes
later), and a transfer takes its time. So the same question is put again until a list brings nothing new, or so many
lists were asked for that somebody should know.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from airflow_provider_varian.errors import CancelledError, ConfigurationError, DicomError
from airflow_provider_varian.retrieval.ledger import Ledger
from airflow_provider_varian.retrieval.request import Expected, Relist, Relisted, with_uids

logger = logging.getLogger(__name__)

#: How often the list is asked for again at most, unless told otherwise.
RECHECK_ROUNDS: Final = 3


def check_rounds(rounds: int) -> None:
    """Refuse what is no number of rounds.

    :raises ConfigurationError: says what is.
    """
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 0:
        raise ConfigurationError(
            f"recheck_rounds is {rounds!r}", hint="Give a whole number; 0 never asks for the list again"
        )


class Rechecked(NamedTuple):
    """What came of asking again.

    :param warnings: what to know, in sentences; none when the last list brought nothing new, and nothing was odd.
    :param limited: more is listed than the request's limit lets in.
    """

    warnings: tuple[str, ...] = ()
    limited: bool = False

    @property
    def warning(self) -> str:
        """All warnings in one line; empty when there is none."""
        return "; ".join(self.warnings)


def recheck(
    relist: Relist,
    ledger: Ledger,
    *,
    rounds: int,
    take: Callable[[Sequence[Expected]], None],
    limit: int | None = None,
) -> Rechecked:
    """List again and take what is new, until nothing is.

    :param relist: puts the question again.
    :param ledger: the account; what is new is entered into it, as ``found_late``.
    :param rounds: how many lists to ask for at most.
    :param take: retrieves what is new and entered.
    :param limit: how many instances the account may have.
    :raises CancelledError: cancelled.
    """
    # Each once, in the order in which they were met.
    warnings: dict[str, None] = {}
    for _ in range(rounds):
        try:
            listed = _listed(relist, warnings)
        except CancelledError:
            raise
        except DicomError as error:
            # What was listed before is accounted for; that there may be more is all that is not known.
            words = f"the list could not be asked for again after the transfer, so there may be more: {error.what}"
            return Rechecked((*warnings, words))
        new = list({item.sop_instance_uid: item for item in listed if _is_new(item, ledger)}.values())
        # The account may be larger than the limit: the peer may name as failed what it did not list.
        room = len(new) if limit is None else max(0, limit - len(ledger.entries))
        if new[:room]:
            logger.info("%d instances are listed that were not before the transfer", len(new))
            for item in new[:room]:
                _enter(item, ledger)
            take(tuple(new[:room]))
        if len(new) > room:
            return Rechecked(tuple(warnings), limited=True)
        if not new:
            return Rechecked(tuple(warnings))
    if rounds:
        words = f"each of the {rounds} lists after the transfer named new instances; there may be more"
        warnings[words] = None
    return Rechecked(tuple(warnings))


def _listed(relist: Relist, warnings: dict[str, None]) -> Sequence[Expected]:
    answer = relist()
    if not isinstance(answer, Relisted):
        answer = Relisted(answer)
    listed = with_uids(answer.instances, answer.warnings)
    warnings.update(dict.fromkeys(listed.warnings))
    return listed.instances


def _is_new(item: Expected, ledger: Ledger) -> bool:
    return item.sop_instance_uid not in ledger.entries


def _enter(item: Expected, ledger: Ledger) -> None:
    """Expect an instance that is listed now.

    What came unasked in this try, before it was listed, is here already. What an earlier run told of as unexpected
    proves nothing: it may be gone by now, or an older version; nor does what was left unclaimed.
    """
    came = ledger.unexpected.pop(item.sop_instance_uid, None)
    is_news = came is not None and came.is_here and item.sop_instance_uid in ledger.arrived
    entry = ledger.expect(came if came is not None and is_news else item.entry())
    entry.found_late = True
