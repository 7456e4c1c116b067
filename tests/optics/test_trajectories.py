"""Scan trajectories."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from ptychow.optics.trajectories import TRAJECTORIES, fermat, jitter, raster, snake


def test_raster_and_snake():
    np.testing.assert_array_equal(raster(2, 3, 2.0), [(0, 0), (0, 2), (0, 4), (2, 0), (2, 2), (2, 4)])
    np.testing.assert_array_equal(snake(2, 3, 2.0), [(0, 0), (0, 2), (0, 4), (2, 4), (2, 2), (2, 0)])
    steps = np.linalg.norm(np.diff(snake(5, 4, 3.0), axis=0), axis=1)
    np.testing.assert_array_equal(steps, 3.0)


def test_fermat_has_one_point_per_step_squared_everywhere():
    points = fermat(2000, 5.0)
    radius = np.linalg.norm(points, axis=1)
    for rim in (60.0, 90.0, 120.0):
        density = np.count_nonzero(radius <= rim) / (np.pi * rim**2)
        assert density == pytest.approx(1 / 25, rel=0.02)
    nearest = cKDTree(points).query(points, k=2)[0][:, 1]
    assert nearest.min() > 0.55 * 5 and nearest.std() < 0.2 * 5
    assert np.linalg.norm(points.mean(axis=0)) < 1


def test_jitter():
    moved = jitter(raster(100, 100, 1.0), 0.3, np.random.default_rng(0)) - raster(100, 100, 1.0)
    assert moved.std(axis=0) == pytest.approx([0.3, 0.3], rel=0.05)
    assert np.abs(moved.mean()) < 0.01


@pytest.mark.parametrize("name", TRAJECTORIES)
@pytest.mark.parametrize("points", [1, 10, 36])
def test_registry_gives_as_many_points_as_asked(name, points):
    positions = TRAJECTORIES[name](points, 2.0)
    assert positions.shape == (points, 2) and positions.dtype == np.float64
    assert len(np.unique(positions.round(6), axis=0)) == points
