"""Keeps patient data out of the logs of pynetdicom and the warnings of pydicom.

Both libraries are talkative by default: pynetdicom prints each identifier of a query at INFO, pydicom
puts odd values into its warnings. The switches are global to the process, as the libraries made them.
The level of the ``pynetdicom`` logger is left to whoever configures logging.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

import pydicom.config
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

log = logging.getLogger(__name__)


#: How often pynetdicom's thread looks for the request, before the connection is open: it comes within some 300 us.
_BEGIN_SECONDS: Final = 0.0001


class QuietAE(AE):
    """An application entity of ours: why it reaches no peer is told by a typed error, and by nobody before that."""

    def _create_socket(self, assoc: Association, *arguments: Any) -> AssociationSocket:
        """Make the socket of an association, before its threads start.

        The stock thread would rest for a millisecond first, a quarter of all that an association takes here. Once the
        connection is open, reading waits in its own way (:mod:`.streaming`).
        """
        stock, assoc.dul._run_loop_delay = assoc.dul._run_loop_delay, _BEGIN_SECONDS

        def look_as_ever(_event: evt.Event) -> None:
            assoc.dul._run_loop_delay = stock

        assoc.bind(evt.EVT_CONN_OPEN, look_as_ever)
        return super()._create_socket(assoc, *arguments)


class _NotOfOurs(logging.Filter):
    """Keeps pynetdicom from logging errors about connections that we could not open; others' pass.

    A filter of the logger itself holds whoever configures logging, and at whatever level.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record is logged; called in the thread that opens the connection."""
        association = getattr(threading.current_thread(), "assoc", None)
        if record.funcName != "connect" or not isinstance(getattr(association, "ae", None), QuietAE):
            return True
        log.debug("pynetdicom: %s", record.getMessage())
        return False


_NOT_OF_OURS: Final = _NotOfOurs()


def silence() -> None:
    """Switch off identifiers in pynetdicom's logs and values in pydicom's warnings. May be repeated.

    Also what pynetdicom logs when a :class:`QuietAE` cannot connect, which our own error tells with what to change.
    """
    logging.getLogger("pynetdicom.transport").addFilter(_NOT_OF_OURS)
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    # The standard handlers format each PDU and message, with file names and AE titles, at DEBUG; they
    # also cost half the time of a C-FIND (performance 5).
    _config.LOG_HANDLER_LEVEL = "none"
    # WARN is the default. Whoever chose RAISE on purpose keeps it.
    if pydicom.config.settings.reading_validation_mode == pydicom.config.WARN:
        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
