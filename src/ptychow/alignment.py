"""Remove from a reconstruction what ptychography cannot know, before it is compared with a reference.

The patterns do not fix the object's constant phase; object and probe can exchange a scale factor and a phase ramp,
and move together by a shift. Nothing here takes the mean of wrapped phases or unwraps: everything works on the
complex images.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ptychow.errors import InputError

AMBIGUITIES = ("constant", "scale", "ramp", "shift")
MAX_STEPS = 30
# Pixels: what a shift is found on is smoothed by SMOOTHING, and keeps off unknown pixels by REACH.
SMOOTHING, REACH = 1.0, 4


@dataclass(frozen=True)
class Removed:
    """What `align` took out of the estimate.

    constant: phase at the image's centre [H//2, W//2], rad. scale: factor of the amplitudes (1: none).
    ramp: (y, x) phase slope, rad/pixel. shift: (y, x) of the estimate against the reference, pixels.
    """

    constant: float = 0.0
    scale: float = 1.0
    ramp: tuple[float, float] = (0.0, 0.0)
    shift: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Aligned:
    """image: (H, W) complex128, the estimate without what was `removed`."""

    image: NDArray[np.complex128]
    removed: Removed


def align(
    estimate: NDArray[Any],
    reference: NDArray[Any],
    *,
    weight: NDArray[Any] | None = None,
    remove: Collection[str] = ("constant",),
) -> Aligned:
    """The estimate brought to the reference in the sense of weighted least squares of the complex difference.

    estimate, reference: (H, W) complex. weight: (H, W), not negative (probe intensity, coverage or a mask); 1 by
    default.
    remove: of "constant" (always removed), "scale", "ramp", "shift". The constant, or constant and scale, is the
    phase, or the whole, of an inner product. Ramp and shift start from the peaks of the product's Fourier transform
    and of the cross-correlation; all chosen parameters are then refined together, on slightly smoothed images, by
    Gauss-Newton steps, with cubic splines between pixels. A shift wider than the object's features next to a ramp of
    many turns is not found.

    After a shift, the rim that came from outside the estimate repeats its edge, and values that are not finite, which
    is allowed where there is no weight, have become 1.
    Raises InputError for shapes that differ, unknown names, values that are not finite, and a weight that is zero.
    """
    estimate, reference, weight = _checked(estimate, reference, weight)
    unknown = set(remove) - set(AMBIGUITIES)
    if unknown:
        raise InputError("unknown", field="remove", found=", ".join(sorted(unknown)), expected=", ".join(AMBIGUITIES))
    steep = _coarse_ramp(estimate, reference, weight) if "ramp" in remove else np.zeros(2)
    level = estimate * _tilt(estimate.shape, -steep)  # without steep phases, which splines do not follow
    ramp, shift, smoothing = np.zeros(2), np.zeros(2), 0.0
    if "shift" in remove:
        shift, smoothing = _coarse_shift(level, reference, weight), SMOOTHING
        weight = _reached(weight, shift)
    free_scale = "scale" in remove
    if "ramp" in remove or "shift" in remove:
        # Noise from pixel to pixel says nothing about a shift, but makes its landscape rough.
        smooth = [ndimage.gaussian_filter(part, smoothing) for part in (level, reference)]
        fit = _Fit(smooth[0], smooth[1], weight, free_scale)
        ramp, shift = fit.refine(ramp, shift, "ramp" in remove, "shift" in remove)
    image, factor = _Fit(level, reference, weight, free_scale).model(ramp, shift)
    slope = steep + ramp
    removed = Removed(
        constant=float(-np.angle(factor * np.exp(-1j * steep @ shift))),
        scale=float(1 / abs(factor)),
        ramp=(float(slope[0]), float(slope[1])),
        shift=(float(shift[0]), float(shift[1])),
    )
    return Aligned(image, removed)


def inner_constant(estimate: NDArray[Any], reference: NDArray[Any], weight: NDArray[Any] | float = 1.0) -> NDArray[Any]:
    """Unit factor that brings each (..., H, W) estimate to its reference's phase: exp(i arg sum weight conj(e) r).

    Shape (..., 1, 1). Where the inner product vanishes the factor is 1.
    """
    product = (weight * np.conj(estimate) * reference).sum(axis=(-2, -1), keepdims=True)
    return np.exp(1j * np.angle(product))


@dataclass
class _Fit:
    """Least squares of |factor * exp(-i ramp.r) * estimate(r + shift) - reference|^2."""

    estimate: NDArray[np.complex128]
    reference: NDArray[np.complex128]
    weight: NDArray[np.float64]
    free_scale: bool

    @cached_property
    def coefficients(self) -> NDArray[np.complex128]:
        """Of the cubic spline through the estimate."""
        return ndimage.spline_filter(self.estimate, output=np.complex128, mode="nearest")

    def model(self, ramp: NDArray[Any], shift: NDArray[Any]) -> tuple[NDArray[np.complex128], complex]:
        """The estimate at this ramp and shift with the best factor, and the factor."""
        image = self.estimate
        if shift.any():
            image = ndimage.shift(self.coefficients, -shift, mode="nearest", prefilter=False)
        image = image * _tilt(image.shape, -ramp)
        if self.free_scale:
            power = (self.weight * np.abs(image) ** 2).sum()
            factor = complex((self.weight * np.conj(image) * self.reference).sum() / max(power, 1e-300)) or 1 + 0j
        else:
            factor = complex(inner_constant(image, self.reference, self.weight).item())
        return image * factor, factor

    def refine(
        self, ramp: NDArray[Any], shift: NDArray[Any], free_ramp: bool, free_shift: bool
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Gauss-Newton on ramp and shift (and factor), halving steps that do not help."""
        y, x = _centred(self.estimate.shape)
        cost = self._cost(ramp, shift)
        for _ in range(MAX_STEPS):
            image, _ = self.model(ramp, shift)
            # The factor's own directions are fitted along, so that ramp and shift do not stand in for it.
            columns = [1j * image] + ([image] if self.free_scale else [])
            columns += [-1j * y * image, -1j * x * image] if free_ramp else []
            columns += list(np.gradient(image)) if free_shift else []
            step = self._solve(columns, self.reference - image, self.weight)[2 if self.free_scale else 1 :]
            ramp_step = step[:2] if free_ramp else np.zeros(2)
            shift_step = step[-2:] if free_shift else np.zeros(2)
            for _ in range(8):
                trial = self._cost(ramp + ramp_step, shift + shift_step)
                if trial < cost:
                    break
                ramp_step, shift_step = ramp_step / 2, shift_step / 2
            else:
                break
            ramp, shift, cost = ramp + ramp_step, shift + shift_step, trial
            if np.abs(shift_step).max() < 1e-4 and np.abs(ramp_step).max() * max(image.shape) < 1e-4:
                break
        return ramp, shift

    def _cost(self, ramp: NDArray[Any], shift: NDArray[Any]) -> float:
        image, _ = self.model(ramp, shift)
        return float((self.weight * np.abs(image - self.reference) ** 2).sum())

    @staticmethod
    def _solve(columns: list[NDArray[Any]], residual: NDArray[Any], weight: NDArray[Any]) -> NDArray[np.float64]:
        """Real coefficients of complex columns that fit the complex residual."""
        normal = np.array([[(weight * (np.conj(a) * b).real).sum() for b in columns] for a in columns])
        right = np.array([(weight * (np.conj(a) * residual).real).sum() for a in columns])
        scale = np.sqrt(np.maximum(np.diag(normal), 1e-300))
        return np.linalg.lstsq(normal / np.outer(scale, scale), right / scale, rcond=1e-10)[0] / scale


def _coarse_ramp(estimate: NDArray[Any], reference: NDArray[Any], weight: NDArray[Any]) -> NDArray[np.float64]:
    """Slope (y, x), rad/pixel, of the strongest plane wave in estimate * conj(reference), to half a bin."""
    shape = [2 * n for n in estimate.shape]
    spectrum = np.abs(np.fft.fft2(weight * estimate * np.conj(reference), shape))
    return 2 * np.pi * _signed_peak(spectrum) / shape


def _coarse_shift(estimate: NDArray[Any], reference: NDArray[Any], weight: NDArray[Any]) -> NDArray[np.float64]:
    """Shift (y, x) of the estimate against the reference to a pixel: cross-correlation without weighted means."""
    shape = [2 * n for n in estimate.shape]
    parts = [weight * (part - (weight * part).sum() / weight.sum()) for part in (estimate, reference)]
    spectra = [np.fft.fft2(part, shape) for part in parts]
    return _signed_peak(np.abs(np.fft.ifft2(spectra[0] * np.conj(spectra[1]))))


def _reached(weight: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weight, only where the estimate has weight too, `shift` away and `REACH` pixels around."""
    inner = ndimage.binary_erosion(weight > 0, iterations=REACH)
    reached = weight * ndimage.shift(inner.astype(np.float64), -shift, order=0, cval=0)
    return reached if reached.any() else weight


def _signed_peak(spectrum: NDArray[Any]) -> NDArray[np.float64]:
    """Index (y, x) of the largest value of a periodic array, counted from -n/2 to n/2."""
    peak = np.array(np.unravel_index(int(spectrum.argmax()), spectrum.shape), float)
    size = np.array(spectrum.shape)
    return np.where(peak >= size / 2, peak - size, peak)


def _centred(shape: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(H, 1) rows and (1, W) columns counted from [H//2, W//2]."""
    rows, columns = (np.arange(n, dtype=np.float64) - n // 2 for n in shape)
    return rows[:, None], columns[None]


def _tilt(shape: tuple[int, ...], ramp: NDArray[Any]) -> NDArray[np.complex128]:
    """exp(i ramp.r), 1 at the centre."""
    y, x = _centred(shape)
    return np.exp(1j * (ramp[0] * y + ramp[1] * x))


def _checked(
    estimate: NDArray[Any], reference: NDArray[Any], weight: NDArray[Any] | None
) -> tuple[NDArray[np.complex128], NDArray[np.complex128], NDArray[np.float64]]:
    """Finite arrays of equal shape in double precision. Raises InputError where they cannot be compared."""
    weight = np.ones(reference.shape) if weight is None else np.asarray(weight, np.float64)
    if not (estimate.ndim == 2 and estimate.shape == reference.shape == weight.shape):
        found = f"estimate {estimate.shape}, reference {reference.shape}, weight {weight.shape}"
        raise InputError("cannot be compared", field="images", found=found, expected="equal (H, W)")
    if not (np.isfinite(weight).all() and (weight >= 0).all() and weight.any()):
        raise InputError("not a weight", field="weight", expected="finite, nowhere negative, somewhere positive")
    lit = weight > 0
    images = []
    for name, image in (("estimate", estimate), ("reference", reference)):
        if not np.isfinite(image[lit]).all():
            raise InputError(
                "not finite where it counts",
                field=name,
                expected="finite values where the weight is positive",
            )
        images.append(np.where(np.isfinite(image), image, 1).astype(np.complex128))
    return images[0], images[1], weight
