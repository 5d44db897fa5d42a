"""Where stored objects go: the seam between the wire and the spool.

A C-GET requestor and a receiver are both Storage SCPs (PS3.4 Annex B). Both hand what arrives to
a :class:`StorageSink`, so there is one durable way in. The sink gets the data set's bytes as they
came on the wire, in pieces of any size; nothing is decoded.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


# One is made for each object, and of these a named tuple is made faster than a frozen dataclass.
class StoreRequest(NamedTuple):
    """What the command set of a C-STORE-RQ says (PS3.7 9.3.1.1), and who sent it.

    :param sop_class_uid: Affected SOP Class UID (0000,0002).
    :param sop_instance_uid: Affected SOP Instance UID (0000,1000), not yet checked.
    :param transfer_syntax_uid: transfer syntax of the presentation context.
    :param calling_ae_title: AE title of the sender.
    :param called_ae_title: AE title under which we were called.
    :param source_address: IP address of the sender; empty when unknown.
    :param move_originator_ae_title: (0000,1030), a hint only; empty when absent.
    :param move_originator_message_id: (0000,1031), a hint only.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str = ""
    called_ae_title: str = ""
    source_address: str = ""
    move_originator_ae_title: str = ""
    move_originator_message_id: int | None = None


class StorageRefused(Exception):  # noqa: N818 - an answer to the sender, not an error of ours
    """Raised by a sink to answer a C-STORE with a failure.

    :param status: 0xA700 out of resources, 0xA900 data set does not match SOP class,
        0xC000 cannot understand (PS3.4 B.2.3).
    :param comment: Error Comment (0000,0902), at most 64 characters, no identifiers.
    """

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(f"0x{status:04X} {comment}")
        self.status = status
        self.comment = comment[:64]


class IncomingObject(Protocol):
    """One object on its way in."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next piece of the data set. Raises :class:`StorageRefused` when it cannot."""

    def commit(self) -> None:
        """Make the object durable under its final name. Only then may 0x0000 be answered.

        Raises :class:`StorageRefused` when it is not whole or cannot be made durable; nothing is
        left behind then.
        """

    def abandon(self) -> None:
        """Forget the object and leave no fragment. Harmless after :meth:`commit`."""


class StorageSink(Protocol):
    """Takes objects, from any thread."""

    def begin(self, request: StoreRequest) -> IncomingObject:
        """Start taking one object. Raises :class:`StorageRefused` to refuse it unread."""
