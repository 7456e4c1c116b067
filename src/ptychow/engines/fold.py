"""Networks rewritten for inference: mathematically equal to those trained, with fewer passes over memory.

The networks in `ptychow.networks` are written to be read and trained. Here their layers are replaced one by one:

* BatchNorm goes into the convolution before it.
* ChannelNorm's centring is a linear map over channels: it goes into the convolution before it where that is linear
  and single (the stem), else it is a 1 x 1 convolution. Its scale and shift go into the convolution after it.
* Blocks keep (N, C, H, W) throughout, linear layers as 1 x 1 convolutions: no transposes. GRN's shift goes into the
  bias of the last one.
* A depthwise and a pointwise convolution without anything between are one dense convolution, which matrix units
  (AMX, tensor cores) run faster than the pair although it has more multiplications; on vector units they do not.
* Bilinear doubling and the last convolution, which has one output channel, are one linear map: `DoubledConv`.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ptychow.networks.base import PatternNetwork
from ptychow.networks.doubling import doubling_taps, spread_taps, tap_sums
from ptychow.networks.fast import ConvNorm, W3Fast
from ptychow.networks.ptychonn import PtychoNN
from ptychow.networks.wnet import Block, ChannelNorm, GlobalResponseNorm, WNet


def folded(network: PatternNetwork, size: int, merge: bool = False) -> PatternNetwork:
    """An equal network for patterns of size x size, rewritten; `network` stays as it is.

    merge: depthwise and pointwise pairs become dense convolutions.
    """
    network = deepcopy(network).cpu().float().eval().requires_grad_(False)
    if isinstance(network, W3Fast):
        return fuse_norms(network)
    assert isinstance(network, PtychoNN | WNet)
    return FoldedNetwork(network, size, merge)


def fuse_norms(network: W3Fast) -> W3Fast:
    """Every norm of this evaluating network goes into the convolution before it, in place."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, ConvNorm):
                setattr(parent, name, fuse_conv_bn_eval(*child))
    return network


class FoldedNetwork(PatternNetwork):
    """One encoder and two decoders of `network`, rewritten; the same heads. See `folded`."""

    def __init__(self, network: PtychoNN | WNet, size: int, merge: bool) -> None:
        super().__init__(size_multiple=network.size_multiple, amplitude_max=network.amplitude_max, heads=network.heads)
        with torch.no_grad():
            self.encoder = fold(list(network.encoder), size, merge)
            first, second = (None if part is None else fold(list(part), size, merge) for part in decoders(network))
        self.first, self.second = first, second
        self.eval().requires_grad_(False)

    def maps(self, patterns: Tensor) -> tuple[Tensor, Tensor]:
        """The two decoders' maps (N, 1, H, W)."""
        features = self.encoder(patterns)
        assert self.second is not None
        second = self.second(features)
        return torch.zeros_like(second) if self.first is None else self.first(features), second


def decoders(network: PtychoNN | WNet) -> tuple[nn.Sequential | None, nn.Sequential]:
    """Of amplitude, where the network has one, and of phase."""
    if isinstance(network, WNet):
        return network.amplitude, network.phase
    return None if network.phase_only else network.decoder1, network.decoder2


def fold(layers: list[nn.Module], size: int, merge: bool) -> nn.Sequential:
    """The same map as `layers` in a row; size: of the last layer's output."""
    folded: list[nn.Module] = []
    while layers:
        match layers:
            case [nn.Conv2d() as conv, nn.BatchNorm2d() as norm, *rest]:
                layers = [fuse_conv_bn_eval(conv, norm), *rest]
            case [nn.Conv2d() as depthwise, nn.Conv2d(kernel_size=(1, 1)) as pointwise, *rest] if merge:
                layers = [merge_pair(depthwise, pointwise), *rest]
            case [nn.Conv2d() as stem, ChannelNorm() as norm, *rest]:
                folded += [centre_outputs(stem), Standardise(norm), ScaleShift(norm)]
                layers = rest
            case [ChannelNorm() as norm, nn.Conv2d() as conv, *rest]:
                folded += [centring(conv.in_channels), Standardise(norm)]
                layers = [absorb_scale(norm, conv), *rest]
            case [Block() as block, *rest]:
                folded.append(FoldedBlock(block))
                layers = rest
            case [nn.Upsample(), nn.Conv2d(out_channels=1) as conv]:
                folded.append(DoubledConv(conv, size // 2))
                layers = []
            case [layer, *rest]:
                folded.append(layer)
                layers = rest
    return nn.Sequential(*folded)


class Standardise(nn.Module):
    """Divides centred channels (N, C, H, W) by their deviation at every pixel: what is left of a folded LayerNorm."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + self.eps)


class ScaleShift(nn.Module):
    """A norm's scale and shift of every channel of (N, C, H, W)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.register_buffer("scale", norm.weight[:, None, None].clone())
        self.register_buffer("shift", norm.bias[:, None, None].clone())

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return x * self.scale + self.shift


class Response(nn.Module):
    """GRN on (N, C, H, W), its shift left to the convolution after it."""

    gamma: Tensor

    def __init__(self, norm: GlobalResponseNorm) -> None:
        super().__init__()
        self.register_buffer("gamma", norm.gamma[:, None, None].clone())

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        energy = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)
        return x * (1 + self.gamma * (energy / (energy.mean(dim=1, keepdim=True) + 1e-6)))


class FoldedBlock(nn.Module):
    """`Block` in (N, C, H, W) throughout."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        norm, widen, gelu, response, narrow = block.pointwise
        assert isinstance(norm, nn.LayerNorm) and isinstance(response, GlobalResponseNorm)
        assert isinstance(widen, nn.Linear) and isinstance(narrow, nn.Linear)
        narrowed = as_conv(narrow)
        assert narrowed.bias is not None
        narrowed.bias += narrow.weight @ response.beta
        self.branch = nn.Sequential(
            block.depthwise,
            centring(block.depthwise.out_channels),
            Standardise(norm),
            absorb_scale(norm, as_conv(widen)),
            gelu,
            Response(response),
            narrowed,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return x + self.branch(x)


class DoubledConv(nn.Module):
    """Bilinear doubling, then a 3 x 3 convolution with zero padding to one channel: (N, C, n, n) to (N, 1, 2n, 2n).

    See `ptychow.networks.doubling`.
    """

    rows: Tensor
    columns: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d, size: int) -> None:
        super().__init__()
        self.register_buffer("rows", doubling_taps(size).clone())
        self.register_buffer("columns", doubling_taps(size).T.contiguous())
        self.sums = like(conv, tap_sums(conv.weight), padding=0)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.clone())

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 2n, 2n)."""
        doubled = spread_taps(self.sums(x), self.rows, self.columns)
        return doubled if self.bias is None else doubled + self.bias


def like(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None = None, **changes: Any) -> nn.Conv2d:
    """A convolution with this weight and bias, else as `conv`."""
    settings: dict[str, Any] = {"stride": conv.stride, "padding": conv.padding, "groups": conv.groups, **changes}
    outputs, inputs, height, width = weight.shape
    made = nn.Conv2d(inputs * settings["groups"], outputs, (height, width), bias=bias is not None, **settings).eval()
    made.weight.copy_(weight)
    if made.bias is not None and bias is not None:
        made.bias.copy_(bias)
    return made


def as_conv(linear: nn.Linear) -> nn.Conv2d:
    """A linear layer over channels as a 1 x 1 convolution."""
    return like(nn.Conv2d(1, 1, 1), linear.weight[:, :, None, None], linear.bias)


def centring(channels: int) -> nn.Conv2d:
    """Subtracts the mean over channels, as a 1 x 1 convolution."""
    return like(nn.Conv2d(1, 1, 1), (torch.eye(channels) - 1 / channels)[:, :, None, None])


def centre_outputs(conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution followed by the subtraction of the mean over channels."""
    assert conv.bias is not None
    return like(conv, conv.weight - conv.weight.mean(dim=0, keepdim=True), conv.bias - conv.bias.mean())


def absorb_scale(norm: nn.LayerNorm, conv: nn.Conv2d) -> nn.Conv2d:
    """A norm's scale and shift followed by a convolution without padding."""
    assert conv.bias is not None and conv.padding == (0, 0)
    return like(
        conv,
        conv.weight * norm.weight[:, None, None],
        conv.bias + (conv.weight * norm.bias[:, None, None]).sum(dim=(1, 2, 3)),
    )


def merge_pair(depthwise: nn.Conv2d, pointwise: nn.Conv2d) -> nn.Conv2d:
    """A depthwise convolution followed by a pointwise one."""
    assert depthwise.bias is not None and pointwise.bias is not None
    mixing = pointwise.weight[:, :, 0, 0]
    return like(
        depthwise, mixing[:, :, None, None] * depthwise.weight[:, 0], mixing @ depthwise.bias + pointwise.bias, groups=1
    )
