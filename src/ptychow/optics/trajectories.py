"""Scan trajectories: (N, 2) float64 positions (y, x) in the unit of `step`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.float64]


def raster(lines: int, columns: int, step: float) -> Positions:
    """Line after line, each from left to right, the first point at (0, 0); N = lines * columns."""
    return step * np.argwhere(np.ones((lines, columns))).astype(np.float64)


def snake(lines: int, columns: int, step: float) -> Positions:
    """As `raster`, every second line from right to left."""
    grid = raster(lines, columns, step).reshape(lines, columns, 2)
    grid[1::2] = grid[1::2, ::-1]
    return grid.reshape(-1, 2)


def fermat(points: int, step: float) -> Positions:
    """Fermat spiral about (0, 0) with one point per `step` squared.

    Radius c sqrt(n), turning by the golden angle pi (3 - sqrt 5), with c = step / sqrt(pi) so that n points
    fill the area n step^2 (H. Vogel, Math. Biosci. 44, 179, 1979; in ptychography X. Huang et al., Opt.
    Express 22, 12634, 2014).
    """
    index = np.arange(points)
    radius = step * np.sqrt(index / np.pi)
    angle = index * np.pi * (3 - np.sqrt(5))
    return np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=-1)


def jitter(positions: Positions, deviation: float, rng: np.random.Generator) -> Positions:
    """`positions` with independent normal errors of standard deviation `deviation` on each axis."""
    return positions + rng.normal(scale=deviation, size=positions.shape)


def _square(path: Callable[[int, int, float], Positions]) -> Callable[[int, float], Positions]:
    """A path over lines and columns as one of `points` points, over the smallest square that holds them."""

    def points_of_path(points: int, step: float) -> Positions:
        side = int(np.ceil(np.sqrt(points)))
        return path(side, side, step)[:points]

    return points_of_path


# By name: (number of points, step) -> positions.
TRAJECTORIES: dict[str, Callable[[int, float], Positions]] = {
    "raster": _square(raster),
    "snake": _square(snake),
    "fermat": fermat,
}
