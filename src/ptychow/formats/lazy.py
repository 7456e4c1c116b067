"""Frames that stay on disk until wanted.

All keep only a path and a shape, so they are cheap to copy, to pickle and to send to other processes. Stacks stored as a
raster (lines, points, H, W) are seen as (lines * points, H, W).
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any

import h5py
import hdf5plugin  # noqa: F401  (registers the compression filters of detectors: bitshuffle, LZ4, Zstandard, Blosc)
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ptychow.errors import InputError


@lru_cache
def physical_memory() -> int:
    """Bytes of the machine; the largest address where it cannot be asked for (Windows)."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 2**63


def require_memory(size: int, path: Path, field: str) -> None:
    """Raise InputError where `size` bytes cannot be held: a hostile or damaged header must not bring the machine down."""
    if size > physical_memory():
        raise InputError(
            "does not fit in memory",
            file=path,
            field=field,
            found=f"{size / 2**30:,.1f} GiB",
            expected=f"at most {physical_memory() / 2**30:,.1f} GiB",
            remedy="Read fewer frames at a time; unpack compressed npz files first",
        )


@dataclass(frozen=True)
class LazyFrames(ABC):
    """Frames of one array in one file.

    path: the file. dataset: the array's name in it. stored_shape: (N, H, W) or, for rasters, (lines, points, H, W).
    dtype: of the stored values.
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
                field=self.dataset,
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
            return self._read(np.arange(self.shape[0])[[index]])[0]
        return self._read(np.arange(self.shape[0])[index])

    def _read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        require_memory(len(indices) * math.prod(self.shape[1:]) * self.dtype.itemsize, self.path, self.dataset)
        return self._frames(indices)

    @abstractmethod
    def _frames(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """A copy of the frames at `indices`, all within range."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading. What HDF5 says about damage becomes an InputError that names the file."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError) as error:
        # h5py raises KeyError, too, for external links whose file is missing.
        raise InputError(
            f"cannot be read ({' '.join(str(error).split())})",
            file=path,
            expected="a complete HDF5 file",
            remedy="It may be truncated, still being written, or lack a linked file: copy it again",
        ) from error


def hdf5_dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """The dataset `name`. Raises InputError where it is missing, empty of data, or virtual with missing sources."""
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise InputError(
            "no such dataset",
            file=path,
            field=name,
            found=", ".join(hdf5_datasets(file)[:12]) or "no dataset at all",
            remedy="Check the name, or copy the file again if it is incomplete",
        )
    if found.is_virtual:
        # HDF5 itself fills missing sources with zeros in silence.
        for source in found.virtual_sources():
            if source.file_name != "." and not (path.parent / source.file_name).is_file():
                raise InputError(
                    "a file it is made of is missing",
                    file=path,
                    field=name,
                    found=f"no {source.file_name}",
                    remedy="Copy it beside this one",
                )
    return found


def hdf5_datasets(file: h5py.File) -> list[str]:
    """Path and shape of every dataset in the file, for messages."""
    names: list[str] = []

    def note(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            names.append(f"/{name} {item.shape}")

    file.visititems(note)
    return names


def read_hdf5_array(file: h5py.File, name: str, path: Path) -> NDArray[Any]:
    """A small dataset as an array. Raises InputError where it is missing, not numbers, or larger than memory."""
    dataset = hdf5_dataset(file, name, path)
    if dataset.dtype.kind not in "biufc":
        raise InputError("not numbers", file=path, field=name, found=dataset.dtype)
    require_memory(dataset.nbytes, path, name)
    return np.asarray(dataset[()])


class HDF5Frames(LazyFrames):
    """Frames of an HDF5 dataset.

    The file is opened for each read and closed again (0.4 ms): nothing stays open across forks, threads and pickles, and
    the file can be replaced meanwhile.
    """

    @classmethod
    def open(cls, path: str | os.PathLike[str], dataset: str) -> HDF5Frames:
        """Look at the dataset's shape; read nothing else. Raises InputError where it is missing or of the wrong rank."""
        path = Path(path)
        with open_hdf5(path) as file:
            found = hdf5_dataset(file, dataset, path)
            if found.shape is None:
                raise InputError("an empty dataset", file=path, field=dataset, expected="frames")
            return cls(path, dataset, tuple(map(int, found.shape)), found.dtype)

    def _frames(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        # HDF5 reads runs of neighbours fast and scattered points slowly: read sorted runs, then put them in order.
        wanted, order = np.unique(indices, return_inverse=True)
        result = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        points = self.raster[1] if self.raster else self.shape[0]
        breaks = np.flatnonzero((np.diff(wanted) > 1) | (np.diff(wanted // points) > 0)) + 1
        with open_hdf5(self.path) as file:
            dataset = hdf5_dataset(file, self.dataset, self.path)
            if tuple(dataset.shape) != self.stored_shape:
                raise InputError("has changed since it was opened", file=self.path, field=self.dataset, found=dataset.shape)
            try:
                for part in np.split(np.arange(len(wanted)), breaks) if len(wanted) else ():
                    line, first = divmod(int(wanted[part[0]]), points)
                    run = slice(first, first + len(part))
                    result[part[0] : part[-1] + 1] = dataset[line, run] if self.raster else dataset[run]
            except OSError as error:
                raise InputError(
                    f"frames cannot be read ({' '.join(str(error).split())})",
                    file=self.path,
                    field=self.dataset,
                    remedy="The file is damaged, truncated, or compressed by a filter that is not installed",
                ) from error
        return result if np.array_equal(wanted, indices) else result[order]


class NumpyFrames(LazyFrames):
    """Frames of an .npy file (`dataset` is empty) or of a member of an .npz archive (`dataset` is its name).

    What lies uncompressed in the file is memory-mapped; a compressed member is unpacked into memory on first use.
    """

    @classmethod
    def open(cls, path: str | os.PathLike[str], dataset: str = "") -> NumpyFrames:
        """Look at the array's header; read nothing else. Raises InputError for what is not a plain array of numbers."""
        path = Path(path)
        with _npy_stream(path, dataset) as stream:
            shape, _, dtype = _npy_header(stream, path, dataset)
        return cls(path, dataset, shape, dtype)

    @cached_property
    def _array(self) -> NDArray[Any]:
        """The whole array (N, H, W), mapped or unpacked."""
        start = _stored_at(self.path, self.dataset)
        if start is None:
            return read_npy(self.path, self.dataset).reshape(self.shape)
        with _npy_stream(self.path, self.dataset) as stream:
            shape, fortran, dtype = _npy_header(stream, self.path, self.dataset)
            offset = start + stream.tell()
        mapped = np.memmap(self.path, dtype, "r", offset, shape, "F" if fortran else "C")
        return mapped.reshape(self.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_array"}

    def _frames(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        return np.array(self._array[indices])


def read_npy(path: Path, member: str = "") -> NDArray[Any]:
    """An array of an .npy file or an .npz member, in memory. Raises InputError for what is not numbers or does not fit."""
    with _npy_stream(path, member) as stream:
        shape, fortran, dtype = _npy_header(stream, path, member)
        size = math.prod(shape) * dtype.itemsize
        require_memory(size, path, member)
        try:
            content = stream.read(size)
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise InputError(f"damaged ({error})", file=path, field=member or None, remedy="Copy it again") from error
    if len(content) != size:
        raise _truncated(path, member, len(content), size)
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def npz_members(path: Path) -> list[str]:
    """Names of the arrays in an .npz archive; empty where the file is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
    except (zipfile.BadZipFile, OSError):
        return []


@contextmanager
def _npy_stream(path: Path, member: str) -> Iterator[IO[bytes]]:
    """The bytes of an .npy file or of an .npz member."""
    if not member:
        with path.open("rb") as stream:
            yield stream
        return
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as stream:
            yield stream
    except KeyError:
        raise InputError("no such array", file=path, field=member, found=", ".join(npz_members(path))) from None
    except zipfile.BadZipFile as error:
        raise InputError(f"not a complete npz file ({error})", file=path, remedy="Copy it again") from error


def _npy_header(stream: IO[bytes], path: Path, member: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, Fortran order, dtype); leaves the stream at the first value."""
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, EOFError) as error:
        raise InputError(f"not a numpy array ({error})", file=path, field=member or None) from error
    if dtype.kind not in "biufc":
        raise InputError(
            "not a plain array of numbers",
            file=path,
            field=member or None,
            found=f"dtype {dtype}",
            remedy="Pickled objects are never opened: save the arrays themselves",
        )
    return shape, fortran, dtype


def _stored_at(path: Path, member: str) -> int | None:
    """Where the .npy bytes begin in the file, or None where they are compressed. Raises InputError where they end early."""
    if not member:
        start, length = 0, path.stat().st_size
    else:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo(f"{member}.npy")
        if entry.compress_type != zipfile.ZIP_STORED:
            return None
        with path.open("rb") as file:
            file.seek(entry.header_offset)
            header = file.read(30)  # a zip entry's own header: two lengths at byte 26 precede name and extra field
        start = entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        length = entry.file_size
    with path.open("rb") as file:
        file.seek(start)
        head = io.BytesIO(file.read(min(length, 2**16)))
    shape, _, dtype = _npy_header(head, path, member)
    expected = head.tell() + math.prod(shape) * dtype.itemsize
    if length < expected:
        raise _truncated(path, member, length, expected)
    return start


def _truncated(path: Path, member: str, found: int, expected: int) -> InputError:
    return InputError(
        "truncated", file=path, field=member or None, found=f"{found:,} bytes", expected=f"{expected:,}", remedy="Copy it again"
    )
