"""The table of reliability, as data: what goes wrong, how the simulator shows it, and what the manifest says then.

Each row is run against a real simulated daemon by ``test_reliability_of_quirks.py`` and
``test_reliability_of_faults.py``, and is printed in ``docs/reliability.md``. Nothing of the tests' own is imported
here, for the pages are built without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from airflow_provider_varian.simulator.daemon.faults import FAULT_KINDS, Fault, Kind, Step

METHODS: Final = ("C-GET", "C-MOVE")
#: Instances of the series that is retrieved, unless a row says otherwise.
INSTANCES: Final = 5


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a run leaves in the manifest.

    :param outcome: of the manifest.
    :param found: how many instances it is about.
    :param missing: how many of them it names as missing.
    :param found_late: how many were listed only when the list was asked for again after the transfer.
    :param errors: class of the error that is raised, so that a task fails or is tried again; one of several; none.
    :param narrower: what did not come was asked for more narrowly, which the manifest tells; ``None``: where something
        did not, for the daemon may be faster than our abort.
    :param says: words that stand in the manifest.
    :param flagged: flags of instances, by name: ``duplicate``, ``unexpected``.
    """

    outcome: str
    found: int = INSTANCES
    missing: int = 0
    found_late: int = 0
    errors: tuple[str, ...] = ()
    narrower: bool | None = False
    says: str = ""
    flagged: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Tell it as a cell of the page."""
        parts = [self.brief]
        if self.narrower is not False:
            parts.append(f"what did {'not come' if self.narrower else 'not come by then'} was asked for one by one")
        if self.found_late:
            parts.append(f"{self.found_late} of them in the re-check")
        parts += [f"flagged `{flag}`" for flag in self.flagged]
        if self.says:
            parts.append(f"“{self.says}”")
        if self.errors:
            parts.append("raises " + " or ".join(f"`{each}`" for each in self.errors))
        return ", ".join(parts)

    @property
    def brief(self) -> str:
        """The outcome, and what is missing."""
        if self.missing:
            return f"`{self.outcome}`, {self.missing} of {self.found} missing, named"
        # A list that broke off says nothing of what there is.
        return f"`{self.outcome}`, {self.found} found" if self.found else f"`{self.outcome}`"


#: Of a run, and of the retry.
Runs = tuple[Told, Told]

COMPLETE: Final = Told(outcome="complete")
NARROWER: Final = Told(outcome="complete", narrower=True)
#: The retry has the fallbacks of the first run in its manifest.
RECOVERED: Final = (NARROWER, NARROWER)
_MAYBE_NARROWER: Final = (Told(outcome="complete", narrower=None),) * 2
WELL: Final = (COMPLETE, COMPLETE)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing that goes wrong.

    :param name: of the row, and of its test.
    :param what: in words.
    :param quirk: number in section 4 of the notes on the daemon; ``None`` for a fault.
    :param switches: of the daemon, ``NAME=VALUE`` as ``simulate --quirk`` takes them.
    :param faults: as ``simulate --fault`` takes them; ``SERVICE`` stands for the method.
    :param scene: what is retrieved: ``series``, ``images``, ``study``, or an irregularity of the synthetic clinic.
    :param connection: settings of the connection that matter here.
    :param waiting: arguments of the retrieval that matter here.
    :param trust: the trusted entry of our receiver, as ``simulate --trust`` takes it; empty for the right one.
    :param ticks: the daemon's clock counts its C-FINDs, so that what comes in time comes the same each time.
    :param after: what becomes of it before the retry: it ``stays``, ``is over``, or is ``put right``.
    :param runs: by method, what a run leaves, and what a retry does.
    :param seldom: methods by which ``make test-slow`` alone runs it, since what strikes is the same by the other one.
    """

    name: str
    what: str
    runs: Mapping[str, Runs]
    quirk: int | None = None
    switches: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    scene: str = "series"
    connection: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    waiting: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    trust: str = ""
    ticks: bool = False
    after: str = "stays"
    seldom: tuple[str, ...] = ()

    def faults_of(self, method: str) -> list[Fault]:
        """Return the faults to arm."""
        return [Fault.parse(text.replace("SERVICE", method)) for text in self.faults]


def _both(*runs: Told) -> dict[str, Runs]:
    return dict.fromkeys(METHODS, (runs[0], runs[-1]))


def _by(*, get: Runs = WELL, move: Runs) -> dict[str, Runs]:
    return {"C-GET": get, "C-MOVE": move}


_NOTHING_CAME: Final = Told(outcome="partial", missing=5, narrower=True, says="asked for twice, never came")
_LATE_ALL_THE_TIME: Final = "each of the 3 lists after the transfer named new instances; there may be more"

QUIRK_ROWS: Final = (
    Row(
        name="too-broad",
        quirk=5,
        what="the list has more rows than the daemon gives, and ends in 0xC001 without any",
        switches=("row_limit=3",),
        after="put right",
        runs=_both(Told(outcome="pending", found=0, errors=("CroppedAnswerError",)), COMPLETE),
    ),
    Row(
        name="list-grows",
        quirk=10,
        what="five images are still being taken while they are listed",
        switches=("acquisition_seconds=2",),
        ticks=True,
        runs=_both(Told(outcome="complete", found_late=4), COMPLETE),
    ),
    Row(
        name="list-grows-for-long",
        quirk=10,
        what="five images are still being taken, for longer than the list is asked for again",
        switches=("acquisition_seconds=4",),
        ticks=True,
        after="is over",
        runs=_both(Told(outcome="complete", found=4, found_late=3, says=_LATE_ALL_THE_TIME), COMPLETE),
    ),
    Row(
        name="list-wobbles",
        quirk=10,
        what="now and then a list leaves out its last rows",
        switches=("short_answer_probability=0.5", "chance_seed=1"),
        waiting={"stable_counts": 3},
        runs=_both(COMPLETE),
    ),
    Row(
        name="list-short-at-first",
        quirk=10,
        what="the first list leaves out its last rows",
        switches=("short_answer_probability=0.5", "chance_seed=1"),
        runs=_both(Told(outcome="complete", found_late=1), COMPLETE),
    ),
    Row(
        name="list-short-each-time",
        quirk=10,
        what="each list leaves out its last rows; what it leaves out comes with the series",
        switches=("short_answer_probability=1", "chance_seed=2"),
        after="is over",
        runs=_both(
            Told(
                outcome="complete",
                found=3,
                flagged=("unexpected",),
                says="instances came that the peer does not list, so its list may leave out others",
            ),
            COMPLETE,
        ),
    ),
    Row(
        name="part-of-a-series",
        quirk=11,
        what="C-MOVE sends a random part of a series and ends in 0x0000",
        switches=("partial_move_probability=1",),
        runs=_by(move=RECOVERED),
    ),
    *(
        Row(
            name=f"part-of-a-series-counters-{counters}",
            quirk=11,
            what=f"C-MOVE sends a random part of a series and ends in 0x0000; its counters: {words}",
            switches=("partial_move_probability=1", f"move_counters={counters}"),
            runs=_by(move=RECOVERED),
        )
        for counters, words in (("asked", "as if all had come"), ("zero", "all 0"), ("absent", "not there"))
    ),
    *(
        Row(
            name=f"all-comes-counters-{counters}",
            quirk=11,
            what=f"C-MOVE sends all there is; its counters: {words}",
            switches=(f"move_counters={counters}",),
            runs=_both(COMPLETE),
        )
        for counters, words in (("zero", "all 0"), ("absent", "not there"))
    ),
    Row(
        name="nothing-comes-now-and-then",
        quirk=11,
        what="every other C-MOVE or so sends nothing and ends in 0x0000",
        switches=("empty_move_probability=0.5", "chance_seed=2"),
        runs=_by(
            move=(Told(outcome="partial", missing=1, narrower=True, says="asked for 3 times, never came"), NARROWER)
        ),
    ),
    Row(
        name="nothing-comes",
        quirk=11,
        what="C-MOVE sends nothing and ends in 0x0000, each time",
        switches=("empty_move_probability=1",),
        runs=_by(move=(_NOTHING_CAME, Told(outcome="partial", missing=5, narrower=True, says="never came"))),
    ),
    Row(
        name="nothing-comes-but-is-counted",
        quirk=11,
        what="C-MOVE sends nothing, ends in 0x0000, and its counters say that all came",
        switches=("empty_move_probability=1", "move_counters=asked"),
        after="is over",
        runs=_by(move=(_NOTHING_CAME, NARROWER)),
    ),
    Row(
        name="more-comes",
        quirk=11,
        what="C-MOVE sends one more of the patient than was asked for",
        switches=("extra_move_probability=1",),
        scene="one-series-of-two",
        # The account keeps what came unasked, for a person to look at; it lies in the spool.
        runs=_by(move=(Told(outcome="complete", flagged=("unexpected",)),) * 2),
    ),
    Row(
        name="plan-without-beams",
        quirk=12,
        what="a plan without beams is listed, and its export fails",
        switches=("irregularities=plan-without-beams",),
        scene="plan-without-beams",
        runs=_both(Told(outcome="partial", found=2, missing=1, narrower=True, says="the peer names it as failed")),
    ),
    Row(
        name="series-not-movable",
        quirk=12,
        what="a series is listed, and a retrieve of it ends in 0xC001",
        switches=("irregularities=series-not-movable",),
        scene="series-not-movable",
        runs=_both(Told(outcome="partial", found=6, missing=5, narrower=True, says="0xC001")),
    ),
    Row(
        name="series-not-movable-success",
        quirk=12,
        what="a series is listed, and a retrieve of it brings nothing and ends in 0x0000",
        switches=("irregularities=series-not-movable", "not_found_status=0x0000"),
        scene="series-not-movable",
        runs=_both(Told(outcome="partial", found=6, missing=5, narrower=True, says="never came")),
    ),
    Row(
        name="empty-series",
        quirk=12,
        what="a series without an instance is asked for beside another",
        switches=("irregularities=empty-series",),
        scene="empty-series",
        runs=_both(Told(outcome="complete", found=1)),
    ),
    Row(
        name="object-after-the-end",
        quirk=13,
        what="the final response comes before the last object",
        switches=("final_response_lead_seconds=0.3",),
        waiting={"settle_seconds": 20.0},
        runs=_both(COMPLETE),
    ),
    Row(
        name="object-long-after-the-end",
        quirk=13,
        what="the final response comes before the last object, by more than `settle_seconds`",
        switches=("final_response_lead_seconds=60",),
        after="is over",
        runs=_by(move=(Told(outcome="partial", missing=1, narrower=True, says="1 completed"), NARROWER)),
    ),
    Row(
        name="late-images",
        quirk=14,
        what="two of five images reach a series while it is being retrieved",
        switches=("late_images=2", "late_images_seconds=1"),
        ticks=True,
        runs=_both(Told(outcome="complete", found_late=2), COMPLETE),
    ),
    Row(
        name="later-images",
        quirk=14,
        what="two of five images reach a series after it was retrieved",
        switches=("late_images=2", "late_images_seconds=2"),
        ticks=True,
        runs=_both(Told(outcome="complete", found=3), COMPLETE),
    ),
    Row(
        name="other-keys-count",
        quirk=15,
        what="other keys than unique ones are not ignored in a retrieve; we send none",
        switches=("move_unique_keys_only=off",),
        runs=_both(COMPLETE),
    ),
    Row(
        name="twice-with-other-bytes",
        quirk=16,
        what="an object comes twice, each time with another time of export",
        switches=("creation_at_export=on", "extra_move_probability=1"),
        scene="images",
        runs=_by(
            get=(Told(outcome="complete", found=3), Told(outcome="complete", found=3)),
            move=(
                Told(outcome="complete", found=3, flagged=("duplicate",)),
                Told(outcome="complete", found=3),
            ),
        ),
    ),
    Row(
        name="other-sender",
        quirk=17,
        what="objects come under another calling AE title than the daemon's",
        switches=("store_calling_ae_title=SOMEBODY",),
        runs=_both(COMPLETE),
    ),
    Row(
        name="unknown-destination",
        quirk=18,
        what="the move destination is not trusted",
        connection={"move_destination": "NOBODY"},
        after="put right",
        runs={
            "C-MOVE": (
                Told(outcome="partial", missing=5, errors=("UnknownMoveDestinationError",), says="0xA801"),
                COMPLETE,
            )
        },
    ),
    Row(
        name="receiver-not-reached",
        quirk=18,
        what="the trusted entry has the wrong port: the daemon never reaches the receiver",
        trust="AIRFLOW@127.0.0.1:1",
        after="put right",
        runs={"C-MOVE": (Told(outcome="partial", missing=5, errors=("OutOfResourcesError",), says="0xA702"), COMPLETE)},
    ),
    Row(
        name="many-plans",
        quirk=19,
        what="a STUDY move of a patient with many plans ends in 0xC000",
        switches=("move_exception_plan_series=2",),
        scene="study",
        runs=_by(
            get=(Told(outcome="complete", found=3), Told(outcome="complete", found=3)),
            move=(
                Told(outcome="complete", found=3, narrower=True),
                Told(outcome="complete", found=3, narrower=True),
            ),
        ),
    ),
    Row(
        name="restarting",
        quirk=20,
        what="the daemon is restarting",
        switches=("restart_seconds=60",),
        after="is over",
        runs=_both(Told(outcome="pending", found=0, errors=("AssociationAbortedError",)), COMPLETE),
    ),
    Row(
        name="transaction-too-long",
        quirk=20,
        what="the daemon aborts what takes it longer than a transaction may",
        switches=("transaction_seconds=2",),
        faults=("stall@before-suboperation:at=3,seconds=60",),
        runs=_both(NARROWER),
    ),
    Row(
        name="private-class",
        quirk=22,
        what="plans of the private class for Halcyon",
        switches=("irregularities=halcyon-plan-class",),
        scene="halcyon-plan-class",
        runs=_both(Told(outcome="complete", found=1)),
    ),
    Row(
        name="leading-zero",
        quirk=24,
        what="UIDs with a leading zero in a component",
        switches=("irregularities=leading-zero-uid",),
        scene="leading-zero-uid",
        runs=_both(Told(outcome="complete", found=2)),
    ),
    Row(
        name="silent-until-the-end",
        what="no pending responses",
        switches=("pending_responses=off",),
        runs=_both(COMPLETE),
    ),
)

#: Where a fault can strike a retrieval: a name, the step, its settings, in words, and how many objects were sent then.
_PLACES: Final = (
    ("list-connect", Step.CONNECT, "", "the connection for the list", 0),
    ("list-association", Step.ASSOCIATION, "", "the association for the list", 0),
    ("list-request", Step.REQUEST, "service=C-FIND", "the request for the list", 0),
    ("list-row", Step.ROW, "service=C-FIND,at=3", "the third row of the list", 0),
    ("list-final", Step.FINAL, "service=C-FIND", "the end of the list", 0),
    ("connect", Step.CONNECT, "at=2", "the connection for the transfer", 0),
    ("association", Step.ASSOCIATION, "at=2", "the association for the transfer", 0),
    ("request", Step.REQUEST, "service=SERVICE", "the request", 0),
    ("before-suboperation", Step.BEFORE_SUBOPERATION, "at=3", "before the third object", 2),
    ("after-suboperation", Step.AFTER_SUBOPERATION, "at=3", "after the third object", 3),
    ("final", Step.FINAL, "service=SERVICE", "the final response", 5),
    ("outgoing", Step.OUTGOING, "", "the association to our receiver", 0),
    ("object", Step.OBJECT, "at=3", "within the third object", 2),
    ("again", Step.REQUEST, "service=C-FIND,at=2", "the list after the transfer", 5),
)
_SETTINGS: Final = {
    Kind.STALL: "seconds=60",
    Kind.SLOW: "seconds=0.1",
    Kind.HALF: "seconds=0.1",
    Kind.RESTART: "seconds=60",
}
_MEANS: Final = {
    Kind.ABORT: "A-ABORT",
    Kind.RESET: "the connection is reset",
    Kind.CLOSE: "the connection is closed",
    Kind.STALL: "silence for longer than we wait",
    Kind.SLOW: "each response comes late, but comes",
    Kind.HALF: "half a response, then the end",
    Kind.REJECT: "the association is rejected for now",
    Kind.STATUS: "the request ends in 0xA700",
    Kind.NO_STATUS: "a response without a status",
    Kind.NO_COUNTERS: "a final response without counters",
    Kind.UNREACHABLE: "the daemon does not reach our receiver",
    Kind.RESTART: "the daemon restarts",
}
_ABORTED: Final = ("AssociationAbortedError",)
#: What is raised when nothing could be had because of it.
_ERRORS: Final = {
    Kind.ABORT: _ABORTED,
    Kind.RESET: _ABORTED,
    Kind.CLOSE: _ABORTED,
    Kind.HALF: _ABORTED,
    Kind.NO_STATUS: _ABORTED,
    Kind.RESTART: _ABORTED,
    Kind.STALL: ("PeerTimeoutError",),
    Kind.REJECT: ("TransientRejectionError",),
    Kind.STATUS: ("OutOfResourcesError",),
    Kind.UNREACHABLE: ("OutOfResourcesError",),
}
_NO_RECHECK: Final = "the list could not be asked for again after the transfer"


def _runs_of(kind: Kind, place: str, sent: int) -> Runs:
    """Return what a fault leaves that strikes once: what it hides is asked for again, in this run or in the retry."""
    if kind in (Kind.SLOW, Kind.NO_COUNTERS):
        return WELL
    # A reset that overtakes the answer to a connection looks like a daemon that is not there.
    errors = (*_ERRORS[kind], "PeerUnreachableError") if place.endswith("connect") else _ERRORS[kind]
    if place.startswith("list"):
        return Told(outcome="pending", found=0, errors=errors), COMPLETE
    if place == "again" or (place == "final" and kind is Kind.RESTART):
        return Told(outcome="complete", says=_NO_RECHECK), COMPLETE
    if place in ("connect", "association") or kind is Kind.UNREACHABLE:
        return Told(outcome="partial", missing=INSTANCES, errors=errors), COMPLETE
    if place == "final":
        return WELL
    if kind is Kind.RESTART:
        lost = INSTANCES - sent
        return Told(outcome="partial", missing=lost, narrower=True, errors=errors if not sent else ()), NARROWER
    return _MAYBE_NARROWER if kind is Kind.NO_STATUS else RECOVERED


def _fault_rows() -> Iterator[Row]:
    for row, fault in enumerate(FAULT_KINDS):
        for column, (place, step, where, words, sent) in enumerate(_PLACES):
            kind = fault.kind
            if step not in fault.steps or (kind is Kind.NO_COUNTERS and place.startswith("list")):
                continue
            settings = [where, _SETTINGS.get(kind, "")]
            if place == "object" and "bytes" in fault.settings:
                # The end of the first PDU is that of the command set: an abort waits for it.
                settings.append("bytes=1" if kind is Kind.ABORT else "bytes=300")
            text = ",".join(part for part in settings if part)
            methods = ("C-MOVE",) if step in (Step.OUTGOING, Step.OBJECT) else METHODS
            # The list is asked for before the method matters.
            methods = methods[:1] if place.startswith("list") else methods
            yield Row(
                name=f"{kind}-{place}",
                what=f"{_MEANS[kind]}: {words}",
                faults=(f"{kind}@{step}" + (f":{text}" if text else ""),),
                connection={"dimse_timeout": 2.0, "network_timeout": 2.0, "acse_timeout": 2.0}
                if kind is Kind.STALL
                else {},
                after="is over",
                runs=dict.fromkeys(methods, _runs_of(kind, place, sent)),
                # As on a chess board, so that each kind and each place meets both methods.
                seldom=(METHODS[(row + column) % 2],) if methods == METHODS else (),
            )


def _lasting(name: str, what: str, fault: str, error: str, methods: tuple[str, ...] = METHODS, **told: Any) -> Row:
    """Return a row of a fault that strikes each time, until the retry."""
    first = Told(outcome="partial", missing=INSTANCES, errors=(error,), **told)
    return Row(
        name=name,
        what=what,
        faults=(fault,),
        after="is over",
        runs=dict.fromkeys(methods, (first, NARROWER if first.narrower else COMPLETE)),
    )


FAULT_ROWS: Final = (
    *_fault_rows(),
    _lasting(
        "abort-each-time",
        "A-ABORT before the first object, each time",
        "abort@before-suboperation:times=0",
        "AssociationAbortedError",
        narrower=True,
    ),
    _lasting(
        "status-each-time",
        "each request ends in 0xA700",
        "status@request:service=SERVICE,times=0",
        "OutOfResourcesError",
        narrower=True,
    ),
    _lasting(
        "reject-each-time",
        "each association after the list is rejected for now",
        "reject@association:at=2,times=0",
        "TransientRejectionError",
    ),
    _lasting(
        "unreachable-each-time",
        "the daemon never reaches our receiver",
        "unreachable@outgoing:times=0",
        "OutOfResourcesError",
        ("C-MOVE",),
        says="0xA702",
    ),
    Row(
        name="object-breaks-each-time",
        what="the third object of each C-MOVE breaks off in its midst",
        faults=("close@object:at=3,bytes=300,times=0",),
        runs={"C-MOVE": RECOVERED},
    ),
    Row(
        name="each-object-breaks",
        what="each object breaks off in its midst",
        faults=("close@object:at=1,bytes=300,times=0",),
        after="is over",
        runs={
            "C-MOVE": (
                Told(
                    outcome="partial",
                    missing=INSTANCES,
                    narrower=True,
                    errors=("OutOfResourcesError",),
                    says="asked for twice",
                ),
                NARROWER,
            )
        },
    ),
    Row(
        name="no-counters-each-time",
        what="no final response has counters",
        faults=("no-counters@final:times=0",),
        runs=_both(COMPLETE),
    ),
)
ROWS: Final = (*QUIRK_ROWS, *FAULT_ROWS)
