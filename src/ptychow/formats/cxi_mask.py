"""CXI's masks: which bits make a pixel unfit, and what they mean (tables 7 and 11 of the format's version 1.6)."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats.hdf5_files import hdf5_dataset, holds, read_hdf5_array, read_part

INVALID = 0x1
DEFECTS = {
    INVALID: "invalid",
    0x2: "saturated",
    0x4: "hot",
    0x8: "dead",
    0x10: "shadowed",
    0x40: "to be ignored",
    0x80: "bad",
    0x200: "missing",
    0x400: "noisy",
}
# Marks of what was seen or done there; the counts can be believed all the same.
REMARKS = {
    0x20: "in a peak",
    0x100: "out of the resolution limits",
    0x800: "corrected for an artefact",
    0x1000: "with signal",
}
LAYERS = 2**22  # pixels of a mask for every frame that are read at a time


def read_masks(
    file: h5py.File, names: tuple[str, ...], path: Path, count: int, frame_shape: tuple[int, ...]
) -> tuple[NDArray[np.bool_] | None, str]:
    """(good (H, W), what the bits say in words) of all masks there are together; (None, "") where there is none.

    A mask may be (H, W) or (count, H, W); a pixel that is bad in any frame is taken as bad in all.
    Raises InputError where one does not fit the frames.
    """
    found = [_bits(file, name, path, count, frame_shape) for name in names if holds(file, name, path)]
    if not found:
        return None, ""
    bits = np.bitwise_or.reduce(found)
    unfit = (bits & ~np.uint32(sum(REMARKS))) != 0
    said = {words: int(np.count_nonzero(bits & np.uint32(bit))) for bit, words in (DEFECTS | REMARKS).items()}
    words = ", ".join(f"{number} {what}" for what, number in said.items() if number)
    return ~unfit, words if set(np.unique(bits)) - {0, INVALID} else ""


def _bits(file: h5py.File, name: str, path: Path, count: int, frame_shape: tuple[int, ...]) -> NDArray[np.uint32]:
    """(H, W) of all bits that are set in any frame."""
    dataset = hdf5_dataset(file, name, path)
    if dataset.shape not in (frame_shape, (count, *frame_shape)) or dataset.dtype.kind not in "biuf":
        raise InputError(
            "does not fit the frames",
            file=path,
            field=name,
            found=f"shape {dataset.shape}, {dataset.dtype}",
            expected=frame_shape,
        )
    if dataset.ndim == 2:
        return _as_bits(read_hdf5_array(file, name, path))
    bits = np.zeros(frame_shape, np.uint32)
    step = max(1, LAYERS // bits.size)
    for start in range(0, count, step):
        part = read_part(dataset, [(start, min(start + step, count))], path, name)
        bits |= np.bitwise_or.reduce(_as_bits(part))
    return bits


def _as_bits(values: NDArray[np.generic]) -> NDArray[np.uint32]:
    """Bits of a mask of any type; what is no number is invalid."""
    values = np.nan_to_num(values, nan=INVALID) if values.dtype.kind == "f" else values
    return values.astype(np.int64).astype(np.uint32)
