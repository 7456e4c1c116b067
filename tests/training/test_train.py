"""`train`: labelled scans to a Model, in both recipes."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import TINY, small_scan
from ptychow.detector_fit import fit_preparation
from ptychow.devices import choose_device
from ptychow.errors import InputError, MismatchError, PtychoWError
from ptychow.orientation import Orientation
from ptychow.scan import Geometry, ObjectImage
from ptychow.training import Split, no_split, recipe_named, shares_pixels, train

QUICK = {"settings": TINY, "device": "cpu"}


def recipe(name="ptychow", **changes):
    return recipe_named(name, **{"epochs": 1, "batch_size": 8, **changes})


def with_phase(scan, phase, amplitude=1.0):
    image = (amplitude * np.exp(1j * phase(np.indices(scan.object.image.shape)))).astype(np.complex64)
    return replace(scan, object=ObjectImage(image, scan.object.origin, "test"))


def test_a_model_says_what_it_was_made_of(trained, scan):
    card = trained.model.card
    assert (card.network, card.gauge, card.frame_shape) == ("w3", "constant-free", (32, 32))
    assert card.counts_per_frame == pytest.approx(scan.frames.sum(axis=(1, 2)).mean(), rel=0.05)
    assert card.data[0].fingerprint == scan.fingerprint() and card.data[0].labels == "simulation"
    assert card.geometry.pixel_size == pytest.approx(10e-9)
    assert card.training["epochs"] == 2 and card.training["split"] == "spatial"
    assert {"ptychow", "torch", "numpy"} <= card.versions.keys()
    assert card.recipe["name"] == "ptychow" and card.settings["amplitude_max"] == 2
    np.testing.assert_allclose(trained.model.probe, scan.probe)


def test_parts_of_the_default_split_share_no_object_pixel(trained, scan):
    split = trained.splits[0]
    positions = scan.positions_px
    assert len(split.train) and len(split.validation) and len(split.holdout)
    for part, other in ((split.train, split.validation), (split.train, split.holdout)):
        assert not shares_pixels(positions[other], positions[part], 32).any()


def test_the_papers_recipe_has_absolute_phases_and_divides_amplitudes_by_their_largest(paper_trained, scan):
    card = paper_trained.model.card
    assert card.gauge == "absolute" and card.settings["amplitude_max"] == 1
    assert card.preparation.transform == "raw" and card.preparation.scale == "none"
    assert card.amplitude_scale == pytest.approx(np.abs(scan.object.image).max(), rel=0.1)
    assert paper_trained.splits[0].kind == "random"


def test_the_validation_loss_reported_is_that_of_the_weights_kept(trained, paper_trained):
    for one in (trained, paper_trained):
        history = one.history
        assert one.model.card.training["validation_loss"] == history.validation_loss[history.best_epoch]


def test_the_best_epoch_may_be_the_first(scan):
    # A rate so high that the first epoch is the best one.
    wild = recipe("ptychow", epochs=3, learning_rate=0.3, schedule="constant", gradient_clip=None)
    result = train(scan, "w3", wild, **QUICK)
    assert result.model.card.training["validation_loss"] == min(result.history.validation_loss)


@pytest.mark.parametrize("name", ["ptychow", "paper"])
def test_seeded_and_reproducible(name, scan):
    first, again, other = (train(scan, "w3", recipe(name), seed=seed, **QUICK) for seed in (1, 1, 2))
    weights = [one.model.network.state_dict() for one in (first, again, other)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not all(torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


def test_an_interrupted_training_continues_to_the_same_model(scan, tmp_path):
    settings = recipe(epochs=3)
    checkpoint = tmp_path / "c.safetensors"

    def stop(history):
        if history.epochs == 1:
            raise KeyboardInterrupt

    with pytest.raises(PtychoWError, match="--resume goes on"):
        train(scan, "w3", settings, checkpoint=checkpoint, on_epoch=stop, **QUICK)
    resumed = train(scan, "w3", settings, checkpoint=checkpoint, resume=True, **QUICK)
    straight = train(scan, "w3", settings, **QUICK)
    assert resumed.history.train_loss == straight.history.train_loss
    assert resumed.history.validation_loss == straight.history.validation_loss
    weights = straight.model.network.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in resumed.model.network.state_dict().items())
    with pytest.raises(InputError, match="seed: belongs to another training"):
        train(scan, "w3", settings, checkpoint=checkpoint, resume=True, seed=5, **QUICK)
    turned = fit_preparation(scan, orientation=Orientation.ROTATE_90)
    with pytest.raises(InputError, match="preparation: belongs to another training"):
        train(scan, "w3", settings, checkpoint=checkpoint, resume=True, preparation=turned, **QUICK)
    other = replace(scan, probe=scan.probe * np.linspace(1, 1.1, 32, dtype=np.float32))
    with pytest.raises(InputError, match="probes: belongs to another training"):
        train(other, "w3", settings, checkpoint=checkpoint, resume=True, **QUICK)


def test_a_training_from_another_model_is_not_gone_on_with(scan, trained, tmp_path):
    """As it would give the first one's weights, and record the other."""

    def stop(history):
        if history.epochs == 1:
            raise KeyboardInterrupt

    others = deepcopy(trained.model)
    with torch.no_grad():
        next(others.network.parameters()).add_(0.01)
    common = {"checkpoint": tmp_path / "state.safetensors", "device": "cpu"}
    with pytest.raises(PtychoWError, match="--resume goes on"):
        train(scan, "w3", recipe(epochs=2), start=trained.model, on_epoch=stop, **common)
    with pytest.raises(InputError, match="start: belongs to another training"):
        train(scan, "w3", recipe(epochs=2), start=others, resume=True, **common)


def test_the_device_of_one_training_is_not_that_of_the_next(scan, monkeypatch):
    """accelerate's state is one a process: whoever asked it once got the same device ever after."""
    from accelerate.state import PartialState

    monkeypatch.setattr(PartialState, "default_device", property(lambda _: torch.device("meta")))
    for device in ("cpu", "auto", "cpu"):
        net = train(scan, "w3", recipe(epochs=1), settings=TINY, device=device).model.network
        assert next(net.parameters()).device.type == choose_device(device)


def test_an_amplitude_above_one_is_within_reach_of_the_default_head_only(scan):
    from ptychow.networks import build

    bright = with_phase(scan, lambda grid: 0 * grid[0], amplitude=1.3)
    label = torch.full((1, 1, 32, 32), 1.3)
    for amplitude_max, reaches in ((2.0, True), (1.0, False)):
        torch.manual_seed(0)
        network = build("ptychonn", nconv=2, amplitude_max=amplitude_max).train()
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        pattern = torch.ones(1, 1, 32, 32)
        for _ in range(60):
            optimizer.zero_grad()
            loss = (network(pattern)[0] - label).abs().mean()
            loss.backward()
            optimizer.step()
        assert (float(loss.detach()) < 0.1) == reaches
    assert train(bright, "w3", recipe(), **QUICK).model.card.amplitude_scale == 1
    assert train(bright, "w3", recipe("paper"), **QUICK).model.card.amplitude_scale == pytest.approx(1.3, rel=0.01)


def test_a_steep_ramp_is_rotated_counted_and_warned_about(scan):
    # 6 rad across a patch, about zero after the rotation: +-3 rad, of which the rim lies beyond 0.9 pi.
    steep = with_phase(scan, lambda grid: 6 / 32 * grid[1])
    flat = with_phase(scan, lambda grid: 2 / 32 * grid[1])
    wide = replace(steep, probe=np.ones((1, 32, 32), np.complex64))
    warned = train(wide, "w3", recipe(virtual=0), **QUICK)
    assert len(warned.warnings) == 1 and "phases beyond 0.9 pi" in warned.warnings[0]
    share = float(warned.warnings[0].split(" %")[0])
    assert 100 * (1 - 0.9 * np.pi / 3) / 2 < share < 100 * (1 - 0.9 * np.pi / 3) * 2
    assert not train(replace(flat, probe=wide.probe), "w3", recipe(virtual=0), **QUICK).warnings


def test_several_scans_of_one_instrument(scan):
    result = train([scan, small_scan(1)], "w3", recipe(), **QUICK)
    assert [record.name for record in result.model.card.data] == ["small-0.cxi", "small-1.cxi"]
    assert len(result.splits) == 2


def test_label_patches_train_with_the_papers_recipe(scan):
    from ptychow.patches import PatchExtractor

    patches = PatchExtractor(scan.object, 32)(scan.positions_px)
    published = replace(scan, object=None, probe=None, label_patches=patches)
    result = train(published, "w3", recipe("paper"), **QUICK)
    assert result.model.probe is None and result.model.card.data[0].labels == "label patches"


def test_frames_are_binned_to_the_size_asked_for():
    scan = small_scan(lines=14)
    result = train(scan, "w3", recipe(virtual=0), size=16, split="none", **QUICK)
    assert result.model.patch_size == 16


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda s: {"object": None, "probe": None}, {}, "small-0.cxi: probe: .*ptychow label"),
        (lambda s: {"object": None}, {}, "small-0.cxi: object: has no labels"),
        (lambda s: {"object": ObjectImage(0 * s.object.image, s.object.origin, "")}, {}, "object: zero wherever"),
        (lambda s: {"object": ObjectImage(np.nan * s.object.image, s.object.origin, "")}, {}, "object: NaN"),
        (lambda s: {"frames": 0 * s.frames}, {}, "small-0.cxi: frames: the frames hold no counts"),
        (lambda s: {"frames": s.frames[:, :30, :30], "probe": None}, {"recipe": "paper"}, "sizes that work: 16 "),
        (lambda s: {}, {"size": 48}, "cannot be brought to 48 x 48"),
        (lambda s: {}, {"seed": -1}, "seed: negative"),
        (lambda s: {}, {"precision": "bf-16"}, "precision: unknown; found bf-16, expected fp32 or bf16"),
        (lambda s: {"probe": s.probe[:, 8:24, 8:24]}, {}, r"probe: of another size than the frames; found \(16, 16\)"),
        (lambda s: {}, {"splits": []}, "splits: not one a scan; found 0, expected 1"),
        (lambda s: {}, {"splits": [no_split(999)]}, "splits: no such frame; found 998"),
        (lambda s: {"metadata": {"label_gauge": "constant-free"}}, {"recipe": "paper"}, "label_patches: the teacher"),
        (lambda s: {}, {"network": "w9"}, "network: unknown network; found w9"),
        (lambda s: {}, {"device": "abacus"}, "device: not available here"),
        (lambda s: {}, {"validation": -0.2}, "validation: not a fraction"),
        (lambda s: {}, {"holdout": 0.45, "validation": 0.45}, "too small for these blocks"),
    ],
)
def test_bad_input_is_named(change, options, message, scan):
    options = {**QUICK, **options}
    arguments = {"network": "w3", "recipe": recipe(options.pop("recipe", "ptychow")), **options}
    with pytest.raises(InputError, match=message):
        train(replace(scan, **change(scan)), **arguments)


def test_no_scan_and_a_recipe_of_nothing(scan):
    with pytest.raises(InputError, match="scans: no scan to train on"):
        train([], "w3", recipe(), **QUICK)
    with pytest.raises(InputError, match="recipe: nothing to train on"):
        train(scan, "w3", recipe(virtual=1), **QUICK)


@pytest.mark.parametrize("name", ["ptychow", "paper"])
def test_frames_without_counts_are_no_pairs(name, scan):
    dark = np.arange(0, len(scan), 3)
    frames = scan.frames.copy()
    frames[dark] = 0
    blinking = replace(scan, frames=frames)
    result = train(blinking, "w3", recipe(name), split="none", **QUICK)
    assert result.warnings[0] == f"small-0.cxi: {len(dark)} frames without counts left out"
    lit = np.setdiff1d(np.arange(len(scan)), dark)
    assert np.array_equal(result.splits[0].train, lit) and result.model.card.data[0].train == lit.tolist()
    # As if they had not been there.
    mean = train(scan.select(lit), "w3", recipe(name), split="none", **QUICK).model.card.preparation.mean_input
    if name == "ptychow":
        np.testing.assert_allclose(result.model.card.preparation.mean_input, mean, rtol=0.02)


def test_going_on_with_another_instrument_must_be_forced(trained, scan):
    foreign = replace(scan, geometry=Geometry(pixel_size=30e-9))
    with pytest.raises(MismatchError, match="object pixel of 30 nm"):
        train(foreign, recipe=recipe(), start=trained.model, device="cpu")
    forced = train(foreign, recipe=recipe(), start=trained.model, force=True, device="cpu")
    assert any("object pixel of 30 nm" in words for words in forced.warnings)


def test_a_scan_that_only_validates_needs_no_physics_of_its_own(scan):
    nothing = np.zeros(0, np.int64)
    other = small_scan(1)
    splits = [no_split(len(scan)), Split("none", nothing, np.arange(len(other)), nothing)]
    result = train([scan, other], "w3", recipe(physics="amplitude", batch_size=32), splits=splits, **QUICK)
    assert len(result.history.validation_loss) == 1


def test_scans_of_different_instruments_are_refused(scan):
    other = replace(small_scan(1), geometry=Geometry(pixel_size=12e-9))
    with pytest.raises(InputError, match=r"small-1.cxi: another pixel size .* found 12 nm, expected 10 nm"):
        train([scan, other], "w3", recipe(), **QUICK)
    with pytest.raises(InputError, match="another frame size"):
        train([scan, replace(other, frames=other.frames[:, :16, :16])], "w3", recipe(), **QUICK)
