"""PtychoNN, the baseline: Cherukara et al. 2020 (Appl. Phys. Lett. 117, 044103), the published PyTorch model.

One encoder of convolution pairs and max pooling, two decoders of convolution pairs and bilinear upsampling.
The state dict's names (`encoder.N`, `decoder1.N`, `decoder2.N`) are those of published checkpoints.

Initial weights: PyTorch's own, as in the published training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ptychow.errors import InputError
from ptychow.networks.base import PatternNetwork
from ptychow.networks.doubling import DoublingDecoder, double_size


class PtychoNN(PatternNetwork):
    """Input (N, 1, H, W), H and W multiples of 2 ** levels; outputs as `PatternNetwork.forward`.

    nconv: filters of the first level (32 in the paper, 16 in smaller variants); they double with every level.
    levels: 3 as in the paper, or 4 as in later models for frames of 128 x 128.
    decoder_widths: filters of the decoders' levels, None for the published ones.
    batch_norm: BatchNorm in place of the biases after every convolution but the last (later models).
    phase_only: no amplitude decoder; its map is 0, so that every amplitude is half of `amplitude_max`.
    Raises InputError for settings that make no network.
    """

    def __init__(
        self,
        *,
        nconv: int = 32,
        levels: int = 3,
        decoder_widths: Sequence[int] | None = None,
        batch_norm: bool = False,
        phase_only: bool = False,
        amplitude_max: float = 1.0,
        heads: str = "polar",
    ) -> None:
        if levels not in (3, 4):
            raise InputError("no such network", field="levels", found=levels, expected="3 or 4")
        if nconv < 1:
            raise InputError("no such network", field="nconv", found=nconv, expected="a positive number of filters")
        down = [nconv * 2**level for level in range(levels)]
        # As published: three levels end on twice the first width (128, 64, 64), four go down to it (128, 64,
        # 32, 16 of 16).
        up = list(decoder_widths or [*down[:0:-1], down[1] if levels == 3 else down[0]])
        if len(up) != levels or min(up) < 1:
            raise InputError(
                "no such network", field="decoder_widths", found=up, expected=f"{levels} positive numbers of filters"
            )
        super().__init__(
            size_multiple=2**levels,
            amplitude_max=amplitude_max,
            heads=heads,
            nconv=nconv,
            levels=levels,
            decoder_widths=up,
            batch_norm=batch_norm,
            phase_only=phase_only,
        )
        self.encoder = nn.Sequential(*_ladder(1, down, nn.MaxPool2d(2), batch_norm))
        if not phase_only:
            self.decoder1 = DoublingDecoder(*_ladder(down[-1], up, double_size(), batch_norm), _conv(up[-1], 1))
        self.phase_only = phase_only
        self.decoder2 = DoublingDecoder(*_ladder(down[-1], up, double_size(), batch_norm), _conv(up[-1], 1))

    def maps(self, patterns: Tensor) -> tuple[Tensor, Tensor]:
        """The two decoders' maps (N, 1, H, W)."""
        features = self.encoder(patterns)
        phase = self.decoder2(features)
        return torch.zeros_like(phase) if self.phase_only else self.decoder1(features), phase


def _ladder(inputs: int, widths: list[int], resize: nn.Module, batch_norm: bool) -> list[nn.Module]:
    """For every width two convolutions with ReLU, then `resize`; flat, for the checkpoints' names."""
    layers: list[nn.Module] = []
    for width in widths:
        for channels in (inputs, width):
            layers.append(_conv(channels, width, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU())
        layers.append(resize)
        inputs = width
    return layers


def _conv(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
