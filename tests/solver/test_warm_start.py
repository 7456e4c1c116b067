"""Starting from a known object: where it helps it is used, where it misleads it is not."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from ptychow.errors import InputError
from ptychow.scan import ObjectImage
from ptychow.solver import best_start, flat_object, label, measure, object_frame, place, refine

pytest.importorskip("ptychi.api.task")

from whole_pixel_scan import SIZE, blurred, common_views, misfit, simulate


@pytest.fixture(scope="module")
def scan():
    return simulate()


@pytest.fixture(scope="module")
def measured(scan):
    """As an instrument gives it, with a doubtful probe."""
    return replace(scan, object=None, probe=blurred(scan.probe))


@pytest.fixture(scope="module")
def network(scan):
    """The truth without its finest detail, as a network would see it, on an array of its own."""
    image = ndimage.gaussian_filter(scan.object.image, 1.5)[2:, 1:]
    return ObjectImage(image, (scan.object.origin[0] + 2, scan.object.origin[1] + 1), "network")


def error(scan, image):
    return misfit(*common_views(image, scan.object, margin=SIZE // 2 + 3))


def test_place_moves_the_object_and_fills_in_the_rest(scan, network):
    coverage = np.ones(network.image.shape, np.float32)
    coverage[:30] = 0
    coverage[30:60] = 0.05
    placed = place(network, coverage, scan.positions_px, SIZE)
    origin, shape = object_frame(scan.positions_px, SIZE)
    assert placed.origin == origin and placed.image.shape == shape
    row, column = (np.array(network.origin) - origin).astype(int)
    there = placed.image[row : row + network.image.shape[0], column : column + network.image.shape[1]]
    given = network.image[: there.shape[0], : there.shape[1]]
    assert np.allclose(there[60:], given[60:], atol=1e-4)
    assert np.allclose(there[2:28], 1, atol=1e-3)
    assert np.allclose(there[32:58], (1 + given[32:58]) / 2, atol=1e-2)
    # Without a coverage, what is exactly 0 is unknown.
    dark = replace(network, image=np.where(coverage == 0, 0, network.image))
    assert np.allclose(place(dark, None, scan.positions_px, SIZE).image[row : row + 28, column:-5], 1, atol=1e-3)


def test_the_probe_is_scaled_to_the_counts(scan, network):
    half = ObjectImage(0.5 * network.image, network.origin, "")
    start = best_start(scan, measure(scan)[1], half, probe=7 * scan.probe)
    # Half the amplitude takes twice the probe.
    power = (np.abs(start.probe) ** 2).sum() / (np.abs(scan.probe) ** 2).sum()
    assert start.warm and 3.5 < power < 4.5


def test_error_tells_good_starts_from_bad(scan):
    _, data = measure(scan)
    known = [ndimage.gaussian_filter(scan.object.image, width) for width in (0, 1, 2, 4)]
    errors = [best_start(scan, data, ObjectImage(image, scan.object.origin, "")).error for image in known]
    assert errors == sorted(errors)
    assert errors[0] < 0.02 < errors[1]


def test_warm_is_ahead_of_cold(scan, measured, network):
    cold = label(measured, epochs=3, device="cpu")
    warm = refine(measured, network, probe=scan.probe, epochs=3, device="cpu")
    assert warm.started_warm and "the object given and the probe given" in warm.notes[-1]
    assert error(scan, warm.scan.object) < 0.5 * error(scan, cold.scan.object)
    mean_counts = scan.frames[:].sum(axis=(1, 2)).mean()
    assert (np.abs(warm.scan.probe) ** 2).sum() == pytest.approx(mean_counts, rel=1e-5)


WRONG = {
    "another sample": lambda image: simulate(seed=5).object.image,
    "conjugated": np.conj,
    "mirrored": lambda image: image[::-1],
    "noise": lambda image: np.exp(1j * np.random.default_rng(0).normal(size=image.shape)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_object_is_not_used_and_does_not_hurt(wrong, scan, measured):
    image = ObjectImage(WRONG[wrong](scan.object.image).astype(np.complex64), scan.object.origin, wrong)
    warm = refine(measured, image, probe=scan.probe, epochs=4, device="cpu")
    cold = label(measured, epochs=4, device="cpu")
    assert not warm.started_warm and "a flat object" in warm.notes[-1]
    assert error(scan, warm.scan.object) < 1.05 * error(scan, cold.scan.object)


def test_a_wrong_probe_is_not_used(scan, network):
    foreign = np.roll(scan.probe, 9, axis=1) * np.exp(0.3j * np.arange(SIZE))
    warm = refine(scan, network, probe=foreign.astype(np.complex64), epochs=1, device="cpu")
    assert warm.started_warm and "the scan's own probe" in warm.notes[-1]


def test_a_flat_object_starts_as_label_does(measured):
    cold = label(measured, epochs=2, device="cpu")
    warm = refine(measured, flat_object(measured.positions_px, SIZE), epochs=2, device="cpu")
    assert warm.errors == pytest.approx(cold.errors, rel=1e-3)


def test_bad_input_is_named(scan, network):
    with pytest.raises(InputError, match="not square"):
        refine(replace(scan, frames=scan.frames[:, :, :20], probe=None), network, device="cpu")


def test_a_probe_of_another_size_is_left_out(scan, network):
    start = best_start(scan, measure(scan)[1], network, probe=scan.probe[:, 8:-8, 8:-8])
    assert start.name == "the object given and the scan's own probe"
