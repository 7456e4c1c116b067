"""`simulate` against the coarse-grid model, a brute-force sum, and what a detector cannot see."""

from dataclasses import replace

import numpy as np
import pytest

from ptychow.errors import InputError
from ptychow.optics.beam import gaussian_beam, incoherent_modes
from ptychow.optics.detection import Detector, random_dead_pixels
from ptychow.optics.propagation import far_field, radius_map
from ptychow.optics.simulate import canvas, simulate
from ptychow.scan import Geometry

SIZE = 32


def narrow_probe() -> np.ndarray:
    """Two modes without any symmetry that end well within the window, and the detector, on a smooth sample."""
    rows, columns = np.indices((SIZE, SIZE)) - SIZE // 2
    beam = gaussian_beam(SIZE, fwhm=6, curvature=0.02) * np.exp(0.5j * rows - 0.2j * columns)
    return incoherent_modes(beam * (3 + 1j * rows - 2 * columns), (0.8, 0.2))


def smooth_sample(shape: tuple[int, int], offset: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Slow waves, periodic over `shape` and as good as band-limited, seen `offset` pixels further on."""
    rows, columns = (np.indices(shape) + 2 * np.reshape(offset, (2, 1, 1))) / np.reshape(shape, (2, 1, 1))
    wave = np.cos(2 * np.pi * (rows + columns)) + np.sin(2 * np.pi * (rows - 2 * columns))
    return np.exp(0.4j * wave - 0.05 * wave)


def coarse_frames(scan) -> np.ndarray:
    """What the far field of probe x truth on the object-pixel grid gives at whole-pixel positions."""
    corners = np.rint(scan.positions_px - scan.object.origin).astype(int) - SIZE // 2
    patches = np.stack([scan.object.image[r : r + SIZE, c : c + SIZE] for r, c in corners])
    return np.sum(np.abs(far_field(scan.probe[None] * patches[:, None])) ** 2, axis=1)


def run(positions, probe=None, sample=smooth_sample, **settings):
    shape, origin = canvas(positions, SIZE)
    settings = {"counts": 1e4, "origin": origin} | settings
    return simulate(narrow_probe() if probe is None else probe, sample(shape), positions, **settings)


def test_truth_and_probe_reproduce_the_frames():
    """The oracle of all conventions: centre, grid alignment of the truth, transform, modes, counts."""
    positions = np.array([(0, 0), (5, -3), (-7, 11), (4, 4)], float)
    scan = run(positions)
    np.testing.assert_allclose(scan.frames, coarse_frames(scan), atol=2e-4 * scan.frames.max())


def test_the_wrong_alignment_of_the_truth_would_be_seen():
    scan = run(np.array([(0.0, 0.0), (5.0, -3.0)]))
    moved = replace(scan.object, origin=(scan.object.origin[0] + 1, scan.object.origin[1]))
    difference = np.abs(scan.frames - coarse_frames(replace(scan, object=moved))).max()
    assert difference > 0.02 * scan.frames.max()


def test_sub_pixel_positions_equal_a_sample_moved_the_other_way():
    position = np.array([(2.3, -1.85)])
    scan = run(position)
    shape, origin = canvas(position, SIZE)
    # The sample is known in closed form: draw it where the probe, at a whole pixel, sees the same.
    moved = smooth_sample(shape, position[0] - (2, -2))
    expected = simulate(narrow_probe(), moved, [(2, -2)], origin=origin, counts=1e4)
    np.testing.assert_allclose(scan.frames, expected.frames, atol=2e-4 * scan.frames.max())
    rounded = simulate(narrow_probe(), smooth_sample(shape), [(2, -2)], origin=origin, counts=1e4)
    assert np.abs(scan.frames - rounded.frames).max() > 0.005 * scan.frames.max()


def test_an_empty_beam_path_shows_the_probe_and_all_its_photons():
    scan = run(np.zeros((1, 2)), sample=lambda shape: np.ones(shape, complex))
    np.testing.assert_allclose(scan.frames, coarse_frames(scan), atol=1e-5 * scan.frames.max())
    assert scan.frames.sum() == pytest.approx(1e4, rel=1e-4)


def test_light_leaves_the_detector_instead_of_wrapping():
    """A phase grating of 3 pixels, lit by a tilted beam, sends one of its first orders beyond the detector."""
    rows = np.arange(SIZE) - SIZE // 2
    tilt = np.exp(2j * np.pi * 0.3 * rows)[:, None]
    beam = gaussian_beam(SIZE, fwhm=10) * tilt

    def grating(shape):
        return np.exp(1.0j * np.cos(2 * np.pi * np.arange(shape[0]) / 6))[:, None] * np.ones(shape)

    scan = run(np.zeros((1, 2)), probe=beam, sample=grating)
    frame = scan.frames[0]
    # Orders 0 (at 0.3) and -1 (at -0.033) stay; +1 (at 0.633) would wrap to -0.367.
    profile = frame.sum(axis=1)
    frequency = rows / SIZE
    assert profile[np.abs(frequency - 0.3) < 0.07].sum() > 0.5 * 1e4
    assert profile[np.abs(frequency + 0.033) < 0.07].sum() > 0.15 * 1e4
    assert profile[np.abs(frequency + 0.367) < 0.07].sum() < 0.02 * 1e4
    assert frame.sum() < 0.83 * 1e4
    wrapped = coarse_frames(scan)[0].sum(axis=1)
    assert wrapped[np.abs(frequency + 0.367) < 0.07].sum() > 0.15 * 1e4


def test_frames_do_not_depend_on_the_batch_and_parts_equal_the_whole():
    positions = np.random.default_rng(0).uniform(-10, 10, (11, 2))
    positions[::3] = positions[::3].round()  # whole and fractional pixels in one batch
    detector = Detector(background=0.5)
    whole = run(positions, detector=detector, seed=3, batch=4)
    np.testing.assert_array_equal(whole.frames, run(positions, detector=detector, seed=3, batch=11).frames)
    shape, origin = canvas(positions, SIZE)
    chosen = [7, 2]
    part = simulate(
        narrow_probe(),
        smooth_sample(shape),
        positions[chosen],
        origin=origin,
        counts=1e4,
        detector=detector,
        seed=3,
        indices=chosen,
    )
    np.testing.assert_array_equal(part.frames, whole.frames[chosen])
    assert (run(positions, detector=detector, seed=4).frames != whole.frames).mean() > 0.1


def test_noise_is_poisson_about_the_noiseless_frames():
    positions = np.zeros((400, 2))
    clean = run(positions[:1]).frames[0]
    noisy = run(positions, detector=Detector()).frames
    assert len(np.unique(noisy.reshape(400, -1), axis=0)) == 400
    bright = clean > 5
    ratio = noisy.var(axis=0, dtype=float)[bright] / clean[bright]
    assert ratio.mean() == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(noisy.mean(axis=0)[bright], clean[bright], rtol=0.15)


def test_scan_says_what_is_known():
    geometry = Geometry(pixel_size=10e-9)
    dead = random_dead_pixels((SIZE, SIZE), 6, np.random.default_rng(0))
    positions = np.array([(0.0, 0.0), (3.0, 4.5)])
    scan = run(positions, detector=Detector(dead=dead, saturation=40), geometry=geometry, name="x")
    assert scan.position_unit == "m" and scan.name == "x" and scan.saturation == 40
    np.testing.assert_allclose(scan.positions, positions * 10e-9)
    np.testing.assert_array_equal(scan.mask, ~dead)
    assert (scan.frames[:, dead] == 0).all() and scan.frames.max() == 40
    assert scan.object.source == "simulation" and "seed" in scan.metadata["simulation"]
    silent = run(positions, detector=Detector(dead=dead), mask_known=False)
    assert silent.mask is None and silent.position_unit == "px" and silent.geometry.pixel_size is None
    assert (silent.frames[:, dead] == 0).all()


def test_progress_counts_every_frame():
    steps: list[int] = []
    run(np.zeros((10, 2)), batch=4, advance=steps.append)
    assert steps == [4, 4, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probe": np.ones((1, 7, 7), complex)}, "probe"),
        ({"sample": lambda shape: np.ones((9, 9), complex)}, "sample"),
        ({"sample": lambda shape: np.ones((20, 20), complex)}, "reach"),
        ({"probe": np.zeros((1, 8, 8), complex)}, "light"),
        ({"sample": lambda shape: np.full(shape, complex("nan"))}, "finite"),
        ({"counts": -1}, "counts"),
        ({"counts": float("nan")}, "counts"),
        ({"detector": Detector(dead=np.zeros((3, 3), bool))}, "dead pixels"),
        ({"seed": -1, "detector": Detector()}, "seed"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(InputError, match=message):
        run(np.zeros((2, 2)), **settings)


def test_canvas_holds_every_patch():
    positions = np.array([(-3.5, 2.0), (10.2, 4.0)])
    shape, origin = canvas(positions, SIZE, margin=0)
    assert origin == (-4 - 16, 2 - 16) and shape == (2 * (11 + 16 + 20), 2 * (4 + 16 + 14))
    assert radius_map((4, 4))[2, 2] == 0
