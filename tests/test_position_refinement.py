from dataclasses import replace

import numpy as np
import pytest

from conftest import small_scan
from ptychow.cli import main
from ptychow.errors import InputError, PtychoWError
from ptychow.formats import read_scan, write_scan
from ptychow.optics.propagation import far_field
from ptychow.optics.twins import twin
from ptychow.position_refinement import (
    Step,
    affine_part,
    common_part,
    outliers,
    overshoots,
    own_spread,
    refine_positions,
)
from ptychow.scan import ObjectImage

pytest.importorskip("ptychi")

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


def test_labels_of_the_positions_before_do_not_stay(spoiled):
    flat = ObjectImage(np.ones((200, 200), np.complex64), (0.0, 0.0), "test")
    labelled = replace(spoiled[1], object=flat)
    assert refine_positions(labelled, reach=2, schedule=BRIEF).scan.object is None


def test_some_round_must_be(spoiled):
    with pytest.raises(InputError, match="schedule: no round"):
        refine_positions(spoiled[1], reach=2, schedule=())


@pytest.mark.parametrize("reach", [0.5, 33, np.nan])
def test_reach_must_make_sense(spoiled, reach):
    with pytest.raises(InputError, match=r"reach: not a reach.*1 to 32"):
        refine_positions(spoiled[1], reach=reach)


def test_outliers_are_far_above_the_others():
    errors = np.random.default_rng(0).normal(1, 0.1, 200)
    errors[[3, 50]] = 2, 0
    assert np.array_equal(np.flatnonzero(outliers(errors)), [3])
    assert not outliers(np.zeros(5)).any()


def jittered(spread, together):
    """Points of a raster, and movements of their own (normal) with what a function of the places adds."""
    points = np.stack(np.mgrid[:30, :30], axis=-1).reshape(-1, 2) * 9.0
    own = np.random.default_rng(0).normal(0, spread, points.shape)
    return points, own, own + together(points)


@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_what_neighbours_moved_together_is_taken_out(spread):
    bent = lambda points: 6 * np.sin(points[:, ::-1] / 80)  # noqa: E731
    points, own, moved = jittered(spread, bent)
    sound = np.ones(len(points), bool)
    measured = own_spread(points, moved)
    assert measured == pytest.approx(spread, rel=0.25)
    left = moved - common_part(points, moved, sound, measured)
    before, after = (np.median(np.hypot(*(each - own).T)) for each in (moved, left))
    assert after < 0.35 * before
    # Outliers have no say.
    astray, trusted = moved.copy(), sound.copy()
    astray[::7], trusted[::7] = 1000, False
    assert np.abs(common_part(points, astray, trusted, measured)).max() < 10


def test_few_points_with_large_errors_keep_what_they_moved():
    points, _, moved = jittered(20.0, lambda points: 0 * points)
    assert not common_part(points, moved, np.ones(len(points), bool), 20.0).any()


def test_a_stretch_and_a_turn_are_taken_out():
    stretch = np.array([(0.02, 0.05), (-0.01, 0.04)])
    points, own, moved = jittered(1.0, lambda points: points @ stretch + 3)
    sound = np.ones(len(points), bool)
    assert np.abs(moved - affine_part(points, moved, sound) - own).max() < 0.5


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


def test_too_few_frames_are_refused(spoiled):
    with pytest.raises(InputError, match="too few that hold counts"):
        refine_positions(spoiled[1].select(np.arange(8)), reach=2, schedule=BRIEF)
