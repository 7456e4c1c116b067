"""Patterns of positions are told apart, with jitter, in any unit and order."""

import numpy as np
import pytest

from ptychow.scan_pattern import scan_pattern

RNG = np.random.default_rng(11)


def raster(lines: int, points: int, step: float) -> np.ndarray:
    return np.mgrid[:lines, :points].reshape(2, -1).T * step


def spiral(count: int) -> np.ndarray:
    index = np.arange(count)
    angle = index * np.pi * (3 - np.sqrt(5))
    return 3 * np.sqrt(index)[:, None] * np.column_stack((np.sin(angle), np.cos(angle)))


@pytest.mark.parametrize(
    ("positions", "kind"),
    [
        (raster(7, 9, 3.0), "raster"),
        (raster(7, 9, 3.0) + RNG.normal(size=(63, 2)) * 0.05, "raster"),
        (raster(1, 9, 3.0), "raster"),
        (RNG.permutation(raster(7, 9, 3e-8)), "raster"),
        (spiral(200), "spiral"),
        (spiral(200) + RNG.normal(size=(200, 2)), "spiral"),
        (RNG.random((100, 2)) * 50, "irregular"),
        (np.ones((4, 2)), "single point"),
    ],
)
def test_patterns(positions, kind):
    found = scan_pattern(positions)
    assert found.kind == kind
    if kind == "raster":
        assert found.step == pytest.approx(3.0 if found.step > 1 else 3e-8, rel=0.1)
