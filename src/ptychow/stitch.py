"""Canvas: complex patches to one object.

Patches are averaged as complex numbers with weights that come from the probe and are never zero, at sub-pixel
positions. Phases are never averaged: they wrap. A pattern knows nothing of its patch's constant phase, so patches of
models trained up to a constant are first brought to one constant from their overlaps (`solve_constants`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.patches import corners
from ptychow.scan import ObjectImage

# Relative weight of the darkest pixel: small enough not to matter where light falls, never zero.
WEIGHT_FLOOR = 1e-3


def probe_weight(probe: NDArray[np.complexfloating], size: int | None = None) -> NDArray[np.float32]:
    """Stitching weight of each patch pixel: the probe's intensity over all modes, largest value 1, never zero.

    probe: (modes, n, n); result (n, n), or its central `size` x `size` pixels.
    """
    intensity = (np.abs(probe) ** 2).sum(axis=0)
    if size is not None:
        intensity = central_crop(intensity, size)
    largest = intensity.max()
    if not (np.isfinite(largest) and largest > 0):
        raise InputError(
            "no light in it", field="probe", found=f"largest intensity {largest}", expected="a finite probe"
        )
    return np.maximum(intensity / largest, WEIGHT_FLOOR).astype(np.float32)


def central_crop(images: NDArray, size: int) -> NDArray:
    """The central size x size pixels of the last two axes; the centre pixel [n//2, n//2] stays the centre."""
    rows, columns = (n // 2 - size // 2 for n in images.shape[-2:])
    return images[..., rows : rows + size, columns : columns + size]


class Canvas:
    """Sums weighted complex patches on the object grid of a whole scan.

    The sums are in double precision, so that the image depends on neither the order of the patches nor how they were
    batched beyond rounding.

    positions_px: (N, 2) of all points that will come, object pixels: they set the size.
    weight: (n, n), positive; n is the size of the patches.
    """

    def __init__(self, positions_px: NDArray[np.float64], weight: NDArray[np.float32]) -> None:
        self.size = weight.shape[0]
        self.weight = weight.astype(np.float64)
        first = corners(positions_px, self.size)
        # Metres divided by metres are not exact: a whole pixel is one within a billionth.
        low = np.floor(first.min(axis=0) + 1e-9)
        high = np.ceil(first.max(axis=0) - 1e-9) + self.size
        self.origin = (float(low[0]), float(low[1]))
        self.shape = (int(high[0] - low[0]), int(high[1] - low[1]))
        self._sum = np.zeros(self.shape, np.complex128)
        self._power = np.zeros(self.shape)
        self._weight = np.zeros(self.shape)

    def add(self, patches: NDArray[np.complexfloating], positions_px: NDArray[np.float64]) -> None:
        """Add (b, n, n) patches at (b, 2) positions. Raises InputError where one is not finite or off the canvas."""
        if not np.isfinite(patches).all():
            raise InputError("not finite", field="patches", remedy="Check the Model and the counts of these frames")
        start = corners(positions_px, self.size) - self.origin
        whole = np.floor(start + 1e-9).astype(int)
        if (whole < 0).any() or (whole + self.size > self.shape).any():
            raise InputError("outside the canvas", field="positions", expected="positions the canvas was made for")
        shifted = shift_patches(patches, start - whole)
        weighted = shifted * self.weight
        power = weighted.real * shifted.real + weighted.imag * shifted.imag
        for index, (row, column) in enumerate(whole):
            window = slice(row, row + self.size), slice(column, column + self.size)
            self._sum[window] += weighted[index]
            self._power[window] += power[index]
            self._weight[window] += self.weight

    def coverage(self) -> NDArray[np.float32]:
        """(Y, X) sum of the weights: about the number of well-lit visits of a pixel; 0 where no patch fell."""
        return self._weight.astype(np.float32)

    def image(self) -> NDArray[np.complex64]:
        """(Y, X) complex mean of the patches; 0 where no patch fell."""
        covered = self._weight > 0
        return np.divide(self._sum, self._weight, out=np.zeros_like(self._sum), where=covered).astype(np.complex64)

    def variance(self) -> NDArray[np.float32]:
        """(Y, X) weighted variance of the complex patches around their mean: where patches disagree, it is large."""
        covered = self._weight > 0
        mean_power = np.divide(self._power, self._weight, out=np.zeros_like(self._power), where=covered)
        return np.maximum(mean_power - np.abs(self.image().astype(np.complex128)) ** 2, 0).astype(np.float32)

    def object_image(self, source: str) -> ObjectImage:
        """The mean as an `ObjectImage` in the frame of the positions."""
        return ObjectImage(self.image(), self.origin, source)


def shift_patches(patches: NDArray[np.complexfloating], fractions: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Sample (b, n, n) patches at pixels k - fraction, so that a patch whose corner lies `fraction` beyond a grid point
    is read on the grid. Cubic convolution (Keys, IEEE Trans. ASSP 29, 1153 (1981), a = -1/2); edges are repeated.
    """
    shifted = patches.astype(np.complex128)
    for axis in (1, 2):
        fraction = fractions[:, axis - 1]
        if np.abs(fraction).max(initial=0) < 1e-6:
            continue
        padding = [(0, 0)] * 3
        padding[axis] = (2, 1)
        padded = np.pad(shifted, padding, mode="edge")
        weights = cubic_convolution_weights(1 - fraction)
        length = shifted.shape[axis]
        taps = (padded.take(range(tap, tap + length), axis=axis) * weights[:, tap, None, None] for tap in range(4))
        shifted = np.sum(list(taps), axis=0)
    return shifted


def cubic_convolution_weights(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' weights of the points at -1, 0, 1, 2 for a value at t in [0, 1]; (N,) in, (N, 4) out."""
    return np.stack(
        [
            -0.5 * t**3 + t**2 - 0.5 * t,
            1.5 * t**3 - 2.5 * t**2 + 1,
            -1.5 * t**3 + 2 * t**2 + 0.5 * t,
            0.5 * t**3 - 0.5 * t**2,
        ],
        axis=1,
    )


def solve_constants(
    patches: NDArray[np.complexfloating],
    positions_px: NDArray[np.float64],
    weight: NDArray[np.float32],
    *,
    sweeps: int = 200,
    tolerance: float = 1e-4,
    allocate: Callable[[tuple[int, ...]], NDArray[np.complex64]] = lambda shape: np.empty(shape, np.complex64),
) -> NDArray[np.complex64]:
    """The unit constants that bring overlapping patches to one phase: `constants[:, None, None] * patches` agree.

    Maximises sum over pairs of Re <w c_i P_i, w c_j P_j> over their overlap by coordinate ascent (each step is exact,
    the sum never falls): first every patch, in index order, takes the constant that fits the mosaic of those before it,
    then sweeps in index order let each fit the mosaic of all the others, until no constant turns by more than
    `tolerance` radians. The remaining global constant makes the weighted sum of all patches real and positive.

    patches: (N, n, n) complex, may be a memory map; positions_px: (N, 2); weight: (n, n). allocate: where the weighted
    patches find room (memory, or a file for what does not fit). Result (N,) complex64.
    """
    lit = weight > 0.05 * weight.max()
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    core = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    start = corners(positions_px, weight.shape[0])
    start -= np.floor(start.min(axis=0))
    place = np.floor(start + 1e-9).astype(int)
    weighted = allocate((len(patches), *weight[core].shape))
    own = np.empty(len(patches))
    for index in range(len(patches)):
        one = slice(index, index + 1)
        weighted[index] = (weight * shift_patches(patches[one], (start - place)[one])[0])[core]
        own[index] = np.vdot(weighted[index], weighted[index]).real
    mosaic = np.zeros(tuple(place.max(axis=0) + weighted.shape[1:]), np.complex64)
    constants = np.zeros(len(patches), np.complex64)
    for sweep in range(sweeps):
        turned = 0.0
        for index, (row, column) in enumerate(place):
            patch = weighted[index]
            window = mosaic[row : row + patch.shape[0], column : column + patch.shape[1]]
            others = np.vdot(patch, window) - constants[index] * own[index]
            size = abs(others)
            # Nothing to agree with (or only rounding): keep the constant there is.
            new = others / size if size > 1e-6 * own[index] else (constants[index] or np.complex64(1))
            turned = max(turned, float(abs(new - constants[index])))
            window += (new - constants[index]) * patch
            constants[index] = new
        if sweep and turned < tolerance:
            break
    total = mosaic.sum()
    return constants * np.complex64(abs(total) / total if abs(total) > 0 else 1)
