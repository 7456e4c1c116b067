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


def paired(
    frames: Frames, positions: NDArray[np.float64], path: Path, mapping: Mapping[str, str]
) -> tuple[Frames, NDArray[np.float64]]:
    """Frames (N, H, W) and positions without what the mapping leaves out.

    Raises InputError for no frames' numbers, and where none is left.
    """
    if "drop" not in mapping:
        return frames, positions
    kept = ~chosen_frames(mapping["drop"], frames.shape[0], "drop")
    if not kept.any():
        raise InputError("leaves no frame", file=path, field="drop", found=mapping["drop"])
    together = len(positions) == len(kept)
    return Subset(frames, np.flatnonzero(kept)), positions[kept] if together else positions
