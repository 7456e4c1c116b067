"""Published checkpoints predict here what they predict there; anything else is refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from ptychow.cli import _application
from ptychow.errors import InputError
from ptychow.model import Model
from ptychow.optics.twins import twin
from ptychow.ptychonn_checkpoint import import_ptychonn

CASES = {
    # name: nconv, levels, decoder widths (of nconv), BatchNorm, biases beside it, numbers an activation takes, branches
    "2020 publication": (32, 3, (4, 2, 2), False, True, 1, ("decoder1", "decoder2")),
    "small": (16, 4, (8, 4, 2, 1), False, True, 1, ("decoder1", "decoder2")),
    "small with BatchNorm": (16, 4, (8, 4, 2, 1), True, False, 1, ("decoder1", "decoder2")),
    "phase only": (16, 4, (8, 4, 2, 1), False, True, 1, ("decoder2",)),
    "phase only, placeholders for norms": (16, 4, (8, 4, 2, 1), False, True, 2, ("decoder_phase",)),
    "BatchNorm after biases": (16, 3, (4, 2, 1), True, True, 1, ("decoder_amplitude", "decoder_phase")),
}


def published(case, seed=0):
    """A random state dict in the published layout: one entry an item of the flat Sequentials."""
    nconv, levels, widths, norm, bias, gap, branches = case
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    state = {}

    def layer(part, number, inputs, outputs):
        state[f"{part}.{number}.weight"] = random(outputs, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
        if bias:
            state[f"{part}.{number}.bias"] = 0.1 * random(outputs)
        if norm:
            state[f"{part}.{number + 1}.weight"] = 1 + 0.1 * random(outputs)
            state[f"{part}.{number + 1}.bias"] = 0.1 * random(outputs)
            state[f"{part}.{number + 1}.running_mean"] = 0.1 * random(outputs)
            state[f"{part}.{number + 1}.running_var"] = 1 + 0.1 * random(outputs).abs()
            state[f"{part}.{number + 1}.num_batches_tracked"] = torch.tensor(7)
        return number + (2 if norm else gap) + 1

    down = [nconv * 2**level for level in range(levels)]
    ladders = {"encoder": (1, down)} | {branch: (down[-1], [nconv * width for width in widths]) for branch in branches}
    for part, (inputs, filters) in ladders.items():
        number = 0
        for width in filters:
            number = layer(part, number, inputs, width)
            number = layer(part, number, width, width) + 1  # and the pooling or upsampling
            inputs = width
        if part != "encoder":
            layer(part, number, inputs, 1)
    return state


def oracle(state, case, patterns):
    """The published forward pass, by hand."""
    norm, branches = case[3], case[-1]

    def numbers(part):
        names = (name.split(".") for name in state if name.startswith(part + "."))
        four = {int(n) for p, n, t in names if t == "weight" and state[f"{p}.{n}.{t}"].ndim == 4}
        return sorted(four)

    def convolve(part, number, x):
        x = F.conv2d(x, state[f"{part}.{number}.weight"], state.get(f"{part}.{number}.bias"), padding=1)
        if not norm:
            return x
        own = {name: state[f"{part}.{number + 1}.{name}"][:, None, None] for name in ("weight", "bias")}
        mean, var = (state[f"{part}.{number + 1}.running_{name}"][:, None, None] for name in ("mean", "var"))
        return (x - mean) / torch.sqrt(var + 1e-5) * own["weight"] + own["bias"]

    x = patterns
    for first, second in _pairs(numbers("encoder")):
        x = F.max_pool2d(F.relu(convolve("encoder", second, F.relu(convolve("encoder", first, x)))), 2)
    outputs = {}
    for branch in branches:
        *body, last = numbers(branch)
        y = x
        for first, second in _pairs(body):
            y = F.relu(convolve(branch, second, F.relu(convolve(branch, first, y))))
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
        outputs[branch] = convolve(branch, last, y)
    amplitude = next((torch.sigmoid(outputs[b]) for b in branches if b in ("decoder1", "decoder_amplitude")), None)
    phase = next(np.pi * torch.tanh(outputs[b]) for b in branches if b in ("decoder2", "decoder_phase"))
    return torch.ones_like(phase) if amplitude is None else amplitude, phase


def _pairs(numbers):
    return list(zip(numbers[::2], numbers[1::2], strict=True))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_predicts_what_the_published_module_predicts(case, tmp_path):
    state = published(case)
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "best_model.pth")
    model = import_ptychonn(tmp_path / "best_model.pth", size=32)
    model.save(tmp_path / "model.safetensors")
    model = Model.load(tmp_path / "model.safetensors")
    patterns = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 4
    # In double precision: how single precision is rounded differs between processors.
    state, patterns = {name: value.double() for name, value in state.items()}, patterns.double()
    with torch.no_grad():
        found = model.network.double()(patterns)
    for mine, theirs in zip(found, oracle(state, case, patterns), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-6, atol=1e-6)
    assert model.card.gauge == "absolute"


def test_small_published_networks_have_their_published_size(tmp_path):
    torch.save(published(CASES["phase only"]), tmp_path / "m.pth")
    network = import_ptychonn(tmp_path / "m.pth").network
    # ReconSmallPhaseModel has 734,882 parameters with BatchNorm after every convolution: 480 + 480 + 1 more.
    assert sum(p.numel() for p in network.parameters()) == 734_882 - 961


def test_the_scan_fills_the_contract(tmp_path):
    scan = twin("sim-26id", 3, lines=slice(0, 6), columns=slice(0, 6), workers=1)
    torch.save(published(CASES["2020 publication"]), tmp_path / "m.pth")
    model = import_ptychonn(tmp_path / "m.pth", scan, inputs="standardised")
    inputs = model.card.preparation.apply(scan.frames[:])
    assert model.card.counts_per_frame == pytest.approx(2e6, rel=0.2)
    assert model.probe is not None and model.card.geometry.pixel_size == pytest.approx(10e-9, rel=1e-3)
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-3)
    assert inputs.std() == pytest.approx(1, rel=1e-3)
    assert model.check(scan) == []
    unknown = import_ptychonn(tmp_path / "m.pth")
    assert any("count rate" in text for text in unknown.check(scan))


@pytest.mark.parametrize("damage", ["missing", "text", "pickle", "other", "short", "odd", "shape"])
def test_what_is_no_checkpoint_is_refused(damage, tmp_path):
    path, state = tmp_path / "m.pth", published(CASES["small"])
    if damage == "text":
        path.write_text("no weights")
    elif damage == "pickle":
        torch.save({"net": torch.nn.Linear(2, 2)}, path)  # a whole module: code would have to run
    elif damage == "other":
        torch.save({"layer.weight": torch.ones(3)}, path)
    elif damage == "short":
        torch.save({name: value for name, value in state.items() if "decoder2" not in name}, path)
    elif damage == "odd":  # an encoder with one convolution more
        last = max(int(name.split(".")[1]) for name in state if name.startswith("encoder"))
        width = next(v for name, v in state.items() if name == "encoder.0.weight").shape[0]
        more = {
            f"encoder.{last + 3}.weight": torch.ones(width, width, 3, 3),
            f"encoder.{last + 3}.bias": torch.ones(width),
        }
        torch.save({**state, **more}, path)
    elif damage == "shape":
        torch.save({**state, "decoder2.2.weight": torch.ones(7, 3, 3, 3)}, path)
    with pytest.raises(InputError, match=r"m\.pth") as refused:
        import_ptychonn(path)
    if damage in ("text", "pickle"):
        assert str(refused.value) == (
            f"{path}: not a PyTorch state dict that can be read without running code. "
            "Save it with torch.save(model.state_dict(), FILE)"
        )


def test_standardised_inputs_need_a_scan(tmp_path):
    torch.save(published(CASES["small"]), tmp_path / "m.pth")
    with pytest.raises(InputError, match="--scan"):
        import_ptychonn(tmp_path / "m.pth", inputs="standardised")


def test_command(tmp_path):
    torch.save(published(CASES["small with BatchNorm"]), tmp_path / "best_model.pth")
    arguments = ["import-ptychonn", str(tmp_path / "best_model.pth"), "--output", str(tmp_path / "m.safetensors")]
    result = CliRunner().invoke(_application(arguments), arguments)
    assert result.exit_code == 0, result.output
    assert "nconv 16, 4 levels, with BatchNorm" in result.output
    assert Model.load(tmp_path / "m.safetensors").card.network == "ptychonn"
