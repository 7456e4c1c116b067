"""Random samples: of mean intensity 1, within their stated ranges, the same for the same generator."""

import numpy as np
import pytest

from ptychow.optics import random_samples
from ptychow.optics.random_samples import RandomSamples


@pytest.fixture(scope="module")
def samples():
    return RandomSamples(32)


@pytest.fixture(scope="module")
def patches(samples):
    return samples.draw(200, np.random.default_rng(0))


def test_patches_have_mean_intensity_one(patches):
    assert patches.shape == (200, 32, 32) and patches.dtype == np.complex64
    np.testing.assert_allclose((np.abs(patches) ** 2).mean(axis=(1, 2)), 1, rtol=1e-5)


def test_draws_depend_on_the_generator_alone(samples):
    first, again, other = (samples.draw(3, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(RandomSamples(32).draw(3, np.random.default_rng(1)), first)


def test_phases_step_either_way_and_no_further_than_stated(patches):
    phase = np.angle(patches)
    # Texture adds a few times its own 5 %.
    assert np.abs(phase).max() < random_samples.PHASE_STEP[1] + 6 * random_samples.TEXTURE
    middle = phase.mean(axis=(1, 2))
    assert (middle > 0.1).mean() > 0.2 and (middle < -0.1).mean() > 0.2


def test_walls_are_as_sharp_at_every_scale(monkeypatch):
    """The steepest phase slope of a patch follows the edge and the step, not the size of its features."""
    monkeypatch.setattr(random_samples, "EDGE", (2.0, 2.0))
    monkeypatch.setattr(random_samples, "PHASE_STEP", (1.0, 1.0))
    monkeypatch.setattr(random_samples, "TEXTURE", 0.0)
    monkeypatch.setattr(random_samples, "STRETCH", 1.0)
    slopes = []
    for feature in (8.0, 32.0):
        monkeypatch.setattr(random_samples, "FEATURE", (feature, feature))
        phase = np.angle(RandomSamples(32).draw(60, np.random.default_rng(3)))
        slopes.append(np.median(np.abs(np.diff(phase, axis=1)).max(axis=(1, 2))))
    # expit(4 d / edge) rises by 1 / edge a pixel at its steepest.
    assert slopes == pytest.approx([0.5, 0.5], rel=0.25)
