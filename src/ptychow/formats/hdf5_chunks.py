"""Compressed chunks looked at before a filter unpacks them.

HDF5's plugins for bitshuffle and LZ4 believe the lengths that a chunk says: damaged ones end the process. The lengths
are few, so they are added up first. Layouts: the README of bitshuffle, "HDF5 filter", and of the LZ4 filter (32004).
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import h5py

from ptychow.errors import InputError

BITSHUFFLE, LZ4 = 32008, 32004
HEADER = 12  # bytes: size of the unpacked chunk (8) and of an unpacked block (4); before each block its packed size (4)
MULTIPLE = 8  # bitshuffle packs so many values together and leaves the rest as they are


def require_sound_chunks(dataset: h5py.Dataset, ranges: list[tuple[int, int]], path: Path, name: str) -> None:
    """Raise InputError where a chunk that holds some of the values in `ranges` does not add up.

    ranges: first and last-plus-one index along the leading axes; all of the others. Of virtual datasets the parts that
    they are made of are looked into. Other filters check themselves.
    """
    if dataset.is_virtual:
        _require_sound_sources(dataset, ranges, path, name)
    if dataset.chunks is None:
        return
    properties = dataset.id.get_create_plist()
    count = properties.get_nfilters()
    if not count:
        return
    number, _, options, _ = properties.get_filter(count - 1)
    if number not in (BITSHUFFLE, LZ4):
        return
    packs = number == LZ4 or (len(options) > 4 and options[4] > 0)
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    whole = ranges + [(0, length) for length in dataset.shape[len(ranges) :]]
    if any(first >= last for first, last in whole):
        return
    starts = [
        range(first - first % step, last, step) for (first, last), step in zip(whole, dataset.chunks, strict=True)
    ]
    for offset in itertools.product(*starts):
        if dataset.id.get_chunk_info_by_coord(offset).byte_offset is None:
            continue  # never written
        mask, packed = dataset.id.read_direct_chunk(offset)
        if mask & 1 << (count - 1):
            continue  # stored without the filter
        multiple = MULTIPLE * dataset.dtype.itemsize if number == BITSHUFFLE else 1
        if not (_adds_up(packed, size, multiple) if packs else len(packed) == size):
            raise InputError(
                "a damaged chunk", file=path, field=name, found=f"at index {offset}", remedy="Copy the file again"
            )


def _require_sound_sources(dataset: h5py.Dataset, ranges: list[tuple[int, int]], path: Path, name: str) -> None:
    first, last = ranges[0] if ranges else (0, dataset.shape[0])
    for source in dataset.virtual_sources():
        low, high = (bound[0] for bound in source.vspace.get_select_bounds())
        if high < first or low >= last:
            continue
        where = path if source.file_name == "." else path.parent / source.file_name
        with h5py.File(where, "r") as file:
            part = file[source.dset_name]
            inner = [(0, length) for length in part.shape]
            if source.src_space.get_select_type() != h5py.h5s.SEL_ALL:
                inner = [(start, end + 1) for start, end in zip(*source.src_space.get_select_bounds(), strict=True)]
            if inner and inner[0][1] - inner[0][0] == high - low + 1:  # frame by frame: only those wanted
                start = inner[0][0] - low
                inner[0] = (start + max(first, low), start + min(last, high + 1))
            require_sound_chunks(part, inner, where, name)


def _adds_up(packed: bytes, size: int, multiple: int) -> bool:
    """Whether a chunk's lengths are those of `size` bytes, of which all but a rest below `multiple` lie in blocks."""
    block = int.from_bytes(packed[8:HEADER], "big")
    if len(packed) < HEADER or int.from_bytes(packed[:8], "big") != size or block <= 0:
        return False
    rest, place = size % multiple, HEADER
    for _ in range(-(-(size - rest) // block)):
        if place + 4 > len(packed):
            return False
        place += 4 + int.from_bytes(packed[place : place + 4], "big")
    return place + rest == len(packed) and block % multiple == 0
