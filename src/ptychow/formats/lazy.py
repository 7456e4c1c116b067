"""Frames that stay on disk until wanted.

They hold a path, a name and a shape, so they are cheap to copy, to pickle and to send to other processes.
Stacks stored as a raster (lines, points, H, W) are seen as (lines * points, H, W).
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the filters detectors compress with: bitshuffle, LZ4, Zstandard, Blosc)
import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats.base import require_memory
from ptychow.formats.numpy_files import map_array, read_header


@dataclass(frozen=True)
class LazyFrames(ABC):
    """Frames of one array in one file.

    path: the file. dataset: the array's name in it.
    stored_shape: (N, H, W) or, for rasters, (lines, points, H, W). dtype: of the stored values.
    Raises InputError where the array has another rank.
    """

    path: Path
    dataset: str
    stored_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __post_init__(self) -> None:
        if len(self.stored_shape) not in (3, 4):
            raise InputError(
                "not a stack of images",
                file=self.path,
                field=self.dataset or None,
                found=f"shape {self.stored_shape}",
                expected="(frames, rows, columns) or (lines, points, rows, columns)",
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        *stack, height, width = self.stored_shape
        return math.prod(stack), height, width

    @property
    def raster(self) -> tuple[int, int] | None:
        """(lines, points per line) where the array is stored as a raster."""
        return (self.stored_shape[0], self.stored_shape[1]) if len(self.stored_shape) == 4 else None

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

        Raises InputError where it is missing or of the wrong rank.
        """
        path = Path(path)
        with open_hdf5(path) as file:
            found = hdf5_dataset(file, dataset, path)
            return cls(path, dataset, tuple(int(length) for length in found.shape), found.dtype)

    def _read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        # HDF5 reads runs of neighbours fast and scattered points slowly: read sorted runs, then put them in
        # order.
        wanted, order = np.unique(indices, return_inverse=True)
        points = self.raster[1] if self.raster else self.shape[0]
        breaks = (np.diff(wanted) > 1) | (np.diff(wanted // points) > 0)
        result = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        with open_hdf5(self.path) as file:
            dataset = hdf5_dataset(file, self.dataset, self.path)
            if tuple(dataset.shape) != self.stored_shape:
                raise InputError(
                    "has changed since it was opened", file=self.path, field=self.dataset, found=dataset.shape
                )
            for run in np.split(np.arange(len(wanted)), np.flatnonzero(breaks) + 1):
                if len(run):
                    line, first = divmod(int(wanted[run[0]]), points)
                    part = slice(first, first + len(run))
                    result[run[0] : run[-1] + 1] = dataset[line, part] if self.raster else dataset[part]
        return result if np.array_equal(wanted, indices) else result[order]


class NumpyFrames(LazyFrames):
    """Frames of an .npy file (`dataset` is "") or of a member of an .npz archive (`dataset` is its name).

    What lies uncompressed in the file is memory-mapped; a compressed member is unpacked into memory on first
    use.
    """

    @classmethod
    def open(cls, path: str | os.PathLike[str], dataset: str = "") -> NumpyFrames:
        """Look at the array's header, read nothing else.

        Raises InputError for what is not a stack of numbers.
        """
        path = Path(path)
        header = read_header(path, dataset)
        return cls(path, dataset, header.shape, header.dtype)

    @cached_property
    def _array(self) -> NDArray[Any]:
        return map_array(self.path, self.dataset).reshape(self.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_array"}

    def _read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        return np.array(self._array[indices])


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file for reading. What h5py says about damage, which is anything, becomes an InputError with the name."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"cannot be read ({' '.join(str(error).split())})",
            file=path,
            expected="a complete HDF5 file",
            remedy="It is truncated, damaged, still being written, or compressed by an unknown filter",
        ) from error


def hdf5_dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """The dataset `name`. Raises InputError where it, or a file that it is made of, is missing."""
    found = file.get(name)
    link = file.get(name, getlink=True)
    if found is None and isinstance(link, h5py.ExternalLink):
        raise InputError(
            "a link to another file leads nowhere",
            file=path,
            field=name,
            found=f"{link.path} of {link.filename}",
            remedy="Copy that file beside this one",
        )
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise InputError(
            "no such dataset",
            file=path,
            field=name,
            found=", ".join(hdf5_listing(file)) or "no dataset at all",
            remedy="Check the name; if the file is incomplete, copy it again",
        )
    # HDF5 itself fills what missing files should have held with zeros, in silence.
    sources = {source.file_name for source in found.virtual_sources()} - {"."} if found.is_virtual else set()
    missing = sorted(name for name in sources if not (path.parent / name).is_file())
    if missing:
        raise InputError(
            "made of files of which some are missing",
            file=path,
            field=name,
            found=f"no {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""),
            remedy="Copy them beside this one",
        )
    return found


def read_hdf5_array(file: h5py.File, name: str, path: Path) -> NDArray[Any]:
    """A dataset as an array. Raises InputError where it is missing, not numbers, or larger than memory."""
    dataset = hdf5_dataset(file, name, path)
    if dataset.dtype.kind not in "biufc":
        raise InputError("not numbers", file=path, field=name, found=f"dtype {dataset.dtype}")
    require_memory(dataset.nbytes, path, name)
    return np.asarray(dataset[()])


def read_hdf5_complex(file: h5py.File, name: str, path: Path) -> NDArray[np.complex64]:
    """As `read_hdf5_array`, for a complex dataset. Raises InputError where it is real."""
    values = read_hdf5_array(file, name, path)
    if not np.iscomplexobj(values):
        raise InputError("not complex", file=path, field=name, found=f"dtype {values.dtype}")
    return values.astype(np.complex64, copy=False)


def hdf5_listing(file: h5py.File, most: int = 12) -> list[str]:
    """Path and shape of the first arrays in a file, for messages."""
    names: list[str] = []

    def note(name: str, item: h5py.Group | h5py.Dataset) -> bool | None:
        if isinstance(item, h5py.Dataset) and item.shape:
            names.append(f"/{name} {item.shape}")
        return True if len(names) == most else None  # anything but None ends the visit

    file.visititems(note)
    return names
