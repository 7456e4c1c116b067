"""What one pass over a scan's frames tells: counts, extremes, and what is no count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow.detector_steps import default_markers, marked_pixels, unwrap_negative
from ptychow.scan import Scan


@dataclass(frozen=True)
class FrameStatistics:
    """Over all frames of a scan; values that are not finite, or mark a pixel as invalid, count as absent.

    mean, largest: (H, W) of each pixel, counts. valid: (H, W), in how many frames the pixel is valid.
    totals: (N,) counts of each frame. unknown: (N,) how many values of each are NaN or infinite.
    smallest_value, largest_value: of all valid values, the smallest as stored, the largest as a count (`wrapped`);
    at_largest: how many equal the largest.
    not_finite, negative, marked, saturated: how many values are NaN or infinite, below 0, a marker of invalid
    pixels, at or above the scan's saturation.
    wrapped: negative 16-bit integers were taken as counts above 32767. whole: all valid values are whole numbers.
    rooted: they are not, but their squares are, as far as rounding lets that be seen.
    """

    mean: NDArray[np.float64]
    largest: NDArray[np.float64]
    valid: NDArray[np.int64]
    totals: NDArray[np.float64]
    unknown: NDArray[np.int64]
    smallest_value: float
    largest_value: float
    at_largest: int
    not_finite: int
    negative: int
    marked: int
    saturated: int
    wrapped: bool
    whole: bool
    rooted: bool


def measure_frames(scan: Scan, on_frames: Callable[[int], object] = lambda count: None) -> FrameStatistics:
    """Read all frames once. `on_frames` is told how many have just been read.

    Raises InputError where they cannot be read.
    """
    dtype = np.dtype(scan.frames.dtype)
    wraps = dtype.kind == "i" and dtype.itemsize == 2
    markers = default_markers(dtype)
    total, largest = np.zeros(scan.frame_shape), np.full(scan.frame_shape, -np.inf)
    valid = np.zeros(scan.frame_shape, np.int64)
    totals, unknown = np.zeros(len(scan)), np.zeros(len(scan), np.int64)
    smallest_value, largest_value, at_largest = np.inf, -np.inf, 0
    negative = marked = saturated = 0
    whole = rooted = True
    for indices, stored in scan.batches():
        counts = unwrap_negative(stored) if wraps else stored
        usable = np.isfinite(counts)
        unknown[indices] = (~usable).sum(axis=(1, 2))
        absent = marked_pixels(counts, markers)
        if absent is not None:
            marked += int(np.count_nonzero(absent))
            usable &= ~absent
        negative += int(np.count_nonzero((stored < 0) & usable))
        if scan.saturation is not None:
            saturated += int(np.count_nonzero((counts >= scan.saturation) & usable))
        smallest_value = min(smallest_value, float(np.min(stored, where=usable, initial=_top(dtype))))
        highest = float(np.max(counts, where=usable, initial=_bottom(counts.dtype)))
        if highest > largest_value:
            largest_value, at_largest = highest, 0
        at_largest += int(np.count_nonzero((counts == largest_value) & usable))
        values = np.where(usable, counts, 0).astype(np.float64)
        total += values.sum(axis=0)
        whole = whole and (dtype.kind != "f" or bool((values == np.rint(values)).all()))
        rooted = rooted and (whole or _are_roots(values))
        totals[indices] = values.sum(axis=(1, 2))
        largest = np.maximum(largest, np.where(usable, values, -np.inf).max(axis=0))
        valid += usable.sum(axis=0)
        on_frames(len(indices))
    return FrameStatistics(
        mean=total / np.maximum(valid, 1),
        largest=np.where(valid > 0, largest, 0.0),
        valid=valid,
        totals=totals,
        unknown=unknown,
        smallest_value=smallest_value,
        largest_value=largest_value,
        at_largest=at_largest,
        not_finite=int(unknown.sum()),
        negative=negative,
        marked=marked,
        saturated=saturated,
        wrapped=wraps and negative > 0,
        whole=whole,
        rooted=rooted and not whole,
    )


def _are_roots(values: NDArray[np.float64]) -> bool:
    """Whether the squares of all values (n, H, W) below 100, stored with seven digits, are whole numbers."""
    squares = np.square(values[np.abs(values) < 100])
    return bool((np.abs(squares - np.rint(squares)) < 0.01).all())


def _top(dtype: np.dtype[Any]) -> float | int:
    return np.iinfo(dtype).max if dtype.kind in "iu" else np.inf


def _bottom(dtype: np.dtype[Any]) -> float | int:
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf
