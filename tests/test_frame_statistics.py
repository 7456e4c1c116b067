"""Frame statistics: what numpy says of the whole array at once, and which values are no counts."""

import numpy as np
import pytest

from ptychow.frame_statistics import measure_frames
from ptychow.scan import Scan

RNG = np.random.default_rng(11)


def test_statistics_are_numpys():
    """Small batches, all kinds of values, against the whole array at once."""
    frames = RNG.poisson(5.0, (23, 7, 9)).astype(np.float32)
    frames[2, 3, 4] = np.nan
    frames[5, 0, 0] = -2
    scan = Scan(frames=frames, positions=np.zeros((23, 2)), saturation=11.0)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ptychow.scan.PASS_PIXELS", 4 * 63)
        found = measure_frames(scan, seen.append)
    assert sum(seen) == 23 and max(seen) == 4
    assert np.allclose(found.mean, np.nanmean(frames, axis=0))
    assert np.array_equal(found.largest, np.nanmax(frames, axis=0))
    assert np.allclose(found.totals, np.nansum(frames, axis=(1, 2)))
    assert found.smallest_value == -2 and found.largest_value == np.nanmax(frames)
    assert found.at_largest == np.sum(frames == np.nanmax(frames))
    assert (found.not_finite, found.negative, found.saturated) == (1, 1, np.sum(frames >= 11))


@pytest.mark.parametrize(("values", "whole"), [([1.0, np.nan], True), ([1.0, 1.5], False), ([1, 2], True)])
def test_whether_the_values_are_whole_numbers(values, whole):
    frames = np.tile(np.array(values), (3, 4, 1))
    assert measure_frames(Scan(frames=frames, positions=np.zeros((3, 2)))).whole is whole


@pytest.mark.parametrize(
    ("values", "rooted"),
    [(np.sqrt(range(50)), True), (np.arange(50.0), False), (np.arange(50) / 50, False), (np.log1p(range(50)), False)],
)
def test_whether_the_values_are_roots_of_counts(values, rooted):
    frames = np.tile(values.astype(np.float32), (3, 4, 1))
    assert measure_frames(Scan(frames=frames, positions=np.zeros((3, 2)))).rooted is rooted


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.int32, np.float64])
def test_markers_are_no_counts(dtype):
    frames = np.full((4, 6, 6), 7).astype(dtype)
    marker = {"uint16": 65535, "int16": -1, "uint32": 2**32 - 1, "int32": -1}.get(np.dtype(dtype).name)
    if marker is not None:
        frames[:, 2, 3] = marker
    found = measure_frames(Scan(frames=frames, positions=np.zeros((4, 2))))
    assert found.marked == (0 if marker is None else 4)
    assert found.largest_value == found.smallest_value == 7
    assert np.count_nonzero(found.valid == 0) == (0 if marker is None else 1)
    assert found.totals[0] == 7 * (36 if marker is None else 35)
