"""EPICS pvAccess: positions from channels of their own, as stages, sequencers and scan tables publish them."""

from __future__ import annotations

from collections import defaultdict
from types import TracebackType
from typing import Any, Self

import numpy as np

from ptychow.errors import InputError
from ptychow.live.ntndarray import Value
from ptychow.live.records import NoPosition, Record, now
from ptychow.live.sources.positions import require_unit, to_position
from ptychow.live.sources.pva import Channels

QUEUE = 4000
MOST_PENDING = 10_000


class PvaPositions:
    """Positions of two channels, or three.

    Waveforms: `y` and `x` hold the positions of all frames so far; their k-th numbers belong to frame k. Where both are
    published once more as they were, they are the next scan's.
    Numbers: `index` says to which frame they belong; the three belong together that bear the same time stamp, as
    records of one processing chain do (EPICS: TSEL).
    unit: m, mm, um, nm or px. server: as `Channels`.
    retained: whether to take what the channels had before they were asked: positions of the last scan, or of a plan.
    """

    waits = False
    finished = False
    overruns = 0

    def __init__(
        self,
        y: str,
        x: str,
        index: str | None = None,
        *,
        unit: str,
        server: str | None = None,
        retained: bool = False,
    ) -> None:
        self.name = f"pva://{y},{x}"
        self._names = {y: 0, x: 1} | ({} if index is None else {index: 2})
        self._server, self._unit, self._retained = server, require_unit(unit), retained
        self._waveforms: list[Any] = [(), ()]
        self._told = 0
        self._again: set[int] = set()  # which waveforms were published once more, as they were
        self._pending: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)

    def __enter__(self) -> Self:
        self._channels = Channels(list(self._names), self._server, QUEUE, retained=self._retained)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channels.close()

    def poll(self, timeout: float) -> list[Record]:
        """As `live.records.Source`."""
        records: list[Record] = []
        for name, update in self._channels.poll(timeout):
            if not isinstance(update, Value):
                records.append(update)
                continue
            try:
                role, value = self._names[name], update["value"]
                records += self._waveform(role, value) if np.ndim(value) else self._number(role, update)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                records.append(NoPosition(f"{name}: no position ({' '.join(str(error).split())[:100]})"))
        return records

    def _waveform(self, role: int, values: Any) -> list[Record]:
        told = self._told
        if not np.array_equal(values[:told], self._waveforms[role][:told], equal_nan=True):
            # A new scan's: the other waveform is still the last one's, unless it came anew, too.
            self._told = 0
            if 1 - role not in self._again:
                self._waveforms[1 - role] = ()
        elif 0 < told == len(values):
            self._again.add(role)
            if len(self._again) == 2:
                self._told = 0
        self._waveforms[role] = values
        y, x = self._waveforms
        first, self._told = self._told, min(len(y), len(x))
        if self._told > first:
            self._again.clear()
        return [to_position(index, (y[index], x[index]), self._unit, now()) for index in range(first, self._told)]

    def _number(self, role: int, update: Value) -> list[Record]:
        if len(self._names) < 3:
            raise InputError(
                "single positions without their index",
                field="--positions",
                found=self.name,
                expected="three channels: y, x and the frame's index",
            )
        stamp = (update["timeStamp.secondsPastEpoch"], update["timeStamp.nanoseconds"])
        if not any(stamp):
            raise ValueError("a number without its time")
        found = self._pending[stamp]
        found[role] = float(update["value"])
        if len(found) == 3:
            del self._pending[stamp]
            return [to_position(int(found[2]), (found[0], found[1]), self._unit, now())]
        if len(self._pending) > MOST_PENDING:
            oldest = next(iter(self._pending))
            del self._pending[oldest]
            return [NoPosition(f"{self.name}: a position of time {oldest[0]} never became complete")]
        return []


class PvaTable:
    """Positions of a table channel (NTTable) that grows, or that is published in pieces with their index.

    columns: names of y and x. index: name of the column that says the frame; None: row k belongs to frame k.
    unit, server, retained: as `PvaPositions`.
    """

    waits = False
    finished = False
    overruns = 0

    def __init__(
        self,
        channel: str,
        columns: tuple[str, str],
        *,
        unit: str,
        index: str | None = None,
        server: str | None = None,
        retained: bool = False,
    ) -> None:
        self.name = f"pva-table://{channel}"
        self._channel, self._columns, self._index = channel, columns, index
        self._server, self._unit, self._retained = server, require_unit(unit), retained
        self._told = np.zeros((0, 3))  # index, y and x of the rows of the newest table

    def __enter__(self) -> Self:
        self._channels = Channels([self._channel], self._server, QUEUE, retained=self._retained)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channels.close()

    def poll(self, timeout: float) -> list[Record]:
        """As `live.records.Source`."""
        records: list[Record] = []
        for _, update in self._channels.poll(timeout):
            records += self._rows(update) if isinstance(update, Value) else [update]
        return records

    def _rows(self, table: Value) -> list[Record]:
        try:
            y, x = (table[f"value.{column}"] for column in self._columns)
            rows = min(len(y), len(x))
            indices = np.arange(rows) if self._index is None else table[f"value.{self._index}"][:rows]
            before, self._told = self._told, np.column_stack([indices, y[: len(indices)], x[: len(indices)]])
            # The same table, grown; otherwise a piece of its own, or a new scan's, be it the same once more.
            grown = self._told[: len(before)] if len(self._told) > len(before) else ()
            has_grown = np.array_equal(grown, before, equal_nan=True)
            return [
                to_position(int(indices[row]), (y[row], x[row]), self._unit, now())
                for row in range(len(before) if has_grown else 0, len(indices))
            ]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            return [NoPosition(f"{self.name}: no columns {', '.join(self._columns)} of numbers ({error})")]
