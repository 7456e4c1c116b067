"""Replay: a scan that lies here already, as if it were measured now; and positions that are known beforehand."""

from __future__ import annotations

import math
import time

import numpy as np
from numpy.typing import NDArray

from ptychow.live.records import End, FrameRecord, Record, Start, now
from ptychow.live.sources.base import LocalSource
from ptychow.live.sources.positions import require_unit, to_position
from ptychow.scan import Scan

MOST_FRAMES_AT_ONCE = 32
MOST_POSITIONS_AT_ONCE = 512


class ReplaySource(LocalSource):
    """The frames of a scan. rate: frames a second; None: as fast as they are taken."""

    def __init__(self, scan: Scan, *, rate: float | None = None) -> None:
        super().__init__(f"replay of {scan.name}")
        self._scan, self._rate = scan, rate or math.inf
        self._sent = -1  # not even Start
        self._began = 0.0

    def poll(self, timeout: float) -> list[Record]:
        """As `live.records.Source`."""
        scan = self._scan
        if self._sent < 0:
            self._sent, self._began = 0, now()
            metadata = dict(scan.metadata)
            return [Start(len(scan), scan.frame_shape, scan.mask, scan.saturation, scan.geometry, metadata)]
        if self.finished:
            time.sleep(timeout)
            return []
        due = self._due()
        if due <= self._sent:
            time.sleep(max(0.0, min(timeout, self._began + (self._sent + 1) / self._rate - now())))
            due = self._due()
        last = min(due, self._sent + MOST_FRAMES_AT_ONCE)
        frames = scan.frames[self._sent : last]
        records: list[Record] = [FrameRecord(self._sent + k, frame, now()) for k, frame in enumerate(frames)]
        self._sent = last
        if last == len(scan):
            self.finished = True
            records.append(End(len(scan), "end of the scan", 0))
        return records

    def _due(self) -> int:
        """How many frames should have been sent by now."""
        return int(min(len(self._scan), (now() - self._began) * self._rate))


class StoredPositions(LocalSource):
    """Positions (N, 2), row before column, in `unit` (m, mm, um, nm or px), for every series of the scan."""

    def __init__(self, positions: NDArray[np.float64], unit: str, name: str) -> None:
        super().__init__(name)
        self._positions, self._unit = positions, require_unit(unit)
        self._sent = 0

    def poll(self, timeout: float) -> list[Record]:
        """As `live.records.Source`."""
        if self.finished:
            time.sleep(timeout)
            return []
        part = self._positions[self._sent : self._sent + MOST_POSITIONS_AT_ONCE]
        received_at = now()
        records: list[Record] = [
            to_position(self._sent + k, (y, x), self._unit, received_at) for k, (y, x) in enumerate(part.tolist())
        ]
        self._sent += len(part)
        if self._sent == len(self._positions):
            self.finished = True
            records.append(End(self._sent, "all positions known"))
        return records
