"""Patches of an object at any position, and objects on other pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from conftest import positions_inside, smooth_object
from ptychow.errors import InputError
from ptychow.patches import PatchExtractor, corners, cubic_spline_weights, few_patches, resample_object


def test_a_patch_at_a_whole_pixel_is_the_objects_pixels():
    truth = smooth_object()
    patch = PatchExtractor(truth, 16)(np.array([[20.0, 30.0]]))[0]
    row, column = 20 - 8 + 7, 30 - 8 - 4
    np.testing.assert_allclose(patch, truth.image[row : row + 16, column : column + 16], atol=2e-6)


def test_patches_between_pixels_agree_with_scipys_spline():
    truth = smooth_object()
    positions = positions_inside(truth, 16, 20, np.random.default_rng(1))
    patches = PatchExtractor(truth, 16)(positions)
    for position, patch in zip(positions, patches, strict=True):
        axes = [np.arange(16) + position[a] - 8 - truth.origin[a] for a in (0, 1)]
        grid = np.meshgrid(*axes, indexing="ij")
        oracle = sum(
            factor * ndimage.map_coordinates(part.astype(float), grid, order=3, mode="mirror")
            for factor, part in ((1, truth.image.real), (1j, truth.image.imag))
        )
        np.testing.assert_allclose(patch, oracle, atol=1e-4)


def test_a_patch_that_leaves_the_object_is_refused_by_name():
    truth = smooth_object()
    extractor = PatchExtractor(truth, 16)
    assert extractor.inside(np.array([[1.0, 12.0], [1.5, 11.9]])).tolist() == [True, False]
    with pytest.raises(InputError, match=r"1 of 2 patches .* leave the object"):
        extractor(np.array([[20.0, 30.0], [0.0, 30.0]]))


@pytest.mark.parametrize("ratio", [2.0, 1.5, 256 / 192])
def test_a_resampled_object_keeps_its_place(ratio):
    truth = smooth_object(sigma=6.0)
    coarse = resample_object(truth, ratio)
    rows, columns = (np.arange(n)[5:-5] * ratio for n in coarse.image.shape)
    grid = np.meshgrid(rows, columns, indexing="ij")
    oracle = sum(
        factor * ndimage.map_coordinates(part.astype(float), grid, order=3)
        for factor, part in ((1, truth.image.real), (1j, truth.image.imag))
    )
    assert np.abs(coarse.image[5:-5, 5:-5] - oracle).max() < 0.05
    assert coarse.origin == pytest.approx((-7.0 / ratio, 4.0 / ratio))


@given(st.integers(1, 9), st.floats(-50, 50), st.floats(-50, 50))
def test_the_centre_pixel_lies_at_the_position(size, y, x):
    corner = corners(np.array([[y, x]]), size)[0]
    np.testing.assert_allclose(corner + size // 2, (y, x), atol=1e-9)


@given(st.floats(0, 1, exclude_max=True))
def test_spline_weights_add_up_to_one_and_keep_the_first_moment(fraction):
    weights = cubic_spline_weights(np.array([fraction]))[0]
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    assert weights @ [-1, 0, 1, 2] == pytest.approx(fraction, abs=1e-6)


def test_a_region_is_the_object_on_another_grid_and_nothing_beyond_it():
    truth = smooth_object()
    extractor = PatchExtractor(truth, 16)
    same = extractor.region(truth.origin, truth.image.shape)
    np.testing.assert_allclose(same, truth.image, atol=2e-6)
    wider = extractor.region((truth.origin[0] - 3, truth.origin[1] + 2), (110, 40))
    assert not wider[:3].any() and not wider[93:].any()
    np.testing.assert_allclose(wider[3:93], truth.image[:, 2:42], atol=2e-6)
    assert not extractor.region((1000.0, 0.0), (5, 5)).any()
    between = extractor.region((truth.origin[0] + 0.5, truth.origin[1]), (20, 20))
    patch = PatchExtractor(truth, 20)(np.array([[truth.origin[0] + 10.5, truth.origin[1] + 10]]))[0]
    np.testing.assert_allclose(between, patch, atol=1e-6)


def test_a_ratio_of_one_changes_nothing():
    truth = smooth_object()
    assert resample_object(truth, 1.0) is truth


def test_few_patches_are_those_of_the_whole_object():
    truth = smooth_object((300, 260))
    positions = np.concatenate(
        [positions_inside(truth, 32, 12, np.random.default_rng(0)), [np.array(truth.origin) + 16]]
    )
    np.testing.assert_allclose(few_patches(truth, positions, 32), PatchExtractor(truth, 32)(positions), atol=1e-5)
