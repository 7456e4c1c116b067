"""Every sample of the registry, and what makes the labyrinth a labyrinth."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, maximum_filter

from ptychow.optics.propagation import fourier_resample
from ptychow.optics.samples import SAMPLES, labyrinth

SHAPE = (300, 360)


def draw(name: str, seed: int = 0, **settings: float) -> np.ndarray:
    return SAMPLES[name](SHAPE, np.random.default_rng(seed), **settings)


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_complex_images_that_follow_their_seed(name):
    image = draw(name)
    assert image.shape == SHAPE and image.dtype == np.complex64 and np.isfinite(image).all()
    np.testing.assert_array_equal(image, draw(name))
    assert np.abs(image - draw(name, seed=1)).max() > 0.1


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("phase_step", [-1.2, 0.8])
def test_phase_step_and_amplitude_contrast_are_kept(name, phase_step):
    image = draw(name, phase_step=phase_step, amplitude_contrast=0.2)
    phase = np.angle(image) / phase_step
    assert -1e-3 < phase.min() < 0.2 and 0.8 < phase.max() < 1.001
    amplitude = np.abs(image)
    if name == "labyrinth":  # its mean is 1, and its walls lose more
        thick = amplitude[np.angle(image) / phase_step > 0.99].mean()
        assert thick / amplitude.max() == pytest.approx(0.8, abs=0.01)
    else:
        assert 0.799 < amplitude.min() < 0.86 and 0.9 < amplitude.max() < 1.001
        flat = draw(name, phase_step=phase_step, amplitude_contrast=0.0)
        np.testing.assert_allclose(np.abs(flat), 1, atol=1e-5)


@pytest.mark.parametrize("name", SAMPLES)
def test_larger_features_vary_more_slowly(name):
    fine, coarse = (draw(name, feature=feature) for feature in (15.0, 60.0))
    assert np.abs(np.diff(coarse, axis=1)).mean() < 0.8 * np.abs(np.diff(fine, axis=1)).mean()


def test_labyrinth_has_two_levels_half_each_and_the_variance_of_the_real_one():
    image = fourier_resample(labyrinth((1000, 1000), np.random.default_rng(0)), (500, 500))
    phase = np.angle(image)
    assert phase.var() == pytest.approx(0.54, abs=0.02)
    trench, metal = phase > -0.1, phase < -1.47
    assert 0.35 < trench.mean() < 0.5 and 0.35 < metal.mean() < 0.5
    amplitude = np.abs(image)
    assert amplitude.mean() == pytest.approx(1, abs=0.01)
    assert amplitude[trench].mean() > 1.05 > 1 > amplitude[metal].mean() > 0.9
    walls = (phase > -1.0) & (phase < -0.5)
    assert amplitude[walls].mean() < 0.9


def test_labyrinth_lines_are_as_wide_as_asked():
    """The distance from the walls that the middles of the strokes reach is half their width."""
    image = labyrinth((1200, 1200), np.random.default_rng(0), feature=28)
    depth = distance_transform_edt(np.angle(image) > -0.78)
    middles = depth[(depth == maximum_filter(depth, 15)) & (depth > 5)]
    assert 2 * np.median(middles) == pytest.approx(28, rel=0.15)
