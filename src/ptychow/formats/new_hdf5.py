"""Writing an HDF5 file so that a full disk is an error: HDF5 itself crashes the process when it cannot close a file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from ptychow.files import atomic_path, cannot_write
from ptychow.formats.hdf5_files import attribute_text, open_hdf5

# NeXus' attribute of the root for the program that made a file.
CREATOR = "PtychoW"


class Disk(io.FileIO):
    """The file under an HDF5 file. Its writing never fails where HDF5 can see it: `require_written` tells."""

    failure: OSError | None = None

    def write(self, content: Any, /) -> int:
        """All of `content`, or, after a failure, nothing and no complaint; the number of bytes asked for."""
        left = memoryview(content).cast("B")
        size = len(left)
        try:
            while len(left) and self.failure is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.failure = error
        return size

    def truncate(self, size: int | None = None, /) -> int:
        """As for any file, without complaint."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return self.tell() if size is None else size

    def require_written(self) -> None:
        """Raise the first failure there was."""
        if self.failure is not None:
            raise self.failure


@contextmanager
def new_hdf5(path: str | os.PathLike[str]) -> Iterator[tuple[h5py.File, Disk]]:
    """A new HDF5 file and the `Disk` under it, which whoever writes much asks now and then.

    The file takes its name only when it is complete. Raises PtychoWError where it cannot be written.
    """
    with atomic_path(path) as temporary, Disk(Path(temporary), "w+") as disk:
        try:
            with h5py.File(disk, "w") as file:
                file.attrs["creator"] = CREATOR
                yield file, disk
        except (OSError, RuntimeError) as error:
            disk.require_written()  # it may have read back what was never written
            raise cannot_write(path, error) from error
        disk.require_written()


def is_own(path: Path) -> bool:
    """Whether this is an HDF5 file that `new_hdf5` made."""
    if not h5py.is_hdf5(path):
        return False
    with open_hdf5(path) as file:
        return attribute_text(file, "creator") == CREATOR
