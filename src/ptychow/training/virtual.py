"""Virtual scan points: more training pairs from a label, by the forward model.

Between the measured points the object is known as well as at them, and so is the probe: what the detector would have
counted there follows. So does what it would have counted had the sample lain in any of the eight orientations.
Virtual points stay inside the box of the training points: their patches show no object pixel beyond the box of the
training patches.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptychow.errors import InputError
from ptychow.optics.propagation import expected_counts
from ptychow.orientation import Orientation
from ptychow.patches import PatchExtractor, resample_object
from ptychow.scan import ObjectImage
from ptychow.training.data import LabelledFrames
from ptychow.training.split import Indices

# Virtual points lie within this part of a patch from a measured one, where the label is as good.
REACH = 0.1


class DrawnPairs(Protocol):
    """A source of training pairs that never ends."""

    def draw(self, count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Inputs (count, 1, n, n) float32 and labels (count, n, n) complex64; all chance is the generator's."""
        ...


class VirtualPoints:
    """Draws virtual pairs for the training frames of one scan.

    A frame is the Poisson counts of |F[probe x patch]|^2 summed over the modes (orthonormal transform) on the prepared
    detector, at the scan's own count rate. Raises InputError where the scan has no probe or no object.
    """

    def __init__(self, labelled: LabelledFrames, indices: Indices) -> None:
        scan, preparation = labelled.scan, labelled.preparation
        if scan.probe is None or scan.object is None:
            raise InputError(
                "virtual points need a probe and an object", file=scan.name, remedy="Make them with: ptychow label"
            )
        self._labelled = labelled
        self._probe = preparation.probe(scan.probe)
        ratio = preparation.pixel_ratio(scan.frame_shape)
        self._size = size = len(labelled.weight)
        points = scan.positions_px[indices] / ratio
        # The part of the object that the training patches show; points are kept as indices into it.
        first = points.min(axis=0) - size // 2
        shape = np.floor(np.ptp(points, axis=0) + 1e-9).astype(int) + size
        seen = PatchExtractor(resample_object(scan.object, ratio), size).region(
            (float(first[0]), float(first[1])), (int(shape[0]), int(shape[1]))
        )
        self._points = points - first
        self._views = [
            (orientation, PatchExtractor(ObjectImage(orientation.apply(seen), (0.0, 0.0), "virtual"), size))
            for orientation in Orientation
        ]

    def draw(self, count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Inputs (count, 1, n, n) float32 and labels (count, n, n) complex64, as `PairSet.batch` gives them."""
        chosen = self._points[generator.integers(len(self._points), size=count)]
        moved = chosen + generator.uniform(-REACH, REACH, (count, 2)) * self._size
        patches = np.empty((count, self._size, self._size), np.complex64)
        for index, view in enumerate(generator.integers(len(self._views), size=count)):
            orientation, extractor = self._views[view]
            patches[index] = extractor(_turned_point(moved[index], orientation, extractor))[0]
        counts = generator.poisson(expected_counts(self._probe[None], patches)).astype(np.float32)
        inputs = self._labelled.preparation.finish(counts, self._labelled.scan.frame_shape)
        return torch.from_numpy(inputs), torch.from_numpy(self._labelled.normalise(patches))


def _turned_point(
    point: NDArray[np.float64], orientation: Orientation, extractor: PatchExtractor
) -> NDArray[np.float64]:
    """Where a point goes when its image is turned, moved as little as keeps its patch inside the image."""
    transpose, rows, columns = orientation.actions
    row, column = point[::-1] if transpose else point
    height, width = extractor.shape
    turned = np.array([height - 1 - row if rows else row, width - 1 - column if columns else column])
    half = extractor.size // 2
    return np.clip(turned, half, np.asarray(extractor.shape) - extractor.size + half)
