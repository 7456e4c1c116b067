"""Codecs: round trips, the HDF5 filters as an oracle, and data that lie."""

import struct
import tracemalloc
from contextlib import suppress

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychow.live.codecs import CODECS, CodecError, decode, encode, frame_bytes

DTYPES = ["u1", "<u2", ">u2", "<u4", "<u8", "i1", "<i2", ">i4", "<i8", "<f2", "<f4", ">f8"]
SHAPES = [(1, 1), (3, 3), (5, 7), (16, 16), (100, 101)]
FILTERS = {
    "bslz4hdf5": hdf5plugin.Bitshuffle(cname="lz4"),
    "lz4hdf5": hdf5plugin.LZ4(),
    "blosc": hdf5plugin.Blosc(cname="lz4"),
}


def counts(shape, dtype, seed=0):
    return np.random.default_rng(seed).poisson(3, shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_and_dtype_comes_back(codec, dtype):
    for shape in SHAPES:
        frame = counts(shape, dtype)
        result = decode(encode(frame, codec), codec, shape, frame.dtype)
        np.testing.assert_array_equal(result, frame)
        assert result.dtype == frame.dtype.newbyteorder("=")
        result[0, 0] = 1  # may be changed


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<u4", "<f8"])
@pytest.mark.parametrize("codec", FILTERS)
def test_agrees_with_the_hdf5_filters(tmp_path, codec, dtype):
    frame = counts((100, 101), dtype)
    with h5py.File(tmp_path / "filters.h5", "w") as file:
        theirs = file.create_dataset("theirs", data=frame, chunks=frame.shape, **FILTERS[codec])
        skipped, chunk = theirs.id.read_direct_chunk((0, 0))
        assert not skipped
        np.testing.assert_array_equal(decode(chunk, codec, frame.shape, frame.dtype), frame)
        ours = file.create_dataset("ours", frame.shape, dtype, chunks=frame.shape, **FILTERS[codec])
        ours.id.write_direct_chunk((0, 0), encode(frame, codec))
        np.testing.assert_array_equal(ours[()], frame)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*CODECS]), st.data())
def test_damaged_data_are_refused_or_give_a_frame_of_the_size(codec, data):
    shape, dtype = (12, 11), np.dtype("<u2")
    good = bytearray(encode(counts(shape, dtype), codec))
    if data.draw(st.booleans()):
        del good[data.draw(st.integers(0, len(good) - 1)) :]
    for _ in range(data.draw(st.integers(0, 4))):
        if good:
            good[data.draw(st.integers(0, min(len(good) - 1, 24)))] = data.draw(st.integers(0, 255))
    with suppress(CodecError):
        assert decode(bytes(good), codec, shape, dtype).shape == shape


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_takes_no_memory(codec):
    frame = np.zeros((2048, 2048), np.uint32)  # 16 MiB
    bomb = encode(frame, codec)
    tracemalloc.start()
    with pytest.raises(CodecError):
        decode(bomb, codec, (16, 16), np.dtype("u2"))
    assert tracemalloc.get_traced_memory()[1] < 2e5
    tracemalloc.stop()


@pytest.mark.parametrize("codec", ["lz4hdf5", "bslz4hdf5"])
@pytest.mark.parametrize("header", [(2**63, 8192), (512, 0xFFFFFFF8), (512, 3), (512, 2**31)])
def test_headers_that_lie_are_refused(codec, header):
    data = struct.pack(">QI", *header) + struct.pack(">I", 0xFFFFFFFF) + bytes(100)
    with pytest.raises(CodecError):
        decode(data, codec, (16, 16), np.dtype("u2"))


def test_no_data_at_all():
    for codec in CODECS:
        with pytest.raises(CodecError):
            decode(b"", codec, (4, 4), np.dtype("u2"))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((0, 4), "u2"), ((-1, 4), "u2"), ((4,), "u2"), ((2**31, 2**31), "u1"), ((4, 4), "c8"), ((4, 4), "O")],
)
def test_what_is_no_frame_is_refused(shape, dtype):
    with pytest.raises(CodecError):
        frame_bytes(shape, np.dtype(dtype))


def test_jpeg_is_refused_with_the_reason():
    with pytest.raises(CodecError, match=r"jpeg.*changes the counts"):
        decode(b"\xff\xd8\xff", "jpeg", (4, 4), np.dtype("u1"))


def test_unknown_codec_names_the_known():
    with pytest.raises(CodecError, match=r"zstd.*bslz4"):
        decode(b"abc", "zstd", (4, 4), np.dtype("u1"))
