import dataclasses

import numpy as np
import pytest

from ptychow.errors import InputError
from ptychow.scan import Geometry, ObjectImage, Scan, Subset, frames_at_a_time

LENGTHS = {"wavelength": 1.24e-10, "distance": 2.0, "detector_pixel": 75e-6}
PIXEL = 1.24e-10 * 2.0 / (16 * 75e-6)


def parts(count=6, size=16):
    rng = np.random.default_rng(0)
    return {
        "frames": rng.poisson(5, (count, size, size)).astype(np.uint16),
        "positions": rng.random((count, 2)),
        "name": "a.h5",
    }


def test_a_scan_needs_only_frames_and_positions_and_invents_nothing():
    scan = Scan(**parts())
    assert len(scan) == 6 and scan.frame_shape == (16, 16) and scan.position_unit == "px"
    assert scan.geometry == Geometry() and scan.mask is None and scan.probe is None and scan.object is None


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("frames", np.zeros((6, 16)), "three dimensions"),
        ("frames", np.zeros((0, 16, 16)), "at least one frame"),
        ("frames", np.zeros((6, 0, 16)), "at least one pixel"),
        ("frames", np.zeros((6, 16, 16), complex), "dtype complex128"),
        ("positions", np.zeros((5, 2)), "5 positions for 6 frames.*--map drop=5:"),
        ("positions", np.zeros((9, 2)), "9 positions for 6 frames.*--map drop_positions=6:"),
        (
            "positions",
            np.zeros((18, 2)),
            "18 positions for 6 frames.*--map positions_per_frame=3",
        ),
        ("positions", np.zeros((16, 2)), "16 positions for 6 frames.*last axis of the frames is as long"),
        ("positions", np.zeros((6, 3)), r"expected \(N, 2\)"),
        ("positions", np.full((6, 2), np.nan), "6 not finite"),
        ("nominal_positions", np.zeros((7, 2)), "7 positions for 6 frames"),
        ("position_unit", "nm", "found nm, expected m or px"),
        ("mask", np.ones((16, 15), bool), "expected the frames'"),
        ("mask", np.ones((16, 16)), "dtype float64"),
        ("mask", np.zeros((16, 16), bool), "every pixel bad"),
        ("probe", np.zeros((16, 16), complex), r"expected \(modes, H, W\)"),
        ("probe", np.zeros((1, 16, 16)), "expected complex"),
        ("label_patches", np.zeros((5, 16, 16), complex), r"expected \(6, h, w\)"),
        ("raster", (2, 4), "lines x points = 6"),
        ("saturation", 0.0, "expected counts above 0"),
        ("saturation", np.nan, "expected counts above 0"),
    ],
)
def test_parts_that_do_not_fit_are_named(part, value, message):
    with pytest.raises(InputError, match=f"a.h5: {part}: .*{message}"):
        Scan(**{**parts(), part: value})


@pytest.mark.parametrize(("size", "expected"), [(16, 2**13), (1024, 2), (4096, 1)])
def test_a_pass_takes_so_many_frames_as_fit_its_pixels(size, expected):
    assert frames_at_a_time((size, size)) == expected


def test_the_first_bad_position_is_named():
    given = parts()
    given["positions"][3, 1] = np.inf
    with pytest.raises(InputError, match="1 not finite \\(first at index 3\\)"):
        Scan(**given)


def test_the_object_pixel_follows_from_the_other_lengths():
    assert Scan(**parts(), geometry=Geometry(**LENGTHS)).geometry.pixel_size == pytest.approx(PIXEL)
    two = {**LENGTHS, "distance": None}
    assert Scan(**parts(), geometry=Geometry(**two)).geometry.pixel_size is None
    with pytest.raises(InputError, match="pixel_size: contradicts wavelength"):
        Scan(**parts(), geometry=Geometry(**LENGTHS, pixel_size=1.02 * PIXEL))


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("name", [*LENGTHS, "pixel_size"])
def test_lengths_are_positive(name, value):
    with pytest.raises(InputError, match=f"{name}: not a length"):
        Geometry(**{name: value})


@pytest.mark.parametrize("name", ["wavelength", "distance", "detector_pixel", "pixel_size"])
def test_a_length_that_no_instrument_has_is_refused(name):
    with pytest.raises(InputError, match=f"{name}: no instrument has such a length; found 851.7, expected metres"):
        Geometry(**{name: 851.7})


def test_positions_in_pixels_need_a_pixel_size():
    metres = {**parts(), "position_unit": "m"}
    with pytest.raises(InputError, match=r"pixel size is unknown.*--pixel-size-nm"):
        _ = Scan(**metres).positions_px
    scan = Scan(**metres, geometry=Geometry(pixel_size=2e-3))
    np.testing.assert_allclose(scan.positions_px, metres["positions"] / 2e-3)
    np.testing.assert_array_equal(Scan(**parts()).positions_px, parts()["positions"])


class Counting:
    """Frames that say which of them were read."""

    def __init__(self, frames):
        self.frames, self.read = frames, []
        self.shape, self.dtype = frames.shape, frames.dtype

    def __getitem__(self, index):
        self.read.append(index)
        return self.frames[index]


def full_scan():
    given = parts()
    return Scan(
        **given,
        nominal_positions=given["positions"] + 1,
        label_patches=np.ones((6, 8, 8), complex) * np.arange(6)[:, None, None],
        raster=(2, 3),
        mask=np.ones((16, 16), bool),
    )


@pytest.mark.parametrize("chosen", [np.array([4, 1, 1]), np.array([False, True, False, False, True, True])])
def test_selecting_frames_keeps_everything_together(chosen):
    scan = full_scan()
    part = scan.select(chosen)
    expected = np.arange(6)[chosen]
    assert len(part) == 3 and part.raster is None and part.mask is scan.mask
    np.testing.assert_array_equal(part.frames[:], scan.frames[expected])
    np.testing.assert_array_equal(part.positions, scan.positions[expected])
    np.testing.assert_array_equal(part.nominal_positions, scan.positions[expected] + 1)
    np.testing.assert_array_equal(part.label_patches[:][:, 0, 0], expected)
    np.testing.assert_array_equal(part.select(np.array([2, 0])).frames[1], scan.frames[expected[0]])


def test_selecting_reads_no_frame():
    frames = Counting(parts()["frames"])
    part = Scan(**{**parts(), "frames": frames}).select(np.array([5, 2]))
    assert frames.read == [] and part.frame_shape == (16, 16)
    assert isinstance(part.frames, Subset) and part.frames.shape == (2, 16, 16)
    part.frames[1]
    assert frames.read == [2]


def test_batches_cover_the_scan_in_order():
    scan = Scan(**parts(count=7))
    indices, frames = zip(*scan.batches(3), strict=True)
    assert [len(batch) for batch in frames] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(indices), np.arange(7))
    np.testing.assert_array_equal(np.concatenate(frames), scan.frames)


def test_fingerprints_tell_scans_apart_and_ignore_names():
    scan = Scan(**parts())
    same = Scan(**{**parts(), "name": "b.h5"})
    assert scan.fingerprint() == same.fingerprint() and len(scan.fingerprint()) == 16
    frames = parts()["frames"]
    frames[3, 0, 0] += 1
    others = [
        Scan(**{**parts(), "frames": frames}),
        Scan(**{**parts(), "positions": parts()["positions"] + 1e-6}),
        Scan(**{**parts(), "position_unit": "m"}),
        scan.select(np.arange(5)),
    ]
    assert len({other.fingerprint() for other in [scan, *others]}) == 5


def test_objects_are_complex_images():
    for image in (np.zeros((4, 4)), np.zeros((1, 4, 4), complex)):
        with pytest.raises(InputError, match="not a complex image"):
            ObjectImage(image, (0.0, 0.0), "test")


def test_a_scan_is_not_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Scan(**parts()).name = "other"
