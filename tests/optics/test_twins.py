"""The twins: what their description promises, determinism, and parts that equal the whole."""

import numpy as np
import pytest
from rings import far_field_intensity, radial_profile

from ptychow.errors import InputError
from ptychow.optics.beam import gaussian_beam, intensity, rms_radius
from ptychow.optics.propagation import fourier_resample, radius_map
from ptychow.optics.twins import TWINS, twin

SIZE = 64


@pytest.fixture(scope="module", params=TWINS)
def part(request):
    """Ten lines of forty points of a twin."""
    return twin(request.param, seed=1, lines=slice(60, 70), columns=slice(20, 60))


def test_scan_and_geometry(part):
    assert part.frames.shape == (400, SIZE, SIZE) and part.frames.dtype == np.uint16 and part.raster == (10, 40)
    assert part.position_unit == "m"
    np.testing.assert_allclose(part.positions_px[[0, 1, 40]], [(180, 60), (180, 63), (183, 60)], atol=1e-6)
    geometry = part.geometry
    derived = geometry.wavelength * geometry.distance / (SIZE * geometry.detector_pixel)
    assert geometry.pixel_size == pytest.approx(10e-9) and derived == pytest.approx(10e-9)
    assert part.object.source == "simulation" and min(part.object.image.shape) >= 160 * 3 + SIZE
    assert part.object.origin[0] <= -SIZE // 2


def test_modes_counts_and_dead_pixels(part):
    gram = np.einsum("iyx,jyx->ij", part.probe.conj(), part.probe) / 2e6
    np.testing.assert_allclose(gram, np.diag([0.85, 0.10, 0.05]), atol=1e-5)
    assert part.frames.sum(axis=(1, 2)).mean() == pytest.approx(2e6, rel=0.1)
    assert (~part.mask).sum() == 20
    assert not part.frames[:, ~part.mask].any() and part.frames.sum(axis=0)[part.mask].all()
    assert part.saturation == 65535 and part.frames.max() < 20000


def test_the_far_field_is_the_annulus_of_the_description(part):
    pattern = radial_profile(far_field_intensity(part.probe))[: SIZE // 2]
    lit = np.flatnonzero(pattern > 0.5 * pattern.max())
    assert (lit[0] / SIZE, lit[-1] / SIZE) == pytest.approx((0.25, 0.47), abs=1 / SIZE)
    mean = np.where(part.mask, part.frames.mean(axis=0), np.nan)
    radius = radius_map((SIZE, SIZE)) / SIZE
    inside, annulus = np.nanmean(mean[radius < 0.2]), np.nanmean(mean[(radius > 0.28) & (radius < 0.44)])
    assert 0.001 < inside / annulus < 0.05
    beyond = np.nansum(mean[radius > 0.47]) / np.nansum(mean)
    assert 0.03 < beyond < 0.13


def test_phase_variance_is_that_of_the_paper(part):
    assert np.angle(part.object.image).var() == pytest.approx(0.54, abs=0.02)


def test_the_beams_have_their_sizes():
    """Ring 0.35 N across with an rms radius of 0.2 N; 80 % of the small beam within 60 nm."""
    fine = 8
    ring, small = (
        intensity(fourier_resample(TWINS[name].probe(), (fine * SIZE, fine * SIZE)))
        for name in ("sim-26id-wide", "sim-26id")
    )
    assert rms_radius(ring) / fine / SIZE == pytest.approx(0.2, abs=0.01)
    middle = 5 * fine  # the bright spot on the axis is not the ring
    diameter = 2 * (middle + radial_profile(ring)[middle:].argmax()) / fine / SIZE
    assert diameter == pytest.approx(0.35, abs=0.02)
    within = radius_map(small.shape) / fine <= 3
    assert small[within].sum() / small.sum() == pytest.approx(0.8, abs=0.02)


def test_a_part_has_the_frames_of_the_whole(part):
    name = part.metadata["twin"]
    line = twin(name, seed=1, lines=slice(63, 64), columns=slice(20, 60, 3))
    np.testing.assert_array_equal(line.frames, part.frames.reshape(10, 40, SIZE, SIZE)[3, ::3])
    np.testing.assert_array_equal(line.positions, part.positions.reshape(10, 40, 2)[3, ::3])
    np.testing.assert_array_equal(line.object.image, part.object.image)
    np.testing.assert_array_equal(line.probe, part.probe)


def test_seeds_draw_object_and_noise_but_not_the_instrument():
    few = {"lines": slice(0, 1), "columns": slice(0, 3)}
    first, second = (twin("sim-26id-wide", seed, **few) for seed in (0, 1))
    np.testing.assert_array_equal(first.probe, second.probe)
    np.testing.assert_array_equal(first.mask, second.mask)
    correlation = np.corrcoef(np.angle(first.object.image).ravel(), np.angle(second.object.image).ravel())[0, 1]
    assert abs(correlation) < 0.1
    assert first.fingerprint() != second.fingerprint()
    assert first.metadata["fingerprint"] == first.fingerprint()
    assert twin("sim-26id-wide", 0, **few).fingerprint() == first.fingerprint()
    assert first.metadata["twin"] == "sim-26id-wide" and first.metadata["twin_version"] == "1"


def test_counts_probe_and_mask_can_be_chosen():
    few = {"lines": slice(0, 1), "columns": slice(0, 4)}
    dim = twin("sim-26id", counts=1e4, mask_known=False, probe=gaussian_beam(SIZE, fwhm=10), **few)
    assert dim.mask is None and dim.probe.shape == (1, SIZE, SIZE)
    assert dim.frames.sum(axis=(1, 2)).mean() == pytest.approx(1e4, rel=0.15)


def test_refusals():
    with pytest.raises(InputError, match="sim-26id-wide"):
        twin("sim-27id")
    with pytest.raises(InputError, match="no scan point"):
        twin("sim-26id", lines=slice(161, None))
    with pytest.raises(InputError, match="dead pixels"):
        twin("sim-26id", lines=slice(0, 1), columns=slice(0, 1), probe=gaussian_beam(32, fwhm=4))
