"""Frames that stay on disk until wanted.

They hold a path, a name and a shape, so they are cheap to copy, to pickle and to send to other processes.
Stacks stored as a raster (lines, points, H, W) are seen as (lines * points, H, W).
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats.base import require_memory
from ptychow.formats.hdf5_files import hdf5_dataset, open_hdf5, read_part
from ptychow.formats.numpy_files import map_array, read_header, require_stored
from ptychow.scan import Frames

MOST_PIXELS = 2**26  # of a frame: four times the largest detectors


@dataclass(frozen=True)
class LazyFrames(ABC):
    """Frames of one array in one file.

    path: the file. dataset: the array's name in it.
    stored_shape: (N, H, W) or, for rasters, (lines, points, H, W); before H any number of axes of length 1, as
    areaDetector and GDA leave them. dtype: of the stored values.
    Raises InputError where the array has another rank.
    """

    path: Path
    dataset: str
    stored_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __post_init__(self) -> None:
        if len(self.stored_shape) < 3 or len(self._stack) > 2:
            raise InputError(
                "not a stack of images",
                file=self.path,
                field=self.dataset or None,
                found=f"shape {self.stored_shape}",
                expected="(frames, rows, columns) or (lines, points, rows, columns)",
            )
        if math.prod(self.stored_shape[-2:]) > MOST_PIXELS:
            raise InputError(
                "frames larger than any detector's",
                file=self.path,
                field=self.dataset or None,
                found=f"shape {self.stored_shape}",
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        *_, height, width = self.stored_shape
        return math.prod(self._stack), height, width

    @property
    def _stack(self) -> tuple[int, ...]:
        """Lengths of the axes that number the frames."""
        stack = list(self.stored_shape[:-2])
        while len(stack) > 1 and stack[-1] == 1:
            stack.pop()
        return tuple(stack)

    @property
    def raster(self) -> tuple[int, int] | None:
        """(lines, points per line) where the array is stored as a raster."""
        return (self._stack[0], self._stack[1]) if len(self._stack) == 2 else None

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Frames of an integer (H, W), a slice, or an index array in any order, repeats allowed (n, H, W).

        Raises InputError where the file cannot be read or the frames do not fit in memory.
        """
        if isinstance(index, int | np.integer):
            return self[np.array([index])][0]
        indices = _indices(index, self.shape[0])
        require_memory(len(indices) * math.prod(self.shape[1:]) * self.dtype.itemsize, self.path, self.dataset)
        return self._read(indices)

    @abstractmethod
    def _read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """A copy of the frames at `indices`, all within range."""


def _indices(index: Any, count: int) -> NDArray[np.int64]:
    """What a slice, or an array of integers or booleans, means for `count` frames.

    Raises IndexError as numpy does.
    """
    if isinstance(index, slice):
        return np.arange(*index.indices(count))
    wanted = np.asarray(index)
    if wanted.dtype == np.bool_ and wanted.shape == (count,):
        return np.flatnonzero(wanted)
    if isinstance(index, tuple) or wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
        raise IndexError(f"frames are chosen by integers, a slice, or one boolean each, not by {index!r}")
    wanted = wanted.astype(np.int64)
    if np.any((wanted < -count) | (wanted >= count)):
        raise IndexError(f"index out of range for {count} frames")
    return np.where(wanted < 0, wanted + count, wanted)


class HDF5Frames(LazyFrames):
    """Frames of an HDF5 dataset.

    The file is opened for each read and closed again (0.4 ms): nothing stays open across forks, threads and
    pickles, and the file can be replaced meanwhile.
    """

    @classmethod
    def open(cls, path: str | os.PathLike[str], dataset: str) -> HDF5Frames:
        """Look at the shape, read nothing else.

        Raises InputError where it is missing, never written, or of the wrong rank.
        """
        path = Path(path)
        with open_hdf5(path) as file:
            found = hdf5_dataset(file, dataset, path)
            if found.size and not found.is_virtual and not found.id.get_storage_size():
                raise InputError("no frame has been written", file=path, field=dataset, found=f"shape {found.shape}")
            return cls(path, dataset, tuple(int(length) for length in found.shape), found.dtype)

    def _read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        # HDF5 reads runs of neighbours fast and scattered points slowly: read sorted runs, then put them in
        # order.
        wanted, order = np.unique(indices, return_inverse=True)
        points = self.raster[1] if self.raster else self.shape[0]
        breaks = (np.diff(wanted) > 1) | (np.diff(wanted // points) > 0)
        result = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        with open_hdf5(self.path) as file:
            dataset = hdf5_dataset(file, self.dataset, self.path, deep=0)
            if tuple(dataset.shape) != self.stored_shape:
                raise InputError(
                    "has changed since it was opened", file=self.path, field=self.dataset, found=dataset.shape
                )
            for run in np.split(np.arange(len(wanted)), np.flatnonzero(breaks) + 1):
                if len(run):
                    line, first = divmod(int(wanted[run[0]]), points)
                    place = [(line, line + 1)] if self.raster else []
                    part = read_part(dataset, [*place, (first, first + len(run))], self.path, self.dataset)
                    result[run[0] : run[-1] + 1] = part.reshape(-1, *self.shape[1:])
        return result if np.array_equal(wanted, indices) else result[order]


class NumpyFrames(LazyFrames):
    """Frames of an .npy file (`dataset` is "") or of a member of an .npz archive (`dataset` is its name).

    What lies uncompressed in the file is memory-mapped; a compressed member is unpacked into memory on first
    use.
    """

    @classmethod
    def open(cls, path: str | os.PathLike[str], dataset: str = "") -> NumpyFrames:
        """Look at the array's header, read nothing else.

        Raises InputError for what is not a stack of numbers, or is truncated.
        """
        path = Path(path)
        header = read_header(path, dataset)
        require_stored(path, dataset, header)
        return cls(path, dataset, header.shape, header.dtype)

    @cached_property
    def _array(self) -> NDArray[Any]:
        return map_array(self.path, self.dataset).reshape(self.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_array"}

    def _read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        return np.array(self._array[indices])


@dataclass(frozen=True)
class JoinedFrames:
    """Frames of several stacks that belong to one file, one after the other.

    Raises InputError where they are not alike.
    """

    path: Path
    parts: tuple[Frames, ...]

    def __post_init__(self) -> None:
        kinds = {(part.shape[1:], np.dtype(part.dtype)) for part in self.parts}
        if len(kinds) != 1:
            found = " and ".join(sorted(f"{dtype} {shape}" for shape, dtype in kinds)) or "no frames"
            raise InputError("parts that do not fit together", file=self.path, field="frames", found=found)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        height, width = self.parts[0].shape[1:]
        return sum(part.shape[0] for part in self.parts), height, width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored values."""
        return self.parts[0].dtype

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """As `LazyFrames`."""
        if isinstance(index, int | np.integer):
            return self[np.array([index])][0]
        indices = _indices(index, self.shape[0])
        ends = np.cumsum([part.shape[0] for part in self.parts])
        owner = np.searchsorted(ends, indices, side="right")
        require_memory(len(indices) * math.prod(self.shape[1:]) * self.dtype.itemsize, self.path, "frames")
        result = np.empty((len(indices), *self.shape[1:]), self.dtype)
        for number in np.unique(owner):
            chosen = owner == number
            part = self.parts[number]
            result[chosen] = part[indices[chosen] - (ends[number] - part.shape[0])]
        return result
