"""A scan that holds files: what it is given, and when the disk gets back which of them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from ptychow.live.pipeline import LiveScan
from ptychow.live.records import Corrupt, PositionRecord, Record

# The memory of a scan goes by its largest index. Up to LIKELY_INDEX (30 MB) any is believed; beyond, none that is
# larger than so many times the frames that are expected, or have come.
LIKELY_INDEX, TIMES = 1_000_000, 4


@dataclass(frozen=True)
class OpenScan:
    """A scan and its files. folder: of its spools. overruns_before: of the source, as it began."""

    scan: LiveScan
    folder: TemporaryDirectory[str]
    overruns_before: int

    def receive(self, record: Record) -> None:
        """Hand a record to the scan, as `Intake.receive`; not its index, where that is far beyond the scan's."""
        index, intake = getattr(record, "index", None), self.scan.intake
        if index is None or index <= max(LIKELY_INDEX, TIMES * self._frames() if index > LIKELY_INDEX else 0):
            intake.receive(record)
            return
        reason = f"index {index:,}, far beyond the {self._frames():,} frames that are expected or have come"
        if isinstance(record, PositionRecord):
            intake.warn(f"a position of {reason}: not used")
        else:
            intake.receive(Corrupt(None, reason))

    def _frames(self) -> int:
        """How many frames are expected, or have come, or have a position."""
        counts = self.scan.counters.counts()
        return max(counts.expected or 0, counts.distinct, self.scan.join.positions + len(self.scan.intake.positions))

    def keep_frames_only(self) -> None:
        """Give all of the disk back that nobody needs once the result is written: all but frames that were kept."""
        kept = None if self.scan.kept is None else self.scan.kept.path
        with suppress(OSError):  # what does not go now goes with the folder
            self.scan.intake.queue.close()
            self.scan.patches.close()
            for path in self.scan.folder.iterdir():
                if path != kept:
                    path.unlink()

    def close(self) -> None:
        """Give the disk back, as far as the system lets us: a folder that is gone already must not cost a result."""
        with suppress(OSError):
            self.scan.close()
        self.folder.cleanup()
