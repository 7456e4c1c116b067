"""Masks in files of their own: which pixels of the detector are bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats import tiff
from ptychow.formats.base import file_and_part
from ptychow.formats.hdf5_files import hdf5_listing, open_hdf5, read_hdf5_array
from ptychow.formats.numpy_files import is_npy, read_array

EXPECTED = "npy, TIFF, HDF5 as FILE:/DATASET, or a text file of lines ROW,COLUMN"


def read_mask(name: str, frame_shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Good pixels (H, W), True = good, of a file that names the bad ones, as the frames are stored.

    name: an image in .npy or TIFF, or FILE:/DATASET in HDF5, not 0 where a pixel is bad (as in NeXus, Dectris), or a
    text file with a line ROW,COLUMN for each bad pixel, from 0. Raises InputError for anything else, an image of
    another size, and pixels outside the frame.
    """
    path, dataset = file_and_part(name)
    if not path.is_file():
        raise InputError("no such file", file=path, field="--mask", expected=EXPECTED)
    image = _image(path, dataset)
    if image is None:
        return _from_list(path, frame_shape)
    if image.shape != frame_shape:
        raise InputError(
            "another size than the frames", file=name, field="--mask", found=image.shape, expected=frame_shape
        )
    return np.asarray(image == 0)


def _image(path: Path, dataset: str) -> NDArray[Any] | None:
    """What the file holds, not 0 where bad; None where it is text."""
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            if not dataset:
                found = ", ".join(hdf5_listing(file))
                raise InputError("which dataset is not said", file=path, field="--mask", found=found, expected=EXPECTED)
            return read_hdf5_array(file, dataset, path)
    if is_npy(path):
        return read_array(path)
    return tiff.TiffFrames.open(path)[0] if tiff.recognises(path) else None


def _from_list(path: Path, frame_shape: tuple[int, int]) -> NDArray[np.bool_]:
    try:
        lines = [line.partition("#")[0].replace(",", " ").split() for line in path.read_text("utf-8").splitlines()]
        pixels = np.array([line for line in lines if line], float)
    except ValueError:
        pixels = np.empty(0)
    if pixels.ndim != 2 or pixels.shape[1] != 2:
        raise InputError("not a mask", file=path, field="--mask", expected=EXPECTED)
    inside = ((pixels >= 0) & (pixels < frame_shape) & (pixels == np.rint(pixels))).all(axis=1)
    if not inside.all():
        row, column = pixels[~inside][0]
        raise InputError(
            "no pixel of the frames",
            file=path,
            field="--mask",
            found=f"{row:g},{column:g}",
            expected=f"within {frame_shape}",
        )
    good = np.ones(frame_shape, bool)
    good[tuple(pixels.astype(int).T)] = False
    return good
