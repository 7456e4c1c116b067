"""Between an object and the patches of its scan points: where a patch lies, and its values at sub-pixel positions.

An n x n patch of the point at position p (object pixels) has its centre pixel [n//2, n//2] at p, so that its corner
pixel [0, 0] lies at p - n//2. In an array whose pixel [0, 0] lies at `origin` the corner's index is p - n//2 - origin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ptychow.errors import InputError
from ptychow.scan import ObjectImage

# A spline's value depends on pixels so far away by less than 1e-6.
AROUND = 12


def corners(positions_px: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Position of pixel [0, 0] of the size x size patch centred at each position; (N, 2) in, (N, 2) out."""
    return np.asarray(positions_px, np.float64) - size // 2


class PatchExtractor:
    """Cuts patches out of one object at any sub-pixel position.

    Values between pixels come from the cubic B-spline through the pixels (Unser et al., IEEE Trans. Signal Process. 41,
    821 (1993)), prefiltered once for the whole object; at whole-pixel positions they are the pixels themselves.
    """

    def __init__(self, image: ObjectImage, size: int) -> None:
        self.size = size
        self.origin = np.asarray(image.origin, np.float64)
        self.shape = image.image.shape
        values = image.image.astype(np.complex128)
        coefficients = ndimage.spline_filter(values.real, 3, mode="mirror") + 1j * ndimage.spline_filter(
            values.imag, 3, mode="mirror"
        )
        # Mirrored borders let the four-point kernel reach the very edge of the object.
        self._coefficients = np.pad(coefficients, (2, 3), mode="reflect").astype(np.complex64)

    def inside(self, positions_px: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(N,) True where the whole patch lies in the object."""
        first = corners(positions_px, self.size) - self.origin
        last = first + self.size - 1
        return np.asarray(((first >= -1e-6) & (last <= np.asarray(self.shape) - 1 + 1e-6)).all(axis=1))

    def __call__(self, positions_px: NDArray[np.float64]) -> NDArray[np.complex64]:
        """(N, size, size) complex64 patches. Raises InputError where one leaves the object."""
        positions_px = np.atleast_2d(positions_px)
        outside = ~self.inside(positions_px)
        if outside.any():
            raise InputError(
                f"{outside.sum()} of {len(outside)} patches of {self.size} pixels leave the object",
                field="object",
                found=f"an object of {self.shape} pixels from {tuple(self.origin)}",
                expected=f"the patch around {tuple(np.round(positions_px[outside.argmax()], 2))} inside",
                remedy="Label the scan again, or leave these points out",
            )
        start = corners(positions_px, self.size) - self.origin
        patches = np.empty((len(start), self.size, self.size), np.complex64)
        for index, corner in enumerate(start):
            patches[index] = self._sample(corner, (self.size, self.size))
        return patches

    def region(self, origin: tuple[float, float], shape: tuple[int, int]) -> NDArray[np.complex64]:
        """The object on another grid of the same pixels, whose pixel [0, 0] lies at `origin`; 0 beyond its border."""
        start = np.asarray(origin) - self.origin
        first = np.ceil(np.maximum(-start, 0) - 1e-9).astype(int)
        last = np.minimum(np.floor(np.asarray(self.shape) - 1 - start + 1e-9).astype(int) + 1, shape)
        image = np.zeros(shape, np.complex64)
        if (last > first).all():
            inner = (int(last[0] - first[0]), int(last[1] - first[1]))
            image[first[0] : last[0], first[1] : last[1]] = self._sample(start + first, inner)
        return image

    def _sample(self, start: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.complex64]:
        """Spline values on a grid of `shape` from index `start` (inside the object)."""
        whole = np.floor(start + 1e-9).astype(int)
        row, column = whole
        down, across = cubic_spline_weights(start - whole)
        # Coefficients are padded by 2; the kernel starts one pixel before.
        window = self._coefficients[row + 1 : row + shape[0] + 4, column + 1 : column + shape[1] + 4]
        rows = np.sum([across[tap] * window[:, tap : tap + shape[1]] for tap in range(4)], axis=0)
        return np.sum([down[tap] * rows[tap : tap + shape[0]] for tap in range(4)], axis=0)


def few_patches(image: ObjectImage, positions_px: NDArray[np.float64], size: int) -> NDArray[np.complex64]:
    """As a `PatchExtractor`'s (N, size, size), from splines of what lies around each patch alone: where they are few,
    and the object is large. Both differ by less than 1e-4 of the values.
    """
    start = np.asarray(image.origin, np.float64)
    patches = np.empty((len(positions_px), size, size), np.complex64)
    for index, corner in enumerate(corners(positions_px, size) - start):
        first = np.maximum(np.floor(corner).astype(int) - AROUND, 0)
        rows, columns = (slice(low, low + size + 2 * AROUND + 1) for low in first)
        window = ObjectImage(image.image[rows, columns], tuple(start + first), image.source)
        patches[index] = PatchExtractor(window, size)(positions_px[index])[0]
    return patches


def cubic_spline_weights(fractions: NDArray[np.float64]) -> NDArray[np.float32]:
    """Cubic B-spline weights of the points at -1, 0, 1, 2 for a value at `fractions` in [0, 1); (..., 4)."""
    t = fractions[..., None]
    return np.concatenate(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=-1
    ).astype(np.float32) / np.float32(6)


def resample_object(image: ObjectImage, ratio: float) -> ObjectImage:
    """The object on pixels `ratio` times as large (more than 1 coarsens, anti-aliased); positions then count those.

    Pixel [0, 0] keeps its place: origin / ratio in the new unit, and new pixel k lies over old pixel k * ratio.
    """
    if abs(ratio - 1) < 1e-6:
        return image
    shape = tuple(int((n - 1) // ratio) + 1 for n in image.image.shape)
    blur = max(0.0, (ratio - 1) / 2)  # scikit-image's rule for anti-aliasing

    def scaled(part: NDArray[np.float32]) -> NDArray[np.float64]:
        smooth = ndimage.gaussian_filter(part.astype(np.float64), blur, mode="mirror")
        return ndimage.affine_transform(smooth, (ratio, ratio), output_shape=shape, order=3, mode="mirror")

    values = scaled(image.image.real) + 1j * scaled(image.image.imag)
    origin = (image.origin[0] / ratio, image.origin[1] / ratio)
    return ObjectImage(values.astype(np.complex64), origin, f"{image.source}; pixels x{ratio:g}")
