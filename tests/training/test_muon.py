"""Muon: singular values near 1, AdamW for the rest, and quicker than AdamW where a problem is badly conditioned."""

import pytest
import torch
from torch import nn

from ptychow.networks import NETWORKS, build
from ptychow.training.muon import Muon, orthogonalise, parameter_groups


@pytest.mark.parametrize("shape", [(8, 8), (16, 64), (64, 16)])
def test_orthogonalised_matrices_keep_their_singular_vectors(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    turned = u.mT @ orthogonalise(matrix) @ v.mT
    found = turned.diagonal()
    torch.testing.assert_close(turned, torch.diag(found), rtol=0, atol=1e-9)
    well = values / values.norm() > 0.02
    assert found[well].min() > 0.6 and found.max() < 1.25


@pytest.mark.parametrize("network", NETWORKS)
def test_every_parameter_is_in_one_group(network):
    net = build(network)
    groups = parameter_groups(net, 0.01)
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert len(grouped) == len(list(net.parameters())) == len({id(parameter) for parameter in grouped})
    assert all(parameter.ndim > 1 and parameter.shape[1] > 1 for parameter in groups[0]["params"])
    assert all(parameter.ndim == 1 for parameter in groups[2]["params"]) and "weight_decay" not in groups[2]


def test_parameters_without_muon_take_the_steps_of_adamw():
    torch.manual_seed(0)
    mine, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(mine.state_dict())
    first = Muon([{"params": list(mine.parameters()), "weight_decay": 0.1}], 1e-2)
    second = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(5):
        x = torch.randn(7, 5)
        for net, optimizer in ((mine, first), (theirs, second)):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_learns_directions_the_gradient_hardly_shows():
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -2, 16)
    target = torch.randn(16, 16, generator=generator) / 4

    def loss_after(make):
        layer = nn.Linear(16, 16, bias=False)
        nn.init.zeros_(layer.weight)
        optimizer = make(layer)
        for step in range(200):
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * (1 - step / 200)
            x = torch.randn(32, 16, generator=generator) * scales
            optimizer.zero_grad()
            ((layer(x) - x @ target.mT) ** 2).mean().backward()
            optimizer.step()
        return float((layer.weight.detach() - target).square().mean())

    muon = loss_after(lambda layer: Muon(parameter_groups(layer, 0.0), 0.05))
    sgd = loss_after(lambda layer: torch.optim.SGD(layer.parameters(), 0.05, momentum=0.95, nesterov=True))
    assert muon < 0.1 * sgd


def test_state_survives_a_checkpoint():
    torch.manual_seed(0)
    nets = [nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3)]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [Muon(parameter_groups(net, 0.01), 1e-2) for net in nets]
    patterns = torch.randn(6, 2, 8, 8)

    def step(which):
        optimizers[which].zero_grad()
        nets[which](patterns).square().mean().backward()
        optimizers[which].step()

    for _ in range(2):
        step(0)
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    step(0), step(1)
    torch.testing.assert_close(nets[0].weight, nets[1].weight)


def test_half_precision_orthogonalises_as_well():
    torch.manual_seed(0)
    whole, half = nn.Linear(64, 32, bias=False), nn.Linear(64, 32, bias=False)
    half.load_state_dict(whole.state_dict())
    gradient, before = torch.randn(32, 64), whole.weight.detach().clone()
    for layer, is_half in ((whole, False), (half, True)):
        layer.weight.grad = gradient.clone()
        Muon(parameter_groups(layer, 0.0), 1.0, is_half).step()
    steps = [layer.weight.detach() - before for layer in (whole, half)]
    assert half.weight.dtype == torch.float32
    torch.testing.assert_close(steps[1], steps[0], rtol=0, atol=0.05 * float(steps[0].abs().max()))
