"""Intervals for ratios of errors, paired by seed and by place. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Interval = tuple[float, float]


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Student's interval of the mean of independent values; None below two of them."""
    if len(values) < 2:
        return None
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return mean(values) - half, mean(values) + half


def block_sums(image: NDArray[Any], side: int) -> NDArray[np.float64]:
    """Sums over side x side blocks of an (H, W) image; what is left at its far edges makes smaller blocks."""
    rows, columns = (np.arange(0, length, side) for length in image.shape)
    return np.add.reduceat(np.add.reduceat(np.asarray(image, np.float64), rows, axis=0), columns, axis=1)


def block_bootstrap(
    ours: Sequence[Sequence[float]],
    reference: Sequence[Sequence[float]],
    *,
    draws: int = 4000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean over seeds of sum(ours) / sum(reference).

    ours, reference: (seeds, blocks) summed squared errors of two networks on the same blocks of the same objects.
    In each draw every seed's blocks are drawn with replacement, the same ones for both networks: blocks wider than
    the errors' correlation stand for independent pieces of sample (Künsch, Ann. Stat. 17, 1217, 1989). The seeds are
    taken as they are, so that this interval tells the spread over places and `t_interval` that over seeds.
    """
    first, second = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    generator = np.random.default_rng(seed)
    chosen = generator.integers(first.shape[1], size=(draws, *first.shape))
    sums = (np.take_along_axis(errors[None], chosen, axis=2).sum(axis=2) for errors in (first, second))
    ratios = np.divide(*sums).mean(axis=1)
    low, high = np.quantile(ratios, ((1 - confidence) / 2, (1 + confidence) / 2))
    return float(low), float(high)
