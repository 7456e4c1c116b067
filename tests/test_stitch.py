"""Canvas and constants: round trips, independence of order and batch, gauge."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import positions_inside, smooth_object
from ptychow.errors import InputError
from ptychow.patches import PatchExtractor
from ptychow.stitch import Canvas, central_crop, probe_weight, shift_patches, shifted, solve_constants


def ring_probe(size=32):
    y, x = np.mgrid[:size, :size] - size // 2
    return (np.exp(-(((np.hypot(y, x) - 6) / 4) ** 2)) + 0j).astype(np.complex64)[None]


def test_perfect_patches_stitch_to_the_object():
    truth = smooth_object()
    rng = np.random.default_rng(2)
    positions = positions_inside(truth, 32, 150, rng)
    canvas = Canvas(positions, probe_weight(ring_probe()))
    canvas.add(PatchExtractor(truth, 32)(positions), positions)
    top, left = (int(c - o) for c, o in zip(canvas.origin, truth.origin, strict=True))
    expected = truth.image[top : top + canvas.shape[0], left : left + canvas.shape[1]]
    well_lit = canvas.coverage() > 1
    assert well_lit.mean() > 0.5
    assert np.abs(canvas.image() - expected)[well_lit].max() < 0.02
    assert canvas.variance()[well_lit].max() < 1e-3


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), batch=st.integers(1, 40))
def test_the_image_depends_on_neither_order_nor_batches(seed, batch):
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, 30, (40, 2))
    patches = (rng.normal(size=(40, 16, 16)) + 1j * rng.normal(size=(40, 16, 16))).astype(np.complex64)
    weight = rng.uniform(0.01, 1, (16, 16)).astype(np.float32)
    at_once, in_parts = Canvas(positions, weight), Canvas(positions, weight)
    at_once.add(patches, positions)
    order = rng.permutation(40)
    for start in range(0, 40, batch):
        chosen = order[start : start + batch]
        in_parts.add(patches[chosen], positions[chosen])
    scale = np.abs(at_once.image()).max()
    assert np.abs(at_once.image() - in_parts.image()).max() <= 1e-5 * scale
    np.testing.assert_allclose(at_once.coverage(), in_parts.coverage(), rtol=1e-5)


def test_canvas_agrees_with_a_plain_loop_on_whole_pixels():
    rng = np.random.default_rng(3)
    positions = rng.integers(8, 30, (25, 2)).astype(float)
    patches = rng.normal(size=(25, 16, 16)) + 1j * rng.normal(size=(25, 16, 16))
    weight = rng.uniform(0.01, 1, (16, 16)).astype(np.float32)
    canvas = Canvas(positions, weight)
    canvas.add(patches, positions)
    total, weights = np.zeros(canvas.shape, complex), np.zeros(canvas.shape)
    for (y, x), patch in zip((positions - 8 - canvas.origin).astype(int), patches, strict=True):
        for i in range(16):
            for j in range(16):
                total[y + i, x + j] += weight[i, j] * patch[i, j]
                weights[y + i, x + j] += weight[i, j]
    expected = np.where(weights > 0, total / np.where(weights > 0, weights, 1), 0)
    np.testing.assert_allclose(canvas.image(), expected, atol=1e-5)


@pytest.mark.parametrize("error", [1e-12, -1e-12])
def test_a_whole_pixel_is_one_whatever_rounding_says(error):
    canvas = Canvas(np.array([[8.0, 12.0]]) + error, np.ones((8, 8), np.float32))
    assert canvas.shape == (8, 8) and canvas.origin == (4.0, 8.0)
    canvas.add(np.ones((1, 8, 8), complex), np.array([[8.0, 12.0]]) + error)
    np.testing.assert_allclose(canvas.image(), 1)


def test_shifting_by_a_whole_pixel_moves_pixels():
    patches = np.random.default_rng(0).normal(size=(2, 8, 8)) + 0j
    moved = shift_patches(patches, np.array([[1.0, 0.0], [1.0, 0.0]]))
    np.testing.assert_allclose(moved[:, 1:], patches[:, :-1], atol=1e-12)


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.7, 1.0])
def test_reading_between_pixels_is_exact_for_parabolas(fraction):
    rows, columns = np.indices((12, 12)).astype(np.float64)

    def parabola(down, right):
        return 0.02 * down**2 - 0.03 * down * right + 1j * (0.1 * right + 0.01 * right**2)

    read = shift_patches(parabola(rows, columns)[None], np.array([[fraction, fraction / 2]]))[0]
    inner = slice(3, -3), slice(3, -3)
    np.testing.assert_allclose(read[inner], parabola(rows - fraction, columns - fraction / 2)[inner], atol=1e-6)


def test_shifting_can_be_differentiated():
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.normal(size=(2, 4, 4, 2)).view(complex)[..., 0]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: shifted(x, np.array([[0.3, 0.0], [0.8, 0.5]])), (images,))


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_constants_are_found_from_the_overlaps(noise):
    truth = smooth_object()
    rng = np.random.default_rng(5)
    positions = positions_inside(truth, 32, 120, rng)
    patches = PatchExtractor(truth, 32)(positions)
    patches += (noise * (rng.normal(size=patches.shape) + 1j * rng.normal(size=patches.shape))).astype(np.complex64)
    hidden = np.exp(1j * rng.uniform(-np.pi, np.pi, 120))
    constants = solve_constants(patches * hidden[:, None, None], positions, probe_weight(ring_probe()))
    np.testing.assert_allclose(np.abs(constants), 1, atol=1e-5)
    left = np.angle(constants * hidden / np.exp(1j * np.angle((constants * hidden).sum())))
    assert np.abs(left).max() < (0.01 if noise == 0 else 0.1)


def test_constants_of_patches_that_nowhere_overlap_stay_unit():
    patches = np.ones((3, 8, 8), np.complex64) * np.exp(1j * np.arange(3))[:, None, None]
    constants = solve_constants(patches, np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]]), np.ones((8, 8), np.float32))
    np.testing.assert_allclose(np.abs(constants), 1, atol=1e-6)


def test_weights_are_never_zero_and_the_centre_stays_the_centre():
    probe = np.zeros((2, 16, 16), np.complex64)
    probe[0, 8, 8] = 3
    weight = probe_weight(probe)
    assert weight[8, 8] == 1 and weight.min() > 0
    assert central_crop(weight, 5)[2, 2] == 1
    with pytest.raises(InputError, match="no light"):
        probe_weight(0 * probe)


def test_positions_in_a_wrong_unit_take_no_memory():
    with pytest.raises(InputError, match=r"positions: span 1,000,000,03\d x 32 object pixels; .*GiB.*unit"):
        Canvas(np.array([[0.0, 0.0], [1e9, 0.0]]), np.ones((32, 32), np.float32))


def test_bad_patches_and_foreign_positions_are_refused():
    canvas = Canvas(np.array([[0.0, 0.0], [10.0, 10.0]]), np.ones((8, 8), np.float32))
    with pytest.raises(InputError, match="not finite"):
        canvas.add(np.full((1, 8, 8), np.nan + 0j), np.array([[5.0, 5.0]]))
    with pytest.raises(InputError, match="outside the canvas"):
        canvas.add(np.ones((1, 8, 8), complex), np.array([[50.0, 5.0]]))
