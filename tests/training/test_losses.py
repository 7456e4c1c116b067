import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ptychow.training.losses import LOSSES, complex_loss, uniform_loss, weighted_loss


def patches(seed, count=3, size=8):
    rng = np.random.default_rng(seed)
    amplitude = rng.uniform(0.2, 1.4, (count, size, size)).astype(np.float32)
    phase = rng.uniform(-3, 3, (count, size, size)).astype(np.float32)
    weight = rng.uniform(0, 1, (size, size)).astype(np.float32)
    return torch.from_numpy(amplitude), torch.from_numpy(phase), torch.from_numpy(weight / weight.mean())


@given(st.integers(0, 1000), st.lists(st.floats(-3.1, 3.1), min_size=3, max_size=3))
def test_the_complex_loss_does_not_see_a_constant_phase_of_each_patch(seed, constants):
    amplitude, phase, weight = patches(seed)
    labels = torch.polar(*patches(seed + 1)[:2])
    turned = phase + torch.tensor(constants)[:, None, None]
    assert complex_loss(amplitude, turned, labels, weight) == pytest.approx(
        float(complex_loss(amplitude, phase, labels, weight)), rel=1e-4
    )


@given(st.integers(0, 1000), st.floats(-3.1, 3.1))
def test_a_perfect_prediction_costs_nothing_whatever_its_constant(seed, constant):
    amplitude, phase, weight = patches(seed)
    labels = torch.polar(amplitude, phase)
    assert complex_loss(amplitude, phase + constant, labels, weight) < 2e-4
    assert uniform_loss(amplitude, labels.angle(), labels, weight) < 1e-5


def test_the_complex_loss_is_its_formula():
    amplitude, phase, weight = patches(5)
    labels = torch.polar(*patches(6)[:2])
    prediction = amplitude.numpy() * np.exp(1j * phase.numpy())
    total = []
    for one, label in zip(prediction, labels.numpy(), strict=True):
        overlap = (weight.numpy() * one.conj() * label).sum()
        total.append((weight.numpy() * np.abs(overlap / abs(overlap) * one - label)).mean())
    assert complex_loss(amplitude, phase, labels, weight) == pytest.approx(np.mean(total), rel=1e-4)


def test_the_complex_loss_ignores_what_is_not_lit():
    amplitude, phase, weight = patches(7)
    weight = weight.clone()
    weight[0] = 0
    labels = torch.polar(*patches(8)[:2])
    spoilt = amplitude.clone()
    spoilt[:, 0] = 1.9
    assert complex_loss(spoilt, phase, labels, weight) == pytest.approx(
        float(complex_loss(amplitude, phase, labels, weight)), rel=1e-6
    )


def test_the_uniform_loss_is_the_sum_of_two_mean_absolute_errors():
    amplitude, phase, weight = patches(1)
    labels = torch.polar(*patches(2)[:2])
    expected = np.abs(amplitude.numpy() - np.abs(labels.numpy())).mean()
    expected += np.abs(phase.numpy() - np.angle(labels.numpy())).mean()
    assert uniform_loss(amplitude, phase, labels, weight) == pytest.approx(expected, rel=1e-5)
    assert uniform_loss(amplitude, phase, labels, 0 * weight) == uniform_loss(amplitude, phase, labels, weight)


def test_the_weighted_loss_is_the_uniform_one_where_every_pixel_weighs_alike():
    amplitude, phase, weight = patches(9)
    labels = torch.polar(*patches(10)[:2])
    assert weighted_loss(amplitude, phase, labels, torch.ones_like(weight)) == pytest.approx(
        float(uniform_loss(amplitude, phase, labels, weight)), rel=1e-5
    )
    half = torch.zeros_like(weight)
    half[: len(half) // 2] = 2
    part = [value[:, : len(half) // 2] for value in (amplitude, phase, labels)]
    assert weighted_loss(amplitude, phase, labels, half) == pytest.approx(float(uniform_loss(*part, half)), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_even_where_prediction_and_label_meet(name):
    amplitude, phase, weight = patches(3)
    labels = torch.polar(amplitude, phase)
    amplitude.requires_grad_(), phase.requires_grad_()
    LOSSES[name](amplitude, phase, labels, weight).backward()
    assert torch.isfinite(amplitude.grad).all() and torch.isfinite(phase.grad).all()
