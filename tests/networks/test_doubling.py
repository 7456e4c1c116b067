"""The short way through the last two layers against the layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from ptychow.networks import build
from ptychow.networks.doubling import DoublingDecoder, doubled_conv, doubling_taps


@pytest.mark.parametrize("shape", [(3, 5, 8, 6), (1, 2, 1, 1), (2, 4, 32, 32)])
def test_values_and_gradients_are_those_of_the_layers(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    conv = nn.Conv2d(shape[1], 1, 3, padding=1).double()
    assert conv.bias is not None
    ours = doubled_conv(x, conv.weight, conv.bias)
    layers = conv(interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
    torch.testing.assert_close(ours, layers)
    weights = torch.randn_like(layers)
    inputs = [x, conv.weight, conv.bias]
    of_ours, of_layers = (torch.autograd.grad((y * weights).sum(), inputs) for y in (ours, layers))
    for one, other in zip(of_ours, of_layers, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["ptychonn", "w1", "w2", "w3"])
def test_a_decoder_that_trains_gives_what_its_layers_give(name: str) -> None:
    torch.manual_seed(0)
    decoders = [part for part in build(name).modules() if isinstance(part, DoublingDecoder)]
    assert len(decoders) == 2
    for decoder in decoders:
        features = torch.randn(2, first_channels(decoder), 4, 4)
        decoder.train()
        torch.testing.assert_close(decoder(features), nn.Sequential(*decoder)(features), rtol=1e-4, atol=1e-5)


def first_channels(decoder: nn.Module) -> int:
    return next(part.in_channels for part in decoder.modules() if isinstance(part, nn.Conv2d))


def test_what_is_kept_for_the_next_call_can_be_trained_through() -> None:
    doubling_taps.cache_clear()
    with torch.inference_mode():
        doubling_taps(4)
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    doubled_conv(x, torch.randn(1, 2, 3, 3), torch.zeros(1)).sum().backward()
    assert x.grad is not None
