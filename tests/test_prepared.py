"""A prepared scan is the scan another detector would have measured: the forward model still holds."""

from dataclasses import replace

import numpy as np
import pytest

from ptychow.detector_fit import fit_preparation
from ptychow.errors import InputError
from ptychow.formats import read_scan, write_scan
from ptychow.orientation import Orientation
from ptychow.patches import PatchExtractor
from ptychow.prepared import prepare_scan
from ptychow.scan import Geometry


def counts_of(scan, **options):
    return prepare_scan(scan, fit_preparation(scan, transform="raw", scale="none", **options))


def forward_misfit(scan):
    """Relative amplitude error of the scan's own probe and object against its frames."""
    patches = PatchExtractor(scan.object, scan.frame_shape[0])(scan.positions_px)
    waves = np.fft.fft2(scan.probe[None] * patches[:, None], norm="ortho")
    expected = np.sqrt(np.fft.fftshift((np.abs(waves) ** 2).sum(axis=1), axes=(-2, -1)))
    measured = np.sqrt(scan.frames[:].astype(float))
    return np.linalg.norm(expected - measured) / np.linalg.norm(measured)


@pytest.mark.parametrize("orientation", list(Orientation))
def test_a_turned_detector_is_turned_back(scan, orientation):
    stored = orientation.inverse.apply_about_zero_frequency(scan.frames[:])
    found = counts_of(replace(scan, frames=np.ascontiguousarray(stored)), orientation=orientation)
    np.testing.assert_array_equal(found.frames[:], scan.frames[:])


def test_an_off_centre_detector_is_centred(scan):
    size = scan.frame_shape[0]
    wide = np.zeros((len(scan), size + 20, size + 20), np.uint16)
    wide[:, 3 : 3 + size, 11 : 11 + size] = scan.frames[:]
    moved = replace(scan, frames=wide, probe=None, object=None, mask=None)
    found = counts_of(moved, centre=(3 + size // 2, 11 + size // 2), crop=size)
    np.testing.assert_array_equal(found.frames[:], scan.frames[:])


def test_a_cropped_scan_keeps_its_forward_model(scan):
    found = counts_of(scan, crop=16)
    assert found.frame_shape == (16, 16) and found.probe.shape[1:] == (16, 16)
    assert forward_misfit(found) < forward_misfit(scan) + 0.15
    if scan.geometry.pixel_size is not None:
        assert found.geometry.pixel_size == pytest.approx(scan.geometry.pixel_size * scan.frame_shape[0] / 16)


def test_frames_are_read_lazily_and_in_any_order(scan):
    found = counts_of(scan)
    np.testing.assert_array_equal(found.frames[np.array([5, 1])], found.frames[:][[5, 1]])
    np.testing.assert_array_equal(found.frames[3], found.frames[:][3])
    assert found.frames.dtype == np.uint32


def test_a_wide_detector_is_cropped_where_lengths_are_known(scan):
    size = scan.frame_shape[0]
    wide = np.zeros((len(scan), size + 2, size + 6), np.uint16)
    wide[:, 1:-1, 3:-3] = scan.frames[:]
    lengths = Geometry(wavelength=1e-10, distance=1.0, detector_pixel=1e-4)
    metres = replace(
        scan, frames=wide, probe=None, object=None, mask=None, geometry=lengths, positions=scan.positions * 1e-8
    )
    metres = replace(metres, position_unit="m")
    middle = (1 + size // 2, 3 + size // 2)
    found = counts_of(metres, centre=middle, crop=size)
    np.testing.assert_array_equal(found.frames[:], scan.frames[:])
    assert found.geometry.pixel_size == pytest.approx(1e-10 / (size * 1e-4))
    with pytest.raises(InputError, match="not square either"):
        counts_of(replace(metres, position_unit="px"), centre=middle, crop=size)


def test_only_counts_make_a_scan(scan):
    with pytest.raises(InputError, match="gives no counts"):
        prepare_scan(scan, fit_preparation(scan))


def test_the_command_writes_a_scan(scan_file, ptychow, tmp_path):
    target = tmp_path / "turned.cxi"
    code, printed, _ = ptychow("prepare", scan_file, "--orientation", "flip-rows", "-o", target)
    assert code == 0 and "wrote scan" in printed
    before, after = read_scan(scan_file), read_scan(target)
    expected = Orientation.FLIP_ROWS.apply_about_zero_frequency(before.frames[:])
    good = np.ones(before.frame_shape, bool) if after.mask is None else after.mask
    np.testing.assert_array_equal(after.frames[:][:, good], expected[:, good])
    np.testing.assert_allclose(after.positions, before.positions)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--orientation", "sideways"], "sideways"),
        (["--centre", "middle"], "ROW,COLUMN"),
        (["--crop", "15"], "15"),
        (["--bin", "5"], "5"),
        (["--frames", "5"], "--frames"),
        (["--frames", "9:3"], "--frames: no frames; found 9:3, expected NUMBER or FIRST:LAST, some of 80 frames"),
        (["--drop", "80"], "--drop: no frames; found 80,"),
        (["--drop", "3,,5"], "--drop: no frames"),
        (["--frames", "3:5", "--drop", "4,3"], "no frame is left; found 3:5 without 4,3"),
        (["--frames", "a:b"], "--frames"),
        (["--mask", "none.npy"], "no such file"),
        (["--monitor", "none.csv:I0"], "none.csv: --monitor: no such file"),
    ],
)
def test_impossible_preparations_are_refused(scan_file, ptychow, options, words):
    code, _, complaint = ptychow("prepare", scan_file, *options)
    assert code == 2 and words in complaint and len(complaint.splitlines()) == 1


def test_swapped_quarters_extra_frames_and_nan_pixels_can_all_be_put_right(scan, tmp_path, ptychow):
    """A scan as some detectors' software stores it is, prepared, the scan it should have been."""
    frames = np.fft.ifftshift(scan.frames[:], axes=(1, 2)).astype(np.float32)
    frames[9, 3, 5] = np.nan
    frames[[0, 1, 40]] = np.inf
    write_scan(tmp_path / "raw.cxi", replace(scan, frames=frames))
    (tmp_path / "bad.txt").write_text("3,5\n")
    target, kept = tmp_path / "fixed.cxi", [*range(2, 40), *range(41, 79)]
    fixed = ("--mask", tmp_path / "bad.txt", "--frames", "2:-1", "--drop", "40", "--fftshift")
    code, _, complaint = ptychow("prepare", tmp_path / "raw.cxi", "-o", target)
    assert code == 2 and "ptychow prepare --mask" in complaint and "ptychow prepare --drop" in complaint
    code, printed, complaint = ptychow("prepare", tmp_path / "raw.cxi", *fixed, "-o", target)
    assert (code, complaint) == (0, "") and "1 bad pixel in" in printed
    found = read_scan(target)
    assert not found.mask[(3 + 16) % 32, (5 + 16) % 32]
    np.testing.assert_array_equal(found.frames[:][:, found.mask], scan.frames[kept][:, found.mask])
    assert np.isfinite(found.frames[:]).all()
    np.testing.assert_array_equal(found.positions, scan.positions[kept])


@pytest.mark.parametrize("what", ["zero", "wrap"])
def test_negative_integers_are_what_one_says_they_are(what, scan, tmp_path, ptychow):
    counts = scan.frames[:].astype(np.int32)
    bright = counts * (60000 // counts.max())
    stored, expected = {
        "zero": (counts - 3, np.maximum(counts - 3, 0)),
        "wrap": (np.where(bright > 32767, bright - 65536, bright), bright),
    }[what]
    write_scan(tmp_path / "raw.cxi", replace(scan, frames=stored))
    code, _, complaint = ptychow("prepare", tmp_path / "raw.cxi", "-o", tmp_path / "p.cxi")
    assert code == 2 and "negative counts" in complaint and "ptychow prepare --negative" in complaint
    code, _, complaint = ptychow("prepare", tmp_path / "raw.cxi", "--negative", what, "-o", tmp_path / "p.cxi")
    assert (code, complaint) == (0, "")
    found = read_scan(tmp_path / "p.cxi")
    good = np.ones(scan.frame_shape, bool) if found.mask is None else found.mask
    np.testing.assert_array_equal(found.frames[:][:, good], expected[:, good])
    assert good.mean() > 0.9


def test_uneven_doses_are_divided_by_their_monitor(scan, tmp_path, ptychow):
    doses = np.random.default_rng(2).uniform(0.4, 2.5, len(scan))
    frames = np.rint(scan.frames[:] * doses[:, None, None]).astype(np.uint16)
    frames[5, 3, 4] = 65535  # which marks the pixel as invalid in that frame, and is not scaled
    write_scan(tmp_path / "raw.cxi", replace(scan, frames=frames))
    readings = 31.7 * doses
    np.savetxt(tmp_path / "i0.csv", np.column_stack((range(len(scan)), readings)), delimiter=",", header="point,I0")
    chosen = ["--frames", "2:", "--drop", "40"]
    kept = [*range(2, 40), *range(41, len(scan))]
    arguments = [*chosen, "--monitor", f"{tmp_path}/i0.csv:I0", "-o", tmp_path / "even.cxi"]
    code, printed, complaint = ptychow("prepare", tmp_path / "raw.cxi", *arguments)
    assert (code, complaint) == (0, "") and "incoming intensity 0." in printed
    found = read_scan(tmp_path / "even.cxi")
    middle = np.median(doses[kept])
    good = np.ones(scan.frame_shape, bool) if found.mask is None else found.mask
    wrong = np.abs(found.frames[:] - scan.frames[:][kept] * middle)
    wrong[3, 3, 4] = 0  # filled
    assert wrong[:, good].max() <= 0.51 * middle / doses.min()  # the rounding of the weakest frame
    assert found.frames[:][3, 3, 4] < 1000
    np.testing.assert_array_equal(found.positions, scan.positions[kept])


def test_an_object_pixel_that_cannot_be_kept_is_said(scan, tmp_path, ptychow):
    upright = replace(scan, object=None, probe=None, position_unit="m", positions=scan.positions_px * 1e-8, raster=None)
    write_scan(tmp_path / "wide.cxi", replace(upright, frames=scan.frames[:][:, 4:-4]))
    code, _, complaint = ptychow("prepare", tmp_path / "wide.cxi", "--crop", 16, "-o", tmp_path / "square.cxi")
    assert code == 0 and "the object pixel was not kept" in complaint and "--pixel-size-nm" in complaint


def test_a_prepared_scan_survives_its_file(scan, tmp_path):
    found = counts_of(scan)
    write_scan(tmp_path / "p.cxi", found)
    again = read_scan(tmp_path / "p.cxi")
    np.testing.assert_array_equal(again.frames[:], found.frames[:])
    assert "preparation" in again.metadata
