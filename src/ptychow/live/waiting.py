"""What a session waits for: which part of a scan, from where, for how long, and why, where a source can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ptychow.live.pipeline import LiveScan
from ptychow.live.records import Record, Source, SourceBack, SourceLost, now


@dataclass
class Link:
    """A source as the session hears it. part: what it brings, "frames" or "positions".

    lost: why nothing can come from it, while it says so. is_there: whether its other end answered; None: it never said.
    newest: when it last gave a sign of life, or the waiting began, `now()`.
    """

    source: Source
    part: str
    lost: str | None = None
    is_there: bool | None = None
    newest: float = field(default_factory=now)

    def hear(self, records: Sequence[Record]) -> None:
        """Keep up with what the source says of itself."""
        for record in records:
            if isinstance(record, SourceLost):
                self.lost, self.is_there = record.reason, False
                continue
            if isinstance(record, SourceBack):
                self.lost, self.is_there = None, True
            self.newest = now()

    def wait(self) -> Wait:
        """For what it brings."""
        silent = "it is there, but nothing comes" if self.is_there else None
        return Wait(self.part, self.source.name, now() - self.newest, self.lost or silent, self.lost is not None)


@dataclass(frozen=True)
class Wait:
    """A part of a scan that has not come for some seconds. why: as far as it is known. is_lost: nothing can come."""

    part: str
    name: str
    seconds: float
    why: str | None = None
    is_lost: bool = False

    def __str__(self) -> str:
        long = f"{self.seconds:.0f} s" if self.seconds < 120 else f"{self.seconds / 60:,.0f} min"
        why = f": {self.why}" if self.why else ""
        return f"no {self.part} from {self.name} for {long}{why}"


def waits(links: Sequence[Link], scan: LiveScan | None, more_scans: bool) -> list[Wait]:
    """What is missing now of the scan that runs, or of the next one where None does.

    links: the frames' first. more_scans: whether others are wanted after it; where none is, a source whose other end
    goes away after the last frame is no loss.
    """
    frames = links[0]
    more_frames = more_scans if scan is None else not (scan.intake.ended or scan.intake.is_complete())
    found = [frames.wait()] if not frames.source.finished and (more_frames or (frames.lost and more_scans)) else []
    lacking = scan is not None and scan.counters.counts().waiting > 0
    wanted = more_frames or more_scans
    found += [link.wait() for link in links[1:] if not link.source.finished and (lacking or (link.lost and wanted))]
    if scan is not None and scan.is_held():
        found.append(Wait("description of the frames", frames.source.name, now() - scan.began))
    return found
