"""Where the records of one scan arrive: counted, told apart, and queued for the worker."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from threading import Lock

from ptychow.live.counters import Counters
from ptychow.live.join import Seen
from ptychow.live.queue import Frame, FrameQueue
from ptychow.live.records import (
    LARGEST_INDEX,
    Corrupt,
    EncodedFrame,
    End,
    NoPosition,
    PositionRecord,
    Record,
    Start,
    now,
)

MOST_WARNINGS = 50


def remember(complaints: list[str], text: str) -> None:
    """Add to complaints, once, and not without end: a source of garbage must not fill the memory."""
    if text not in complaints and len(complaints) < MOST_WARNINGS:
        complaints.append(text)


class Intake:
    """Takes in the records of one scan from any number of threads.

    queue: of the frames. positions: as they came. start: what the detector said beforehand. ended: why nothing more is
    to be expected, or None. nothing_more: nothing will come, for sure. newest: when the last record came,
    `now()`; a position counts where it is the first one of a frame that may have come.
    """

    def __init__(self, folder: Path, *, memory: float, disk: float, every: int) -> None:
        self.queue = FrameQueue(folder, memory=memory, disk=disk, every=every)
        self.positions: deque[PositionRecord] = deque()
        self.counters = Counters()
        self.warnings: list[str] = []
        self.start: Start | None = None
        self.ended: str | None = None
        self.nothing_more = False
        self.newest = now()
        self._seen, self._placed, self._lock = Seen(), Seen(), Lock()  # frames, and positions, that came

    @property
    def largest_index(self) -> int:
        """Of the frames that came; -1 before the first."""
        return self._seen.largest

    def came_of_first(self, count: int) -> int:
        """How many of the frames 0 to count - 1 have come."""
        return self._seen.first(count)

    def is_complete(self) -> bool:
        """Whether all expected frames have come."""
        counts = self.counters.counts()
        return counts.expected is not None and counts.distinct >= counts.expected

    def frames_to_come(self) -> int | None:
        """How many frames the scan has, as far as anything says it: at the end, those up to the largest index."""
        expected = self.counters.counts().expected
        over = self.nothing_more or self.ended is not None
        return self.largest_index + 1 if expected is None and over else expected

    def has_told(self, idle_seconds: float | None) -> bool:
        """Whether the detector has described the scan, or will not: after its end, or so many silent seconds."""
        idle = idle_seconds is not None and self.silence() > idle_seconds
        return self.start is not None or self.ended is not None or self.nothing_more or idle

    def silence(self) -> float:
        """Seconds since the last record."""
        return now() - self.newest

    def receive(self, record: Record) -> None:
        """Take in a record of this scan. Never waits, and never raises for what came over the wire."""
        if not isinstance(record, PositionRecord) or self._is_awaited(record):
            self.newest = now()
        match record:
            case Start():
                self.start = record
                self._expect(record.expected)
            case End():
                self.ended = self.ended or record.reason
                self._expect(record.expected)
            case PositionRecord():
                self.positions.append(record)
            case Corrupt():
                self._receive_corrupt(record)
            case NoPosition():
                self.warn(record.reason)
            case _:
                self._receive_frame(record)  # type: ignore[arg-type]  # what is left are frames

    def _is_awaited(self, record: PositionRecord) -> bool:
        """Whether it is the first position of a frame that may have come: a stage can go on talking after a scan."""
        if not 0 <= record.index <= LARGEST_INDEX:
            return False
        with self._lock:
            return self._placed.add(record.index) and record.index <= self._seen.largest

    def spoilt(self, index: int, reason: str) -> None:
        """A frame taken from the queue turned out to be unusable: another copy of it is welcome."""
        with self._lock:
            self._seen.spoilt(index)
        self.counters.add(queued=-1, corrupt=1)
        self.warn(f"corrupt: {reason}")

    def warn(self, text: str) -> None:
        """Remember a complaint, once."""
        remember(self.warnings, text)

    def _expect(self, frames: int | None) -> None:
        if frames is None:
            return
        if 0 <= frames <= LARGEST_INDEX:
            self.counters.expect(frames)
        else:
            self.warn(f"{frames} frames are said to come: not believed")

    def _receive_corrupt(self, record: Corrupt) -> None:
        # What does not say which frame it was may have come twice, or be none at all.
        index, distinct = record.index, 0
        if index is not None and 0 <= index <= LARGEST_INDEX:
            with self._lock:
                before = self._seen.distinct
                self._seen.add_damaged(index)
                distinct = self._seen.distinct - before
        self.counters.add(received=1, corrupt=1, distinct=distinct)
        self.warn(f"corrupt: {record.reason}")

    def _receive_frame(self, record: Frame) -> None:
        if not 0 <= record.index <= LARGEST_INDEX:
            self._receive_corrupt(Corrupt(None, f"index {record.index}"))
            return
        shape = record.shape if isinstance(record, EncodedFrame) else record.frame.shape
        expected = None if self.start is None else self.start.frame_shape
        if expected is not None and tuple(shape) != tuple(expected):
            self._receive_corrupt(Corrupt(record.index, f"a frame of {shape} pixels where {expected} were announced"))
            return
        with self._lock:
            before = self._seen.distinct
            new = self._seen.add(record.index)
            distinct = self._seen.distinct - before
        if not new:
            self.counters.add(received=1, duplicate=1)
            return
        # Counted before it is queued: the worker may be done with it at once.
        self.counters.add(received=1, distinct=distinct, queued=1)
        taken = self.queue.put(record)
        if isinstance(taken, Corrupt):
            self.spoilt(record.index, taken.reason)
        elif not taken:
            self.counters.add(queued=-1, skipped=1)
