"""Frames of a scan as a detector sends them, compressed beforehand as far as memory allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from ptychow.scan import Scan

MOST_BYTES = 1 << 29


class Payloads:
    """What `pack` makes of the frames of a scan, which begins again after its last."""

    def __init__(self, scan: Scan, pack: Callable[[NDArray[Any]], Any]) -> None:
        self._frames, self._pack = scan.frames, pack
        self._most = MOST_BYTES // max(scan.frames[0].nbytes, 1)
        self._packed: dict[int, Any] = {}

    def get(self, index: int) -> Any:
        """The payload of frame `index`."""
        place = index % self._frames.shape[0]
        packed = self._packed.get(place)
        if packed is None:
            packed = self._pack(self._frames[place])
            if len(self._packed) < self._most:
                self._packed[place] = packed
        return packed
