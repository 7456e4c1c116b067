"""Rewritten networks are the networks: layer by layer and whole, borders included."""

import pytest
import torch
from torch import nn

from ptychow.engines.fold import DoubledConv, folded
from ptychow.networks import NETWORKS, build
from ptychow.networks.wnet import GlobalResponseNorm


def as_trained(name, **settings):
    """A network whose norms are not the identity any more, and whose output depends on its input."""
    torch.manual_seed(0)
    network = build(name, **settings).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and name == "ptychonn":
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                module.weight.uniform_(0.5, 2)
                module.bias.normal_(0, 0.3)
            if isinstance(module, GlobalResponseNorm):
                module.gamma.normal_(0, 0.5)
                module.beta.normal_(0, 0.5)
    return network


CASES = [
    *((name, {}) for name in NETWORKS if name != "w2"),  # w2 is w1 with other numbers
    ("ptychonn", {"batch_norm": True, "levels": 4, "nconv": 8}),
    ("ptychonn", {"phase_only": True, "nconv": 8}),
    ("w3", {"heads": "complex", "kernel": 5, "amplitude_max": 1.5}),
]


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_the_folded_network_is_the_network(name, settings, merge):
    network = as_trained(name, **settings)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    patterns = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():
        expected = network(patterns)
        found = folded(network, 32, merge)(patterns)
    for part, one, other in zip(("amplitude", "phase"), found, expected, strict=True):
        known = part == "amplitude" and settings.get("phase_only")
        assert known or other.std() > 1e-3  # else anything would agree
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", [2, 5, 16])
def test_doubling_and_convolution_are_one_map_up_to_the_border(size, bias):
    torch.manual_seed(size)
    doubling = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    conv = nn.Conv2d(6, 1, 3, padding=1, bias=bias)
    x = torch.randn(3, 6, size, size)
    with torch.no_grad():
        torch.testing.assert_close(DoubledConv(conv, size)(x), conv(doubling(x)), rtol=0, atol=1e-6)


def test_merging_leaves_no_depthwise_layer_in_the_decoders():
    network = as_trained("w3")
    groups = {
        merge: [layer.groups for layer in folded(network, 32, merge).first if isinstance(layer, nn.Conv2d)]
        for merge in (False, True)
    }
    assert max(groups[False]) == 32 and groups[True] == [1, 1, 1]
