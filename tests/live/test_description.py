"""What is known of a scan when its first frames are prepared, and what is only told later."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scripted import difference, frames_of, positions_of, run, start_of, wait_for, whole

from ptychow.errors import InputError
from ptychow.live.description import described_late
from ptychow.live.records import End, Start
from ptychow.reconstruction import reconstruct
from ptychow.scan import NOT_BELIEVED, Geometry

FLOAT16 = 2**-10
GEOMETRY = Geometry(wavelength=1e-10, distance=0.32, detector_pixel=1e-4, pixel_size=10e-9)


@pytest.fixture
def told(scan):
    """The scan of a detector that knows two bad pixels, its saturation and its geometry."""
    mask = np.ones(scan.frame_shape, bool)
    mask[3, 4] = mask[20, 30] = False
    return replace(scan, mask=mask, saturation=50_000.0, geometry=GEOMETRY, metadata={"detector": "E1"})


def said(found, words):
    return any(words in warning for warning in found.warnings)


# --- a Start that comes late -----------------------------------------------------------------------------------------


def test_a_late_start_still_says_where_positions_in_metres_are(trained, told):
    sessions = []
    steps = [
        frames_of(told) + positions_of(told),
        partial(wait_for, sessions, "decoded", 80),
        [replace(start_of(told), metadata={"detector": "E1"}), End(80, "end")],
    ]
    _, [(live, found)] = run(trained.model, steps, started=sessions.append)
    expected = reconstruct(replace(told, mask=None, saturation=None), trained.model, device="cpu")
    assert difference(found, expected) < FLOAT16
    assert found.geometry.pixel_size == pytest.approx(10e-9) and found.geometry.wavelength == 1e-10
    assert live.described.metadata == {"detector": "E1"}
    assert said(found, "mask and saturation came after") and said(found, "metres wait")


@pytest.mark.parametrize("late", [False, True])
def test_a_geometry_that_is_not_believed_is_said(trained, scan, late):
    sessions = []
    start = replace(start_of(scan), geometry=Geometry(), metadata={NOT_BELIEVED: "distance: 1950 m"})
    frames = [frames_of(scan) + positions_of(scan), partial(wait_for, sessions, "decoded", 80)]
    steps = [*frames, [start, End(80, "end")]] if late else [[start], *frames, [End(80, "end")]]
    pixel = scan.geometry.pixel_size
    _, [(_, found)] = run(trained.model, steps, started=sessions.append, pixel_size=pixel)
    assert said(found, "the detector's geometry is not used: distance: 1950 m (--pixel-size-nm)")


def test_a_late_start_of_another_pixel_than_the_models_is_marked(trained, told):
    sessions = []
    other = replace(told, geometry=Geometry(pixel_size=20e-9), positions=told.positions * 2)
    steps = [
        frames_of(other) + positions_of(other),
        partial(wait_for, sessions, "decoded", 80),
        [start_of(other), End(80, "end")],
    ]
    _, [(_, found)] = run(trained.model, steps, started=sessions.append)
    assert found.title.startswith("forced") and said(found, "object pixel of 20 nm")


def test_positions_in_metres_do_not_wait_beyond_the_end(trained, scan):
    for ends in ([[End(80, "end")]], [1.0]):
        with pytest.raises(InputError, match="pixel size is unknown"):
            run(trained.model, [frames_of(scan) + positions_of(scan), *ends], finishes=False, idle_seconds=0.5)


def test_what_was_known_is_not_told_late(trained, told):
    described = replace(told, positions=np.zeros((80, 2)))
    again = Start(80, told.frame_shape, told.mask.copy(), told.saturation, GEOMETRY)
    for start in (Start(80), again):
        assert described_late(described, start, None) == (described, [])
    for change in ({"mask": ~told.mask}, {"saturation": 1.0}):
        scan, words = described_late(described, replace(again, **change), None)
        assert scan is described and "not used" in words[0]
    scan, [words] = described_late(described, replace(again, geometry=Geometry(pixel_size=3e-9)), 10e-9)
    assert scan is described and "contradicts the file" in words


# --- waiting for it --------------------------------------------------------------------------------------------------


def test_frames_wait_for_a_detector_that_describes_them_last(trained, told):
    """More than two silences long, and for more frames than are otherwise waited for."""
    many = told.select(np.arange(300) % 80)
    steps = [frames_of(many) + positions_of(many), 0.5, [start_of(many)], [End(300, "end")]]
    _, [(live, found)] = run(trained.model, steps, wait_for_start=True)
    expected = reconstruct(many, trained.model, device="cpu")
    assert not live.preparation.mask[3, 4] and live.preparation.saturation == 50_000
    assert difference(found, expected) < FLOAT16 and not said(found, "not used")


@pytest.mark.parametrize("memory", [256e6, 20 * 32 * 32 * 8])
def test_frames_do_not_wait_for_ever(trained, told, memory):
    """Nor for a source that is left alone while the memory is full: its master could never be read."""
    frames = replace(told, frames=told.frames.astype(np.int64))
    unit = replace(frames, positions=frames.positions_px, position_unit="px")
    steps = [*whole(unit, size=4)[1:-1], [End(80, "end")]]
    _, [(_, found)] = run(trained.model, steps, wait_for_start=True, memory=memory, batch_size=8)
    assert found.summary["counters"]["stitched"] == 80
    assert said(found, "did not describe its frames")


# --- the object's pixel ----------------------------------------------------------------------------------------------


def test_a_pixel_size_that_contradicts_the_detector_is_refused(trained, told):
    with pytest.raises(InputError, match=r"pixel_size: contradicts the file; found 12 nm, expected 10 nm"):
        run(trained.model, whole(told), pixel_size=12e-9)
    _, [(_, found)] = run(trained.model, whole(told), pixel_size=10.05e-9)
    assert found.geometry == reconstruct(told, trained.model, device="cpu").geometry
    assert found.geometry.distance == 0.32


# --- few frames ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("came", [1, 15, 16])
def test_in_few_frames_no_bad_pixels_are_looked_for(trained, told, came):
    """The others take longer to come than is waited for stragglers."""
    steps = [
        [start_of(told), *frames_of(told, range(came)), *positions_of(told)],
        0.5,
        [*frames_of(told, range(came, 80)), End(80, "end")],
    ]
    _, [(live, found)] = run(trained.model, steps)
    assert live.described.frames.shape[0] == came
    assert said(found, "some of the first 64 frames had not come")
    assert said(found, "only those that the detector names") == (came < 16)
    if came < 16:
        np.testing.assert_array_equal(live.preparation.mask, told.mask)


@pytest.mark.parametrize("count", [1, 15, 40])
def test_a_small_scan_is_not_one_whose_frames_are_missing(trained, told, count):
    """Whoever says how many frames there are, the detector or the last index."""
    small = told.select(np.arange(count))
    for start in (start_of(small), replace(start_of(small), expected=None)):
        _, [(_, found)] = run(trained.model, [[start], frames_of(small) + positions_of(small), [End(None, "end")]])
        assert not said(found, "had not come") and not said(found, "detector names")
        assert difference(found, reconstruct(small, trained.model, device="cpu")) < FLOAT16
