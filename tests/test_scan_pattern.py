"""Patterns of positions are told apart, with jitter, in any unit and order."""

import numpy as np
import pytest

from ptychow.scan_pattern import impossible, scan_pattern

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


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        (raster(4, 5, 3.0), None),
        (raster(4, 5, 64.0), None),
        (raster(1, 1, 3.0), None),
        (np.ones((4, 2)), "all positions are the same"),
        (raster(4, 5, 65.0), "a step of 65 object pixels cannot be right"),
        (raster(4, 5, 3e-8), "a step of 3e-08 object pixels cannot be right"),
    ],
)
def test_what_no_stage_can_have_done_is_told(positions, words):
    pattern = scan_pattern(positions)
    found = impossible(pattern, pattern.step, 64)
    assert found is None if words is None else found.startswith(words)
    assert pattern.kind == "single point" or impossible(pattern, None, 64) is None
