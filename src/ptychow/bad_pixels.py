"""Detector pixels that cannot be believed: found in the data, filled from their neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import pdtr, pdtrc

from ptychow.errors import InputError

DIM = 0.3
HOT = 5.0
CERTAINTY = 1e-9
ENCLOSED = 0.9  # of a dark region's border must face lit pixels


def find_bad_pixels(
    mean_frame: NDArray[np.floating],
    max_frame: NDArray[np.floating] | None = None,
    *,
    frames: int = 1,
    centre: tuple[int, int] | None = None,
) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.bool_]]]:
    """Mask (H, W), True = good, and the pixels (H, W) that each rule calls bad.

    mean_frame: (H, W) mean counts of `frames` frames; max_frame: (H, W) the largest count of each pixel.
    centre: the pixel of zero frequency, [H//2, W//2] where not given.

    Only what counting statistics make certain is called bad. The expectation of a pixel is the median of its
    5 x 5 neighbourhood, and a Poisson variable of that expectation must have a chance below 1e-9 to be so far
    off. A pixel at high angle that is expected to count fewer than 21 times in the whole scan may therefore
    be empty and is left alone.

    * "dead": never counts, alone or in a region of such pixels, nine tenths of whose border face pixels that count 21
      times and more: the dark outside of a pattern reaches the frame's edge, and a hole in it has a soft rim.
    * "dim": counts less than 0.3 of what is expected.
    * "hot": counts more than five times the third brightest of its neighbours, on average or at its largest.
      A properly sampled pattern has no feature that sharp, but for what passes the optics unfocused: the
      5 x 5 pixels around zero frequency are left alone.
    * "gap": belongs to rows or columns that never count, between rows or columns that do.
    """
    # A mean below zero is a subtracted background's, and stands for no counts.
    total = np.maximum(np.asarray(mean_frame, np.float64), 0) * frames
    expected = _neighbours(total, rank=12)
    dim = (total < DIM * expected) & (pdtr(np.floor(total), expected) < CERTAINTY)
    hot = _hot(total)
    if max_frame is not None:
        hot |= _hot(np.asarray(max_frame, np.float64))
    row, column = centre or (total.shape[0] // 2, total.shape[1] // 2)
    hot[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3] = False
    gap = _gaps(total.sum(axis=1))[:, None] | _gaps(total.sum(axis=0))[None, :]
    dead = (dim & (total == 0) & ~gap) | _dark_regions(total, gap)
    reasons = {"dead": dead, "dim": dim & (total > 0), "hot": hot, "gap": gap}
    return ~np.logical_or.reduce(list(reasons.values())), reasons


def count_once(rules: Mapping[str, NDArray[np.bool_]]) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Pixels (H, W) that any rule calls bad, and how many each adds to those before it: none is told twice."""
    bad, added = np.zeros(next(iter(rules.values())).shape, bool), {}
    for name, pixels in rules.items():
        added[name] = int((pixels & ~bad).sum())
        bad |= pixels
    return bad, added


def _neighbours(image: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """The value of the given rank (0 smallest, -1 largest) among each pixel's 24 neighbours."""
    footprint = np.ones((5, 5), bool)
    footprint[2, 2] = False
    return ndimage.rank_filter(image, rank, footprint=footprint, mode="reflect")


def _hot(counts: NDArray[np.float64]) -> NDArray[np.bool_]:
    bright = _neighbours(counts, rank=-3)
    return (counts > HOT * bright) & (pdtrc(np.maximum(np.ceil(counts) - 1, 0), np.maximum(bright, 1)) < CERTAINTY)


def _dark_regions(total: NDArray[np.float64], gap: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Connected pixels without counts, outside the gaps, that lit pixels enclose."""
    regions, number = ndimage.label((total == 0) & ~gap)
    # What lies beyond the frame's edge is not lit.
    regions, lit, gap = np.pad(regions, 1), np.pad(np.exp(-total) < CERTAINTY, 1), np.pad(gap, 1)
    sides, lit_sides = np.zeros(number + 1, np.int64), np.zeros(number + 1, np.int64)
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        beside = np.roll(regions, step, axis)
        border = (regions > 0) & (beside != regions) & ~np.roll(gap, step, axis)
        sides += np.bincount(regions[border], minlength=number + 1)
        lit_sides += np.bincount(regions[border & np.roll(lit, step, axis)], minlength=number + 1)
    enclosed = (lit_sides >= ENCLOSED * sides) & (lit_sides > 0)
    return enclosed[regions[1:-1, 1:-1]]


def _gaps(profile: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Zeros of a profile between two values that neither chance nor a slope lets fall to zero."""
    inside = np.zeros(len(profile), bool)
    lit = np.flatnonzero(profile)
    for before, after in pairwise(lit):
        if after - before > 1 and np.exp(-min(profile[before], profile[after])) < CERTAINTY:
            inside[before + 1 : after] = True
    return inside


@dataclass(frozen=True)
class Filling:
    """How the bad pixels of one mask are filled: each by the mean of its good neighbours (of eight).

    Where all eight are bad, neighbours that have been filled already count as good: wide gaps fill from their
    rims, ring by ring. rings: (bad pixels (k,), neighbours (k, 8), weights (k, 8)), indices into a flat frame.
    """

    rings: tuple[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]], ...]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Filling:
        """For a mask (H, W), True = good. Raises InputError where no pixel is good."""
        if not mask.any():
            raise InputError("every pixel is bad or marked as invalid", field="frames", expected="some good pixels")
        height, width = mask.shape
        known = mask.copy()
        rings = []
        while not known.all():
            padded = np.pad(known, 1)
            rows, columns = np.nonzero(~known)
            r, c = rows[:, None] + _DOWN, columns[:, None] + _RIGHT
            good = padded[r + 1, c + 1]
            reached = good.any(axis=1)
            weights = good[reached] / good[reached].sum(axis=1, keepdims=True)
            # Neighbours beyond the edge have weight zero; any valid index will do for them.
            neighbours = np.clip(r, 0, height - 1) * width + np.clip(c, 0, width - 1)
            rows, columns = rows[reached], columns[reached]
            rings.append((rows * width + columns, neighbours[reached], weights.astype(np.float32)))
            known[rows, columns] = True
        return cls(tuple(rings))

    def fill(self, frames: NDArray[np.float32]) -> None:
        """Fill the bad pixels of C-contiguous frames (..., H, W) in place."""
        flat = frames.reshape(-1, frames.shape[-2] * frames.shape[-1])
        # A bad pixel may hold NaN, which not even a weight of zero removes.
        for pixels, _, _ in self.rings:
            flat[:, pixels] = 0
        for pixels, neighbours, weights in self.rings:
            flat[:, pixels] = np.einsum("nkj,kj->nk", flat[:, neighbours], weights)


_DOWN = np.array([-1, -1, -1, 0, 0, 1, 1, 1])
_RIGHT = np.array([-1, 0, 1, -1, 1, -1, 0, 1])
