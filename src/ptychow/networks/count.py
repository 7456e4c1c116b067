"""What a network costs: parameters, multiply-accumulates, and FLOPs by the counting rule of Table 5.

"FLOPs" in Table 5 of Xing et al. 2024 are 64 patterns (a batch) times 3 (forward, and backward at twice
forward) times the forward FLOPs of a pattern, counted as calflops 0.3.2 does: a convolution 2 per
multiply-accumulate and 1 per biased output; a linear layer 2 per multiply-accumulate; BatchNorm (evaluating)
2 and LayerNorm 5 per element; ReLU, GELU, pooling and upsampling 1 per input element; everything else nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

TABLE5_FACTOR = 64 * 3

_PER_INPUT_ELEMENT: dict[type[nn.Module], int] = {
    nn.BatchNorm2d: 2,
    nn.LayerNorm: 5,
    nn.ReLU: 1,
    nn.GELU: 1,
    nn.MaxPool2d: 1,
    nn.AdaptiveAvgPool2d: 1,
    nn.Upsample: 1,
}


@dataclass(frozen=True)
class Cost:
    """parameters: trainable numbers. macs, flops: of one pattern forward. table5_flops: as Table 5 counts."""

    parameters: int
    macs: int
    flops: int

    @property
    def table5_flops(self) -> int:
        """FLOPs of a training step of 64 patterns."""
        return TABLE5_FACTOR * self.flops


def count(network: nn.Module, size: int = 64) -> Cost:
    """The cost of `network` for patterns of size x size, from a forward pass on zeros."""
    macs = flops = 0

    def tally(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs, flops
        module_macs, module_flops = _layer_cost(module, inputs[0], output)
        macs += module_macs
        flops += module_flops

    # Containers do not match any counted type: only leaves are tallied.
    hooks: list[Any] = [module.register_forward_hook(tally) for module in network.modules() if _is_counted(module)]
    was_training = network.training
    parameters = list(network.parameters())
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 1, size, size, device=parameters[0].device, dtype=parameters[0].dtype))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return Cost(sum(parameter.numel() for parameter in parameters if parameter.requires_grad), macs, flops)


def _is_counted(module: nn.Module) -> bool:
    return isinstance(module, (nn.Conv2d, nn.Linear, *_PER_INPUT_ELEMENT))


def _layer_cost(module: nn.Module, x: Tensor, y: Tensor) -> tuple[int, int]:
    """(MACs, FLOPs) of a layer that made y of x."""
    if isinstance(module, nn.Conv2d):
        macs = y.numel() * module.weight[0].numel()
        return macs, 2 * macs + (0 if module.bias is None else y.numel())
    if isinstance(module, nn.Linear):
        macs = y.numel() * module.in_features
        return macs, 2 * macs
    return 0, x.numel() * next(cost for kind, cost in _PER_INPUT_ELEMENT.items() if isinstance(module, kind))
