"""Many instances under random kills, habits and faults: found = verified + named after each run, and all at the end."""

from __future__ import annotations

import os
from typing import Any

import pytest
from robustness.chaos import Trial
from robustness.clinic_side import acknowledged, site
from robustness.forking import Forker
from robustness.small_archive import SmallArchive, SmallSeries


def try_it(folder, *, series: int, instances: int, runs: int, failing: int = 0, **how: Any) -> Trial:
    archive = SmallArchive(tuple(SmallSeries(1, number, "RTIMAGE", instances) for number in range(1, series + 1)))
    archive.failing.update(archive.instance_uids[:failing])
    forker = Forker()
    try:
        with acknowledged() as heard, site(folder, archive) as place:
            trial = Trial(forker, place, archive, heard, **how)
            trial.run(wild_runs=runs)
            trial.check_end()
            counts, tally = place.daemon.counts, trial.tally
            print(
                f"seed {trial.seed}: {series * instances} instances, {tally.runs} runs, {tally.kills} killed, "
                f"{counts['faults']} faults struck, {counts['C-FIND']} C-FIND, {counts['C-GET']} C-GET, "
                f"{counts['C-MOVE']} C-MOVE, {counts['sub-operations']} objects sent, "
                f"manifests {dict(tally.outcomes)}, {tally.seconds:.0f} s"
            )
            return trial
    finally:
        forker.stop()


@pytest.mark.timeout(400)
def test_some_instances_under_random_kills_and_faults(tmp_path):
    trial = try_it(
        tmp_path, series=8, instances=25, seed=1, calls=2500, seconds=4.0, mischief=0.3, spared=0.4, runs=6, failing=3
    )
    assert trial.tally.kills


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_instances_under_random_kills_and_faults(tmp_path):
    seed = int(os.environ.get("CHAOS_SEED", "1"))
    trial = try_it(
        tmp_path,
        series=50,
        instances=200,
        seed=seed,
        calls=40_000,
        seconds=60.0,
        mischief=4.0,
        spared=0.05,
        runs=60,
    )
    assert trial.tally.kills > 5
