import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paper_statistics import block_bootstrap, block_sums, t_interval


def test_the_t_interval_is_that_of_the_table():
    # Three values of mean 2 and deviation 1: 4.303 (two degrees of freedom, 97.5 %) times 1 / sqrt(3).
    assert t_interval([1, 2, 3]) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), rel=1e-4)
    assert t_interval([1.0]) is None


def test_the_t_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(5, 2, (2000, 3))
    low, high = np.array([t_interval(list(values)) for values in draws]).T
    assert ((low < 5) & (high > 5)).mean() == pytest.approx(0.95, abs=0.015)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12))
def test_block_sums_are_sums_over_blocks_and_lose_nothing(rows, columns, side):
    image = np.random.default_rng(rows * columns).random((rows, columns))
    sums = block_sums(image, side)
    assert sums.shape == (-(-rows // side), -(-columns // side))
    assert sums[0, 0] == pytest.approx(image[:side, :side].sum())
    assert sums.sum() == pytest.approx(image.sum())


def test_the_bootstrap_knows_a_constant_ratio():
    reference = np.random.default_rng(1).gamma(2, size=(3, 24))
    assert block_bootstrap(0.7 * reference, reference) == pytest.approx((0.7, 0.7))


def test_the_bootstrap_interval_holds_the_ratio_and_narrows_with_more_blocks():
    generator = np.random.default_rng(2)
    reference = generator.gamma(4, size=(2, 400))
    ours = 0.8 * reference * generator.lognormal(0, 0.5, reference.shape)
    wide, narrow = block_bootstrap(ours[:, :25], reference[:, :25]), block_bootstrap(ours, reference)
    true = (ours.sum(axis=1) / reference.sum(axis=1)).mean()
    assert narrow[0] < true < narrow[1]
    assert narrow[1] - narrow[0] < 0.5 * (wide[1] - wide[0])


def test_the_bootstrap_has_the_width_of_the_delta_method():
    generator = np.random.default_rng(3)
    reference, ours = generator.gamma(9, size=(1, 900)), generator.gamma(9, size=(1, 900))
    ratio = ours.sum() / reference.sum()
    error = np.std(ours - ratio * reference) / reference.mean() / 900**0.5
    low, high = block_bootstrap(ours, reference)
    assert (high - low) / (2 * 1.96) == pytest.approx(error, rel=0.1)
