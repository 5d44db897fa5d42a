"""Which instances a retrieval is about: listed before the transfer, and again after it.

The list is joined with what an earlier try found (:mod:`.earlier`); what is listed late is retrieved in the same run
(:mod:`.recheck`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from airflow_provider_varian.query.level import Level
from airflow_provider_varian.retrieval.earlier import expectation
from airflow_provider_varian.retrieval.layout import Layout
from airflow_provider_varian.retrieval.listing import Listed, list_expected
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.means import Means
from airflow_provider_varian.retrieval.recheck import recheck
from airflow_provider_varian.retrieval.request import Expected, Relist, Relisted, RetrievalRequest


class Question:
    """What is asked for, and the instances that it names.

    :param means: what it works with.
    :param request: what the user asked for.
    :param layout: its keywords are asked for too.
    :param manifest: whose ledger the instances are entered into.
    :param previous: the manifest of an earlier try, if there is one.
    :param written_to: where the manifest lies, for a warning.
    """

    def __init__(
        self,
        means: Means,
        request: RetrievalRequest,
        *,
        layout: Layout,
        manifest: Manifest,
        previous: Manifest | None,
        written_to: str,
    ) -> None:
        self._means = means
        self._asked = request
        self._layout = layout
        self._manifest = manifest
        self._previous = previous
        self._written_to = written_to
        #: What is asked for, as far as it is known: :meth:`list` completes it.
        self.request = request

    def list(self) -> None:
        """Find out which instances should come, and enter them into the ledger."""
        listed_here = self.request.expected is None
        if listed_here:
            expected, limited, warnings = self._list_keys(self._asked)
            self.request = replace(self.request, expected=expected, limited=self.request.limited or limited)
            for words in warnings:
                self._manifest.warn(words)
        joined = expectation(
            (item.entry() for item in self.request.expected or ()),
            previous=self._previous,
            request=self._manifest.request,
            listed_here=listed_here,
            limited=self.request.limited,
        )
        self._manifest.ledger.entries = joined.entries
        self.request = replace(self.request, limited=joined.limited)
        if joined.limited:
            self._manifest.request["limited"] = True
        elif joined.kept:
            self._warn_of_kept(joined.kept)
        if joined.kept and self.request.level.unique_key not in self.request.keys:
            # A selection that finds nothing any more names nothing: what was found before is asked for by name.
            self.request = replace(self.request, level=Level.IMAGE)

    def put_again(self, *, rounds: int, take: Callable[[Sequence[Expected]], None]) -> None:
        """List again until a list brings nothing new, if the question can be put again.

        :param rounds: how many lists to ask for at most.
        :param take: retrieves what is new.
        :raises CancelledError: cancelled.
        """
        relist = self._relist()
        if relist is None:
            return
        rechecked = recheck(relist, self._manifest.ledger, rounds=rounds, take=take, limit=self._asked.limit)
        for words in rechecked.warnings:
            self._manifest.warn(words)
        if rechecked.limited:
            self.request = replace(self.request, limited=True)
            self._manifest.request["limited"] = True

    def about(self, instances: Sequence[Expected]) -> RetrievalRequest:
        """Return the request for some instances by name."""
        return replace(self._asked, level=Level.IMAGE, expected=tuple(instances), relist=None)

    def _relist(self) -> Relist | None:
        if self._asked.relist is not None:
            return self._asked.relist
        return self._listed_again if self._asked.expected is None else None

    def _listed_again(self) -> Relisted:
        # One more than the limit tells whether it was hit.
        limit = self._asked.limit
        expected, _, warnings = self._list_keys(replace(self._asked, limit=limit and limit + 1))
        return Relisted(expected, warnings)

    def _list_keys(self, request: RetrievalRequest) -> Listed:
        return list_expected(
            self._means.peer,
            request,
            layout=self._layout,
            profile=self._means.profile,
            cancellation=self._means.cancellation,
            on_query=self._means.on_query,
        )

    def _warn_of_kept(self, count: int) -> None:
        self._manifest.warn(
            f"{count} instances that an earlier try found are not listed by the peer any more; they are accounted for "
            f"all the same. Where that is not wanted, remove {self._written_to}, or retrieve in a new run"
        )
