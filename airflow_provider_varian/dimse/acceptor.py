"""The threads of an association that we accepted, of which one reads and one serves.

The one that serves waits for news instead of looking a thousand times a second. pynetdicom's loop stays as it is: it
passes a checkpoint each time round, and ours lets it pass when there is a message, a release, an abort, or the end of
the reading thread, and when it is time to look at the idle timer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from pynetdicom.association import Association

log = logging.getLogger(__name__)

#: How long the loop rests without news at most; nothing depends on it.
_REST_SECONDS: Final = 0.5
#: How long an abort may take at the end, the time to linger included.
_END_SECONDS: Final = 2.0


class Threads:
    """What is put over them.

    :param assoc: an association of ours as the acceptor, not started yet.
    :param close: gives back what reading has needed.
    """

    def __init__(self, assoc: Association, close: Callable[[], None]) -> None:
        self._assoc: Any = assoc
        self._close = close
        self._checkpoint = Checkpoint(assoc)
        self._stock_reactor = self._assoc._run_reactor

    def install(self) -> None:
        """Put it in place of pynetdicom's."""
        self._assoc.dul.run = self._read
        self._assoc._run_reactor = self._serve
        self._assoc._reactor_checkpoint = self._checkpoint

    def end(self) -> None:
        """Hold nobody up any more: the reading thread is about to end."""
        if self._assoc.requestor.primitive is None:
            # Who waits for an association request need not wait any longer.
            self._assoc.dul.to_user_queue.put(None)
        self._checkpoint.end()

    def _read(self) -> None:
        """Run the reading thread; whatever ends it leaves nothing behind."""
        dul = self._assoc.dul
        try:
            type(dul).run(dul)
        except Exception as error:  # noqa: BLE001 - of the association only its end is left, and the process lives on
            log.error("The association with %s failed: %s", self._assoc.requestor.address, type(error).__name__)
        finally:
            self._close()
            self._checkpoint.end()

    def _serve(self) -> None:
        """Serve requests; after that pynetdicom closes the connection, over which an A-ABORT may go."""
        self._stock_reactor()
        self._assoc.dul.join(_END_SECONDS)


class Checkpoint(threading.Event):
    """Takes the place of ``Association._reactor_checkpoint``, and stays what it was for who pauses the reactor.

    :param assoc: an association of ours as the acceptor, not started yet.
    """

    def __init__(self, assoc: Association) -> None:
        super().__init__()
        self._assoc: Any = assoc
        self._news = threading.Event()
        self._over = False
        self._watched: tuple[Any, Any] = (self._assoc.dimse.msg_queue, self._assoc.dul.to_user_queue)
        for each in self._watched:
            each.__dict__["put"] = _then(each.put, self._news.set)
        super().set()

    def set(self) -> None:
        """Let the reactor pass; what ends it calls this first."""
        super().set()
        self._news.set()

    def end(self) -> None:
        """Hold nobody up any more: the reading thread is about to end."""
        self._over = True
        self._news.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for news; called by the reactor each time round."""
        if not self._over and all(each.empty() for each in self._watched):
            idle = self._assoc.dul._idle_timer
            self._news.wait(_REST_SECONDS if idle.timeout is None else min(max(idle.remaining, 0.0), _REST_SECONDS))
        self._news.clear()
        return super().wait(timeout)


def _then(put: Callable[..., None], also: Callable[[], None]) -> Callable[..., None]:
    def put_and_tell(item: Any, block: bool = True, timeout: float | None = None) -> None:
        put(item, block, timeout)
        also()

    return put_and_tell
