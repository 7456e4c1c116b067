"""What goes wrong between a detector and whoever listens, at a chosen rate and repeatably."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ptychow.errors import InputError

Kind = Literal["start", "frame", "duplicate", "drop", "garbage", "stall", "vanish", "end"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the detector does. index: of the frame; -1 where there is none."""

    kind: Kind
    index: int
    series: int


@dataclass(frozen=True)
class Faults:
    """drop, duplicate, garbage: parts of the frames (0 to 1) that are not sent, sent twice, preceded by nonsense.

    reorder: a frame leaves at most so many places late. late_positions: seconds after their frames.
    restart: frames after which the scan is aborted and begun again as a new series. stall, vanish: seconds, in the
    middle of the scan, in which nothing is sent, or nobody is there. seed: of all choices.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    garbage: float = 0.0
    reorder: int = 0
    late_positions: float = 0.0
    restart: int | None = None
    stall: float = 0.0
    vanish: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("drop", "duplicate", "garbage"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError("not a part", field=f"--{name}", found=getattr(self, name), expected="0 to 1")

    def events(self, count: int) -> Iterator[Event]:
        """What happens in a scan of `count` frames, in order."""
        choices = np.random.default_rng(self.seed)
        for series in range(1 if self.restart is None else 2):
            order = np.argsort(np.arange(count) + choices.uniform(0, self.reorder + 1e-9, count), kind="stable")
            fates = choices.random((count, 3)) < (self.drop, self.garbage, self.duplicate)
            yield Event("start", -1, series)
            for place, index in enumerate(order.tolist()):
                if series == 0 and place == self.restart:
                    break
                if series == 0 and place == count // 2:
                    yield from (Event(kind, -1, series) for kind in ("stall", "vanish") if getattr(self, kind))
                drop, garbage, duplicate = fates[index]
                if garbage:
                    yield Event("garbage", index, series)
                yield Event("drop" if drop else "frame", index, series)
                if duplicate and not drop:
                    yield Event("duplicate", index, series)
            else:
                yield Event("end", -1, series)
