import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptychow.bad_pixels import Filling, find_bad_pixels
from ptychow.datasets import locate
from ptychow.errors import InputError
from ptychow.formats import read_scan


def annulus(counts, size=64):
    """Mean frame of a zone-plate beam: a bright ring, a little light elsewhere; sums to `counts`."""
    y, x = np.mgrid[:size, :size] - size // 2
    radius = np.hypot(y, x) / size
    mean = 0.01 + 1 / (1 + np.exp(-(radius - 0.22) * size)) / (1 + np.exp((radius - 0.4) * size))
    return mean * counts / mean.sum()


def measure(mean, frames, seed=0):
    measured = np.random.default_rng(seed).poisson(mean, (frames, *mean.shape))
    return measured.mean(axis=0), measured.max(axis=0)


@pytest.mark.parametrize("counts", [30, 1e3, 1e5, 1e7])
@pytest.mark.parametrize("seed", range(3))
def test_an_honest_detector_has_no_bad_pixels_however_few_the_counts(counts, seed):
    mean, largest = measure(annulus(counts), 50, seed)
    mask, reasons = find_bad_pixels(mean, largest, frames=50)
    assert mask.all() and not any(pixels.any() for pixels in reasons.values())


def test_each_rule_finds_its_pixels_and_no_others():
    mean, largest = measure(annulus(1e6), 50)
    planted = {"dead": [(10, 40), (32, 10), (33, 10)], "dim": [(50, 20)], "hot": [(32, 60), (3, 3)]}
    for r, c in planted["dead"]:
        mean[r, c] = largest[r, c] = 0
    mean[50, 20] *= 0.2
    mean[32, 60] *= 50
    largest[3, 3] = 10_000
    mask, reasons = find_bad_pixels(mean, largest, frames=50)
    for name, pixels in planted.items():
        assert sorted(map(tuple, np.argwhere(reasons[name]))) == sorted(pixels)
    assert (~mask).sum() == 6


@pytest.mark.parametrize("counts", [1e4, 1e7])
@pytest.mark.parametrize(
    "block", [np.s_[40:44, 10:20], np.s_[48:50, 20:44], np.s_[10:15, 30], np.s_[12:24, 12:24]], ids=str
)
def test_a_block_of_dead_pixels_is_found_whole_and_nothing_else(block, counts):
    mean = annulus(counts) + 1
    mean[block] = 0
    mean, largest = measure(mean, 50)
    _, reasons = find_bad_pixels(mean, largest, frames=50)
    expected = np.zeros((64, 64), bool)
    expected[block] = True
    np.testing.assert_array_equal(reasons["dead"], expected)
    assert not reasons["dim"].any() and not reasons["hot"].any()


@pytest.mark.parametrize("counts", [1e2, 1e3, 1e4])
def test_the_dark_outside_and_the_dark_middle_of_a_pattern_are_good(counts):
    """An annulus, and no light anywhere else."""
    y, x = np.mgrid[:64, :64] - 32
    radius = np.hypot(y, x) / 64
    ring = 1 / (1 + np.exp((0.2 - radius) * 100)) / (1 + np.exp((radius - 0.4) * 100))
    for seed in range(5):
        mean, largest = measure(ring * counts / ring.sum(), 50, seed)
        assert find_bad_pixels(mean, largest, frames=50)[0].all()


def test_zeros_around_a_lit_frame_are_good():
    mean = np.pad(np.full((32, 32), 10.0), 16)
    assert find_bad_pixels(mean, frames=50)[0].all()


def test_a_dead_pixel_is_only_certain_where_light_is_expected():
    mean = np.full((32, 32), 1.0)
    mean[5, 5] = 0
    assert find_bad_pixels(mean, frames=20)[0].all()
    assert not find_bad_pixels(mean, frames=21)[0].all()


def test_rows_between_the_modules_of_a_detector_are_a_gap_and_dark_borders_are_not():
    mean = annulus(1e6)
    mean[30:34] = 0
    mean[:, 40] = 0
    mean[:3] = mean[-2:] = 0
    _, reasons = find_bad_pixels(mean, frames=50)
    expected = np.zeros((64, 64), bool)
    expected[30:34] = True
    expected[:, 40] = True
    np.testing.assert_array_equal(reasons["gap"], expected)
    assert not reasons["dead"].any()


@pytest.mark.parametrize(("counts", "certain"), [(5, False), (20, False), (21, True)])
def test_a_row_that_counts_nothing_by_chance_is_no_gap(counts, certain):
    """A row between rows that count `counts` times in all is empty with a chance of exp(-counts)."""
    mean = np.zeros((32, 32))
    mean[10:22, 16] = mean[10:22, 15] = counts / 2 / 20
    mean[15] = 0
    _, reasons = find_bad_pixels(mean, frames=20)
    assert reasons["gap"][15].all() == certain and reasons["gap"].sum() == 32 * certain


@pytest.mark.parametrize("seed", range(20))
def test_sparse_frames_have_no_gaps(seed):
    measured = np.random.default_rng(seed).poisson(0.004, (10, 32, 32))
    assert (measured.sum(axis=(0, 1)) == 0).any() or (measured.sum(axis=(0, 2)) == 0).any()
    assert find_bad_pixels(measured.mean(axis=0), measured.max(axis=0), frames=10)[0].all()


def test_the_undiffracted_beam_is_not_a_hot_pixel():
    mean = annulus(1e6)
    mean[32, 33] *= 1e4
    assert find_bad_pixels(mean, frames=50)[0].all()
    assert not find_bad_pixels(mean, frames=50, centre=(20, 20))[0].all()


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "dead", "dim"), [("tungsten-26id", 9, 12), ("siemens-star", 0, 0)])
def test_real_scans(name, dead, dim):
    path = locate(name)
    if path is None:
        pytest.skip(f"{name} is not here: set PTYCHOW_DATA, or run `ptychow fetch {name}`")
    frames = read_scan(path).frames[:]
    mask, reasons = find_bad_pixels(frames.mean(axis=0), frames.max(axis=0), frames=len(frames))
    assert {key: int(pixels.sum()) for key, pixels in reasons.items()} == {
        "dead": dead,
        "dim": dim,
        "hot": 0,
        "gap": 0,
    }
    assert (~mask).sum() == dead + dim


@given(hnp.arrays(bool, (7, 9)).filter(lambda mask: mask.any()))
def test_filling_a_flat_frame_leaves_it_flat(mask):
    frames = np.where(mask, 5, np.nan).astype(np.float32)[None].repeat(2, axis=0)
    Filling.of(mask).fill(frames)
    np.testing.assert_allclose(frames, 5, rtol=1e-6)


@given(hnp.arrays(bool, (7, 9)).filter(lambda mask: mask.any()), st.integers(0, 2**32 - 1))
def test_filling_keeps_good_pixels_and_the_range_of_values(mask, seed):
    frames = np.random.default_rng(seed).random((2, 7, 9), np.float32)
    filled = frames.copy()
    Filling.of(mask).fill(filled)
    np.testing.assert_array_equal(filled[:, mask], frames[:, mask])
    for before, after in zip(frames, filled, strict=True):
        assert before[mask].min() - 1e-6 <= after.min() and after.max() <= before[mask].max() + 1e-6


def test_one_bad_pixel_is_the_mean_of_its_neighbours():
    frames = np.arange(25, dtype=np.float32).reshape(1, 5, 5)
    mask = np.ones((5, 5), bool)
    mask[2, 2] = mask[2, 3] = mask[0, 0] = False
    expected = {(2, 2): (6 + 7 + 8 + 11 + 16 + 17 + 18) / 7, (2, 3): (7 + 8 + 9 + 14 + 17 + 18 + 19) / 7, (0, 0): 4.0}
    Filling.of(mask).fill(frames)
    for pixel, value in expected.items():
        assert frames[0][pixel] == pytest.approx(value)


def test_nothing_can_be_filled_from_nothing():
    with pytest.raises(InputError, match="every pixel is bad"):
        Filling.of(np.zeros((4, 4), bool))
