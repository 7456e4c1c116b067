"""The right reader by content, and clear words for what is no scan."""

import h5py
import numpy as np
import pytest
from layouts import LAYOUTS

from ptychow.errors import InputError
from ptychow.formats import FORMATS, read_scan, recognise, write_scan
from ptychow.scan import Scan


@pytest.mark.parametrize("kind", LAYOUTS)
def test_content_decides_not_the_suffix(tmp_path, kind):
    path, mapping = LAYOUTS[kind][0](tmp_path)
    if path.is_dir():
        pytest.skip("a folder has no suffix")
    for suffix in (".txt", ".cxi", ".npz", ""):
        other = path.with_name(f"file{suffix}")
        other.write_bytes(path.read_bytes())
        assert recognise(other, mapping).name == LAYOUTS[kind][1]


def test_every_format_has_a_layout_of_others():
    assert {name for _, name in LAYOUTS.values()} == set(FORMATS)


def test_a_mapping_overrides_the_layout_of_a_cxi_file(tmp_path):
    path = tmp_path / "a.cxi"
    write_scan(path, Scan(frames=np.ones((4, 8, 8), np.uint16), positions=np.zeros((4, 2))))
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
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "a PNG image"),
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
    np.save(tmp_path / "a.npy", np.ones((4, 4)))
    with pytest.raises(InputError, match="found a numpy array file"):
        read_scan(tmp_path / "a.npy")


def test_formats_explain_themselves():
    for name, known in FORMATS.items():
        assert known.name == name and known.title
        assert all(meaning for meaning in known.keys.values())
