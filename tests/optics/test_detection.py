"""The detector: Poisson statistics and faulty pixels."""

import numpy as np
import pytest

from ptychow.errors import InputError
from ptychow.optics.detection import Detector, random_dead_pixels


@pytest.mark.parametrize("level", [0.2, 5.0, 3000.0])
def test_counts_have_the_variance_of_their_mean(level):
    counts = Detector(background=0.1).measure(np.full((100, 32, 32), level), np.random.default_rng(0))
    assert counts.dtype == np.uint16
    assert counts.mean() == pytest.approx(level + 0.1, rel=0.02)
    assert counts.var(dtype=float) == pytest.approx(level + 0.1, rel=0.02)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32"])
def test_bright_pixels_are_clipped_not_wrapped(dtype):
    counts = Detector(dtype=dtype).measure(np.full((4, 4), 1e10), np.random.default_rng(0))
    assert counts.dtype == dtype and (counts == np.iinfo(dtype).max).all()


def test_saturation_and_dead_pixels():
    dead = random_dead_pixels((8, 8), 5, np.random.default_rng(1))
    detector = Detector(dead=dead, saturation=1000)
    assert detector.limit == 1000 and dead.sum() == 5
    counts = detector.measure(np.full((3, 8, 8), 1e5), np.random.default_rng(0))
    assert (counts[:, dead] == 0).all() and (counts[:, ~dead] == 1000).all()
    assert Detector(saturation=10**6).limit == 65535


def test_refusals():
    for dtype in ("float32", "uint64"):
        with pytest.raises(InputError, match=f"dtype: no type of a detector's counts; found {dtype}"):
            Detector(dtype=dtype)
    with pytest.raises(InputError, match="integer type"):
        Detector(dtype="nonsense")
    with pytest.raises(InputError, match="background"):
        Detector(background=-1)
    with pytest.raises(InputError, match="dead pixels"):
        random_dead_pixels((2, 2), 5, np.random.default_rng(0))
