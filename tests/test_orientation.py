import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychow.orientation import Orientation

every = pytest.mark.parametrize("orientation", list(Orientation))
BY_NUMPY = {
    "identity": lambda image: image,
    "rotate-90": np.rot90,
    "rotate-180": lambda image: np.rot90(image, 2),
    "rotate-270": lambda image: np.rot90(image, 3),
    "flip-rows": np.flipud,
    "flip-columns": np.fliplr,
    "transpose": np.transpose,
    "antitranspose": lambda image: np.rot90(image.T, 2),
}


@every
def test_apply_is_numpy_s(orientation):
    image = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(orientation.apply(image), BY_NUMPY[orientation](image))
    stack = np.stack([image, 2 * image])
    np.testing.assert_array_equal(orientation.apply(stack)[1], 2 * orientation.apply(image))


def test_there_are_eight_different_ones():
    image = np.arange(4).reshape(2, 2)
    assert len({orientation.apply(image).tobytes() for orientation in Orientation}) == 8


@every
def test_the_inverse_undoes(orientation):
    image = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(orientation.inverse.apply(orientation.apply(image)), image)
    assert orientation.then(orientation.inverse) is Orientation.IDENTITY


def test_two_in_a_row_are_one():
    image = np.arange(9).reshape(3, 3)
    for first, second in itertools.product(Orientation, repeat=2):
        np.testing.assert_array_equal(first.then(second).apply(image), second.apply(first.apply(image)))


@every
@given(st.integers(2, 9), st.integers(2, 9))
def test_zero_frequency_stays_in_place(orientation, height, width):
    image = np.zeros((height, width))
    image[height // 2, width // 2] = 1
    turned = orientation.apply_about_zero_frequency(image)
    assert turned[turned.shape[0] // 2, turned.shape[1] // 2] == 1


@every
@given(st.integers(2, 9))
def test_turning_about_zero_frequency_is_undone_by_the_inverse(orientation, size):
    image = np.arange(size * size).reshape(size, size)
    there = orientation.apply_about_zero_frequency(image)
    np.testing.assert_array_equal(orientation.inverse.apply_about_zero_frequency(there), image)


@every
def test_apply_makes_no_copy(orientation):
    image = np.zeros((4, 4))
    assert np.shares_memory(orientation.apply(image), image)


def test_names_are_stable_because_files_hold_them():
    assert [str(orientation) for orientation in Orientation] == list(BY_NUMPY)
