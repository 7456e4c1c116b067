"""Training on measured frames alone: what is differentiated is right, and what it leads to is the object."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from conftest import TINY, small_scan, smooth_object
from ptychow.detector import Preparation
from ptychow.detector_fit import fit_preparation
from ptychow.errors import InputError
from ptychow.patches import PatchExtractor
from ptychow.stitch import Canvas, probe_weight, solve_constants
from ptychow.training import LABEL_FREE, no_split, physics, recipe_named, train
from ptychow.training.assemble import assemble
from ptychow.training.label_free import calibrate
from ptychow.training.physics import PhysicsLoss, frozen_statistics, mismatch, through_common_object
from ptychow.training.virtual import expected_counts

KINDS = ("amplitude", "poisson")


@pytest.fixture(scope="module")
def group(scan):
    """Positions between pixels, the true patches there, and what the detector would expect."""
    truth = smooth_object((80, 80))
    positions = np.array([30.0, 40.0]) + np.random.default_rng(0).uniform(-4, 4, (6, 2))
    patches = PatchExtractor(truth, 32)(positions)
    return positions, patches, expected_counts(scan.probe[None], patches)


def test_patches_that_agree_pass_through_their_common_object(scan, group):
    positions, patches, _ = group
    weight = probe_weight(scan.probe)
    turned = patches * np.exp(1j * np.arange(6))[:, None, None]  # each with a constant of its own
    common = through_common_object(torch.from_numpy(turned.astype(np.complex64)), positions, weight).numpy()
    constant = np.vdot(patches, common)
    lit = weight > 0.1
    difference = (common * np.conj(constant) / abs(constant) - patches)[:, lit]
    assert np.abs(difference).mean() < 0.01


def test_the_common_object_is_the_canvas(scan, group):
    """Whatever the patches, on whole pixels: what is cut out is what the Canvas holds."""
    positions = np.round(group[0])
    rng = np.random.default_rng(1)
    patches = (1 + 0.1 * rng.normal(size=(6, 32, 32)) + 0.1j * rng.normal(size=(6, 32, 32))).astype(np.complex64)
    weight = probe_weight(scan.probe)
    common = through_common_object(torch.from_numpy(patches), positions, weight).numpy()
    constants = solve_constants(patches, positions, weight)
    canvas = Canvas(positions, weight)
    canvas.add(patches * constants[:, None, None], positions)
    image = canvas.image()
    for position, patch in zip(positions, common, strict=True):
        row, column = (position - 16 - canvas.origin).astype(int)
        np.testing.assert_allclose(patch, image[row : row + 32, column : column + 32], atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_mismatch_is_least_where_patches_explain_the_frames(kind, scan, group):
    _, patches, expected = group
    probe, good = torch.from_numpy(scan.probe), torch.ones(32, 32, dtype=torch.bool)
    frames = torch.from_numpy(expected)
    found = [
        float(mismatch(torch.from_numpy(tried.astype(np.complex64)), probe, frames, good, kind))
        for tried in (patches, 1.05 * patches, np.ones_like(patches), np.zeros_like(patches))
    ]
    assert found[0] < 1e-3 < found[1] < found[2] < found[3]
    if kind == "amplitude":
        assert found[3] == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_pixels_do_not_count(kind, scan, group):
    _, patches, expected = group
    probe, good = torch.from_numpy(scan.probe), torch.ones(32, 32, dtype=torch.bool)
    good[16, 10] = False
    frames = torch.from_numpy(expected)
    spoilt = frames.clone()
    spoilt[:, 16, 10] = 1e6
    clean, with_faults = (float(mismatch(torch.from_numpy(patches), probe, f, good, kind)) for f in (frames, spoilt))
    assert clean == with_faults


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind, scan, group, monkeypatch):
    positions, patches, expected = group
    # The constants are held, not differentiated.
    monkeypatch.setattr(physics, "solve_constants", lambda patches, *_, **__: np.ones(len(patches), np.complex128))
    weight, good = probe_weight(scan.probe).astype(np.float64), torch.ones(32, 32, dtype=torch.bool)
    rng = np.random.default_rng(2)
    own = torch.from_numpy(np.abs(patches) * (1 + 0.1 * rng.normal(size=patches.shape)) + 0j)
    probe, frames = torch.from_numpy(scan.probe.astype(np.complex128)), torch.from_numpy(expected.astype(np.float64))

    def loss(images):
        return mismatch(through_common_object(images, positions, weight), probe, frames, good, kind)

    start = own.clone().requires_grad_()
    loss(start).backward()
    direction = torch.from_numpy(rng.normal(size=patches.shape) + 1j * rng.normal(size=patches.shape))
    step = 1e-4
    slope = float(loss(own + step * direction) - loss(own - step * direction)) / (2 * step)
    assert float((start.grad.conj() * direction).real.sum()) == pytest.approx(slope, rel=1e-3)


class FreePatches(nn.Module):
    """In place of a network: a patch of its own for every frame, found by the frame's own pattern."""

    def __init__(self, inputs, start):
        super().__init__()
        self.inputs = inputs
        self.amplitude = nn.Parameter(start.abs())
        self.phase = nn.Parameter(start.angle())

    def forward(self, patterns):
        which = torch.cdist(patterns.flatten(1), self.inputs.flatten(1)).argmin(dim=1)
        return self.amplitude[which][:, None], self.phase[which][:, None]


@pytest.mark.parametrize("kind", KINDS)
def test_lowering_the_mismatch_leads_to_the_object_not_to_a_trivial_one(kind):
    scan = small_scan(lines=4, counts=1e5)
    preparation = fit_preparation(scan)
    loss = PhysicsLoss(scan, preparation, scan.probe, np.arange(len(scan)), kind=kind, size=8)
    inputs = torch.from_numpy(preparation.with_scale_of(scan).apply(scan.frames[:]))
    truth = PatchExtractor(scan.object, 32)(scan.positions_px)
    weight = probe_weight(scan.probe)

    def correlation(images):
        """Median over the frames, of what the patches have in common: that is the picture they give."""
        patches = through_common_object(torch.from_numpy(images), scan.positions_px, weight).numpy()
        both = np.abs((weight * np.conj(patches) * truth).sum((1, 2)))
        return np.median(
            both / np.sqrt((weight * abs(patches) ** 2).sum((1, 2)) * (weight * abs(truth) ** 2).sum((1, 2)))
        )

    # Half of the contrast, as of a network that dares too little.
    rough = np.abs(truth) * np.exp(0.5j * np.angle(truth * np.conj(truth.mean())))
    network = FreePatches(inputs, torch.from_numpy(rough.astype(np.complex64)))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    losses = []
    for step in range(50):
        value = loss(network, np.random.default_rng(step))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    found = torch.polar(network.amplitude, network.phase).detach().numpy()
    assert losses[-1] < 0.2 * losses[0]
    assert 1 - correlation(found) < 0.2 * (1 - correlation(rough.astype(np.complex64)))


def test_statistics_of_batch_norms_stay(trained):
    network = trained.model.network.train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    with frozen_statistics(network):
        network(torch.randn(2, 1, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    assert all(m.training for m in network.modules())
    network.eval()


@pytest.fixture(scope="module")
def start(scan):
    recipe = LABEL_FREE.model_copy(update={"epochs": 3, "steps_per_epoch": 20, "batch_size": 8})
    return calibrate(scan, "w3", recipe, settings=TINY, device="cpu").model


def test_every_scan_has_its_own_bad_pixels_and_probe(scan):
    """The second scan has twice the light, and pixels that show anything but light."""
    other, mask = small_scan(1, counts=4e4), np.ones((32, 32), bool)
    frames = other.frames[:].copy()
    frames[:, 14:19, 12:15], mask[14:19, 12:15] = 50000, False
    recipe = recipe_named("ptychow", physics="amplitude", virtual=1)
    spoilt = replace(other, frames=frames, mask=mask)
    terms = assemble([scan, spoilt], recipe, splits=[no_split(len(scan))] * 2).physics("amplitude")
    alone = PhysicsLoss(spoilt, fit_preparation(spoilt), spoilt.probe, np.arange(len(spoilt)))

    class Flat(nn.Module):
        """Light, but no sample."""

        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, patterns):
            return torch.ones_like(patterns), torch.zeros_like(patterns)

    found, expected = (float(term(Flat(), np.random.default_rng(0))) for term in (terms[1], alone))
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("labels", [False, True], ids=["alone", "with labels"])
def test_training_by_physics_lowers_the_mismatch_of_a_model(labels, scan, start):
    changes = {} if labels else {"virtual": 1, "steps_per_epoch": 20}
    recipe = recipe_named("ptychow", physics="amplitude", epochs=2, batch_size=8, optimizer="muon", **changes)
    given = scan if labels else replace(scan, object=None)
    result = train(given, "w3", recipe, start=start, splits=[no_split(len(scan))], device="cpu")
    loss = PhysicsLoss(scan, start.card.preparation, start.probe, np.arange(len(scan)))

    def mean_mismatch(model):
        with torch.no_grad():
            return np.mean([float(loss(model.network, np.random.default_rng(k))) for k in range(6)])

    assert mean_mismatch(result.model) < 0.9 * mean_mismatch(start)
    card = result.model.card
    assert card.training["started_from"] == start.card.training and len(card.data) == 2
    assert card.preparation.mean_input.tolist() == start.card.preparation.mean_input.tolist()


def test_a_model_of_absolute_phases_is_not_gone_on_from(scan, paper_trained):
    with pytest.raises(InputError, match="does not go on"):
        train(scan, "w3", recipe_named("ptychow", epochs=1), start=paper_trained.model, device="cpu")


def test_what_physics_needs(scan):
    frames = np.arange(4)
    with pytest.raises(InputError, match="no probe"):
        PhysicsLoss(scan, fit_preparation(scan), None, frames)
    with pytest.raises(InputError, match="no frames"):
        PhysicsLoss(scan, fit_preparation(scan), scan.probe, frames[:0])
    with pytest.raises(InputError, match="resampled"):
        PhysicsLoss(scan, Preparation(resample=16), scan.probe, frames)
    with pytest.raises(InputError, match="complex loss"):
        train(scan, "w3", recipe_named("paper", physics="amplitude"), device="cpu")


def test_frames_without_counts_are_left_out(trained, scan):
    frames = scan.frames.copy()
    frames[::2] = 0
    network = trained.model.network
    losses = []
    for one in (replace(scan, frames=frames), scan):
        loss = PhysicsLoss(one, trained.model.prepare_for(scan), scan.probe, np.arange(len(scan)))
        losses.append([float(loss(network, np.random.default_rng(k)).detach()) for k in range(4)])
    assert np.mean(losses[0]) < 2 * np.mean(losses[1])
    dark = PhysicsLoss(
        replace(scan, frames=0 * frames), trained.model.prepare_for(scan), scan.probe, np.arange(len(scan))
    )
    with pytest.raises(InputError, match="no frame with counts"):
        dark(network, np.random.default_rng(0))
