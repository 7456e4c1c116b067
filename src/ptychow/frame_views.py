"""Frames as they would be had they been stored otherwise: changed when they are read, and as lazy as what they show."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.scan import Frames


@dataclass(frozen=True)
class FrameView(ABC):
    """A `scan.Frames` made of another, of the same shape and type where a view does not say otherwise."""

    frames: Frames

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W)."""
        return self.frames.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values that are read."""
        return self.frames.dtype

    @abstractmethod
    def __getitem__(self, index: Any) -> NDArray[Any]:
        """As `scan.Frames`."""


@dataclass(frozen=True)
class RearrangedFrames(FrameView):
    """Frames that are stored with rows and columns exchanged, or with zero frequency at [0, 0], not [H//2, W//2]."""

    transposed: bool = False
    shifted: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W)."""
        count, height, width = self.frames.shape
        return (count, width, height) if self.transposed else (count, height, width)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """As `scan.Frames`."""
        found = self.frames[index]
        if self.transposed:
            found = np.swapaxes(found, -1, -2)
        return np.fft.fftshift(found, axes=(-2, -1)) if self.shifted else found


@dataclass(frozen=True)
class SquaredFrames(FrameView):
    """Counts, float32, of frames that are stored as amplitudes, their square roots."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the counts."""
        return np.dtype(np.float32)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """As `scan.Frames`. Raises InputError for amplitudes below 0, which are none."""
        found = self.frames[index]
        if found.dtype.kind not in "uif" or (found < 0).any():
            smallest = found.min() if found.dtype.kind in "uif" else found.dtype
            raise InputError("no amplitudes", field="frames", found=smallest, expected="0 and above")
        return np.square(found, dtype=np.result_type(found, np.float32)).astype(np.float32, copy=False)


@dataclass(frozen=True)
class NonNegativeFrames(FrameView):
    """Frames whose counts below 0 are 0."""

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """As `scan.Frames`."""
        return np.maximum(self.frames[index], 0)


@dataclass(frozen=True)
class ScaledFrames(FrameView):
    """Frames that are multiplied by a factor of their own: float32. factors: (N,)."""

    factors: NDArray[np.float64]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the scaled counts."""
        return np.dtype(np.float32)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """As `scan.Frames`."""
        return (self.frames[index] * self.factors[index][..., None, None]).astype(np.float32)
