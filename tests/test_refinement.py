"""The network's object as a start, from a Model and a scan to one file with both objects."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from scipy import ndimage

from conftest import small_scan
from ptychow.formats.cxi import read_object, read_reconstruction
from ptychow.patches import PatchExtractor
from ptychow.reconstruction import reconstruct
from ptychow.refinement import as_counts, refine_reconstruction

pytest.importorskip("ptychi.api.task")


@pytest.fixture(scope="module")
def found(scan, trained):
    """What a good network would have made: the truth without its finest detail."""
    made = reconstruct(scan, trained.model, device="cpu")
    smooth = replace(scan.object, image=ndimage.gaussian_filter(scan.object.image, 2))
    image = PatchExtractor(smooth, 8).region(made.image.origin, made.image.image.shape)
    return replace(made, image=replace(made.image, image=image))


def distance(scan, found, image):
    """1 - correlation with the truth where light fell."""
    truth = PatchExtractor(scan.object, 8).region(image.origin, image.image.shape)
    lit = found.lit & (truth != 0)
    values, truth = image.image[lit], truth[lit]
    return 1 - abs(np.vdot(values, truth)) / np.linalg.norm(values) / np.linalg.norm(truth)


def test_refines_on_the_same_pixels_and_keeps_what_the_network_gave(scan, trained, found, tmp_path):
    refined = refine_reconstruction(found, scan, trained.model, epochs=4, device="cpu")
    assert refined.image.image.shape == found.image.image.shape == refined.coverage.shape
    assert refined.image.origin == found.image.origin
    assert distance(scan, found, refined.image) < 0.5 * distance(scan, found, found.image)
    assert refined.network_image is found.image
    assert refined.warnings == found.warnings
    record = refined.summary["refinement"]
    assert record["epochs"] == len(record["errors"]) == 4
    assert 0 < record["object_residual"] < refined.summary["object_residual"] == found.summary["object_residual"]
    assert record["notes"][-1].startswith("started from the object given")
    assert refined.image.source.startswith("LSQML") and found.image.source in refined.image.source

    refined.save(tmp_path / "refined.cxi")
    assert np.array_equal(read_object(tmp_path / "refined.cxi").image, refined.image.image)
    with h5py.File(tmp_path / "refined.cxi") as file:
        assert np.array_equal(file["entry_1/image_2/data"], found.image.image)
        assert tuple(file["entry_1/image_2"].attrs["origin_px"]) == found.image.origin
    known = read_reconstruction(tmp_path / "refined.cxi")
    assert np.array_equal(known.image.image, refined.image.image)
    assert np.array_equal(known.coverage, refined.coverage)
    assert np.array_equal(known.probe, refined.probe)
    assert known.pixel_size == pytest.approx(scan.geometry.pixel_size)


def test_a_misled_network_is_left_out_and_told(scan, trained, found):
    other = small_scan(seed=7).object
    image = PatchExtractor(other, 8).region(found.image.origin, found.image.image.shape)
    misled = replace(found, image=replace(found.image, image=np.conj(image)))
    refined = refine_reconstruction(misled, scan, trained.model, epochs=4, device="cpu")
    assert "the network's object does not explain the frames" in refined.warnings[-1]
    assert "a flat object" in refined.warnings[-1]
    assert distance(scan, found, refined.image) < distance(scan, found, misled.image)


def test_counts_are_what_the_detector_saw(scan, trained):
    counts = as_counts(scan, trained.model)
    assert counts.object is None and counts.label_patches is None
    assert counts.frames[:3] == pytest.approx(scan.frames[:3])
    assert np.array_equal(counts.positions_px, scan.positions_px)
