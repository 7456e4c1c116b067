"""NSLS-II's scan files, beyond what all layouts are tested for; and frames of amplitudes elsewhere."""

import h5py
import layouts
import numpy as np
import pytest

from ptychow.errors import InputError
from ptychow.formats import read_scan
from ptychow.formats.nsls2 import foreshortening


@pytest.mark.parametrize(("angle", "factor"), [(0, 1), (60, np.sqrt(0.75)), (-60, np.sqrt(0.75)), (45, np.sqrt(0.5))])
def test_the_motor_of_a_turned_stage_goes_less_far_across_the_beam(tmp_path, angle, factor):
    assert foreshortening(angle) == pytest.approx(factor)
    scan = read_scan(layouts.nsls2(tmp_path, angle=angle)[0])
    np.testing.assert_allclose(scan.positions, layouts.POSITIONS, atol=1e-15)
    assert scan.metadata["angle"].startswith(f"{angle} degrees")


def test_zero_frequency_in_the_middle_where_it_is_said(tmp_path):
    path, _ = layouts.nsls2(tmp_path)
    shifted = read_scan(path).frames[:]
    left = read_scan(path, mapping={"fftshifted": "no"}).frames[:]
    np.testing.assert_array_equal(np.fft.fftshift(left, axes=(1, 2)), shifted)
    with pytest.raises(InputError, match="fftshifted: not understood; found maybe, expected yes or no"):
        read_scan(path, mapping={"fftshifted": "maybe"})


def test_lengths_that_are_zero_or_absent_are_unknown(tmp_path):
    geometry = read_scan(layouts.nsls2(tmp_path, z_m=0.0)[0]).geometry
    assert geometry.distance is None and geometry.wavelength is not None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"points": np.zeros((3, 12))}, r"points: not the points of a scan; found shape \(3, 12\)"),
        ({"points": np.zeros((2, 11))}, "positions"),
        ({"diffamp": np.zeros((12, 16))}, "diffamp: not a stack of images"),
        ({"lambda_nm": np.zeros(3)}, "lambda_nm"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changed, message):
    with pytest.raises(InputError, match=message):
        read_scan(layouts.nsls2(tmp_path, **changed)[0])


def test_amplitudes_below_zero_are_none(tmp_path):
    path, _ = layouts.nsls2(tmp_path)
    with h5py.File(path, "a") as file:
        file["diffamp"][3, 2, 2] = -1
    frames = read_scan(path).frames
    assert np.array_equal(frames[0], layouts.FRAMES[0])
    with pytest.raises(InputError, match="no amplitudes; found -1"):
        frames[3]


@pytest.mark.parametrize("kind", ["home made", "npz", "npy", "TIFF pages"])
def test_frames_of_amplitudes_are_squared_where_it_is_said(tmp_path, kind):
    path, mapping = layouts.LAYOUTS[kind][0](tmp_path)
    squared = read_scan(path, mapping=mapping | {"frames_are": "amplitudes"}).frames
    np.testing.assert_array_equal(squared[[3, 1]], np.square(layouts.FRAMES[[3, 1]].astype(float)))
    assert squared.shape == layouts.FRAMES.shape and squared.dtype == np.float32
    with pytest.raises(InputError, match="frames_are: not understood; found photons"):
        read_scan(path, mapping=mapping | {"frames_are": "photons"})
