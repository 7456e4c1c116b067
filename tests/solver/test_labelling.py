"""The iterative engine behind `label`: it finds a simulated object where it lies, and leaves the process as it was."""

import builtins
import logging
from dataclasses import replace

import numpy as np
import pytest

from ptychow.errors import InputError, MissingExtraError, PtychoWError
from ptychow.metrics import align
from ptychow.optics.beam import gaussian_beam
from ptychow.optics.detection import Detector
from ptychow.optics.propagation import far_field
from ptychow.optics.samples import SAMPLES
from ptychow.optics.simulate import canvas
from ptychow.optics.simulate import simulate as optics_simulate
from ptychow.optics.trajectories import raster
from ptychow.patches import PatchExtractor
from ptychow.scan import ObjectImage
from ptychow.solver import illumination, label, object_frame

pytest.importorskip("ptychi.api.task")
torch = pytest.importorskip("torch")

from whole_pixel_scan import COUNTS, SIZE, blurred, common_views, misfit, simulate  # noqa: E402


@pytest.fixture(scope="module")
def scan():
    return simulate()


@pytest.fixture(scope="module")
def labelled(scan):
    return label(replace(scan, probe=blurred(scan.probe)), epochs=60, batch_size=32, device="cpu")


def test_finds_the_object_where_it_lies(scan, labelled):
    found, truth = common_views(labelled.scan.object, scan.object, margin=SIZE // 2 + 3)
    assert misfit(found, truth) < 0.001
    removed = align(found, truth, remove=("constant", "scale", "ramp", "shift")).removed
    assert np.abs(removed.shift).max() < 0.2  # which the probe makes up for
    for wrong in (found[::-1], found[:, ::-1], found[::-1, ::-1], found.conj()):
        assert misfit(wrong, truth) > 20 * misfit(found, truth)


def test_fixes_the_factor_between_object_and_probe(scan, labelled):
    mean_counts = scan.frames[:].sum(axis=(1, 2)).mean()
    assert (np.abs(labelled.scan.probe) ** 2).sum() == pytest.approx(mean_counts, rel=1e-5)


def test_says_what_it_did(labelled):
    assert labelled.scan.object.source.startswith("LSQML (Pty-Chi ")
    assert "60 epochs" in labelled.scan.object.source
    assert len(labelled.errors) == 60
    assert labelled.errors[-1] < 0.5 * labelled.errors[0]
    assert labelled.seconds > 0


@pytest.mark.parametrize("offset", [(0.5, 0.25), (1000.75, -2000.5)])
def test_origin_does_not_depend_on_where_positions_start(scan, offset):
    moved = label(replace(scan, positions=scan.positions + offset), epochs=15, batch_size=32, device="cpu").scan.object
    whole = ObjectImage(moved.image, tuple(np.array(moved.origin) - np.floor(offset)), "")
    found, truth = common_views(whole, scan.object, margin=SIZE // 2 + 3)
    # The rest of the offset is a sub-pixel shift: undo it by its Fourier phase, blind to anything else.
    rows, columns = (np.fft.fftfreq(n)[:, None] * part for n, part in zip(found.shape, np.mod(offset, 1), strict=True))
    back = np.fft.ifft2(np.fft.fft2(found) * np.exp(2j * np.pi * (rows + columns.T)))
    inner = (slice(4, -4), slice(4, -4))
    assert misfit(back[inner], truth[inner]) < 0.5 * misfit(found[inner], truth[inner])


def forward_error(scan, shift):
    """Relative amplitude error of what probe and object of the scan predict, the object `shift` pixels off."""
    origin = tuple(np.asarray(scan.object.origin) + shift)
    patches = PatchExtractor(ObjectImage(scan.object.image, origin, ""), SIZE)(scan.positions_px)
    expected = sum(np.abs(far_field(mode * patches)) ** 2 for mode in scan.probe)
    return ((np.sqrt(expected) - np.sqrt(scan.frames)) ** 2).sum() / scan.frames.sum()


@pytest.mark.parametrize("points", [8, 9])
def test_probe_and_object_explain_the_frames_best_at_the_stated_origin(points):
    # Even rasters of odd steps have their mean position between pixels, odd ones on a pixel.
    positions = raster(points, points, 5.0)
    assert positions.mean() % 1 == (0.5 if points % 2 == 0 else 0)
    shape, origin = canvas(positions, SIZE)
    sample = SAMPLES["labyrinth"](shape, np.random.default_rng(1), feature=16.0, phase_step=-1.0)
    beam = gaussian_beam(SIZE, fwhm=9, curvature=0.03)
    measured = optics_simulate(beam, sample, positions, origin=origin, counts=COUNTS, detector=Detector())
    found = label(measured, epochs=30, batch_size=16, device="cpu").scan
    best = forward_error(found, (0, 0))
    assert best < 0.02
    for shift in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)):
        assert forward_error(found, shift) > 1.3 * best


def test_leaves_the_process_as_it_was(scan):
    root, own = logging.getLogger(), logging.getLogger("ptychi")
    before = (
        list(root.handlers),
        root.level,
        own.level,
        torch.get_default_device(),
        torch.get_default_dtype(),
    )
    random_state = np.random.get_state()[1].copy(), torch.get_rng_state().clone()
    torch.set_default_dtype(torch.float64)
    try:
        label(scan, epochs=1, device="cpu")
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert before == (
        list(root.handlers),
        root.level,
        own.level,
        torch.get_default_device(),
        torch.get_default_dtype(),
    )
    assert np.array_equal(random_state[0], np.random.get_state()[1])
    assert torch.equal(random_state[1], torch.get_rng_state())


def test_same_seed_same_object_other_seed_other_order(scan):
    first, again, other = (label(scan, epochs=2, batch_size=16, device="cpu", seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.scan.object.image, again.scan.object.image)
    assert first.errors == again.errors
    assert not np.array_equal(first.scan.object.image, other.scan.object.image)


def test_the_mask_keeps_bad_pixels_out(scan):
    frames = scan.frames[:].astype(np.float32)
    mask = np.ones((SIZE, SIZE), bool)
    mask[SIZE // 2 + 2, 4:-4] = False
    frames[:, ~mask] = np.nan
    masked = label(replace(scan, frames=frames, mask=mask), epochs=25, batch_size=32, device="cpu")
    # Counts of another frame look good on average: nothing but the mask can tell.
    wrong = np.where(mask, frames, np.roll(scan.frames[:], 7, axis=0))
    trusting = replace(scan, frames=wrong, mask=np.ones_like(mask))
    believed = label(trusting, epochs=25, batch_size=32, device="cpu")
    margin = SIZE // 2 + 3
    error, error_believed = (misfit(*common_views(r.scan.object, scan.object, margin)) for r in (masked, believed))
    assert error < 0.01
    assert error < 0.2 * error_believed
    assert masked.errors[-1] < believed.errors[-1]
    assert any("24 by the scan's mask" in note for note in masked.notes)


def test_saturated_pixels_are_left_out(scan):
    frames = scan.frames[:].copy()
    frames[3, 0, 0] = 60000
    result = label(replace(scan, frames=frames, saturation=60000.0), epochs=1, device="cpu")
    assert any("1 saturated" in note for note in result.notes)


def test_dead_pixels_are_found_and_left_out(scan):
    frames = scan.frames[:] + np.random.default_rng(0).poisson(2, scan.frames.shape)
    assert label(replace(scan, frames=frames), epochs=1, device="cpu").notes == ()
    frames[:, SIZE // 2 + 3, SIZE // 2] = 0
    assert label(replace(scan, frames=frames), epochs=1, device="cpu").notes == ("1 bad pixel: 1 dead",)


def test_frames_without_counts_are_left_out(scan):
    frames = scan.frames[:].copy()
    frames[10:20], frames[50:60] = 0, 65535  # shutter closed; dropped by the detector
    result = label(replace(scan, frames=frames), epochs=3, device="cpu")
    lit = np.r_[0:10, 20:50, 60 : len(scan)]
    known = label(scan.select(lit), epochs=3, device="cpu")
    assert "20 frames without counts left out" in result.notes
    np.testing.assert_array_equal(result.scan.positions, scan.positions[lit])
    np.testing.assert_array_equal(result.scan.object.image, known.scan.object.image)


def test_odd_frames_and_no_probe():
    odd = simulate(size=33, points=8)
    result = label(replace(odd, probe=None), epochs=40, batch_size=16, device="cpu")
    assert result.scan.probe.shape == (1, 33, 33)
    assert any("no probe" in note for note in result.notes)
    known = label(odd, epochs=40, batch_size=16, device="cpu")
    assert misfit(*common_views(known.scan.object, odd.object, 19)) < 0.005


def test_reports_every_epoch(scan):
    seen = []
    result = label(
        scan, epochs=3, device="cpu", on_epoch=lambda progress: seen.append((progress.epoch, progress.errors[-1]))
    )
    assert seen == list(zip((1, 2, 3), result.errors, strict=True))


def test_modes_asked_for(scan):
    more = label(scan, epochs=1, probe_modes=3, device="cpu")
    assert more.scan.probe.shape == (3, SIZE, SIZE)
    assert any("added 2" in note for note in more.notes)
    fewer = label(more.scan, epochs=1, probe_modes=2, device="cpu")
    assert fewer.scan.probe.shape == (2, SIZE, SIZE)
    assert any("kept the 2 strongest of 3" in note for note in fewer.notes)


def test_object_frame_holds_every_patch(scan):
    moved = replace(scan, positions=scan.positions + 0.3)
    origin, shape = object_frame(moved.positions_px, SIZE)
    starts = moved.positions_px - SIZE // 2 - origin
    assert starts.min() >= 1
    assert (np.array(shape) - np.ceil(starts.max(axis=0)) - SIZE).min() >= 1


def changed(frames, index, value):
    frames = frames.astype(np.float32)
    frames[index] = value
    return frames


def test_illumination_adds_up_to_all_counts(scan):
    light = illumination(scan)
    assert light.shape == scan.object.image.shape
    assert light.sum() == pytest.approx(len(scan) * (np.abs(scan.probe) ** 2).sum(), rel=1e-5)
    centre = scan.positions - scan.object.origin
    assert np.average(np.indices(light.shape)[0], weights=light) == pytest.approx(centre[:, 0].mean(), abs=1.5)
    # Of a part of the scan; of an object that is too small for it.
    some = illumination(scan.select(np.arange(3)))
    assert some.sum() == pytest.approx(3 / len(scan) * light.sum(), rel=1e-5)
    cut = ObjectImage(scan.object.image[20:-25, 30:-3], (scan.object.origin[0] + 20, scan.object.origin[1] + 30), "")
    assert np.allclose(illumination(replace(scan, object=cut)), light[20:-25, 30:-3])
    with pytest.raises(InputError, match="ptychow label"):
        illumination(replace(scan, object=None))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda s: {"frames": np.zeros_like(s.frames)}, {}, "all zero"),
        (
            lambda s: {"frames": changed(s.frames, (2, 1, 5), np.nan)},
            {},
            r"NaN or infinite.*first in frame 2",
        ),
        (
            lambda s: {"frames": changed(s.frames, (4, 0, 0), -3).astype(np.int32)},
            {},
            "negative counts; found 1 of them",
        ),
        (lambda s: {"frames": s.frames[:, :, :20], "probe": None}, {}, "not square"),
        (lambda s: {"probe": s.probe[:, :16, :16]}, {}, "probe: not of the frames' size"),
        (lambda s: {"probe": s.probe * 0}, {}, "zero or not finite"),
        (lambda s: {"saturation": 0.0}, {}, "saturation: .*counts above 0"),
        (lambda s: {"saturation": 0.5, "frames": s.frames[:] + 1}, {}, "no good pixel is left"),
        (lambda s: {"positions": s.positions * 1e6}, {}, "does not fit into memory.*GiB needed"),
        (lambda s: {}, {"epochs": 0}, "epochs"),
        (lambda s: {}, {"probe_modes": 40}, "probe_modes"),
        (lambda s: {}, {"batch_size": 0}, "batch_size: too few; found 0"),
        (lambda s: {}, {"batch_size": 8, "method": "dm"}, "batch_size: .*takes all frames at once; found 8"),
        (lambda s: {}, {"device": "abacus"}, "device.*abacus"),
        (lambda s: {}, {"device": "cuda:1"}, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_bad_input_is_named(scan, change, options, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
        label(replace(scan, **change(scan)), **{"epochs": 1, "device": "cpu", **options})


def test_divergence_is_a_failure_not_a_picture(scan):
    # Frames that have nothing to do with the positions, and a probe that cannot make them.
    noise = np.zeros(scan.frames.shape, np.float32)
    noise[np.arange(len(scan)), np.random.default_rng(0).integers(0, 32, len(scan)), 3] = 1e30
    with pytest.raises(PtychoWError, match="diverged"):
        label(replace(scan, frames=noise), epochs=5, device="cpu")
    assert torch.get_default_dtype() == torch.float32


def test_missing_extra_names_the_pip_line(scan, monkeypatch):
    real = builtins.__import__

    def without_ptychi(name, *rest, **more):
        if name.split(".")[0] == "ptychi":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_ptychi)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[solver\]'"):
        label(scan)
