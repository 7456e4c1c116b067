"""Training without labels on measured frames: predicted against measured diffraction.

A patch explains its own frame in many ways. What it must not do is contradict its neighbours: so a group of overlapping
frames is taken at a time, its patches are brought to one constant and stitched with the probe's weights, every frame's
patch is cut out of the common object again, and what the detector would count from it through the probe is compared
with what it counted. All of it but the constants can be differentiated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor, nn

from ptychow.detector import Preparation
from ptychow.errors import InputError, about
from ptychow.patches import corners
from ptychow.scan import Scan
from ptychow.stitch import probe_weight, shifted, solve_constants
from ptychow.training.split import Indices

Mismatch = Literal["amplitude", "poisson"]
GROUP = 16
# The constants of a few patches are found in a few sweeps.
SWEEPS = 30
# Groups drawn before a scan is taken to be dark.
MOST_DRAWS = 100


class PhysicsLoss:
    """The mismatch between measured and predicted diffraction of groups of overlapping frames.

    preparation: of the network's input, with this scan's bad pixels and scale. probe: (modes, n, n) on its grid.
    frames: those to take groups from. kind: see `mismatch`. size: frames in a group, a point and its nearest ones.
    Raises InputError without a probe.
    """

    def __init__(
        self,
        scan: Scan,
        preparation: Preparation,
        probe: NDArray[np.complex64] | None,
        frames: Indices,
        *,
        kind: Mismatch = "amplitude",
        size: int = GROUP,
    ) -> None:
        if probe is None:
            raise InputError("no probe to predict diffraction with", file=scan.name, field="probe")
        if preparation.resample is not None:
            raise InputError("resampled frames are no counts", file=scan.name, field="preparation.resample")
        if not len(frames):
            raise InputError("no frames to train on", file=scan.name, field="split")
        self._scan, self._frames, self._kind = scan, frames, kind
        self._preparation, self._counts = preparation, preparation.as_counts()
        good = preparation.output_mask(scan.frame_shape)
        self._good = torch.from_numpy(np.ones(probe.shape[1:], bool) if good is None else good)
        self._probe, self._weight = torch.from_numpy(probe), probe_weight(probe)
        self._positions = scan.positions_px / preparation.pixel_ratio(scan.frame_shape)
        count = min(size, len(frames))
        _, nearest = KDTree(self._positions[frames]).query(self._positions[frames], k=count)
        self._groups = np.asarray(nearest).reshape(len(frames), count)

    def __call__(self, network: nn.Module, generator: np.random.Generator, half: bool = False) -> Tensor:
        """The loss of one group drawn at random; gradients reach the network's weights."""
        device = next(network.parameters()).device
        group, raw, measured = self._draw(generator)
        with about(self._scan.name):
            inputs = torch.from_numpy(self._preparation.apply(raw)).to(device, memory_format=torch.channels_last)
        counts = torch.from_numpy(measured).to(device)
        with frozen_statistics(network), torch.autocast(device.type, torch.bfloat16, enabled=half):
            amplitude, phase = network(inputs)
        patches = torch.polar(amplitude[:, 0].float(), phase[:, 0].float())
        common = through_common_object(patches, self._positions[group], self._weight)
        return mismatch(common, self._probe.to(device), counts, self._good.to(device), self._kind)

    def _draw(self, generator: np.random.Generator) -> tuple[Indices, NDArray[Any], NDArray[np.float32]]:
        """A group's frames that hold counts: indices (b,), as stored (b, H, W), and prepared counts (b, n, n).

        Frames without counts (shutter closed, or dropped by the detector) are no measured darkness.
        """
        for _ in range(MOST_DRAWS):
            group = self._frames[self._groups[generator.integers(len(self._groups))]]
            raw = self._scan.frames[group]
            with about(self._scan.name):
                counts = self._counts.apply(raw)[:, 0]
            lit = counts.any(axis=(1, 2))
            if lit.any():
                return group[lit], raw[lit], counts[lit]
        raise InputError("no frame with counts was met", file=self._scan.name, field="frames")


def through_common_object(patches: Tensor, positions_px: NDArray[np.float64], weight: NDArray[np.float32]) -> Tensor:
    """Patches (b, n, n) as their common object has them: brought to one constant, averaged, cut out again.

    positions_px: (b, 2) patch centres; weight: (n, n), of the average, as in `ptychow.stitch.Canvas`. The constants are
    not differentiated.
    """
    own = patches.detach().cpu().numpy()
    constants = solve_constants(own, positions_px, weight, sweeps=SWEEPS)
    turned = patches * torch.from_numpy(constants).to(patches)[:, None, None]
    size = weight.shape[0]
    start = corners(positions_px, size)
    start = start - np.floor(start.min(axis=0))
    whole = np.floor(start + 1e-9).astype(int)
    fraction = start - whole
    on_grid = shifted(turned, fraction)
    weights = torch.from_numpy(weight).to(patches.device)
    # One pixel more than the last patch reaches: reading between pixels looks ahead.
    shape = tuple(whole.max(axis=0) + size + 1)
    total = torch.zeros(shape, dtype=patches.dtype, device=patches.device)
    power = torch.zeros(shape, dtype=weights.dtype, device=patches.device)
    for patch, (row, column) in zip(on_grid, whole, strict=True):
        window = slice(row, row + size), slice(column, column + size)
        total[window] = total[window] + weights * patch
        power[window] += weights
    image = total / power.clamp_min(float(weights.min()))
    cut = torch.stack([image[row : row + size, column : column + size] for row, column in whole])
    # Back to where each patch lies: the other way, in the mirror.
    return shifted(cut.flip(1, 2), fraction).flip(1, 2)


def mismatch(patches: Tensor, probe: Tensor, counts: Tensor, good: Tensor, kind: Mismatch = "amplitude") -> Tensor:
    """How far the diffraction of patches (b, n, n) through a probe (modes, n, n) is from counts (b, n, n), zero
    frequency in the middle, over the good pixels (n, n); 0 is perfect, about 1 is what no light scores.

    amplitude: sum (|far field| - sqrt(counts))^2 / sum counts, the likelihood of a constant variance of amplitudes
    (as LSQML's). poisson: the deviance, sum (I - n + n log(n / I)) / sum n (Thibault and Guizar-Sicairos, New J. Phys.
    14, 063004 (2012)).
    """
    waves = torch.fft.fftshift(torch.fft.fft2(probe[None] * patches[:, None], norm="ortho"), dim=(-2, -1))
    expected = (waves.real.square() + waves.imag.square()).sum(dim=1)
    total = (counts * good).sum().clamp_min(1)
    if kind == "amplitude":
        # The offset keeps the root's slope finite where nothing is expected.
        return (((expected + 1e-6).sqrt() - counts.sqrt()).square() * good).sum() / total
    expected = expected + 1e-3
    deviance = expected - counts + torch.xlogy(counts, counts) - counts * expected.log()
    return (deviance * good).sum() / total


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Batch norms with the statistics they have learnt: those of a few neighbouring frames are no sample of a scan."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()
