"""Masks in files of their own: every kind says the same, and what is none is refused by name."""

import h5py
import numpy as np
import pytest
import tifffile

from ptychow.errors import InputError
from ptychow.formats.masks import read_mask

SHAPE = (6, 8)
GOOD = np.ones(SHAPE, bool)
GOOD[1, 2] = GOOD[5, 7] = False


def written(kind, folder):
    path = folder / f"mask.{kind}"
    bad = (~GOOD).astype(np.uint8)
    if kind == "npy":
        np.save(path, ~GOOD)
    elif kind == "tif":
        tifffile.imwrite(path, bad * 255)
    elif kind == "txt":
        path.write_text("# row, column\n1,2\n5 7\n")
    else:
        with h5py.File(path, "w") as file:
            file["detector/pixel_mask"] = bad * 4
        return f"{path}:/detector/pixel_mask"
    return str(path)


@pytest.mark.parametrize("kind", ["npy", "tif", "txt", "h5"])
def test_every_kind_of_file_names_the_same_pixels(kind, tmp_path):
    np.testing.assert_array_equal(read_mask(written(kind, tmp_path), SHAPE), GOOD)


@pytest.mark.parametrize("kind", ["npy", "tif", "h5"])
def test_an_image_of_another_size_is_refused(kind, tmp_path):
    with pytest.raises(InputError, match=r"--mask: another size than the frames; found \(6, 8\), expected \(8, 8\)"):
        read_mask(written(kind, tmp_path), (8, 8))


@pytest.mark.parametrize(
    ("text", "words"),
    [("1,2\n6,0\n", "no pixel of the frames; found 6,0"), ("-1,0\n", "-1,0"), ("1.5,0\n", "1.5,0"),
     ("1\n2\n", "not a mask"), ("hello", "not a mask"), ("", "not a mask")],
)  # fmt: skip
def test_a_list_of_something_else_is_refused(text, words, tmp_path):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError, match=words):
        read_mask(str(tmp_path / "list.txt"), SHAPE)


def test_a_file_that_is_not_there_and_a_dataset_that_is_not_named_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_mask(str(tmp_path / "none.npy"), SHAPE)
    name = written("h5", tmp_path).partition(":/")[0]
    with pytest.raises(InputError, match=r"which dataset is not said; found .*detector/pixel_mask"):
        read_mask(name, SHAPE)
