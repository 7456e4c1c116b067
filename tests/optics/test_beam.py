"""Beams: radii of the annulus, size of the ring, power and orthogonality of the modes."""

import numpy as np
import pytest
from rings import far_field_intensity, radial_profile

from ptychow.errors import InputError
from ptychow.optics.beam import (
    gaussian_beam,
    incoherent_modes,
    intensity,
    ring_defocus,
    rms_radius,
    scale_to_counts,
    zone_plate_beam,
)
from ptychow.optics.propagation import radius_map

OPTICS = {"wavelength": 1.24e-10, "pixel_size": 10e-9}


def half_level_radii(profile: np.ndarray) -> list[float]:
    """Radii at which a profile crosses half of its maximum, by linear interpolation."""
    level = profile / profile.max() - 0.5
    crossings = np.flatnonzero(np.diff(np.sign(level)))
    return [float(i + level[i] / (level[i] - level[i + 1])) for i in crossings]


@pytest.mark.parametrize("size", [64, 128])
def test_the_far_field_of_a_zone_plate_is_an_annulus(size):
    beam = zone_plate_beam(size, defocus=20e-6, astigmatism=1e-6, **OPTICS)
    pattern = far_field_intensity(beam)
    inner, outer = half_level_radii(radial_profile(pattern)[: size // 2])
    assert (inner / size, outer / size) == pytest.approx((0.25, 0.47), abs=0.005)
    assert pattern[size // 2, size // 2] < 1e-6 * pattern.max()
    assert intensity(beam).sum() == pytest.approx(1, rel=1e-5)


def test_without_a_stop_the_far_field_is_a_disc():
    pattern = far_field_intensity(zone_plate_beam(64, inner=0, defocus=0, **OPTICS))
    assert pattern[32, 32] == pytest.approx(pattern.max(), rel=1e-3)


def test_impossible_annulus():
    with pytest.raises(InputError, match="annulus"):
        zone_plate_beam(64, inner=0.4, outer=0.3, defocus=0, **OPTICS)


@pytest.mark.parametrize("wanted", [0.15, 0.2])
def test_defocus_makes_a_ring_of_the_asked_radius(wanted):
    beam = intensity(zone_plate_beam(128, defocus=ring_defocus(128, wanted, **OPTICS), edge=0.03, **OPTICS))
    assert rms_radius(beam) / 128 == pytest.approx(wanted, rel=0.05)
    # Rays map detector radius to sample radius: the annulus 0.25 to 0.47 becomes a ring of the same proportions.
    to_ring = wanted / np.sqrt((0.25**2 + 0.47**2) / 2)
    radius = radius_map((128, 128)) / 128
    assert beam[(radius > 0.25 * to_ring) & (radius < 0.47 * to_ring)].sum() > 0.8


def test_focus_is_smaller_than_the_defocused_beam():
    focused, defocused = (intensity(zone_plate_beam(64, defocus=z, **OPTICS)) for z in (0.0, 25e-6))
    assert focused[32, 32] > 0.3
    assert defocused.max() < 0.1


def test_gaussian_beam_has_its_width():
    profile = radial_profile(intensity(gaussian_beam(64, fwhm=12, curvature=0.02)))
    assert half_level_radii(profile[:32]) == [pytest.approx(6, abs=0.1)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_modes_are_orthogonal_with_the_given_powers(count):
    powers = 0.5 ** np.arange(1, count + 1)
    beam = zone_plate_beam(64, defocus=25e-6, **OPTICS)
    modes = incoherent_modes(beam, powers)
    assert modes.dtype == np.complex64
    gram = np.einsum("iyx,jyx->ij", modes.conj(), modes)
    np.testing.assert_allclose(gram, np.diag(powers), atol=1e-6)
    np.testing.assert_allclose(modes[0], beam * np.sqrt(0.5), atol=1e-6)


def test_modes_stay_within_the_aperture():
    modes = incoherent_modes(zone_plate_beam(64, defocus=25e-6, **OPTICS), (0.85, 0.1, 0.05))
    profile = radial_profile(far_field_intensity(modes))
    assert profile[:10].max() < 1e-5 * profile.max()


def test_counts():
    modes = incoherent_modes(gaussian_beam(32, fwhm=8), (0.7, 0.3))
    scaled = scale_to_counts(modes, 2e6)
    assert intensity(scaled).sum() == pytest.approx(2e6, rel=1e-5)
    np.testing.assert_allclose(scaled / modes, scaled[0, 16, 16] / modes[0, 16, 16], rtol=1e-4)


def test_rms_radius_of_two_points():
    image = np.zeros((9, 9))
    image[2, 2] = image[2, 8] = 1
    assert rms_radius(image) == pytest.approx(3)
