"""Lazy frames: the same values as the array, nothing read early, clear errors for damage."""

import pickle
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptychow.errors import InputError
from ptychow.formats.lazy import HDF5Frames, LazyFrames, NumpyFrames

COUNT, LINES, HEIGHT, WIDTH = 12, 3, 5, 4
ARRAY = np.random.default_rng(1).integers(0, 2**16, (COUNT, HEIGHT, WIDTH)).astype(np.uint16)
RASTER = ARRAY.reshape(LINES, COUNT // LINES, HEIGHT, WIDTH)


def stored_frames(folder: Path) -> dict[str, LazyFrames]:
    """The same twelve frames in every kind of storage."""
    with h5py.File(folder / "frames.h5", "w") as file:
        file["plain"] = ARRAY
        file["raster"] = RASTER
        file.create_dataset("chunked", data=ARRAY, chunks=(5, 3, 4), compression="gzip")
        file.create_dataset("bitshuffle", data=ARRAY, chunks=(1, 5, 4), **hdf5plugin.Bitshuffle(cname="lz4"))
        file["linked"] = h5py.SoftLink("/chunked")
    np.savez(folder / "stored.npz", frames=ARRAY, raster=RASTER, fortran=np.asfortranarray(ARRAY))
    np.savez_compressed(folder / "packed.npz", frames=ARRAY, raster=RASTER)
    np.save(folder / "alone.npy", ARRAY)
    names = ("plain", "raster", "chunked", "bitshuffle", "linked")
    frames: dict[str, LazyFrames] = {f"hdf5 {name}": HDF5Frames.open(folder / "frames.h5", name) for name in names}
    frames |= {
        f"stored {name}": NumpyFrames.open(folder / "stored.npz", name) for name in ("frames", "raster", "fortran")
    }
    frames |= {f"packed {name}": NumpyFrames.open(folder / "packed.npz", name) for name in ("frames", "raster")}
    return frames | {"npy": NumpyFrames.open(folder / "alone.npy")}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LazyFrames]:
    return stored_frames(tmp_path_factory.mktemp("frames"))


INDICES = st.one_of(
    st.integers(-COUNT, COUNT - 1),
    st.slices(COUNT),
    st.lists(st.integers(-COUNT, COUNT - 1), max_size=20).map(lambda chosen: np.array(chosen, np.int64)),
    st.lists(st.booleans(), min_size=COUNT, max_size=COUNT).map(np.array),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=INDICES)
def test_any_index_gives_what_numpy_gives(stored, index):
    for kind, frames in stored.items():
        expected = ARRAY[index]
        found = frames[index]
        assert isinstance(found, np.ndarray) and not isinstance(found, np.memmap), kind
        assert found.dtype == expected.dtype and found.shape == expected.shape, kind
        assert np.array_equal(found, expected), kind


def test_shape_and_raster(stored):
    for kind, frames in stored.items():
        assert frames.shape == ARRAY.shape and frames.dtype == ARRAY.dtype
        assert frames.raster == ((LINES, COUNT // LINES) if "raster" in kind else None)


def test_pickles_hold_no_frames_and_no_handles(stored):
    for frames in stored.values():
        frames[:]
        content = pickle.dumps(frames)
        assert len(content) < 1000
        assert np.array_equal(pickle.loads(content)[[3, 1]], ARRAY[[3, 1]])


def test_wrong_indices_are_index_errors(stored):
    for frames in stored.values():
        for index in (COUNT, -COUNT - 1, [0, COUNT], [True, False], [0.5], (1, 2), None):
            with pytest.raises(IndexError):
                frames[index]


def test_a_huge_file_opens_without_being_read(tmp_path):
    """Ten terabytes of frames, of which only one exists."""
    path = tmp_path / "huge.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (10_000_000, 1024, 1024), np.uint8, chunks=(1, 1024, 1024))
        data[9_000_000] = 7
    frames = HDF5Frames.open(path, "data")
    assert frames.shape == (10_000_000, 1024, 1024)
    assert frames[9_000_000].min() == 7 and frames[5].max() == 0
    with pytest.raises(InputError, match=r"huge\.h5: data: does not fit in memory"):
        frames[:]


def test_a_huge_npy_is_mapped(tmp_path):
    path = tmp_path / "huge.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (100_000, 1024, 1024)).flush()  # sparse
    if path.stat().st_blocks * 512 > 2**30:
        pytest.skip("this file system stores zeros")
    assert NumpyFrames.open(path)[[99_999, 3]].shape == (2, 1024, 1024)


def test_no_file_stays_open(stored):
    listing = Path("/proc/self/fd")
    if not listing.is_dir():
        pytest.skip("no /proc here")
    stored["hdf5 plain"][3]
    assert not any("frames.h5" in str(entry.readlink()) for entry in listing.iterdir() if entry.is_symlink())


@pytest.mark.parametrize("shape", [(4,), (4, 5), (2, 2, 2, 3, 3)])
def test_wrong_rank(tmp_path, shape):
    with h5py.File(tmp_path / "rank.h5", "w") as file:
        file["data"] = np.zeros(shape)
    np.save(tmp_path / "rank.npy", np.zeros(shape))
    with pytest.raises(InputError, match=r"rank\.h5: data: not a stack of images; found shape"):
        HDF5Frames.open(tmp_path / "rank.h5", "data")
    with pytest.raises(InputError, match=r"rank\.npy: not a stack of images"):
        NumpyFrames.open(tmp_path / "rank.npy")


def test_missing_dataset_lists_what_there_is(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/frames"] = ARRAY
    with pytest.raises(InputError, match=r"a\.h5: data: no such dataset; found /group/frames \(12, 5, 4\)"):
        HDF5Frames.open(tmp_path / "a.h5", "data")


def test_truncated_hdf5(tmp_path):
    path = tmp_path / "cut.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.random.default_rng(0).integers(0, 9, (50, 32, 32))
    frames = HDF5Frames.open(path, "data")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"cut\.h5: cannot be read .* expected a complete HDF5 file"):
        frames[3]


def test_damaged_chunk(tmp_path):
    path = tmp_path / "damaged.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", data=ARRAY, chunks=(1, 5, 4), compression="gzip")
        place = data.id.get_chunk_info(4).byte_offset
    content = bytearray(path.read_bytes())
    content[place : place + 20] = b"\xff" * 20
    path.write_bytes(content)
    frames = HDF5Frames.open(path, "data")
    assert np.array_equal(frames[3], ARRAY[3])
    with pytest.raises(InputError, match=r"damaged\.h5: cannot be read"):
        frames[4]


def test_file_replaced_by_another_shape(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["data"] = ARRAY
    frames = HDF5Frames.open(path, "data")
    with h5py.File(path, "w") as file:
        file["data"] = ARRAY[:5]
    with pytest.raises(InputError, match="has changed since it was opened"):
        frames[2]


def test_external_link_to_nowhere(tmp_path):
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["data"] = h5py.ExternalLink("data_000001.h5", "/data")
    with pytest.raises(InputError, match=r"master\.h5: data: a link to another file .* found /data of data_000001"):
        HDF5Frames.open(tmp_path / "master.h5", "data")


def test_virtual_dataset_never_invents_zeros(tmp_path):
    for part in (0, 1):
        with h5py.File(tmp_path / f"part{part}.h5", "w") as file:
            file["data"] = ARRAY[6 * part : 6 * part + 6]
    layout = h5py.VirtualLayout(ARRAY.shape, ARRAY.dtype)
    for part in (0, 1):
        layout[6 * part : 6 * part + 6] = h5py.VirtualSource(f"part{part}.h5", "data", (6, HEIGHT, WIDTH))
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    frames = HDF5Frames.open(tmp_path / "whole.h5", "data")
    assert np.array_equal(frames[:], ARRAY)
    (tmp_path / "part1.h5").unlink()
    with pytest.raises(InputError, match=r"whole\.h5: data: made of files .* found no part1\.h5"):
        frames[2]


def test_pickled_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", frames=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match=r"objects\.npz: frames: .*Pickled objects are never opened"):
        NumpyFrames.open(tmp_path / "objects.npz", "frames")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated_npz(tmp_path, save):
    path = tmp_path / "cut.npz"
    save(path, frames=ARRAY)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"cut\.npz: frames: damaged"):
        NumpyFrames.open(path, "frames")


def test_truncated_npy(tmp_path):
    path = tmp_path / "cut.npy"
    np.save(path, ARRAY)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"cut\.npy: truncated; found \d+ bytes, expected \d+"):
        NumpyFrames.open(path)[0]


def test_hostile_header_takes_no_memory(tmp_path):
    """A header that promises a petabyte, in a file of a few bytes, mapped or compressed."""
    import zipfile

    array = tmp_path / "bomb.npy"
    with array.open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (2**30, 2**10, 2**10)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(b"\0" * 64)
    with pytest.raises(InputError, match=r"bomb\.npy: truncated"):
        NumpyFrames.open(array)[0]
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(array, "frames.npy")
    with pytest.raises(InputError, match=r"bomb\.npz: frames: truncated"):
        NumpyFrames.open(tmp_path / "bomb.npz", "frames")[0]
