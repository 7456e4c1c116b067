"""Residuals: an oracle in plain numpy, and what they do not depend on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychow.residual import Reference, frame_residuals, predicted_amplitudes


def complex_noise(rng, *shape):
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def test_predicted_amplitudes_are_those_of_a_plain_transform():
    rng = np.random.default_rng(0)
    patches, probe = complex_noise(rng, 3, 8, 8), complex_noise(rng, 2, 8, 8)
    found = predicted_amplitudes(patches, probe)
    for patch, amplitudes in zip(patches, found, strict=True):
        for row in range(8):
            for column in range(8):
                y, x = np.mgrid[:8, :8] - 4
                wave = np.exp(-2j * np.pi * ((row - 4) * y + (column - 4) * x) / 8) / 8
                intensity = sum(abs((mode * patch * wave).sum()) ** 2 for mode in probe)
                assert amplitudes[row, column] == pytest.approx(np.sqrt(intensity), rel=1e-4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3), turn=st.floats(-3, 3))
def test_a_patch_that_made_its_frame_explains_it_whatever_scale_and_phase(seed, scale, turn):
    rng = np.random.default_rng(seed)
    patches, probe = complex_noise(rng, 4, 16, 16), complex_noise(rng, 3, 16, 16)
    measured = predicted_amplitudes(patches, probe) * np.float32(scale)
    assert (frame_residuals(measured, patches * np.exp(1j * turn), probe) < 2e-3).all()
    foreign = frame_residuals(measured, complex_noise(rng, 4, 16, 16), probe)
    assert ((foreign > 0.1) & (foreign <= 1)).all()


def test_masked_pixels_do_not_count_and_nothing_is_not_explained():
    rng = np.random.default_rng(1)
    patches, probe = complex_noise(rng, 2, 16, 16), complex_noise(rng, 1, 16, 16)
    measured, good = predicted_amplitudes(patches, probe), np.ones((16, 16), bool)
    good[3, 4] = False
    measured[:, 3, 4] = 1e6
    assert (frame_residuals(measured, patches, probe) > 0.9).all()
    assert (frame_residuals(measured, patches, probe, good) < 2e-3).all()
    assert (frame_residuals(0 * measured, patches, probe) == 1).all()


def test_limits_lie_where_known_frames_end():
    reference = Reference.of(np.linspace(0, 1, 101), 101, "held-out")
    assert (reference.median, reference.amber, reference.red) == pytest.approx((0.5, 0.95, 1.4))
    alike = Reference.of(np.full(5, 0.2), 320, "training")
    assert (alike.median, alike.amber, alike.red) == pytest.approx((0.2, 0.23, 0.26))
    assert reference.frames == 101 and Reference.model_validate_json(reference.model_dump_json()) == reference
