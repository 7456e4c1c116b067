"""Virtual scan points: the forward model's own pairs, of training pixels only."""

from dataclasses import replace

import numpy as np
import pytest

from ptychow.detector_fit import fit_preparation
from ptychow.errors import InputError
from ptychow.scan import ObjectImage
from ptychow.training.data import LabelledFrames
from ptychow.training.virtual import VirtualPoints


@pytest.fixture
def labelled(scan):
    size = scan.frame_shape[0]
    weight = np.ones((size, size), np.float32)
    return LabelledFrames(scan, fit_preparation(scan), weight, constant_free=False)


def test_a_virtual_frame_is_what_its_label_scatters(labelled):
    inputs, labels = VirtualPoints(labelled, np.arange(len(labelled.scan))).draw(6, np.random.default_rng(0))
    waves = np.fft.fft2(labelled.scan.probe[None] * labels.numpy()[:, None], norm="ortho")
    expected = np.fft.fftshift((np.abs(waves) ** 2).sum(axis=1), axes=(-2, -1))
    prepared = labelled.preparation.finish(expected.astype(np.float32), labelled.scan.frame_shape)
    # The rest is Poisson noise: half a count in the square root, in units of the scale.
    noise = (inputs.numpy() - prepared).std()
    assert 0.2 < noise * labelled.preparation.scale_value < 0.7


def test_draws_depend_on_the_generator_alone(labelled):
    points = VirtualPoints(labelled, np.arange(len(labelled.scan)))
    first, again, other = (points.draw(3, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0].numpy(), again[0].numpy())
    assert not np.array_equal(first[1].numpy(), other[1].numpy())


def test_no_pixel_beyond_the_training_patches_is_shown(labelled):
    """Poison the object everywhere else: a virtual label must stay clean."""
    scan, size = labelled.scan, labelled.scan.frame_shape[0]
    rows = scan.positions_px[:, 0]
    train = np.flatnonzero(rows <= np.median(rows))
    last = int(np.floor(rows[train].max() - size // 2 + size - 1 - scan.object.origin[0]))
    image = scan.object.image.copy()
    image[last + 4 :] = 1e3  # the spline's kernel reaches less than four pixels in amplitude that matters
    poisoned = replace(labelled, scan=replace(scan, object=ObjectImage(image, scan.object.origin, "poisoned")))
    labels = VirtualPoints(poisoned, train).draw(64, np.random.default_rng(3))[1].numpy()
    clean = np.abs(scan.object.image).max()
    assert np.abs(labels).max() < 10 * clean


def test_all_eight_orientations_come(labelled):
    points = VirtualPoints(labelled, np.arange(len(labelled.scan)))
    assert len({orientation for orientation, _ in points._views}) == 8


def test_a_scan_without_a_probe_is_refused(labelled):
    with pytest.raises(InputError, match="need a probe and an object"):
        VirtualPoints(replace(labelled, scan=replace(labelled.scan, probe=None)), np.arange(3))
