"""Positions that are wrong: they cost their own frames, whenever they come, and no others."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scripted import difference, frames_of, positions_of, run, start_of, wait_for, whole

from ptychow.live.board import Seen, updates
from ptychow.live.records import End, PositionRecord, now
from ptychow.live.result import kept_scan
from ptychow.reconstruction import reconstruct

FLOAT16 = 2**-10
FAR = 5e-3  # metres


def counters(found):
    return found.summary["counters"]


def with_wrong(scan, wrong):
    """The scan with the positions of some frames where the stage never was."""
    positions = scan.positions.copy()
    positions[wrong] = (FAR, FAR)
    return replace(scan, positions=positions)


@pytest.mark.parametrize("kind", ["trained", "paper_trained"])
@pytest.mark.parametrize("wrong", [[0], [40], [79], [*range(18)]])
def test_wrong_positions_cost_only_their_own_frames(kind, wrong, scan, request):
    model = request.getfixturevalue(kind).model
    kept = []

    def keep(live, result):
        kept.append((kept_scan(live).positions, result))

    run(model, whole(with_wrong(scan, wrong)), keep_frames=True, save=keep)
    [(positions, found)] = kept
    right = np.setdiff1d(np.arange(80), wrong)
    assert counters(found)["refused"] == len(wrong) and counters(found)["stitched"] == len(right)
    assert found.summary["indices_missing"] == wrong and found.summary["light"] != "red"
    assert any("too far" in warning for warning in found.warnings)
    np.testing.assert_array_equal(positions, scan.positions[right])
    # The frames themselves are right: they set count scale and bad pixels, as they would in the file.
    expected = reconstruct(scan, model, device="cpu")
    assert found.summary["count_scale"] == expected.summary["count_scale"]
    np.testing.assert_allclose(found.residuals, expected.residuals[right], atol=1e-5)


def test_it_makes_no_difference_when_the_wrong_position_comes(trained, scan):
    """That of frame 70, which does not set the count scale, before all others, and after them."""
    moved = with_wrong(scan, [70])
    others = np.setdiff1d(np.arange(80), [70])
    expected = reconstruct(scan.select(others), trained.model, device="cpu")
    for first, then in (([70], others), (others, [70])):
        sessions = []
        steps = [
            [start_of(moved), *frames_of(moved), *positions_of(moved, first)],
            partial(wait_for, sessions, "joined", len(first)),
            positions_of(moved, then),
            [End(80, "end")],
        ]
        _, [(_, found)] = run(trained.model, steps, started=sessions.append)
        assert difference(found, expected) < FLOAT16 and counters(found)["refused"] == 1


def test_the_light_is_red_where_most_frames_are_refused(trained, scan):
    """Positions all over the place: hardly two of them fit into one mosaic."""
    positions = np.random.default_rng(0).uniform(-FAR, FAR, scan.positions.shape)
    _, [(live, found)] = run(trained.model, whole(replace(scan, positions=positions)))
    assert counters(found)["refused"] > counters(found)["stitched"] > 0
    assert found.summary["light"] == live.verdict.light == "red"
    assert any("positions: " in warning and " of 80 frames" in warning for warning in found.warnings)


def test_the_preview_begins_again_where_most_frames_lie(trained, scan):
    """The first position is wrong; after some more the picture, and what browsers are told, is that of the others."""
    seen, pictures, held, sessions = Seen(), [], [], []

    def look():
        live = sessions[0].scan
        with live.mosaic.still() as canvas:
            held.append((canvas.shape, np.concatenate(live.path), live.counters.counts()))
        updates(sessions[0], seen)
        pictures.append(seen.picture)

    steps = [
        [start_of(scan), *frames_of(scan), PositionRecord(0, (FAR, FAR), "m", now())],
        partial(wait_for, sessions, "stitched", 1),
        look,
        positions_of(scan, range(1, 80)),
        partial(wait_for, sessions, "stitched", 79),
        look,
        [End(80, "end")],
    ]
    _, [(live, found)] = run(trained.model, steps, started=sessions.append)
    (_, path, before), (shape, new_path, after) = held
    assert len(path) == before.stitched == 1
    assert len(new_path) == after.stitched == 79 and after.refused == 1
    assert np.abs(new_path[:, :2] - scan.positions_px[1:].mean(axis=0)).max() < max(shape) < 1000
    assert pictures[1] == pictures[0] + 1
    assert live.verdict.light == found.summary["light"] != "red"
