"""A file being written: HDF5 that grows (SWMR), and a Dectris detector's data files as they appear.

Files are opened for each look and closed again, so that one that is replaced, copied or not there yet does no harm.
"""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats.dectris import SPECIFIC, read_detector_facts
from ptychow.formats.hdf5_files import hdf5_dataset, open_hdf5, read_hdf5_number, read_part
from ptychow.live.codecs import CodecError, frame_bytes
from ptychow.live.records import (
    LARGEST_INDEX,
    Corrupt,
    End,
    FrameRecord,
    NoPosition,
    Record,
    SourceBack,
    SourceLost,
    Start,
    now,
)
from ptychow.live.sources.base import LOOK_AFTER, LOOK_AGAIN, LocalSource
from ptychow.live.sources.positions import require_unit, to_position
from ptychow.scan import NOT_BELIEVED
from ptychow.words import counted

MOST_AT_ONCE, MOST_BYTES, MOST_POSITIONS = 32, 1 << 26, 4096
LOOK_SECONDS, SETTLE_SECONDS = 0.05, 2.0
NEVER_APPEARED = "never appeared"
COUNTS = (f"{SPECIFIC}/nimages", f"{SPECIFIC}/ntrigger")


class GrowingSource(LocalSource):
    """What the files of one scan have in common while they are written.

    idle: seconds without anything new after which the writer is taken to have finished; at least 4.
    """

    def __init__(self, name: str, idle: float) -> None:
        super().__init__(name)
        # What is empty has to be given its time.
        self._idle, self._latest = max(idle, 2 * SETTLE_SECONDS), now()
        self._problem = NEVER_APPEARED
        self._said, self._say_at = "", now() + LOOK_AFTER  # the problem, as far as it was told

    def poll(self, timeout: float) -> list[Record]:
        """As `live.records.Source`."""
        deadline = now() + timeout
        while not self.finished:
            records = self._look()
            if records:
                self._latest = now()
                back: list[Record] = [SourceBack(now())] if self._said else []
                self._said = ""
                return [*back, *records]
            if self._problem != self._said and now() > self._say_at:
                self._said, self._say_at = self._problem, now() + LOOK_AGAIN
                return [self._why_nothing()]
            if now() - self._latest > self._idle:
                self.finished = True
                return self._give_up()
            if now() >= deadline:
                return []
            time.sleep(min(LOOK_SECONDS, max(deadline - now(), 0)))
        time.sleep(max(deadline - now(), 0))
        return []

    def _look(self) -> list[Record]:
        raise NotImplementedError

    def _why_nothing(self) -> Record:
        why = "nothing is there yet" if self._problem == NEVER_APPEARED else self._problem
        return SourceLost(why, now()) if why else SourceBack(now())

    def _give_up(self) -> list[Record]:
        problem = [Corrupt(None, f"{self.name}: {self._problem}")] if self._problem else []
        return [*problem, End(None, f"nothing new for {self._idle:g} s", 0)]


class GrowingFrames(GrowingSource):
    """Frames of an HDF5 file, or of a Dectris detector's files, while they are written.

    path: the file; of a Dectris detector NAME_master.h5, which may come last. dataset: where the frames are.
    channel: of those of a detector with several thresholds, from 0; None: the first of a Dectris detector, and no other
    file may have several. expected: how many frames, where known.
    """

    def __init__(
        self,
        path: Path,
        *,
        dataset: str = "entry/data/data",
        channel: int | None = None,
        expected: int | None = None,
        idle: float = 60.0,
    ) -> None:
        super().__init__(str(path), idle)
        self._path, self._dataset, self._channel, self._expected = path, dataset, channel or 0, expected
        self._is_dectris = path.name.endswith("_master.h5")
        self._is_chosen = channel is not None or self._is_dectris
        self._master_read = not self._is_dectris
        self._master_wrong_since = math.inf
        self._read: dict[Path, int] = {}  # frames read of each file
        self._lengths: dict[Path, tuple[int, int]] = {}  # of each file: frames that it holds, and held a while ago
        self._complete: set[Path] = set()
        self._extent = _Extent()
        self._at_once = MOST_AT_ONCE

    def _look(self) -> list[Record]:
        records: list[Record] = []
        try:
            if not self._master_read and self._path.exists():
                records += self._look_at_master()
                self._master_read = True
            parts = self._parts()
            for part in parts:
                if part not in self._complete:
                    records += self._look_at(part, parts)
                    if part != parts[-1] and self._exhausted(part):
                        self._complete.add(part)  # who has a successor grows no more
                    self._problem = ""
                if records:
                    break
        except InputError as error:
            self._problem = str(error)  # perhaps not yet complete: told when it stays so
        if self._expected is not None and sum(self._read.values()) >= self._expected:
            self.finished = True
            records.append(End(self._expected, "all frames read", 0))
        return records

    def _parts(self) -> list[Path]:
        """The files that hold frames, as far as they are there, in their order."""
        if not self._is_dectris:
            return [self._path] if self._path.exists() else []
        pattern = re.compile(re.escape(self._path.name.removesuffix("_master.h5")) + r"_data_\d{6}\.h5")
        folder = self._path.parent
        return sorted(part for part in folder.iterdir() if pattern.fullmatch(part.name)) if folder.is_dir() else []

    def _look_at(self, path: Path, parts: list[Path]) -> list[Record]:
        """The next frames of a file, after a Start where they are the first of all."""
        with _open_growing(path) as file:
            dataset = hdf5_dataset(file, self._dataset, path)
            channels = dataset.shape[1] if dataset.ndim == 4 else 1
            if dataset.ndim not in (3, 4) or self._channel >= channels:
                found = f"shape {dataset.shape}"
                raise InputError("not a stack of images", file=path, field=self._dataset, found=found)
            if channels > 1 and not self._is_chosen:
                found, remedy = f"shape {dataset.shape}", "Of several thresholds choose one: ?channel=0"
                expected = "(frames, rows, columns); a raster cannot be watched"
                raise InputError(
                    "not one stack", file=path, field=self._dataset, found=found, expected=expected, remedy=remedy
                )
            shape = dataset.shape[-2:]
            try:
                room = max(MOST_BYTES // frame_bytes(shape, dataset.dtype), 1)
            except CodecError as error:
                raise InputError(str(error), file=path, field=self._dataset) from None
            first, done = self._first_of(path, dataset, parts), self._read.get(path, 0)
            last = min(done + min(self._at_once, room), dataset.shape[0], LARGEST_INDEX + 1 - first)
            settled = self._extent.settled(path, dataset)
            self._lengths[path] = dataset.shape[0], settled
            of_channel = [(self._channel, self._channel + 1)] if dataset.ndim == 4 else []
            try:
                frames = read_part(dataset, [(done, last), *of_channel], path, self._dataset).reshape(-1, *shape)
            except (OSError, InputError) as error:  # a damaged frame: look for it one by one
                if self._at_once > 1 or done >= settled:
                    self._at_once = 1
                    return []
                self._read[path], self._at_once = done + 1, MOST_AT_ONCE
                return [Corrupt(first + done, f"{path}: {' '.join(str(error).split())[:200]}", 0)]
            frames = frames[: _written(frames, dataset.fillvalue, settled - done)]
        if not len(frames):
            return []
        begins, received_at = not self._read, now()
        self._read[path] = done + len(frames)
        records: list[Record] = [FrameRecord(first + done + k, frame, received_at) for k, frame in enumerate(frames)]
        return [Start(self._expected, shape), *records] if begins and not self._is_dectris else records

    def _exhausted(self, path: Path) -> bool:
        """Whether all that a file holds has been read, and it has not grown for a while."""
        length, settled = self._lengths.get(path, (0, -1))
        return self._read.get(path, 0) == length == settled

    def _first_of(self, path: Path, dataset: h5py.Dataset, parts: list[Path]) -> int:
        """Index of a file's first frame: Dectris' own number (it begins with 1), or how many are in those before."""
        number = np.ravel(dataset.attrs.get("image_nr_low", ()))
        if number.size == 1 and number[0] >= 1:
            return int(number[0]) - 1
        before = parts[: parts.index(path)]
        missing = self._is_dectris and int(path.stem[-6:]) != len(before) + 1
        if missing or not set(before) <= self._complete:
            raise InputError("does not say which frames it holds, and those before it are not complete", file=path)
        return sum(self._read.get(part, 0) for part in before)

    def _look_at_master(self) -> list[Record]:
        """What a Dectris master file says of all frames; nothing where it goes on saying what cannot be understood.

        Raises InputError where it cannot be read yet.
        """
        path = self._path
        with _open_growing(path) as file:
            try:
                facts = read_detector_facts(file, path, self._channel)
                counts = [read_hdf5_number(file, name, path) for name in COUNTS]
            except InputError as error:  # perhaps it is still being written
                self._master_wrong_since = min(self._master_wrong_since, now())
                if now() - self._master_wrong_since < SETTLE_SECONDS:
                    raise
                return [Start(self._expected, metadata={NOT_BELIEVED: f"{error}; nor is its mask"})]
        if None not in counts and self._expected is None:
            self._expected = int(np.prod([count or 0 for count in counts]))
        return [Start(self._expected, None, facts.mask, facts.saturation, facts.geometry, facts.metadata)]


class GrowingPositions(GrowingSource):
    """Positions of two datasets (N,) of an HDF5 file, down and right, or of one (N, 2), while they are written.

    unit: m, mm, um, nm or px. What is not a number yet is waited for, and holds nothing else up.
    """

    def __init__(self, path: Path, datasets: tuple[str, ...], *, unit: str, idle: float = 60.0) -> None:
        super().__init__(str(path), idle)
        self._path, self._datasets, self._unit = path, datasets, require_unit(unit)
        self._told = np.zeros(0, bool)  # by row
        self._next = 0  # row to look at
        self._extent = _Extent()

    def _look(self) -> list[Record]:
        if not self._path.exists():
            return []
        try:
            with _open_growing(self._path) as file:
                columns = [self._new(file, name) for name in self._datasets]
        except InputError as error:
            self._problem = str(error)
            return []
        self._problem = ""
        length = min(len(column) for column in columns)
        rows = np.column_stack([column[:length] for column in columns]).astype(np.float64)
        first, last = self._next, self._next + length
        self._told = np.pad(self._told, (0, max(last - len(self._told), 0)))
        new = first + np.flatnonzero(np.isfinite(rows).all(axis=1) & ~self._told[first:last])
        self._told[new] = True
        # On to the end, and again from the first row that was no number.
        untold = np.flatnonzero(~self._told)
        self._next = last if length == MOST_POSITIONS else int(untold[0]) if len(untold) else len(self._told)
        received_at = now()
        return [to_position(row, tuple(rows[row - first]), self._unit, received_at) for row in new.tolist()]

    def _give_up(self) -> list[Record]:
        told = np.flatnonzero(self._told)
        missing = np.flatnonzero(~self._told[: told.max(initial=-1) + 1]).tolist()
        records = super()._give_up()
        if not missing:
            return records
        said = f"{counted(len(missing), 'position')} never became numbers (first: of frame {missing[0]})"
        return [NoPosition(f"{self.name}: {said}"), *records]

    def _new(self, file: h5py.File, name: str) -> NDArray[np.float64]:
        """What a dataset has from the row on that is to be looked at."""
        dataset = hdf5_dataset(file, name, self._path)
        expected = (2,) if len(self._datasets) == 1 else ()
        if dataset.shape[1:] != expected or dataset.dtype.kind not in "iuf":
            found = f"{dataset.dtype} {dataset.shape}"
            raise InputError("not positions", file=self._path, field=name, found=found)
        last = min(self._next + MOST_POSITIONS, dataset.shape[0])
        values = read_part(dataset, [(self._next, max(self._next, last))], self._path, name)
        return values[: _written(values, dataset.fillvalue, self._extent.settled(name, dataset) - self._next)]


class _Extent:
    """How far growing datasets have reached for a while."""

    def __init__(self) -> None:
        self._lengths: dict[Hashable, deque[tuple[float, int]]] = {}

    def settled(self, key: Hashable, dataset: h5py.Dataset) -> int:
        """The length that a dataset had `SETTLE_SECONDS` ago. key: tells datasets apart."""
        lengths = self._lengths.setdefault(key, deque([(0.0, 0)]))
        if dataset.shape[0] != lengths[-1][1]:
            lengths.append((now(), dataset.shape[0]))
        while len(lengths) > 1 and now() - lengths[1][0] > SETTLE_SECONDS:
            lengths.popleft()
        return lengths[0][1]


def _written(values: NDArray[Any], fill: Any, settled: int) -> int:
    """How many of the values, from the first on, have been written.

    A reader can see that a dataset has grown before it sees what was written, and gets the fill value instead (HDF5,
    SWMR). So what is empty is believed only among the first `settled`.
    """
    if not len(values):
        return 0
    empty = (values == fill).reshape(len(values), -1).all(axis=1)
    empty[: max(settled, 0)] = False
    return int(empty.argmax()) if empty.any() else len(values)


@contextmanager
def _open_growing(path: Path) -> Iterator[h5py.File]:
    """A file that is perhaps being written: as SWMR allows it, otherwise as any other. Raises InputError."""
    try:
        file = h5py.File(path, "r", swmr=True)
    except (OSError, RuntimeError, ValueError):
        with open_hdf5(path) as file:
            yield file
        return
    with file:
        try:
            yield file
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise InputError(f"cannot be read yet ({' '.join(str(error).split())[:200]})", file=path) from None
