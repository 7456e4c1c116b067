"""The W-Net family: W1, W2 and W3 of Xing et al. 2024 (Adv. Opt. Technol. 13:1474654), section 2.1.

The paper prints its layers only as figures and no code is public. These networks are reconstructed from the
text and Table 5 (parameters to the thousand, FLOPs to 1.4 %); they are not the authors' code.

    pattern -> stem -> stage 1 -> stage 2 -> stage 3 -> stage 4 -+-> decoder -> amplitude
               1/2       1/2        1/4        1/8        1/16   +-> decoder -> phase

The encoder's blocks are ConvNeXt V2's (Woo et al. 2023), its channel attention is squeeze-and-excitation (Hu
et al. 2018).

Initial weights: encoder as in ConvNeXt (truncated normal of deviation 0.02, biases zero), so that every
residual block starts near the identity; but the stem as wide as its input with biases as wide as its output:
the norm behind it keeps only the ratio of its channels, and without biases that ratio would not know how
strong the pattern is, which delays learning. Biases before the channel attention's ReLU 0.1, because its two
to sixteen units would else start dead half of the time; decoder convolutions as He et al. 2015 for ReLU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from ptychow.errors import InputError
from ptychow.networks.base import PatternNetwork
from ptychow.networks.doubling import DoublingDecoder, double_size
from ptychow.networks.gradients import GlobalResponse, LargeDepthwise


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """Channels compete by their energy over the image: ConvNeXt V2's GRN, on (N, H, W, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return cast(Tensor, GlobalResponse.apply(x, self.gamma, self.beta))


class DepthwiseConv(nn.Conv2d):
    """Large kernel, in float32 on a CPU: in bfloat16 its gradient takes three times as long there."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, kernel, padding=kernel // 2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape, (N, C, H, W)."""
        if x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return cast(Tensor, LargeDepthwise.apply(x, self.weight, self.bias))


class Block(nn.Module):
    """ConvNeXt V2 block: depthwise convolution, then a four times wider layer at every pixel, added to the input."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = DepthwiseConv(channels, kernel)
        self.pointwise = nn.Sequential(
            nn.LayerNorm(channels, eps=1e-6),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            GlobalResponseNorm(4 * channels),
            nn.Linear(4 * channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape, (N, C, H, W)."""
        return x + self.pointwise(self.depthwise(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SqueezeExcite(nn.Module):
    """Channel attention: every channel is weighted by what the whole image holds."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Linear(channels, channels // reduction)
        self.relu = nn.ReLU()
        self.excite = nn.Linear(channels // reduction, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape, (N, C, H, W)."""
        weights = self.excite(self.relu(self.squeeze(self.pool(x).flatten(1)))).sigmoid()
        return x * weights[:, :, None, None]


class Encoder(nn.Sequential):
    """(N, 1, H, W) to (N, dims[-1], H/16, W/16)."""

    def __init__(self, depths: Sequence[int], dims: Sequence[int], kernel: int) -> None:
        layers: list[nn.Module] = [nn.Conv2d(1, dims[0], 7, stride=2, padding=3), ChannelNorm(dims[0])]
        layers += [Block(dims[0], kernel) for _ in range(depths[0])]
        for depth, before, channels in zip(depths[1:], dims[:-1], dims[1:], strict=True):
            layers += [ChannelNorm(before), nn.Conv2d(before, channels, 2, stride=2)]
            layers += [Block(channels, kernel) for _ in range(depth)]
            layers += [SqueezeExcite(channels)]
        super().__init__(*layers)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.constant_(parameter, 0.1 if "squeeze" in name else 0.0)
        stem = layers[0]
        assert isinstance(stem, nn.Conv2d) and stem.bias is not None
        nn.init.normal_(stem.weight, std=1 / 7)
        nn.init.normal_(stem.bias, std=1.0)


class Decoder(DoublingDecoder):
    """(N, channels, H/16, W/16) to one map (N, 1, H, W)."""

    def __init__(self, channels: int, decoder_dims: Sequence[int], convs_per_level: int, separable: bool) -> None:
        layers: list[nn.Module] = []
        for width in decoder_dims:
            layers.append(double_size())
            for _ in range(convs_per_level):
                layers += [*_conv(channels, width, separable), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
        super().__init__(*layers, double_size(), nn.Conv2d(channels, 1, 3, padding=1))
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)


def _conv(inputs: int, outputs: int, separable: bool) -> list[nn.Module]:
    """A 3 x 3 convolution, or the depthwise and pointwise pair that stands for it."""
    if not separable:
        return [nn.Conv2d(inputs, outputs, 3, padding=1)]
    return [nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs), nn.Conv2d(inputs, outputs, 1)]


class WNet(PatternNetwork):
    """One encoder, two decoders. Input (N, 1, H, W), H and W multiples of 16; outputs as
    `PatternNetwork.forward`.

    depths, dims: blocks and channels of the four stages.
    decoder_dims: channels of the decoder's three levels; convs_per_level: convolutions in each.
    separable: the decoder levels' convolutions (not its last one) are depthwise and pointwise pairs.
    kernel: size of the blocks' depthwise convolution (odd).
    Raises InputError for settings that make no network.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int],
        dims: Sequence[int],
        decoder_dims: Sequence[int],
        convs_per_level: int,
        separable: bool,
        kernel: int = 9,
        amplitude_max: float = 1.0,
        heads: str = "polar",
    ) -> None:
        for name, value, length in (
            ("depths", depths, 4),
            ("dims", dims, 4),
            ("decoder_dims", decoder_dims, 3),
        ):
            if len(value) != length or min(value) < 1:
                raise InputError(
                    "no such network", field=name, found=list(value), expected=f"{length} positive integers"
                )
        if min(dims[1:]) < 16:
            raise InputError("no such network", field="dims", found=list(dims), expected="16 or more after the first")
        if kernel < 1 or kernel % 2 == 0:
            raise InputError("no such network", field="kernel", found=kernel, expected="a positive odd number")
        super().__init__(
            size_multiple=16,
            amplitude_max=amplitude_max,
            heads=heads,
            depths=list(depths),
            dims=list(dims),
            decoder_dims=list(decoder_dims),
            convs_per_level=convs_per_level,
            separable=separable,
            kernel=kernel,
        )
        self.encoder = Encoder(depths, dims, kernel)
        self.amplitude = Decoder(dims[-1], decoder_dims, convs_per_level, separable)
        self.phase = Decoder(dims[-1], decoder_dims, convs_per_level, separable)

    def maps(self, patterns: Tensor) -> tuple[Tensor, Tensor]:
        """The two decoders' maps (N, 1, H, W)."""
        features = self.encoder(patterns)
        return self.amplitude(features), self.phase(features)


w1 = partial(
    WNet,
    depths=(2, 2, 4, 2),
    dims=(24, 48, 96, 192),
    decoder_dims=(96, 48, 24),
    convs_per_level=2,
    separable=False,
)
w2 = partial(
    WNet,
    depths=(3, 3, 9, 3),
    dims=(32, 64, 128, 256),
    decoder_dims=(192, 192, 96),
    convs_per_level=2,
    separable=False,
)
w3 = partial(
    WNet,
    depths=(1, 2, 3, 1),
    dims=(32, 32, 32, 32),
    decoder_dims=(32, 32, 32),
    convs_per_level=1,
    separable=True,
)
