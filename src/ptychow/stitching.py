"""How a scan's patches become one object: by which weights, and how their constants are solved. Offline and live."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.files import cannot_write
from ptychow.model import Model
from ptychow.stitch import Canvas, Patches, probe_weight, solve_constants

# Patches are kept for the final solve of their constants; beyond this many bytes in a temporary file instead of memory.
SPOOL_LIMIT = 2e9
CENTRAL_CROP = 12  # pixels, the PtychoNN notebooks'
STITCHED_AT_A_TIME = 64

Stitching = Literal["probe", "central-crop"]


def patch_weight(model: Model, stitching: Stitching) -> NDArray[np.float32]:
    """Stitching weights (m, m) of the central m x m pixels of a patch."""
    if stitching == "central-crop":
        return np.ones((CENTRAL_CROP, CENTRAL_CROP), np.float32)
    if stitching != "probe":
        raise InputError("unknown stitching", found=stitching, expected="probe or central-crop")
    if model.probe is None:
        raise InputError(
            "the Model knows no probe to weight patches by", field="probe", remedy="Use --stitching central-crop"
        )
    return probe_weight(model.probe)


def stitch_solved(
    canvas: Canvas,
    patches: Patches,
    positions: NDArray[np.float64],
    lit: NDArray[np.int64],
    folder: str | Path,
    on_sweep: Callable[[int], object] = lambda sweep: None,
) -> NDArray[np.complex64]:
    """Bring patches to one constant and stitch those at `lit`: how every scan ends whose Model leaves constants open.

    The constants are solved once, from all patches in the order of their indices. patches: (N, m, m). folder: where
    there is room for another copy of them. on_sweep: as `solve_constants` has it. Returns the constants (N,).
    """
    weight = canvas.weight.astype(np.float32)
    spool = partial(room_for_patches, path=Path(folder, "weighted"))
    constants = solve_constants(patches, positions, weight, allocate=spool, on_sweep=on_sweep)
    for start in range(0, len(lit), STITCHED_AT_A_TIME):
        chosen = lit[start : start + STITCHED_AT_A_TIME]
        canvas.add(patches[chosen] * constants[chosen, None, None], positions[chosen])
    return constants


def room_for_patches(shape: tuple[int, ...], path: Path) -> NDArray[np.complex64]:
    """Room for all patches, zero, in memory or in a new file. Raises PtychoWError where the disk has none."""
    if np.prod(shape, dtype=float) * 8 <= SPOOL_LIMIT:
        return np.zeros(shape, np.complex64)
    # Room is taken now: a memory map of a disk that fills up later would end the process without a word.
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)) * 8)
    except OSError as error:
        raise cannot_write(path, error.strerror) from None
    return np.memmap(path, np.complex64, "r+" if path.stat().st_size else "w+", shape=shape)
