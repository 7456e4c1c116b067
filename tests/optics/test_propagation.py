"""Propagation against plain sums, closed forms and energy conservation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychow.optics.propagation import (
    defocus_transfer,
    far_field,
    fourier_resample,
    from_far_field,
    propagate,
    radius_map,
    shift,
)


def random_wave(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def band_limited(size: int, highest: int, seed: int = 0) -> np.ndarray:
    """Random (size, size) image whose frequencies lie within +-highest cycles per field of view."""
    spectrum = random_wave((size, size), seed)
    rows, columns = np.indices((size, size)) - size // 2
    spectrum[(abs(rows) > highest) | (abs(columns) > highest)] = 0
    return from_far_field(spectrum)


@pytest.mark.parametrize("shape", [(6, 6), (5, 8), (7, 7)])
def test_far_field_is_the_centred_orthonormal_fourier_sum(shape):
    wave = random_wave(shape)
    rows, columns = (np.arange(size) - size // 2 for size in shape)
    rows_kernel = np.exp(-2j * np.pi * np.outer(rows, rows) / shape[0])
    columns_kernel = np.exp(-2j * np.pi * np.outer(columns, columns) / shape[1])
    oracle = rows_kernel @ wave @ columns_kernel / np.sqrt(wave.size)
    np.testing.assert_allclose(far_field(wave), oracle, atol=1e-12)


@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_far_field_keeps_power_and_is_inverted(height, width, seed):
    wave = random_wave((2, height, width), seed)
    field = far_field(wave)
    assert np.sum(abs(field) ** 2) == pytest.approx(np.sum(abs(wave) ** 2))
    np.testing.assert_allclose(from_far_field(field), wave, atol=1e-12)


def test_single_precision_stays_single():
    wave = random_wave((8, 8)).astype(np.complex64)
    for result in (far_field(wave), fourier_resample(wave, (16, 4)), shift(wave, (0.3, 0.1))):
        assert result.dtype == np.complex64


def test_a_gaussian_spreads_as_the_closed_form_says():
    """Waist w0 grows to w0 sqrt(1 + (z / z_R)^2), z_R = pi w0^2 / wavelength."""
    wavelength, pixel, waist, size = 1e-10, 10e-9, 100e-9, 256
    radius = radius_map((size, size)) * pixel
    beam = np.exp(-((radius / waist) ** 2)).astype(complex)
    rayleigh = np.pi * waist**2 / wavelength
    far = propagate(beam, 2 * rayleigh, wavelength=wavelength, pixel_size=pixel)
    measured = np.sqrt(2 * np.sum(abs(far) ** 2 * radius**2) / np.sum(abs(far) ** 2))
    assert measured == pytest.approx(waist * np.sqrt(5), rel=1e-3)
    assert np.sum(abs(far) ** 2) == pytest.approx(np.sum(abs(beam) ** 2))
    back = propagate(far, -2 * rayleigh, wavelength=wavelength, pixel_size=pixel)
    np.testing.assert_allclose(back, beam, atol=1e-9)


def test_fresnel_agrees_with_the_angular_spectrum_for_small_angles():
    wavelength, pixel, distance = 1e-10, 10e-9, 20e-6
    frequency = (np.arange(64) - 32) / (64 * pixel)
    squared = np.add.outer(frequency**2, frequency**2)
    exact = np.exp(2j * np.pi * distance * (np.sqrt(wavelength**-2 - squared) - 1 / wavelength))  # Goodman eq. 3-70
    fresnel = defocus_transfer((64, 64), distance, wavelength=wavelength, pixel_size=pixel)
    np.testing.assert_allclose(fresnel, exact, atol=1e-3)


@pytest.mark.parametrize("size", [16, 15])
def test_halving_a_band_limited_image_samples_every_second_pixel(size):
    image = band_limited(2 * size, size // 2 - 1)
    halved = fourier_resample(image, (size, size))
    np.testing.assert_allclose(halved, image[::2, ::2], atol=1e-12)
    np.testing.assert_allclose(fourier_resample(halved, (2 * size, 2 * size)), image, atol=1e-12)


def test_resampling_keeps_a_constant():
    np.testing.assert_allclose(fourier_resample(np.full((6, 8), 2 - 1j), (9, 4)), 2 - 1j)


def test_shift_by_whole_pixels_is_a_roll_and_fractions_add_up():
    image = band_limited(16, 6)
    np.testing.assert_allclose(shift(image, (3, -2)), np.roll(image, (3, -2), (0, 1)), atol=1e-12)
    twice = shift(shift(image, (0.3, 0.9)), (0.7, 0.1))
    np.testing.assert_allclose(twice, np.roll(image, (1, 1), (0, 1)), atol=1e-12)
    several = shift(image, np.array([(0.5, 0), (0, 0.25)]))
    np.testing.assert_allclose(several[1], shift(image, (0, 0.25)), atol=1e-12)


def test_half_a_pixel_is_the_fine_grid_seen_between():
    fine = band_limited(32, 7)
    coarse = fourier_resample(fine, (16, 16))
    np.testing.assert_allclose(shift(coarse, (-0.5, -0.5)), fine[1::2, 1::2], atol=1e-12)
