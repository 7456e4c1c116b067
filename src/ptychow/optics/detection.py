"""What a photon-counting detector makes of an expected intensity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ptychow.errors import InputError


@dataclass(frozen=True)
class Detector:
    """Poisson noise, then the pixels' faults.

    background: expected counts a pixel that do not come from the beam.
    dead: (H, W) bool, True where a pixel always reads zero; None for none.
    saturation: the largest count a pixel can give; None for the largest number of `dtype`. Never more than
        that one: counts are clipped, they do not wrap around.
    dtype: integer type of the frames.
    """

    background: float = 0.0
    dead: NDArray[np.bool_] | None = None
    saturation: int | None = None
    dtype: DTypeLike = np.uint16

    def __post_init__(self) -> None:
        try:
            dtype = np.dtype(self.dtype)
            fits = dtype.kind in "ui" and dtype.itemsize <= 4
        except TypeError:
            fits = False
        if not fits:
            expected = "an integer type of at most 32 bits, such as uint16"
            raise InputError("no type of a detector's counts", field="dtype", found=self.dtype, expected=expected)
        for name in ("background", "saturation"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise InputError("negative", field=name, found=value, expected="counts, zero or more")

    @property
    def limit(self) -> int:
        """The largest value a frame can hold: what reads this may have been more."""
        largest = int(np.iinfo(np.dtype(self.dtype)).max)
        return largest if self.saturation is None else min(self.saturation, largest)

    def measure(self, expected: NDArray[np.floating], rng: np.random.Generator) -> NDArray[Any]:
        """Counts, of `dtype`, of one or several frames (..., H, W) of expected counts."""
        counts = np.minimum(rng.poisson(expected + self.background), self.limit).astype(self.dtype)
        if self.dead is not None:
            counts[..., self.dead] = 0
        return counts


def random_dead_pixels(shape: tuple[int, int], count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(H, W) bool with `count` different pixels True."""
    if not 0 <= count <= shape[0] * shape[1]:
        raise InputError(
            "no such number of pixels",
            field="dead pixels",
            found=count,
            expected=f"0 to {shape[0] * shape[1]}",
        )
    dead = np.zeros(shape, bool)
    dead.flat[rng.choice(dead.size, count, replace=False)] = True
    return dead
