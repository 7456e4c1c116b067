"""Where the paper benchmark's scans come from: the simulated twin, or the published files (or others laid out so)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from ptychow.detector import Preparation
from ptychow.detector_fit import fit_preparation
from ptychow.errors import InputError
from ptychow.formats import read_scan
from ptychow.optics.twins import twin
from ptychow.scan import Scan
from ptychow.training import Recipe

TWIN = "sim-26id"
Part = tuple[int, int]  # first, and one beyond the last


@dataclass(frozen=True)
class Source:
    """part(seed, lines, columns) is that part of the raster as a labelled scan.

    One twin is another object for every seed; a measured object is the same for all, and seeds then differ in initial
    weights, split and order alone.
    """

    name: str
    title: str
    has_probe: bool
    part: Callable[[int, Part, Part], Scan]


def open_source(data: str) -> Source:
    """The twin of this name, or the PtychoNN pair of files in this folder. Raises InputError where there is neither."""
    if data == TWIN:
        return Source(TWIN, f"the simulated twin `{TWIN}`, another object for every seed", True, _twin_part)
    scan = read_scan(_diffraction_file(Path(data)))
    if scan.label_patches is None or scan.raster is None:
        raise InputError(
            "has no labels beside it", file=scan.name, expected="NAME_amp_pha....npy beside NAME_diff....npz"
        )
    numbers = np.arange(len(scan)).reshape(scan.raster)

    def part(seed: int, lines: Part, columns: Part) -> Scan:
        chosen = numbers[slice(*lines), slice(*columns)]
        return replace(scan.select(chosen.ravel()), raster=chosen.shape)

    return Source(scan.name, f"`{scan.name}`, one measured object for all seeds", False, part)


@lru_cache(maxsize=2)
def _twin_part(seed: int, lines: Part, columns: Part) -> Scan:
    return twin(TWIN, seed, lines=slice(*lines), columns=slice(*columns), workers=1)


def _diffraction_file(folder: Path) -> Path:
    """The reduced file where both published ones are there."""
    found = sorted(folder.glob("*_diff*.npz"), key=lambda path: "reduced" not in path.name)
    if not found:
        raise InputError("holds no PtychoNN data", file=folder, expected="NAME_diff....npz and NAME_amp_pha....npy")
    return found[0]


def preparation_for(scan: Scan, recipe: Recipe) -> Preparation | None:
    """As the notebooks reduce the published frames of 256 pixels (192 in the middle, to 64); None: as they are."""
    if scan.frame_shape != (256, 256):
        return None
    return fit_preparation(
        scan, crop=192, bin=3, transform=recipe.transform, threshold=recipe.threshold, scale=recipe.scale
    )


def shuffled(scan: Scan, seed: int) -> Scan:
    """The scan with its frames in another order: none belongs to its label."""
    order = np.random.default_rng(seed).permutation(len(scan))
    return replace(scan, frames=scan.select(order).frames)
