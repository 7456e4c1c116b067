"""What a list of positions looks like: raster, spiral or neither, and its step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import spearmanr

# Points of a raster lie on their lines within this part of a step; a spiral's radii grow with the index.
LINE_WIDTH = 0.3
SPIRAL_CORRELATION = 0.95
# Object pixels: stages do not step less.
SHORTEST_STEP = 0.01


@dataclass(frozen=True)
class ScanPattern:
    """kind: "raster", "spiral", "irregular" or "single point".

    step: median distance to the nearest other point. extent: (rows, columns) from first to last point.
    shape: (lines, points per line) of a raster, else None. repeated: points at exactly the place of another.
    """

    kind: str
    step: float
    extent: tuple[float, float]
    shape: tuple[int, int] | None
    repeated: int


def scan_pattern(positions: NDArray[np.float64]) -> ScanPattern:
    """The pattern of positions (N, 2) in any unit; lengths of the result are in the same."""
    extent = (float(np.ptp(positions[:, 0])), float(np.ptp(positions[:, 1])))
    places = np.unique(positions, axis=0)
    repeated = len(positions) - len(places)
    if len(places) == 1:
        return ScanPattern("single point", 0.0, extent, None, repeated)
    step = float(np.median(cKDTree(places).query(places, k=2)[0][:, 1]))
    lines, points = (_levels(places[:, axis], LINE_WIDTH * step) for axis in (0, 1))
    if lines * points == len(places):
        return ScanPattern("raster", step, extent, (lines, points), repeated)
    radius = np.hypot(*(positions - positions.mean(axis=0)).T)
    grows = len(places) > 8 and spearmanr(np.arange(len(radius)), radius).statistic > SPIRAL_CORRELATION
    return ScanPattern("spiral" if grows else "irregular", step, extent, None, repeated)


def impossible(pattern: ScanPattern, step_px: float | None, side: int) -> str | None:
    """What can be no scan's about its positions, in words, or None: all are the same, or the step is far too long or
    too short.

    step_px: the pattern's step in object pixels, None where they are unknown. side: of the frames, pixels.
    """
    if pattern.kind == "single point":
        return "all positions are the same" if pattern.repeated else None
    if step_px is None or SHORTEST_STEP <= step_px <= side:
        return None
    return f"a step of {step_px:.3g} object pixels cannot be right: check the unit of positions and the pixel size"


def _levels(values: NDArray[np.float64], tolerance: float) -> int:
    """How many values there are when those closer than `tolerance` to their neighbours are the same."""
    return 1 + int(np.count_nonzero(np.diff(np.sort(values)) > tolerance))
