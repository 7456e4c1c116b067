"""Weights of patches, and the way from patches to one object."""

import errno

import numpy as np
import pytest

from ptychow import stitching
from ptychow.errors import InputError, PtychoWError
from ptychow.model import Model
from ptychow.reconstruction import reconstruct
from ptychow.stitch import Canvas
from ptychow.stitching import CENTRAL_CROP, patch_weight, room_for_patches, stitch_solved


def test_weights_are_of_the_probe_or_of_the_middle(trained):
    light = np.square(np.abs(trained.model.probe)).sum(axis=0)
    weight = patch_weight(trained.model, "probe")
    lit = light > 0.01 * light.max()
    np.testing.assert_allclose(weight[lit], light[lit] / light.max(), rtol=1e-5)
    assert weight.min() > 0
    np.testing.assert_array_equal(patch_weight(trained.model, "central-crop"), np.ones((CENTRAL_CROP, CENTRAL_CROP)))


def test_what_cannot_be_stitched_is_refused(trained):
    blind = Model(trained.model.card, trained.model.network, None, trained.model.mean_pattern)
    with pytest.raises(InputError, match=r"probe: the Model knows no probe.*central-crop"):
        patch_weight(blind, "probe")
    with pytest.raises(InputError, match="unknown stitching; found glue"):
        patch_weight(trained.model, "glue")


def test_patches_of_one_object_with_any_constants_give_it_back(tmp_path):
    random = np.random.default_rng(0)
    image = np.exp(1j * random.uniform(-1, 1, (40, 40)))
    corners = np.stack(np.meshgrid(np.arange(0, 25, 4), np.arange(0, 25, 4), indexing="ij"), axis=-1).reshape(-1, 2)
    constants = np.exp(1j * random.uniform(-3, 3, len(corners)))
    patches = np.array([c * image[y : y + 16, x : x + 16] for (y, x), c in zip(corners, constants, strict=True)])
    canvas = Canvas(corners + 8.0, np.ones((16, 16), np.float32))
    left_out = 3
    lit = np.delete(np.arange(len(corners)), left_out)
    found = stitch_solved(canvas, patches.astype(np.complex64), corners + 8.0, lit, tmp_path)
    np.testing.assert_allclose(found * constants / (found[0] * constants[0]), 1, atol=1e-4)
    stitched = canvas.object_image("test").image[:40, :40]
    inside = canvas.coverage()[:40, :40] > 0.5
    np.testing.assert_allclose((stitched / image)[inside], found[0] * constants[0], atol=1e-3)


def test_room_that_the_disk_does_not_have(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert type(room_for_patches((2, 4, 4), tmp_path / "unused")) is np.ndarray and not list(tmp_path.iterdir())
    monkeypatch.setattr(stitching, "SPOOL_LIMIT", 0)
    assert isinstance(room_for_patches((2, 4, 4), tmp_path / "patches"), np.memmap)
    assert isinstance(room_for_patches((0, 4, 4), tmp_path / "none"), np.ndarray)
    monkeypatch.setattr(stitching.os, "posix_fallocate", full)
    with pytest.raises(PtychoWError, match=r"cannot be written \(No space left on device\)"):
        room_for_patches((2, 4, 4), tmp_path / "full")


def test_patches_spooled_to_a_file_give_the_same_image(trained, scan, monkeypatch, tmp_path):
    expected = reconstruct(scan, trained.model, device="cpu", keep_patches=True)
    made = []
    real = np.memmap

    def recorded(path, *arguments, **options):
        made.append(str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(stitching, "SPOOL_LIMIT", 0)
    monkeypatch.setattr(np, "memmap", recorded)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = reconstruct(scan, trained.model, device="cpu", keep_patches=True)
    np.testing.assert_array_equal(found.image.image, expected.image.image)
    np.testing.assert_array_equal(found.patches, expected.patches)
    assert type(found.patches) is np.ndarray
    assert len(made) == 2 and all(str(tmp_path) in path for path in made) and not list(tmp_path.iterdir())
