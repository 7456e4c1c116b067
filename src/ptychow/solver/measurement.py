"""What an iterative engine fits: all frames of a scan, cleaned, and the object array that holds all its patches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ptychow.detector_fit import detector_of, preparation_of
from ptychow.errors import InputError, about
from ptychow.optics.beam import intensity
from ptychow.patches import corners
from ptychow.scan import ObjectImage, Scan

# Pixels of the object array beyond the outermost patches, so that sub-pixel shifts never leave it.
MARGIN = 2


@dataclass(frozen=True)
class Measurement:
    """Frames of a scan, as an engine takes them.

    frames: (n, H, W) float32 counts, zero frequency at [0, 0], 0 where not good. good: (H, W) bool, likewise.
    name: the scan's. notes: what was left out, in words.
    """

    frames: NDArray[np.float32]
    good: NDArray[np.bool_]
    name: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)

    @cached_property
    def mean_pattern(self) -> NDArray[np.float64]:
        """(H, W) mean frame, zero frequency at [0, 0]."""
        return np.asarray(self.frames.mean(axis=0, dtype=np.float64))


def measure(scan: Scan) -> tuple[Scan, Measurement]:
    """The part of a scan that holds counts, and its frames in memory.

    Frames without counts (shutter closed, or dropped by the detector) are left out: they are no measured darkness.
    Bad pixels, those of the scan's mask and those found in the data, are set to 0, and so are pixels that saturate in
    any frame: Pty-Chi takes one mask for all frames. Wrapped counts are unwrapped, and pixels marked as invalid in
    single frames filled from their neighbours, as for the networks.
    Raises InputError where nothing is left.
    """
    with about(scan.name):
        fields, found = detector_of(scan)
        watched = preparation_of(**fields)
        # Saturated pixels are left out here, not cut.
        detector = watched.replace(saturation=None).as_counts()
    frames = np.empty(scan.frames.shape, np.float32)
    saturated = np.zeros(scan.frame_shape, bool)
    for indices, batch in scan.batches():
        saturated |= watched.saturated(batch).any(axis=0)
        with about(scan.name):
            frames[indices] = detector.apply(batch)[:, 0]
    good = np.ones(scan.frame_shape, bool) if detector.mask is None else detector.mask
    notes = [*found]
    if (saturated & good).any():
        notes.append(f"{(saturated & good).sum()} saturated pixels left out")
    good = good & ~saturated
    if not good.any():
        raise InputError("no good pixel is left", file=scan.name, field="frames", remedy="Check the mask")
    frames[:, ~good] = 0
    lit = np.flatnonzero(frames.any(axis=(1, 2)))
    if not lit.size:
        raise InputError("all zero", file=scan.name, field="frames", expected="some counts")
    if len(lit) < len(scan):
        notes.append(f"{len(scan) - len(lit)} frames without counts left out")
        scan = scan.select(lit)
    for place, index in enumerate(lit):
        frames[place] = np.fft.ifftshift(frames[index])
    return scan, Measurement(frames[: len(lit)], np.fft.ifftshift(good), scan.name, tuple(notes))


def object_frame(
    positions_px: NDArray[np.float64], size: int, margin: int = MARGIN
) -> tuple[tuple[float, float], tuple[int, int]]:
    """Origin (whole object pixels) and shape of an object array that holds every patch and `margin` pixels around."""
    first = np.floor(positions_px.min(axis=0))
    last = np.floor(positions_px.max(axis=0))
    rows, columns = (last - first + size + 2 * margin).astype(int).tolist()
    row, column = (first - size // 2 - margin).tolist()
    return (row, column), (rows, columns)


def flat_object(positions_px: NDArray[np.float64], size: int, margin: int = MARGIN) -> ObjectImage:
    """The object that is 1 everywhere, on the array of `object_frame`: where an iteration starts that knows nothing."""
    origin, shape = object_frame(positions_px, size, margin)
    return ObjectImage(np.ones(shape, np.complex64), origin, "flat")


def illumination(scan: Scan) -> NDArray[np.float32]:
    """(rows, columns) counts that fell on each pixel of a labelled scan's object, over all frames.

    Patches are placed to the nearest pixel. Raises InputError for a scan without object and probe.
    """
    if scan.object is None or scan.probe is None:
        raise InputError("no object and probe", file=scan.name, remedy="Run `ptychow label` first")
    light = intensity(scan.probe)
    height, width = light.shape
    total = np.zeros(scan.object.image.shape, np.float32)
    first = np.round(corners(scan.positions_px, height) - scan.object.origin).astype(int)
    for row, column in first:
        # Patches of a part of the object's scan may stick out.
        inside = total[max(row, 0) : max(row + height, 0), max(column, 0) : max(column + width, 0)]
        top, left = max(-row, 0), max(-column, 0)
        inside += light[top : top + inside.shape[0], left : left + inside.shape[1]]
    return total
