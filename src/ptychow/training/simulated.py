"""Simulated pairs: random samples seen through an instrument, drawn on the fly. No label of any sample is needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptychow.detector import SCALE_FRAMES, Preparation
from ptychow.optics.propagation import expected_counts
from ptychow.optics.random_samples import RandomSamples
from ptychow.stitch import probe_weight
from ptychow.training.data import turn_real

# The exposure of a frame differs from the mean one by up to this part of it.
INTENSITY_JITTER = 0.1
# Simulated frames that set the mean input and the deviation about it.
STATISTICS_FRAMES = 512


class SimulatedPairs:
    """Draws pairs of one instrument, or of a family of instruments with one Preparation.

    A frame is the Poisson counts of |F[probe x sample]|^2 summed over the modes, its exposure jittered. It is prepared
    as a scan of its instrument would be: bad pixels filled, count scale that of 64 frames, standardised with the mean
    input and deviation of the whole family.

    probes: (modes, n, n) of each instrument on the prepared grid, |probe|^2 summing to the mean counts of its frames.
    preparation, frame_shape: of the stored frames; `preparation` becomes the standardised one. seed: of the samples.
    weight: (n, n) of mean 1, of the loss: the family's mean probe intensity.
    """

    def __init__(
        self,
        probes: Sequence[NDArray[np.complex64]],
        preparation: Preparation,
        frame_shape: tuple[int, int],
        seed: int = 0,
    ) -> None:
        self._probes = np.stack(probes)
        self._frame_shape = frame_shape
        weight = probe_weight(self._probes.reshape(-1, *self._probes.shape[2:]))
        self.weight = weight / weight.mean()
        self._samples = RandomSamples(len(weight), seed)
        generator = np.random.default_rng([seed, 1])
        plain = preparation.unstandardised()
        self._preparations = [plain] * len(self._probes)
        if plain.scale == "scan":
            unscaled = plain.replace(scale_value=1.0)
            self._preparations = [
                plain.replace(scale_value=float(self._inputs(unscaled, k, generator).mean()))
                for k in range(len(self._probes))
            ]
        inputs, _ = self.draw(STATISTICS_FRAMES, generator)
        mean = inputs[:, 0].mean(dim=0)
        deviation = float((inputs[:, 0] - mean).square().mean().sqrt())
        standard = {"mean_input": mean.numpy(), "deviation": deviation}
        self._preparations = [own.replace(**standard) for own in self._preparations]
        self.preparation = preparation.replace(**standard)

    def draw(self, count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Inputs (count, 1, n, n) float32 and labels (count, n, n) complex64, as `PairSet.batch` gives them."""
        chosen = np.sort(generator.integers(len(self._probes), size=count))
        counts, patches = self._measure(chosen, generator)
        inputs = np.empty((count, 1, *counts.shape[1:]), np.float32)
        for k in np.unique(chosen):
            inputs[chosen == k] = self._preparations[k].finish(counts[chosen == k], self._frame_shape)
        return torch.from_numpy(inputs), torch.from_numpy(turn_real(patches, self.weight))

    def _inputs(self, preparation: Preparation, instrument: int, generator: np.random.Generator) -> NDArray[np.float32]:
        """As many inputs of one instrument as set a scan's count scale."""
        counts, _ = self._measure(np.full(SCALE_FRAMES, instrument), generator)
        return preparation.finish(counts, self._frame_shape)

    def _measure(
        self, chosen: NDArray[np.integer], generator: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.complex64]]:
        """Counts (b, n, n) of a new sample in each of the chosen instruments, and these samples (b, n, n)."""
        patches = self._samples.draw(len(chosen), generator)
        exposure = generator.uniform(1 - INTENSITY_JITTER, 1 + INTENSITY_JITTER, (len(chosen), 1, 1))
        expected = expected_counts(self._probes[chosen], patches) * exposure
        return generator.poisson(expected).astype(np.float32), patches
