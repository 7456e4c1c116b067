"""Samples to simulate: complex64 transmission images, amplitude * exp(+i phase).

Each is `(shape, rng, *, phase_step, amplitude_contrast, feature) -> image`, drawn in pixels of the image
itself (half object pixels in `simulate`):

phase_step: phase, in radians, of the thickest part; the thinnest has phase 0. Negative for X-rays, which
    matter advances.
amplitude_contrast: the thickest part has amplitude 1 - amplitude_contrast, the thinnest 1.
feature: typical size of what is drawn, in pixels: width of a line, of a spoke, radius of a large cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, zoom
from scipy.special import expit
from skimage import data
from skimage.draw import line

Image = NDArray[np.complex64]
Sample = Callable[..., Image]

# Grey images of 500 pixels and more in every scikit-image wheel: nothing is downloaded.
PHOTOGRAPHS = ("camera", "moon", "brick", "grass", "gravel")


def labyrinth(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    phase_step: float = -1.57,
    amplitude_contrast: float = 0.1,
    feature: float = 28.0,
    edge: float = 1.5,
    edge_loss: float = 0.2,
) -> Image:
    """A labyrinth of trenches etched into a metal film, as in the tungsten test samples of X-ray nanoprobes.

    The sites are those of a square lattice of pitch 1.3 * feature, each a little displaced; three of four are
    etched and half of the neighbours are joined: strokes with round ends, about `feature` wide, over half of
    the area. Their walls are softened by a Gaussian of `edge` pixels and lose up to `edge_loss` of the
    amplitude, which they scatter further than the image resolves. As in a reconstruction the mean amplitude
    is 1, so the trenches lie above it. The default phase step gives, with these walls, a phase variance of
    0.54 rad^2 on the object-pixel grid, as 1.47 rad would with perfectly sharp ones.
    """
    distance = distance_transform_edt(~random_strokes(shape, rng, pitch=1.3 * feature))
    metal = gaussian_filter((distance > np.median(distance)).astype(np.float32), edge)
    image = transmission(metal, phase_step, amplitude_contrast) * (1 - 4 * edge_loss * metal * (1 - metal))
    return (image / np.abs(image).mean()).astype(np.complex64)


def random_strokes(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    pitch: float,
    etched: float = 0.75,
    joined: float = 0.5,
    displaced: float = 0.12,
) -> NDArray[np.bool_]:
    """Lines one pixel wide between neighbouring sites of a square lattice, (rows, columns).

    etched: fraction of the sites that are drawn; joined: probability of a line between two of them;
    displaced: standard deviation of a site's displacement, in pitches.
    """
    border = int(2 * pitch)
    rows, columns = (int((size + 2 * border) / pitch) for size in shape)
    lattice = np.moveaxis(np.indices((rows, columns)), 0, -1) + rng.uniform(size=2)
    sites = np.rint(pitch * (lattice + rng.normal(scale=displaced, size=lattice.shape))).astype(int)
    present = rng.random((rows, columns)) < etched
    joins = rng.random((2, rows, columns)) < joined
    lines = np.zeros((shape[0] + 4 * border, shape[1] + 4 * border), bool)
    for row, column in np.argwhere(present):
        here = sites[row, column] + border
        lines[tuple(here)] = True
        for direction, (down, right) in enumerate(((1, 0), (0, 1))):
            there = row + down, column + right
            if there[0] < rows and there[1] < columns and present[there] and joins[direction, row, column]:
                lines[line(*here, *(sites[there] + border))] = True
    return lines[2 * border : 2 * border + shape[0], 2 * border : 2 * border + shape[1]]


def siemens_star(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    phase_step: float = -1.0,
    amplitude_contrast: float = 0.1,
    feature: float = 40.0,
    edge: float = 2.0,
) -> Image:
    """A Siemens star that fills the image: spokes `feature` wide at the rim, 3 pixels near the centre."""
    rows, columns = np.indices(shape, sparse=True)
    down, right = rows - shape[0] / 2, columns - shape[1] / 2
    radius = np.hypot(down, right)
    rim = 0.48 * min(shape)
    spokes = max(round(np.pi * rim / feature), 3)
    # Distance to the nearest wall of a spoke, along the arc.
    wave = np.arcsin(np.cos(spokes * np.arctan2(down, right) + rng.uniform(0, 2 * np.pi)))
    inside = wave * radius / spokes
    inside = np.minimum(inside, np.minimum(rim - radius, radius - 3 * spokes / np.pi))
    return transmission(expit(2 * inside / edge), phase_step, amplitude_contrast)


def cells(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    phase_step: float = -0.5,
    amplitude_contrast: float = 0.02,
    feature: float = 60.0,
) -> Image:
    """Weakly scattering cells: ellipsoids of up to `feature` pixels radius, each with a nucleus."""
    thickness = np.zeros(shape)
    for window, squared in _discs(shape, rng, smallest=feature / 2, largest=feature, cover=1.0):
        dome = np.sqrt(np.maximum(1 - squared, 0))
        nucleus = np.sqrt(np.maximum(1 - 8 * squared, 0))
        thickness[window] += rng.uniform(0.3, 0.7) * (dome + 0.4 * nucleus)
    return transmission(thickness / max(thickness.max(), 1), phase_step, amplitude_contrast)


def dead_leaves(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    phase_step: float = -1.0,
    amplitude_contrast: float = 0.1,
    feature: float = 60.0,
    edge: float = 1.0,
) -> Image:
    """Dead leaves: discs of random thickness that hide each other, of all sizes as in natural images.

    Radii up to `feature` with a density of r^-3 (A. B. Lee, D. Mumford, J. Huang, Int. J. Comput. Vis. 41,
    35, 2001).
    """
    thickness = np.full(shape, 0.5)
    for window, squared in _discs(shape, rng, smallest=feature / 10, largest=feature, cover=4.0):
        thickness[window] = np.where(squared < 1, rng.random(), thickness[window])
    return transmission(gaussian_filter(thickness, edge), phase_step, amplitude_contrast)


def _discs(
    shape: tuple[int, int], rng: np.random.Generator, *, smallest: float, largest: float, cover: float
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.float64]]]:
    """Random discs of radii with a density of r^-3 that together have `cover` times the area of the image.

    Yields the window around each and there the squared distance from its centre in radii.
    """
    left_to_cover = cover * shape[0] * shape[1]
    while left_to_cover > 0:
        radius = (smallest**-2 - rng.random() * (smallest**-2 - largest**-2)) ** -0.5
        left_to_cover -= np.pi * radius**2
        centre = rng.uniform(-radius, np.add(shape, radius))
        first = np.maximum(np.floor(centre - radius), 0).astype(int)
        last = np.minimum(np.ceil(centre + radius) + 1, shape).astype(int)
        rows, columns = np.ogrid[first[0] : last[0], first[1] : last[1]]
        squared = ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / radius**2
        yield (slice(first[0], last[0]), slice(first[1], last[1])), squared


def natural_image(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    phase_step: float = -1.0,
    amplitude_contrast: float = 0.3,
    feature: float = 3.0,
) -> Image:
    """Two different photographs that come with scikit-image, one as phase, one as amplitude.

    feature: pixels of the image for one pixel of the photograph. Where a photograph ends its mirror image
        goes on.
    """
    first, second = (_photograph(name, shape, rng, feature) for name in rng.choice(PHOTOGRAPHS, 2, replace=False))
    return (transmission(first, phase_step, 0.0) * (1 - amplitude_contrast * second)).astype(np.complex64)


def _photograph(
    name: str, shape: tuple[int, int], rng: np.random.Generator, magnification: float
) -> NDArray[np.float64]:
    """A random part of a photograph, magnified, values 0 to 1."""
    grey = getattr(data, name)().astype(np.float64) / 255
    needed = [int(np.ceil(size / magnification)) + 1 for size in shape]
    starts = rng.integers(0, grey.shape)
    rows, columns = (
        _mirrored(start + np.arange(count), size) for start, count, size in zip(starts, needed, grey.shape, strict=True)
    )
    return np.clip(zoom(grey[np.ix_(rows, columns)], magnification, order=1), 0, 1)[: shape[0], : shape[1]]


def _mirrored(index: NDArray[np.integer], size: int) -> NDArray[np.integer]:
    """Indices into an image of `size` pixels that is followed by its mirror image, and so on."""
    index = index % (2 * size)
    return np.minimum(index, 2 * size - 1 - index)


def random_field(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    phase_step: float = -1.0,
    amplitude_contrast: float = 0.1,
    feature: float = 28.0,
    edge: float = 1.5,
) -> Image:
    """Two-level thresholded random field: winding stripes about `feature` wide with soft edges."""
    thick = band_passed_noise(shape, rng, 2 * feature, 0.3) > 0
    return transmission(gaussian_filter(thick.astype(np.float64), edge, mode="wrap"), phase_step, amplitude_contrast)


def band_passed_noise(
    shape: tuple[int, int], rng: np.random.Generator, period: float, width: float
) -> NDArray[np.float64]:
    """Gaussian noise, periodic over `shape`, of `period` pixels with a relative bandwidth of `width`."""
    rows, columns = (scipy.fft.fftfreq(size) for size in shape)
    frequency = np.hypot(rows[:, None], columns[None, :]) * period
    band = np.exp(-(((frequency - 1) / width) ** 2) / 2)
    return scipy.fft.ifft2(scipy.fft.fft2(rng.standard_normal(shape)) * band).real


def transmission(thickness: NDArray[np.floating], phase_step: float, amplitude_contrast: float) -> Image:
    """Transmission of a material of relative `thickness` (0 to 1), complex64: projection approximation."""
    exponent = thickness * (np.log1p(-amplitude_contrast) + 1j * phase_step)
    return np.exp(exponent).astype(np.complex64)


SAMPLES: dict[str, Sample] = {
    "labyrinth": labyrinth,
    "siemens-star": siemens_star,
    "cells": cells,
    "dead-leaves": dead_leaves,
    "natural-image": natural_image,
    "random-field": random_field,
}
