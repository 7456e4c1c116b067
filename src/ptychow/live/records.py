"""What sources say: one record for every thing that happened, each frame and position with its index.

A source of frames, or of positions, is anything with the members of `Source`; all of them speak in these records, so
that the pipeline knows no protocol. Rules that hold for every source:

* An index counts frames from 0 in the order of the scan. Records of one series may come in any order, more than once,
  or not at all: a frame may overtake its `Start`, and follow its `End`, where several receivers work in parallel.
* A new `series` is a new scan: the detector was started again. Numbers grow, not always by one.
* Whatever cannot be used becomes a `Corrupt` record, or `NoPosition` where its frame is untouched. Nothing that was
  received is dropped without one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ptychow.scan import Geometry, PositionUnit

# Larger indices are taken for garbage: a wrong one must not take the memory of a million others.
LARGEST_INDEX = 50_000_000


def now() -> float:
    """Seconds on the clock of every `received_at`; only differences mean anything."""
    return time.monotonic()


@dataclass(frozen=True, slots=True)
class Start:
    """A scan begins, and what is known of its frames beforehand. What is not known is None.

    expected: how many frames the detector will take.
    frame_shape: (H, W) of every frame.
    mask: (H, W) bool, True where the detector can be believed. saturation: counts at and above it are not to be.
    geometry: what the detector knows of it; the object's pixel size follows from the frames that are used.
    metadata: provenance, strings only.
    """

    expected: int | None = None
    frame_shape: tuple[int, int] | None = None
    mask: NDArray[np.bool_] | None = None
    saturation: float | None = None
    geometry: Geometry = field(default_factory=Geometry)
    metadata: dict[str, str] = field(default_factory=dict)
    series: int = 0


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """A frame (H, W) as the detector counted it. received_at: `now()` when its last byte was here."""

    index: int
    frame: NDArray[Any]
    received_at: float
    series: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.frame.shape[0], self.frame.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the counts."""
        return self.frame.dtype

    @property
    def nbytes(self) -> int:
        """Bytes it holds in memory."""
        return self.frame.nbytes

    def decode(self) -> FrameRecord:
        """Itself: it is decoded."""
        return self


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """A frame as it came over the wire: what `decode` needs, so that any thread can do it.

    data: the compressed bytes. codec: a name of `live.codecs.CODECS`. shape: (H, W). dtype: with its byte order.
    item: bytes of a number as the compressor was told, where that is not the dtype's (bslz4 only).
    """

    index: int
    data: bytes | memoryview
    codec: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    received_at: float
    series: int = 0
    item: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes it holds in memory."""
        return len(self.data)

    def decode(self) -> FrameRecord | Corrupt:
        """The frame in native byte order, or why it cannot be had. Takes no memory beyond the frame's size."""
        from ptychow.live.codecs import CodecError, decode

        try:
            frame = decode(self.data, self.codec, self.shape, self.dtype, item=self.item)
        except CodecError as error:
            return Corrupt(self.index, str(error), self.series)
        return FrameRecord(self.index, frame, self.received_at, self.series)


@dataclass(frozen=True, slots=True)
class PositionRecord:
    """Where the probe's centre was (y, x) at frame `index`, in `unit`.

    series: the scan it belongs to, or None: of the one that runs, as positions that come another way than frames are.
    """

    index: int
    position: tuple[float, float]
    unit: PositionUnit
    received_at: float
    series: int | None = None


@dataclass(frozen=True, slots=True)
class Corrupt:
    """Something was received that cannot be used, and why. index: of the frame, where the message still told it."""

    index: int | None
    reason: str
    series: int | None = None


@dataclass(frozen=True, slots=True)
class NoPosition:
    """A position was received that cannot be used, and why; that of a frame that came whole, perhaps."""

    reason: str
    series: int | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The scan is over for this source. expected: how many frames (positions) it says there were, where it does.

    reason: in words ("end of series", "abort", "end of file").
    """

    expected: int | None = None
    reason: str = "end"
    series: int | None = None


@dataclass(frozen=True, slots=True)
class SourceLost:
    """The other end is gone: nothing comes until `SourceBack`. The source goes on trying by itself."""

    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class SourceBack:
    """The other end is there, for the first time or again."""

    at: float


Record = Start | FrameRecord | EncodedFrame | PositionRecord | Corrupt | NoPosition | End | SourceLost | SourceBack


class Source(Protocol):
    """Where records come from. Opened by `with`; polled by one thread.

    name: what to call it in messages.
    waits: whether it may be left alone for as long as one likes (files, replay); a detector may not.
    overruns: frames that the transport says it lost before they could be polled.
    finished: nothing will ever come again (files, replay after their end; a detector is never finished).
    """

    name: str
    waits: bool

    @property
    def overruns(self) -> int:
        """Frames the transport itself says it lost."""
        ...

    @property
    def finished(self) -> bool:
        """Whether polling again is in vain."""
        ...

    def poll(self, timeout: float) -> list[Record]:
        """What has come, oldest first: as soon as there is anything, or nothing after `timeout` seconds.

        At most a few hundred records at a time. Raises PtychoWError only where going on is senseless.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
