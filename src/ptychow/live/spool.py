"""Arrays on disk, so that memory does not grow with the scan.

Written and read by position instead of mapped into memory: a map of a disk that fills up ends the process without a
word, and a mapped file counts as the process's memory.
"""

from __future__ import annotations

import math
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray


class SlotFile:
    """Equal arrays in a new file of numbered slots, at `path`. Several threads may use it.

    shape, dtype: of each array. limit: bytes the file may take; beyond it, or where the disk is full, it is full.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any] | type, limit: float) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.slot_bytes = math.prod(shape) * self.dtype.itemsize
        self.capacity = int(limit // self.slot_bytes)
        self.path = path
        self._file = path.open("w+b", buffering=0)
        self._lock = Lock()
        self._free: list[int] = []
        self._used = 0

    def __len__(self) -> int:
        return self._used - len(self._free)

    def put(self, array: NDArray[Any]) -> int | None:
        """The slot the array now lies in; None where the file or the disk is full."""
        with self._lock:
            if not self._free and self._used >= self.capacity:
                return None
            slot = self._free[-1] if self._free else self._used
            try:
                self._file.seek(slot * self.slot_bytes)
                written = self._file.write(np.ascontiguousarray(array, self.dtype).tobytes())
            except OSError:
                return None
            if written != self.slot_bytes:
                return None
            if self._free:
                self._free.pop()
            else:
                self._used += 1
            return slot

    def get(self, slot: int) -> NDArray[Any]:
        """A copy of the array in a slot."""
        with self._lock:
            self._file.seek(slot * self.slot_bytes)
            return np.frombuffer(self._file.read(self.slot_bytes), self.dtype).reshape(self.shape)

    def free(self, slot: int) -> None:
        """Let the slot be used again."""
        with self._lock:
            self._free.append(slot)

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


class PatchSpool:
    """Complex patches (n, n) on disk as pairs of float16: 4 bytes a pixel, exact to 5e-4 of their size.

    limit: bytes; see `SlotFile`.
    """

    def __init__(self, path: Path, size: int, limit: float) -> None:
        self._slots = SlotFile(path, (size, size, 2), np.float16, limit)

    @staticmethod
    def rounded(patches: NDArray[np.complexfloating]) -> NDArray[np.complex64]:
        """Patches (b, n, n) as they will come back: what is stitched at once and what is stitched late are the same."""
        return _complex(_pairs(patches))

    def put(self, patch: NDArray[np.complexfloating]) -> int | None:
        """The slot the patch (n, n) now lies in; None where there is no room."""
        return self._slots.put(_pairs(patch))

    def get(self, slots: NDArray[np.integer]) -> NDArray[np.complex64]:
        """The patches (b, n, n) in these slots."""
        return _complex(np.stack([self._slots.get(int(slot)) for slot in slots]))

    def close(self) -> None:
        """Give the file back."""
        self._slots.close()


class SpooledPatches:
    """Patches of a spool in the order of their frames' indices: `stitch.Patches`. slots: (N,), of the i-th patch."""

    def __init__(self, spool: PatchSpool, slots: NDArray[np.integer]) -> None:
        self._spool, self._slots = spool, slots

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, index: Any) -> NDArray[np.complex64]:
        return self._spool.get(self._slots[index])


def _pairs(patches: NDArray[np.complexfloating]) -> NDArray[np.float16]:
    single = np.ascontiguousarray(patches, np.complex64)
    return single.view(np.float32).reshape(*single.shape, 2).astype(np.float16)


def _complex(pairs: NDArray[np.float16]) -> NDArray[np.complex64]:
    return pairs.astype(np.float32).view(np.complex64)[..., 0]
