"""Detector pixels that cannot be believed: found in the data, filled from their neighbours."""

from __future__ import annotations

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

    * "dead": never counts. "dim": counts less than 0.3 of what is expected.
    * "hot": counts more than five times the third brightest of its neighbours, on average or at its largest.
      A properly sampled pattern has no feature that sharp, but for what passes the optics unfocused: the
      5 x 5 pixels around zero frequency are left alone.
    * "gap": belongs to rows or columns that never count, between rows or columns that do.
    """
    total = np.asarray(mean_frame, np.float64) * frames
    expected = _neighbours(total, rank=12)
    dim = (total < DIM * expected) & (pdtr(np.floor(total), expected) < CERTAINTY)
    hot = _hot(total)
    if max_frame is not None:
        hot |= _hot(np.asarray(max_frame, np.float64))
    row, column = centre or (total.shape[0] // 2, total.shape[1] // 2)
    hot[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3] = False
    gap = _gaps(total.sum(axis=1))[:, None] | _gaps(total.sum(axis=0))[None, :]
    reasons = {"dead": dim & (total == 0) & ~gap, "dim": dim & (total > 0), "hot": hot, "gap": gap}
    return ~np.logical_or.reduce(list(reasons.values())), reasons


def _neighbours(image: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """The value of the given rank (0 smallest, -1 largest) among each pixel's 24 neighbours."""
    footprint = np.ones((5, 5), bool)
    footprint[2, 2] = False
    return ndimage.rank_filter(image, rank, footprint=footprint, mode="reflect")


def _hot(counts: NDArray[np.float64]) -> NDArray[np.bool_]:
    bright = _neighbours(counts, rank=-3)
    return (counts > HOT * bright) & (pdtrc(np.maximum(np.ceil(counts) - 1, 0), np.maximum(bright, 1)) < CERTAINTY)


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
