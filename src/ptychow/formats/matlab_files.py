"""MATLAB's .mat files of all versions behind one face: 5 to 7 by `matlab5`, 7.3 as the HDF5 that it is.

Arrays come as MATLAB sees them, (row, column, ...). A name with dots leads into structures: "outputs.probe_positions".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats import matlab5
from ptychow.formats.hdf5_files import hdf5_dataset, holds, open_hdf5, read_hdf5_array, read_hdf5_complex
from ptychow.formats.lazy import HDF5Frames, LazyFrames
from ptychow.frame_views import RearrangedFrames
from ptychow.scan import Frames


def is_matlab(path: Path) -> bool:
    """Whether the file says that it is a .mat file of version 5 to 7.3."""
    with path.open("rb") as file:
        return file.read(8) in (b"MATLAB 5", b"MATLAB 7")


@dataclass(frozen=True)
class MatlabFile:
    """An open .mat file; `file` is the HDF5 file of version 7.3, None for older versions."""

    path: Path
    file: h5py.File | None

    def has(self, name: str) -> bool:
        """Whether there is a variable of this name."""
        if self.file is not None:
            return holds(self.file, name, self.path)
        return name in matlab5.variables(self.path)

    def array(self, name: str) -> NDArray[Any] | None:
        """A numeric array, or None where it is absent. Raises InputError where it is anything else."""
        if self.file is not None:
            return self._from_hdf5(self.file, name.replace(".", "/"))
        return matlab5.read(self.path, name)

    def frames(self, name: str) -> Frames:
        """The variable (rows, columns, ...) as frames, the further dimensions in MATLAB's order, not read yet."""
        if self.file is not None:
            stored = HDF5Frames.open(self.path, name)
            return RearrangedFrames(stored, transposed=True)
        array = matlab5.variables(self.path)[name]
        if array.kind not in matlab5.CLASSES or len(array.shape) < 3:
            raise InputError("not a stack of images", file=self.path, field=name, found=f"shape {array.shape}")
        stack = (math.prod(array.shape[2:]), *array.shape[:2])
        return MatlabFrames(self.path, name, stack, np.dtype(matlab5.CLASSES[array.kind]))

    def _from_hdf5(self, file: h5py.File, name: str) -> NDArray[Any] | None:
        if not holds(file, name, self.path):
            return None
        is_complex = hdf5_dataset(file, name, self.path).dtype.names == ("real", "imag")
        read = read_hdf5_complex if is_complex else read_hdf5_array
        return read(file, name, self.path).T


class MatlabFrames(LazyFrames):
    """Frames of an array in a .mat file of version 5 to 7: mapped, or where compressed unpacked on first use."""

    @cached_property
    def _array(self) -> NDArray[Any]:
        values = matlab5.read(self.path, self.dataset)
        if values is None or values.size != math.prod(self.shape) or values.dtype.kind not in "iuf":
            raise InputError("no frames, or others than when it was opened", file=self.path, field=self.dataset)
        return values.reshape(*values.shape[:2], -1, order="F").transpose(2, 0, 1)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_array"}

    def _read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        return self._array[indices].astype(self.dtype)


@contextmanager
def open_matlab(path: Path) -> Iterator[MatlabFile]:
    """A .mat file of any of these versions. Raises InputError where it is damaged."""
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            yield MatlabFile(path, file)
    else:
        yield MatlabFile(path, None)
