"""Pairs of network input and label patch, from labelled scans, in memory where they fit and streamed where not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptychow.detector import Preparation
from ptychow.devices import free_memory
from ptychow.errors import InputError, about
from ptychow.patches import PatchExtractor, resample_object
from ptychow.prepared import require_label_pixel
from ptychow.scan import Scan, frames_at_a_time
from ptychow.training.processes import processes
from ptychow.training.split import Indices

# In a scan's metadata: the gauge of the Model whose predictions its label patches are.
LABEL_GAUGE = "label_gauge"
LABEL_AGAIN = "Make the labels again with: ptychow label"


@dataclass(frozen=True)
class LabelledFrames:
    """The pairs of one scan. A label is the object patch on the network's pixels, cut at the exact position.

    weight: (n, n) of mean 1. constant_free: turn each label so that its weighted mean is real and positive.
    amplitude_scale: labels are divided by it.
    """

    scan: Scan
    preparation: Preparation
    weight: NDArray[np.float32]
    constant_free: bool
    amplitude_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.scan.object is None and self.scan.label_patches is None:
            raise InputError(
                "has no labels", file=self.scan.name, field="object", remedy="Make them with: ptychow label"
            )
        if self.scan.object is None:
            require_label_pixel(self.scan, self.preparation)
        object.__setattr__(self, "_extractor", self._make_extractor(len(self.weight)))

    def _make_extractor(self, size: int) -> PatchExtractor | None:
        if self.scan.object is None:
            return None
        return PatchExtractor(resample_object(self.scan.object, self._pixel_ratio), size)

    @property
    def _pixel_ratio(self) -> float:
        return self.preparation.pixel_ratio(self.scan.frame_shape)

    def labels(self, indices: Indices) -> NDArray[np.complex64]:
        """(b, n, n) complex64 label patches of these frames."""
        extractor: PatchExtractor | None = self._extractor  # type: ignore[attr-defined]
        if extractor is not None:
            with about(self.scan.name):
                labels = extractor(self.scan.positions_px[indices] / self._pixel_ratio)
        else:
            assert self.scan.label_patches is not None  # __post_init__ saw to it
            labels = np.asarray(self.scan.label_patches[indices], np.complex64)
        if not np.isfinite(labels).all():
            raise InputError("NaN or infinite labels", file=self.scan.name, field="object", remedy=LABEL_AGAIN)
        return self.normalise(labels)

    def normalise(self, labels: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """Object patches (b, n, n) as the network is to predict them: scaled, and turned where it is free to."""
        labels = labels / np.float32(self.amplitude_scale)
        return turn_real(labels, self.weight) if self.constant_free else labels

    def inputs(self, indices: Indices) -> NDArray[np.float32]:
        """(b, 1, n, n) float32 network inputs of these frames."""
        with about(self.scan.name):
            return self.preparation.apply(self.scan.frames[indices])


class PairSet:
    """The chosen frames of one or more scans as pairs of tensors, by one running index.

    Held in memory where they need no more than `memory_limit` bytes, by default half of what is free; else prepared
    again for every batch.
    """

    def __init__(self, parts: list[tuple[LabelledFrames, Indices]], memory_limit: float | None = None) -> None:
        self._parts = [(part, np.asarray(indices, np.int64)) for part, indices in parts if len(indices)]
        self._starts = np.cumsum([0] + [len(indices) for _, indices in self._parts])
        self._cache: tuple[Tensor, Tensor] | None = None
        if not self._parts:
            return
        size = self._parts[0][0].weight.shape
        limit = free_memory() / 2 / processes() if memory_limit is None else memory_limit
        if len(self) * math.prod(size) * (4 + 8) > limit:
            return
        self._cache = torch.empty(len(self), 1, *size), torch.empty(len(self), *size, dtype=torch.complex64)
        chunk_size = min(frames_at_a_time(part.scan.frame_shape) for part, _ in self._parts)
        for start in range(0, len(self), chunk_size):
            chunk = np.arange(start, min(start + chunk_size, len(self)))
            for whole, part in zip(self._cache, self._prepare(chunk), strict=True):
                whole[start : start + len(chunk)] = part

    def __len__(self) -> int:
        return int(self._starts[-1])

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Inputs (b, 1, n, n) float32 and labels (b, n, n) complex64 of these running indices."""
        if self._cache is None:
            return self._prepare(np.asarray(indices))
        chosen = torch.as_tensor(np.asarray(indices))
        return self._cache[0][chosen], self._cache[1][chosen]

    def _prepare(self, indices: Indices) -> tuple[Tensor, Tensor]:
        owner = np.searchsorted(self._starts, indices, side="right") - 1
        size = self._parts[0][0].weight.shape
        inputs = np.empty((len(indices), 1, *size), np.float32)
        labels = np.empty((len(indices), *size), np.complex64)
        for number, (part, chosen) in enumerate(self._parts):
            here = np.flatnonzero(owner == number)
            if len(here):
                frames = chosen[indices[here] - self._starts[number]]
                inputs[here] = part.inputs(frames)
                labels[here] = part.labels(frames)
        return torch.from_numpy(inputs), torch.from_numpy(labels)


def turn_real(patches: NDArray[np.complex64], weight: NDArray[np.float32]) -> NDArray[np.complex64]:
    """Patches (b, n, n), each turned so that its mean under the weight (n, n) is real and positive."""
    mean = (weight * patches).sum(axis=(1, 2), keepdims=True)
    return (patches * np.conj(mean) / np.maximum(np.abs(mean), 1e-12)).astype(np.complex64)


def wrapped_fraction(labels: NDArray[np.complexfloating], weight: NDArray[np.float32]) -> float:
    """Fraction of lit label pixels (weight above a tenth of the largest) whose phase lies beyond 0.9 pi.

    Near pi a phase jumps to -pi, which a phase head cannot follow.
    """
    lit = weight > 0.1 * weight.max()
    return float((np.abs(np.angle(labels[:, lit])) > 0.9 * np.pi).mean())
