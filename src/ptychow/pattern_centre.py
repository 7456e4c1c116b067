"""Where the light of a mean diffraction pattern has its middle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Light is looked at within so many times the radius that holds half of it: beyond lies the detector's background.
REACH = 4.0
LEAST_RADIUS = 2.0  # pixels
MOST_STEPS, FREE_STEPS, NEAR = 30, 6, 0.05


def pattern_centre(mean: NDArray[np.floating], good: NDArray[np.bool_]) -> tuple[float, float] | None:
    """Centre of mass (row, column) of the light of a mean pattern (H, W) over good pixels (H, W); None without light.

    A centre of mass is drawn away from a gap between modules, and to the middle of the detector by a weak background on
    a million pixels. So it is found again about itself until it stays: pixels count that are not far out, and whose
    mirror image through it is not bad.
    """
    light = np.maximum(np.where(good, mean, 0), 0).astype(np.float64)
    at = _centre_of_mass(light)
    if at is None:
        return None
    rows, columns = (np.arange(length, dtype=float) for length in light.shape)
    for step in range(MOST_STEPS):
        counted = np.where(_mirrored_good(good, at), light, 0)
        far = np.hypot(rows[:, None] - at[0], columns[None, :] - at[1])
        found = _centre_of_mass(np.where(far <= REACH * _half_light(counted, far), counted, 0))
        if found is None:
            break
        moved = found - at
        at = found if step < FREE_STEPS else at + moved / 2  # it may go to and fro
        if np.abs(moved).max() < NEAR:
            break
    return float(at[0]), float(at[1])


def _centre_of_mass(light: NDArray[np.float64]) -> NDArray[np.float64] | None:
    total = light.sum()
    if not total > 0:
        return None
    rows, columns = (np.arange(length) for length in light.shape)
    return np.array([light.sum(axis=1) @ rows, light.sum(axis=0) @ columns]) / total


def _mirrored_good(good: NDArray[np.bool_], at: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(H, W) where the pixel mirrored through `at` is good, or outside of the frame."""
    inside, clipped = [], []
    for middle, length in zip(at, good.shape, strict=True):
        mirror = np.rint(2 * middle - np.arange(length)).astype(int)
        inside.append((mirror >= 0) & (mirror < length))
        clipped.append(np.clip(mirror, 0, length - 1))
    return np.asarray(good[np.ix_(*clipped)] | ~np.outer(*inside))


def _half_light(light: NDArray[np.float64], far: NDArray[np.float64]) -> float:
    """The radius within which half of the light lies, in whole pixels. far: (H, W) distance of each pixel."""
    gathered = np.cumsum(np.bincount(far.astype(np.int64).ravel(), light.ravel()))
    return max(float(np.searchsorted(gathered, gathered[-1] / 2) + 1), LEAST_RADIUS)
