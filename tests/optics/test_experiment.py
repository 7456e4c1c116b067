"""`Experiment`: every name it offers runs, and what it cannot do it refuses."""

import json

import numpy as np
import pytest

from ptychow.errors import InputError
from ptychow.optics.beam import gaussian_beam, intensity, rms_radius
from ptychow.optics.experiment import BEAMS, Experiment
from ptychow.optics.samples import SAMPLES
from ptychow.optics.trajectories import TRAJECTORIES


@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize("trajectory", TRAJECTORIES)
def test_beams_and_trajectories(beam, trajectory):
    scan = Experiment(beam=beam, trajectory=trajectory, size=32, points=7, jitter=0.4, counts=1e5).run()
    assert scan.frames.shape == (7, 32, 32) and scan.frames.dtype == np.uint16
    assert scan.frames.sum(axis=(1, 2)).mean() == pytest.approx(1e5, rel=0.3)
    assert scan.geometry.pixel_size == pytest.approx(10e-9) and scan.geometry.distance > 0
    assert scan.geometry.wavelength == pytest.approx(1.2398e-10, rel=1e-4)
    assert scan.raster is None


def test_a_full_raster_is_known_as_one():
    assert Experiment(trajectory="raster", size=16, points=9).run().raster == (3, 3)


@pytest.mark.parametrize("sample", SAMPLES)
def test_samples(sample):
    experiment = Experiment(sample=sample, size=32, points=3, noise=False, feature=20, phase_step=-0.7)
    scan = experiment.run()
    assert scan.frames.dtype == np.float32 and np.isfinite(scan.frames).all()
    assert scan.mask is None and scan.saturation is None and scan.name == f"{sample}-0"
    assert -0.9 < np.angle(scan.object.image).min() < -0.3
    assert json.loads(scan.metadata["experiment"])["sample"] == sample


def test_default_zone_plate_beam_is_a_ring_of_a_fifth_of_the_frame():
    beam = intensity(Experiment(size=128, energy=8e3, pixel_size=20e-9).probe())
    assert rms_radius(beam) / 128 == pytest.approx(0.2, abs=0.01)


def test_same_seed_same_scan_and_faults_of_the_detector():
    experiment = Experiment(size=32, points=4, dead_pixels=3, saturation=100, background=2.0, mode_powers=(0.7, 0.3))
    scan = experiment.run()
    np.testing.assert_array_equal(scan.frames, experiment.run().frames)
    assert (~scan.mask).sum() == 3 and scan.frames.max() == 100 and len(scan.probe) == 2


def test_a_given_probe_is_used():
    probe = gaussian_beam(32, fwhm=5)[None]
    scan = Experiment(size=32, points=2).run(probe=probe)
    np.testing.assert_allclose(scan.probe / 1e3, probe, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    "settings",
    [
        {"sample": "nothing"},
        {"beam": "laser pointer"},
        {"trajectory": "walk"},
        {"size": 31},
        {"points": 0},
        {"step": float("nan")},
        {"fwhm": -1.0},
        {"feature": 0.0},
        {"jitter": -0.1},
        {"amplitude_contrast": 1.0},
        {"mode_powers": ()},
        {"mode_powers": (1.0, -0.1)},
    ],
)
def test_refusals_name_the_field(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        Experiment(**settings)


@pytest.mark.parametrize("settings", [{"counts": 0.0}, {"dead_pixels": 10**6}, {"dtype": "float64"}, {"seed": -3}])
def test_refusals_when_run(settings):
    with pytest.raises(InputError):
        Experiment(size=16, points=2, **settings).run()


def test_a_probe_of_another_size_is_refused():
    with pytest.raises(InputError, match="probe"):
        Experiment(size=32).run(probe=gaussian_beam(16, fwhm=5)[None])
