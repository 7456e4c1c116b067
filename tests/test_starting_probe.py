"""The probe an iterative reconstruction starts from."""

import numpy as np
import pytest

from ptychow.errors import InputError
from ptychow.scan import Scan
from ptychow.starting_probe import SECONDARY_POWER, add_modes, power_factor, starting_probe

SIZE = 24
Y, X = np.indices((SIZE, SIZE)) - SIZE // 2
PROBE = (30 * np.exp(-((Y - 2) ** 2 + X**2) / 30 + 0.05j * X * Y))[None].astype(np.complex64)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_added_modes_are_orthogonal_weak_and_keep_the_power(count):
    probe = add_modes(PROBE, count)
    flat = probe.reshape(count, -1)
    overlaps = flat.conj() @ flat.T
    total = (np.abs(PROBE) ** 2).sum()
    assert np.trace(overlaps).real == pytest.approx(total, rel=1e-5)
    assert np.abs(overlaps - np.diag(np.diag(overlaps))).max() < 1e-4 * total
    assert np.allclose(np.diag(overlaps).real[1:], SECONDARY_POWER * total, rtol=1e-4)


def test_power_factor_against_parseval():
    pattern = np.random.default_rng(0).uniform(size=(SIZE, SIZE))
    factor = power_factor(PROBE, pattern, np.ones((SIZE, SIZE), bool))
    assert factor == pytest.approx(np.sqrt(pattern.sum() / (np.abs(PROBE) ** 2).sum()), rel=1e-6)
    # A pixel that is masked does not change the scale of a probe that explains the others.
    good = np.ones((SIZE, SIZE), bool)
    good[0, 0] = False
    exact = (np.abs(np.fft.fft2(3 * PROBE, norm="ortho")) ** 2).sum(axis=0)
    assert power_factor(PROBE, np.where(good, exact, 0), good) == pytest.approx(3, rel=1e-5)


def scan(probe):
    return Scan(np.ones((2, SIZE, SIZE)), np.zeros((2, 2)), probe=probe)


def far_field(probe):
    """Mean pattern of a scan without a sample, zero frequency at [0, 0]."""
    return (np.abs(np.fft.fft2(probe, norm="ortho")) ** 2).sum(axis=0)


GOOD = np.ones((SIZE, SIZE), bool)


def test_a_given_probe_is_only_scaled():
    probe, notes = starting_probe(scan(0.1 * PROBE), 1, far_field(PROBE), GOOD)
    assert np.allclose(probe, PROBE, atol=1e-3)
    assert notes == []


def test_without_a_probe_the_mean_pattern_gives_one():
    centred = np.exp(-(Y**2 + X**2) / 20)[None]  # a focus: its far field has no phase
    probe, notes = starting_probe(scan(None), 1, far_field(centred), GOOD)
    assert np.allclose(probe, centred, atol=1e-3)
    assert "no probe in the scan" in notes[0]


def test_the_strongest_modes_are_kept():
    modes = np.concatenate([0.1 * PROBE, PROBE, 0.5 * PROBE])
    probe, notes = starting_probe(scan(modes), 2, far_field(PROBE), GOOD)
    assert np.allclose(probe[1], 0.5 * probe[0])
    assert notes == ["kept the 2 strongest of 3 probe modes"]


@pytest.mark.parametrize("bad", [0 * PROBE, PROBE * np.nan])
def test_a_probe_without_light_is_refused(bad):
    with pytest.raises(InputError, match="probe: zero or not finite"):
        starting_probe(scan(bad), 1, far_field(PROBE), GOOD)
