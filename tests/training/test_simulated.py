"""Simulated pairs: an instrument's own frames of samples that nobody measured."""

from dataclasses import replace

import numpy as np
import pytest

from ptychow.detector_fit import fit_preparation
from ptychow.training.simulated import SimulatedPairs
from ptychow.training.virtual import expected_counts

DEAD = (16, 16)  # in the middle of the beam


@pytest.fixture(scope="module")
def masked(scan):
    mask = np.ones(scan.frame_shape, bool)
    mask[DEAD] = False
    return replace(scan, mask=mask)


@pytest.fixture(scope="module")
def pairs(masked):
    return SimulatedPairs([masked.probe], fit_preparation(masked), masked.frame_shape)


def test_the_expected_counts_are_the_far_field_of_probe_times_patch(scan):
    """Against a Fourier sum written out, of two modes and an object pixel at a time."""
    rng = np.random.default_rng(0)
    probe = (rng.normal(size=(2, 8, 8)) + 1j * rng.normal(size=(2, 8, 8))).astype(np.complex64)
    patch = (rng.normal(size=(1, 8, 8)) + 1j * rng.normal(size=(1, 8, 8))).astype(np.complex64)
    place = np.arange(8)
    wave = np.exp(-2j * np.pi * np.outer(place - 4, place) / 8) / np.sqrt(8)  # frequency 0 at index 4
    direct = sum(np.abs(wave @ (mode * patch[0]) @ wave.T) ** 2 for mode in probe)
    np.testing.assert_allclose(expected_counts(probe[None], patch)[0], direct, rtol=1e-4)


def test_an_input_is_the_noisy_frame_of_its_label(pairs, masked):
    inputs, labels = pairs.draw(32, np.random.default_rng(0))
    expected = expected_counts(masked.probe[None], labels.numpy())
    found = pairs.preparation.with_scale_of(masked).root_counts(inputs.numpy()) ** 2
    # The exposure differs frame by frame by up to a tenth; the rest is Poisson noise.
    exposure = found[:, masked.mask].sum(axis=1) / expected[:, masked.mask].sum(axis=1)
    assert 0.1 < np.ptp(exposure) < 0.3 and exposure.mean() == pytest.approx(1, abs=0.1)
    good = (expected > 20) & masked.mask
    noise = (found / exposure[:, None, None] - expected)[good] / np.sqrt(expected[good])
    assert 0.8 < noise.std() < 1.3


def test_dead_pixels_are_filled_as_in_measured_frames(pairs, masked):
    plain = pairs.preparation.with_scale_of(masked)
    inputs, _ = pairs.draw(64, np.random.default_rng(0))
    counts = plain.root_counts(inputs.numpy())
    square = counts[:, DEAD[0] - 1 : DEAD[0] + 2, DEAD[1] - 1 : DEAD[1] + 2].reshape(-1, 9)
    dead, neighbours = square[:, 4], np.delete(square, 4, axis=1)
    assert (dead >= neighbours.min(axis=1)).all() and (dead <= neighbours.max(axis=1)).all()
    # Unfilled it would read zero, and filled it is nothing but its neighbours' mean count.
    assert dead.min() > 1 and len(np.unique(dead)) > 32


def test_labels_are_turned_real_and_draws_depend_on_the_generator_alone(pairs):
    first, again, other = (pairs.draw(3, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0].numpy(), again[0].numpy())
    assert not np.array_equal(first[1].numpy(), other[1].numpy())
    mean = (pairs.weight * first[1].numpy()).sum(axis=(1, 2))
    assert (mean.real > 0).all() and np.abs(np.angle(mean)).max() < 1e-3


def test_inputs_are_standardised(pairs):
    inputs, _ = pairs.draw(512, np.random.default_rng(5))
    assert float(inputs.mean()) == pytest.approx(0, abs=0.05)
    assert float((inputs - inputs.mean(dim=0)).std()) == pytest.approx(1, rel=0.1)


def test_every_instrument_of_a_family_has_its_own_scale(scan):
    """Ten times the light, and the same inputs but for the noise; the weight is that of the common probe."""
    bright = (scan.probe * np.sqrt(10)).astype(np.complex64)
    family = SimulatedPairs([scan.probe, bright], fit_preparation(scan), scan.frame_shape)
    dim, lit = family._preparations
    assert lit.scale_value / dim.scale_value == pytest.approx(np.sqrt(10), rel=0.1)
    intensity = np.abs(scan.probe[0]) ** 2
    lit = intensity > 0.1 * intensity.max()
    np.testing.assert_allclose(
        (family.weight / family.weight.max())[lit], (intensity / intensity.max())[lit], rtol=1e-4
    )
