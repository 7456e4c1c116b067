"""From records to an object: whatever the order, the object of the file."""

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import difference, frames_of, in_steps, positions_of, run, start_of, whole

from ptychow.errors import InputError, MismatchError
from ptychow.live.mosaic import Mosaic
from ptychow.live.records import End, PositionRecord
from ptychow.live.result import kept_scan
from ptychow.live.spool import PatchSpool, SpooledPatches
from ptychow.reconstruction import reconstruct
from ptychow.scan import Geometry
from ptychow.stitch import Canvas

# Patches are spooled as float16, whose last digit is 2^-11.
FLOAT16 = 2**-10


@pytest.mark.parametrize("kind", ["trained", "paper_trained"])
def test_a_live_scan_is_the_scan_of_the_file(kind, scan, request):
    model = request.getfixturevalue(kind).model
    _, [(_, found)] = run(model, whole(scan))
    expected = reconstruct(scan, model, device="cpu")
    assert difference(found, expected) < FLOAT16
    np.testing.assert_allclose(found.coverage, expected.coverage, rtol=1e-6)
    np.testing.assert_allclose(found.residuals, expected.residuals, atol=1e-5)
    assert found.summary["count_scale"] == expected.summary["count_scale"]
    assert found.summary["counters"]["stitched"] == len(scan) and found.summary["counters"]["lost"] == 0
    # Of a whole file only: while a scan comes the light speaks of the latest window.
    of_files = {"fingerprint", "network_frames_per_second", "window_disagreement"}
    assert set(expected.summary) - of_files <= set(found.summary)


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 40),
    batch=st.integers(1, 80),
    lost_frames=st.integers(0, 12),
    lost_positions=st.integers(0, 12),
    positions_late=st.booleans(),
)
@pytest.mark.parametrize("kind", ["trained", "paper_trained"])
def test_order_duplicates_losses_and_lateness_do_not_matter(
    kind, request, scan, seed, size, batch, lost_frames, lost_positions, positions_late
):
    """Frames and positions shuffled apart, some of either twice, some never: the object of those that came."""
    model = request.getfixturevalue(kind).model
    rng = np.random.default_rng(seed)
    # None of the first 64 is lost: they set the count scale, here and offline.
    frames = np.concatenate([np.arange(64), rng.permutation(np.arange(64, 80))[lost_frames:]])
    positions = np.concatenate([np.arange(64), rng.permutation(np.arange(64, 80))[lost_positions:]])
    frames_sent = np.concatenate([frames, rng.choice(frames, 5)])
    records = frames_of(scan, frames_sent) + positions_of(scan, np.concatenate([positions, positions[:3]]))
    records = [records[k] for k in rng.permutation(len(records))]
    if positions_late:
        records.sort(key=lambda record: isinstance(record, PositionRecord))
    steps = [[start_of(scan)], *in_steps(records, size), [End(len(scan), "end")]]
    _, [(_, found)] = run(model, steps, batch_size=batch)

    here = np.intersect1d(frames, positions)
    counts = found.summary["counters"]
    assert counts["received"] == len(frames_sent) and counts["duplicate"] == 5
    assert counts["stitched"] == len(here) and counts["waiting"] == len(frames) - len(here)
    assert counts["lost"] == 80 - len(frames)
    expected = reconstruct(scan.select(here), model, device="cpu")
    assert difference(found, expected) < FLOAT16


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), batch=st.integers(1, 30), late=st.integers(0, 60))
def test_for_given_constants_the_mosaic_is_that_of_the_file(seed, batch, late, tmp_path_factory):
    """Patches stitched at once or late, in any order, on a mosaic that grows: to 1e-5 the canvas of them all."""
    rng = np.random.default_rng(seed)
    positions, weight = rng.uniform(-40, 90, (60, 2)), rng.uniform(0.01, 1, (16, 16)).astype(np.float32)
    patches = (rng.normal(size=(60, 16, 16)) + 1j * rng.normal(size=(60, 16, 16))).astype(np.complex64)
    spool = PatchSpool(tmp_path_factory.mktemp("spool") / "patches", 16, 1e6)
    slots = np.array([spool.put(patch) for patch in patches])
    offline = Canvas(positions, weight)
    offline.add(SpooledPatches(spool, slots)[:], positions)
    live = Mosaic(weight, turn=False)
    order = rng.permutation(60)
    for part in (order[late:], order[:late]):
        for start in range(0, len(part), batch):
            chosen = part[start : start + batch]
            at_once = PatchSpool.rounded(patches[chosen])
            live.add(spool.get(slots[chosen]) if part is order[:late] else at_once, positions[chosen])
    with live.still() as canvas:
        corner = [int(o - c) for o, c in zip(offline.origin, canvas.origin, strict=True)]
        window = tuple(slice(c, c + n) for c, n in zip(corner, offline.shape, strict=True))
        assert np.abs(canvas.image(window) - offline.image()).max() < 1e-5 * np.abs(offline.image()).max()
        np.testing.assert_allclose(canvas.coverage(window), offline.coverage(), rtol=1e-6, atol=1e-7)
        assert canvas.coverage().sum() == pytest.approx(offline.coverage().sum(), rel=1e-6)


def test_the_preview_is_near_the_final_picture(trained, scan):
    previews = []

    def look():
        until = time.monotonic() + 20
        while sessions[0].scan.counters.counts().stitched < 80 and time.monotonic() < until:
            time.sleep(0.01)
        with sessions[0].scan.mosaic.still() as canvas:
            previews.append((canvas.object_image("preview"), canvas.coverage()))

    steps = whole(scan)
    steps.insert(-1, look)
    sessions = []
    _, [(_, final)] = run(trained.model, steps, started=sessions.append)
    image, coverage = previews[0]
    corner = [int(f - p) for f, p in zip(final.image.origin, image.origin, strict=True)]
    window = tuple(slice(c, c + n) for c, n in zip(corner, final.image.image.shape, strict=True))
    agreement = np.vdot(image.image[window] * coverage[window], final.image.image)
    lengths = np.vdot(coverage[window] * image.image[window], image.image[window]).real
    lengths *= np.vdot(coverage[window] * final.image.image, final.image.image).real
    assert abs(agreement) / np.sqrt(lengths) > 0.95


def test_residuals_counters_and_path_are_there_while_it_runs(trained, scan):
    session, [(live, _)] = run(trained.model, whole(scan))
    path = np.concatenate(live.path)
    assert path.shape == (80, 3) and np.isfinite(path).all() and (path[:, 2] > 0).all() and (path[:, 2] <= 1).all()
    assert live.latest.shape == (32, 32)
    snapshot = session.snapshot()
    assert snapshot["counts"]["stitched"] == 80 and snapshot["light"] in ("green", "amber", "red")
    assert snapshot["latency"]["p99"] is not None and snapshot["pixel_size"] == pytest.approx(1e-8)


def test_kept_frames_are_the_scan(trained, scan):
    kept = []
    run(
        trained.model,
        whole(scan),
        keep_frames=True,
        save=lambda live, result: kept.append(
            (kept_scan(live).frames[:], kept_scan(live).positions, kept_scan(live).frames[3].shape)
        ),
    )
    frames, positions, shape = kept[0]
    np.testing.assert_array_equal(frames, scan.frames)
    np.testing.assert_array_equal(positions, scan.positions)
    assert shape == (32, 32)


def test_frames_of_wider_numbers_are_not_kept_cut_off(trained, scan):
    kept = []

    def count(live, result, given_up):
        kept.append(len(kept_scan(live)))

    wide = [replace(record, frame=record.frame.astype(np.uint64)) for record in frames_of(scan, range(64, 80))]
    steps = [[start_of(scan), *frames_of(scan, range(64)), *positions_of(scan)], 0.3, [*wide, End(80, "end")]]
    _, [(live, found)] = run(trained.model, steps, keep_frames=True, follow_up=(count,))
    assert kept == [64] and found.summary["counters"]["stitched"] == 80
    assert any(
        f"frames of uint64 among others of {scan.frames.dtype}: not kept" in warning for warning in live.intake.warnings
    )


def test_positions_in_metres_and_in_pixels_are_the_same_place(trained, scan):
    assert scan.position_unit == "m" and scan.geometry.pixel_size == 10e-9
    metres, pixels = scan, replace(scan, positions=scan.positions_px, position_unit="px")
    _, [(_, found)] = run(trained.model, whole(metres))
    _, [(_, expected)] = run(trained.model, whole(pixels))
    assert difference(found, expected) < 1e-6
    with pytest.raises(InputError, match="pixel size is unknown"):
        run(trained.model, whole(replace(metres, geometry=Geometry())))
    _, [(_, found)] = run(trained.model, whole(replace(metres, geometry=Geometry())), pixel_size=10e-9)
    assert difference(found, expected) < 1e-6


def test_a_model_for_another_detector_is_refused(trained, scan):
    small = replace(scan, frames=np.ascontiguousarray(scan.frames[:, :24, :24]), probe=None, object=None)
    with pytest.raises(MismatchError, match="frames of"):
        run(trained.model, whole(small))
