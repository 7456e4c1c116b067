"""Bilinear doubling and the convolution to one channel after it, as the one linear map that they are.

Written as layers they make images of all channels at twice the size only to add them up. Here the channels are added
on the small grid, once for each of the nine taps of the convolution; doubling and tap shift together are then one
constant matrix along rows and one along columns, borders included.
"""

from __future__ import annotations

from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate


@lru_cache
def doubling_taps(size: int) -> Tensor:
    """(2 size, 3 size) float32: doubled pixels k - 1, k and k + 1 of a line, seen from pixel k, side by side.

    Beyond the border there is nothing, as a convolution padded with zeros has it.
    """
    with torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):  # kept, and used in training too
        doubling = interpolate(torch.eye(size)[None], scale_factor=2, mode="linear", align_corners=False)[0].T
        nothing = torch.zeros(1, size)
        return torch.cat([torch.cat([nothing, doubling[:-1]]), doubling, torch.cat([doubling[1:], nothing])], dim=1)


def tap_sums(kernel: Tensor) -> Tensor:
    """The (1, C, 3, 3) kernel as a 1 x 1 convolution (9, C, 1, 1): an output a tap, (column tap, row tap)."""
    return kernel[0].permute(2, 1, 0).reshape(9, -1, 1, 1)


def spread_taps(sums: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(N, 9, h, w) of `tap_sums` to (N, 1, 2h, 2w); rows, columns: `doubling_taps` of h, and that of w transposed."""
    count, _, height, width = sums.shape
    doubled = (rows @ sums.reshape(count, 3, 3 * height, width)).transpose(1, 2)
    return doubled.reshape(count, 1, 2 * height, 3 * width) @ columns


def doubled_conv(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """(N, C, h, w) to (N, 1, 2h, 2w): bilinear doubling, then a 3 x 3 convolution with zero padding; float32 or more.

    kernel: (1, C, 3, 3); bias: (1,).
    """
    sums = conv2d(x, tap_sums(kernel))
    with torch.autocast(x.device.type, enabled=False):
        sums = sums.to(torch.promote_types(sums.dtype, torch.float32))
        rows, columns = (doubling_taps(size).to(sums) for size in sums.shape[-2:])
        return spread_taps(sums, rows, columns.T) + bias


def double_size() -> nn.Module:
    """Bilinear upsampling by two, as both families of networks use it."""
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)


class DoublingDecoder(nn.Sequential):
    """Layers that end on `double_size` and a 3 x 3 convolution to one channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Training takes the short way through the last two layers; otherwise they stay what can be counted and read.

        Same map.
        """
        if not self.training:
            return cast(Tensor, super().forward(x))
        *layers, _, last = self
        for layer in layers:
            x = layer(x)
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        return doubled_conv(x, last.weight, last.bias)
