"""Where on an object a frame fits best: every place within reach is tried, by the amplitudes it predicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ptychow.patches import corners
from ptychow.scan import ObjectImage
from ptychow.solver.measurement import Measurement

# A window of half the frame is searched where it holds this part of the probe's power.
WINDOW_POWER = 0.95
# Steps of a search are about such a part of its radius; coarse ones, on objects that are poor yet, such a part.
FINE, COARSE = 1 / 6, 1 / 5
# Frames searched at a time: few enough to stay in a processor's cache.
BATCH = 8


@dataclass(frozen=True)
class Pull:
    """What keeps frames near places known beforehand, (N, 2). strength: of a frame's least squared error, what a pixel
    away from there costs; it grows with the square of the distance.
    """

    places: NDArray[np.float64]
    strength: float

    def cost(self, centres: NDArray[np.float64], shifts: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N, k, k) of places that are `shifts` along both axes away from `centres` (N, 2)."""
        rows, columns = ((centres - self.places)[:, axis, None] + shifts for axis in (0, 1))
        return self.strength * (rows[:, :, None] ** 2 + columns[:, None, :] ** 2)


class ShiftSearch:
    """Where on an object a frame fits best, by the amplitudes that object and probe predict at every whole pixel.

    Where a window of half the frame holds the probe, every second detector pixel is enough: it is what the window's
    transform gives. (With less of the probe in it places are some tenths of a pixel less exact.)
    """

    def __init__(self, data: Measurement, image: ObjectImage, probe: NDArray[np.complex64]) -> None:
        self.data, self.origin = data, np.asarray(image.origin)
        self.size = probe.shape[-1]
        half = self.size // 4
        middle = probe[:, half : half + self.size // 2, half : half + self.size // 2]
        fits = np.linalg.norm(middle) ** 2 >= WINDOW_POWER * np.linalg.norm(probe) ** 2
        self.stride, self.inset = 1, 0
        if fits and self.size % 4 == 0:
            self.stride, self.inset = 2, half
        window = self.size // self.stride
        inner = slice(self.inset, self.inset + window)
        self.probe = torch.from_numpy(np.ascontiguousarray(probe[:, inner, inner])) / self.size
        self.windows = torch.from_numpy(image.image).unfold(0, window, 1).unfold(1, window, 1)
        self.good = torch.from_numpy(data.good[:: self.stride, :: self.stride].astype(np.float32))

    def __call__(
        self,
        positions_px: NDArray[np.float64],
        radius: int,
        pull: Pull | None = None,
        frames: NDArray[np.intp] | None = None,
        part: float = FINE,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Best places (n, 2) within `radius` pixels of the positions (n, 2), and relative amplitude errors (n,).

        frames: which ones the positions are of; all by default. part: steps are about such a part of the radius;
        between them the minimum of a parabola along each axis.
        """
        step = max(1, round(radius * part))
        shifts = np.arange(-(radius // step), radius // step + 1) * step
        nearest = np.rint(positions_px)
        frames = np.arange(len(nearest)) if frames is None else frames
        batches = [slice(first, first + BATCH) for first in range(0, len(nearest), BATCH)]
        errors = np.concatenate([self._errors(frames[batch], nearest[batch], shifts) for batch in batches])
        least = errors.min(axis=(1, 2))
        if pull is not None and pull.strength:
            errors = errors + least[:, None, None] * pull.cost(nearest, shifts)
        return nearest + step * (minimum(errors) - len(shifts) // 2), np.sqrt(least)

    def _errors(
        self, frames: NDArray[np.intp], places: NDArray[np.float64], shifts: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """(n, k, k) squared relative amplitude error of frames at whole-pixel places plus shifts along both axes."""
        counts = self.data.frames[frames][:, :: self.stride, :: self.stride]
        measured = torch.from_numpy(np.sqrt(counts)) * self.good
        first = torch.from_numpy((corners(places, self.size) - self.origin).astype(np.int64) + self.inset)
        last = torch.tensor(self.windows.shape[:2]) - 1
        found = np.empty((len(places), len(shifts), len(shifts)))
        for i, down in enumerate(shifts):
            for j, right in enumerate(shifts):
                row, column = (first + torch.tensor([down, right])).clamp(torch.zeros_like(last), last).T
                differences = self._amplitudes(self.windows[row, column]).mul_(self.good).sub_(measured)
                found[:, i, j] = differences.square_().sum(dim=(1, 2)).numpy()
        power = (measured**2).sum(dim=(1, 2)).clamp(min=1e-12).numpy()
        return found / power[:, None, None]

    def _amplitudes(self, patches: torch.Tensor) -> torch.Tensor:
        """Predicted root counts (n, w, w), zero frequency at [0, 0]."""
        # Most of a search is spent here: squares are added in place, real and imaginary parts beside each other.
        squares = torch.zeros(*patches.shape, 2)
        for mode in self.probe:
            field = torch.view_as_real(torch.fft.fft2(patches * mode))
            squares.addcmul_(field, field)
        return (squares[..., 0] + squares[..., 1]).sqrt_()


def minimum(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Index (n, 2), with fractions, of the minimum of each (k, k) map: parabolas through the smallest value."""
    count, width = errors.shape[0], errors.shape[1]
    smallest = np.stack(np.unravel_index(errors.reshape(count, -1).argmin(axis=1), errors.shape[1:]), axis=1)
    found = smallest.astype(np.float64)
    every = np.arange(count)
    for axis in (0, 1):
        if width < 3:
            break
        inside = (smallest[:, axis] > 0) & (smallest[:, axis] < width - 1)
        centre = smallest.copy()
        centre[:, axis] = np.clip(centre[:, axis], 1, width - 2)
        step = np.eye(2, dtype=int)[axis]
        before, here, after = (errors[every, *(centre + offset * step).T] for offset in (-1, 0, 1))
        curvature = before - 2 * here + after
        inside &= curvature > 0
        found[inside, axis] += (0.5 * (before - after) / np.where(inside, curvature, 1))[inside]
    return found
