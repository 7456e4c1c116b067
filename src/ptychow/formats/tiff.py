"""TIFF stacks: one file of many pages, or a folder of files of one page or more each, in the order of their numbers.

Frames are the pages, read when wanted; all must have the size and type of the first. Nothing else in the files is
looked at: no OME-XML, which may name further files, and no calibration. Positions, and what a scan needs besides, are
given: --positions FILE, and the keys of `stacks`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats import position_files, stacks
from ptychow.formats.base import Format
from ptychow.formats.lazy import LazyFrames
from ptychow.scan import Scan

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffFrame, TiffPage

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
SUFFIXES = (".tif", ".tiff")
# What tifffile says of damage is said here, once.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class TiffFrames(LazyFrames):
    """Pages of TIFF files. files: each with the number of its first page and of the first page after it."""

    files: tuple[tuple[Path, int, int], ...] = ()

    @classmethod
    def open(cls, path: Path) -> TiffFrames:
        """Look at the first page and count the others. Raises InputError for what is no stack of images."""
        files, total = [], 0
        for file in _files(path):
            with _opened(file) as tiff:
                if not total:
                    shape, dtype = _kind(tiff.pages.first, file)
                pages = len(tiff.pages)
            files.append((file, total, total + pages))
            total += pages
        return cls(path, "", (total, *shape), dtype, tuple(files))

    def _read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        result = np.empty((len(indices), *self.shape[1:]), self.dtype)
        owners = np.searchsorted([end for _, _, end in self.files], indices, side="right")
        for owner in np.unique(owners):
            file, first, _ = self.files[owner]
            with _opened(file) as tiff:
                for place in np.flatnonzero(owners == owner):
                    page = tiff.pages[int(indices[place]) - first]
                    kind = _kind(page, file)
                    if kind != (self.shape[1:], self.dtype):
                        expected = f"{self.dtype} {self.shape[1:]}"
                        raise InputError(
                            "a page unlike the first", file=file, found=f"{kind[1]} {kind[0]}", expected=expected
                        )
                    result[place] = page.asarray(maxworkers=1)
        return result


def _kind(page: TiffPage | TiffFrame, file: Path) -> tuple[tuple[int, int], np.dtype[Any]]:
    """Shape and type of a grey page. Raises InputError for any other, and for damage."""
    shape, dtype = page.shape, page.dtype
    if dtype is None or len(shape) != 2 or not all(isinstance(length, int) for length in shape):
        found = f"{dtype} of {len(shape)} dimensions"
        raise InputError("not a grey picture", file=file, found=found, expected="numbers (rows, columns)")
    return (shape[0], shape[1]), np.dtype(dtype)


def recognises(path: Path) -> bool:
    """Whether this is a TIFF file, or a folder with some."""
    if path.is_dir():
        return bool(_files(path))
    with path.open("rb") as file:
        return file.read(4) in MAGIC


def read(path: Path, mapping: Mapping[str, str]) -> Scan:
    """The scan of a stack and a file of positions. Raises InputError for what is missing or damaged."""
    given, unit = position_files.needed(path, mapping)
    return stacks.scan_of_stack(TiffFrames.open(path), given, unit, path, mapping)


def _files(path: Path) -> list[Path]:
    """The TIFF files of a folder, 2 before 10; or the file itself."""
    if not path.is_dir():
        return [path]
    found = [item for item in path.iterdir() if item.suffix.lower() in SUFFIXES and item.is_file() and recognises(item)]
    return sorted(found, key=lambda item: [int(part) if part.isdigit() else part for part in _parts(item.name)])


def _parts(name: str) -> list[str]:
    return re.split(r"([0-9]+)", name)


@contextmanager
def _opened(path: Path) -> Iterator[TiffFile]:
    """A TIFF file. tifffile and its decoders raise anything for damage: it becomes an InputError with the name."""
    from tifffile import TiffFile

    try:
        with TiffFile(path) as tiff:
            yield tiff
    except InputError:
        raise
    except Exception as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot be read ({problem})", file=path, expected="a complete TIFF file") from error


FORMAT = Format(name="tiff", title="TIFF stack", recognises=recognises, read=read, keys=stacks.KEYS)
