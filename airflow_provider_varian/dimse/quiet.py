"""Keeps patient data out of the logs of pynetdicom and the warnings of pydicom.

Both libraries are talkative by default: pynetdicom prints each identifier of a query at INFO, pydicom
puts odd values into its warnings. The switches are global to the process, as the libraries made them.
The level of the ``pynetdicom`` logger is left to whoever configures logging.
"""

from __future__ import annotations

import pydicom.config
from pynetdicom import _config


def silence() -> None:
    """Switch off identifiers in pynetdicom's logs and values in pydicom's warnings. May be repeated."""
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    # The standard handlers format each PDU and message, with file names and AE titles, at DEBUG; they
    # also cost half the time of a C-FIND (performance 5).
    _config.LOG_HANDLER_LEVEL = "none"
    # WARN is the default. Whoever chose RAISE on purpose keeps it.
    if pydicom.config.settings.reading_validation_mode == pydicom.config.WARN:
        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
