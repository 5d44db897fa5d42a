"""Random kills of a retrieval, and random habits and faults of the daemon while it runs: seeded, and counted."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from pydicom import dcmread
from robustness.account import as_sent, check_account, check_nothing_is_left, objects_in, plain, read_manifest
from robustness.clinic_side import RETRIEVAL_ID, Site
from robustness.forking import WHENS, Forker
from robustness.small_archive import SmallArchive
from robustness.table import METHODS

from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.faults import Fault

#: What may be wrong for a while; each is set beside others.
_SWITCHES = (
    "partial_move_probability=0.5",
    "empty_move_probability=0.2",
    "extra_move_probability=0.3",
    "short_answer_probability=0.2",
    "move_counters=asked",
    "move_counters=zero",
    "move_counters=absent",
    "pending_responses=off",
    "final_response_lead_seconds=0.05",
)
#: What may strike a transfer; ``{at}`` and ``{service}`` are made up.
_FAULTS = (
    "abort@before-suboperation:at={at}",
    "reset@before-suboperation:at={at}",
    "close@after-suboperation:at={at}",
    "half@after-suboperation:at={at},seconds=0.05",
    "no-status@after-suboperation:at={at}",
    "status@before-suboperation:at={at}",
    "stall@before-suboperation:at={at},seconds=0.3",
    "no-counters@final:service={service}",
    "abort@final:service={service}",
    "status@request:status=0xA701,service={service}",
    "close@object:at={at},bytes=300",
    "reset@object:at={at},bytes=500",
    "unreachable@outgoing",
    "restart@before-suboperation:at={at},seconds=0.2",
)
#: What may strike a list, which ends a run: less often.
_LIST_FAULTS = (
    "abort@row:at={at}",
    "close@final:service=C-FIND",
    "status@request:service=C-FIND",
    "reject@association",
)
_OF_A_LIST = 0.1


@dataclass
class Tally:
    """What a trial took."""

    runs: int = 0
    kills: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class Mischief:
    """Changes habits of a daemon and arms faults, again and again, until it is stopped; a context manager.

    :param daemon: which is changed while it runs.
    :param random: decides about all of it.
    :param pause_seconds: between two changes, at most.
    """

    def __init__(self, place: Site, random: Random, *, pause_seconds: float, objects: int) -> None:
        self._daemon, self._random = place.daemon, random
        self._pause, self._objects = pause_seconds, objects
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Mischief:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._daemon.faults.disarm()
        self._daemon.behaviour = replace(Behaviour(), get=True)

    def _work(self) -> None:
        random = self._random
        while not self._over.wait(random.uniform(0.0, self._pause)):
            switches = random.sample(_SWITCHES, random.randint(0, 3))
            seed = f"chance_seed={random.randint(1, 10**6)}"
            self._daemon.behaviour = replace(Behaviour().with_settings([*switches, seed]), get=True)
            if len(self._daemon.faults.armed) < 3:
                chosen = random.choice(_LIST_FAULTS if random.random() < _OF_A_LIST else _FAULTS)
                text = chosen.format(at=random.randint(1, self._objects), service=random.choice(METHODS))
                self._daemon.faults.arm(Fault.parse(text))


@dataclass
class Trial:
    """One retrieval of many instances, tried until all of it is here.

    :param calls: a process is killed at one of so many of its calls that change a file, whatever the machine's speed;
    :param seconds: or, as often, at any instant within so many seconds.
    :param mischief: seconds between two changes of the daemon, at most.
    :param spared: the share of processes that are not killed.
    """

    forker: Forker
    place: Site
    archive: SmallArchive
    acknowledged: set[str]
    seed: int
    calls: int
    seconds: float
    mischief: float
    spared: float
    tally: Tally = field(default_factory=Tally)
    _seen: dict[Path, int] = field(default_factory=dict)

    def run(self, *, wild_runs: int, calm_runs: int = 3) -> None:
        """Try: wildly at most so many times, until all is here that can be had; then with nothing going wrong."""
        started = time.monotonic()
        random = Random(self.seed)
        objects = max(series.instances for series in self.archive.series)
        for number in range(wild_runs):
            mischief = Mischief(self.place, Random(random.random()), pause_seconds=self.mischief, objects=objects)
            spared = number > 0 and random.random() < self.spared
            # Nothing but a kill happens to the first run, so that there is one.
            with mischief if number else nullcontext():
                answer = self._try(METHODS[number % 2], **({} if spared else self._kill(number, random)))
            if self._is_over(answer):
                break
        if self.archive.failing:
            answer = self._try(random.choice(METHODS))
            assert answer is not None
            assert (answer["outcome"], answer["counts"]["missing"]) == ("partial", len(self.archive.failing))
            self.archive.failing.clear()
        for _ in range(calm_runs):
            if self._is_over(answer):
                break
            answer = self._try(random.choice(METHODS))
        assert self._is_over(answer), answer
        manifest = check_account(self.place.root, RETRIEVAL_ID, self.archive.source)
        assert manifest["outcome"] == "complete"
        assert {each["sop_instance_uid"] for each in manifest["instances"]} == set(self.archive.instance_uids)
        self.tally.seconds = time.monotonic() - started

    def _kill(self, number: int, random: Random) -> dict[str, Any]:
        """Draw when to kill a run."""
        if number % 4 > 1:
            return {"kill_after_seconds": random.uniform(0.0, self.seconds)}
        return {"counts_calls": True, "at": random.randint(1, self.calls), "when": random.choice(WHENS)}

    def check_end(self) -> None:
        """Check that nothing is left, but what came unasked, and what a killed process was writing."""
        check_nothing_is_left(self.place.root, self.place.spool, killed=True, unasked=self.archive.instance_uids)

    def _is_over(self, answer: dict[str, Any] | None) -> bool:
        if answer is None or "outcome" not in answer:
            return False
        counts, failing = answer["counts"], len(self.archive.failing)
        assert counts["missing"] or answer["outcome"] != "partial"
        return bool(counts["verified"] == len(self.archive.instance_uids) - failing)

    def _try(self, method: str, **kill: Any) -> dict[str, Any] | None:
        series = [each.uid for each in self.archive.series]
        waits = {"dimse_timeout": 5.0, "network_timeout": 5.0, "retrieve_deadline": 3600.0}
        answer = self.forker.retrieve(self.place, series, method, connection=waits, **kill)
        self.tally.runs += 1
        self.tally.kills += answer is None
        self._check(answer)
        return answer

    def _check(self, answer: dict[str, Any] | None) -> None:
        """Check the sum after each run, and each file that is new."""
        self._check_new_files()
        # A UID is all that is after the modality in a name.
        held = {path.name.split(".", 1)[1].removesuffix(".dcm") for path in self._seen}
        assert self.acknowledged <= held | self.place.spooled, "what was acknowledged is here"
        manifest = read_manifest(self.place.root, RETRIEVAL_ID)
        if manifest is None:
            assert answer is None, "who was not killed has written an account"
            self.tally.outcomes["none"] += 1
            return
        self.tally.outcomes[manifest["outcome"]] += 1
        instances = manifest["instances"]
        verified = [each for each in instances if each["state"] == "verified"]
        named = [each for each in instances if each["state"] != "verified"]
        assert manifest["counts"]["found"] == len({each["sop_instance_uid"] for each in instances})
        assert len(verified) + len(named) == manifest["counts"]["found"]
        for each in verified:
            assert self.place.root / each["path"] in self._seen, "what is claimed is there"
        if manifest["outcome"] == "pending":
            return
        assert all(each.get("reason") for each in named), "what is not here is named, with a reason"
        assert (manifest["outcome"] == "complete") == (not named)

    def _check_new_files(self) -> None:
        """Compare with the source what was not compared before; a final path is written once."""
        now = {path: path.stat().st_ino for path in objects_in(self.place.root)}
        assert not self._seen.keys() - now.keys(), "what was here is here"
        for path, node in now.items():
            if self._seen.get(path) == node:
                continue
            assert path not in self._seen, f"{path} was replaced"
            held = plain(dcmread(path))
            assert held == as_sent(self.archive.source(str(held.SOPInstanceUID))), path
        self._seen = now
