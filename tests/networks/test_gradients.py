"""Gradients of our own against torch's of the same formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from ptychow.networks.gradients import GlobalResponse, LargeDepthwise


def response_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """The oracle, as ConvNeXt V2 writes it."""
    energy = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
    return beta + x * (1 + gamma * energy / energy.mean(dim=-1, keepdim=True))


def draws(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def assert_same(ours: Tensor, theirs: Tensor, inputs: list[Tensor], tolerance: float) -> None:
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    weights = torch.linspace(-1, 1, ours.numel(), dtype=ours.dtype).reshape(ours.shape)
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((theirs * weights).sum(), inputs),
        strict=True,
    ):
        assert a.dtype == b.dtype and a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


def test_response_norm() -> None:
    inputs = draws((3, 6, 5, 8), (8,), (8,))
    # energies are float32 whatever comes
    assert_same(GlobalResponse.apply(*inputs), response_norm(*inputs), inputs, 1e-5)


@pytest.mark.parametrize("size", [(7, 5), (2, 3), (16, 16)])
@pytest.mark.parametrize("kernel", [1, 7, 9])
def test_depthwise(size: tuple[int, int], kernel: int) -> None:
    inputs = draws((2, 3, *size), (3, 1, kernel, kernel), (3,))
    x, weights, bias = inputs
    theirs = conv2d(x, weights, bias, padding=kernel // 2, groups=3)
    assert_same(LargeDepthwise.apply(x, weights, bias), theirs, inputs, 1e-10)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_depthwise_of_bfloat16_computes_in_float32(layout: torch.memory_format) -> None:
    x, weights, bias = draws((2, 4, 8, 8), (4, 1, 9, 9), (4,), dtype=torch.float32)
    half = x.detach().to(torch.bfloat16, memory_format=layout).requires_grad_()
    theirs = conv2d(half.float(), weights, bias, padding=4, groups=4)
    ours = LargeDepthwise.apply(half, weights, bias)
    assert ours.dtype == torch.float32
    assert_same(ours, theirs, [half, weights, bias], 1e-5)


def test_only_what_is_asked_for_is_returned() -> None:
    x, weights, bias = draws((1, 2, 6, 6), (2, 1, 3, 3), (2,))
    x.requires_grad_(False)
    LargeDepthwise.apply(x, weights, bias).sum().backward()
    assert weights.grad is not None and x.grad is None
