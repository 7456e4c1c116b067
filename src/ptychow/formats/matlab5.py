"""MATLAB's .mat files of version 5 to 7, read from their description ("MAT-File Format", MathWorks) step by step.

scipy.io.loadmat ends the process on some damaged files, so it cannot be asked. Here every length is checked against
the bytes that are there before it is believed. Numeric arrays are found by their name, and by fields of structures;
all else is passed over. What is not compressed (-v6) is mapped, not read.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats.base import require_memory

HEADER = 128  # bytes; the last two say the byte order
MATRIX, COMPRESSED = 14, 15  # all that a file's top level holds
STRUCT = 2
IS_COMPLEX = 0x08
# How values are stored, and what class they are of: MATLAB stores whole doubles in fewer bytes.
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
MOST_COMPRESSION = 1100  # zlib's most is 1032
PREVIEW = 2**16  # bytes that tell what a compressed array is


class Element(NamedTuple):
    """Some bytes with a type: where their content begins, its size, and where the next element begins."""

    kind: int
    begin: int
    size: int
    end: int


@dataclass(frozen=True)
class Array:
    """What stands before an array's values: class number, flags, dimensions, name, and where the values begin."""

    kind: int
    flags: int
    shape: tuple[int, ...]
    name: str
    values: int


class Damaged(Exception):
    """The bytes are not what the format says."""


@dataclass(frozen=True)
class Bytes:
    """A part of a file, mapped, or the content of a compressed element, in the file's byte order."""

    content: NDArray[np.uint8]
    order: str

    def whole(self, begin: int, size: int) -> bytes:
        """Exactly so many bytes. Raises Damaged where there are fewer."""
        found = self.content[begin : begin + size].tobytes()
        if len(found) != size:
            raise Damaged("it ends too early")
        return found

    def numbers(self, element: Element, types: tuple[int, ...]) -> list[int]:
        """Whole numbers of a small element. Raises Damaged for another type or many."""
        if element.kind not in types or element.size > 1024:
            raise Damaged(f"an element of type {element.kind} where {types[0]} belongs")
        return np.frombuffer(self.whole(element.begin, element.size), self.order + TYPES[element.kind]).tolist()

    def element(self, place: int) -> Element:
        """The element at a place. Raises Damaged where it does not fit."""
        first = int(np.frombuffer(self.whole(place, 4), f"{self.order}u4")[0])
        if first >> 16:  # small: type, size and up to four bytes together in eight
            found = Element(first & 0xFFFF, place + 4, first >> 16, place + 8)
        else:
            size = int(np.frombuffer(self.whole(place + 4, 4), f"{self.order}u4")[0])
            found = Element(first, place + 8, size, place + 8 + size + (-size % 8 if first != COMPRESSED else 0))
        if found.begin + found.size > len(self.content) or (found.begin == place + 4 and found.size > 4):
            raise Damaged("an element longer than the file")
        return found

    def array(self, matrix: Element) -> Array:
        """The array in an element. Raises Damaged for anything else."""
        if matrix.kind != MATRIX:
            raise Damaged(f"an element of type {matrix.kind} where an array belongs")
        flags = self.element(matrix.begin)
        dimensions = self.element(flags.end)
        name = self.element(dimensions.end)
        said = self.numbers(flags, (6,))
        shape = self.numbers(dimensions, (5,))
        if len(said) != 2 or not 2 <= len(shape) <= 8 or min(shape) < 0 or name.size > 256:
            raise Damaged("an array without a shape")
        text = self.whole(name.begin, name.size).decode("ascii", "replace").rstrip("\0")
        return Array(said[0] & 0xFF, said[0] >> 8 & 0xFF, tuple(shape), text, name.end)

    def fields(self, array: Array) -> Iterator[tuple[str, Element]]:
        """Names and elements of a structure's fields, those of its first entry. Raises Damaged."""
        length = self.element(array.values)
        names = self.element(length.end)
        width = self.numbers(length, (5,))
        if len(width) != 1 or not 1 <= width[0] <= 256:
            raise Damaged("a structure without names")
        count, place = names.size // width[0], names.end
        text = self.whole(names.begin, names.size)
        for number in range(count if math.prod(array.shape) else 0):
            element = self.element(place)
            raw = text[number * width[0] : (number + 1) * width[0]]
            yield raw.split(b"\0")[0].decode("ascii", "replace"), element
            place = element.end

    def values(self, array: Array) -> NDArray[Any]:
        """A numeric array in its stored type, a view. Raises Damaged where the values are not as many as said."""
        if array.kind not in CLASSES:
            raise Damaged(f"{array.name or 'a field'} holds no numbers")
        real = self.element(array.values)
        parts = [self._part(real, array)]
        if array.flags & IS_COMPLEX:
            parts.append(self._part(self.element(real.end), array))
            return parts[0] + 1j * parts[1].astype(np.float64)
        return parts[0]

    def _part(self, element: Element, array: Array) -> NDArray[Any]:
        stored = np.dtype(self.order + TYPES[element.kind]) if element.kind in TYPES else np.dtype("V1")
        if stored.kind == "V" or element.size != math.prod(array.shape) * stored.itemsize:
            raise Damaged(f"{array.name or 'a field'} has not as many values as its shape says")
        part = self.content[element.begin : element.begin + element.size]
        return part.view(stored).reshape(array.shape, order="F")


def variables(path: Path) -> dict[str, Array]:
    """The arrays of a file by name. Raises InputError where it is damaged or truncated."""
    return {name: array for name, (_, array) in _index(path, path.stat().st_mtime_ns, path.stat().st_size).items()}


def read(path: Path, name: str) -> NDArray[Any] | None:
    """A numeric array, "variable" or "structure.field", in its stored type, mapped where it can be; None where absent.

    Raises InputError where it is no numbers, or damaged.
    """
    variable, *fields = name.split(".")
    index = _index(path, path.stat().st_mtime_ns, path.stat().st_size)
    if variable not in index:
        return None
    element, array = index[variable]
    try:
        source = _map(path)
        if element.kind == COMPRESSED:
            source = _unpacked(source, element, path)
            array = source.array(source.element(0))
        for field in fields:
            found = dict(source.fields(array)).get(field) if array.kind == STRUCT else None
            if found is None:
                return None
            array = source.array(found)
        return source.values(array)
    except Damaged as error:
        raise InputError(f"cannot be read ({error})", file=path, field=name, expected="a complete .mat file") from None


@lru_cache(maxsize=8)
def _index(path: Path, changed: int, size: int) -> dict[str, tuple[Element, Array]]:
    """Where each variable is, and what: looked up once for each state of a file."""
    found: dict[str, tuple[Element, Array]] = {}
    try:
        source, place = _map(path), HEADER
        while place < size:
            element = source.element(place)
            if element.kind == COMPRESSED:
                start = _unpacked(source, element, path, PREVIEW)
                array = start.array(Element(MATRIX, 8, 0, 0))
            else:
                array = source.array(element)
            found[array.name] = (element, array)
            place = element.end
    except Damaged as error:
        raise InputError(f"cannot be read ({error})", file=path, expected="a complete .mat file") from None
    return found


def _map(path: Path) -> Bytes:
    content = np.memmap(path, np.uint8, "r")
    return Bytes(content, "<" if content[HEADER - 2 : HEADER].tobytes() == b"IM" else ">")


def _unpacked(source: Bytes, element: Element, path: Path, most: int = 0) -> Bytes:
    """The content of a compressed element, or its first `most` bytes. Raises Damaged where it cannot be unpacked."""
    limit = most or MOST_COMPRESSION * element.size
    if not most:
        tag = _unpacked(source, element, path, 8).content
        said = int(np.frombuffer(tag.tobytes(), f"{source.order}u4")[-1]) if len(tag) == 8 else 0
        if said > limit:
            raise Damaged("a compressed array larger than it can be")
        require_memory(said, path, "")
        limit = said + 8
    try:
        content = zlib.decompressobj().decompress(source.whole(element.begin, element.size), limit)
    except zlib.error as error:
        raise Damaged(str(error)) from None
    return Bytes(np.frombuffer(content, np.uint8), source.order)
