"""How much a peer may make us hold, and for how long, before its association ends.

Nothing here is negotiated, and no honest peer comes near any of it. pynetdicom has none of these bounds: it
holds whatever a PDU's head claims, and waits without end for the rest (prior-art 5.1).
"""

from __future__ import annotations

from dataclasses import dataclass, fields


class MalformedError(ValueError):
    """What a peer sent breaks PS3.8 or PS3.7, or one of :class:`Bounds`; its association is to be aborted.

    The message says what is wrong in words of ours: nothing of what the peer sent is quoted.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a connection may cost.

    :param association_pdu_bytes: length of a PDU before the association is accepted. 128 presentation contexts with
        a dozen transfer syntaxes each take 50 KB; 256 KiB are five times that.
    :param other_pdu_bytes: length of a PDU that is no P-DATA-TF afterwards: those that belong there have 4 bytes.
        (A P-DATA-TF may have what we announced, PS3.8 D.1, and not a byte more.)
    :param command_set_bytes: a command set in all its fragments. The longest of PS3.7 has some 400 bytes.
    :param message_bytes: the data set of a message that is held in memory: a query, an answer, the list of failed
        instances at the end of a retrieve, of which 4 MiB carry 60,000.
    :param object_bytes: the data set of a stored object. 8 GiB: larger than any that a clinic has, and smaller than
        a spool. What is longer is refused with 0xA700 (PS3.4 B.2.3).
    :param read_seconds: how long the rest of a PDU that has begun, or the next fragment of a message, may be waited
        for. A minute bridges every stall from which a network recovers.
    :param association_seconds: from the connection to the request for an association.
    :param presentation_contexts: of an association; their IDs are the odd numbers of a byte (PS3.8 9.3.2.2).
    :param transfer_syntaxes: of one presentation context. The standard knows some sixty, retired ones included.
    :param user_items: sub-items of the user information: a role and two kinds of extended negotiation for each
        presentation context, and a few more.
    """

    association_pdu_bytes: int = 256 * 1024
    other_pdu_bytes: int = 64 * 1024
    command_set_bytes: int = 64 * 1024
    message_bytes: int = 4 * 1024 * 1024
    object_bytes: int = 8 * 1024 * 1024 * 1024
    read_seconds: float = 60.0
    association_seconds: float = 30.0
    presentation_contexts: int = 128
    transfer_syntaxes: int = 96
    user_items: int = 512

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) <= 0:
                raise ValueError(f"{each.name} has to be more than 0")
