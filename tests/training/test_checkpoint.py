import json

import pytest
import torch
from torch import nn

from ptychow.errors import InputError
from ptychow.tensor_files import write_tensors
from ptychow.training.checkpoint import clone_state, load_checkpoint, save_checkpoint


def one_step(optimizer_class, seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(4, 4))
    optimizer = optimizer_class(network.parameters(), lr=1e-3)
    network(torch.randn(2, 1, 6, 6)).square().mean().backward()
    optimizer.step()
    return network, optimizer


@pytest.mark.parametrize("optimizer_class", [torch.optim.Adam, torch.optim.AdamW])
def test_what_is_saved_comes_back_bit_by_bit(optimizer_class, tmp_path):
    network, optimizer = one_step(optimizer_class)
    record = [{"train_loss": [0.1 + 0.2, 1e-300], "best_epoch": None}, {"seed": 3}]
    save_checkpoint(tmp_path / "c", {"network": network.state_dict()}, optimizer.state_dict(), record)
    groups, state, found = load_checkpoint(tmp_path / "c")
    assert found == record
    for name, value in network.state_dict().items():
        assert torch.equal(groups["network"][name], value) and groups["network"][name].dtype == value.dtype
    other, resumed = one_step(optimizer_class, seed=1)
    resumed.load_state_dict(state)
    other.load_state_dict(groups["network"])
    for left, right in zip(network.parameters(), other.parameters(), strict=True):
        right.grad = left.grad.clone()
    for one in (optimizer, resumed):
        one.step()
    for left, right in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)
    assert json.dumps(resumed.state_dict()["param_groups"]) == json.dumps(optimizer.state_dict()["param_groups"])


def test_a_clone_does_not_change_with_the_network():
    network, optimizer = one_step(torch.optim.Adam)
    before = clone_state(network)
    optimizer.step()
    assert not torch.equal(before["0.weight"], network[0].weight)


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "foreign"])
def test_what_is_no_checkpoint_is_refused_with_what_to_do(damage, tmp_path):
    path = tmp_path / "c.safetensors"
    network, optimizer = one_step(torch.optim.Adam)
    save_checkpoint(path, {"network": network.state_dict()}, optimizer.state_dict(), [{}, {}])
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("no checkpoint")
    else:
        write_tensors(path, {"a": torch.zeros(2)}, {"other": "text"})
    with pytest.raises(InputError, match=r"c.safetensors: .*Train again without --resume"):
        load_checkpoint(path)
