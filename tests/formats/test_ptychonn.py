"""PtychoNN's pair of files, in the published layout and in others."""

import numpy as np
import pytest

from ptychow.errors import InputError
from ptychow.formats import read_scan

LINES, POINTS, SIZE = 4, 5, 8
RNG = np.random.default_rng(5)
FRAMES = RNG.poisson(3, (LINES, POINTS, 64, 64)).astype(np.int16)
LABELS = (RNG.random((LINES, POINTS, SIZE, SIZE)) * np.exp(1j * RNG.random((LINES, POINTS, SIZE, SIZE)))).astype(
    np.complex128
)


@pytest.fixture(params=[np.savez, np.savez_compressed])
def published(tmp_path, request):
    """The published names and layout, fewer lines."""
    request.param(tmp_path / "20191008_39_diff_reduced.npz", FRAMES)
    np.save(tmp_path / "20191008_39_amp_pha_10nm_full.npy", LABELS)
    return tmp_path / "20191008_39_diff_reduced.npz"


def test_published_pair(published):
    scan = read_scan(published)
    assert scan.raster == (LINES, POINTS)
    assert np.array_equal(scan.frames[:], FRAMES.reshape(-1, 64, 64))
    assert np.array_equal(scan.label_patches[7], LABELS[1, 2])
    assert scan.geometry.pixel_size == 10e-9 and scan.position_unit == "m"
    assert np.allclose(scan.positions_px[7], [3, 6])  # line 1, point 2, three pixels a step
    assert "as published" in scan.metadata["positions"]


def test_selection_keeps_labels_with_their_frames(published):
    part = read_scan(published).select(np.array([9, 2]))
    assert np.array_equal(part.frames[0], FRAMES[1, 4])
    assert np.array_equal(part.label_patches[0], LABELS[1, 4])


def test_256_pixel_frames_have_finer_object_pixels(tmp_path):
    np.savez(tmp_path / "20191008_39_diff.npz", np.zeros((2, 3, 256, 256), np.uint8))
    scan = read_scan(tmp_path / "20191008_39_diff.npz")
    assert scan.geometry.pixel_size == pytest.approx(7.5e-9)
    assert np.allclose(scan.positions[-1], [30e-9, 60e-9])
    assert scan.label_patches is None


def test_other_names_need_a_step(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, FRAMES)
    with pytest.raises(InputError, match=r"mine\.npz: step_m or step_px: the step of the raster is not in the file"):
        read_scan(path)
    scan = read_scan(path, mapping={"step_px": "2.5"})
    assert scan.position_unit == "px" and np.allclose(scan.positions[-1], [7.5, 10.0])
    assert scan.geometry.pixel_size is None
    scan = read_scan(path, mapping={"step_m": "20e-9"}, pixel_size=5e-9)
    assert np.allclose(scan.positions_px[-1], [12, 16])


def test_labels_by_mapping(tmp_path):
    np.savez(tmp_path / "mine.npz", FRAMES)
    np.save(tmp_path / "patches.npy", LABELS)
    mapping = {"step_px": "3", "labels": str(tmp_path / "patches.npy")}
    assert read_scan(tmp_path / "mine.npz", mapping=mapping).label_patches.shape == (20, SIZE, SIZE)


def test_plain_npy(tmp_path):
    np.save(tmp_path / "frames.npy", FRAMES)
    scan = read_scan(tmp_path / "frames.npy", mapping={"step_px": "3"})
    assert np.array_equal(scan.frames[6], FRAMES[1, 1])


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"step_px": "3", "step_m": "1e-8"}, "given twice"),
        ({"step_px": "three"}, "step_px: not a distance; found three"),
        ({"step_px": "0"}, "step_px: not a distance"),
        ({"step_px": "inf"}, "step_px: not a distance"),
        ({"labels": "nowhere.npy"}, "nowhere.npy: labels: no such file"),
        (
            {"object": "/data"},
            "object: a mapping this kind of file does not understand; expected some of labels, step_m",
        ),
    ],
)
def test_faults(published, mapping, message):
    with pytest.raises(InputError, match=message):
        read_scan(published, mapping=mapping)


@pytest.mark.parametrize("labels", [LABELS[:3], LABELS.real, LABELS[0]])
def test_labels_of_another_scan(published, labels):
    path = published.parent / "20191008_39_amp_pha_10nm_full.npy"
    np.save(path, labels)
    with pytest.raises(
        InputError, match=r"amp_pha_10nm_full\.npy: not (the labels of these frames|a stack)|not the labels"
    ):
        read_scan(published)


def test_two_possible_label_files(published):
    np.save(published.parent / "20191008_39_amp_pha_other.npy", LABELS)
    with pytest.raises(InputError, match=r"several files may be its labels; found .*--map labels=FILE"):
        read_scan(published)
