"""Which scan points train, which validate, and which the network must not have seen.

Neighbouring patches share object pixels, so a random split tests a network on pixels it was trained on. The spatial
split leaves a guard gap of one patch between its blocks: no object pixel is in two of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ptychow.errors import InputError

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Frame indices of each part; what is in none of them lies in a guard gap."""

    kind: str
    train: Indices
    validation: Indices
    holdout: Indices


def spatial_split(
    positions_px: NDArray[np.float64],
    gap: float,
    *,
    validation: float = 0.1,
    holdout: float = 0.0,
    axis: int | None = None,
) -> Split:
    """Blocks along one axis: train | gap | validation | gap | holdout.

    positions_px: (N, 2). gap: the least distance along the axis between points of two blocks (the patch size).
    validation, holdout: fractions of all frames. axis: 0 rows, 1 columns, None the longer extent.
    Raises InputError where nothing is left to train on, or for fractions that are none.
    """
    _require_fractions(validation=validation, holdout=holdout)
    if axis is None:
        axis = int(np.argmax(np.ptp(positions_px, axis=0)))
    along = positions_px[:, axis]
    order = np.argsort(along, kind="stable")
    left = order
    blocks = []
    for fraction in (holdout, validation):
        count = min(round(fraction * len(order)), len(left))
        block = left[len(left) - count :]
        blocks.append(np.sort(block))
        if count:
            left = left[along[left] <= along[block].min() - gap]
    if len(left) == 0:
        raise InputError(
            "the scan is too small for these blocks with a guard gap",
            field="split",
            found=f"{np.ptp(along):.0f} object pixels along axis {axis}",
            expected=f"more than the gap(s) of {gap:.0f} pixels",
            remedy="Take smaller fractions, another scan to validate on, or --split none",
        )
    return Split("spatial", np.sort(left), blocks[1], blocks[0])


def random_split(count: int, seed: int, *, validation: float = 0.1) -> Split:
    """The paper's split: shuffled, `validation` of the frames apart. Its blocks share object pixels."""
    _require_fractions(validation=validation)
    order = np.random.default_rng(seed).permutation(count)
    cut = round(validation * count)
    return Split("random", np.sort(order[cut:]), np.sort(order[:cut]), np.zeros(0, np.int64))


def no_split(count: int) -> Split:
    """Every frame trains."""
    return Split("none", np.arange(count), np.zeros(0, np.int64), np.zeros(0, np.int64))


def _require_fractions(**fractions: float) -> None:
    for name, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise InputError("not a fraction of the frames", field=name, found=fraction, expected="0 to 1")
    if sum(fractions.values()) >= 1:
        found = f"{sum(fractions.values()):g} of the frames"
        raise InputError("leave nothing to train on", field=" and ".join(fractions), found=found, expected="below 1")


def split_scan(
    positions_px: NDArray[np.float64],
    patch_size: float,
    kind: str = "spatial",
    *,
    seed: int = 0,
    validation: float = 0.1,
    holdout: float = 0.0,
) -> Split:
    """Divide the frames at these positions.

    kind: "spatial" (blocks with a guard gap of `patch_size` scan pixels), "random" or "none".
    """
    if kind == "spatial":
        return spatial_split(positions_px, patch_size, validation=validation, holdout=holdout)
    if holdout:
        raise InputError("only the spatial split can hold frames out", field="split", found=kind, expected="spatial")
    if kind == "random":
        return random_split(len(positions_px), seed, validation=validation)
    if kind == "none":
        return no_split(len(positions_px))
    raise InputError("unknown split", field="split", found=kind, expected="spatial, random or none")


def shares_pixels(positions_px: NDArray[np.float64], others_px: NDArray[np.float64], size: float) -> NDArray[np.bool_]:
    """(N,) True where the size x size patch at a position shares an object pixel with one at any of the others."""
    if len(others_px) == 0:
        return np.zeros(len(positions_px), bool)
    distance, _ = cKDTree(others_px).query(positions_px, p=np.inf)
    return np.asarray(distance < size)
