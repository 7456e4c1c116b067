"""Reading .npy and .npz files without trusting them: nothing is unpickled, sizes are checked first.

An array is named by the file and, in an .npz archive, by its member ("" for an .npy file).
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats.base import require_memory

MOST_COMPRESSION = 1100  # zlib's most is 1032
# What a damaged archive makes zipfile raise.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)


class Header(NamedTuple):
    """What an array is, and where its values begin, counted from the start of its own .npy bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    begin: int

    @property
    def nbytes(self) -> int:
        """Of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def npz_members(path: Path) -> list[str]:
    """Names of the arrays in an .npz archive; none where the file is no such archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except DAMAGE:
        return []


def is_npy(path: Path) -> bool:
    """Whether the file is an .npy file."""
    with path.open("rb") as file:
        return file.read(6) == b"\x93NUMPY"


def read_header(path: Path, member: str = "") -> Header:
    """Shape and type of an array.

    Raises InputError for what is missing, damaged, or not a plain array of numbers.
    """
    with _stream(path, member) as stream:
        return _header(stream, path, member)


def npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of numbers in an .npz archive by name; texts, pickled objects and damaged ones left out."""
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with suppress(InputError, *DAMAGE), archive.open(name) as stream:
                    shapes[name.removesuffix(".npy")] = _header(stream, path, name).shape
    except DAMAGE:
        return {}
    return shapes


def require_stored(path: Path, member: str, header: Header) -> None:
    """Raise InputError where the file cannot hold all the values that the header promises."""
    if not member:
        held = path.stat().st_size
    else:
        with _stream(path, member), zipfile.ZipFile(path) as archive:
            entry = archive.getinfo(f"{member}.npy")
        held = min(entry.file_size, MOST_COMPRESSION * entry.compress_size)
    _require_complete(held - header.begin, header.nbytes, path, member)


def read_array(path: Path, member: str = "") -> NDArray[Any]:
    """An array in memory.

    Raises InputError as `read_header`, and where it is truncated or too large for memory.
    """
    with _stream(path, member) as stream:
        header = _header(stream, path, member)
        require_memory(header.nbytes, path, member)
        content = stream.read(header.nbytes)
    _require_complete(len(content), header.nbytes, path, member)
    return np.frombuffer(content, header.dtype).reshape(header.shape, order="F" if header.fortran else "C")


def map_array(path: Path, member: str = "") -> NDArray[Any]:
    """An array mapped from the file, or, where its bytes do not lie there as needed (compressed), in memory.

    Raises InputError as `read_array`.
    """
    header = read_header(path, member)
    start, length = 0, path.stat().st_size
    if member:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo(f"{member}.npy")
        if entry.compress_type != zipfile.ZIP_STORED:
            return read_array(path, member)
        with path.open("rb") as file:
            # The entry's own header: 30 bytes, then a name and an extra field whose lengths stand at byte 26.
            file.seek(entry.header_offset + 26)
            start = entry.header_offset + 30 + sum(np.frombuffer(file.read(4), "<u2").tolist())
        length = entry.file_size
    if header.fortran or header.nbytes == 0:
        return read_array(path, member)
    _require_complete(length - header.begin, header.nbytes, path, member)
    return np.memmap(path, header.dtype, "r", start + header.begin, header.shape)


@contextmanager
def _stream(path: Path, member: str) -> Iterator[IO[bytes]]:
    """The .npy bytes of an array; what the archive says about damage becomes an InputError."""
    try:
        if not member:
            with path.open("rb") as stream:
                yield stream
        else:
            with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as stream:
                yield stream
    except KeyError:
        raise InputError("no such array", file=path, field=member, found=", ".join(npz_members(path))) from None
    except DAMAGE as error:
        raise InputError(f"damaged ({error})", file=path, field=member or None, remedy="Copy it again") from error


def _header(stream: IO[bytes], path: Path, member: str) -> Header:
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, SyntaxError, TokenError) as error:
        raise InputError(f"not a numpy array ({error})", file=path, field=member or None) from error
    if any(length < 0 for length in shape):
        raise InputError("not a numpy array (a negative length)", file=path, field=member or None, found=shape)
    if dtype.kind not in "biufc":
        raise InputError(
            "not a plain array of numbers",
            file=path,
            field=member or None,
            found=f"dtype {dtype}",
            remedy="Pickled objects are never opened: save the arrays themselves",
        )
    return Header(shape, dtype, fortran, stream.tell())


def _require_complete(found: int, expected: int, path: Path, member: str) -> None:
    if found < expected:
        raise InputError(
            "truncated",
            file=path,
            field=member or None,
            found=f"{found:,} bytes",
            expected=f"{expected:,}",
            remedy="Copy it again",
        )
