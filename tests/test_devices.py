import pytest
import torch

from ptychow.devices import choose_device, has_bfloat16
from ptychow.errors import InputError


def test_the_cpu_is_always_there():
    assert choose_device("cpu") == "cpu"
    assert torch.device(choose_device("auto")).type in ("cpu", "cuda", "mps", "xpu")


def test_auto_takes_an_accelerator_where_it_is_supported(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == "cuda"
    assert choose_device("auto", ("cpu", "mps")) == ("mps" if torch.backends.mps.is_available() else "cpu")
    assert choose_device("cuda:1") == "cuda:1"


@pytest.mark.parametrize("name", ["cuda", "nonsense", "", "cpu:x", "cpu:", "cpu0", "CPU", "cpu cpu"])
def test_what_is_not_there_is_refused_with_what_is(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"device: not available here; .*expected auto, .*cpu"):
        choose_device(name)


def test_only_processors_are_asked_for_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert has_bfloat16("cuda")
    # All processors with AVX-512 do; those with less only by chance.
    assert has_bfloat16("cpu") or "AVX512" not in torch.backends.cpu.get_cpu_capability()
