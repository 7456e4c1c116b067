"""Canvas: complex patches to one object.

Patches are averaged as complex numbers with weights that come from the probe and are never zero, at sub-pixel
positions. Phases are never averaged: they wrap. A pattern knows nothing of its patch's constant phase, so patches of
models trained up to a constant are first brought to one constant from their overlaps (`solve_constants`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ptychow.devices import free_memory
from ptychow.errors import InputError
from ptychow.optics.beam import intensity
from ptychow.patches import corners
from ptychow.scan import ObjectImage

# Relative weight of the darkest pixel: small enough not to matter where light falls, never zero.
WEIGHT_FLOOR = 1e-3
# Of the sums (complex128, and two of float64), and of the image, coverage and variance that are made of them.
PIXEL_BYTES = 32 + 8 + 4 + 4
# Rows at a time where something is computed of the sums.
BAND = 256
# Patches shifted at a time: few enough to stay in a processor's cache.
CACHED_PATCHES = 8
# Patches that agree with their neighbours only slowly take on what those far away want: each is turned by this part
# further than it wants. Below 1 the agreement never falls; 0.7 took a third of the sweeps on a scan of 6,400 patches.
BEYOND = 0.7

Window = tuple[slice, slice]
EVERYWHERE: Window = (slice(None), slice(None))


class Patches(Protocol):
    """Complex patches (N, n, n) that may lie on disk. A numpy array, or a memory map, is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> NDArray[np.complexfloating]:
        """Patches (b, n, n) of a slice or an integer index array."""
        ...


def probe_weight(probe: NDArray[np.complexfloating]) -> NDArray[np.float32]:
    """Stitching weight (n, n) of each patch pixel: the intensity of the probe (modes, n, n), largest value 1, never
    zero.
    """
    light = intensity(probe)
    largest = light.max()
    if not (np.isfinite(largest) and largest > 0):
        raise InputError(
            "no light in it", field="probe", found=f"largest intensity {largest}", expected="a finite probe"
        )
    return np.maximum(light / largest, WEIGHT_FLOOR).astype(np.float32)


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
    Raises InputError where the sums do not fit into memory.
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
        needed = PIXEL_BYTES * self.shape[0] * self.shape[1]
        if needed > free_memory():
            raise InputError(
                f"span {self.shape[0]:,} x {self.shape[1]:,} object pixels",
                field="positions",
                found=f"{needed / 2**30:,.1f} GiB needed",
                expected=f"at most the {free_memory() / 2**30:,.1f} GiB that are free",
                remedy="Check their unit",
            )
        self._sum: NDArray[np.complex128] = np.zeros(self.shape, np.complex128)
        self._power: NDArray[np.float64] = np.zeros(self.shape)
        self._weight: NDArray[np.float64] = np.zeros(self.shape)

    def cover(self, positions_px: NDArray[np.float64], margin: int = 0) -> None:
        """Grow, by `margin` pixels more than needed, so that patches at these positions (b, 2) fit; sums stay as they
        are, on the same pixels.
        """
        first = corners(positions_px, self.size) - self.origin
        before = np.maximum(-np.floor(first.min(axis=0) + 1e-9), 0).astype(int)
        after = np.maximum(np.ceil(first.max(axis=0) - 1e-9) + self.size - self.shape, 0).astype(int)
        if not (before.any() or after.any()):
            return
        before, after = before + margin * (before > 0), after + margin * (after > 0)
        padding = list(zip(before, after, strict=True))
        self._sum = np.pad(self._sum, padding)
        self._power = np.pad(self._power, padding)
        self._weight = np.pad(self._weight, padding)
        self.origin = (self.origin[0] - float(before[0]), self.origin[1] - float(before[1]))
        self.shape = (self._weight.shape[0], self._weight.shape[1])

    def add(self, patches: NDArray[np.complexfloating], positions_px: NDArray[np.float64]) -> None:
        """Add (b, n, n) patches at (b, 2) positions. Raises InputError where one is not finite or off the canvas."""
        for window, weighted, power in self._placed(patches, positions_px):
            self._add(window, weighted, power)

    def add_turned_to_fit(
        self, patches: NDArray[np.complexfloating], positions_px: NDArray[np.float64]
    ) -> NDArray[np.complex64]:
        """As `add`, but each patch first takes the unit constant that fits the sums there are (1 where there are none).

        The constants (b,) depend on the order: a preview of what `solve_constants` finds. See `add` for the rest.
        """
        constants = np.ones(len(patches), np.complex64)
        for index, (window, weighted, power) in enumerate(self._placed(patches, positions_px)):
            overlap = np.vdot(weighted, self._sum[window])
            if abs(overlap) > 1e-6 * power.sum():
                constants[index] = overlap / abs(overlap)
            self._add(window, weighted * constants[index], power)
        return constants

    def _add(self, window: Window, weighted: NDArray[np.complexfloating], power: NDArray[np.floating]) -> None:
        self._sum[window] += weighted
        self._power[window] += power
        self._weight[window] += self.weight

    def _placed(
        self, patches: NDArray[np.complexfloating], positions_px: NDArray[np.float64]
    ) -> Iterator[tuple[Window, NDArray[np.complexfloating], NDArray[np.floating]]]:
        """Where each patch goes, and, on the grid, its weighted values and their weighted squares."""
        if not np.isfinite(patches).all():
            raise InputError("not finite", field="patches", remedy="Check the Model and the counts of these frames")
        start = corners(positions_px, self.size) - self.origin
        whole = np.floor(start + 1e-9).astype(int)
        if (whole < 0).any() or (whole + self.size > self.shape).any():
            raise InputError("outside the canvas", field="positions", expected="positions the canvas was made for")
        for first in range(0, len(patches), CACHED_PATCHES):
            part = slice(first, first + CACHED_PATCHES)
            shifted = shift_patches(patches[part], (start - whole)[part])
            weighted = shifted * self.weight.astype(shifted.real.dtype)
            powers = weighted.real * shifted.real + weighted.imag * shifted.imag
            for (row, column), patch, power in zip(whole[part], weighted, powers, strict=True):
                yield (slice(row, row + self.size), slice(column, column + self.size)), patch, power

    def coverage(self, window: Window = EVERYWHERE) -> NDArray[np.float32]:
        """(Y, X) sum of the weights, or a window of it: about the number of well-lit visits of a pixel; 0 where no
        patch fell.
        """
        return self._weight[window].astype(np.float32)

    def image(self, window: Window = EVERYWHERE) -> NDArray[np.complex64]:
        """(Y, X) complex mean of the patches, or a window of it; 0 where no patch fell."""
        total, weight = self._sum[window], self._weight[window]
        image = np.zeros(total.shape, np.complex64)
        return np.divide(total, weight, out=image, where=weight > 0, casting="same_kind")

    def variance(self) -> NDArray[np.float32]:
        """(Y, X) weighted variance of the complex patches around their mean: where patches disagree, it is large."""
        found = np.zeros(self.shape, np.float32)
        for rows in self._bands():
            covered = self._weight[rows] > 0
            weight = self._weight[rows][covered]
            mean = self._sum[rows][covered] / weight
            found[rows][covered] = np.maximum(self._power[rows][covered] / weight - np.abs(mean) ** 2, 0)
        return found

    def disagreement(self) -> float:
        """What part of the patches' amplitude their mean does not share: sqrt(1 - sum |mean|^2 w / sum |patch|^2 w).

        0 where all patches agree wherever they overlap (or nothing overlaps); it tells wrong orientation, positions
        and probe, which a patch alone may explain.
        """
        shared = total = 0.0
        for rows in self._bands():
            covered = self._weight[rows] > 0
            shared += (np.abs(self._sum[rows][covered]) ** 2 / self._weight[rows][covered]).sum()
            total += self._power[rows][covered].sum()
        return float(np.sqrt(max(0.0, 1 - shared / total))) if total > 0 else 0.0

    def _bands(self) -> Iterator[slice]:
        """Rows, so many at a time that what is computed of them takes little memory."""
        for start in range(0, self.shape[0], BAND):
            yield slice(start, start + BAND)

    def object_image(self, source: str) -> ObjectImage:
        """The mean as an `ObjectImage` in the frame of the positions."""
        return ObjectImage(self.image(), self.origin, source)


def shift_patches(patches: NDArray[np.complexfloating], fractions: NDArray[np.float64]) -> NDArray[np.complexfloating]:
    """Patches (b, n, n) whose corners lie `fractions` (b, 2) in [0, 1) beyond a grid point, read on the grid: `shifted`
    of arrays.
    """
    return shifted(torch.from_numpy(np.ascontiguousarray(patches)), fractions).numpy() if len(patches) else patches


def shifted(images: torch.Tensor, fractions: NDArray[np.float64]) -> torch.Tensor:
    """Complex images (b, n, n) sampled at pixels k - fraction, fractions (b, 2) in [0, 1]; can be differentiated.

    Cubic convolution (Keys, IEEE Trans. ASSP 29, 1153 (1981), a = -1/2); edges are repeated. The precision stays that
    of the images.
    """
    # As pairs of real numbers, in place: most of stitching is spent here.
    pairs = torch.view_as_real(images)
    for axis in (1, 2):
        fraction = fractions[:, axis - 1]
        if np.abs(fraction).max() < 1e-6:
            continue
        weights = torch.from_numpy(cubic_convolution_weights(1 - fraction)).to(pairs)[:, :, None, None, None]
        length = pairs.shape[axis]
        first, last = pairs.narrow(axis, 0, 1), pairs.narrow(axis, length - 1, 1)
        padded = torch.cat([first, first, pairs, last], dim=axis)
        pairs = padded.narrow(axis, 0, length) * weights[:, 0]
        for tap in range(1, 4):
            pairs.addcmul_(padded.narrow(axis, tap, length), weights[:, tap])
    return torch.view_as_complex(pairs)


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
    patches: Patches,
    positions_px: NDArray[np.float64],
    weight: NDArray[np.float32],
    *,
    sweeps: int = 200,
    tolerance: float = 1e-4,
    allocate: Callable[[tuple[int, ...]], NDArray[np.complex64]] = lambda shape: np.empty(shape, np.complex64),
    on_sweep: Callable[[int], object] = lambda sweep: None,
) -> NDArray[np.complex64]:
    """The unit constants that bring overlapping patches to one phase: `constants[:, None, None] * patches` agree.

    Maximises sum over pairs of Re <w c_i P_i, w c_j P_j> over their overlap by coordinate ascent: first every patch,
    in index order, takes the constant that fits the mosaic of those before it, then sweeps in index order let each fit
    the mosaic of all the others, and go somewhat beyond (successive over-relaxation; the sum never falls), until none
    wants to turn by more than `tolerance` radians. The remaining global constant makes the weighted sum of all patches
    real and positive.

    patches: (N, n, n) complex, may lie on disk; positions_px: (N, 2); weight: (n, n). allocate: where the weighted
    patches find room (memory, or a file for what does not fit). on_sweep: called before each sweep with its number,
    from 0. Result (N,) complex64.
    """
    lit = weight > 0.05 * weight.max()
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    core = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    start = corners(positions_px, weight.shape[0])
    start -= np.floor(start.min(axis=0))
    place = np.floor(start + 1e-9).astype(int)
    weighted = allocate((len(patches), *weight[core].shape))
    for first in range(0, len(patches), CACHED_PATCHES):
        part = slice(first, first + CACHED_PATCHES)
        weighted[part] = (weight * shift_patches(patches[part], (start - place)[part]))[:, *core]
    own = np.array([np.vdot(patch, patch).real for patch in weighted])
    mosaic = np.zeros(tuple(place.max(axis=0) + weighted.shape[1:]), np.complex64)
    constants = np.zeros(len(patches), np.complex64)
    for sweep in range(sweeps):
        on_sweep(sweep)
        turned = 0.0
        for index, (row, column) in enumerate(place):
            patch = weighted[index]
            window = mosaic[row : row + patch.shape[0], column : column + patch.shape[1]]
            others = np.vdot(patch, window) - constants[index] * own[index]
            size = abs(others)
            # Nothing to agree with (or only rounding): keep the constant there is.
            new = others / size if size > 1e-6 * own[index] else (constants[index] or np.complex64(1))
            turned = max(turned, float(abs(new - constants[index])))
            if sweep:
                new *= (new / constants[index]) ** BEYOND
                new /= abs(new)
            window += (new - constants[index]) * patch
            constants[index] = new
        if sweep and turned < tolerance:
            break
    total = mosaic.sum()
    return constants * np.complex64(abs(total) / total if abs(total) > 0 else 1)
