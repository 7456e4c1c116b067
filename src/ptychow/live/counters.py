"""What became of every frame. Nothing is ever dropped without being counted here."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from threading import Lock

import numpy as np

# Latencies remembered for their quantiles.
REMEMBERED = 16384


@dataclass(frozen=True)
class Counts:
    """Frames, by what became of them.

    expected: as start and end of the scan say, or first to last index; None where nothing says.
    received: messages that were frames, or should have been. distinct: different frames among them, as far as their
    index is known.
    corrupt: could not be decoded, or are no frame of this scan. duplicate: had come before.
    skipped: given up by the operator's rule because the machine was too slow. queued: received, not yet decoded.
    decoded: could be read. dark: of these, held no counts. inferred: went through the network. refused: of these,
    their position lies beyond what a mosaic may cover. joined: met their position. waiting: of those inferred, have
    no position yet. stitched: are in the mosaic. overruns: lost by the transport before they could be received.
    """

    expected: int | None = None
    received: int = 0
    distinct: int = 0
    corrupt: int = 0
    duplicate: int = 0
    skipped: int = 0
    queued: int = 0
    decoded: int = 0
    dark: int = 0
    inferred: int = 0
    joined: int = 0
    waiting: int = 0
    refused: int = 0
    stitched: int = 0
    overruns: int = 0

    @property
    def lost(self) -> int | None:
        """Expected frames of which nothing was received."""
        return None if self.expected is None else max(self.expected - self.distinct, 0)

    def imbalance(self) -> str | None:
        """Between which stages frames went astray, in words; None where every frame is accounted for."""
        sums = {
            "received": self.corrupt + self.duplicate + self.skipped + self.queued + self.decoded,
            "decoded": self.dark + self.inferred,
            "inferred": self.joined + self.waiting,
            "joined": self.stitched + self.refused,
        }
        wrong = [
            f"{getattr(self, name)} {name}, not {found}" for name, found in sums.items() if getattr(self, name) != found
        ]
        return f"the counters do not balance: {'; '.join(wrong)}" if wrong else None

    def to_dict(self) -> dict[str, int | None]:
        """All of them by name, `lost` too."""
        return {**asdict(self), "lost": self.lost}


class Counters:
    """`Counts` that several threads add to, the latencies of frames, and their rates."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: dict[str, int] = {}
        self._expected: int | None = None
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)
        self._rates = {"received": Rate(), "stitched": Rate()}

    def add(self, **changes: int) -> None:
        """Add to counts by name, all at once."""
        with self._lock:
            for name, change in changes.items():
                self._counts[name] = self._counts.get(name, 0) + change

    def expect(self, frames: int) -> None:
        """At least so many frames are to come."""
        with self._lock:
            self._expected = max(frames, self._expected or 0)

    def overran(self, frames: int) -> None:
        """So many frames the transport has lost by now."""
        with self._lock:
            self._counts["overruns"] = frames

    def took(self, seconds: list[float]) -> None:
        """From the last byte of frames (or of their positions, where those came later) to pixels in the mosaic."""
        with self._lock:
            self._latencies.extend(seconds)

    def counts(self) -> Counts:
        """As they are now."""
        with self._lock:
            return Counts(expected=self._expected, **self._counts)

    def rates(self, at: float) -> dict[str, float]:
        """Frames received and stitched a second, lately, at time `at`, seconds: see `Rate`."""
        with self._lock:
            return {name: rate(self._counts.get(name, 0), at) for name, rate in self._rates.items()}

    def latency(self) -> dict[str, float | None]:
        """p50 and p99 of the latest latencies, seconds; None before the first."""
        with self._lock:
            found = np.array(self._latencies)
        if not found.size:
            return {"p50": None, "p99": None}
        return {"p50": float(np.quantile(found, 0.5)), "p99": float(np.quantile(found, 0.99))}


class Rate:
    """Events a second over the last `window` seconds."""

    def __init__(self, window: float = 3.0) -> None:
        self._window = window
        self._seen: deque[tuple[float, int]] = deque()

    def __call__(self, total: int, at: float) -> float:
        """The rate, now that `total` have happened at time `at`, seconds. Called about ten times a second."""
        self._seen.append((at, total))
        while len(self._seen) > 2 and self._seen[1][0] < at - self._window:
            self._seen.popleft()
        began, before = self._seen[0]
        return (total - before) / (at - began) if at > began else 0.0
