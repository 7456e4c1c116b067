"""Endless random samples to train on: etched labyrinths and winding stripes of any scale, contrast and sign.

A sample is kept as the signed distance to its walls, drawn once in a library. A patch is that distance read through a
random turn, scale and shift, so that its walls are sharp at every scale, and then made into a transmission.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from scipy.special import expit

from ptychow.optics.samples import band_passed_noise, random_strokes

PATCHES_ACROSS = 4  # of a map
LEAST_MAP = 256  # pixels
MAP_FEATURE = 16.0  # pixels of a map: width of a line
MAPS = 24  # of each kind
FEATURE = 4.0, 40.0  # object pixels
STRETCH = 2.0
PHASE_STEP = 0.3, 1.6  # radians, of either sign
AMPLITUDE_CONTRAST = 0.25
EDGE = 0.7, 2.5  # object pixels
EDGE_LOSS = 0.3
TEXTURE = 0.05
TEXTURE_SIZES = 1.0, 2.0, 4.0  # object pixels


class RandomSamples:
    """A library of samples, drawn once from `seed`, and any number of patches of size x size pixels from it."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = size
        self._extent = extent = max(PATCHES_ACROSS * size, LEAST_MAP)
        generator = np.random.default_rng(seed)
        kinds = (_labyrinth_distance, _stripes_distance)
        self._maps = [kind((extent, extent), generator) for _ in range(MAPS) for kind in kinds]
        self._textures = [_texture((extent, extent), width, generator) for width in TEXTURE_SIZES for _ in range(2)]

    def draw(self, count: int, generator: np.random.Generator) -> NDArray[np.complex64]:
        """(count, size, size) transmissions of mean intensity 1."""
        patches = np.stack([self._draw_one(generator) for _ in range(count)])
        power = (np.abs(patches) ** 2).mean(axis=(1, 2), keepdims=True)
        return (patches / np.sqrt(power)).astype(np.complex64)

    def _draw_one(self, generator: np.random.Generator) -> NDArray[np.complex128]:
        distances = self._maps[generator.integers(len(self._maps))]
        feature = _log_uniform(*FEATURE, generator)
        zoom = MAP_FEATURE / feature
        stretch = _log_uniform(1 / STRETCH, STRETCH, generator)
        turn = _rotation(generator) @ np.diag([np.sqrt(stretch), 1 / np.sqrt(stretch)]) @ _rotation(generator)
        grid = np.indices((self.size, self.size), dtype=np.float32).reshape(2, -1) - self.size / 2
        points = (zoom * turn).astype(np.float32) @ grid + generator.uniform(0, self._extent, (2, 1)).astype(np.float32)
        distance = map_coordinates(distances, points, order=1, mode="mirror").reshape(self.size, self.size) / zoom
        # Lines and gaps need not be equally wide.
        distance += generator.uniform(-0.2, 0.2) * feature
        thickness = expit(4 / generator.uniform(*EDGE) * distance)
        phase = generator.uniform(*PHASE_STEP) * generator.choice((-1, 1)) * thickness
        amplitude = 1 - generator.uniform(0, AMPLITUDE_CONTRAST) * thickness
        amplitude *= 1 - 4 * generator.uniform(0, EDGE_LOSS) * thickness * (1 - thickness)
        return amplitude * np.exp(1j * phase + generator.uniform(0, TEXTURE) * self._texture(generator))

    def _texture(self, generator: np.random.Generator) -> NDArray[np.complex128]:
        """Complex noise (size, size) of unit variance, of one grain in both parts."""
        pair = 2 * generator.integers(len(TEXTURE_SIZES))
        row, column = generator.integers(self._extent - self.size + 1, size=2)
        window = slice(row, row + self.size), slice(column, column + self.size)
        return self._textures[pair][window] + 1j * self._textures[pair + 1][window]


def _labyrinth_distance(shape: tuple[int, int], generator: np.random.Generator) -> NDArray[np.float32]:
    """Distance to the walls of a labyrinth that covers half of the map, in pixels of the map."""
    strokes = random_strokes(shape, generator, pitch=1.3 * MAP_FEATURE)
    distance = distance_transform_edt(~strokes)
    return (distance - np.median(distance)).astype(np.float32)


def _stripes_distance(shape: tuple[int, int], generator: np.random.Generator) -> NDArray[np.float32]:
    """About the distance to the zeros of a random field of random bandwidth, in pixels of the map."""
    bandwidth = _log_uniform(0.1, 1.0, generator)
    field = band_passed_noise(shape, generator, 2 * MAP_FEATURE, bandwidth)
    slope = np.hypot(*np.gradient(field))
    return (field / np.sqrt((slope**2).mean())).astype(np.float32)


def _texture(shape: tuple[int, int], width: float, generator: np.random.Generator) -> NDArray[np.float32]:
    noise = gaussian_filter(generator.standard_normal(shape), width, mode="wrap")
    return (noise / noise.std()).astype(np.float32)


def _log_uniform(low: float, high: float, generator: np.random.Generator) -> float:
    return float(np.exp(generator.uniform(np.log(low), np.log(high))))


def _rotation(generator: np.random.Generator) -> NDArray[np.float64]:
    """A rotation of the plane by a random angle; with the chance of a half, a mirror too."""
    angle = generator.uniform(0, 2 * np.pi)
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([1, generator.choice((-1, 1))])
