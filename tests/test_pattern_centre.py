"""The middle of a pattern's light, whatever the detector lacks or adds."""

import numpy as np
import pytest

from ptychow.pattern_centre import pattern_centre

CENTRE = (190.3, 121.7)


def annulus(shape=(320, 340), centre=CENTRE):
    rows, columns = np.indices(shape)
    far = np.hypot(rows - centre[0], columns - centre[1])
    return 200 * np.exp(-(((far - 25) / 8) ** 2))


@pytest.mark.parametrize("background", [0, 0.05, 0.5])
@pytest.mark.parametrize("gap", [None, -30, -12, -2, 5, 24])
def test_neither_gaps_nor_background_draw_it_away(background, gap):
    mean = annulus() + background
    good = np.ones(mean.shape, bool)
    if gap is not None:
        good[:, 122 + gap : 130 + gap] = False
        good[180 + gap : 190 + gap] = False
    found = pattern_centre(np.where(good, mean, 1e9), good)
    np.testing.assert_allclose(found, CENTRE, atol=0.7)
    rows, columns = np.indices(mean.shape)
    light = np.where(good, mean, 0)
    plain = np.array([(light * rows).sum(), (light * columns).sum()]) / light.sum()
    if background == 0.5:
        assert np.abs(plain - CENTRE).max() > 5  # a centre of mass would not do


def test_light_that_fills_the_frame_has_its_centre_of_mass():
    random = np.random.default_rng(0)
    mean = random.uniform(1, 2, (64, 64)) * np.linspace(1, 3, 64)
    rows, columns = np.indices(mean.shape)
    expected = [(mean * rows).sum() / mean.sum(), (mean * columns).sum() / mean.sum()]
    np.testing.assert_allclose(pattern_centre(mean, np.ones(mean.shape, bool)), expected, atol=1e-9)


def test_a_single_lit_pixel_and_none():
    mean = np.zeros((32, 40))
    assert pattern_centre(mean, np.ones(mean.shape, bool)) is None
    mean[5, 30] = 7
    assert pattern_centre(mean, np.ones(mean.shape, bool)) == (5.0, 30.0)
    assert pattern_centre(mean, mean == 0) is None
