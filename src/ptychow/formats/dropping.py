"""Frames and positions that do not pair up: the keys `drop` and `drop_positions` leave some out before they must.

An aborted scan has frames without a position, or positions of its plan without a frame, and an encoder can lose a
point. Where there are as many positions as frames, those of the frames left out go with them. In a fly scan an encoder
is read several times a frame (`positions_per_frame`): the mean is the frame's position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats.base import require_memory
from ptychow.frame_choice import chosen_frames
from ptychow.scan import Frames, Subset

KEYS = {
    "drop": "frames to leave out: numbers from 0 and FIRST:LAST, such as 17,390:",
    "drop_positions": "positions to leave out, in the same way: those of a plan that was not measured to its end",
    "positions_per_frame": "how many positions were recorded during each frame of a fly scan; their mean counts",
}
OF_POSITIONS = ("drop_positions", "positions_per_frame")


@dataclass(frozen=True)
class Pairing:
    """kept: (N,) which of the stored frames a mapping keeps. surplus: the positions it leaves out, as it says them.
    recorded: how many positions belong to a frame.
    """

    kept: NDArray[np.bool_]
    surplus: str | None
    recorded: int = 1

    @classmethod
    def of(cls, count: int, path: Path, mapping: Mapping[str, str]) -> Pairing:
        """What the mapping keeps of so many stored frames: all without its keys.

        Raises InputError for no frames' numbers, where none is left, for no number of positions, and for more frames
        than could be numbered in memory.
        """
        require_memory(8 * count, path, "frames")
        kept = ~chosen_frames(mapping["drop"], count, "drop") if "drop" in mapping else np.ones(count, bool)
        if count and not kept.any():
            raise InputError("leaves no frame", file=path, field="drop", found=mapping["drop"])
        recorded = mapping.get("positions_per_frame", "1")
        if not recorded.isdecimal() or recorded == "0":
            raise InputError("not a number of positions", file=path, field="positions_per_frame", found=recorded)
        return cls(kept, mapping.get("drop_positions"), int(recorded))

    def of_frames(self) -> Pairing:
        """What is kept of the frames, without what is said of positions."""
        return Pairing(self.kept, None)

    @property
    def is_whole(self) -> bool:
        """Whether all frames are kept."""
        return bool(self.kept.all())

    def images(self, images: Frames) -> Frames:
        """Those of the images (N, H, W) that are kept, still on disk."""
        return images if self.is_whole else Subset(images, np.flatnonzero(self.kept))

    def positions(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """(M, 2) without the surplus, one a frame: of all stored frames, of which those kept are taken, or of these
        alone.

        Raises InputError where the surplus is no positions' numbers, and for positions that are not as many for each
        frame.
        """
        if self.surplus is not None:
            positions = positions[~chosen_frames(self.surplus, len(positions), "drop_positions", "positions")]
        surplus = len(positions) % self.recorded
        if surplus:
            raise InputError(
                "not as many positions for each frame",
                field="positions_per_frame",
                found=f"{len(positions)} positions",
                expected=f"a multiple of {self.recorded}",
                remedy=f"Leave the surplus out (--map drop_positions=-{surplus}:)",
            )
        if self.recorded > 1 and positions.ndim == 2:
            positions = positions.reshape(-1, self.recorded, positions.shape[1]).mean(axis=1)
        return positions[self.kept] if len(positions) == len(self.kept) else positions
