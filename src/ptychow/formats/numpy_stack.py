"""Frames that someone saved with NumPy: an .npy file, or an array of an .npz; all else is said.

Frames are (N, H, W), in an .npz also (lines, points, H, W). Positions come from a file of their own (--positions FILE)
or from the .npz itself: --map positions=NAME for an array (N, 2), --map positions=DOWN,RIGHT for two.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats import position_files, stacks
from ptychow.formats.base import Format
from ptychow.formats.lazy import NumpyFrames
from ptychow.formats.numpy_files import is_npy, npz_members, npz_shapes, read_header
from ptychow.scan import PositionUnit, Scan

KEYS = {
    "frames": "name of the array of frames in an npz, where several may be it",
    "positions": "name of the array (N, 2) of positions in an npz, or DOWN,RIGHT: the names of two",
    **stacks.KEYS,
}


def recognises(path: Path) -> bool:
    """Whether it is an .npy file, or an .npz with some stack of images."""
    if is_npy(path):
        shape = read_header(path).shape
        return len(shape) == 3 and shape[-1] != 2  # positions of a raster are no images
    return bool(_stacks(path))


def read(path: Path, mapping: Mapping[str, str]) -> Scan:
    """The scan. Raises InputError where the frames or the positions are not said, missing or damaged."""
    frames = NumpyFrames.open(path, "" if is_npy(path) else _frames_of(path, mapping))
    positions, unit = _positions(path, mapping)
    return stacks.scan_of_stack(frames, positions, unit, path, mapping)


def _stacks(path: Path) -> list[str]:
    """Names of the arrays of three or four dimensions in an .npz."""
    return [name for name, shape in npz_shapes(path).items() if len(shape) in (3, 4)]


def _frames_of(path: Path, mapping: Mapping[str, str]) -> str:
    if "frames" in mapping:
        return mapping["frames"]
    found = _stacks(path)
    if len(found) != 1:
        remedy = f"Say: --map frames={found[0]}"
        raise InputError("several arrays may be its frames", file=path, found=", ".join(found), remedy=remedy)
    return found[0]


def _positions(path: Path, mapping: Mapping[str, str]) -> tuple[NDArray[np.float64], PositionUnit]:
    members = npz_members(path)
    if "positions" not in mapping and "positions_file" not in mapping and members:
        raise InputError(
            "holds no positions that are named",
            file=path,
            found=", ".join(members),
            remedy="Name them: --map positions=NAME of an array (N, 2), or DOWN,RIGHT of two; or --positions FILE",
        )
    if "positions" not in mapping:
        return position_files.needed(path, mapping)
    if "positions_file" in mapping:
        field = "positions and positions_file"
        raise InputError("the mapping says the same thing twice", file=path, field=field)
    own = {"positions_file": str(path), "position_columns": mapping["positions"]}
    return position_files.read_positions({**mapping, **own})


FORMAT = Format(name="numpy", title="NumPy stack", recognises=recognises, read=read, keys=KEYS)
