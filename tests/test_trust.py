"""The light: what it says of what was seen."""

from dataclasses import replace

import numpy as np
import pytest

from conftest import small_scan
from ptychow.engines import open_engine
from ptychow.formats.lazy import open_hdf5
from ptychow.likeness import Moved, uneven_part
from ptychow.model import Model
from ptychow.optics.propagation import expected_counts
from ptychow.orientation import Orientation
from ptychow.patches import PatchExtractor
from ptychow.reconstruction import reconstruct
from ptychow.residual import Reference
from ptychow.trust import (
    WINDOW,
    Evidence,
    FrameSample,
    Watch,
    calibrate_light,
    judge,
    object_residual,
    patch_disagreement,
    turn_that_fits,
)

REFERENCE = Reference(median=0.1, amber=0.2, red=0.3, frames=100, data="held-out")
ALIKE = dict.fromkeys(Orientation, 0.95)


@pytest.fixture
def card(trained):
    known = {"residual": REFERENCE, "disagreement": REFERENCE, "count_limits": None}
    return trained.model.card.model_copy(update=known)


@pytest.mark.parametrize(
    ("residual", "ratio", "match", "light", "reason"),
    [
        (0.1, 1.0, ALIKE, "green", None),
        (0.25, 1.0, ALIKE, "amber", "residual: 0.25"),
        (0.35, 1.0, ALIKE, "red", "residual: 0.35"),
        (0.1, 16.0, ALIKE, "red", "count rate: 16 times"),
        (0.1, 1 / 16, ALIKE, "red", "count rate: 0.0625 times"),
        (0.1, 5.0, ALIKE, "amber", "count rate"),
        (0.1, None, ALIKE, "unknown", "count rate of the training frames unknown"),
        (0.1, 1.0, dict.fromkeys(Orientation, 0.5), "red", "probe or centre"),
        (0.1, 1.0, dict.fromkeys(Orientation, 0.8), "amber", "probe or centre"),
        (0.1, 1.0, {**ALIKE, Orientation.TRANSPOSE: 0.99}, "red", "orientation: turned by transpose"),
        (0.1, 1.0, dict.fromkeys(Orientation, 0.0), "unknown", "mean pattern"),
    ],
)
def test_each_thing_that_differs_has_its_light_and_its_word(card, residual, ratio, match, light, reason):
    verdict = judge(card, Evidence(residual, ratio, match))
    assert verdict.light == light
    assert verdict.reasons == () if reason is None else reason in verdict.reasons[0]


def test_patches_that_disagree_turn_the_light(card):
    for disagreement, light in ((0.1, "green"), (0.25, "amber"), (0.35, "red")):
        verdict = judge(card, Evidence(0.1, 1.0, ALIKE, disagreement))
        assert verdict.light == light
        assert light == "green" or "think of positions" in verdict.reasons[0]
    # Where the count rate explains it, nothing else is suspected.
    assert "think of" not in str(judge(card, Evidence(0.1, 16.0, ALIKE, 0.35)).reasons)


def test_turned_frames_give_patches_that_disagree(trained, scan):
    """The physics of it: perfect patches of turned frames are turned, and their neighbours contradict them."""
    truth = PatchExtractor(scan.object, 32)(scan.positions_px)
    model = trained.model
    assert patch_disagreement(model, truth, scan.positions_px) < 0.05
    assert patch_disagreement(model, truth[:, ::-1, ::-1], scan.positions_px) > 0.2
    assert patch_disagreement(model, truth, -scan.positions_px) > 0.2
    known = Reference(median=0.04, amber=0.05, red=0.06, frames=80, data="held-out")
    card = model.card.model_copy(update={"residual": known, "disagreement": known})
    model = Model(card, model.network, model.probe, model.mean_pattern)
    for orientation in Orientation:
        turned = orientation.apply_about_zero_frequency(truth)
        found = turn_that_fits(model, turned, scan.positions_px)
        assert found == (None if orientation == Orientation.IDENTITY else orientation.inverse)
    noise = np.random.default_rng(0).normal(size=truth.shape) + 0j
    assert turn_that_fits(model, noise, scan.positions_px) is None
    verdict = judge(card, Evidence(0.01, 1.0, ALIKE, 0.5, Orientation.TRANSPOSE))
    assert verdict.reasons[0].startswith("orientation: patches agree with their neighbours when turned by transpose")


def test_the_latest_patches_are_judged_as_the_limits_were_measured(trained, scan):
    """64 at a time: what has gone wrong lately is not thinned out by all that was right before."""
    truth = PatchExtractor(scan.object, 32)(scan.positions_px)
    watch = Watch(trained.model, trained.model.prepare_for(scan), scan.frame_shape)
    for start in range(0, 60, 10):
        watch.place(truth[start : start + 10], scan.positions_px[start : start + 10])
        assert watch.disagreement() is None
    for _ in range(9):
        watch.place(truth, scan.positions_px)
    assert watch.disagreement() == patch_disagreement(trained.model, truth[-64:], scan.positions_px[-64:]) < 0.05
    turned = truth[:64, ::-1, ::-1]
    for start in range(0, 64, 8):
        watch.place(turned[start : start + 8], scan.positions_px[start : start + 8])
    assert watch.disagreement() == patch_disagreement(trained.model, turned, scan.positions_px[:64]) > 0.2
    cropped = Watch(trained.model, trained.model.prepare_for(scan), scan.frame_shape)
    cropped.place(truth[:, 10:22, 10:22], scan.positions_px)
    assert cropped.disagreement() is None


def test_reconstruct_judges_windows_of_patches(trained, scan):
    known = Reference(median=1e-3, amber=2e-3, red=3e-3, frames=80, data="held-out")
    model = trained.model
    model = Model(model.card.model_copy(update={"disagreement": known}), model.network, model.probe, model.mean_pattern)
    for batch_size in (64, 7):
        result = reconstruct(scan, model, device="cpu", batch_size=batch_size, keep_patches=True)
        last = 64 if batch_size == 64 else 70  # where a batch fills the window
        window = slice(last - 64, last)
        expected = patch_disagreement(model, result.patches[window], scan.positions_px[window])
        assert any(f"disagreement: {expected:.3f} of the patches" in warning for warning in result.warnings)


@pytest.mark.parametrize("kind", ["trained", "paper_trained"])
def test_the_mean_pattern_is_compared_as_it_was_made(kind, scan, request):
    """Of inputs: roots of counts, or counts."""
    model = request.getfixturevalue(kind).model
    preparation = model.prepare_for(scan)
    inputs = preparation.apply(scan.frames[:64])
    watch = Watch(model, preparation, scan.frame_shape)
    watch.see(inputs, open_engine(model, device="cpu").predict(inputs))
    expected = model.match_pattern(preparation.unstandardised().apply(scan.frames[:64])[:, 0].mean(axis=0))
    assert watch.evidence().match == pytest.approx(expected, abs=1e-5)


def test_dark_frames_calibrate_nothing(trained, scan):
    held_out = trained.splits[0].holdout
    frames = scan.frames.copy()
    frames[held_out[::2]] = 0
    reference = calibrate_light(trained.model, replace(scan, frames=frames), {"held-out": held_out}).card.residual
    lit = calibrate_light(trained.model, scan, {"held-out": held_out[1::2]}).card.residual
    assert reference.frames == len(held_out[1::2]) and reference.red < 1
    assert reference.median == pytest.approx(lit.median, rel=0.02)
    frames[held_out] = 0
    assert calibrate_light(trained.model, replace(scan, frames=frames), {"held-out": held_out}) is trained.model


def test_the_models_own_count_limits_hold(card):
    known = card.model_copy(update={"count_limits": (0.01, 40.0)})
    assert judge(known, Evidence(0.1, 16.0, ALIKE)).light == "green"
    assert judge(known, Evidence(0.1, 50.0, ALIKE)).light == "red"


def test_a_model_that_was_never_calibrated_has_no_light(card):
    verdict = judge(card.model_copy(update={"residual": None}), Evidence(0.9, 1.0, ALIKE))
    assert verdict.light == "unknown" and "never measured" in verdict.reasons[0]
    # What is known to be wrong is said all the same.
    assert judge(card.model_copy(update={"residual": None}), Evidence(0.9, 20.0, ALIKE)).light == "red"


def test_training_calibrates_the_light_on_frames_it_held_out(trained, scan):
    reference = trained.model.card.residual
    held_out = trained.splits[0].holdout
    assert reference.data == "held-out" and reference.frames == len(held_out)
    found = reconstruct(scan, trained.model, device="cpu").residuals[held_out]
    assert reference.median == pytest.approx(np.median(found), abs=1e-4)
    without = Model(trained.model.card, trained.model.network, None, trained.model.mean_pattern)
    assert calibrate_light(without, scan, {"held-out": held_out}) is without


def test_a_model_that_explains_nothing_has_no_green_light(trained, scan):
    """However usual its residual is for it: an empty object must do worse on the frames it knows."""
    held_out = trained.splits[0].holdout
    reference = calibrate_light(trained.model, scan, {"held-out": held_out}).card.residual
    counts = scan.frames[held_out].astype(np.float32)
    empty = np.sqrt(expected_counts(trained.model.probe[None], np.ones((1, 32, 32), np.complex64)))[0]
    cosines = [np.vdot(empty, np.sqrt(one)) / np.linalg.norm(empty) / np.sqrt(one.sum()) for one in counts]
    assert reference.flat == pytest.approx(np.median(np.sqrt(1 - np.square(cosines))), rel=0.05)
    for flat, light in ((0.15, "green"), (0.05, "red")):
        known = {"residual": REFERENCE.model_copy(update={"flat": flat}), "disagreement": None}
        verdict = judge(trained.model.card.model_copy(update=known), Evidence(0.1, 1.0, ALIKE))
        assert verdict.light == light and ("no better than an empty object" in str(verdict.reasons)) == (light == "red")


def test_reconstruct_says_what_the_light_says_and_nothing_twice(trained, scan):
    card = trained.model.card.model_copy(update={"residual": REFERENCE.model_copy(update={"amber": 1.0})})
    rng = np.random.default_rng(0)
    # Seen from the side, the Model's own pattern is another's.
    pattern = rng.random(trained.model.mean_pattern.shape).astype(np.float32)
    for mean, factor, light, kind in (
        (trained.model.mean_pattern, 1.0, "green", None),
        (trained.model.mean_pattern, 6.0, "amber", "count rate: "),
        (trained.model.mean_pattern, 9.0, "red", "count rate: "),
        (trained.model.mean_pattern + 20 * pattern, 1.0, "red", "probe or centre: "),
    ):
        model = Model(card, trained.model.network, trained.model.probe, mean)
        bright = replace(scan, frames=(factor * scan.frames).astype(np.float32))
        found = reconstruct(bright, model, device="cpu", force=True)
        assert found.summary["light"] == light
        assert kind is None or sum(kind in words for words in found.warnings) == 1


@pytest.mark.parametrize(("rows", "columns"), [(1, 0), (0, -2), (5, 3), (-16, -16)])
def test_how_far_a_pattern_has_moved_is_found(rows, columns, trained):
    pattern = trained.model.mean_pattern
    moved = Moved.of(np.roll(pattern, (rows, columns), (0, 1)), pattern)
    assert (moved.rows, moved.columns) == (rows, columns) and moved.match == pytest.approx(1, abs=1e-5)
    assert moved.swapped == (rows == -16)


@pytest.mark.parametrize(
    ("moved", "light", "words"),
    [
        (Moved(0, 0, 0.95), "green", None),
        (Moved(1, 0, 0.953), "green", None),
        (Moved(1, 0, 0.96), "amber", "centre: the frames lie +1 rows, +0 columns"),
        (Moved(-3, 2, 0.99), "red", "centre: the frames lie -3 rows, +2 columns"),
        (Moved(-16, -16, 0.99, True), "red", "centre: zero frequency looks to be in the corners"),
    ],
)
def test_frames_that_lie_elsewhere_have_their_light(card, moved, light, words):
    verdict = judge(card, Evidence(0.1, 1.0, ALIKE, moved=moved))
    assert verdict.light == light and (words is None or words in verdict.reasons[0])
    turned = {**ALIKE, Orientation.TRANSPOSE: 0.995}
    assert "turned by transpose" in judge(card, Evidence(0.1, 1.0, turned, moved=moved)).reasons[0]


@pytest.mark.parametrize("rows", [1, -2, 16])
def test_reconstruct_names_the_centre_once(rows, trained, scan):
    elsewhere = replace(scan, frames=np.roll(scan.frames[:], (rows, 16 * (rows == 16)), (1, 2)))
    found = reconstruct(elsewhere, trained.model, device="cpu", force=True)
    words = "zero frequency looks to be in the corners" if rows == 16 else f"the frames lie {rows:+d} rows, +0 columns"
    assert sum(f"centre: {words}" in warning for warning in found.warnings) == 1


def test_the_latest_frames_count(trained, scan):
    preparation = trained.model.prepare_for(scan)
    watch, engine = Watch(trained.model, preparation, scan.frame_shape), open_engine(trained.model, device="cpu")
    assert watch.verdict().light == "unknown"
    inputs = preparation.apply(scan.frames[:64])
    residuals = watch.see(inputs, engine.predict(inputs))
    evidence = watch.evidence()
    assert evidence.residual == pytest.approx(np.median(residuals)) and 0.5 < evidence.counts_ratio < 2
    assert evidence.match[Orientation.IDENTITY] > 0.95
    bright = preparation.apply(20 * scan.frames[:64].astype(np.float32))
    watch.see(bright, engine.predict(bright))
    assert watch.verdict().light == "red" and "count rate" in watch.verdict().reasons[0]


def test_reconstruct_keeps_residuals_and_warns_of_a_foreign_scan(trained, scan, tmp_path):
    result = reconstruct(scan, trained.model, device="cpu")
    assert result.residuals.shape == (80,) and np.isfinite(result.residuals).all()
    assert 0 < result.summary["object_residual"] < 1
    assert result.summary["median_residual"] == pytest.approx(np.median(result.residuals))
    result.save(tmp_path / "object.cxi")
    with open_hdf5(tmp_path / "object.cxi") as file:
        np.testing.assert_array_equal(file["entry_1/ptychow/residuals"][()], result.residuals)
    noise = np.random.default_rng(0).permuted(small_scan(3).frames, axis=1)
    card = trained.model.card.model_copy(update={"residual": REFERENCE})
    model = Model(card, trained.model.network, trained.model.probe, trained.model.mean_pattern)
    foreign = reconstruct(replace(scan, frames=noise), model, device="cpu", force=True)
    assert any("not explained by the patches" in warning for warning in foreign.warnings)
    dark = scan.frames.copy()
    dark[5] = 0
    found = reconstruct(replace(scan, frames=dark), trained.model, device="cpu").residuals
    assert np.isnan(found[5]) and np.isfinite(np.delete(found, 5)).all()


def test_an_object_is_judged_by_the_frames_it_explains(trained, scan):
    model = trained.model
    preparation = model.prepare_for(scan)
    inputs, positions = preparation.apply(scan.frames[:64]), scan.positions_px[:64]

    def unexplained(image):
        return object_residual(model, preparation, scan.frame_shape, image, inputs, positions)

    truth = unexplained(scan.object)
    shifted = replace(scan.object, origin=(scan.object.origin[0] + 4, scan.object.origin[1]))
    rows = np.arange(scan.object.image.shape[0])[:, None]
    tilted = replace(scan.object, image=(scan.object.image * np.exp(0.2j * rows)).astype(np.complex64))
    noise = np.sqrt(1 / 4 / scan.frames[:].mean(axis=(1, 2)).mean())  # of a root count, relative to its size
    assert truth < 3 * noise
    assert min(map(unexplained, (shifted, tilted))) > 2 * truth


def test_a_sample_holds_each_frame_with_the_same_chance():
    held = np.zeros(400)
    for offset in range(50):
        sample = FrameSample()
        sample._random = np.random.default_rng(offset)
        for start in range(0, 400, 32):
            indices = np.arange(start, min(start + 32, 400))
            sample.see(indices, indices[:, None, None, None].astype(np.float32))
        assert len(set(sample.indices)) == WINDOW
        np.testing.assert_array_equal(sample.inputs.ravel(), sample.indices)
        held[sample.indices] += 1
    first, last = held[:200].sum(), held[200:].sum()
    assert abs(first - last) < 4 * np.sqrt(50 * WINDOW)


def test_a_short_scan_is_sampled_whole():
    sample = FrameSample()
    assert len(sample.indices) == 0 and len(sample.inputs) == 0
    sample.see(np.array([7, 3]), np.ones((2, 1, 4, 4), np.float32))
    np.testing.assert_array_equal(sample.indices, [7, 3])
    assert sample.inputs.shape == (2, 1, 4, 4)


def test_a_beam_that_went_away_for_a_while_is_said(trained, scan):
    dim = scan.frames.copy()
    dim[20:30] //= 3
    result = reconstruct(replace(scan, frames=dim), trained.model, device="cpu")
    said = [words for words in result.warnings if words.startswith("beam: ")]
    assert len(said) == 1 and "12.5% of the frames hold less than 0.6" in said[0] and "--drop" in said[0]
    assert result.summary["light"] in ("amber", "red")
    assert not any(words.startswith("beam: ") for words in reconstruct(scan, trained.model, device="cpu").warnings)


@pytest.mark.parametrize(("dim", "part"), [(0, 0.0), (2, 0.0), (3, 0.03), (40, 0.4)])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_frame_or_two_of_another_dose_are_no_part(dim, part, factor):
    counts = np.random.default_rng(0).normal(1000, 30, 100)
    counts[:dim] *= factor
    assert uneven_part(counts) == pytest.approx(part)
