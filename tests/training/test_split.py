import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ptychow.errors import InputError
from ptychow.training import no_split, random_split, shares_pixels, spatial_split, split_scan

fractions = st.floats(0, 0.4)


def pixels(positions, size):
    """The set of whole object pixels that size x size patches at whole-pixel positions cover."""
    return {(int(y) + i, int(x) + j) for y, x in positions for i in range(size) for j in range(size)}


@given(
    st.integers(0, 2**32 - 1), st.integers(2, 120), st.integers(1, 12), fractions, fractions, st.sampled_from([0, 1])
)
def test_no_object_pixel_is_in_two_blocks_and_no_frame_in_two_parts(seed, count, size, validation, holdout, axis):
    positions = np.random.default_rng(seed).integers(0, 60, (count, 2)).astype(float)
    try:
        split = spatial_split(positions, size, validation=validation, holdout=holdout, axis=axis)
    except InputError:
        assume(False)
    parts = split.train, split.validation, split.holdout
    covered = [pixels(positions[part], size) for part in parts]
    assert not covered[0] & covered[1] and not covered[0] & covered[2] and not covered[1] & covered[2]
    together = np.concatenate(parts)
    assert len(set(together.tolist())) == len(together) and len(split.train)
    assert len(split.holdout) == round(holdout * count)


def test_the_longer_axis_is_cut_and_fractions_are_kept():
    positions = np.stack(np.meshgrid(np.arange(5.0), np.arange(100.0), indexing="ij"), -1).reshape(-1, 2)
    split = spatial_split(positions, 8, validation=0.1, holdout=0.2)
    assert (len(split.holdout), len(split.validation)) == (100, 50)
    columns = [positions[part][:, 1] for part in (split.train, split.validation, split.holdout)]
    assert columns[0].max() + 8 <= columns[1].min() and columns[1].max() + 8 <= columns[2].min()
    assert len(split.train) == 500 - 150 - 2 * 7 * 5  # two guard gaps of seven columns


def test_a_scan_too_small_for_a_gap_is_refused_with_what_to_do():
    with pytest.raises(InputError, match=r"too small .* found 9 object pixels along axis 0, .*--split none"):
        spatial_split(np.arange(20.0).reshape(-1, 2) / 2, 12, validation=0.2)


@pytest.mark.parametrize("wrong", [{"validation": -0.1}, {"holdout": 1.0}, {"validation": float("nan")}])
def test_what_is_no_fraction_is_refused(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))}: not a fraction"):
        spatial_split(np.arange(20.0).reshape(-1, 2), 2, **wrong)
    if "validation" in wrong:
        with pytest.raises(InputError, match="not a fraction"):
            random_split(10, 0, **wrong)


def test_fractions_that_are_all_of_it_are_named():
    with pytest.raises(InputError, match="validation and holdout: leave nothing to train on; found 1 of the frames"):
        spatial_split(np.arange(20.0).reshape(-1, 2), 2, validation=0.6, holdout=0.4)


@given(st.integers(1, 300), st.integers(0, 100), st.floats(0, 0.9))
def test_the_papers_random_split_uses_every_frame_once(count, seed, validation):
    split = random_split(count, seed, validation=validation)
    np.testing.assert_array_equal(np.sort(np.concatenate([split.train, split.validation])), np.arange(count))
    assert len(split.validation) == round(validation * count) and split.kind == "random"
    again = random_split(count, seed, validation=validation)
    np.testing.assert_array_equal(split.train, again.train)


def test_splits_by_name(scan):
    assert split_scan(scan.positions_px, 32, "spatial", holdout=0.1).kind == "spatial"
    assert split_scan(scan.positions_px, 32, "random", seed=3).kind == "random"
    np.testing.assert_array_equal(split_scan(scan.positions_px, 32, "none").train, no_split(len(scan)).train)
    with pytest.raises(InputError, match="spatial, random or none"):
        split_scan(scan.positions_px, 32, "cross")
    with pytest.raises(InputError, match="only the spatial split"):
        split_scan(scan.positions_px, 32, "random", holdout=0.2)


@given(st.integers(0, 2**32 - 1), st.integers(1, 10))
def test_shared_pixels_agree_with_counting_them(seed, size):
    rng = np.random.default_rng(seed)
    positions, others = (rng.integers(0, 40, (n, 2)).astype(float) for n in (15, 6))
    seen = pixels(others, size)
    expected = [bool(pixels(position[None], size) & seen) for position in positions]
    np.testing.assert_array_equal(shares_pixels(positions, others, size), expected)


def test_nothing_is_shared_with_nothing():
    assert not shares_pixels(np.zeros((3, 2)), np.zeros((0, 2)), 5).any()
