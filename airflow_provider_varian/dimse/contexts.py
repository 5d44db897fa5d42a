"""Presentation contexts: what we propose to a peer, and what our receivers accept (PS3.8 7.1.1.13).

An association has 128 contexts at most. :func:`storage_contexts` leaves room for verification and
all query/retrieve classes, so that any of the lists here can be added up. Deflated transfer syntaxes
are never proposed nor accepted: a small object may inflate without bound.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from copy import copy
from typing import Final

from pynetdicom.presentation import (
    AllStoragePresentationContexts,
    PresentationContext,
    StoragePresentationContexts,
    build_context,
)
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import register_uid, uid_to_service_class

from airflow_provider_varian import uids
from airflow_provider_varian.errors import QueryError

#: PS3.8 9.3.2.2: context IDs are the odd numbers from 1 to 255.
MAXIMUM_CONTEXTS: Final = 128
#: Kept free for verification and FIND, MOVE and GET of two information models (one to spare).
RESERVED_CONTEXTS: Final = 8

_RADIOTHERAPY_PREFIX: Final = f"{uids.RT_IMAGE.rpartition('.')[0]}."
_PRIVATE_STORAGE: Final = {
    uids.VARIAN_HALCYON_RT_PLAN: "VarianHalcyonRTPlanStorage",
    uids.VARIAN_MOTION_MANAGEMENT: "VarianMotionManagementStorage",
    uids.VARIAN_LONG_TERM_ARCHIVE_RECORD: "VarianLongTermArchiveRecordStorage",
}


def verification() -> list[PresentationContext]:
    """Return the context of C-ECHO (PS3.4 Annex A)."""
    return [_context(uids.VERIFICATION)]


def find(model_uid: str) -> list[PresentationContext]:
    """Return the context of C-FIND in one information model.

    :param model_uid: SOP class UID, e.g. :data:`~airflow_provider_varian.uids.STUDY_ROOT_FIND`.
    """
    return [_context(model_uid)]


def move(model_uid: str) -> list[PresentationContext]:
    """Return the context of C-MOVE in one information model."""
    return [_context(model_uid)]


def get(model_uid: str, storage_classes: Iterable[str] | None = None) -> list[PresentationContext]:
    """Return the contexts of C-GET: the model's, and storage contexts in which we are the SCP.

    :param model_uid: SOP class UID of the GET information model.
    :param storage_classes: SOP classes that are expected, offered first; see :func:`storage_contexts`.
    """
    return [_context(model_uid), *storage_contexts(storage_classes)]


def storage_contexts(expected: Iterable[str] | None = None) -> list[PresentationContext]:
    """Return storage contexts for a C-GET, with the SCP role proposed for us (PS3.7 D.3.3.4).

    Expected classes come first, then those of a radiotherapy department (Varian's private ones among
    them), then the standard classes until 120 are reached, which leaves 8 for other services.

    :param expected: SOP class UIDs that the objects are known or likely to have.
    :raises QueryError: when more are expected than fit into one association.
    """
    limit = MAXIMUM_CONTEXTS - RESERVED_CONTEXTS
    wanted = list(dict.fromkeys(expected or ()))
    if len(wanted) > limit:
        raise QueryError(
            f"{len(wanted)} storage classes are expected, and one association carries {limit}",
            step="C-GET",
            hint="Retrieve fewer kinds of objects at a time",
        )
    classes = list(dict.fromkeys([*wanted, *uids.RADIOTHERAPY_STORAGE, *_standard_classes()]))[:limit]
    contexts = [copy(_known_context(uid)) for uid in classes]
    for context in contexts:
        context.scu_role, context.scp_role = False, True
    return contexts


def receiver_contexts() -> list[PresentationContext]:
    """Return what a receiver accepts: C-ECHO and every storage class, uncompressed or compressed.

    All classes that pynetdicom knows, and Varian's private ones, which are registered with it first: an
    acceptor of pynetdicom aborts on a class that it has no service for.
    """
    for uid, keyword in _PRIVATE_STORAGE.items():
        if uid_to_service_class(uid) is not StorageServiceClass:
            register_uid(uid, keyword, StorageServiceClass)
    # A copy of each, since the caller may set roles and IDs: to copy is a tenth of what it takes to build.
    return [*verification(), *(copy(context) for context in _received())]


@functools.cache
def _received() -> tuple[PresentationContext, ...]:
    """Return the storage contexts of a receiver, built once per process."""
    syntaxes = [*uids.UNCOMPRESSED_TRANSFER_SYNTAXES, *uids.COMPRESSED_TRANSFER_SYNTAXES]
    classes = dict.fromkeys([*uids.RADIOTHERAPY_STORAGE, *_standard_classes()])
    return tuple(build_context(uid, syntaxes) for uid in classes)


@functools.cache
def _standard_classes() -> tuple[str, ...]:
    """Return all storage classes of the standard: radiotherapy's, the common ones, the others."""
    known = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    # Its list of 120 common ones has retired classes too, which nothing can be done with any more.
    common = {str(context.abstract_syntax) for context in StoragePresentationContexts}
    # Sorting is stable, so the standard's own order stays within each group.
    ranked = sorted(known, key=lambda uid: 0 if uid.startswith(_RADIOTHERAPY_PREFIX) else 1 if uid in common else 2)
    return tuple(ranked)


@functools.lru_cache(maxsize=512)
def _known_context(uid: str) -> PresentationContext:
    """Return a context that is only copied from."""
    return _context(uid)


def _context(uid: str) -> PresentationContext:
    return build_context(uid, list(uids.UNCOMPRESSED_TRANSFER_SYNTAXES))
