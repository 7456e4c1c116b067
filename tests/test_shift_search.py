from dataclasses import replace

import numpy as np
import pytest

from conftest import smooth_object
from ptychow.optics.beam import gaussian_beam, incoherent_modes, scale_to_counts
from ptychow.optics.propagation import far_field
from ptychow.patches import PatchExtractor
from ptychow.shift_search import Pull, ShiftSearch, minimum
from ptychow.solver.measurement import Measurement

SIZE = 32


def measured(fwhm, modes=(0.8, 0.2), seed=0):
    """Noiseless frames at whole pixels, with probe and object, zero frequency at [0, 0]; and the positions."""
    rng = np.random.default_rng(seed)
    probe = scale_to_counts(incoherent_modes(gaussian_beam(SIZE, fwhm=fwhm, curvature=0.02), modes), 1e4)
    image = replace(smooth_object((80, 80), sigma=2.0), origin=(-40.0, -40.0))
    positions = rng.integers(-15, 15, (6, 2)).astype(float)
    patches = PatchExtractor(image, SIZE)(positions)
    frames = sum(np.abs(far_field(mode * patches)) ** 2 for mode in probe)
    frames = np.fft.ifftshift(frames, axes=(1, 2)).astype(np.float32)
    return Measurement(frames, np.ones((SIZE, SIZE), bool), "test"), image, probe, positions


@pytest.mark.parametrize(("fwhm", "stride"), [(5, 2), (12, 1)])
def test_errors_are_those_of_the_forward_model(fwhm, stride):
    data, image, probe, positions = measured(fwhm)
    search = ShiftSearch(data, image, probe)
    assert search.stride == stride
    found = search._errors(slice(2, 5), positions[2:5], np.array([-2, 0, 1]))
    for n, frame in enumerate(range(2, 5)):
        measured_root = np.sqrt(data.frames[frame])[::stride, ::stride]
        for i, down in enumerate((-2, 0, 1)):
            for j, right in enumerate((-2, 0, 1)):
                patch = PatchExtractor(image, SIZE)(positions[frame] + (down, right))[0]
                intensity = sum(np.abs(far_field(mode * patch)) ** 2 for mode in probe)
                predicted = np.fft.ifftshift(np.sqrt(intensity))[::stride, ::stride]
                expected = ((predicted - measured_root) ** 2).sum() / (measured_root**2).sum()
                # The window cuts a little of the probe.
                assert found[n, i, j] == pytest.approx(expected, abs=0.003 if stride == 2 else 1e-5)


@pytest.mark.parametrize("fwhm", [5, 12])
def test_search_finds_the_place(fwhm):
    data, image, probe, positions = measured(fwhm)
    wrong = positions + np.random.default_rng(3).integers(-5, 6, positions.shape) + 0.3
    places, errors = ShiftSearch(data, image, probe)(wrong, 7)
    assert np.abs(places - positions).max() < 0.35
    assert errors.max() < 0.1


def test_search_within_nothing_stays_and_measures():
    data, image, probe, positions = measured(12)
    places, errors = ShiftSearch(data, image, probe)(positions, 0)
    assert np.array_equal(places, positions)
    assert errors.max() < 1e-3


def test_search_leaves_bad_pixels_out():
    data, image, probe, positions = measured(5, modes=(1.0,))
    good = np.ones((SIZE, SIZE), bool)
    good[1:4] = False
    masked = Measurement(np.where(good, data.frames, 0).astype(np.float32), good, "test")
    trusting = Measurement(masked.frames, data.good, "test")
    places, errors = ShiftSearch(masked, image, probe)(positions + 2, 4)
    _, believed = ShiftSearch(trusting, image, probe)(positions + 2, 4)
    assert np.abs(places - positions).max() < 0.35
    assert (errors < believed).all()


def test_minimum_of_parabolas_is_exact():
    true = np.array([(2.3, 1.1), (3.0, 2.6), (-1.0, 3.4)])
    i, j = np.indices((6, 6))
    maps = np.stack([2 * (i - y) ** 2 + (j - x) ** 2 + 1 for y, x in true])
    assert minimum(maps) == pytest.approx(np.array([(2.3, 1.1), (3.0, 2.6), (0.0, 3.4)]))
    # A flat map has no minimum, and takes no step out of its first value.
    assert np.array_equal(minimum(np.ones((1, 5, 5))), [[0, 0]])


def test_what_the_frames_cannot_tell_is_left_to_the_pull():
    data, image, probe, positions = measured(12)
    stripes = replace(image, image=np.repeat(image.image[:, 40:41], image.image.shape[1], axis=1))
    patches = PatchExtractor(stripes, SIZE)(positions)
    frames = sum(np.abs(far_field(mode * patches)) ** 2 for mode in probe)
    noise = np.random.default_rng(0).poisson(np.fft.ifftshift(frames, axes=(1, 2))).astype(np.float32)
    search = ShiftSearch(replace(data, frames=noise), stripes, probe)
    known = Pull(positions + np.array((1.0, 0.0)), strength=0.01)
    places, _ = search(positions + np.array((3.0, 4.0)), 6, known)
    # Along the stripes nothing but the pull tells; across them the frames do.
    assert np.abs(places - positions).max() < 0.5
    free, _ = search(positions + np.array((3.0, 4.0)), 6)
    assert np.abs(free - positions)[:, 1].max() > 1


def test_the_pull_costs_the_square_of_the_distance():
    pull = Pull(np.array([(1.0, 2.0), (0.0, 0.0)]), strength=0.5)
    shifts = np.array([-1, 0, 1])
    expected = [[[0.5 * ((3 + a - 1) ** 2 + (b - 2) ** 2) for b in shifts] for a in shifts]]
    assert pull.cost(np.array([(3.0, 0.0), (0.0, 0.0)]), shifts)[:1] == pytest.approx(np.array(expected))
