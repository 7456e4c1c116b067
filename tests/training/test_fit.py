"""The loop itself: reproducible, resumable to the bit, streamed or not, and clear about what went wrong."""

import numpy as np
import pytest
import torch

from conftest import TINY
from ptychow.detector_fit import fit_preparation
from ptychow.errors import InputError, PtychoWError
from ptychow.networks import build
from ptychow.stitch import probe_weight
from ptychow.training import recipe_named
from ptychow.training.data import LabelledFrames, PairSet
from ptychow.training.fit import fit, steps_per_epoch

RECIPE = recipe_named("ptychow", epochs=4, batch_size=8, virtual=0)


@pytest.fixture(scope="module")
def data(scan):
    weight = probe_weight(scan.probe)
    weight = weight / weight.mean()
    labelled = LabelledFrames(scan, fit_preparation(scan, standardise=True), weight, constant_free=True)
    return labelled, weight


@pytest.fixture
def run(data):
    """Train and give (history, weights)."""
    labelled, weight = data

    def train(recipe=RECIPE, memory_limit=6e9, frames=24, **options):
        torch.manual_seed(0)
        network = build("w3", amplitude_max=recipe.amplitude_max, **TINY)
        pairs, validation = (
            PairSet([(labelled, indices)], memory_limit) for indices in (np.arange(frames), np.arange(60, 68))
        )
        history = fit(network, pairs, validation, weight, recipe, **{"device": "cpu", "seed": 1, **options})
        return history, {name: value.clone() for name, value in network.state_dict().items()}

    return train


def assert_same(first, second):
    (history, weights), (other_history, other_weights) = first, second
    for name in ("train_loss", "validation_loss", "learning_rate", "best_epoch"):
        assert getattr(history, name) == getattr(other_history, name), name
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


def interrupted_after(epochs):
    def on_epoch(history):
        if history.epochs == epochs:
            raise KeyboardInterrupt

    return on_epoch


def test_the_same_seed_gives_the_same_weights_another_seed_others(run):
    first = run()
    assert_same(first, run())
    assert first[0].train_loss != run(seed=2)[0].train_loss


def test_streaming_from_disk_changes_nothing(run):
    assert_same(run(), run(memory_limit=0))


@pytest.mark.parametrize("keep", ["best", "last"])
def test_an_interrupted_training_continues_to_the_same_bits(keep, run, tmp_path):
    recipe = RECIPE.model_copy(update={"keep": keep})
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(PtychoWError, match=r"interrupted after 2 of 4 epochs; 2 epochs are in .*--resume goes on"):
        run(recipe, checkpoint=checkpoint, on_epoch=interrupted_after(2))
    assert_same(run(recipe, checkpoint=checkpoint, resume=True), run(recipe))


def test_an_interrupt_within_an_epoch_loses_only_that_epoch(run, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"

    def on_step(epoch, step, loss):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(PtychoWError, match="interrupted after 1 of 4"):
        run(checkpoint=checkpoint, on_step=on_step)
    assert_same(run(checkpoint=checkpoint, resume=True), run())


def test_an_interrupt_before_the_first_epoch_promises_nothing(run, tmp_path):
    def on_step(epoch, step, loss):
        raise KeyboardInterrupt

    with pytest.raises(PtychoWError, match=r"interrupted after 0 of 4 epochs$"):
        run(checkpoint=tmp_path / "c.safetensors", on_step=on_step)
    assert not list(tmp_path.iterdir())


def test_resuming_a_finished_training_gives_it_again(run, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    done = run(checkpoint=checkpoint)
    assert_same(done, run(checkpoint=checkpoint, resume=True))


def test_another_trainings_checkpoint_is_refused(run, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    run(RECIPE.model_copy(update={"epochs": 1}), checkpoint=checkpoint, identity={"network": "w1", "seed": 1})
    with pytest.raises(InputError, match=r"network: belongs to another training; found w1, expected w3"):
        run(checkpoint=checkpoint, resume=True, identity={"network": "w3", "seed": 1})


def test_a_recipe_without_the_fields_that_came_later_is_the_same(run, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    now = RECIPE.model_dump()
    before = {name: value for name, value in now.items() if name not in ("physics", "physics_weight")}
    run(RECIPE.model_copy(update={"epochs": 1}), checkpoint=checkpoint, identity={"recipe": before})
    history, _ = run(checkpoint=checkpoint, resume=True, identity={"recipe": now})
    assert history.epochs == RECIPE.epochs
    with pytest.raises(InputError, match="recipe: belongs to another training"):
        run(checkpoint=checkpoint, resume=True, identity={"recipe": {**now, "seed": 1}})


def test_the_best_weights_are_those_of_the_lowest_validation_loss(run):
    history, weights = run(RECIPE.model_copy(update={"keep": "best", "learning_rate": 0.05, "schedule": "constant"}))
    assert history.validation_loss[history.best_epoch] == min(history.validation_loss)
    last, last_weights = run(RECIPE.model_copy(update={"keep": "last", "learning_rate": 0.05, "schedule": "constant"}))
    assert last.best_epoch is None
    same = all(torch.equal(weights[name], last_weights[name]) for name in weights)
    assert same == (history.best_epoch == history.epochs - 1)


def test_training_learns(run):
    history, _ = run(RECIPE.model_copy(update={"epochs": 12, "scale_jitter": 0.0}))
    assert np.mean(history.train_loss[-2:]) < 0.8 * history.train_loss[0]


@pytest.mark.parametrize("schedule", ["constant", "one-cycle", "cyclic"])
def test_schedules_stay_below_their_peak(schedule, run):
    recipe = RECIPE.model_copy(update={"schedule": schedule, "epochs": 8})
    rates = run(recipe)[0].learning_rate
    assert len(rates) == 8 and min(rates) > 0 and max(rates) <= recipe.learning_rate * (1 + 1e-9)
    if schedule == "one-cycle":
        assert rates[-1] < 0.05 * recipe.learning_rate < rates[1]
    if schedule == "constant":
        assert set(rates) == {recipe.learning_rate}


def test_bf16_trains_close_to_fp32(run):
    half, full = run(precision="bf16")[0], run()[0]
    assert half.train_loss[0] == pytest.approx(full.train_loss[0], rel=0.02)
    assert half.train_loss[-1] < 0.7 * half.train_loss[0]


def test_fewer_frames_than_a_batch_make_one_step(run):
    steps = []
    run(frames=5, on_step=lambda epoch, step, loss: steps.append(step))
    assert steps == [1, 2, 3, 4] and steps_per_epoch(5, RECIPE) == 1 and steps_per_epoch(24, RECIPE) == 3


def test_nothing_to_train_on_is_refused(run):
    with pytest.raises(InputError, match="no frames to train on"):
        run(frames=0)


def test_a_diverging_training_is_a_failure_not_a_model(run):
    with pytest.raises(PtychoWError, match=r"diverged in epoch \d.*lower --learning-rate"):
        run(RECIPE.model_copy(update={"learning_rate": 1e30, "gradient_clip": None, "schedule": "constant"}))


def test_a_validation_loss_that_is_no_number_is_a_failure_too(run, monkeypatch):
    monkeypatch.setattr("ptychow.training.fit._Loop.evaluate", lambda *_: float("nan"))
    with pytest.raises(PtychoWError, match=r"diverged in epoch 1 \(validation loss nan\)"):
        run()


@pytest.mark.parametrize("device", ["nonsense", "cpu:nonsense", ""])
def test_an_unknown_device_is_refused(device, run):
    with pytest.raises(InputError, match="device: not available here"):
        run(device=device)
