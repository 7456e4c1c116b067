"""Beams at the sample: (N, N) complex64 of unit power, or (modes, N, N), centre at [N//2, N//2].

`zone_plate_beam`, `gaussian_beam`; any other array serves as well. `incoherent_modes` makes a partially
coherent beam of one, `scale_to_counts` gives it a dose.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ptychow.errors import InputError
from ptychow.optics.propagation import defocus_transfer, from_far_field, radius_map, shift


def zone_plate_beam(
    size: int,
    *,
    wavelength: float,
    pixel_size: float,
    defocus: float,
    astigmatism: float = 0.0,
    outer: float = 0.47,
    inner: float = 0.25,
    edge: float = 0.01,
) -> NDArray[np.complex64]:
    """Beam of a zone plate with a central stop, `defocus` metres behind the focus.

    Its far field is an evenly lit annulus between the radii `inner` and `outer`, as fractions of the
    detector's `size` pixels, where it has half its intensity, rising over about `edge`; the wavefront carries
    the Fresnel phase of the defocus, which along the two diagonals is `defocus` -+ `astigmatism` (real lenses
    have some; without it the axis carries the bright spot of a perfectly circular stop). defocus,
    astigmatism, wavelength, pixel_size (of the object): metres.
    """
    if not 0 <= inner < outer <= 0.5:
        raise InputError(
            "no such annulus",
            field="inner, outer",
            found=(inner, outer),
            expected="0 <= inner < outer <= 0.5",
        )
    radius = radius_map((size, size)) / size
    # expit(4 x / edge) has the slope 1 / edge at its middle. Without a stop there is no inner edge.
    stop = expit(4 * (radius - inner) / edge) if inner > 0 else 1.0
    amplitude = np.sqrt(expit(4 * (outer - radius) / edge) * stop)
    wavefront = defocus_transfer((size, size), defocus, wavelength=wavelength, pixel_size=pixel_size)
    frequency = np.fft.fftshift(np.fft.fftfreq(size, pixel_size))
    saddle = 2 * np.multiply.outer(frequency, frequency)
    wavefront *= np.exp(-1j * np.pi * wavelength * astigmatism * saddle)
    return _unit_power(from_far_field(amplitude * wavefront))


def ring_defocus(
    size: int,
    rms_radius: float,
    *,
    wavelength: float,
    pixel_size: float,
    outer: float = 0.47,
    inner: float = 0.25,
) -> float:
    """Defocus, in metres, that makes a `zone_plate_beam` a ring of `rms_radius`, a fraction of `size`.

    Geometrical optics: the ray through detector radius rho * N meets the sample wavelength * defocus * rho /
    pixel_size from the axis.
    """
    rms_aperture = np.sqrt((outer**2 + inner**2) / 2)
    return float(rms_radius * size * pixel_size**2 / (wavelength * rms_aperture))


def gaussian_beam(size: int, *, fwhm: float, curvature: float = 0.0) -> NDArray[np.complex64]:
    """Gaussian beam, intensity `fwhm` pixels wide at half maximum, phase `curvature` * r^2 (r in pixels)."""
    squared = radius_map((size, size)) ** 2
    return _unit_power(np.exp((-2 * np.log(2) / fwhm**2 + 1j * curvature) * squared))


def incoherent_modes(
    beam: NDArray[np.complexfloating], powers: Sequence[float], *, distance: float = 1.0
) -> NDArray[np.complex64]:
    """Mutually incoherent, orthogonal modes (len(powers), N, N) of one beam (N, N), of these powers.

    Stated model: a source that moves (vibration, finite size) lights the sample with shifted copies of one
    coherent beam. The copies, the beam itself first, then `distance` pixels right, down, left, up, twice as
    far and so on, are orthogonalised in that order (Gram-Schmidt, by QR), so the first mode is the beam and
    the next resemble its derivatives. Far fields keep the beam's support. Powers are used as given, not
    normalised.
    """
    directions = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
    turns = np.arange(len(powers) - 1)
    offsets = np.vstack([np.zeros((1, 2)), directions[turns % 4] * (distance * (turns // 4 + 1))[:, None]])
    copies = shift(beam.astype(np.complex128), offsets).reshape(len(powers), -1)
    orthonormal, triangle = np.linalg.qr(copies.T)
    # QR leaves the phase of each vector open; the first mode shall be the beam itself.
    phases = np.exp(1j * np.angle(np.diag(triangle)))
    modes = (orthonormal * phases).T.reshape(len(powers), *beam.shape)
    return (modes * np.sqrt(np.asarray(powers))[:, None, None]).astype(np.complex64)


def scale_to_counts(probe: NDArray[np.complexfloating], counts: float) -> NDArray[np.complex64]:
    """`probe` (modes, N, N) with |probe|^2 summing over all modes and pixels to `counts`."""
    power = np.sum(np.abs(probe) ** 2, dtype=np.float64)
    return (probe * np.sqrt(counts / power)).astype(np.complex64)


def intensity(probe: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    """|probe|^2 summed over the modes: (modes, N, N) or (N, N) to (N, N)."""
    power = np.abs(probe).astype(np.float64) ** 2
    return power.reshape(-1, *probe.shape[-2:]).sum(axis=0)


def rms_radius(image: NDArray[np.floating]) -> float:
    """Root-mean-square distance from the centre of mass of a non-negative image, in pixels."""
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    total = image.sum()
    centre = (image * rows).sum() / total, (image * columns).sum() / total
    squared = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2
    return float(np.sqrt((image * squared).sum() / total))


def _unit_power(beam: NDArray[np.complexfloating]) -> NDArray[np.complex64]:
    return (beam / np.linalg.norm(beam)).astype(np.complex64)
