"""npz with diffraction and corner positions."""

import numpy as np
import pytest

from ptychow.datasets import locate
from ptychow.errors import InputError
from ptychow.formats import read_scan

RNG = np.random.default_rng(2)
FRAMES = RNG.poisson(20, (7, 6, 9)).astype(np.uint16)
CENTRE = np.array([3, 4])
ARRAYS = {
    "diffraction": FRAMES,
    "positions_px": RNG.normal(size=(7, 2)).astype(np.float32),
    "positions_px_nominal": RNG.normal(size=(7, 2)).astype(np.float32),
    "probe": (RNG.normal(size=(2, 6, 9)) + 1j).astype(np.complex64),
}


@pytest.fixture(params=[np.savez, np.savez_compressed])
def save(request, tmp_path):
    def write(**changes):
        arrays = {name: value for name, value in (ARRAYS | changes).items() if value is not None}
        request.param(tmp_path / "scan.npz", **arrays)
        return tmp_path / "scan.npz"

    return write


def test_corners_become_centres(save):
    scan = read_scan(save())
    assert np.array_equal(scan.frames[:], FRAMES)
    assert scan.positions.dtype == np.float64
    assert np.array_equal(scan.positions, ARRAYS["positions_px"].astype(float) + CENTRE)
    assert np.array_equal(scan.nominal_positions, ARRAYS["positions_px_nominal"].astype(float) + CENTRE)
    assert scan.position_unit == "px" and scan.geometry.pixel_size is None


def test_probe_carries_the_mean_counts(save):
    scan = read_scan(save())
    assert np.sum(np.abs(scan.probe) ** 2) == pytest.approx(FRAMES.sum() / 7, rel=1e-5)
    ratio = scan.probe / ARRAYS["probe"]
    assert np.allclose(ratio, ratio[0, 0, 0], rtol=1e-5)  # one factor: modes keep their shares
    assert f"multiplied by {ratio[0, 0, 0].real:.4f}" in scan.metadata["probe_scale"]


def test_what_is_no_count_is_no_light_for_the_probe(save):
    frames = FRAMES.astype(np.uint16)
    frames[:, :2] = 65535
    scan = read_scan(save(diffraction=frames))
    assert np.sum(np.abs(scan.probe) ** 2) == pytest.approx(FRAMES[:, 2:].sum() / 7, rel=1e-5)
    frames = FRAMES.astype(np.float32)
    frames[3, 4, 4] = np.nan
    scan = read_scan(save(diffraction=frames))
    assert np.sum(np.abs(scan.probe) ** 2) == pytest.approx(FRAMES.sum() / 7, rel=0.01)


def test_minimal(save):
    scan = read_scan(save(probe=None, positions_px_nominal=None))
    assert scan.probe is None and scan.nominal_positions is None and scan.metadata == {}


def test_dark_frames_leave_the_probe_alone(save):
    scan = read_scan(save(diffraction=np.zeros_like(FRAMES)))
    assert np.array_equal(scan.probe, ARRAYS["probe"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions_px": np.zeros((6, 2))}, "found 6 positions for 7 frames"),
        ({"positions_px": np.zeros((7, 3))}, r"positions: does not fit; found shape \(7, 3\)"),
        ({"positions_px": np.full((7, 2), np.inf)}, "positions: does not fit; found 7 not finite"),
        ({"probe": np.ones((2, 6, 9))}, "probe: does not fit; found dtype float64"),
        ({"probe": ARRAYS["probe"][0]}, r"probe: does not fit; found shape \(6, 9\)"),
        ({"diffraction": FRAMES[0]}, "diffraction: not a stack of images"),
        ({"diffraction": np.array([None])}, "Pickled objects are never opened"),
        ({"positions_px": np.array(["a", "b"])}, "not a plain array of numbers"),
    ],
)
def test_faults(save, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        read_scan(save(**changes))
    assert "scan.npz" in str(caught.value)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "frames", "modes", "counts"),
    [("siemens-star", 516, 1, 4.612e5), ("tungsten-26id", 481, 3, 5.073e7)],
)
def test_real_scans(name, frames, modes, counts):
    path = locate(name)
    if path is None:
        pytest.skip(f"{name} is not here: set PTYCHOW_DATA, or run `ptychow fetch {name}`")
    scan = read_scan(path)
    assert scan.frames.shape == (frames, 128, 128) and scan.frames.dtype == np.uint16
    assert scan.probe.shape == (modes, 128, 128)
    assert np.sum(np.abs(scan.probe) ** 2) == pytest.approx(counts, rel=1e-3)
    assert scan.geometry.pixel_size is None and scan.position_unit == "px"
    assert (scan.nominal_positions is not None) == (name == "tungsten-26id")
    rows, columns = np.mgrid[:128, :128]
    mean = scan.frames[:].mean(axis=0)
    # Zero frequency lies in the middle: fft-shifted patterns have their mass in the corners.
    assert np.average(np.hypot(rows - 64, columns - 64), weights=mean) < 64
    assert np.allclose([np.average(rows, weights=mean), np.average(columns, weights=mean)], 64, atol=4)
