"""Readings of a monitor of the incoming intensity (I0), one a frame, in files of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats.base import file_and_part
from ptychow.formats.hdf5_files import hdf5_listing, open_hdf5, read_hdf5_real
from ptychow.formats.numpy_files import is_npy, npz_members, read_array
from ptychow.formats.text_tables import read_text_table

FIELD = "--monitor"
NAMED = 20  # frames at most in a message


def read_monitor(name: str, kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The readings, in any unit, of the frames that are kept.

    name: FILE:COLUMN of a text table (a name of its header, or a number from 1), FILE:/DATASET in HDF5, FILE:ARRAY of
    an npz; FILE alone where it holds but one, with a reading for each of the N frames. kept: (N,). Raises InputError
    for what is not there, another number of readings, and readings of frames kept that are not finite and positive.
    """
    path, part = file_and_part(name)
    if not path.is_file():
        raise InputError("no such file", file=path, field=FIELD, remedy="Name FILE:COLUMN or FILE:/DATASET")
    values = np.ravel(_values(path, part)).astype(np.float64)
    if len(values) != len(kept):
        found, expected = f"{len(values):,}", f"{len(kept):,}"
        raise InputError("not as many readings as frames", file=name, field=FIELD, found=found, expected=expected)
    wrong = np.flatnonzero(kept & ~(np.isfinite(values) & (values > 0)))
    if len(wrong):
        raise InputError(
            "no intensity",
            file=name,
            field=FIELD,
            found=f"{values[wrong[0]]:g} of frame {wrong[0]}, and {len(wrong) - 1:,} more",
            expected="finite and above 0 (a dark reading subtracted)",
            remedy=f"Leave such frames out: --drop {','.join(map(str, wrong[:NAMED]))}{',...' * (len(wrong) > NAMED)}",
        )
    return values[kept]


def _values(path: Path, part: str) -> NDArray[Any]:
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            _require(part, hdf5_listing(file), path)
            return read_hdf5_real(file, part, path)
    if is_npy(path):
        return _real(read_array(path), path)
    members = npz_members(path)
    if members:
        part = members[0] if len(members) == 1 and not part else part
        _require(part, members, path)
        return _real(read_array(path, part), path)
    table = read_text_table(path, FIELD)
    part = "1" if not part and "2" not in table.columns else part
    if part not in table.columns:
        _require("", list(table.columns), path)
    return table.columns[part]


def _require(part: str, there: list[str], path: Path) -> None:
    """Raise InputError where no part of a file that has several is named."""
    if not part:
        raise InputError(
            "which of these are the readings is not said",
            file=path,
            field=FIELD,
            found=", ".join(there),
            expected="FILE:COLUMN or FILE:/DATASET",
        )


def _real(values: NDArray[Any], path: Path) -> NDArray[Any]:
    if values.dtype.kind not in "iuf":
        raise InputError("not numbers", file=path, field=FIELD, found=f"dtype {values.dtype}")
    return values
