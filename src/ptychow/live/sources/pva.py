"""EPICS pvAccess: frames of an areaDetector (NTNDArray) as its channel publishes them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from threading import Event
from types import TracebackType
from typing import Any, Self

from ptychow.errors import MissingExtraError
from ptychow.live import ntndarray
from ptychow.live.codecs import CodecError
from ptychow.live.records import (
    LARGEST_INDEX,
    Corrupt,
    EncodedFrame,
    FrameRecord,
    Record,
    SourceBack,
    SourceLost,
    Start,
    now,
)
from ptychow.live.sources.positions import require_unit, to_position

try:
    from p4p import Value
    from p4p.client.raw import Context, Subscription
except ImportError:
    raise MissingExtraError("EPICS pvAccess", "live") from None

MOST_AT_ONCE = 256
# A channel first tells what it last had. Older than this, by either epoch in use, it belongs to another scan.
RETAINED_SECONDS = 2.0
EPICS_EPOCH = 631_152_000  # 1990-01-01 in seconds since 1970; some drivers count from here


class Channels:
    """Monitors of EPICS channels, polled together. What a monitor's queue cannot keep, its newest update replaces.

    server: "host:port" of the one server to ask, over TCP, so that nothing is broadcast; None: as the environment
    (EPICS_PVA_ADDR_LIST, ...) says. queue: updates kept per channel.
    """

    def __init__(self, names: Sequence[str], server: str | None, queue: int) -> None:
        self.names = tuple(names)
        self._opened = time.time()
        self._event = Event()
        self._connected = False
        only = {"EPICS_PVA_NAME_SERVERS": server, "EPICS_PVA_ADDR_LIST": "", "EPICS_PVA_AUTO_ADDR_LIST": "NO"}
        # Values as they are: unpacking them for us would cost more than receiving them.
        self._context = Context("pva", conf=only if server else None, useenv=server is None, nt=False)
        request = f"field()record[queueSize={queue}]"
        self._monitors: dict[str, Subscription] = {
            name: self._context.monitor(name, self._event.set, request=request) for name in names
        }

    def close(self) -> None:
        """Stop."""
        for monitor in self._monitors.values():
            monitor.close()
        self._context.close()

    def retained(self, taken: float) -> bool:
        """Whether what was taken then (seconds since 1970, 0: not told) is of long before the channels were asked."""
        age = min(self._opened - taken, abs(self._opened - taken - EPICS_EPOCH))
        return taken > 0 and age > RETAINED_SECONDS

    def poll(self, timeout: float) -> Iterator[tuple[str, Value | SourceLost | SourceBack]]:
        """(channel, update) of what has come, for each channel in its order; or nothing after `timeout` seconds."""
        if not self._event.wait(timeout):
            return
        self._event.clear()
        for name, monitor in self._monitors.items():
            for _ in range(MOST_AT_ONCE):
                update = monitor.pop()
                if update is None:
                    break
                if isinstance(update, Exception):
                    if self._connected:
                        self._connected = False
                        yield name, SourceLost(f"{name}: {update}", now())
                    continue
                if not self._connected:
                    self._connected = True
                    yield name, SourceBack(now())
                yield name, update
            else:
                self._event.set()  # more is waiting


class PvaSource:
    """Frames, and their positions where they travel as attributes, of an NTNDArray channel.

    channel: such as "13SIM1:Pva1:Image". attributes: names of the two that hold (y, x), in `unit`, or None.
    first: uniqueId of the frame that is index 0; areaDetector's counters begin with 1. None: of the first that comes.
    frames: how many the scan will have, where known: the channel says neither that nor when the scan ends.
    server, queue: as `Channels`.

    A uniqueId that falls back while the time goes on is a scan started again: a new series.
    """

    waits = False
    finished = False

    def __init__(
        self,
        channel: str,
        *,
        attributes: tuple[str, str] | None = None,
        unit: str = "m",
        first: int | None = 1,
        frames: int | None = None,
        server: str | None = None,
        queue: int = 1000,
    ) -> None:
        self.name = f"pva://{channel}"
        # Gaps between the uniqueIds that came, less those that came late.
        self.overruns = 0
        self._channel, self._server, self._queue = channel, server, queue
        self._attributes, self._unit = attributes, require_unit(unit)
        self._first, self._frames = first, frames
        self._series = -1
        self._newest = (0, 0.0)  # uniqueId and time

    def __enter__(self) -> Self:
        self._channels = Channels([self._channel], self._server, self._queue)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channels.close()

    def poll(self, timeout: float) -> list[Record]:
        """As `live.records.Source`."""
        records: list[Record] = []
        for _, update in self._channels.poll(timeout):
            if isinstance(update, Value):
                records += self._read(update, now())
            else:
                records.append(update)
        return records

    def _read(self, value: Value, received_at: float) -> list[Record]:
        index = None
        try:
            number, taken = int(value["uniqueId"]), ntndarray.read_time(value)
            if self._series < 0 and (value["value"] is None or self._channels.retained(taken)):
                return []
            begins = self._follow(number, taken)
            index = number - (self._first or 0)
            if not 0 <= index <= LARGEST_INDEX:
                index = None
                raise CodecError(f"uniqueId {number} where the first frame is {self._first}")
            frame = ntndarray.read_frame(value, index, received_at, self._series)
            start = [self._start(frame)] if begins else []
            return [*start, frame, *self._position(value, index, received_at)]
        except (CodecError, KeyError, TypeError, ValueError) as error:
            # Not all that calls itself an NTNDArray has its fields.
            return [Corrupt(index, f"{self.name}: {' '.join(str(error).split())[:200]}", max(self._series, 0))]

    def _follow(self, number: int, taken: float) -> bool:
        """Keep up with the detector's counter; whether a series begins."""
        highest, latest = self._newest
        begins = self._series < 0 or (number <= highest and taken > latest)
        if begins:
            self._series += 1
            self._first = number if self._first is None else self._first
        elif number > highest:
            self.overruns += number - highest - 1
        elif number < highest:
            self.overruns = max(self.overruns - 1, 0)
        if begins or number > highest:
            self._newest = (number, taken)
        return begins

    def _start(self, frame: FrameRecord | EncodedFrame) -> Start:
        metadata = {"detector channel": self._channel}
        return Start(self._frames, frame.shape, metadata=metadata, series=self._series)

    def _position(self, value: Value, index: int, received_at: float) -> list[Any]:
        if self._attributes is None:
            return []
        try:
            position = ntndarray.read_attributes(value, self._attributes)
        except CodecError as error:
            return [Corrupt(index, f"{self.name}: {error}", self._series)]
        return [to_position(index, position, self._unit, received_at, self._series)]
