from dataclasses import replace

import numpy as np
import pytest

from conftest import small_scan, smooth_object
from ptychow.cli import main
from ptychow.errors import InputError, PtychoWError
from ptychow.formats import read_scan, write_scan
from ptychow.optics.beam import gaussian_beam, incoherent_modes, scale_to_counts
from ptychow.optics.propagation import far_field
from ptychow.optics.twins import twin
from ptychow.patches import PatchExtractor
from ptychow.position_refinement import (
    ShiftSearch,
    Step,
    minimum,
    outliers,
    overshoots,
    refine_positions,
)
from ptychow.solver.measurement import Measurement

pytest.importorskip("ptychi")

SIZE = 32
SHORT = (
    Step(epochs=4, radius=1),
    Step(epochs=4, radius=1),
    Step(epochs=6, radius=0.5, gradient=3),
    Step(6, gradient=1),
)
BRIEF = (Step(epochs=2, radius=1),)


def stage_error(positions, truth):
    """Median distance after removing the mean offset."""
    difference = positions - truth
    return np.median(np.hypot(*(difference - difference.mean(axis=0)).T))


@pytest.fixture(scope="module")
def spoiled():
    """A small scan in metres, its true positions in pixels, and the same scan with wrong ones."""
    part = slice(40, 58, 2)
    scan = twin("sim-26id-wide", lines=part, columns=part, workers=1)
    wrong = scan.positions + 10e-9 * np.random.default_rng(0).normal(0, 2, scan.positions.shape)
    return scan.positions_px, replace(scan, positions=wrong, object=None)


@pytest.fixture(scope="module")
def refined(spoiled):
    return refine_positions(spoiled[1], reach=6, schedule=SHORT)


def test_positions_come_back(spoiled, refined):
    truth, scan = spoiled
    before = stage_error(scan.positions_px, truth)
    assert before > 1.9
    assert stage_error(refined.scan.positions_px, truth) < 0.5 * before


def test_what_it_says(spoiled, refined):
    scan = spoiled[1]
    assert np.array_equal(refined.scan.nominal_positions, scan.positions)
    assert np.allclose(refined.scan.positions - scan.positions, refined.moved_px * 10e-9)
    assert np.allclose(refined.moved_px.mean(axis=0), 0)
    assert [done.number for done in refined.rounds] == [1, 2, 3, 4]
    assert refined.rounds[-1].error < refined.rounds[0].error
    assert refined.rounds[-1].moved < 0.5 * refined.rounds[0].moved
    assert refined.uncertain.mean() < 0.1


def test_commanded_positions_are_kept(spoiled):
    first = spoiled[1].positions + 1e-9
    again = refine_positions(replace(spoiled[1], nominal_positions=first), reach=2, schedule=BRIEF)
    assert np.array_equal(again.scan.nominal_positions, first)


def test_right_positions_stay(spoiled):
    truth, scan = spoiled
    found = refine_positions(replace(scan, positions=truth * 10e-9), reach=3, schedule=SHORT[2:])
    assert stage_error(found.scan.positions_px, truth) < 0.5


def test_rounds_are_reported(spoiled):
    seen = []
    found = refine_positions(spoiled[1], reach=2, schedule=BRIEF, on_round=seen.append)
    assert tuple(seen) == found.rounds
    assert len(seen) == len(BRIEF)


def test_frames_without_counts_are_left_out(spoiled):
    frames = spoiled[1].frames[:].copy()
    frames[::9] = 0
    found = refine_positions(replace(spoiled[1], frames=frames), reach=2, schedule=BRIEF)
    lit = np.flatnonzero(np.arange(len(frames)) % 9)
    np.testing.assert_array_equal(found.scan.nominal_positions, spoiled[1].positions[lit])
    assert len(found.moved_px) == len(found.uncertain) == len(lit)


def test_nothing_is_claimed_of_frames_without_an_object(spoiled):
    scan = spoiled[1]
    expected = sum(np.abs(far_field(mode)) ** 2 for mode in scan.probe)
    frames = np.random.default_rng(0).poisson(np.broadcast_to(expected, scan.frames.shape))
    with pytest.raises(PtychoWError, match="positions cannot be found"):
        refine_positions(replace(scan, frames=frames, mask=None), reach=2, schedule=BRIEF)


@pytest.mark.slow
def test_label_refines_positions_first(tmp_path, capsys):
    scan = small_scan()
    truth = scan.positions_px
    wrong = scan.positions + 10e-9 * np.random.default_rng(0).normal(0, 1.5, truth.shape)
    write_scan(tmp_path / "wrong.cxi", replace(scan, positions=wrong, object=None))
    with pytest.raises(SystemExit) as ended:
        main(["label", str(tmp_path / "wrong.cxi"), "--refine-positions", "--epochs", "5", "--device", "cpu"])
    assert ended.value.code == 0
    assert "positions moved by" in capsys.readouterr().out
    labelled = read_scan(tmp_path / "wrong_labelled.cxi")
    assert np.allclose(labelled.nominal_positions, wrong)
    assert stage_error(labelled.positions_px, truth) < 0.5 * stage_error(wrong / 10e-9, truth)


@pytest.mark.parametrize("reach", [0.5, 33, np.nan])
def test_reach_must_make_sense(spoiled, reach):
    with pytest.raises(InputError, match=r"reach: not a reach.*1 to 32"):
        refine_positions(spoiled[1], reach=reach)


def measured(fwhm, modes=(0.8, 0.2), seed=0):
    """Noiseless frames at whole pixels, with probe and object, zero frequency at [0, 0]; and the positions."""
    rng = np.random.default_rng(seed)
    probe = scale_to_counts(incoherent_modes(gaussian_beam(SIZE, fwhm=fwhm, curvature=0.02), modes), 1e4)
    image = replace(smooth_object((80, 80), sigma=2.0), origin=(-40.0, -40.0))
    positions = rng.integers(-15, 15, (6, 2)).astype(float)
    patches = PatchExtractor(image, SIZE)(positions)
    frames = sum(np.abs(far_field(mode * patches)) ** 2 for mode in probe)
    frames = np.fft.ifftshift(frames, axes=(1, 2)).astype(np.float32)
    return Measurement(frames, np.ones((SIZE, SIZE), bool), "test"), image, probe, positions


@pytest.mark.parametrize(("fwhm", "stride"), [(5, 2), (12, 1)])
def test_errors_are_those_of_the_forward_model(fwhm, stride):
    data, image, probe, positions = measured(fwhm)
    search = ShiftSearch(data, image, probe)
    assert search.stride == stride
    found = search._errors(slice(2, 5), positions[2:5], np.array([-2, 0, 1]))
    for n, frame in enumerate(range(2, 5)):
        measured_root = np.sqrt(data.frames[frame])[::stride, ::stride]
        for i, down in enumerate((-2, 0, 1)):
            for j, right in enumerate((-2, 0, 1)):
                patch = PatchExtractor(image, SIZE)(positions[frame] + (down, right))[0]
                intensity = sum(np.abs(far_field(mode * patch)) ** 2 for mode in probe)
                predicted = np.fft.ifftshift(np.sqrt(intensity))[::stride, ::stride]
                expected = ((predicted - measured_root) ** 2).sum() / (measured_root**2).sum()
                # The window cuts a little of the probe.
                assert found[n, i, j] == pytest.approx(expected, abs=0.003 if stride == 2 else 1e-5)


@pytest.mark.parametrize("fwhm", [5, 12])
def test_search_finds_the_place(fwhm):
    data, image, probe, positions = measured(fwhm)
    wrong = positions + np.random.default_rng(3).integers(-5, 6, positions.shape) + 0.3
    places, errors = ShiftSearch(data, image, probe)(wrong, 7)
    assert np.abs(places - positions).max() < 0.35
    assert errors.max() < 0.1


def test_search_within_nothing_stays_and_measures():
    data, image, probe, positions = measured(12)
    places, errors = ShiftSearch(data, image, probe)(positions, 0)
    assert np.array_equal(places, positions)
    assert errors.max() < 1e-3


def test_search_leaves_bad_pixels_out():
    data, image, probe, positions = measured(5, modes=(1.0,))
    good = np.ones((SIZE, SIZE), bool)
    good[1:4] = False
    masked = Measurement(np.where(good, data.frames, 0).astype(np.float32), good, "test")
    trusting = Measurement(masked.frames, data.good, "test")
    places, errors = ShiftSearch(masked, image, probe)(positions + 2, 4)
    _, believed = ShiftSearch(trusting, image, probe)(positions + 2, 4)
    assert np.abs(places - positions).max() < 0.35
    assert (errors < believed).all()


def test_minimum_of_parabolas_is_exact():
    true = np.array([(2.3, 1.1), (3.0, 2.6), (-1.0, 3.4)])
    i, j = np.indices((6, 6))
    maps = np.stack([2 * (i - y) ** 2 + (j - x) ** 2 + 1 for y, x in true])
    assert minimum(maps) == pytest.approx(np.array([(2.3, 1.1), (3.0, 2.6), (0.0, 3.4)]))
    # A flat map has no minimum, and takes no step out of its first value.
    assert np.array_equal(minimum(np.ones((1, 5, 5))), [[0, 0]])


def test_outliers_are_far_above_the_others():
    errors = np.random.default_rng(0).normal(1, 0.1, 200)
    errors[[3, 50]] = 2, 0
    assert np.array_equal(np.flatnonzero(outliers(errors)), [3])
    assert not outliers(np.zeros(5)).any()


def test_a_rising_error_is_an_overshoot():
    assert overshoots((0.30, 0.20, 0.25))
    assert not overshoots((0.30, 0.20, 0.205))
    assert not overshoots((0.30,))


@pytest.mark.slow
def test_too_large_a_gradient_is_tamed(spoiled):
    truth, scan = spoiled
    wild = (*SHORT[:2], Step(epochs=8, gradient=300))
    found = refine_positions(scan, reach=6, schedule=wild)
    assert stage_error(found.scan.positions_px, truth) < 0.6 * stage_error(scan.positions_px, truth)
