"""What goes into an association request besides names: contexts, roles, a user identity (PS3.7 Annex D.3.3).

A C-GET proposes 120 storage contexts, each with a role. What is the same each time is made once in a process.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from copy import copy
from typing import Any

from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation, UserIdentityNegotiation
from pynetdicom.presentation import PresentationContext

from airflow_provider_varian.dimse.peer import Peer


class Contexts(list[PresentationContext]):
    """Presentation contexts to propose.

    pynetdicom copies them deeply before it numbers them, which takes 10 ms for those of a C-GET. It sets nothing but
    attributes of the contexts themselves, so that a copy of each is enough.
    """

    def __deepcopy__(self, memo: Any) -> list[PresentationContext]:
        return [copy(context) for context in self]


def negotiation_items(peer: Peer, contexts: Sequence[PresentationContext]) -> list[Any]:
    """Return the user information that goes with contexts: their roles, and who we are."""
    items: list[Any] = [
        _scp_role(uid) for uid in dict.fromkeys(str(cx.abstract_syntax) for cx in contexts if cx.scp_role)
    ]
    if peer.user_identity is not None:
        identity = UserIdentityNegotiation()
        identity.user_identity_type = 1 if peer.user_identity.password is None else 2
        identity.primary_field = peer.user_identity.login.encode()
        if peer.user_identity.password is not None:
            identity.secondary_field = peer.user_identity.password.encode()
        identity.positive_response_requested = peer.require_user_identity
        items.append(identity)
    return items


@functools.lru_cache(maxsize=512)
def _scp_role(uid: str) -> SCP_SCU_RoleSelectionNegotiation:
    """Return the proposal that we are the SCP of a class; pynetdicom reads it only."""
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = uid, False, True
    return role
