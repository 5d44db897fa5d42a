"""The quick checks behind the Test button: which step of talking to a peer fails, and what to change.

Everything is bounded: a minute at the worst, one association, one C-ECHO, one C-FIND that finds nothing. Quiet hours
are not waited for, since somebody looks on: the report says that they last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts, quiet_hours, reasons
from airflow_provider_varian.dimse.association import PeerAssociation, associate
from airflow_provider_varian.dimse.available import ask_for_nothing
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.echo import echo
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.turn import BY_HAND
from airflow_provider_varian.errors import ContextRejectedError, DicomError

_SECONDS_PER_STEP: Final = 15.0

_MODELS: Final = {
    "study_root": (uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_MOVE, uids.STUDY_ROOT_GET),
    "patient_root": (uids.PATIENT_ROOT_FIND, uids.PATIENT_ROOT_MOVE, uids.PATIENT_ROOT_GET),
}


@dataclass(frozen=True, slots=True)
class CheckStep:
    """One step of the check.

    :param name: e.g. ``"TCP connection"``.
    :param ok: whether it worked.
    :param message: what was seen; for a failure also what to change.
    """

    name: str
    ok: bool
    message: str


@dataclass(slots=True)
class CheckReport:
    """The steps up to the first that failed.

    :param peer: who was checked, as messages name it.
    :param steps: in the order in which they were tried.
    :param notes: sentences about what else to know.
    """

    peer: str
    steps: list[CheckStep] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every step worked."""
        return all(step.ok for step in self.steps)

    @property
    def summary(self) -> str:
        """One or two sentences for a person: the failed step, or what works."""
        failed = next((step for step in self.steps if not step.ok), None)
        if failed is not None:
            said = f"{self.peer}: {failed.name} failed: {failed.message}"
        else:
            said = f"{self.peer} works: " + "; ".join(step.message for step in self.steps)
        return ". ".join([said, *self.notes])


def check(peer: Peer, *, cancellation: Cancellation | None = None) -> CheckReport:
    """Check TCP, TLS, association, accepted contexts, C-ECHO and a bounded, empty C-FIND.

    Never raises for what is wrong with the peer; the report says it.

    :param peer: whom to check; its time-outs count up to 15 s each.
    :param cancellation: ends the check from outside.
    :raises CancelledError: cancelled.
    :raises ConfigurationError: the peer has quiet hours and no time zone.
    """
    cancellation = cancellation or Cancellation()
    short = replace(
        peer,
        **{
            name: min(getattr(peer, name), _SECONDS_PER_STEP)
            for name in ("connect_timeout", "acse_timeout", "dimse_timeout", "network_timeout")
        },
    )
    report = CheckReport(peer.name)
    if (until := quiet_hours.quiet_until(peer)) is not None:
        report.notes.append(quiet_hours.note_of(until))
    if _transport(report, short):
        _dicom(report, short, cancellation)
    cancellation.raise_if_cancelled()
    return report


def _run(report: CheckReport, name: str, step: Callable[[], str]) -> bool:
    try:
        report.steps.append(CheckStep(name, True, step()))
    except DicomError as error:
        report.steps.append(CheckStep(name, False, error.explanation))
        return False
    return True


def _transport(report: CheckReport, peer: Peer) -> bool:
    def tcp() -> str:
        plain = replace(peer, tls=None)
        if (error := reasons.probe(plain)) is not None:
            raise reasons.unreachable(plain, "TCP connection", error)
        return f"port {peer.port} is open"

    def tls() -> str:
        if (error := reasons.probe(peer)) is not None:
            raise reasons.unreachable(peer, "TLS handshake", error)
        return "TLS works"

    return _run(report, "TCP connection", tcp) and (peer.tls is None or _run(report, "TLS handshake", tls))


def _dicom(report: CheckReport, peer: Peer, cancellation: Cancellation) -> None:
    proposed = contexts.verification()
    for find_uid, move_uid, get_uid in _MODELS.values():
        proposed += [*contexts.find(find_uid), *contexts.move(move_uid), *contexts.find(get_uid)]
    try:
        with associate(peer, proposed, step="association", cancellation=cancellation, patience=BY_HAND) as association:
            _run(report, "association", lambda: _describe(association))
            models = _models(peer, association)
            if _run(report, "services", lambda: _services(peer, association, models)) and _run(
                report, "C-ECHO", lambda: _echo(association)
            ):
                _run(report, "C-FIND", lambda: _find(association, models[0]))
    except DicomError as error:
        report.steps.append(CheckStep("association", False, error.explanation))


def _describe(association: PeerAssociation) -> str:
    version = association.negotiated.implementation_version_name
    return f"association accepted{f' by {version}' if version else ''}"


def _models(peer: Peer, association: PeerAssociation) -> list[str]:
    """Return the information models that the connection allows and the peer answers queries in."""
    allowed = _MODELS if peer.information_model == "auto" else {peer.information_model: _MODELS[peer.information_model]}
    return [name for name, (find_uid, _, _) in allowed.items() if association.accepts(find_uid)]


def _services(peer: Peer, association: PeerAssociation, models: list[str]) -> str:
    if not models:
        model = "patient_root" if peer.information_model == "patient_root" else "study_root"
        association.context_for(_MODELS[model][0], step="C-FIND")
    moves = any(association.accepts(_MODELS[name][1]) for name in models)
    gets = any(association.accepts(_MODELS[name][2]) for name in models)
    wanted = {"move": moves, "get": gets, "auto": moves or gets}[peer.retrieve_method]
    if not wanted:
        raise ContextRejectedError(
            f"the peer answers queries, but accepts no {'C-GET' if peer.retrieve_method == 'get' else 'C-MOVE'}",
            peer=peer.name,
            step="association",
            hint="Set retrieve_method to auto, or allow retrieval in the peer's configuration",
        )
    services = [name for name, there in (("C-FIND", True), ("C-MOVE", moves), ("C-GET", gets)) if there]
    return f"{', '.join(services)} accepted ({', '.join(models)})"


def _echo(association: PeerAssociation) -> str:
    return f"C-ECHO answered in {echo(association).seconds * 1000:.0f} ms"


def _find(association: PeerAssociation, model: str) -> str:
    if ask_for_nothing(association, _MODELS[model][0], deadline=_SECONDS_PER_STEP):
        return "C-FIND answers"
    return "C-FIND answers, but lists studies that were not asked for (answers are filtered again here)"
