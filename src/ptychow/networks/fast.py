"""W3-fast: dense convolutions on few pixels of many channels. Not of the paper.

What slows W3 down on a processor with matrix units is not arithmetic but memory: wide maps at full size, depthwise
convolutions, norms that read every pixel twice. So no map here is larger than a `patch`-th of the pattern: squares of
patch x patch pixels become channels at the entrance, and channels become squares at the exit (Shi et al. 2016,
arXiv:1609.05158). Between them are residual blocks of 3 x 3 convolutions (He et al. 2016, arXiv:1512.03385), whose
norms go into the convolutions once the network is trained. The two maps share the decoder.

    pattern -> squares to channels -> stage 1 -> stage 2 -> ... -> level 1 -> ... -> channels to squares -> two maps
                     1/patch                     half as large     twice as large
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ptychow.errors import InputError
from ptychow.networks.base import PatternNetwork


class ConvNorm(nn.Sequential):
    """A convolution without bias and the norm behind it."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False), nn.BatchNorm2d(outputs)
        )


class ResidualBlock(nn.Module):
    """Two convolutions, added to the input before the last ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(ConvNorm(channels, channels), nn.ReLU(), ConvNorm(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape, (N, C, H, W)."""
        return torch.relu(x + self.branch(x))


class W3Fast(PatternNetwork):
    """Input (N, 1, H, W), H and W multiples of patch * 2 ** (stages - 1); outputs as `PatternNetwork.forward`.

    patch: side of the squares, pixels; dims, depths: channels and blocks of the stages, each half as large as the one
    before; decoder_dims, decoder_depths: of the levels back up, one less.
    Raises InputError for settings that make no network.
    """

    def __init__(
        self,
        *,
        patch: int = 4,
        dims: Sequence[int] = (32, 64, 128),
        depths: Sequence[int] = (1, 1, 2),
        decoder_dims: Sequence[int] = (64, 48),
        decoder_depths: Sequence[int] = (1, 1),
        amplitude_max: float = 1.0,
        heads: str = "polar",
    ) -> None:
        if patch < 1:
            raise InputError("no such network", field="patch", found=patch, expected="a positive number of pixels")
        for name, value, length in (
            ("dims", dims, max(1, len(dims))),
            ("depths", depths, len(dims)),
            ("decoder_dims", decoder_dims, len(dims) - 1),
            ("decoder_depths", decoder_depths, len(dims) - 1),
        ):
            if len(value) != length or min(value, default=1) < 1:
                raise InputError(
                    "no such network", field=name, found=list(value), expected=f"{length} positive integers"
                )
        super().__init__(
            size_multiple=patch * 2 ** (len(dims) - 1),
            amplitude_max=amplitude_max,
            heads=heads,
            patch=patch,
            dims=list(dims),
            depths=list(depths),
            decoder_dims=list(decoder_dims),
            decoder_depths=list(decoder_depths),
        )
        layers: list[nn.Module] = [nn.PixelUnshuffle(patch), ConvNorm(patch * patch, dims[0]), nn.ReLU()]
        layers += [ResidualBlock(dims[0]) for _ in range(depths[0])]
        for before, channels, depth in zip(dims, dims[1:], depths[1:], strict=False):
            layers += [ConvNorm(before, channels, kernel=2, stride=2), nn.ReLU()]
            layers += [ResidualBlock(channels) for _ in range(depth)]
        before = dims[-1]
        for channels, depth in zip(decoder_dims, decoder_depths, strict=True):
            layers += [ConvNorm(before, 4 * channels, kernel=1), nn.ReLU(), nn.PixelShuffle(2)]
            layers += [ResidualBlock(channels) for _ in range(depth)]
            before = channels
        layers += [nn.Conv2d(before, 2 * patch * patch, 3, padding=1), nn.PixelShuffle(patch)]
        self.layers = nn.Sequential(*layers)

    def maps(self, patterns: Tensor) -> tuple[Tensor, Tensor]:
        """The two maps (N, 1, H, W)."""
        first, second = self.layers(patterns).split(1, dim=1)
        return first, second


# For 128 x 128 pixels, with as many squares as there are at 64 x 64: made for `ptychow calibrate`.
wc = partial(W3Fast, patch=8, dims=(128, 192), depths=(2, 2), decoder_dims=(128,), decoder_depths=(2,))
