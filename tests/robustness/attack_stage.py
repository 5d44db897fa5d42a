"""What an attack is, and what it can do: a row of the table, and the receiver that it is played on."""

from __future__ import annotations

import itertools
import select
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from robustness.attack_receivers import PLAIN, WAYS, Receiver, Small
from support import lying_pdus as wire
from support.attacker import Aborted, Attacker, End, Gone, connected, serve_good_peer

_UID_ROOT = "1.2.826.0.1.3680043.10.1511.77"
_numbers = itertools.count(1)

#: Limits at which an attack that has to be waited out is over soon, and at which nothing ends by waiting.
HASTY = Small()
PATIENT = Small(handshake_seconds=60, association_seconds=60, read_seconds=60)

#: How a receiver ends what breaks the protocol: PS3.8 9.2 has it send an A-ABORT. What it has not read when it closes
#: makes the system send a reset, which may overtake the A-ABORT.
ABORTED = frozenset({"abort"})
CUT = frozenset({"abort", "closed", "reset"})

#: Seconds above a limit in which it has to have struck; far more than a busy machine needs.
GRACE = 8.0


def new_uid() -> str:
    return f"{_UID_ROOT}.{next(_numbers)}"


class Stage:
    """A receiver under attack.

    :param receiver: it runs.
    """

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.limits = receiver.limits
        #: Connections and objects of which the receiver may have something to tell.
        self.occasions = 0

    @contextmanager
    def connected(self, *, plain: bool = False) -> Iterator[Attacker]:
        """Connect as the receiver wants it, or by plain TCP."""
        self.occasions += 1
        with connected(self.receiver.address, tls=None if plain else self.receiver.client_tls) as attacker:
            yield attacker

    @contextmanager
    def associated(self, request: bytes | None = None) -> Iterator[Attacker]:
        """Connect, and have an association accepted; ask again while all places are taken, as of one just aborted."""
        deadline = time.monotonic() + GRACE
        while True:
            with self.connected() as attacker:
                refusal = attacker.associate(request)
                if refusal is None:
                    yield attacker
                    return
            assert refusal.reason == (2, 3, 2), refusal
            assert time.monotonic() < deadline, "no place becomes free"

    @contextmanager
    def many(self, count: int, *, plain: bool = False) -> Iterator[list[Attacker]]:
        """Open so many connections one after the other."""
        with ExitStack() as stack:
            yield [stack.enter_context(self.connected(plain=plain)) for _ in range(count)]

    def good_peer(self) -> float:
        """Fail unless a good peer is served now; return how many seconds it took."""
        uid = new_uid()
        self.occasions += 2
        seconds = serve_good_peer(self.receiver.address, [uid], tls=self.receiver.client_tls)
        self.receiver.acknowledged[uid] = wire.data_set(uid)
        return seconds

    def must_end(self, attacker: Attacker, ends: Iterable[str] = ABORTED, *, within: float = GRACE) -> End:
        """Fail unless the receiver ends the connection, in one of the ways, within so many seconds."""
        attacker.patience = within
        end = attacker.end()
        assert end.how in ends, end
        return end

    def must_refuse(self, attacker: Attacker) -> None:
        """Fail unless what was sent is refused: by the end of the association, or by a failure and life going on."""
        attacker.send(*wire.message(wire.VERIFICATION_CONTEXT, wire.echo_command(999)))
        attacker.patience = GRACE
        try:
            while (answer := attacker.answer()).message != 999:
                assert answer.status not in {0, None}, answer
        except Gone as gone:
            if str(gone) not in CUT:
                raise
            return
        except Aborted:
            return
        assert answer.status == 0
        attacker.release()

    def drip(self, attacker: Attacker, data: Iterable[bytes], *, every: float, limit: float) -> None:
        """Send piece by piece, and fail unless the receiver has had enough before the limit and its grace are over."""
        began = time.monotonic()
        for piece in data:
            if not attacker.send(piece):
                return
            readable, _, _ = select.select([attacker.socket], [], [], every)
            if readable:
                self.must_end(attacker, CUT)
                return
            assert time.monotonic() - began < limit + GRACE, "the receiver still waits"
        raise AssertionError("the attack was over before the receiver had enough")


def is_open(attacker: Attacker) -> bool:
    """Say whether the receiver has not ended a connection on which it has nothing to say."""
    return not select.select([attacker.socket], [], [], 0)[0]


Play = Callable[[Stage], None]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A row of the table.

    :param name: of its own; the test's parameter.
    :param what: what is done, for people.
    :param holds: what must hold beside what holds after each attack, for people.
    :param play: does it, and fails unless that holds.
    :param ways: the ways of running that it is played on.
    :param over: whether it is played over plain TCP, TLS, or both.
    :param limits: of the receiver.
    :param small_disk: its spool lies on a file system of two MiB.
    :param growth_mib: how much more memory the receiver may take meanwhile.
    :param never_logged: what must not be in the log afterwards.
    """

    name: str
    what: str
    holds: str
    play: Play
    ways: tuple[str, ...] = WAYS
    over: tuple[str, ...] = (PLAIN,)
    limits: Small = PATIENT
    small_disk: bool = False
    growth_mib: float = 8.0
    never_logged: tuple[str, ...] = ()


def before(*parts: bytes, ends: Iterable[str] = ABORTED) -> Play:
    """Return the attack that sends these bytes before there is an association."""

    def play(stage: Stage) -> None:
        with stage.connected() as attacker:
            attacker.send(*parts)
            stage.must_end(attacker, ends)

    return play


def after(*parts: bytes, ends: Iterable[str] = ABORTED, answers: tuple[int, ...] = ()) -> Play:
    """Return the attack that sends these bytes on an association.

    :param answers: the statuses of the responses that come before the end.
    """

    def play(stage: Stage) -> None:
        with stage.associated() as attacker:
            attacker.send(*parts)
            assert stage.must_end(attacker, ends).statuses == list(answers)

    return play


def refused(*parts: bytes) -> Play:
    """Return the attack that sends these bytes on an association, which may end or go on."""

    def play(stage: Stage) -> None:
        with stage.associated() as attacker:
            attacker.send(*parts)
            stage.must_refuse(attacker)

    return play


def each(plays: Iterable[Play]) -> Play:
    """Return the attack that plays several, one after the other."""
    listed = tuple(plays)

    def play(stage: Stage) -> None:
        for number, one in enumerate(listed):
            try:
                one(stage)
            except AssertionError as error:
                error.add_note(f"variant {number} of {len(listed)}")
                raise

    return play
