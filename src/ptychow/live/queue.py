"""Frames between receiving and inference: a bounded queue in memory, then a bounded one on disk, then a rule."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from threading import Condition

from ptychow.live.records import Corrupt, EncodedFrame, FrameRecord
from ptychow.live.spool import SlotFile

# Parts of the disk's queue at which the operator's rule begins and ends to hold.
RULE_BEGINS, RULE_ENDS = 0.5, 0.25

Frame = FrameRecord | EncodedFrame


class FrameQueue:
    """Frames that wait for the machine. Receivers put, one worker takes.

    folder: where frames go for which there is no memory. memory, disk: bytes. every: while more than half of the disk's
    part is full (and until it is down to a quarter), only frames whose index is a multiple of it are taken in; beyond
    its end none are.
    """

    def __init__(self, folder: Path, *, memory: float, disk: float, every: int) -> None:
        self._folder, self._memory, self._disk, self._every = folder, memory, disk, every
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._spool: SlotFile | None = None
        self._spooled: deque[tuple[int, int, float, int]] = deque()
        self._ruled = False
        self._changed = Condition()

    def __len__(self) -> int:
        return len(self._frames) + len(self._spooled)

    @property
    def spooled(self) -> int:
        """Frames that wait on disk."""
        return len(self._spooled)

    @property
    def ruled(self) -> bool:
        """Whether frames are being skipped."""
        return self._ruled

    @property
    def full(self) -> bool:
        """Whether the memory's part is full: a source that waits should."""
        return self._bytes >= self._memory

    @property
    def oldest(self) -> float | None:
        """When the frame that waits longest was received."""
        with self._changed:
            times = [frames[0] for frames in (self._frames, self._spooled) if frames]
            return min((t.received_at if isinstance(t, Frame) else t[2] for t in times), default=None)

    def put(self, record: Frame) -> bool | Corrupt:
        """Whether the frame was taken in, or has been skipped; or why it could not be read on its way to the disk."""
        with self._changed:
            if self._bytes < self._memory:
                self._frames.append(record)
                self._bytes += record.nbytes
                self._changed.notify()
                return True
        # Frames on disk lie there decoded, in slots of one size.
        decoded = record.decode()
        return decoded if isinstance(decoded, Corrupt) else self._put_on_disk(decoded)

    def _put_on_disk(self, record: FrameRecord) -> bool:
        frame = record.frame
        if self._spool is None:
            self._spool = SlotFile(self._folder / "frames", frame.shape, frame.dtype, self._disk)
        if frame.shape != self._spool.shape or frame.dtype != self._spool.dtype:
            return False
        filled = len(self._spool) / max(self._spool.capacity, 1)
        self._ruled = filled >= (RULE_ENDS if self._ruled else RULE_BEGINS)
        if self._ruled and record.index % self._every:
            return False
        slot = self._spool.put(frame)
        if slot is None:
            self._ruled = True
            return False
        with self._changed:
            self._spooled.append((record.index, slot, record.received_at, record.series))
            self._changed.notify()
        return True

    def wait(self, least: int, timeout: float) -> None:
        """Return when `least` frames are there, or after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: len(self) >= least, timeout)

    def take(self, most: int) -> list[Frame]:
        """At most so many frames, those in memory first: order does not matter, and memory is what receiving needs."""
        with self._changed:
            taken = [self._frames.popleft() for _ in range(min(most, len(self._frames)))]
            self._bytes -= sum(record.nbytes for record in taken)
            spooled = [self._spooled.popleft() for _ in range(min(most - len(taken), len(self._spooled)))]
            self._ruled &= bool(self._spooled or spooled)
        for index, slot, received_at, series in spooled:
            assert self._spool is not None
            taken.append(FrameRecord(index, self._spool.get(slot), received_at, series))
            self._spool.free(slot)
        return taken

    def close(self) -> None:
        """Give the file back."""
        if self._spool is not None:
            self._spool.close()
