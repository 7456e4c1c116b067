"""How far a reconstruction is from a reference. Pure numpy; every number is a plain float with a documented name.

Phase. The error of a phase is the angle of estimate * conj(reference), in (-pi, pi]: a difference, never two wrapped
maps subtracted. Its mean square is the phase MSE. The variance it is set against is that of the reference's phase
about its mean, taken after the reference was turned so that its (weighted) complex mean is real and positive: the
plain variance wherever the phases span less than a turn, and independent of the reference's own constant everywhere.
Unexplained variance = MSE / variance. It contains what is left of a constant offset, which the explained variance
(EVA) ignores: unexplained = 1 - EVA + offset^2 / variance. A flat estimate scores about 1.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow.alignment import Aligned, Removed, align, inner_constant
from ptychow.errors import InputError

__all__ = [
    "Aligned",
    "FourierRingCorrelation",
    "Removed",
    "align",
    "flat_metrics",
    "frc",
    "half_bit",
    "image_metrics",
    "mse",
    "notebook_metric",
    "patch_metrics",
    "phase_metrics",
    "psnr",
    "resolution_text",
    "soft_window",
    "ssim",
    "stitch_notebook",
]

Weight = NDArray[Any] | None

SSIM_WINDOW = 7


def mse(estimate: NDArray[Any], reference: NDArray[Any], weight: Weight = None) -> float:
    """Weighted mean of the squared difference of two real arrays."""
    return float(np.average((np.asarray(estimate, np.float64) - reference) ** 2, weights=weight))


def psnr(mean_squared_error: float, data_range: float) -> float:
    """Peak signal-to-noise ratio 10 log10(range^2 / MSE), dB; infinite for an MSE of 0.

    The paper's convention is a range of 1 for the amplitude and of 255 for the phase; 2 pi is the phase's own range.
    """
    return float("inf") if mean_squared_error == 0 else float(10 * np.log10(data_range**2 / mean_squared_error))


def ssim(estimate: NDArray[Any], reference: NDArray[Any], data_range: float, weight: Weight = None) -> float:
    """Structural similarity (Wang et al. 2004, uniform 7 x 7 window, scikit-image) of two real (H, W) images.

    With a weight: the weighted mean over pixels whose whole window has weight. NaN where there is no such pixel.
    """
    from scipy.ndimage import minimum_filter
    from skimage.metrics import structural_similarity

    if min(reference.shape) < SSIM_WINDOW:
        return float("nan")
    reference = np.asarray(reference, np.float64)
    _, local = structural_similarity(estimate, reference, win_size=SSIM_WINDOW, data_range=data_range, full=True)
    weight = np.ones(reference.shape) if weight is None else np.asarray(weight, np.float64)
    whole = minimum_filter(weight > 0, SSIM_WINDOW, mode="constant", cval=False)
    return float(np.average(local, weights=weight * whole)) if whole.any() else float("nan")


def phase_metrics(estimate: NDArray[Any], reference: NDArray[Any], weight: Weight = None) -> dict[str, float]:
    """Phase error of a complex estimate, as the module describes; nothing is aligned here.

    phase_mse (rad^2), phase_offset (rad, mean error), phase_variance (rad^2, of the reference),
    phase_unexplained_variance (MSE / variance; NaN for a flat reference), phase_explained_variance (EVA = 1 -
    variance of the error / variance), phase_psnr_255 and phase_psnr_2pi (dB).
    """
    error, truth = _phase_error(estimate, reference), _phase(reference, weight)
    error_mse, offset = float(np.average(error**2, weights=weight)), float(np.average(error, weights=weight))
    variance = float(np.average((truth - np.average(truth, weights=weight)) ** 2, weights=weight))
    return {
        "phase_mse": error_mse,
        "phase_offset": offset,
        "phase_variance": variance,
        "phase_unexplained_variance": _ratio(error_mse, variance),
        "phase_explained_variance": 1 - _ratio(error_mse - offset**2, variance),
        "phase_psnr_255": psnr(error_mse, 255),
        "phase_psnr_2pi": psnr(error_mse, 2 * np.pi),
    }


def image_metrics(
    estimate: NDArray[Any],
    reference: NDArray[Any],
    *,
    weight: Weight = None,
    remove: Collection[str] = ("constant",),
) -> dict[str, float]:
    """Everything about one complex (H, W) image, after `align(..., weight=weight, remove=remove)`.

    `phase_metrics`, and amplitude_mse, amplitude_psnr (range 1), amplitude_ssim (range 1), phase_ssim_255 and
    phase_ssim_2pi (ranges 255 and 2 pi), complex_error (sum |e - r|^2 / sum |r|^2), frc_half (spatial frequency,
    cycles/pixel, at which the Fourier ring correlation falls to 0.5), and what was removed: removed_constant (rad),
    removed_scale, removed_ramp_y, removed_ramp_x (rad/pixel), removed_shift_y, removed_shift_x (pixels).
    """
    aligned = align(estimate, reference, weight=weight, remove=remove)
    lit = np.ones(reference.shape, bool) if weight is None else np.asarray(weight) > 0
    # Outside the region both are the same, so that nothing there can leak in through a window.
    image, reference = np.where(lit, aligned.image, 1), np.where(lit, reference, 1).astype(np.complex128)
    amplitude, true_amplitude = np.abs(image), np.abs(reference)
    true_phase = _phase(reference, weight)
    phase = true_phase + _phase_error(image, reference)
    amplitude_mse = mse(amplitude, true_amplitude, weight)
    removed = aligned.removed
    return {
        **phase_metrics(image, reference, weight),
        "phase_ssim_255": ssim(phase, true_phase, 255, weight),
        "phase_ssim_2pi": ssim(phase, true_phase, 2 * np.pi, weight),
        "amplitude_mse": amplitude_mse,
        "amplitude_psnr": psnr(amplitude_mse, 1),
        "amplitude_ssim": ssim(amplitude, true_amplitude, 1, weight),
        "complex_error": _ratio(
            float(np.average(np.abs(image - reference) ** 2, weights=weight)),
            float(np.average(true_amplitude**2, weights=weight)),
        ),
        "frc_half": frc(image, reference, weight).crossing(0.5),
        "removed_constant": removed.constant,
        "removed_scale": removed.scale,
        "removed_ramp_y": removed.ramp[0],
        "removed_ramp_x": removed.ramp[1],
        "removed_shift_y": removed.shift[0],
        "removed_shift_x": removed.shift[1],
    }


def flat_metrics(
    reference: NDArray[Any], *, weight: Weight = None, remove: Collection[str] = ("constant",)
) -> dict[str, float]:
    """The flat row: `image_metrics` of an estimate that is 1 everywhere, which is what knowing nothing scores."""
    return image_metrics(np.ones_like(reference), reference, weight=weight, remove=remove)


@dataclass(frozen=True)
class FourierRingCorrelation:
    """frequency: (rings,) cycles/pixel, ring centres, up to 0.5; correlation: (rings,); pixels: (rings,) in each
    ring.
    """

    frequency: NDArray[np.float64]
    correlation: NDArray[np.float64]
    pixels: NDArray[np.int64]

    def crossing(self, threshold: float | NDArray[np.float64]) -> float:
        """Lowest frequency, cycles/pixel, at which the correlation falls below the threshold (a number, or one a
        ring).

        Linear between rings; 0.5 (Nyquist) where it never does, and 0 where the first ring is below it.
        """
        height = self.correlation - threshold
        below = np.flatnonzero(height < 0)
        if not below.size:
            return 0.5
        ring = int(below[0])
        if ring == 0:
            return 0.0
        part = height[ring - 1] / (height[ring - 1] - height[ring])
        return float(self.frequency[ring - 1] + part * (self.frequency[ring] - self.frequency[ring - 1]))


def soft_window(weight: NDArray[Any]) -> NDArray[np.float64]:
    """A weight (H, W) that falls to 0 towards every edge of its region (the image's border included).

    Cosine-tapered (Harris, Proc. IEEE 66, 51 (1978)): the flanks are half as wide as the region is deep.
    """
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(weight > 0, 1))[1:-1, 1:-1]
    return weight * np.sin(np.pi / 2 * np.minimum(2 * depth / depth.max(), 1)) ** 2


def frc(estimate: NDArray[Any], reference: NDArray[Any], weight: Weight = None) -> FourierRingCorrelation:
    """Fourier ring correlation (Saxton and Baumeister 1982) of two aligned complex (H, W) images.

    Re sum F1 conj(F2) / sqrt(sum |F1|^2 sum |F2|^2) over rings one frequency step of the shorter side wide, without
    the zero frequency. Both images lose their weighted mean and are multiplied by `soft_window`: a sharp edge is the
    same in both, and would make them agree at every frequency.
    Correlated images (a reconstruction against the truth) are judged at 0.5; only two independent halves of the data
    at `half_bit`.
    """
    height, width = reference.shape
    window = soft_window(np.ones(reference.shape) if weight is None else np.asarray(weight, np.float64))
    first, second = (
        np.fft.fft2(window * (image - np.average(image, weights=window))) for image in (estimate, reference)
    )
    steps = min(height, width)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]) * steps
    ring = np.round(radius).astype(int).ravel()
    rings = slice(1, steps // 2 + 1)

    def total(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(ring, values.ravel(), minlength=steps // 2 + 1)[rings].astype(np.float64)

    power = np.sqrt(total(np.abs(first) ** 2) * total(np.abs(second) ** 2))
    agreement = total((first * np.conj(second)).real)
    correlation = np.divide(agreement, power, out=np.zeros_like(power), where=power > 0)
    return FourierRingCorrelation(
        np.arange(1, steps // 2 + 1) / steps, correlation, total(np.ones(ring.size)).astype(int)
    )


def resolution_text(crossing: float, pixel_size: float | None = None) -> str:
    """A `crossing` (cycles/pixel) in words, with the half-period where the pixel (metres) is known."""
    if crossing == 0:
        return "0 cycles/pixel (below from the first ring on: nothing agrees)"
    if crossing >= 0.5:
        return "> 0.5 cycles/pixel (never crossed)"
    half = "" if pixel_size is None else f" (half-period {pixel_size / crossing / 2 * 1e9:.3g} nm)"
    return f"{crossing:.3g} cycles/pixel{half}"


def half_bit(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Half-bit information threshold of rings of so many pixels (van Heel and Schatz, J. Struct. Biol. 151, 250
    (2005)).

    It holds between two independent halves of the data (odd and even frames), not between a reconstruction and a
    truth.
    """
    root = np.sqrt(np.asarray(pixels, np.float64))
    return (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)


def patch_metrics(
    estimate: Any, reference: Any, probe_intensity: NDArray[Any] | None = None, *, batch: int = 256
) -> dict[str, float]:
    """Errors of single patches, each freed of one constant phase (an inner product), pooled over all patches.

    estimate, reference: (N, h, w) complex, indexable. probe_intensity: (h, w), |probe|^2 summed over modes.
    amplitude_mse, phase_mse (rad^2), phase_variance (rad^2, of each reference patch about its own mean) and
    phase_unexplained_variance (pooled MSE / pooled variance), every pixel alike; the same with the prefix
    `weighted_`, constant and means weighted by the probe's intensity, where it is given. A flat patch scores about 1.
    """
    if not (len(estimate) and tuple(np.shape(estimate)) == tuple(np.shape(reference))):
        found, expected = f"{np.shape(estimate)} and {np.shape(reference)}", "equal (N, h, w), N > 0"
        raise InputError("cannot be compared", field="patches", found=found, expected=expected)
    shape = tuple(np.shape(reference)[1:])
    weights = {"": np.ones(shape)}
    if probe_intensity is not None:
        weights["weighted_"] = np.asarray(probe_intensity, np.float64)
    sums = {prefix: np.zeros(3) for prefix in weights}
    for start in range(0, len(estimate), batch):
        part = slice(start, start + batch)
        image, truth = np.asarray(estimate[part], np.complex128), np.asarray(reference[part], np.complex128)
        for prefix, weight in weights.items():
            error = _phase_error(image * inner_constant(image, truth, weight), truth)
            phase = _phase(truth, weight)
            phase -= np.average(phase, axis=(1, 2), weights=_like(weight, phase), keepdims=True)
            squares = (np.abs(image) - np.abs(truth)) ** 2, error**2, phase**2
            sums[prefix] += [(square * weight).sum() / weight.sum() for square in squares]
    result = {}
    for prefix, values in sums.items():
        amplitude_mse, phase_mse, variance = (float(value) / len(estimate) for value in values)
        result[f"{prefix}amplitude_mse"] = amplitude_mse
        result[f"{prefix}phase_mse"] = phase_mse
        result[f"{prefix}phase_variance"] = variance
        result[f"{prefix}phase_unexplained_variance"] = _ratio(phase_mse, variance)
    return result


def stitch_notebook(patches: NDArray[Any], *, step: int = 3, crop: int = 12) -> NDArray[np.float64]:
    """The public PtychoNN notebooks' stitching of real patches (lines, points, h, w): (step*lines, step*points).

    The central crop x crop pixels of each patch are averaged on a grid of `step` pixels; pixel [step*i, step*j] is
    where patch (i, j) has its centre [h//2, w//2].
    """
    lines, points, height, width = patches.shape
    if crop > min(height, width) or crop % 2:
        raise InputError("does not fit", field="crop", found=crop, expected=f"even, at most {min(height, width)}")
    half = crop // 2
    centre = patches[:, :, height // 2 - half : height // 2 + half, width // 2 - half : width // 2 + half]
    total = np.zeros((step * lines + crop, step * points + crop))
    count = np.zeros_like(total)
    for row in range(crop):
        for column in range(crop):
            here = slice(row, row + step * lines, step), slice(column, column + step * points, step)
            total[here] += centre[:, :, row, column]
            count[here] += 1
    inner = slice(half, half + step * lines), slice(half, half + step * points)
    if not count[inner].all():
        raise InputError("leaves gaps between points", field="crop", found=crop, expected=f"at least the step, {step}")
    return total[inner] / count[inner]


def grid_map(patches: NDArray[Any], *, step: int = 3, crop: int = 12) -> NDArray[np.complex128]:
    """The headline's map (lines, points), one pixel a scan point, of complex patches (lines, points, h, w): amplitudes
    and raw phases stitched as `stitch_notebook` has it, and read where each patch has its centre.
    """
    amplitude, phase = (stitch_notebook(part(patches), step=step, crop=crop) for part in (np.abs, np.angle))
    return (amplitude * np.exp(1j * phase))[::step, ::step]


def notebook_metric(
    estimate: NDArray[Any], reference: NDArray[Any], *, step: int = 3, crop: int = 12
) -> dict[str, float]:
    """The paper's stitched errors on a block of a raster scan, their floors, and our headline on the same map.

    estimate, reference: complex patches (lines, points, h, w) of the block, absolute phases (nothing is removed for
    the paper's numbers). The paper and the notebooks resize the stitched map (`stitch_notebook`, raw phases averaged)
    to one pixel a scan point and compare it with the reference's centre pixels: notebook_amplitude_mse,
    notebook_phase_mse. The resize samples between pixels and blurs, so that perfect patches do not score zero:
    notebook_amplitude_floor and notebook_phase_floor are the reference's own scores. Headline: `grid_map`, floor 0, one
    constant phase removed: grid_ + the names of `image_metrics`; and flat_phase_unexplained_variance, what a flat
    estimate scores.
    """
    from skimage.transform import resize

    if not (estimate.ndim == 4 and estimate.shape == reference.shape):
        found = f"{estimate.shape} and {reference.shape}"
        raise InputError("cannot be compared", field="patches", found=found, expected="equal (lines, points, h, w)")
    lines, points, height, width = reference.shape
    centre = reference[:, :, height // 2, width // 2]

    def stitched(patches: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return tuple(stitch_notebook(part(patches), step=step, crop=crop) for part in (np.abs, np.angle))  # type: ignore[return-value]

    def resized_mse(image: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
        return mse(resize(image, (lines, points), preserve_range=True, anti_aliasing=True), truth)

    amplitude, phase = stitched(estimate)
    own_amplitude, own_phase = stitched(reference)
    grid = grid_map(estimate, step=step, crop=crop)
    return {
        "notebook_amplitude_mse": resized_mse(amplitude, np.abs(centre)),
        "notebook_phase_mse": resized_mse(phase, np.angle(centre)),
        "notebook_amplitude_floor": resized_mse(own_amplitude, np.abs(centre)),
        "notebook_phase_floor": resized_mse(own_phase, np.angle(centre)),
        **{f"grid_{name}": value for name, value in image_metrics(grid, centre).items()},
        "flat_phase_unexplained_variance": flat_metrics(centre)["phase_unexplained_variance"],
    }


def _phase_error(estimate: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.float64]:
    """Angle of estimate * conj(reference), in (-pi, pi]."""
    return np.angle(estimate * np.conj(reference))


def _phase(image: NDArray[Any], weight: Weight = None) -> NDArray[np.float64]:
    """Phases of (..., H, W) images, each turned so that its weighted mean is real and positive."""
    return np.angle(image * inner_constant(image, np.ones_like(image), 1.0 if weight is None else weight))


def _like(weight: NDArray[Any], stack: NDArray[Any]) -> NDArray[Any]:
    return np.broadcast_to(weight, stack.shape)


def _ratio(value: float, scale: float) -> float:
    """value / scale; NaN where the scale is nothing but rounding."""
    return value / scale if scale > 1e-15 else float("nan")
