"""The one place where frames meet their positions: by index, in any order, however late."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow.live.records import LARGEST_INDEX

NOTHING, DARK = -1, -2
CAME, CAME_DAMAGED = 1, 2


class Seen:
    """Which indices have come: one byte each. distinct: how many different ones. largest: of them, or -1."""

    def __init__(self) -> None:
        self._seen = bytearray(1024)
        self.distinct = 0
        self.largest = -1

    def add(self, index: int) -> bool:
        """Whether a frame of this index is welcome: none came before, or only damaged ones.

        Raises ValueError for an index that cannot be.
        """
        if not 0 <= index <= LARGEST_INDEX:
            raise ValueError(f"index {index}")
        if index >= len(self._seen):
            self._seen.extend(bytes(max(index + 1 - len(self._seen), len(self._seen))))
        before, self._seen[index] = self._seen[index], CAME
        self.distinct += before == 0
        self.largest = max(self.largest, index)
        return before != CAME

    def add_damaged(self, index: int) -> None:
        """What came under this index cannot be used: one that came whole before still holds, another copy is welcome
        otherwise. Raises ValueError as `add`.
        """
        if self.add(index):
            self._seen[index] = CAME_DAMAGED

    def spoilt(self, index: int) -> None:
        """What came whole under this index turned out to be damaged: another copy is welcome."""
        self._seen[index] = CAME_DAMAGED

    def first(self, count: int) -> int:
        """How many of the indices 0 to count - 1 have come."""
        return count - self._seen[:count].count(0)


class ByIndex:
    """A row of numbers for every index, grown as needed; `fill` where nothing was put."""

    def __init__(self, fill: float, dtype: type, *width: int) -> None:
        self._fill = fill
        self._rows: NDArray[Any] = np.full((1024, *width), fill, dtype)

    def __getitem__(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of these indices."""
        self._reach(indices)
        return self._rows[indices]

    def __setitem__(self, indices: NDArray[np.int64], rows: Any) -> None:
        self._reach(indices)
        self._rows[indices] = rows

    def _reach(self, indices: NDArray[np.int64]) -> None:
        missing = int(np.max(indices, initial=-1)) + 1 - len(self._rows)
        if missing > 0:
            padding = [(0, max(missing, len(self._rows)))] + [(0, 0)] * (self._rows.ndim - 1)
            self._rows = np.pad(self._rows, padding, constant_values=self._fill)

    def where(self, fulfilled: Any) -> NDArray[np.int64]:
        """Indices, in order, of the rows (N, ...) for which `fulfilled` says True."""
        return np.flatnonzero(fulfilled(self._rows))


class Join:
    """Slots of patches and positions of frames, by index: 20 bytes an index. Used by one thread.

    waiting: patches without a position. positions: how many have come.
    """

    def __init__(self) -> None:
        self._slots = ByIndex(NOTHING, np.int32)
        self._positions = ByIndex(np.nan, np.float64, 2)
        self.waiting = 0
        self.positions = 0

    def add_patches(self, indices: NDArray[np.int64], slots: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Remember where the patches (b,) lie (`DARK`: the frame held no counts, and has none). True for those whose
        position is there; the others wait.
        """
        self._slots[indices] = slots
        there, bright = np.isfinite(self._positions[indices][:, 0]), slots != DARK
        self.waiting += int((bright & ~there).sum())
        return bright & there

    def add_positions(self, indices: NDArray[np.int64], positions: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Remember positions (b, 2), finite, of different indices. True where a patch has waited for one.

        Of two positions for one index the first holds.
        """
        new = ~np.isfinite(self._positions[indices][:, 0])
        self._positions[indices[new]] = positions[new]
        self.positions += int(new.sum())
        waited = new & (self._slots[indices] >= 0)
        self.waiting -= int(waited.sum())
        return waited

    def find(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """(slots (b,), positions (b, 2)) of these indices."""
        return self._slots[indices], self._positions[indices]

    def placed(self) -> NDArray[np.int64]:
        """Indices, in order, of all frames (dark ones too) that met their position."""
        frames = self._slots.where(lambda slots: slots != NOTHING)
        return frames[np.isfinite(self._positions[frames][:, 0])]
