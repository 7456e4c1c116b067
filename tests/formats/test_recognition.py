"""The right reader by content, and clear words for what is no scan."""

import h5py
import numpy as np
import pytest

from ptychow.errors import InputError
from ptychow.formats import FORMATS, read_scan, recognise, write_scan
from ptychow.scan import Scan


def example(kind, path):
    """A small file of every format, with a misleading suffix."""
    frames = np.arange(4 * 8 * 8, dtype=np.uint16).reshape(4, 8, 8)
    if kind == "cxi":
        write_scan(path, Scan(frames=frames, positions=np.zeros((4, 2))))
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, diffraction=frames, positions_px=np.zeros((4, 2)))
    elif kind == "ptychonn":
        with path.open("wb") as file:
            np.savez(file, frames.reshape(2, 2, 8, 8))
    elif kind == "hdf5":
        with h5py.File(path, "w") as file:
            file["data"], file["xy"] = frames, np.zeros((4, 2))
    return path


MAPPINGS = {
    "ptychonn": {"step_px": "3"},
    "hdf5": {"frames": "data", "positions": "xy", "position_unit": "px"},
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("suffix", [".txt", ".cxi", ".npz", ""])
def test_content_decides_not_the_suffix(tmp_path, kind, suffix):
    path = example(kind, tmp_path / f"file{suffix}")
    assert recognise(path, MAPPINGS.get(kind)).name == kind
    scan = read_scan(path, mapping=MAPPINGS.get(kind))
    assert scan.frames.shape == (4, 8, 8) and scan.name == path.name


def test_a_mapping_overrides_the_layout_of_a_cxi_file(tmp_path):
    path = example("cxi", tmp_path / "a.cxi")
    with h5py.File(path, "a") as file:
        file["other"] = np.ones((4, 2))
    mapping = {"frames": "/entry_1/data_1/data", "positions": "/other", "position_unit": "m"}
    assert read_scan(path, mapping=mapping).positions[0, 0] == 1


def test_missing(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.cxi: no such file"):
        read_scan(tmp_path / "nothing.cxi")


def test_folders(tmp_path):
    with pytest.raises(InputError, match="not a file; found an empty folder, expected a scan file"):
        read_scan(tmp_path)
    for name in "abcdefg":
        (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match=r"found a folder with a, b, c, d, e \.\.\., expected a scan file"):
        read_scan(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"II*\0" + b"\0" * 40, "a TIFF image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "a PNG image"),
        (b"MATLAB 5.0 MAT-file", "an old MATLAB file"),
        (b"PK\x03\x04" + b"\0" * 40, "a zip archive that is not a complete npz file"),
        (b"hello, world", "unknown content beginning with b'hello, w'"),
        (b"\x1f\x8b\x08", "a gzip file"),
    ],
)
def test_strangers_are_named(tmp_path, content, words):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_scan(tmp_path / "file")
    assert f"found {words}" in str(caught.value)
    assert all(known.title in str(caught.value) for known in FORMATS.values())


def test_empty_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="empty; found 0 bytes"):
        read_scan(tmp_path / "file")


def test_npz_and_npy_of_other_kinds(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones(3), y=np.ones(3))
    with pytest.raises(InputError, match="found an npz file with x, y"):
        read_scan(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.ones((3, 4, 4)))
    with pytest.raises(InputError, match="found a numpy array file"):
        read_scan(tmp_path / "a.npy")


def test_formats_explain_themselves():
    for name, known in FORMATS.items():
        assert known.name == name and known.title
        assert all(meaning for meaning in known.keys.values())
