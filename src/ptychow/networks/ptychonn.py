"""PtychoNN, the baseline: Cherukara et al. 2020 (Appl. Phys. Lett. 117, 044103), the published PyTorch model.

One encoder of convolution pairs and max pooling, two decoders of convolution pairs and bilinear upsampling.
The state dict's names (`encoder.N`, `decoder1.N`, `decoder2.N`) are those of published checkpoints.

Initial weights: PyTorch's own, as in the published training.
"""

from __future__ import annotations

from torch import Tensor, nn

from ptychow.errors import InputError
from ptychow.networks.base import PatternNetwork


class PtychoNN(PatternNetwork):
    """Input (N, 1, H, W), H and W multiples of 2 ** levels; outputs as `PatternNetwork.forward`.

    nconv: filters of the first level (32 in the paper, 16 in smaller variants); they double with every level.
    levels: 3 as in the paper, or 4 as in later models for frames of 128 x 128.
    batch_norm: BatchNorm in place of the biases after every convolution but the last (later models).
    Raises InputError for settings that make no network.
    """

    def __init__(
        self,
        *,
        nconv: int = 32,
        levels: int = 3,
        batch_norm: bool = False,
        amplitude_max: float = 1.0,
        heads: str = "polar",
    ) -> None:
        if levels not in (3, 4):
            raise InputError("no such network", field="levels", found=levels, expected="3 or 4")
        if nconv < 1:
            raise InputError("no such network", field="nconv", found=nconv, expected="a positive number of filters")
        super().__init__(
            size_multiple=2**levels,
            amplitude_max=amplitude_max,
            heads=heads,
            nconv=nconv,
            levels=levels,
            batch_norm=batch_norm,
        )
        down = [nconv * 2**level for level in range(levels)]
        # As published: three levels end on twice the first width (128, 64, 64), four go down to it (128, 64,
        # 32, 16 of 16).
        up = [*down[:0:-1], down[1] if levels == 3 else down[0]]
        self.encoder = _ladder(1, down, nn.MaxPool2d(2), batch_norm)
        self.decoder1 = _ladder(down[-1], up, _double_size(), batch_norm).append(_conv(up[-1], 1))
        self.decoder2 = _ladder(down[-1], up, _double_size(), batch_norm).append(_conv(up[-1], 1))

    def maps(self, patterns: Tensor) -> tuple[Tensor, Tensor]:
        """The two decoders' maps (N, 1, H, W)."""
        features = self.encoder(patterns)
        return self.decoder1(features), self.decoder2(features)


def _ladder(inputs: int, widths: list[int], resize: nn.Module, batch_norm: bool) -> nn.Sequential:
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
    return nn.Sequential(*layers)


def _conv(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


def _double_size() -> nn.Module:
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
