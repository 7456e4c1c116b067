"""Scan and Model to an object: streamed, whatever the batch, and never a picture of nothing."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from conftest import small_scan
from ptychow.detector_fit import SAMPLE_FRAMES
from ptychow.errors import InputError, MismatchError
from ptychow.evaluation import evaluate
from ptychow.formats.cxi import read_object, write_scan
from ptychow.metrics import align
from ptychow.model import CHECKED_FRAMES, Model
from ptychow.reconstruction import reconstruct
from ptychow.residual import Reference
from ptychow.scan import PASS_PIXELS, Geometry
from ptychow.trust import judge_disagreement


@dataclass
class Watched:
    """Frames that say how many were asked for at a time."""

    frames: np.ndarray
    chunks: list = field(default_factory=list)

    @property
    def shape(self):
        return self.frames.shape

    @property
    def dtype(self):
        return self.frames.dtype

    def __getitem__(self, index):
        part = self.frames[index]
        count = 1 if part.ndim == 2 else len(part)
        self.chunks.append(count)
        return part.copy()


@pytest.mark.parametrize("kind", ["trained", "paper_trained"])
@pytest.mark.parametrize("batch_size", [1, 7, 80, 1000])
def test_the_image_does_not_depend_on_the_batch_size(kind, batch_size, scan, request):
    model = request.getfixturevalue(kind).model
    expected = reconstruct(scan, model, device="cpu", batch_size=64)
    found = reconstruct(scan, model, device="cpu", batch_size=batch_size)
    scale = np.abs(expected.image.image).max()
    assert np.abs(found.image.image - expected.image.image).max() < 1e-5 * scale
    np.testing.assert_allclose(found.coverage, expected.coverage, rtol=1e-5, atol=1e-6)
    assert found.image.origin == expected.image.origin


def test_a_scan_larger_than_memory_is_streamed(trained):
    # 1200 frames, of which never more than a batch (or so many pixels) are asked for at a time.
    scan = small_scan(lines=30, points=4)
    frames = Watched(np.tile(scan.frames, (10, 1, 1)))
    many = replace(scan, frames=frames, positions=np.tile(scan.positions, (10, 1)), raster=None)
    reconstruct(many, trained.model, device="cpu", batch_size=CHECKED_FRAMES)
    assert max(frames.chunks) * frames.shape[1] * frames.shape[2] <= PASS_PIXELS
    # Once each, but for those in which bad pixels are looked for, and the few that checks and fingerprint look at.
    assert sum(frames.chunks) < 1200 + 2 * SAMPLE_FRAMES + 5 * CHECKED_FRAMES


def test_a_model_may_be_given_by_its_file(trained, scan, tmp_path):
    trained.model.save(tmp_path / "model.safetensors")
    expected = reconstruct(scan, trained.model, device="cpu").image.image
    for given in (tmp_path / "model.safetensors", str(tmp_path / "model.safetensors")):
        np.testing.assert_array_equal(reconstruct(scan, given, device="cpu").image.image, expected)
        assert evaluate(given, scan, device="cpu").headline == evaluate(trained.model, scan, device="cpu").headline
    with pytest.raises(InputError, match="no such Model file"):
        reconstruct(scan, "w33", device="cpu")


@pytest.mark.parametrize(
    ("positions", "words"), [(lambda p: p * 0, "all positions are the same"), (lambda p: p * 1e-3, "cannot be right")]
)
def test_positions_of_no_scan_are_refused_unless_forced(positions, words, trained, scan):
    wrong = replace(scan, positions=positions(scan.positions))
    with pytest.raises(InputError, match=words):
        reconstruct(wrong, trained.model, device="cpu")
    assert any(words in said for said in reconstruct(wrong, trained.model, device="cpu", force=True).warnings)


def test_constants_are_solved_for_models_that_need_them_only(trained, paper_trained, scan):
    solved = reconstruct(scan, trained.model, device="cpu", keep_patches=True)
    absolute = reconstruct(scan, paper_trained.model, device="cpu", keep_patches=True)
    assert solved.summary["constants"] == "solved from overlaps"
    assert absolute.summary["constants"] == "absolute phases, none"
    # Turned patches agree better with their mosaic than patches as they come.
    card = trained.model.card.model_copy(update={"gauge": "absolute"})
    turned_off = Model(card, trained.model.network, trained.model.probe, trained.model.mean_pattern)
    rotations = np.exp(1j * np.random.default_rng(0).uniform(-3, 3, len(scan)))
    plain = reconstruct(scan, turned_off, device="cpu", keep_patches=True)
    from ptychow.stitch import probe_weight, solve_constants

    constants = solve_constants(plain.patches * rotations[:, None, None], scan.positions_px, probe_weight(scan.probe))
    found = plain.patches * (rotations * constants)[:, None, None]
    np.testing.assert_allclose(np.abs(np.vdot(found, solved.patches)) / np.vdot(found, found).real, 1, atol=1e-3)


def test_a_part_of_a_scan_lies_where_it_lay_in_the_whole(trained, scan):
    whole = reconstruct(scan, trained.model, device="cpu")
    part = reconstruct(scan.select(np.arange(40, 80)), trained.model, device="cpu", scale="model")
    row, column = (int(a - b) for a, b in zip(part.image.origin, whole.image.origin, strict=True))
    rows, columns = part.image.image.shape
    window = whole.image.image[row : row + rows, column : column + columns]
    inside = part.coverage[16:] > 0.3 * part.coverage.max()  # below the rows that other frames light too
    turned = align(part.image.image[16:], window[16:], weight=inside.astype(float)).image
    assert np.abs(turned - window[16:])[inside].mean() < 0.1
    assert reconstruct(scan.select(np.array([3])), trained.model, device="cpu").image.image.shape == (32, 32)


def test_counts_scaled_by_the_model_or_by_the_scan(trained, scan):
    bright = replace(scan, frames=(3.0 * scan.frames).astype(np.float32))
    by_scan = reconstruct(bright, trained.model, device="cpu")
    expected = reconstruct(scan, trained.model, device="cpu")
    np.testing.assert_allclose(by_scan.image.image, expected.image.image, atol=1e-3)
    by_model = reconstruct(bright, trained.model, device="cpu", scale="model")
    assert by_model.summary["count_scale"] == trained.model.card.preparation.scale_value
    assert by_scan.summary["count_scale"] > 1.5 * by_model.summary["count_scale"]
    assert np.abs(by_model.image.image - expected.image.image).max() > 1e-2


@pytest.mark.parametrize("kind", ["trained", "paper_trained"])
@pytest.mark.parametrize("scale", ["scan", "model"])
def test_frames_without_counts_are_left_out_and_said(kind, scale, scan, request):
    model = request.getfixturevalue(kind).model
    frames = scan.frames.copy()
    frames[72:] = 0  # the shutter closed: the last two lines
    found = reconstruct(replace(scan, frames=frames), model, device="cpu", scale=scale, keep_patches=True)
    expected = reconstruct(scan.select(np.arange(72)), model, device="cpu", scale=scale)
    rows = expected.image.image.shape[0]
    np.testing.assert_allclose(found.image.image[:rows], expected.image.image, atol=1e-4)
    assert not found.image.image[rows:].any() and not found.coverage[rows:].any()
    assert any("without counts, left out: 8 frames (the first: 72)" in warning for warning in found.warnings)
    assert not found.patches[72:].any()


def test_a_scan_of_zeros_gives_no_picture_even_by_force(trained, paper_trained, scan):
    dark = replace(scan, frames=0 * scan.frames)
    with pytest.raises(InputError, match=r"small-0.cxi: frames: the frames hold no counts"):
        reconstruct(dark, trained.model, device="cpu", scale="model", force=True)
    with pytest.raises(MismatchError, match="0 times the counts"):
        reconstruct(dark, paper_trained.model, device="cpu")
    with pytest.raises(InputError, match=r"small-0.cxi: frames: no frame holds counts"):
        reconstruct(dark, paper_trained.model, device="cpu", force=True)


def test_a_scan_may_be_named_by_its_file(trained, scan, tmp_path):
    write_scan(tmp_path / "scan.cxi", scan)
    from_file = reconstruct(tmp_path / "scan.cxi", trained.model, device="cpu")
    np.testing.assert_array_equal(from_file.image.image, reconstruct(scan, trained.model, device="cpu").image.image)
    numbers = evaluate(trained.model, str(tmp_path / "scan.cxi"), device="cpu", indices=range(9))
    assert numbers.headline == evaluate(trained.model, scan, device="cpu", indices=range(9)).headline
    with pytest.raises(InputError, match="no such file"):
        reconstruct("nothing.cxi", trained.model)


def test_bad_counts_name_scan_and_frame(trained, scan):
    frames = scan.frames.astype(np.float32)
    frames[70, 3, 3] = np.nan
    with pytest.raises(InputError, match=r"small-0.cxi: frames: .*NaN or infinite counts"):
        reconstruct(replace(scan, frames=frames), trained.model, device="cpu")


def test_central_crop_is_the_notebooks_uniform_middle(paper_trained, scan):
    found = reconstruct(scan, paper_trained.model, device="cpu", stitching="central-crop", keep_patches=True)
    assert found.patches.shape == (80, 12, 12)
    full = reconstruct(scan, paper_trained.model, device="cpu", keep_patches=True)
    np.testing.assert_array_equal(found.patches, full.patches[:, 10:22, 10:22])
    assert set(np.unique(found.coverage)) <= set(range(10))


def test_without_a_probe_central_crop_is_what_remains(paper_trained, scan):
    model = Model(paper_trained.model.card, paper_trained.model.network, None, paper_trained.model.mean_pattern)
    with pytest.raises(InputError, match="--stitching central-crop"):
        reconstruct(scan, model, device="cpu")
    assert np.isfinite(reconstruct(scan, model, device="cpu", stitching="central-crop").image.image).all()
    with pytest.raises(InputError, match="unknown stitching"):
        reconstruct(scan, model, device="cpu", stitching="sewing")


def test_bf16_is_close_to_fp32(trained, scan):
    half = reconstruct(scan, trained.model, device="cpu", precision="bf16").image.image
    full = reconstruct(scan, trained.model, device="cpu").image.image
    assert 0 < np.abs(half - full).max() < 0.2


def test_what_does_not_fit_is_refused_or_forced(trained, scan):
    other = replace(scan, geometry=Geometry(pixel_size=20e-9))
    with pytest.raises(MismatchError, match="object pixel of 20 nm"):
        reconstruct(other, trained.model, device="cpu")
    forced = reconstruct(other, trained.model, device="cpu", force=True)
    assert "object pixel of 20 nm" in forced.warnings[0] and forced.summary["warnings"] == list(forced.warnings)
    assert forced.title == "forced: small-0.cxi, w3"


@pytest.mark.parametrize("name", ["batch_size", "threads"])
def test_numbers_of_nothing_are_refused(name, trained, scan):
    with pytest.raises(InputError, match=f"{name}: none; found -1, expected 1 or more"):
        reconstruct(scan, trained.model, device="cpu", **{name: -1})


@pytest.mark.parametrize(("usual", "light", "title"), [(2.0, "green", "small-0.cxi, w3"), (1e-6, "red", "doubtful: ")])
def test_a_doubtful_result_says_so_and_what_to_suspect(usual, light, title, trained, scan):
    reference = Reference(median=usual / 2, amber=usual, red=2 * usual, frames=80, data="training")
    card = trained.model.card.model_copy(update={"residual": reference, "disagreement": reference})
    model = Model(card, trained.model.network, trained.model.probe, trained.model.mean_pattern)
    found = reconstruct(scan, model, device="cpu")
    assert found.summary["light"] == light and found.title.startswith(title)
    words = [words for words in found.warnings if words.startswith("disagreement")]
    assert len(words) == (light == "red")
    assert all(f"{found.summary['window_disagreement']:.3f} of the patches" in each for each in words)
    # Where the frames themselves are not explained, positions are not blamed.
    assert not any("think of positions" in each for each in words)
    card = card.model_copy(update={"residual": reference.model_copy(update={"amber": 1.0, "red": 2.0})})
    model = Model(card, trained.model.network, trained.model.probe, trained.model.mean_pattern)
    words = [words for words in reconstruct(scan, model, device="cpu").warnings if words.startswith("disagreement")]
    assert len(words) == (light == "red") and all("think of positions (unit" in each for each in words)


def test_warnings_have_digits_enough_to_be_told_from_their_limits():
    reference = Reference(median=0.1, amber=0.2, red=0.3, frames=80, data="training")
    words = judge_disagreement(reference, 0.204)[1]
    assert "0.204 of the patches" in words and "doubtful from 0.200" in words


def test_saved_it_is_the_object_it_was(trained, scan, tmp_path):
    steps, sweeps = [], []
    options = {"device": "cpu", "batch_size": 32, "advance": steps.append, "on_sweep": sweeps.append}
    found = reconstruct(scan, trained.model, **options)
    assert sweeps[:2] == [0, 1]
    assert steps == [32, 32, 16] and found.summary["frames"] == 80 and found.summary["frames_per_second"] > 0
    found.save(tmp_path / "r.cxi")
    saved = read_object(tmp_path / "r.cxi")
    np.testing.assert_array_equal(saved.image, found.image.image)
    assert saved.origin == found.image.origin and "network w3 of the Model w3, 80 frames of small-0.cxi" in saved.source
    found.save_picture(tmp_path / "r.png", title="test")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    assert found.lit.any() and not found.lit.all()
