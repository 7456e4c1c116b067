"""The networks of the paper benchmark: the paper's own, W1 with a part left out, and a row of W-Nets by one rule.

Importing this adds "w1-without" to `ptychow.networks.NETWORKS`, as any network is added: one class, one line.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from common import Contender
from ptychow.errors import InputError
from ptychow.networks import NETWORKS, NetworkSpec
from ptychow.networks.wnet import Block, GlobalResponseNorm, SqueezeExcite, w1


class PlainBlock(Block):
    """A ConvNeXt V2 block that does not add its input."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return super().forward(x) - x


def w1_without(*, part: str = "attention", amplitude_max: float = 1.0, heads: str = "polar") -> nn.Module:
    """W1 without its channel "attention", its global "response-norm", its "residuals", its 9 x 9 "kernel" (3 x 3), or
    its own "initial-weights" (torch's).
    """
    network = w1(amplitude_max=amplitude_max, heads=heads, **({"kernel": 3} if part == "kernel" else {}))
    if part == "attention":
        _replace(network, SqueezeExcite)
    elif part == "response-norm":
        _replace(network, GlobalResponseNorm)
    elif part == "residuals":
        for module in network.modules():
            if isinstance(module, Block):
                module.__class__ = PlainBlock
    elif part == "initial-weights":
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.reset_parameters()
    elif part != "kernel":
        raise InputError("W1 has no such part", field="part", found=part, expected=", ".join(PARTS))
    network.settings = {"part": part, "amplitude_max": amplitude_max, "heads": heads}
    return network


PARTS = {
    "attention": "W1 without channel attention",
    "response-norm": "W1 without GRN",
    "kernel": "W1 with 3 x 3 for 9 x 9",
    "residuals": "W1 without residuals",
    "initial-weights": "W1 with torch's initial weights",
}
NETWORKS["w1-without"] = NetworkSpec("W1 with a part left out", __name__, w1_without.__name__)


def _replace(network: nn.Module, kind: type[nn.Module]) -> None:
    """Put the identity where a module of this kind was."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kind):
                setattr(parent, name, nn.Identity())


def scaled(width: int) -> dict[str, Any]:
    """Settings of the W-Net of this width: W1 is that of 24.

    Channels: width x (1, 2, 4, 8) to the nearest multiple of eight, at least 8 in the stem and 16 behind it; blocks:
    W1's (2, 2, 4, 2) times the root of width / 24, at least one; decoders: the stages' channels backward, as in W1.
    """
    dims = [max(8 if level == 0 else 16, 8 * round(width * 2**level / 8)) for level in range(4)]
    depths = [max(1, round(depth * (width / 24) ** 0.5)) for depth in (2, 2, 4, 2)]
    return {"depths": depths, "dims": dims, "decoder_dims": dims[2::-1]}


WIDTHS = (2, 6, 10, 16, 24, 44)
# The paper's, and W3-fast: what the tables have.
MAIN = ("ptychonn", "w1", "w3", "w2", "w3f")
LEARNERS = {
    contender.name: contender
    for contender in (
        Contender("ptychonn", "ptychonn", {}, "PtychoNN"),
        Contender("w1", "w1", {}, "W1"),
        Contender("w2", "w2", {}, "W2"),
        Contender("w3", "w3", {}, "W3"),
        Contender("w3f", "w3f", {}, "W3-fast"),
        Contender("ptychonn-bn", "ptychonn", {"batch_norm": True}, "PtychoNN + BatchNorm"),
        *(Contender(f"w1-no-{part}", "w1-without", {"part": part}, title) for part, title in PARTS.items()),
        *(Contender(f"w-{width}", "w1", scaled(width), f"W-Net of width {width}") for width in WIDTHS if width != 24),
    )
}
