"""The object as it is so far: a Canvas that grows with the scan, and what changed in it since somebody looked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ptychow.patches import corners
from ptychow.stitch import Canvas

TILE = 64  # pixels along a side
# Pixels a mosaic may have; 32 bytes each. A wrong position must not take the memory of a whole machine.
MOST_PIXELS = 2**25


@dataclass(frozen=True)
class Tile:
    """A TILE x TILE piece. row, column: in tiles; pixel [0, 0] lies at position (row, column) * TILE, object pixels."""

    row: int
    column: int
    image: NDArray[np.complex64]
    coverage: NDArray[np.float32]


def near_enough(
    positions_px: NDArray[np.float64], size: int, lit: NDArray[np.bool_], most_pixels: int = MOST_PIXELS
) -> NDArray[np.bool_]:
    """(b,) which of the patches at positions (b, 2) one mosaic can hold: as many as it can of those nearest to the
    middle. So a few wrong positions cost no others, however wrong they are and whenever they came.

    size: of the patches. lit: (b,) those of frames with counts, at least one: they tell where the middle is, and the
    rest may cost them nothing. most_pixels: as `Mosaic`.
    """
    away = np.abs(positions_px - np.median(positions_px[lit], axis=0))
    # In units of how far positions usually are: a scan can be much longer than wide.
    distance = (away / (np.median(away[lit], axis=0) + size)).max(axis=1)
    near = np.zeros(len(positions_px), bool)
    for group in (np.flatnonzero(lit), np.flatnonzero(~lit)):
        order = np.concatenate([np.flatnonzero(near), group[np.argsort(distance[group], kind="stable")]])
        first = corners(positions_px[order], size)
        height, width = (np.maximum.accumulate(first) - np.minimum.accumulate(first) + size + 1).T
        near[order] = height <= most_pixels / width
    return near


class Mosaic:
    """Patches stitched as they come; written by one thread, looked at by others.

    weight: (n, n). turn: patches are right up to a constant each: each takes the one that fits what is there, which
    makes a preview. most_pixels: of the area that positions may cover.
    """

    def __init__(self, weight: NDArray[np.float32], turn: bool, most_pixels: int = MOST_PIXELS) -> None:
        self._weight, self._turn, self._most_pixels = weight, turn, most_pixels
        self._size = weight.shape[0]
        self._canvas: Canvas | None = None
        self._bounds: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        self._changed: dict[tuple[int, int], int] = {}
        self._version = 0
        self._lock = Lock()

    def fits(self, positions_px: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(b,) whether the patches at positions (b, 2), at least one, can be added in turn, or cover too much."""
        bounds = self._bounds_with(positions_px)
        if bounds is not None:
            self._bounds = bounds
            return np.ones(len(positions_px), bool)
        fits = np.zeros(len(positions_px), bool)
        for index in range(len(positions_px)):
            bounds = self._bounds_with(positions_px[index : index + 1])
            if bounds is not None:
                fits[index], self._bounds = True, bounds
        return fits

    def holds(self, positions_px: NDArray[np.float64]) -> bool:
        """Whether all patches at positions (b, 2), at least one, that have been tried did fit."""
        return self._bounds_with(positions_px) is not None

    def _bounds_with(self, positions_px: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """First and last corner of what is covered with these positions (b, 2) too; None where that is too large."""
        first = corners(positions_px, self._size)
        low, high = first.min(axis=0), first.max(axis=0)
        if self._bounds is not None:
            low, high = np.minimum(low, self._bounds[0]), np.maximum(high, self._bounds[1])
        height, width = high - low + self._size + 1
        return (low, high) if height <= self._most_pixels / width else None

    def add(self, patches: NDArray[np.complex64], positions_px: NDArray[np.float64]) -> None:
        """Stitch patches (b, n, n) at positions (b, 2) that were found to fit."""
        if not len(patches):
            return
        with self._lock:
            if self._canvas is None:
                self._canvas = Canvas(positions_px, self._weight)
            self._canvas.cover(positions_px, margin=2 * self._size)
            (self._canvas.add_turned_to_fit if self._turn else self._canvas.add)(patches, positions_px)
            first = np.floor(corners(positions_px, self._size) + 1e-9).astype(int)
            for (top, left), (bottom, right) in zip(first // TILE, (first + self._size - 1) // TILE, strict=True):
                for row in range(top, bottom + 1):
                    for column in range(left, right + 1):
                        self._touch((row, column))

    @contextmanager
    def still(self) -> Iterator[Canvas | None]:
        """The canvas, which nobody changes meanwhile; None before the first patch."""
        with self._lock:
            yield self._canvas

    def show(self, canvas: Canvas) -> None:
        """Put the final canvas in the preview's place: everything has changed."""
        with self._lock:
            self._canvas = canvas
            for place in list(self._changed):
                self._touch(place)

    def changed_since(self, version: int, most: int) -> tuple[int, list[Tile]]:
        """(version, tiles): at most so many of those that changed after `version`, the longest unchanged first.

        The version returned is the one to ask with next time.
        """
        with self._lock:
            if self._canvas is None:
                return version, []
            changed = [(place, when) for place, when in self._changed.items() if when > version][:most]
            return (changed[-1][1] if changed else version), [self._tile(*place) for place, _ in changed]

    def _touch(self, place: tuple[int, int]) -> None:
        """A tile has changed: it is now the last of all, with a version of its own."""
        self._version += 1
        self._changed.pop(place, None)
        self._changed[place] = self._version

    def _tile(self, row: int, column: int) -> Tile:
        assert self._canvas is not None
        image = np.zeros((TILE, TILE), np.complex64)
        coverage = np.zeros((TILE, TILE), np.float32)
        offset = np.array([row, column]) * TILE - np.array(self._canvas.origin, int)
        first = np.maximum(offset, 0)
        last = np.maximum(np.minimum(offset + TILE, self._canvas.shape), first)  # nothing, where the canvas has ended
        there = slice(first[0], last[0]), slice(first[1], last[1])
        here = tuple(slice(f - o, e - o) for f, e, o in zip(first, last, offset, strict=True))
        image[here], coverage[here] = self._canvas.image(there), self._canvas.coverage(there)
        return Tile(row, column, image, coverage)
