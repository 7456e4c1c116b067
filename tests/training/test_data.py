from dataclasses import replace

import numpy as np
import pytest
import torch

from ptychow.detector_fit import fit_preparation
from ptychow.errors import InputError
from ptychow.patches import PatchExtractor
from ptychow.scan import ObjectImage
from ptychow.stitch import probe_weight
from ptychow.training.data import LabelledFrames, PairSet, wrapped_fraction

ONES = np.ones((32, 32), np.float32)


@pytest.fixture(scope="module")
def preparation(scan):
    return fit_preparation(scan)


def test_a_label_is_the_object_where_the_frame_looked(scan, preparation):
    chosen = np.array([3, 40, 12])
    labels = LabelledFrames(scan, preparation, ONES, constant_free=False).labels(chosen)
    np.testing.assert_array_equal(labels, PatchExtractor(scan.object, 32)(scan.positions_px[chosen]))
    half = LabelledFrames(scan, preparation, ONES, constant_free=False, amplitude_scale=2.0).labels(chosen)
    np.testing.assert_allclose(half, labels / 2, rtol=1e-6)


def test_labels_without_a_constant_have_a_real_positive_weighted_mean(scan, preparation):
    weight = probe_weight(scan.probe)
    labels = LabelledFrames(scan, preparation, weight / weight.mean(), constant_free=True).labels(np.arange(10))
    mean = (weight * labels).sum(axis=(1, 2))
    assert (mean.real > 0).all() and np.abs(np.angle(mean)).max() < 1e-5


def test_a_cropped_detector_has_labels_on_coarser_pixels():
    from conftest import small_scan

    scan = small_scan(lines=4)
    cropped = fit_preparation(scan, crop=16)
    labels = LabelledFrames(scan, cropped, np.ones((16, 16), np.float32), constant_free=False).labels(np.arange(16))
    full = LabelledFrames(scan, fit_preparation(scan), ONES, constant_free=False).labels(np.arange(16))
    # Pixel [8, 8] of the coarse patch and [16, 16] of the fine one are the probe's centre.
    assert np.abs(labels[:, 2:-2, 2:-2] - full[:, 4:-4:2, 4:-4:2]).mean() < 0.08
    assert np.abs(labels[:, 2:-2, 2:-2] - full[:, 5:-3:2, 5:-3:2]).mean() > 0.09


def test_label_patches_serve_as_they_are(scan, preparation):
    patches = np.random.default_rng(0).normal(size=(len(scan), 32, 32)).astype(np.complex64)
    one = replace(scan, object=None, label_patches=patches)
    labels = LabelledFrames(one, preparation, ONES, constant_free=False).labels(np.array([5, 2]))
    np.testing.assert_array_equal(labels, patches[[5, 2]])
    with pytest.raises(InputError, match=r"small-0.cxi: label_patches: of another size .* found \(16, 16\)"):
        LabelledFrames(replace(one, label_patches=patches[:, :16, :16]), preparation, ONES, constant_free=False)


def test_a_scan_without_labels_is_refused_with_the_command_that_makes_them(unlabelled, preparation):
    with pytest.raises(InputError, match=r"small-0.cxi: object: has no labels. .*ptychow label"):
        LabelledFrames(unlabelled, preparation, ONES, constant_free=True)


def test_an_object_that_is_too_small_names_the_scan(scan, preparation):
    small = ObjectImage(scan.object.image[:60], scan.object.origin, "cut")
    labelled = LabelledFrames(replace(scan, object=small), preparation, ONES, constant_free=False)
    with pytest.raises(InputError, match=r"small-0.cxi: object: 1 of 1 patches .* leave the object"):
        labelled.labels(np.array([79]))


def test_bad_counts_name_the_scan(scan, preparation):
    frames = scan.frames.astype(np.float32)
    frames[7, 3, 3] = np.nan
    labelled = LabelledFrames(replace(scan, frames=frames), preparation, ONES, constant_free=False)
    with pytest.raises(InputError, match=r"small-0.cxi: frames: not finite"):
        labelled.inputs(np.arange(10))


def test_streamed_pairs_are_the_pairs_in_memory(scan, preparation):
    from conftest import small_scan

    parts = [
        (LabelledFrames(one, preparation, ONES, constant_free=True), indices)
        for one, indices in ((scan, np.arange(5, 30)), (small_scan(1, lines=3), np.array([4, 0, 7])))
    ]
    held, streamed = PairSet(parts), PairSet(parts, memory_limit=0)
    assert len(held) == len(streamed) == 28
    order = np.random.default_rng(0).permutation(28)
    for first, second in zip(held.batch(order), streamed.batch(order), strict=True):
        assert torch.equal(first, second)
    inputs, labels = streamed.batch(np.array([27]))
    np.testing.assert_array_equal(inputs[0], parts[1][0].inputs(np.array([7]))[0])
    np.testing.assert_array_equal(labels[0], parts[1][0].labels(np.array([7]))[0])


def test_pairs_that_would_fill_the_memory_are_streamed(scan, preparation, monkeypatch):
    parts = [(LabelledFrames(scan, preparation, ONES, constant_free=True), np.arange(10))]
    needed = 10 * 32 * 32 * (4 + 8)
    for free, held in ((2 * needed, True), (2 * needed - 2, False)):
        monkeypatch.setattr("ptychow.training.data.free_memory", lambda free=free: free)
        assert (PairSet(parts)._cache is not None) == held


def test_no_frames_are_no_pairs():
    assert len(PairSet([])) == 0


def test_wrapped_phases_are_counted_where_light_falls():
    weight = np.full((4, 4), 0.01, np.float32)
    weight[1:3, 1:3] = 1
    labels = np.ones((2, 4, 4), np.complex64)
    labels[0, 0, 0] = -1  # dark
    labels[0, 1, 1] = np.exp(0.95j * np.pi)
    labels[1, 2, 2] = np.exp(0.85j * np.pi)
    assert wrapped_fraction(labels, weight) == pytest.approx(1 / 8)
