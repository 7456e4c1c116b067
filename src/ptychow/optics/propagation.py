"""Wave propagation and Fourier resampling on (..., H, W) arrays whose origin is pixel [H//2, W//2].

Source of the formulas: J. W. Goodman, Introduction to Fourier Optics, chapters 3-5. The transform is
orthonormal with exp(-2 pi i q x); forward propagation is exp(+i k z). complex64 stays complex64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import constants

AXES = (-2, -1)
# Patches lit at a time: few enough to stay in a processor's cache.
CACHED_PATCHES = 16
Wave = NDArray[np.complexfloating[Any, Any]]


def photon_wavelength(energy: float) -> float:
    """Wavelength in metres of photons of `energy` electronvolts."""
    return constants.h * constants.c / (constants.e * energy)


def far_field(exit_wave: Wave) -> Wave:
    """Far field of an exit wave, (..., H, W): zero frequency at [H//2, W//2], total power kept."""
    centred = scipy.fft.ifftshift(exit_wave, axes=AXES)
    return scipy.fft.fftshift(scipy.fft.fft2(centred, norm="ortho"), axes=AXES)


def expected_counts(probes: NDArray[np.complexfloating], patches: NDArray[np.complexfloating]) -> NDArray[np.floating]:
    """Mean counts (b, n, n) of complex patches (b, n, n): |F[probe x patch]|^2, summed over the probe's modes, which
    are mutually incoherent. Zero frequency at [n//2, n//2].

    probes: (b, modes, n, n), or (1, modes, n, n) for all.
    """
    counts = np.empty(patches.shape, patches.real.dtype)
    for first in range(0, len(patches), CACHED_PATCHES):
        part = slice(first, first + CACHED_PATCHES)
        counts[part] = _expected_counts(probes if len(probes) == 1 else probes[part], patches[part])
    return counts


def _expected_counts(probes: NDArray[Any], patches: NDArray[Any]) -> NDArray[Any]:
    """With torch, whose transform of many small images is quicker than scipy's."""
    light = torch.from_numpy(patches)
    # Squares are added in place, real and imaginary parts beside each other.
    squares = torch.zeros(*light.shape, 2, dtype=light.real.dtype)
    for mode in np.moveaxis(probes, 1, 0):
        wave = torch.view_as_real(torch.fft.fft2(light * torch.from_numpy(mode), norm="ortho"))
        squares.addcmul_(wave, wave)
    return torch.fft.fftshift(squares[..., 0] + squares[..., 1], dim=AXES).numpy()


def from_far_field(field: Wave) -> Wave:
    """The wave whose `far_field` is `field`."""
    centred = scipy.fft.ifftshift(field, axes=AXES)
    return scipy.fft.fftshift(scipy.fft.ifft2(centred, norm="ortho"), axes=AXES)


def radius_map(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Distance of every pixel from [H//2, W//2], in pixels, (H, W)."""
    rows, columns = np.indices(shape, sparse=True)
    return np.hypot(rows - shape[0] // 2, columns - shape[1] // 2)


def defocus_transfer(
    shape: tuple[int, int], distance: float, *, wavelength: float, pixel_size: float
) -> NDArray[np.complex128]:
    """Transfer function of free space over `distance`, on the centred frequency grid of `shape`.

    distance, wavelength, pixel_size: metres. Paraxial (Fresnel): exp(-i pi wavelength distance q^2), Goodman
    eq. 4-21, without the common phase of the axial ray.
    """
    rows, columns = (scipy.fft.fftshift(scipy.fft.fftfreq(size, pixel_size)) for size in shape)
    squared = rows[:, None] ** 2 + columns[None, :] ** 2
    return np.exp(-1j * np.pi * wavelength * distance * squared)


def propagate(wave: Wave, distance: float, *, wavelength: float, pixel_size: float) -> Wave:
    """The wave `distance` metres downstream (negative: upstream) on the same grid; see `defocus_transfer`."""
    transfer = defocus_transfer(wave.shape[-2:], distance, wavelength=wavelength, pixel_size=pixel_size)
    return from_far_field(far_field(wave) * transfer.astype(wave.dtype))


def fourier_resample(image: Wave, shape: tuple[int, int]) -> Wave:
    """`image` (..., h, w) at `shape` samples of the same field of view: its spectrum cropped or padded.

    Values are kept (a constant stays that constant), and pixel [0, 0] stays where it was: pixel i of a halved
    grid is pixel 2 i of the full one. An image that does not continue periodically rings at its border.
    """
    spectrum = scipy.fft.fft2(image)
    for axis, size in zip(AXES, shape, strict=True):
        old = spectrum.shape[axis]
        kept = min(old, size)
        frequencies = np.arange(kept) - kept // 2
        old_lines = np.moveaxis(spectrum, axis, 0)
        new_lines = np.zeros((size, *old_lines.shape[1:]), spectrum.dtype)
        new_lines[frequencies % size] = old_lines[frequencies % old] * (size / old)
        spectrum = np.moveaxis(new_lines, 0, axis)
    return scipy.fft.ifft2(spectrum)


def shift(image: Wave, offset: ArrayLike) -> Wave:
    """`image` (..., H, W) moved by `offset` (..., 2) pixels (down, right); exact for band-limited images.

    Several offsets (n, 2) move one image (H, W) to (n, H, W). What leaves on one side enters on the other.
    """
    height, width = image.shape[-2:]
    offsets = np.asarray(offset, np.float64)[..., None, None]
    ramp = offsets[..., 0, :, :] * scipy.fft.fftfreq(height)[:, None]
    ramp = ramp + offsets[..., 1, :, :] * scipy.fft.fftfreq(width)[None, :]
    return scipy.fft.ifft2(scipy.fft.fft2(image) * np.exp(-2j * np.pi * ramp).astype(image.dtype))
