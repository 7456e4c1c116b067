"""Two layers of the W-Nets with gradients of their own, because torch's take most of a training step on a CPU.

Values are torch's; the tests hold the gradients against torch's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import conv2d, pad
from torch.nn.grad import conv2d_input


class GlobalResponse(Function):
    """ConvNeXt V2's GRN (Woo et al. 2023): y = beta + x (1 + gamma r), r a channel's energy over the channels' mean.

    x: (N, H, W, C); gamma, beta: (C,). Gradient in three passes over the image where torch takes eight: this
    layer is bound by memory traffic.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """Same shape and dtype as x."""
        # Lines are added in x's own precision: in float32 torch copies the whole image first, and takes nine times as
        # long. What rounds differently for every line hardly shows in their sum.
        lines = x.square().sum(dim=2, keepdim=True)
        energy = (lines.sum(dim=1, keepdim=True, dtype=torch.float32) + 1e-12).sqrt()
        mean = energy.mean(dim=-1, keepdim=True) + 1e-6
        scale = 1 + gamma * (energy / mean)
        ctx.save_for_backward(x, gamma, energy, mean)
        return torch.addcmul(beta.to(x.dtype), x, scale.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of x, gamma and beta."""
        (of_output,) = gradients
        x, gamma, energy, mean = ctx.saved_tensors
        response = energy / mean
        of_scale = (of_output * x).sum(dim=(1, 2), keepdim=True).to(energy.dtype)
        of_response = gamma * of_scale
        of_energy = (of_response - (of_response * response).mean(dim=-1, keepdim=True)) / mean
        direct = of_output * (1 + gamma * response).to(x.dtype)
        of_x = torch.addcmul(direct, x, (of_energy / energy).to(x.dtype))
        return of_x, (of_scale * response).sum(dim=(0, 1, 2)), of_output.sum(dim=(0, 1, 2)).to(gamma.dtype)


class LargeDepthwise(Function):
    """Depthwise convolution with a large odd kernel, stride 1, size kept. x: (N, C, H, W), in float32 or cast to it.

    torch's gradient of the kernel takes five times as long as that of the input; here it is one product of matrices
    for each row of the kernel. x is kept as it came, in half the memory where it came in bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        """Same shape as x, dtype of the kernel."""
        ctx.save_for_backward(x, kernel)
        return conv2d(x.to(kernel.dtype), kernel, bias, padding=kernel.shape[-1] // 2, groups=len(kernel))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of x, kernel and bias."""
        (of_output,) = gradients
        x, kernel = ctx.saved_tensors
        size = kernel.shape[-1]
        of_x = conv2d_input(x.shape, kernel, of_output, padding=size // 2, groups=len(kernel))
        of_kernel = kernel_gradient(x.to(kernel.dtype), of_output, size)
        return of_x.to(x.dtype), of_kernel, of_output.sum(dim=(0, 2, 3))


def kernel_gradient(x: Tensor, of_output: Tensor, size: int) -> Tensor:
    """Of a depthwise kernel: (C, 1, size, size) from the layer's input and its output's gradient, both (N, C, H, W).

    For every row i of the kernel one matrix a channel, M[w, v] = sum over images and rows of g[h, w] x[h + i, v];
    the gradient of column j is the sum of the diagonal v - w = j of it.
    """
    _, channels, rows, columns = x.shape
    half = size // 2

    def rows_first(images: Tensor) -> Tensor:
        """(C, H, N, W): a shift by rows is then a slice."""
        return images.permute(1, 2, 0, 3)

    gradient = rows_first(of_output).reshape(channels, -1, columns)
    inputs = pad(rows_first(x), (0, 0, 0, 0, half, half))
    products = torch.stack(
        [torch.bmm(gradient.mT, inputs[:, row : row + rows].reshape(channels, -1, columns)) for row in range(size)],
        dim=1,
    )
    beside = pad(products, (half, half))
    along, down = beside.stride(2), beside.stride(3)
    diagonals = beside.as_strided((channels, size, size, columns), (*beside.stride()[:2], down, along + down))
    return diagonals.sum(dim=-1)[:, None]
