"""The simulated QA images carry real geometry: pylinac finds in them what the simulator says is there.

pylinac needs an older pydicom than we do, so it has an environment of its own (``make qa``), and one process of it
looks at all the images. The expected values follow from :class:`Truth` and IEC 61217 here, not from the code
that draws.
"""

from __future__ import annotations

import json
import os
import subprocess
from datetime import date
from math import cos, hypot, radians, sin
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from support.simulated import identifier

from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.clinic.linacs import Beam, Exercise
from airflow_provider_varian.simulator.clinic.sessions import Truth
from airflow_provider_varian.simulator.facts import facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic
from airflow_provider_varian.simulator.holdings.tree import Search, walk

#: A first Wednesday of a month: the day has all sessions.
DAY = date(2026, 11, 4)
ROOT = Path(__file__).parents[2]
#: A pixel is 0.22 mm in the isocentre plane, and where a field begins pylinac finds to half a pixel.
HALF_PIXEL_MM = 0.11


@pytest.fixture(scope="module")
def interpreter() -> str:
    path = ROOT / ".venv-qa" / "bin" / "python"
    if path.exists():
        return str(path)
    pytest.skip("pylinac's environment .venv-qa is not there: make qa")


@pytest.fixture(scope="module")
def plans():
    # A clinic whose machines are well off, in each axis.
    clinic = Clinic(seed=6, patients=0, days=1, until=DAY)
    return clinic, {fact.label: fact for fact in facts(clinic) if fact.course == "QA"}


@pytest.fixture(scope="module")
def found(interpreter, plans, tmp_path_factory):
    """Return what pylinac finds, by plan; the four gantry angles of the Winston-Lutz also by themselves."""
    clinic, by_label = plans
    folder = tmp_path_factory.mktemp("images")
    wanted = {}
    for label, fact in by_label.items():
        paths = [str(_file(clinic, image, folder)) for image in fact.images(DAY) if not image.kv]
        wanted[label] = {"exercise": fact.exercise, "paths": paths}
    whole = wanted["WL_10MV"]
    wanted["gantry only"] = {**whole, "paths": whole["paths"][:4]}
    done = subprocess.run(
        [interpreter, str(ROOT / "tests" / "support" / "pylinac_findings.py")],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={"PATH": os.environ["PATH"], "MPLCONFIGDIR": str(folder), "HOME": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _file(clinic: Clinic, image, folder: Path) -> Path:
    (chain,) = walk(clinic, Search(Level.IMAGE, identifier("", SOPInstanceUID=image.sop_instance_uid)))
    dataset = chain[-1].fetch()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / f"{image.sop_instance_uid}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def _field_centre(truth: Truth, gantry: float, collimator: float) -> tuple[float, float]:
    """Where the field's centre is seen in the isocentre plane: x to the right, y up, from the panel's middle."""
    x, y = truth.field_mm
    turn = radians(collimator)
    # Once at gantry 0, twice at 180, so one and a half times in between.
    droop = truth.sag_mm * {0.0: 1.0, 90.0: 1.5, 180.0: 2.0, 270.0: 1.5}[gantry]
    return x * cos(turn) - y * sin(turn), x * sin(turn) + y * cos(turn) + droop


def _ball(truth: Truth, beam: Beam) -> tuple[float, float]:
    """Where the ball is seen: the couch turns it about z, and the source looks along the gantry angle."""
    x, y, z = truth.ball_mm
    couch, gantry = radians(beam.couch), radians(beam.gantry)
    x, y = x * cos(couch) - y * sin(couch), x * sin(couch) + y * cos(couch)
    return x * cos(gantry) - z * sin(gantry), y


def test_winston_lutz_finds_the_ball_where_it_lay(plans, found):
    _, by_label = plans
    truth = by_label["WL_10MV"].truth(DAY)
    assert min(map(abs, truth.ball_mm)) > 0.2, "a ball at the isocentre would prove nothing"
    # With and without the images at other collimator and couch angles.
    assert found["WL_10MV"]["ball"] == pytest.approx(truth.ball_mm, abs=0.03)
    assert found["gantry only"]["ball"] == pytest.approx(truth.ball_mm, abs=0.03)


def test_winston_lutz_shifts_the_ball_to_where_the_beams_meet(plans, found):
    _, by_label = plans
    truth = by_label["WL_10MV"].truth(DAY)
    x, y, z = truth.ball_mm
    # The beams of all gantry angles meet at x = z = 0, for the field's offset turns with the gantry; in y they
    # droop differently, and their mean counts. Other collimator angles would turn the offset, so they are left out.
    meeting = truth.field_mm[1] + 1.5 * truth.sag_mm
    assert found["gantry only"]["shift"] == pytest.approx([-x, meeting - y, -z], abs=0.06)


def test_winston_lutz_sees_each_image_as_it_was_made(plans, found):
    _, by_label = plans
    plan = by_label["WL_10MV"]
    truth, images = plan.truth(DAY), found["WL_10MV"]["images"]
    assert len(images) == 8
    for beam in plan.place.plan.beams:
        field, ball = _field_centre(truth, beam.gantry, beam.collimator), _ball(truth, beam)
        seen = images[beam.name]
        expected = (ball[0] - field[0], -(ball[1] - field[1]))  # pylinac counts y downwards here
        assert seen["vector"] == pytest.approx(expected, abs=HALF_PIXEL_MM), beam.name
        assert seen["distance"] == pytest.approx(hypot(*expected), abs=HALF_PIXEL_MM), beam.name


@pytest.mark.parametrize("label", ["PF_6MV", "DailyQA_PF_6FFF"])
def test_picket_fence_finds_the_error_of_each_leaf_and_the_one_that_lags(plans, found, label):
    _, by_label = plans
    truth = by_label[label].truth(DAY)
    seen = found[label]
    # The strips are 200 mm long, so 40 of 60 pairs are seen. pylinac fits a straight line to each strip.
    leaves = np.arange(11, 51)
    errors = np.array(truth.leaf_error_mm[10:50])
    left = errors - np.polyval(np.polyfit(leaves, errors, 1), leaves)
    assert [seen["errors"][str(leaf)] for leaf in leaves] == pytest.approx(left, abs=0.02)
    lagging = int(leaves[np.argmax(errors)])
    assert truth.leaf_error_mm[lagging - 1] > 0.2
    assert seen["worst leaf"] == lagging
    assert seen["failed"] == [lagging]
    assert seen["errors"][str(lagging)] == pytest.approx(float(errors.max() - errors.mean()), abs=0.05)


@pytest.mark.parametrize("label", ["PF_6MV", "DailyQA_PF_6FFF"])
def test_picket_fence_finds_the_strips_and_the_offset_of_the_fence(plans, found, label):
    _, by_label = plans
    truth = by_label[label].truth(DAY)
    shift = truth.field_mm[0] + float(np.mean(truth.leaf_error_mm[10:50]))
    # pylinac counts to the left.
    expected = [-shift - (index - 4.5) * 15.0 for index in range(10)]
    assert found[label]["offsets"] == pytest.approx(expected, abs=0.02)
    assert found[label]["spacing"] == pytest.approx(15.0, abs=0.01)


@pytest.mark.parametrize("label", ["OPEN_6MV", "OPEN_6FFF", "PDOSE_6FFF"])
def test_field_analysis_finds_the_size_and_the_offset_of_the_field(plans, found, label):
    _, by_label = plans
    truth = by_label[label].truth(DAY)
    assert found[label]["size"] == pytest.approx([150.0, 150.0], abs=0.2)
    assert found[label]["centre"] == pytest.approx(_field_centre(truth, 0.0, 0.0), abs=HALF_PIXEL_MM)


@pytest.mark.parametrize(
    ("label", "exercise", "strips"),
    [("T2_DRGS", Exercise.DOSE_RATE_GANTRY_SPEED, 7), ("T3_MLCS", Exercise.DOSE_RATE_LEAF_SPEED, 4)],
)
def test_vmat_finds_the_deviation_of_each_strip(plans, found, label, exercise, strips):
    _, by_label = plans
    plan, seen = by_label[label], found[label]
    truth = plan.truth(DAY)
    assert plan.exercise is exercise
    assert seen["open"].endswith(f"{plan.images(DAY)[0].sop_instance_uid}.dcm")
    assert len(truth.strip_deviation_percent) == strips
    assert max(map(abs, truth.strip_deviation_percent)) > 0.5
    assert seen["positions"] == list(plan.place.plan.strips_mm), "pylinac looks where the plan has them"
    assert seen["deviations"] == pytest.approx(truth.strip_deviation_percent, abs=0.1)
    # Only noise is left inside a strip: it lies wholly in the middle of what pylinac looks at.
    assert max(seen["spread"]) < 1.0
