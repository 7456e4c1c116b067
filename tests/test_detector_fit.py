import numpy as np
import pytest

from ptychow.datasets import locate
from ptychow.detector_fit import fit_preparation, network_sizes, with_detector_of
from ptychow.errors import InputError
from ptychow.formats import read_scan
from ptychow.scan import Scan


def make_scan(size=64, counts=1e6, frames=40, radius=0.2, dtype=np.uint16, shape=None, **fields):
    """A disc of light on the detector, made by a small probe."""
    shape = shape or (size, size)
    y, x = (np.arange(length) - length // 2 for length in shape)
    mean = 1 / (1 + np.exp(np.hypot(y[:, None], x[None, :]) - radius * size))
    mean *= counts / mean.sum()
    measured = np.random.default_rng(0).poisson(mean, (frames, *shape)).astype(dtype)
    return Scan(frames=measured, positions=np.zeros((frames, 2)), name="disc", **fields)


def spot(size, width):
    """A Gaussian probe of this standard deviation of its intensity, in pixels."""
    y, x = np.mgrid[:size, :size] - size // 2
    return np.exp(-(x**2 + y**2) / (4 * width**2)).astype(np.complex64)[None]


def with_bad_pixels(scan):
    frames = scan.frames.copy()
    frames[:, 32, 30] = 0
    frames[:, 33, 40] = 65535
    frames[3, 30, 30] = 65535
    mask = np.ones(scan.frame_shape, bool)
    mask[28, 28] = False
    return Scan(frames=frames, positions=scan.positions, mask=mask, name=scan.name)


def test_by_default_nothing_is_cut_and_typical_inputs_are_of_order_one():
    scan = make_scan()
    preparation = fit_preparation(scan)
    assert (preparation.crop, preparation.bin, preparation.resample, preparation.mask) == (None, 1, None, None)
    inputs = preparation.apply(scan.frames)
    assert inputs.shape == (40, 1, 64, 64) and inputs.mean() == pytest.approx(1, rel=1e-3) and inputs.max() < 10


def test_bad_pixels_are_found_and_said():
    preparation = fit_preparation(with_bad_pixels(make_scan()))
    assert sorted(map(tuple, np.argwhere(~preparation.mask))) == [(28, 28), (32, 30), (33, 40)]
    assert preparation.notes == ("3 bad pixels: 1 by the scan's mask, 1 marked in most frames, 1 dead",)


def test_a_sharp_direct_beam_off_the_middle_is_no_hot_pixel():
    y, x = np.mgrid[:64, :64]
    far = np.hypot(y - 44, x - 38)
    mean = 3e4 * (far < 0.5) + 300 * np.exp(-((far / 6) ** 2))
    frames = np.random.default_rng(0).poisson(mean, (40, 64, 64)).astype(np.uint16)
    scan = Scan(frames=frames, positions=np.zeros((40, 2)), name="beam")
    assert not fit_preparation(scan).mask[44, 38]  # about the middle it is one
    preparation = fit_preparation(scan, centre="auto", crop=32)
    assert preparation.centre == (44, 38)
    assert preparation.mask is None or preparation.mask[44, 38]


def test_bad_pixels_can_be_the_scan_s_or_none():
    scan = with_bad_pixels(make_scan())
    np.testing.assert_array_equal(fit_preparation(scan, bad_pixels="scan").mask, scan.mask)
    assert fit_preparation(scan, bad_pixels="none").mask is None


def test_a_pixel_that_is_nan_in_most_frames_is_filled_and_one_that_is_so_once_is_refused():
    scan = make_scan(dtype=np.float32)
    scan.frames[:, 30, 20] = np.nan
    preparation = fit_preparation(scan)
    assert preparation.notes == ("1 bad pixel: 1 marked in most frames",) and not preparation.mask[30, 20]
    assert np.isfinite(preparation.apply(scan.frames)).all()
    scan.frames[7, 3, 4] = np.inf
    with pytest.raises(InputError, match=r"found 1 \(first in frame 7\), .*ptychow prepare --mask.*--drop"):
        fit_preparation(scan)


def test_another_scan_s_detector_can_be_taken_over():
    preparation = with_detector_of(fit_preparation(make_scan(), size=32), with_bad_pixels(make_scan()))
    assert (~preparation.mask).sum() == 3 and preparation.crop == 32


@pytest.mark.parametrize(
    ("dtype", "markers", "wraps"),
    [
        ("u2", (65535,), False),
        ("i2", (65535,), True),
        ("u4", (4294967295,), False),
        ("i4", (-1, -2), False),
        ("f4", (), False),
    ],
)
def test_the_type_of_counts_decides_on_markers_and_wrapping(dtype, markers, wraps):
    preparation = fit_preparation(make_scan(counts=1e4, dtype=dtype))
    assert preparation.markers == markers and preparation.wrap_negative == wraps
    chosen = fit_preparation(make_scan(counts=1e4, dtype=dtype), markers=(7,), wrap_negative=not wraps)
    assert chosen.markers == (7,) and chosen.wrap_negative != wraps


def test_wrapped_counts_give_what_unsigned_ones_do():
    scan = make_scan(counts=3e7)
    assert scan.frames.max() > 40_000
    wrapped = Scan(frames=scan.frames.view(np.int16), positions=scan.positions)
    np.testing.assert_array_equal(
        fit_preparation(wrapped).apply(wrapped.frames), fit_preparation(scan).apply(scan.frames)
    )


def test_saturation_comes_from_the_scan_unless_given():
    scan = make_scan(saturation=900.0)
    assert fit_preparation(scan).saturation == 900
    assert fit_preparation(scan, saturation=800).saturation == 800


def test_the_centre_is_found_and_moved_to_the_middle():
    scan = make_scan(size=96)
    moved = Scan(frames=np.roll(scan.frames, (5, -7), axis=(1, 2)), positions=scan.positions, name="moved")
    with pytest.raises(
        InputError, match=r"not in the middle.*Crop to at most 82 pixels; sizes that work: 64 \(crop to 64\), 80"
    ):
        fit_preparation(moved, centre="auto")
    preparation = fit_preparation(moved, centre="auto", crop=80)
    assert preparation.centre == (53, 41)
    np.testing.assert_array_equal(preparation.apply(moved.frames), fit_preparation(scan, crop=80).apply(scan.frames))
    assert fit_preparation(moved, centre="auto", size=64).output_size(moved.frame_shape) == (64, 64)


@pytest.mark.parametrize(
    ("radius", "width", "crop", "bin"),
    [
        (0.08, 2.0, 64, 1),  # all light in the middle: cut, and keep the whole field
        (0.20, 2.0, 128, 2),  # a small probe: bin as far as needed
        (0.40, 2.0, None, 4),  # light everywhere, a small probe
        (0.20, None, 128, 2),  # no probe: as little field as needed is given up
    ],
)
def test_a_size_is_reached_by_what_loses_least(radius, width, crop, bin):
    scan = make_scan(size=256, counts=1e7, frames=4, radius=radius, probe=None if width is None else spot(256, width))
    preparation = fit_preparation(scan, size=64)
    assert (preparation.crop, preparation.bin) == (crop, bin)
    assert preparation.apply(scan.frames).shape == (4, 1, 64, 64)


def test_a_size_that_would_lose_too_much_is_not_chosen_but_can_be():
    scan = make_scan(size=128, counts=1e7, frames=4, radius=0.4, probe=spot(128, 16))
    with pytest.raises(InputError, match=r"no good way to 64 x 64; found bin by 1: \d+\.\d% of the counts, 100.0%"):
        fit_preparation(scan, size=64)
    assert fit_preparation(scan, size=64, crop=64).bin == 1
    with pytest.raises(InputError, match="too small for the probe"):
        fit_preparation(scan, size=64, bin=2)


def test_a_crop_and_a_size_give_the_bin():
    preparation = fit_preparation(make_scan(size=256, frames=4), crop=192, size=64)
    assert (preparation.crop, preparation.bin) == (192, 3)
    published = fit_preparation(
        make_scan(size=256, frames=4), crop=192, resample=64, threshold=3, transform="raw", scale="none"
    )
    assert published.output_size((256, 256)) == (64, 64) and published.scale_value == 1


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (
            (100, 100),
            {},
            r"found 100 x 100 pixels, expected square, a multiple of 16.*64 \(crop to 64\), 96 \(crop to 96\)",
        ),
        ((516, 516), {}, r"64 \(crop to 64, or crop to 512 and bin by 8\), 128 .* 256 .* 512 \(crop to 512\)"),
        ((10, 10), {}, "too small for any network"),
        ((64, 64), {"size": 128}, "cannot be brought to 128 x 128"),
        ((64, 64), {"size": 0}, "cannot be brought to 0 x 0"),
        ((64, 64), {"size": 60}, "found 60 x 60 pixels, expected square, a multiple of 16"),
        ((64, 64), {"size": 32, "crop": 48}, "cannot be brought to 32 x 32"),
        ((64, 64), {"size": 32, "resample": 16}, "found 16 x 16 pixels, expected 32 x 32"),
    ],
)
def test_sizes_no_network_takes_are_refused_with_the_ways_out(shape, options, message):
    with pytest.raises(InputError, match=f"disc: .*{message}"):
        fit_preparation(make_scan(size=min(shape), shape=shape, frames=3), **options)


def test_sizes_that_networks_take():
    assert network_sizes((72, 80)) == {64: 1}
    assert network_sizes((300, 300)) == {64: 4, 128: 2, 256: 1, 288: 1}


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (0, "u2", "the frames hold no counts; found zeros in all of 40 frames"),
        (-7, "i4", "negative counts; found 1[0-9]+ of them, such as -7"),
        (np.nan, "f4", "NaN or infinite counts"),
    ],
)
def test_bad_scans_are_refused(value, dtype, message):
    scan = make_scan(dtype=dtype)
    scan.frames[:] = np.array(value, dtype)
    with pytest.raises(InputError, match=message):
        fit_preparation(scan)


@pytest.mark.parametrize(
    "option",
    [{"scale": 0.0}, {"scale": "mean"}, {"threshold": -1}, {"bin": 0}, {"transform": "log"}, {"saturation": -1}],
)
def test_impossible_options_are_named(option):
    field = "scale_value" if option == {"scale": 0.0} else next(iter(option))
    with pytest.raises(InputError, match=f"^{field}: "):
        fit_preparation(make_scan(), **option)


def test_standardise_and_fixed_scale():
    scan = make_scan(counts=1e4)
    standard = fit_preparation(scan, standardise=True)
    assert standard.apply(scan.frames).std() == pytest.approx(1, rel=1e-3)
    fixed = fit_preparation(scan, scale=12.5)
    assert (fixed.scale, fixed.scale_value) == ("fixed", 12.5)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "scale", "bad", "reaches_64"), [("tungsten-26id", 47.60, 21, False), ("siemens-star", 2.643, 0, True)]
)
def test_real_scans(name, scale, bad, reaches_64):
    path = locate(name)
    if path is None:
        pytest.skip(f"{name} is not here: set PTYCHOW_DATA, or run `ptychow fetch {name}`")
    scan = read_scan(path)
    preparation = fit_preparation(scan)
    assert preparation.scale_value == pytest.approx(scale, rel=1e-3)
    assert (0 if preparation.mask is None else (~preparation.mask).sum()) == bad
    if reaches_64:
        assert fit_preparation(scan, size=64).crop == 64
    else:
        with pytest.raises(InputError, match="no good way to 64 x 64"):
            fit_preparation(scan, size=64)
