"""Distillation: a scan labelled by a Model."""

from dataclasses import replace

import numpy as np
import pytest

from conftest import TINY
from ptychow.engines import open_engine
from ptychow.errors import InputError
from ptychow.training import recipe_named, train
from ptychow.training.distillation import BATCH, taught_by


def test_the_labels_are_the_teachers_predictions_and_nothing_else(trained, scan):
    teacher = trained.model
    taught = taught_by(teacher, replace(scan, object=None), "cpu")
    chosen = np.array([0, BATCH - 1, BATCH, len(scan) - 1])
    expected = open_engine(teacher, device="cpu").predict(teacher.prepare_for(scan).apply(scan.frames[chosen]))
    np.testing.assert_allclose(taught.label_patches[chosen], expected, atol=1e-5)
    assert taught.object is None and len(taught.label_patches) == len(scan) > BATCH
    spoilt = replace(scan.object, image=np.full_like(scan.object.image, np.nan))
    np.testing.assert_array_equal(
        taught_by(teacher, replace(scan, object=spoilt), "cpu").label_patches, taught.label_patches
    )


def test_a_network_learns_from_it(trained, scan):
    recipe = recipe_named("ptychow", epochs=8, batch_size=8, virtual=0)
    losses = train(taught_by(trained.model, scan, "cpu"), "w3", recipe, settings=TINY, device="cpu").history.train_loss
    assert losses[-1] < 0.7 * losses[0]


def test_a_scan_of_another_instrument_is_refused(trained, scan):
    with pytest.raises(InputError):
        taught_by(trained.model, replace(scan, frames=scan.frames[:, :16, :16], mask=None), "cpu")


def test_a_teacher_that_crops_labels_its_own_pixels(scan):
    recipe = recipe_named("ptychow", epochs=1, batch_size=8, virtual=0)
    teacher = train(scan, "w3", recipe, settings=TINY, size=16, split="none", device="cpu").model
    assert teacher.patch_size == 16 < scan.frame_shape[0]
    taught = taught_by(teacher, replace(scan, object=None), "cpu")
    assert taught.label_patches.shape[1:] == (16, 16)
    learnt = train(taught, "w3", recipe, settings=TINY, size=16, split="none", device="cpu")
    assert np.isfinite(learnt.history.train_loss[-1])
