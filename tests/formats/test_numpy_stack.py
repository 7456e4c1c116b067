"""Frames saved with NumPy, and what is said of them."""

import numpy as np
import pytest

from ptychow.errors import InputError
from ptychow.formats import read_scan

RNG = np.random.default_rng(5)
FRAMES = RNG.poisson(3, (6, 8, 8)).astype(np.uint16)
YX = RNG.normal(size=(6, 2))
SAID = {"positions": "yx", "position_unit": "px"}


def written(folder, **arrays):
    np.savez(folder / "scan.npz", **arrays)
    return folder / "scan.npz"


def test_two_arrays_of_positions_and_a_raster(tmp_path):
    path = written(tmp_path, dp=FRAMES.reshape(2, 3, 8, 8), down=YX[:, 0], right=YX[:, 1])
    said = {"positions": "down,-right", "position_unit": "um", "energy_ev": "9000", "distance_m": "2", "drop": "5"}
    scan = read_scan(path, mapping=said)
    assert np.array_equal(scan.frames[:], FRAMES[:5]) and scan.raster is None
    np.testing.assert_allclose(scan.positions, YX[:5] * [1e-6, -1e-6])
    assert scan.geometry.wavelength == pytest.approx(1.377602e-10, rel=1e-6) and scan.geometry.distance == 2
    del said["drop"]
    assert read_scan(path, mapping=said).raster == (2, 3)


def test_which_of_several_stacks(tmp_path):
    path = written(tmp_path, dp=FRAMES, dark=FRAMES * 0, yx=YX)
    assert np.array_equal(read_scan(path, mapping=SAID | {"frames": "dp"}).frames[:], FRAMES)
    with pytest.raises(InputError, match=r"scan.npz: several arrays may be its frames; found dp, dark. Say: --map fra"):
        read_scan(path, mapping=SAID)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "scan.npz: holds no positions that are named; found dp, yx, words. .*--map positions=NAME"),
        ({"positions": "yx"}, "the unit of the positions is not said"),
        (SAID | {"positions": "xy"}, "xy: no such array; found dp, yx, words"),
        (SAID | {"positions": "words"}, "words: not a plain array of numbers"),
        (SAID | {"positions_file": "yx.csv"}, "positions and positions_file: the mapping says the same thing twice"),
        (SAID | {"frames": "nothing"}, "nothing: no such array; found dp, yx, words"),
        (SAID | {"frames": "yx"}, "yx: not a stack of images"),
    ],
)
def test_what_is_wrong_or_not_said(tmp_path, said, message):
    with pytest.raises(InputError, match=message):
        read_scan(written(tmp_path, dp=FRAMES, yx=YX, words="of a sample"), mapping=said)


def test_a_pickled_object_beside_the_frames_is_left_alone(tmp_path):
    path = written(tmp_path, dp=FRAMES, yx=YX, settings=np.array({"exposure": 1}, dtype=object))
    assert np.array_equal(read_scan(path, mapping=SAID).positions, YX)


def test_a_header_with_a_negative_length(tmp_path):
    np.save(tmp_path / "scan.npy", FRAMES)
    content = (tmp_path / "scan.npy").read_bytes().replace(b"(6, 8, 8)", b"(-1, 8,8)")
    (tmp_path / "scan.npy").write_bytes(content)
    with pytest.raises(InputError, match="a negative length"):
        read_scan(tmp_path / "scan.npy", mapping={"positions_file": "none.csv"})
