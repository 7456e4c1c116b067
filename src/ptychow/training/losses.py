"""Training losses on complex patches.

All take predicted amplitude and phase (N, H, W) float32, labels (N, H, W) complex64 and a weight (H, W) float32 of mean
1, and return a scalar.
"""

from __future__ import annotations

import torch
from torch import Tensor


def uniform_loss(amplitude: Tensor, phase: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute error of amplitude plus that of phase, every pixel alike (Xing et al. 2024, section 3.1)."""
    return (amplitude - labels.abs()).abs().mean() + (phase - labels.angle()).abs().mean()


def weighted_loss(amplitude: Tensor, phase: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """The uniform loss with every pixel weighted, by the probe's intensity say; phases are still absolute."""
    return (weight * ((amplitude - labels.abs()).abs() + (phase - labels.angle()).abs())).mean()


def complex_loss(amplitude: Tensor, phase: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Probe-weighted absolute error of the complex patch after removing its constant phase.

    A pattern knows nothing of its patch's constant phase, so none is asked for: the prediction is first turned by the
    unit constant of largest overlap <w prediction, label>. Unlit pixels carry no information and hardly count.
    """
    prediction = torch.polar(amplitude.float(), phase.float())
    overlap = (weight * prediction.conj() * labels).sum(dim=(-2, -1), keepdim=True).detach()
    constant = overlap / overlap.abs().clamp_min(1e-12)
    difference = constant * prediction - labels
    # The root's small offset keeps the gradient finite where prediction and label meet.
    return (weight * (difference.real**2 + difference.imag**2 + 1e-8).sqrt()).mean()


LOSSES = {"uniform": uniform_loss, "weighted": weighted_loss, "complex": complex_loss}
