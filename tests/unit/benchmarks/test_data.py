"""The objects: the same each time, and of the sizes that are written about."""

from __future__ import annotations

import pytest
from pydicom import dcmread

from benchmarks import arrived, data
from benchmarks.data import Sizes
from benchmarks.load import CopiesLoad, FilesLoad

MAKERS = {
    "plans": (lambda folder: data.rt_plans(folder, 2), 20_000),
    "slices": (lambda folder: data.ct_slices(folder, 2), 525_000),
    "images": (lambda folder: data.rt_images(folder, 2), 3_278_000),
    "dose": (lambda folder: data.rt_dose(folder, 2), 2_098_000),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_objects_are_readable_and_the_same_each_time(tmp_path, kind):
    make, size = MAKERS[kind]
    studies = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        studies.append(make(tmp_path / name))
    one, two = studies
    assert [path.read_bytes() for path in one.files] == [path.read_bytes() for path in two.files]
    assert len({path.read_bytes() for path in one.files}) == len(one.files)
    pixels = [ds.PixelData for ds in map(dcmread, one.files) if "PixelData" in ds]
    assert len(set(pixels)) == len(pixels)
    for path in one.files:
        ds = dcmread(path)
        assert (ds.StudyInstanceUID, ds.SOPClassUID) == (one.uid, one.sop_class_uid)
        if "PixelData" in ds:
            frames = int(ds.get("NumberOfFrames", 1))
            assert len(ds.PixelData) == ds.Rows * ds.Columns * ds.BitsAllocated // 8 * frames
        assert path.stat().st_size == pytest.approx(size, rel=0.1)


def test_less_is_less_of_everything_and_never_nothing():
    assert Sizes().scaled(1) == Sizes()
    small = Sizes().scaled(0.0001)
    assert (small.plans, small.slices, small.dose_frames, small.many) == (1, 1, 1, 2)
    large = Sizes().scaled(2)
    assert (large.plans, large.dose_frames, large.giant_frames) == (600, 60, 960)


def test_a_load_knows_what_should_arrive(tmp_path):
    study = data.rt_plans(tmp_path, 3)
    load = FilesLoad(study.files)
    assert load.digests() == arrived.of_data_sets(load.data_sets())
    assert load.size == sum(len(each) for each in load.data_sets())
    assert arrived.difference(load.digests(), load.digests()) == ""


def test_copies_differ_in_their_uid_alone(tmp_path):
    (file,) = data.rt_plans(tmp_path, 1).files
    load = CopiesLoad(file, 3)
    data_sets = list(load.data_sets())
    assert len(set(data_sets)) == 3
    assert len({len(each) for each in data_sets}) == 1
    assert load.digests().total() == load.count == 3
    assert load.size == 3 * len(data_sets[0])
