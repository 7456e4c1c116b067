"""Every iterative method through the one door: it finds the truth, and leaves the process as it was."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from ptychow.errors import InputError
from ptychow.scan import ObjectImage
from ptychow.solver import METHODS, engine, flat_object, iterate, label, measure, method_named
from ptychow.solver.engine import PLATEAU_EPOCHS, on_plateau

pytest.importorskip("ptychi.api.task")
torch = pytest.importorskip("torch")

from ptychi import maths, utils  # noqa: E402
from whole_pixel_scan import SIZE, blurred, common_views, misfit, simulate  # noqa: E402

# 1 - complex correlation with the truth after 20 epochs, constant, scale and ramp removed, measured and doubled.
REACHED = {"lsqml": 0.0004, "epie": 0.0004, "mpie": 0.0003, "rpie": 0.0004, "dm": 0.002}


@pytest.fixture(scope="module")
def scan():
    return simulate()


@pytest.fixture(scope="module")
def data(scan):
    return measure(scan)[1]


@pytest.fixture(scope="module")
def flat(scan):
    return flat_object(scan.positions_px, SIZE)


def error(scan, image):
    """Against the truth, without the rim."""
    return misfit(*common_views(image, scan.object, margin=SIZE // 2 + 3))


@pytest.mark.parametrize("method", METHODS)
def test_finds_the_truth(method, scan):
    found = label(replace(scan, probe=blurred(scan.probe)), method=method, epochs=20, device="cpu")
    assert error(scan, found.scan.object) < REACHED[method]
    assert found.errors[-1] < 0.05
    assert found.scan.object.source.startswith(METHODS[method].title)


def test_poisson_noise_finds_the_truth_too(scan):
    found = label(scan, epochs=20, noise="poisson", device="cpu")
    assert error(scan, found.scan.object) < 0.0006
    assert "poisson noise" in found.scan.object.source


@pytest.mark.parametrize("method", METHODS)
def test_a_single_line_is_a_scan_too(method, scan):
    line = scan.select(np.arange(9))
    line = replace(line, positions=line.positions * (0, 1) + (scan.positions[:, 0].mean().round(), 0))
    found = label(line, method=method, epochs=1, device="cpu")
    assert np.isfinite(found.scan.object.image).all() and found.errors[0] < 1


def state():
    """What Pty-Chi changes for the whole process."""
    root, own = logging.getLogger(), logging.getLogger("ptychi")
    return (
        list(root.handlers),
        root.level,
        own.level,
        torch.get_default_device(),
        torch.get_default_dtype(),
        utils.get_default_complex_dtype(),
        maths.get_use_double_precision_for_fft(),
        maths.get_allow_nondeterministic_algorithms(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )


@pytest.mark.parametrize("method", METHODS)
def test_leaves_the_process_as_it_was(method, data, scan, flat):
    maths.set_use_double_precision_for_fft(True)
    utils.set_default_complex_dtype(torch.complex128)
    torch.set_default_dtype(torch.float64)
    try:
        before = state()
        iterate(data, scan.positions_px, flat, scan.probe, epochs=1, method=method)
        assert state() == before
        with pytest.raises(RuntimeError, match="from inside"):
            iterate(data, scan.positions_px, flat, scan.probe, epochs=1, method=method, on_epoch=fail)
        assert state() == before
    finally:
        torch.set_default_dtype(torch.float32)
        utils.set_default_complex_dtype(torch.complex64)


@pytest.mark.parametrize("length", [{"epochs": 0}, {"epochs": -1}, {"seconds": -1.0}, {"seconds": np.nan}])
def test_no_iteration_at_all_is_refused(length, data, scan, flat):
    with pytest.raises(InputError, match=f"{next(iter(length))}: no "):
        iterate(data, scan.positions_px, flat, scan.probe, **length)


def fail(progress):
    raise RuntimeError("from inside")


def test_what_is_given_is_not_changed(data, scan, flat):
    given = (data.frames, data.good, scan.positions_px, flat.image, scan.probe)
    copies = [part.copy() for part in given]
    iterate(data, scan.positions_px, flat, scan.probe, epochs=2, position_step=1.0)
    for part, copy in zip(given, copies, strict=True):
        assert np.array_equal(part, copy)


def test_an_iteration_can_be_taken_up_where_it_ended(data, scan, flat):
    whole = iterate(data, scan.positions_px, flat, scan.probe, epochs=6)
    half = iterate(data, scan.positions_px, flat, scan.probe, epochs=3)
    rest = iterate(data, scan.positions_px, half.object, half.probe, epochs=3, seed=1)
    assert rest.errors[-1] == pytest.approx(whole.errors[-1], rel=0.1)
    assert rest.errors[0] < half.errors[-1]


def test_progress_is_the_state_after_each_epoch(data, scan, flat):
    seen = []

    def watch(progress):
        seen.append((progress.epoch, progress.errors, progress.seconds, progress.estimate()))
        return progress.epoch == 2

    found = iterate(data, scan.positions_px, flat, scan.probe, epochs=5, on_epoch=watch)
    assert [epoch for epoch, *_ in seen] == [1, 2]
    assert found.errors == seen[-1][1] and len(found.errors) == 2
    assert 0 < seen[0][2] < seen[1][2] == found.seconds
    assert np.array_equal(seen[-1][3].object.image, found.object.image)
    assert not np.array_equal(seen[0][3].object.image, found.object.image)


def test_time_ends_it(data, scan, flat):
    found = iterate(data, scan.positions_px, flat, scan.probe, seconds=0)
    assert len(found.errors) == 1


def test_a_plateau_ends_it(data, scan, flat):
    found = iterate(data, scan.positions_px, flat, scan.probe, method="mpie")
    assert 2 * PLATEAU_EPOCHS <= len(found.errors) < 60
    assert on_plateau(found.errors) and not on_plateau(found.errors[:-1])
    assert error(scan, found.object) < 0.0005


def test_what_a_plateau_is():
    falling = 0.9 ** np.arange(30)
    assert not on_plateau(falling)
    assert not on_plateau(np.ones(2 * PLATEAU_EPOCHS - 1))
    assert on_plateau(np.ones(2 * PLATEAU_EPOCHS))
    assert on_plateau([*falling, *np.full(2 * PLATEAU_EPOCHS, 0.04)])
    assert on_plateau(1.1 ** np.arange(30))


def test_positions_follow_the_gradient(data, scan):
    rng = np.random.default_rng(0)
    wrong = scan.positions_px + rng.uniform(-1, 1, (len(scan), 2))
    start = flat_object(wrong, SIZE, margin=6)
    fixed = iterate(data, wrong, start, scan.probe, epochs=40)
    found = iterate(data, wrong, start, scan.probe, epochs=40, position_step=4.0)
    assert np.array_equal(fixed.positions, wrong)

    def distance(positions):
        away = positions - scan.positions_px
        return np.median(np.hypot(*(away - away.mean(axis=0)).T))

    assert distance(found.positions) < 0.5 * distance(wrong)
    assert found.errors[-1] < fixed.errors[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, flat: {"positions_px": s.positions_px[:-1]}, "starting object: does not fit"),
        (lambda s, flat: {"positions_px": s.positions_px + 40}, "starting object: does not fit"),
        (lambda s, flat: {"start": replace(flat, origin=(0.5, 0))}, "starting object: does not fit.*whole pixels"),
        (lambda s, flat: {"start": ObjectImage(flat.image[:, 9:], flat.origin, "")}, "starting object: does not fit"),
        (lambda s, flat: {"probe": s.probe[0]}, "starting probe: does not fit"),
        (lambda s, flat: {"probe": s.probe[:, 1:]}, "starting probe: does not fit"),
        (lambda s, flat: {"method": "magic"}, "solver: unknown; found magic, expected lsqml"),
        (lambda s, flat: {"method": "raar"}, "left out.*sign reversed"),
        (lambda s, flat: {"method": "epie", "noise": "poisson"}, "ePIE knows no such model.*gaussian"),
        (lambda s, flat: {"noise": "pink"}, "LSQML knows no such model.*gaussian or poisson"),
    ],
)
def test_what_does_not_fit_is_named(change, message, data, scan, flat):
    given = {"positions_px": scan.positions_px, "start": flat, "probe": scan.probe, "epochs": 1}
    with pytest.raises(InputError, match=f"(?s){message}"):
        iterate(data, **{**given, **change(scan, flat)})


def test_methods_are_told_apart():
    assert len({method.title for method in METHODS.values()}) == len(METHODS)
    for name, method in METHODS.items():
        assert method_named(name) is method
        assert method.name == name
        assert any(character.isdigit() for character in method.source)


def test_seconds_alone_are_not_cut_short_by_the_most_epochs(scan, data, flat, monkeypatch):
    monkeypatch.setattr(engine, "MOST_EPOCHS", 2)
    found = iterate(data, scan.positions_px, flat, scan.probe, seconds=1.5, device="cpu")
    assert len(found.errors) > 2


def test_marked_pixels_are_not_saturated_ones(scan):
    frames = scan.frames[:].astype(np.uint16)
    frames[3] = 65535  # the detector dropped it
    frames[5, 2, 2] = 65535
    _, data = measure(replace(scan, frames=frames, saturation=60000.0))
    assert data.good.all() and len(data) == len(scan) - 1
    assert not any("saturated" in note for note in data.notes)
    wrapped = scan.frames[:].astype(np.int16)
    wrapped[5, 2, 2] = -5000  # 60536 as a 16-bit integer with a sign has it
    _, data = measure(replace(scan, frames=wrapped, saturation=60000.0))
    assert (~data.good).sum() == 1
