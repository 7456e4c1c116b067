"""Frames and positions that do not pair up: the key `drop` of a mapping leaves frames out before they must.

An aborted scan has frames without a position, and an encoder can lose a point. Where there are as many positions as
frames, those of the frames left out go with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.frame_choice import chosen_frames
from ptychow.scan import Frames, Subset

KEYS = {"drop": "frames to leave out: numbers from 0 and FIRST:LAST, such as 17,390:"}


def kept_frames(count: int, path: Path, mapping: Mapping[str, str]) -> NDArray[np.bool_]:
    """(count,) which of the stored frames the mapping does not leave out: all without its key.

    Raises InputError for no frames' numbers, and where none is left.
    """
    kept = ~chosen_frames(mapping["drop"], count, "drop") if "drop" in mapping else np.ones(count, bool)
    if count and not kept.any():
        raise InputError("leaves no frame", file=path, field="drop", found=mapping["drop"])
    return kept


def images_of(images: Frames, kept: NDArray[np.bool_]) -> Frames:
    """Those of the images (N, H, W) that are kept (N,), still on disk."""
    return images if kept.all() else Subset(images, np.flatnonzero(kept))


def positions_of(positions: NDArray[np.float64], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The positions of the frames that are kept (N,), of (N, 2); those of another number are of these alone."""
    return positions[kept] if len(positions) == len(kept) else positions
