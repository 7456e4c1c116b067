"""Chunks packed by bitshuffle and LZ4: sound ones pass; ones that lie are found before HDF5 is asked."""

import h5py
import hdf5plugin
import layouts
import numpy as np
import pytest

from ptychow.errors import InputError
from ptychow.formats import read_scan
from ptychow.formats.cxi_mask import read_masks
from ptychow.formats.hdf5_chunks import require_sound_chunks
from ptychow.formats.lazy import HDF5Frames

RNG = np.random.default_rng(8)
FILTERS = {
    "bitshuffle LZ4": hdf5plugin.Bitshuffle(cname="lz4"),
    "bitshuffle Zstandard": hdf5plugin.Bitshuffle(cname="zstd"),
    "bitshuffle alone": hdf5plugin.Bitshuffle(cname="none"),
    "small blocks": hdf5plugin.Bitshuffle(nelems=64, cname="lz4"),
    "LZ4": hdf5plugin.LZ4(),
    "LZ4 in small blocks": hdf5plugin.LZ4(nbytes=1024),
    "Zstandard": hdf5plugin.Zstd(),
}


def packed(path, name, shape=(5, 33, 35), dtype=np.uint16, chunks=None):
    values = RNG.poisson(3, shape).astype(dtype)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=values, chunks=chunks or (1, *shape[1:]), **FILTERS[name])
    return values


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f8"])
@pytest.mark.parametrize("name", FILTERS)
def test_sound_chunks_pass(tmp_path, name, dtype):
    for shape, chunks in (((5, 33, 35), (2, 20, 35)), ((4, 3, 3), (1, 3, 3)), ((2, 120, 130), (1, 120, 130))):
        values = packed(tmp_path / "a.h5", name, shape, dtype, chunks)
        assert np.array_equal(HDF5Frames.open(tmp_path / "a.h5", "data")[:], values)


@pytest.mark.parametrize("name", [name for name in FILTERS if name not in ("bitshuffle alone", "Zstandard")])
@pytest.mark.parametrize("place", [5, 12, 13, -1])
def test_chunks_that_lie_are_found(tmp_path, name, place):
    """A turned bit in the size and in a block's packed size; and a byte too few."""
    path = tmp_path / "a.h5"
    values = packed(path, name)
    with h5py.File(path, "a") as file:
        chunk = bytearray(file["data"].id.read_direct_chunk((3, 0, 0))[1])
        if place < 0:
            del chunk[-1]
        else:
            chunk[place] ^= 0x40
        file["data"].id.write_direct_chunk((3, 0, 0), bytes(chunk))
    frames = HDF5Frames.open(path, "data")
    assert np.array_equal(frames[[0, 4]], values[[0, 4]])
    with pytest.raises(InputError, match=r"a\.h5: data: a damaged chunk; found at index \(3, 0, 0\)"):
        frames[2:]


def test_only_what_is_read_is_looked_at(tmp_path):
    packed(tmp_path / "a.h5", "LZ4")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["data"].id.write_direct_chunk((4, 0, 0), b"nonsense" * 4)
        require_sound_chunks(file["data"], [(0, 4)], tmp_path / "a.h5", "data")
        with pytest.raises(InputError, match="damaged chunk"):
            require_sound_chunks(file["data"], [], tmp_path / "a.h5", "data")


def test_masks_and_weights_of_every_frame_are_looked_at(tmp_path):
    masks = np.zeros((5, 33, 35), np.uint32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("mask", data=masks, chunks=(1, 33, 35), **FILTERS["bitshuffle LZ4"])
        assert read_masks(file, ("mask",), tmp_path / "a.h5", 5, (33, 35))[0].all()
        chunk = bytearray(file["mask"].id.read_direct_chunk((3, 0, 0))[1])
        chunk[13] ^= 0x40
        file["mask"].id.write_direct_chunk((3, 0, 0), bytes(chunk))
        with pytest.raises(InputError, match=r"mask: a damaged chunk"):
            read_masks(file, ("mask",), tmp_path / "a.h5", 5, (33, 35))
    path, _ = layouts.ptyd(tmp_path)
    with h5py.File(path, "a") as file:
        weights = file["chunks/0/weights"][()]
        del file["chunks/0/weights"]
        chunks = (1, *weights.shape[1:])
        stored = file.create_dataset("chunks/0/weights", data=weights, chunks=chunks, **FILTERS["bitshuffle LZ4"])
        stored.id.write_direct_chunk((2, 0, 0), b"nonsense" * 4)
    with pytest.raises(InputError, match=r"chunks/0/weights: a damaged chunk"):
        read_scan(path)


def test_through_a_virtual_dataset(tmp_path):
    values = packed(tmp_path / "a.h5", "bitshuffle LZ4")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["data"].id.write_direct_chunk((4, 0, 0), b"nonsense" * 4)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        layout = h5py.VirtualLayout((7, 33, 35), values.dtype)
        layout[2:] = h5py.VirtualSource("a.h5", "data", values.shape)
        file.create_virtual_dataset("data", layout)
    frames = HDF5Frames.open(tmp_path / "b.h5", "data")
    assert np.array_equal(frames[2:6], values[:4])
    with pytest.raises(InputError, match=r"a\.h5: data: a damaged chunk; found at index \(4, 0, 0\)"):
        frames[5:7]
