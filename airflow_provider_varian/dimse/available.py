"""Is the peer there to be asked? A C-ECHO, then a C-FIND that finds nothing (semantics 4).

A daemon answers C-ECHO while its database is down; only a query tells. Unlike :mod:`.check`, which explains, this
raises the error that says whether waiting helps.
"""

from __future__ import annotations

import uuid
from contextlib import closing

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.association import PeerAssociation, associate
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.echo import EchoResult, echo
from airflow_provider_varian.dimse.find import iter_matches
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.turn import TASK, Patience, pause_between


def ensure_available(peer: Peer, *, cancellation: Cancellation | None = None, patience: Patience = TASK) -> EchoResult:
    """Ask for one study that exists nowhere, on one association; return what the C-ECHO before it told.

    :param peer: whom to ask.
    :param cancellation: ends it from outside.
    :param patience: how long to wait until the peer may be called.
    :raises DicomError: when the peer cannot be reached, does not answer, or its database does not.
    """
    model = uids.PATIENT_ROOT_FIND if peer.information_model == "patient_root" else uids.STUDY_ROOT_FIND
    proposed = [*contexts.verification(), *contexts.find(model)]
    with associate(peer, proposed, step="C-FIND", cancellation=cancellation, patience=patience) as association:
        answer = echo(association)
        if patience.waits:
            pause_between(peer, association.cancellation)
        ask_for_nothing(association, model)
        return answer


def ask_for_nothing(association: PeerAssociation, model_uid: str, *, deadline: float | None = None) -> bool:
    """Ask a C-FIND for what exists nowhere: touches the database and lists nobody.

    At the top level of the model, so that a peer without relational queries takes it too: a study in Study
    Root, a patient in Patient Root.

    :param model_uid: SOP class UID of the FIND information model.
    :param deadline: seconds that it may take; ``None``: only silence is bounded.
    :return: whether the peer honoured the key; false when it listed something all the same.
    """
    identifier = Dataset()
    if model_uid == uids.PATIENT_ROOT_FIND:
        identifier.QueryRetrieveLevel = "PATIENT"
        identifier.PatientID = f"NOBODY-{uuid.uuid4().hex}"
    else:
        identifier.QueryRetrieveLevel = "STUDY"
        identifier.PatientID = ""
        identifier.StudyInstanceUID = generate_uid()
    # Closed after the first match: a peer that ignores the key would list the whole clinic.
    with closing(iter_matches(association, model_uid, identifier, deadline=deadline)) as matches:
        return next(matches, None) is None
