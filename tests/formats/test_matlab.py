"""Old .mat files: our reader against scipy's on whatever scipy writes; frames of every class, plain and compressed."""

import io
import pickle

import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptychow.errors import InputError
from ptychow.formats import matlab5
from ptychow.formats.matlab_files import is_matlab, open_matlab

RNG = np.random.default_rng(5)
KINDS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "c8", "c16"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(KINDS),
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    packed=st.booleans(),
    name=st.from_regex(r"x[a-z0-9_]{0,20}", fullmatch=True),
)
def test_what_scipy_writes_is_read_as_scipy_reads_it(tmp_path, kind, shape, packed, name):
    values = (RNG.normal(size=shape) * 50 + 1j * RNG.normal(size=shape)).astype("c16")
    values = values.astype(kind) if kind.startswith("c") else values.real.astype(kind)
    content = {name: values, "s": {"text": "word", "inner": {"n": values}, name: 2.5}, "cells": [1, "two"], "t": "abc"}
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, content, do_compression=packed)
    expected = scipy.io.loadmat(io.BytesIO(path.read_bytes()))
    assert set(matlab5.variables(path)) == {key for key in expected if not key.startswith("__")}
    for where in (name, "s.inner.n"):
        found = matlab5.read(path, where)
        assert np.array_equal(found, values) and found.shape == values.shape
    assert matlab5.read(path, f"s.{name}").ravel() == [2.5]
    assert matlab5.read(path, "s.nothing") is None and matlab5.read(path, "s.inner.n.deeper") is None


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["u1", "u2", "i4", "f4", "f8"])
def test_frames(tmp_path, kind, packed):
    frames = RNG.integers(0, 100, (6, 4, 5)).astype(kind)
    scipy.io.savemat(tmp_path / "a.mat", {"dp": np.moveaxis(frames, 0, 2)}, do_compression=packed)
    assert is_matlab(tmp_path / "a.mat")
    with open_matlab(tmp_path / "a.mat") as matlab:
        found = matlab.frames("dp")
    assert found.dtype == frames.dtype and np.array_equal(found[:], frames)
    assert np.array_equal(pickle.loads(pickle.dumps(found))[[4, 1]], frames[[4, 1]])


def test_big_endian_and_small_types(tmp_path):
    """By hand: a double array whose whole values are stored as bytes, in the other byte order."""

    def element(kind, content):
        return np.array([kind, len(content)], ">u4").tobytes() + content + b"\0" * (-len(content) % 8)

    flags = element(6, np.array([6, 0], ">u4").tobytes())
    shape = element(5, np.array([2, 3], ">i4").tobytes())
    name = np.array([1 << 16 | 1], ">u4").tobytes() + b"a\0\0\0"  # type and size share four bytes
    values = element(2, bytes([1, 2, 3, 4, 5, 6]))
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    (tmp_path / "a.mat").write_bytes(header + element(14, flags + shape + name + values))
    assert np.array_equal(matlab5.read(tmp_path / "a.mat", "a"), [[1, 3, 5], [2, 4, 6]])


@pytest.mark.parametrize(
    ("name", "message"),
    [("t", "t: cannot be read .t holds no numbers"), ("s", "s holds no numbers"), ("cells", "cells holds no numbers")],
)
def test_what_is_no_array_of_numbers(tmp_path, name, message):
    scipy.io.savemat(tmp_path / "a.mat", {"t": "abc", "s": {"a": 1}, "cells": np.array([1, "b"], object)})
    with pytest.raises(InputError, match=message):
        matlab5.read(tmp_path / "a.mat", name)


def test_a_bomb_of_zeros_is_not_unpacked(tmp_path):
    """Twelve times the memory's size, said by a compressed element of a kilobyte."""
    import zlib

    said = np.array([14, 2**32 - 16], "<u4").tobytes()
    content = zlib.compress(said + bytes(2**16))
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    element = np.array([15, len(content)], "<u4").tobytes() + content
    (tmp_path / "a.mat").write_bytes(header + element)
    with pytest.raises(InputError, match="cannot be read"):
        matlab5.read(tmp_path / "a.mat", "dp")
