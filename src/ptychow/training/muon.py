"""Muon: momentum whose matrices are orthogonalised before they are applied (K. Jordan et al., 2024).

Every kernel is taken as a matrix of one row an output channel. Five Newton-Schulz steps bring the singular values of
its momentum near 1, so that directions the gradient hardly shows are learnt as fast as those it is full of. Steps are
scaled to the size of AdamW's (Liu et al., arXiv:2502.16982), so that both take one learning rate. Biases, norms and
kernels that mix no channels (depthwise) are left to AdamW. `torch.optim.Muon` takes matrices only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
# Coefficients of the quintic whose iteration takes singular values in (0, 1] to about 1 fastest (Jordan et al.).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
# Root mean square of AdamW's steps at rate 1 (Liu et al.).
ADAMW_STEP = 0.2


class Muon(torch.optim.Optimizer):
    """Muon for the parameters of groups with `muon: True`, AdamW (betas 0.9, 0.999) for the others.

    groups: of parameters, each with `muon` and `weight_decay`. half: orthogonalise in bfloat16, which is exact enough
    (the singular values need only be near 1) and, with matrix units, four times as fast.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, half: bool = False) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "muon": False})
        self._half = half

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step along the gradients there are."""
        for group in self.param_groups:
            rate = group["lr"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - rate * group["weight_decay"])
                update = self._muon if group["muon"] else self._adamw
                parameter.add_(update(parameter), alpha=-rate)

    def _muon(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].mul_(MOMENTUM).add_(parameter.grad)
        nesterov = parameter.grad.add(momentum, alpha=MOMENTUM)  # type: ignore[union-attr]
        matrix = nesterov.reshape(len(nesterov), -1)
        matrix = orthogonalise(matrix.bfloat16() if self._half else matrix).to(parameter.dtype)
        return (ADAMW_STEP * max(matrix.shape) ** 0.5 * matrix).reshape(parameter.shape)

    def _adamw(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        gradient, step = parameter.grad, float(state["step"])
        state["mean"].lerp_(gradient, 0.1)
        state["square"].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        deviation = (state["square"] / (1 - 0.999**step)).sqrt_().add_(1e-8)
        return state["mean"] / (1 - 0.9**step) / deviation


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """The (m, n) matrix with its singular values brought near 1 (0.7 to 1.2), singular vectors unchanged."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The network's trainable parameters: kernels that mix channels for Muon; other kernels; the rest, undecayed."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    kernels = [parameter for parameter in parameters if parameter.ndim > 1]
    mixing = [kernel for kernel in kernels if kernel.shape[0] > 1 and kernel.shape[1] > 1]
    others = [kernel for kernel in kernels if not (kernel.shape[0] > 1 and kernel.shape[1] > 1)]
    return [
        {"params": mixing, "weight_decay": weight_decay, "muon": True},
        {"params": others, "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1]},
    ]
