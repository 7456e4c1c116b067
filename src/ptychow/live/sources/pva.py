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
from ptychow.live.ntndarray import EPICS_EPOCH, read_time
from ptychow.live.records import (
    LARGEST_INDEX,
    Corrupt,
    EncodedFrame,
    FrameRecord,
    NoPosition,
    Record,
    SourceBack,
    SourceLost,
    Start,
    now,
)
from ptychow.live.sources.base import LOOK_AFTER, LOOK_AGAIN, unreachable
from ptychow.live.sources.positions import require_unit, to_position

try:
    from p4p import Value
    from p4p.client.raw import Context, Subscription
except ImportError:
    raise MissingExtraError("EPICS pvAccess", "live") from None

MOST_AT_ONCE = 256
# What a channel first tells is what it last had. Older than this it belongs to another scan.
RETAINED_SECONDS = 2.0


class Channels:
    """Monitors of EPICS channels, polled together. What a monitor's queue cannot keep, its newest update replaces.

    A channel begins, whenever it is connected, by telling what it last had, perhaps long ago. Only this first update is
    judged by its time: whatever differs from it is new, however wrong the other end's clock may be.

    server: "host:port" of the one server to ask, over TCP, so that nothing is broadcast; None: as the environment
    (EPICS_PVA_ADDR_LIST, ...) says. queue: updates kept per channel. retained: whether to take old first updates, too.
    """

    def __init__(self, names: Sequence[str], server: str | None, queue: int, *, retained: bool = False) -> None:
        self._opened = time.time()
        self._event = Event()
        self._server = server
        self._missing = dict.fromkeys(names, "")  # channels without a connection, and why, where that is known
        self._look_at = now() + LOOK_AFTER
        self._retained = retained
        self._greeting = set(names)  # channels whose next update is the first since they were connected
        self._old: dict[str, tuple[Any, float]] = {}  # of those whose first update was passed over, which that was
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

    def poll(self, timeout: float) -> Iterator[tuple[str, Value | Corrupt | SourceLost | SourceBack]]:
        """(channel, update) of what has come, for each channel in its order; or nothing after `timeout` seconds.

        What is passed over as of long before is told by a Corrupt in its place. The source is lost while any of its
        channels is.
        """
        if self._event.wait(timeout):
            self._event.clear()
            yield from self._updates()
        yield from self._why_missing()

    def _updates(self) -> Iterator[tuple[str, Value | Corrupt | SourceLost | SourceBack]]:
        for name, monitor in self._monitors.items():
            for _ in range(MOST_AT_ONCE):
                update = monitor.pop()
                if update is None:
                    break
                if isinstance(update, Exception):
                    self._greeting.add(name)
                    self._missing[name], self._look_at = str(update) or "disconnected", now() + LOOK_AFTER
                    yield name, self._lost()
                    continue
                if self._missing.pop(name, None) is not None:
                    yield name, self._lost() if any(self._missing.values()) else SourceBack(now())
                kept = update if self._retained else self._news(name, update)
                if kept is not None:
                    yield name, kept
            else:
                self._event.set()  # more is waiting

    def _lost(self) -> SourceLost:
        return SourceLost("; ".join(f"{name}: {why}" for name, why in self._missing.items() if why), now())

    def _why_missing(self) -> Iterator[tuple[str, SourceLost]]:
        """The likely cause, now and then, while channels have no connection."""
        if not self._missing or now() < self._look_at:
            return
        why = "no such channel was found (EPICS_PVA_ADDR_LIST says where to look, ?server=HOST:PORT whom to ask)"
        if self._server is not None:
            host, _, port = self._server.rpartition(":")
            reached = port.isdigit() and unreachable(host, int(port))
            why = f"{self._server} {reached or 'knows no such channel'}"
        self._look_at = now() + LOOK_AGAIN
        self._missing = dict.fromkeys(self._missing, why)
        yield next(iter(self._missing)), self._lost()

    def _news(self, name: str, update: Value) -> Value | Corrupt | None:
        """The update itself where it is new; what to say of it otherwise, if there was anything in it."""
        taken = read_time(update)
        which = update.get("uniqueId"), taken
        age = self._opened - taken
        if name in self._greeting:
            self._greeting.discard(name)
            self._old.pop(name, None)
            if update.get("value") is None or which == (None, EPICS_EPOCH):  # never processed: nothing is there
                return None
            # Some drivers count the seconds from EPICS' own beginning.
            if taken > 0 and min(age, abs(age - EPICS_EPOCH)) > RETAINED_SECONDS:
                self._old[name] = which
        if self._old.get(name) != which:
            return update
        when = f"{age:,.0f} s before it was asked"
        return Corrupt(None, f"{name}: passed over what it had before, stamped {when} (its clock may be wrong)")


class PvaSource:
    """Frames, and their positions where they travel as attributes, of an NTNDArray channel.

    channel: such as "13SIM1:Pva1:Image". attributes: names of the two that hold (y, x), in `unit`, or None.
    first: uniqueId of the frame that is index 0; areaDetector's counters begin with 1. None: of the first that comes of
    each series.
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
        self._series = self._announced = -1  # the series that runs, and the last one of which a Start was sent
        self._newest = (0, 0.0)  # uniqueId and time
        self._came_first = 0  # uniqueId of index 0 of the series that runs

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
            records += self._read(update, now()) if isinstance(update, Value) else [update]
        return records

    def _read(self, value: Value, received_at: float) -> list[Record]:
        index = None
        try:
            number, taken = int(value["uniqueId"]), read_time(value)
            begins = self._begins(number, taken)
            first = self._first
            if first is None:
                first = number if begins else self._came_first
            if not 0 <= number - first <= LARGEST_INDEX:
                raise CodecError(f"uniqueId {number} where the first frame is {first}")
            index = number - first
            self._came_first = first
            self._follow(number, taken, begins)
            frame = ntndarray.read_frame(value, index, received_at, self._series)
            # With the first frame that can be read: one that is damaged must not take it along.
            start = [] if self._announced == self._series else [self._start(frame)]
            self._announced = self._series
            return [*start, frame, *self._position(value, index, received_at)]
        except (CodecError, KeyError, TypeError, ValueError) as error:
            # Not all that calls itself an NTNDArray has its fields.
            return [Corrupt(index, f"{self.name}: {' '.join(str(error).split())[:200]}", max(self._series, 0))]

    def _begins(self, number: int, taken: float) -> bool:
        """Whether a new series begins with this frame."""
        highest, latest = self._newest
        return self._series < 0 or (number <= highest and taken > latest)

    def _follow(self, number: int, taken: float, begins: bool) -> None:
        """Keep up with the detector's counter, and with its series."""
        highest, _ = self._newest
        if begins:
            self._series += 1
        elif number > highest:
            self.overruns += number - highest - 1
        elif number < highest:
            self.overruns = max(self.overruns - 1, 0)
        if begins or number > highest:
            self._newest = (number, taken)

    def _start(self, frame: FrameRecord | EncodedFrame) -> Start:
        metadata = {"detector channel": self._channel}
        return Start(self._frames, frame.shape, metadata=metadata, series=self._series)

    def _position(self, value: Value, index: int, received_at: float) -> list[Any]:
        if self._attributes is None:
            return []
        try:
            position = ntndarray.read_attributes(value, self._attributes)
        except CodecError as error:
            return [NoPosition(f"{self.name}: {error}", self._series)]
        return [to_position(index, position, self._unit, received_at, self._series)]
