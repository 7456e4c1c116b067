"""Evaluation: a perfect network scores nothing, a flat one about 1, and the region is what it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from conftest import small_scan
from ptychow.errors import InputError
from ptychow.evaluation import evaluate, unseen_frames
from ptychow.model import Model
from ptychow.networks.base import PatternNetwork
from ptychow.patches import PatchExtractor
from ptychow.training import shares_pixels


class Answers(PatternNetwork):
    """Gives prepared complex patches (N, n, n), one after the other."""

    def __init__(self, patches):
        super().__init__(size_multiple=1, amplitude_max=2.0, heads="complex")
        self.patches, self.next = torch.from_numpy(patches.astype(np.complex64)), 0
        self.unused = nn.Parameter(torch.zeros(1))

    def maps(self, patterns):
        here = slice(self.next, self.next + len(patterns))
        self.next = here.stop
        return self.patches[here, None].real, self.patches[here, None].imag


@pytest.fixture
def answering(trained):
    """A Model like the trained one whose network gives these patches; gauge as wished."""

    def make(patches, probe=trained.model.probe, mean_pattern=trained.model.mean_pattern, **card):
        changed = trained.model.card.model_copy(update=card)
        return Model(changed, Answers(patches), probe, mean_pattern)

    return make


def labels_of(scan, indices=slice(None)):
    return PatchExtractor(scan.object, 32)(scan.positions_px[indices])


@pytest.mark.parametrize("gauge", ["absolute", "constant-free"])
def test_a_perfect_network_scores_nothing_in_every_metric(gauge, answering, scan):
    patches = labels_of(scan)
    if gauge == "constant-free":
        turns = np.exp(1j * np.random.default_rng(0).uniform(-3, 3, len(scan)))
        patches = patches * turns[:, None, None]
    found = evaluate(answering(patches, gauge=gauge), scan, indices=np.arange(80), device="cpu")
    stitched = found.stitched
    assert found.headline == stitched["phase_unexplained_variance"] < 0.002
    assert stitched["amplitude_mse"] < 1e-3 and stitched["complex_error"] < 1e-3
    assert stitched["phase_ssim_2pi"] > 0.98 and stitched["phase_explained_variance"] > 0.998
    assert stitched["frc_half"] > 0.45
    for name, value in found.patches.items():
        if not name.endswith("variance") or "unexplained" in name:
            assert value < 1e-6, name


@pytest.mark.parametrize("gauge", ["absolute", "constant-free"])
def test_a_flat_network_scores_what_knowing_nothing_scores(gauge, answering, scan):
    found = evaluate(answering(np.ones((80, 32, 32)), gauge=gauge), scan, indices=np.arange(80), device="cpu")
    assert 0.9 < found.headline < 1.3
    for name in ("phase_unexplained_variance", "amplitude_mse", "complex_error"):
        assert found.stitched[name] == pytest.approx(found.stitched_flat[name], rel=1e-4)
    assert found.patches == pytest.approx(found.patches_flat)
    assert 0.9 < found.patches["phase_unexplained_variance"] < 1.3


def test_frames_without_counts_are_not_scored(answering, scan):
    dark = np.arange(80) % 2 == 1
    half = replace(scan, frames=np.where(dark[:, None, None], 0, scan.frames[:]))
    found = evaluate(answering(np.ones((40, 32, 32))), half, indices=np.arange(80), device="cpu")
    lit = evaluate(answering(np.ones((40, 32, 32))), scan, indices=np.flatnonzero(~dark), device="cpu")
    assert found.patches == pytest.approx(lit.patches)
    assert found.summary()["frames"] == 40 and (found.indices == np.flatnonzero(~dark)).all()


def test_nothing_is_removed_where_nothing_is_to_be(answering, scan):
    measured = replace(scan, object=replace(scan.object, source="LSQML, 40 epochs"))
    found = evaluate(answering(labels_of(scan)), measured, indices=np.arange(80), device="cpu", remove=())
    assert found.removed == () and found.stitched["removed_ramp_y"] == found.stitched["removed_shift_y"] == 0


def test_a_wrong_absolute_phase_counts_against_absolute_models_only_where_patches_disagree(answering, scan):
    turns = np.exp(1j * np.random.default_rng(0).uniform(-3, 3, len(scan)))[:, None, None]
    wrong = evaluate(answering(labels_of(scan) * turns, gauge="absolute"), scan, indices=np.arange(80), device="cpu")
    assert wrong.headline > 0.3 and wrong.patches["phase_mse"] < 1e-6
    # One constant for all is no error: no pattern knows it.
    same = evaluate(answering(labels_of(scan) * 1j, gauge="absolute"), scan, indices=np.arange(80), device="cpu")
    assert same.headline < 0.002 and same.stitched["removed_constant"] == pytest.approx(np.pi / 2, abs=1e-3)


def test_unseen_frames_share_no_object_pixel_with_training_or_validation(trained, scan):
    unseen = unseen_frames(scan, trained.model)
    split = trained.splits[0]
    used = np.concatenate([split.train, split.validation])
    positions = scan.positions_px
    assert set(split.holdout) <= set(unseen) and len(unseen) < len(scan)
    assert not shares_pixels(positions[unseen], positions[used], 32).any()
    others = np.setdiff1d(np.arange(len(scan)), unseen)
    assert shares_pixels(positions[others], positions[used], 32).all()


def test_of_a_scan_it_never_met_all_frames_are_unseen(trained):
    other = small_scan(1)
    np.testing.assert_array_equal(unseen_frames(other, trained.model), np.arange(80))


def test_the_default_region_is_the_unseen_one_and_said(trained, scan):
    found = evaluate(trained.model, scan, device="cpu")
    np.testing.assert_array_equal(found.indices, unseen_frames(scan, trained.model))
    assert "share no object pixel" in found.region
    assert found.removed == ("constant",)
    summary = found.summary()
    assert summary["frames"] == len(found.indices) and summary["removed_by_alignment"] == ["constant"]


@pytest.mark.parametrize("kind", [list, lambda found: np.isin(np.arange(80), found)], ids=["list", "bool"])
def test_frames_may_be_chosen_as_a_list_or_as_true_and_false(kind, trained, scan):
    unseen = unseen_frames(scan, trained.model)
    found = evaluate(trained.model, scan, indices=kind(unseen), device="cpu")
    np.testing.assert_array_equal(found.indices, unseen)
    assert found.headline == evaluate(trained.model, scan, device="cpu").headline


def test_an_evaluation_on_nothing_unseen_is_refused(paper_trained, scan):
    with pytest.raises(InputError, match=r"small-0.cxi: every frame shares object pixels .*--region all"):
        evaluate(paper_trained.model, scan, device="cpu")


def test_measured_labels_lose_ramp_and_shift_too(answering, scan):
    measured = replace(scan, object=replace(scan.object, source="LSQML, 40 epochs"))
    rows = (scan.positions_px[:, 0] / 100)[:, None, None] + (np.arange(32) - 16)[:, None] / 100
    ramped = labels_of(scan) * np.exp(1j * rows)
    found = evaluate(answering(ramped, gauge="absolute"), measured, indices=np.arange(80), device="cpu")
    assert found.removed == ("constant", "ramp", "shift") and found.headline < 0.002
    assert found.stitched["removed_ramp_y"] == pytest.approx(0.01, rel=0.02)
    kept = evaluate(
        answering(ramped, gauge="absolute"), measured, indices=np.arange(80), device="cpu", remove=("constant",)
    )
    assert kept.headline > 10 * found.headline


def square_raster(scan):
    """The scan as if its steps were 4 pixels both ways, with labels to match."""
    lines, points = 9, 9
    positions = np.stack(np.meshgrid(np.arange(lines), np.arange(points), indexing="ij"), -1).reshape(-1, 2) * 4.0
    positions += scan.positions_px.min(axis=0)
    return replace(
        scan,
        frames=np.tile(scan.frames, (2, 1, 1))[: lines * points],
        positions=positions * 10e-9,
        raster=(lines, points),
        object=small_scan(3, lines=9, points=12).object,
    )


@pytest.mark.parametrize("gauge", ["absolute", "constant-free"])
def test_on_a_raster_perfect_patches_reach_the_notebooks_floor(gauge, answering, scan):
    block = square_raster(scan)
    found = evaluate(answering(labels_of(block), gauge=gauge), block, indices=np.arange(81), device="cpu", force=True)
    notebook = found.notebook
    assert notebook["notebook_phase_mse"] == pytest.approx(notebook["notebook_phase_floor"], rel=0.05)
    assert notebook["notebook_amplitude_mse"] == pytest.approx(notebook["notebook_amplitude_floor"], rel=1e-3)
    assert notebook["notebook_phase_floor"] > 0
    assert notebook["grid_phase_unexplained_variance"] < 1e-3


def test_off_a_raster_there_is_no_notebook_metric(answering, scan):
    block = square_raster(scan)
    for changed, indices in (
        (block, np.delete(np.arange(81), 40)),  # a hole
        (block, np.arange(81)[::-1]),  # another order
        (replace(block, raster=None), np.arange(81)),
        (replace(block, positions=block.positions * 1.1), np.arange(81)),  # no whole pixels
    ):
        model = answering(labels_of(changed, indices), gauge="absolute")
        found = evaluate(model, changed, indices=indices, device="cpu", force=True)
        assert found.notebook is None


def test_label_patches_of_no_common_object_are_compared_patch_by_patch(answering, scan):
    patches = labels_of(scan)
    published = replace(scan, object=None, probe=None, label_patches=patches, raster=None)
    model = answering(patches, probe=None, gauge="absolute")
    found = evaluate(model, published, indices=np.arange(80), stitching="central-crop", device="cpu")
    assert found.stitched == {} and found.truth is None and np.isnan(found.headline)
    assert found.patches["phase_mse"] < 1e-6 and "weighted_phase_mse" not in found.patches
    assert found.reconstruction.patches.shape[1:] == (12, 12)


def test_a_scan_without_labels_is_refused(trained, unlabelled):
    with pytest.raises(InputError, match=r"small-0.cxi: has no labels .*ptychow label"):
        evaluate(trained.model, unlabelled, device="cpu")
