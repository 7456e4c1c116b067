"""Preparation against a plain loop over pixels, and against the physics of the far field."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from skimage.transform import resize

from ptychow.detector import Preparation
from ptychow.errors import InputError
from ptychow.orientation import Orientation
from ptychow.scan import Geometry, Scan

# --- The oracle -------------------------------------------------------------------------------------------------


def oracle(preparation, frames):
    """What `Preparation.apply` says it does, one pixel at a time."""
    return np.stack([prepare_one(preparation, frame) for frame in frames])[:, None]


def prepare_one(p, frame):
    good = np.ones(frame.shape, bool) if p.mask is None else p.mask
    counts = np.zeros(frame.shape)
    valid = np.zeros(frame.shape, bool)
    for r, c in np.ndindex(*frame.shape):
        value = float(frame[r, c])
        if p.wrap_negative and value < 0:
            value += 65536
        valid[r, c] = good[r, c] and value not in p.markers
        value = max(value, 0)
        counts[r, c] = value if p.saturation is None else min(value, p.saturation)
    if p.crop is not None:
        centre = p.centre or (frame.shape[0] // 2, frame.shape[1] // 2)
        rows, columns = ([at - p.crop // 2 + i for i in range(p.crop)] for at in centre)
        counts, valid = counts[np.ix_(rows, columns)], valid[np.ix_(rows, columns)]
    counts, valid = turn(counts, p.orientation), turn(valid, p.orientation)
    h, w = counts.shape[0] // p.bin, counts.shape[1] // p.bin
    binned, bin_valid = np.zeros((h, w)), np.ones((h, w), bool)
    for r, c in np.ndindex(h * p.bin, w * p.bin):
        binned[r // p.bin, c // p.bin] += counts[r, c]
        bin_valid[r // p.bin, c // p.bin] &= valid[r, c]
    filled = fill(binned, bin_valid)
    if p.resample is not None:
        filled = resize(filled, (p.resample, p.resample), anti_aliasing=True, preserve_range=True)
    filled = np.where(filled < p.threshold, 0, filled)
    if p.transform == "sqrt":
        filled = np.sqrt(filled)
    filled = filled / p.scale_value
    return filled if p.mean_input is None else (filled - p.mean_input) / p.deviation


def turn(image, orientation):
    """By frequency: each pixel of the result is looked up at the frequency it had before."""
    transpose, flip_rows, flip_columns = orientation.actions
    height, width = image.shape
    result = np.empty((width, height) if transpose else (height, width), image.dtype)
    for r, c in np.ndindex(*result.shape):
        u, v = r - result.shape[0] // 2, c - result.shape[1] // 2
        u, v = -u if flip_rows else u, -v if flip_columns else v
        u, v = (v, u) if transpose else (u, v)
        result[r, c] = image[(u + height // 2) % height, (v + width // 2) % width]
    return result


def fill(image, valid):
    image, valid = image.copy(), valid.copy()
    if not valid.any():
        return np.zeros_like(image)
    while not valid.all():
        previous = valid.copy()
        for r, c in np.argwhere(~previous):
            around = [
                (i, j)
                for i in range(max(r - 1, 0), min(r + 2, image.shape[0]))
                for j in range(max(c - 1, 0), min(c + 2, image.shape[1]))
                if previous[i, j]
            ]
            if around:
                image[r, c] = sum(image[i, j] for i, j in around) / len(around)
                valid[r, c] = True
    return image


@st.composite
def cases(draw):
    """A Preparation and frames it can be applied to."""
    dtype = np.dtype(
        draw(st.sampled_from(["uint8", "uint16", ">u2", "int16", "int32", "uint32", "float32", "float64"]))
    )
    crop = draw(st.sampled_from([None, 12, 8]))
    shape = (16, 16) if crop is None else (draw(st.sampled_from([15, 16, 20])), draw(st.sampled_from([16, 17])))
    factor = draw(st.sampled_from([1, 2, 4]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    wrap = dtype.name == "int16"
    frames = rng.poisson(draw(st.sampled_from([2.0, 200.0])), (3, *shape)).clip(0, 255).astype(dtype)
    if wrap:
        frames[rng.random(frames.shape) < 0.02] -= 300
    if dtype.kind == "f":
        frames -= dtype.type(1.5)
    mask = rng.random(shape) > draw(st.sampled_from([0.0, 0.02, 0.2]))
    if draw(st.booleans()):
        # A band that is three pixels wide has pixels without a good neighbour.
        mask[6:9] = False
    preparation = Preparation(
        centre=draw(st.sampled_from([None, (7, 8)])) if crop == 12 else None,
        crop=crop,
        bin=factor,
        resample=draw(st.sampled_from([None, 3, 2])) if factor < 4 else None,
        orientation=draw(st.sampled_from(list(Orientation))),
        wrap_negative=wrap,
        markers=draw(st.sampled_from([(), (3.0,), (200.0, 65535.0)])),
        saturation=draw(st.sampled_from([None, 210.0])),
        mask=mask if draw(st.booleans()) else None,
        threshold=draw(st.sampled_from([0.0, 2.71828])),  # no sum or mean of counts lies on it
        transform=draw(st.sampled_from(["sqrt", "raw"])),
        scale="fixed",
        scale_value=draw(st.sampled_from([1.0, 7.5])),
    )
    return preparation, frames


@settings(deadline=None, max_examples=150)
@given(cases())
def test_agrees_with_the_loop_over_pixels(case):
    preparation, frames = case
    try:
        result = preparation.apply(frames)
    except InputError as error:
        assert "every pixel is bad" in str(error)
        return
    assert result.dtype == np.float32 and result.shape == (3, 1, *preparation.output_size(frames.shape[1:]))
    np.testing.assert_allclose(result, oracle(preparation, frames), rtol=2e-5, atol=2e-5)


@settings(deadline=None, max_examples=30)
@given(cases())
def test_frames_do_not_influence_each_other_and_are_left_alone(case):
    preparation, frames = case
    before = frames.copy()
    try:
        together = preparation.apply(frames)
    except InputError:
        return
    alone = np.concatenate([preparation.apply(frames[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(alone, together, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(frames, before)


@settings(deadline=None, max_examples=30)
@given(cases())
def test_json_round_trip(case):
    preparation, _ = case
    text = preparation.model_dump_json()
    again = Preparation.model_validate_json(text)
    assert again == preparation and hash(again) == hash(preparation) and again.model_dump_json() == text
    assert again != preparation.replace(scale_value=3.0)


def test_a_changed_copy_does_not_keep_the_old_mask():
    frames = np.ones((1, 16, 16), np.uint16)
    frames[0, 4, 4] = 100
    plain = Preparation(transform="raw")
    assert plain.apply(frames)[0, 0, 4, 4] == 100
    mask = np.ones((16, 16), bool)
    mask[4, 4] = False
    assert plain.replace(mask=mask).apply(frames)[0, 0, 4, 4] == 1
    assert not mask[4, 4] and plain.mask is None


def test_a_masked_nan_is_filled_and_another_is_refused():
    frames = np.ones((4, 16, 16), np.float32)
    frames[2, 4, 4] = np.nan
    with pytest.raises(InputError, match=r"1 of 4 frames \(first at \[2\]\)"):
        Preparation().apply(frames)
    mask = np.ones((16, 16), bool)
    mask[4, 4] = False
    assert (Preparation(mask=mask).apply(frames) == 1).all()


def test_saturated_pixels_are_counted():
    frames = np.zeros((2, 16, 16), np.uint16)
    frames[0, 3, :5] = 100, 99, 101, 65535, 200
    mask = np.ones((16, 16), bool)
    mask[3, 4] = False
    preparation = Preparation(saturation=100, markers=(65535,), mask=mask, transform="raw")
    assert preparation.count_saturated(frames).tolist() == [2, 0]
    assert preparation.apply(frames).max() == 100
    assert Preparation().count_saturated(frames).tolist() == [0, 0]


@pytest.mark.parametrize("bin", [1, 2])
def test_simulated_counts_saturate_as_measured_ones_do(bin):
    frames = np.full((1, 16, 16), 9.0, np.float32)
    frames[0, 8:10, 8:10] = 500
    preparation = Preparation(saturation=100, bin=bin, transform="raw")
    simulated = Preparation(bin=bin, transform="raw").apply(frames)[:, 0]
    np.testing.assert_array_equal(preparation.finish(simulated, (16, 16)), preparation.apply(frames))


def test_a_frame_that_the_detector_dropped_holds_no_counts():
    frames = np.full((2, 16, 16), 65535, np.uint16)
    frames[1] = 7
    prepared = Preparation(markers=(65535,), transform="raw").apply(frames)
    assert not prepared[0].any() and (prepared[1] == 7).all()


def test_dark_frames_do_not_lower_the_scale():
    frames = np.full((4, 16, 16), 9, np.uint16)
    frames[1::2] = 0
    assert Preparation(transform="sqrt").measure_scale(frames) == pytest.approx(3)
    assert Preparation().mean_counts(frames) == pytest.approx(9 * 256)


def test_mean_counts_are_those_that_the_network_is_shown():
    frames = np.full((1, 16, 16), 2, np.uint16)
    frames[0, 8, 8] = 30
    preparation = Preparation(threshold=3, scale="fixed", scale_value=5)
    assert preparation.mean_counts(frames) == pytest.approx(30)
    assert np.square(preparation.root_counts(preparation.apply(frames))).sum() == pytest.approx(30)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((16, 16)), "not frames"),
        (np.zeros((1, 16, 16), complex), "not frames"),
        (np.full((1, 16, 16), -5, np.int32), "negative counts; found 256 of them, such as -5"),
        (np.full((1, 16, 16), np.inf), "not finite"),
        (np.zeros((1, 20, 16), np.uint16), "another size than the mask"),
    ],
)
def test_bad_frames_are_refused(frames, message):
    preparation = Preparation(markers=(65535,), mask=np.ones((16, 16), bool))
    with pytest.raises(InputError, match=message):
        preparation.apply(frames)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bin": 3}, "does not divide into bins of 3"),
        ({"crop": 20}, "found 20 pixels about pixel 8 of 16, expected at most 16"),
        ({"crop": 12, "centre": (3, 8)}, "about pixel 3 of 16, expected at most 6"),
        ({"bin": 4, "resample": 5}, "cannot be resampled to 5 x 5"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Preparation(**options).output_size((16, 16))


@pytest.mark.parametrize(
    "fields",
    [
        {"unknown": 1},
        {"bin": 0},
        {"scale_value": 0},
        {"scale_value": float("nan")},
        {"centre": (3, 3)},
        {"mask": np.zeros((4, 4), bool)},
        {"mask": np.ones((4, 4))},
        {"mask": {"dtype": "|b1", "shape": [4, 4], "data": "AAAA"}},
    ],
)
def test_impossible_fields_are_refused(fields):
    with pytest.raises(ValidationError):
        Preparation(**fields)


# --- Scale and statistics ---------------------------------------------------------------------------------------


def scan_of(frames, **fields):
    return Scan(frames=frames, positions=np.zeros((len(frames), 2)), **fields)


def test_scale_is_the_mean_of_the_first_64_frames_and_removes_the_count_rate():
    rng = np.random.default_rng(0)
    frames = rng.poisson(50, (80, 16, 16)).astype(np.uint32)
    preparation = Preparation(scale="scan").with_scale_of(scan_of(frames))
    assert preparation.scale_value == pytest.approx(np.sqrt(frames[:64]).mean(), rel=1e-6)
    brighter = preparation.with_scale_of(scan_of(frames * 9))
    np.testing.assert_allclose(brighter.apply(frames * 9), preparation.apply(frames), rtol=1e-5)
    fixed = Preparation(scale="fixed", scale_value=2.0)
    assert fixed.with_scale_of(scan_of(frames)) is fixed


def test_a_scan_without_counts_has_no_scale():
    with pytest.raises(InputError, match="dark: frames: the frames hold no counts; found 5 frames of zeros"):
        Preparation(scale="scan").with_scale_of(scan_of(np.zeros((5, 16, 16), np.uint16), name="dark"))


def test_standardised_inputs_have_no_mean_and_unit_deviation():
    frames = np.random.default_rng(0).poisson(np.arange(256).reshape(16, 16), (150, 16, 16)).astype(np.uint16)
    preparation = Preparation().with_statistics_of(scan_of(frames))
    inputs = preparation.apply(frames)
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-4)
    assert inputs.std() == pytest.approx(1, rel=1e-4)
    assert Preparation.model_validate_json(preparation.model_dump_json()) == preparation


# --- Physics ----------------------------------------------------------------------------------------------------


def far_field(waves):
    """|F|^2 of (..., n, n), orthonormal, zero frequency at [n//2, n//2]."""
    spectrum = np.fft.fft2(np.fft.ifftshift(waves, axes=(-2, -1)), norm="ortho")
    return np.square(np.abs(np.fft.fftshift(spectrum, axes=(-2, -1))))


def probe_and_object(size, pixel, width):
    """A smooth probe and object, sampled on size x size pixels about the centre."""
    y, x = (np.mgrid[:size, :size] - size // 2) * pixel
    probe = pixel * np.exp(-(x**2 + y**2) / (2 * width**2) + 0.002j * (x**2 + y**2))
    return probe[None], np.exp(0.5j * np.cos(0.3 * x + 0.2 * y) + 0.3j * np.sin(0.1 * y))


def test_cropping_the_detector_coarsens_the_object_pixel():
    fine_probe, fine_object = probe_and_object(64, 1.0, 4.0)
    coarse_probe, coarse_object = probe_and_object(32, 2.0, 4.0)
    preparation = Preparation(crop=32, transform="raw")
    assert preparation.pixel_ratio((64, 64)) == 2
    np.testing.assert_allclose(preparation.probe(fine_probe), coarse_probe, atol=1e-5)
    cropped = preparation.apply(far_field(fine_probe * fine_object))[:, 0]
    np.testing.assert_allclose(cropped, far_field(coarse_probe * coarse_object), atol=1e-4 * cropped.max())


def ratio_of(options):
    return 96 / Preparation(**options).output_size((96, 96))[0]


@pytest.mark.parametrize("options", [{"bin": 2}, {"resample": 32}, {"bin": 2, "crop": 64}, {"bin": 2, "resample": 16}])
def test_binning_the_detector_shrinks_the_field_of_view(options):
    probe, image = probe_and_object(96, 1.0, 2.0)
    preparation = Preparation(transform="raw", **options)
    binned = preparation.apply(far_field(probe * image))[0, 0]
    window = preparation.probe(probe)
    ratio = preparation.pixel_ratio((96, 96))
    _, seen = probe_and_object(window.shape[1], ratio, 2.0)
    predicted = far_field(window * seen)[0]
    assert predicted.sum() == pytest.approx(binned.sum(), rel=0.02)
    # Resampling by a large factor also blurs, which no smaller field of view can show.
    assert np.corrcoef(predicted.ravel(), binned.ravel())[0, 1] > (0.9995 if ratio_of(options) < 4 else 0.995)


def test_bins_lie_half_a_bin_off_and_the_probe_knows():
    probe, _ = probe_and_object(64, 1.0, 2.0)
    pattern = Preparation(bin=2, transform="raw").apply(far_field(probe))[0, 0]
    match = [
        np.corrcoef(far_field(wave)[0].ravel(), pattern.ravel())[0, 1]
        for wave in (Preparation(bin=2).probe(probe), probe[:, 16:48, 16:48])
    ]
    assert match[0] > 0.9999 and match[1] < 0.995


def test_a_probe_that_outgrows_the_field_of_view_is_refused():
    probe, _ = probe_and_object(64, 1.0, 9.0)
    with pytest.raises(InputError, match=r"found 9\d\.\d% of its power within 32 x 32 pixels, expected at least 99%"):
        Preparation(bin=2).probe(probe)
    with pytest.raises(InputError, match="not a probe"):
        Preparation().probe(probe[0])


@pytest.mark.parametrize("orientation", list(Orientation))
@pytest.mark.parametrize("size", [16, 15])
def test_the_far_field_of_a_turned_wave_is_the_turned_far_field(orientation, size):
    rng = np.random.default_rng(0)
    wave = rng.normal(size=(1, size, size)) + 1j * rng.normal(size=(1, size, size))
    turned_wave = orientation.apply_about_zero_frequency(wave)
    turned_pattern = Preparation(orientation=orientation, transform="raw").apply(far_field(wave))[:, 0]
    np.testing.assert_allclose(turned_pattern, far_field(turned_wave), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "detector_pixel", "pixel_size"),
    [
        ({}, 1.0, 1.0),
        ({"crop": 64}, 1.0, 2.0),
        ({"bin": 2}, 2.0, 1.0),
        ({"crop": 96, "bin": 2}, 2.0, 4 / 3),
        ({"crop": 96, "resample": 64}, 1.5, 4 / 3),
        ({"bin": 2, "resample": 16}, 8.0, 1.0),
    ],
)
def test_geometry_follows(options, detector_pixel, pixel_size):
    lengths = Geometry(wavelength=1.24e-10, distance=2.0, detector_pixel=75e-6).derive_pixel_size(128)
    preparation = Preparation(**options)
    found = preparation.output_geometry(lengths, (128, 128))
    assert found.detector_pixel == pytest.approx(75e-6 * detector_pixel)
    assert found.pixel_size == pytest.approx(lengths.pixel_size * pixel_size)
    assert preparation.pixel_ratio((128, 128)) == pytest.approx(pixel_size)
    only_pixel = preparation.output_geometry(Geometry(pixel_size=1e-8), (128, 128))
    assert only_pixel.pixel_size == pytest.approx(1e-8 * pixel_size) and only_pixel.wavelength is None
    assert preparation.output_geometry(Geometry(), (128, 128)) == Geometry()


def test_frames_that_are_not_square_have_no_single_object_pixel_until_cropped():
    preparation = Preparation(crop=64)
    with pytest.raises(InputError, match="not square"):
        preparation.pixel_ratio((128, 96))
    lengths = Geometry(wavelength=1e-10, distance=1.0, detector_pixel=1e-4)
    assert preparation.output_geometry(lengths, (128, 96)).pixel_size == pytest.approx(1e-10 / 64e-4)
    assert Preparation().pixel_ratio((128, 96)) == 1
