"""Whatever happens to a file on its way, reading it ends well or in one clear error; and a full disk is no crash."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import no_file_beyond, small_scan
from ptychow.errors import InputError, PtychoWError
from ptychow.formats import read_scan, write_scan
from ptychow.formats.new_hdf5 import new_hdf5
from ptychow.scan import Scan

MAPPINGS = {
    "generic.h5": {"frames": "/frames", "positions": "/xy", "position_unit": "m", "probe": "/probe"},
    "raster_diff.npz": {"step_px": "3"},
}
NAMES = ["scan.cxi", "plain.npz", "packed.npz", "raster_diff.npz", "generic.h5"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The bytes of one small scan in every format."""
    folder, scan = tmp_path_factory.mktemp("whole"), small_scan(lines=3)
    arrays = {"diffraction": scan.frames, "positions_px": scan.positions_px, "probe": scan.probe}
    write_scan(folder / "scan.cxi", scan)
    np.savez(folder / "plain.npz", **arrays)
    np.savez_compressed(folder / "packed.npz", **arrays)
    np.savez(folder / "raster_diff.npz", arr_0=scan.frames.reshape(3, 4, 32, 32))
    with h5py.File(folder / "generic.h5", "w") as file:
        file["frames"], file["xy"], file["probe"] = scan.frames, scan.positions, scan.probe
    return {name: (folder / name).read_bytes() for name in NAMES}


def read(path):
    scan = read_scan(path, mapping=MAPPINGS.get(path.name))
    return scan, scan.frames[:]


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_file_is_read(name, files, tmp_path):
    (tmp_path / name).write_bytes(files[name])
    scan, frames = read(tmp_path / name)
    np.testing.assert_array_equal(frames, small_scan(lines=3).frames)
    assert len(scan) == 12


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(NAMES), st.data())
@pytest.mark.filterwarnings("ignore")
def test_damage_is_an_input_error_or_harmless(files, tmp_path_factory, name, data):
    content = bytearray(files[name])
    end = len(content)
    if data.draw(st.booleans(), label="truncated"):
        del content[data.draw(st.integers(1, end - 1)) :]
    else:
        # What describes the data lies at the beginning (HDF5) and at the end (zip).
        places = st.one_of(st.integers(0, min(end, 8000) - 1), st.integers(max(0, end - 3000), end - 1))
        for place in data.draw(st.lists(places, min_size=1, max_size=5)):
            content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(content)
    try:
        read(path)
    except InputError as error:
        assert name in str(error)


@pytest.mark.parametrize("room", [0, 700, 5_000, 40_000, 120_000])
def test_a_disk_that_fills_up_is_an_error_not_a_crash(room, tmp_path):
    noise = np.random.default_rng(0).integers(0, 60000, (100, 32, 32)).astype(np.uint16)
    with pytest.raises(PtychoWError, match=r"a.cxi: cannot be written \(.+\)$"), no_file_beyond(room):
        write_scan(tmp_path / "a.cxi", Scan(noise, np.zeros((100, 2))))
    assert not list(tmp_path.iterdir())


def test_an_error_of_ours_while_writing_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), new_hdf5(tmp_path / "a.h5") as (file, _):
        file["numbers"] = np.arange(10)
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_the_file_is_ordinary_hdf5(tmp_path):
    with new_hdf5(tmp_path / "a.h5") as (file, disk):
        file.create_dataset("numbers", data=np.arange(100_000), chunks=(1000,), compression="gzip")
        disk.require_written()
    script = f"import h5py; print(h5py.File({str(tmp_path / 'a.h5')!r})['numbers'][99_999])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "99999\n"
