"""Properties that every network of the registry has."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychow.errors import InputError
from ptychow.networks import NETWORKS, build
from ptychow.networks.base import _polar
from ptychow.networks.count import count

VARIANTS = [
    *((name, {}) for name in NETWORKS),
    ("ptychonn", {"nconv": 16, "batch_norm": True}),
    ("ptychonn", {"nconv": 16, "levels": 4}),
    ("w3", {"heads": "complex", "kernel": 5}),
    ("w3f", {"patch": 8, "dims": [32, 48], "depths": [1, 1], "decoder_dims": [32], "decoder_depths": [1]}),
]
every_network = pytest.mark.parametrize(
    ("name", "options"),
    VARIANTS,
    ids=[" ".join([name, *map(str, options.values())]) for name, options in VARIANTS],
)


def make(name, options=None, seed=0):
    torch.manual_seed(seed)
    return build(name, **(options or {})).eval()


def patterns(count=2, size=64, seed=1):
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "parameters", "macs", "table5_gflops"),
    [
        ("ptychonn", 1_247_074, 402_259_968, 154.863),
        ("w1", 1_780_007, 157_716_384, 60.99),
        ("w2", 6_655_934, 1_133_328_896, 436.31),
        ("w3", 103_016, 27_675_520, 10.92),
    ],
)
def test_counts_are_the_specified(name, parameters, macs, table5_gflops):
    network = make(name)
    cost = count(network)
    assert (cost.parameters, cost.macs) == (parameters, macs)
    assert cost.table5_flops / 1e9 == pytest.approx(table5_gflops, abs=0.005)
    spec = NETWORKS[name]
    assert round(cost.parameters / 1e3) == round(spec.paper_parameters / 1e3)
    assert cost.table5_flops == pytest.approx(spec.paper_flops, rel=0.014)


def test_ptychonn_flops_per_pattern():
    assert count(make("ptychonn")).flops == 806_576_128


def test_cost_grows_with_the_area_and_the_network_stays_as_it_was():
    network = build("w3").train()
    # The two linear layers of each squeeze-and-excitation see one pixel whatever the frame's size.
    fixed = 3 * (32 * 2 + 2 * 32)
    assert count(network, 128).macs - fixed == 4 * (count(network, 64).macs - fixed)
    assert network.training and not any(module._forward_hooks for module in network.modules())


def test_ptychonn_state_dict_has_the_published_names():
    names = make("ptychonn").state_dict().keys()
    places = {
        "encoder": (0, 2, 5, 7, 10, 12),
        "decoder1": (0, 2, 5, 7, 10, 12, 15),
        "decoder2": (0, 2, 5, 7, 10, 12, 15),
    }
    expected = {f"{part}.{n}.{kind}" for part, ns in places.items() for n in ns for kind in ("weight", "bias")}
    assert set(names) == expected


@every_network
@pytest.mark.parametrize("size", [64, 128, 256])
def test_shapes_types_and_ranges(name, options, size):
    with torch.no_grad():
        amplitude, phase = make(name, options)(patterns(1, size))
    for output in (amplitude, phase):
        assert output.shape == (1, 1, size, size) and output.dtype == torch.float32 and output.isfinite().all()
    assert amplitude.min() >= 0 and phase.abs().max() <= np.pi


@every_network
def test_deterministic_and_the_same_whatever_else_is_in_the_batch(name, options):
    network, batch = make(name, options), patterns(3)
    with torch.no_grad():
        together = torch.stack(network(batch))
        torch.testing.assert_close(torch.stack(make(name, options)(batch)), together, rtol=0, atol=0)
        alone = torch.cat([torch.stack(network(batch[i : i + 1])) for i in range(3)], dim=1)
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


@every_network
def test_pattern_matters(name, options):
    network = make(name, options)
    with torch.no_grad():
        first, second = torch.stack(network(patterns(seed=1))), torch.stack(network(patterns(seed=2)))
    assert (first - second).abs().max() > 0


@every_network
def test_gradients_reach_every_parameter(name, options):
    # Evaluating, because a training BatchNorm hides the bias before it.
    network = make(name, options)
    amplitude, phase = network(4 * patterns(4))
    (amplitude.sum() + phase.sum()).backward()
    idle = [key for key, value in network.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert not idle


@every_network
def test_channels_last_equals_contiguous(name, options):
    network, batch = make(name, options), patterns()
    with torch.no_grad():
        plain = torch.stack(network(batch))
        network = network.to(memory_format=torch.channels_last)
        last = torch.stack(network(batch.to(memory_format=torch.channels_last)))
    torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-4)


@every_network
def test_settings_rebuild_the_network(name, options):
    network = make(name, {**options, "amplitude_max": 1.5})
    written = json.loads(json.dumps(network.settings))
    assert written == network.settings
    again = make(name, written, seed=5)
    again.load_state_dict(network.state_dict())
    assert again.settings == network.settings
    with torch.no_grad():
        assert torch.equal(torch.stack(again(patterns())), torch.stack(network(patterns())))


@every_network
def test_heads_are_computed_in_full_precision(name, options):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        amplitude, phase = make(name, options)(patterns())
    assert amplitude.dtype == phase.dtype == torch.float32


def test_amplitude_max_is_a_setting_without_parameters():
    one, two = make("w3", {"amplitude_max": 1.0}), make("w3", {"amplitude_max": 2.0})
    two.load_state_dict(one.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(two(patterns())[0], 2 * one(patterns())[0])
        for parameter in two.amplitude[-1].parameters():
            parameter.fill_(100.0)
        assert two(patterns())[0].max() == pytest.approx(2)


@settings(deadline=None)
@given(st.lists(st.complex_numbers(max_magnitude=1e3, allow_nan=False), min_size=1, max_size=20))
def test_complex_heads_give_modulus_and_angle_with_finite_gradients(values):
    z = torch.tensor([*values, 0j, 1e-30 + 1e-30j], dtype=torch.complex128)
    real, imaginary = z.real.clone().requires_grad_(), z.imag.clone().requires_grad_()
    amplitude, phase = _polar(real, imaginary)
    torch.testing.assert_close(torch.polar(amplitude, phase), z, rtol=1e-6, atol=2e-6)
    (amplitude.sum() + phase.sum()).backward()
    assert real.grad.isfinite().all() and imaginary.grad.isfinite().all()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 1, 60, 64), (1, 1, 64, 100), (1, 2, 64, 64), (1, 64, 64), (1, 1, 0, 64)])
def test_wrong_inputs_are_named(name, shape):
    with pytest.raises(InputError, match=r"multiples of (8|16), such as 64|expected \(N, 1, H, W\)"):
        make(name)(torch.zeros(shape))


def test_unknown_names_and_settings_list_the_known():
    with pytest.raises(InputError, match="ptychonn, w1, w2, w3"):
        build("w4")
    with pytest.raises(InputError, match="nconv, levels, decoder_widths, batch_norm, phase_only, amplitude_max, heads"):
        build("ptychonn", filters=3)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("w3", {"heads": "cartesian"}),
        ("w3", {"amplitude_max": 0.0}),
        ("w3", {"amplitude_max": float("nan")}),
        ("w3", {"depths": [1, 2, 3]}),
        ("w3", {"dims": [32, 32, 32, 8]}),
        ("w3", {"kernel": 4}),
        ("w3f", {"patch": 0}),
        ("w3f", {"dims": []}),
        ("w3f", {"depths": [1, 1]}),
        ("w3f", {"decoder_dims": [64, 0]}),
        ("ptychonn", {"levels": 5}),
        ("ptychonn", {"nconv": 0}),
    ],
)
def test_impossible_settings_are_refused(name, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        build(name, **wrong)


def test_listing_the_networks_does_not_import_torch():
    code = "import sys, ptychow.networks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
