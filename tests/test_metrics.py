"""Metrics and alignment against plain numpy, known numbers and invariances."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ptychow.alignment import AMBIGUITIES
from ptychow.errors import InputError
from ptychow.metrics import (
    align,
    flat_metrics,
    frc,
    half_bit,
    image_metrics,
    mse,
    notebook_metric,
    patch_metrics,
    phase_metrics,
    psnr,
    resolution_text,
    soft_window,
    ssim,
    stitch_notebook,
)

SHAPE = (72, 65)


def smooth(shape, seed, width=3.0):
    """A random real field with features of `width` pixels, standard deviation 1."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), width, mode="wrap")
    return field / field.std()


def sample(seed=0, shape=SHAPE, contrast=0.5):
    return (1 + 0.05 * smooth(shape, seed + 100)) * np.exp(1j * contrast * smooth(shape, seed))


def ramp(shape, slope):
    y, x = np.indices(shape)
    return np.exp(1j * (slope[0] * (y - shape[0] // 2) + slope[1] * (x - shape[1] // 2)))


TRUTH = sample()
seeds = st.integers(0, 1000)
angles = st.floats(-np.pi, np.pi)


class TestAlign:
    @given(angles, st.floats(0.2, 5), seeds)
    def test_constant_and_scale_are_found_exactly(self, constant, scale, seed):
        truth = sample(seed)
        result = align(truth * scale * np.exp(1j * constant), truth, remove=("constant", "scale"))
        assert np.allclose(result.image, truth)
        assert result.removed.scale == pytest.approx(scale)
        assert np.exp(1j * result.removed.constant) == pytest.approx(np.exp(1j * constant))

    @given(angles, seeds)
    def test_constant_is_the_least_squares_one(self, constant, seed):
        rng = np.random.default_rng(seed)
        noisy = TRUTH * np.exp(1j * constant) + 0.5 * (rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE))
        weight = rng.uniform(size=SHAPE)
        best = align(noisy, TRUTH, weight=weight).image
        cost = [(weight * np.abs(best * np.exp(1j * turn) - TRUTH) ** 2).sum() for turn in (0, 0.01, -0.01)]
        assert cost[0] == min(cost)

    @settings(max_examples=20, deadline=None)
    @given(angles, st.tuples(*[st.floats(-1.5, 1.5)] * 2), seeds)
    def test_any_ramp(self, constant, slope, seed):
        truth = sample(seed)
        result = align(truth * ramp(SHAPE, slope) * np.exp(1j * constant), truth, remove=("constant", "ramp"))
        assert np.allclose(result.removed.ramp, slope, atol=1e-6)
        assert np.allclose(result.image, truth, atol=1e-4)

    @settings(max_examples=20, deadline=None)
    @given(st.tuples(*[st.floats(-4, 4)] * 2), st.tuples(*[st.floats(-0.1, 0.1)] * 2), angles, seeds)
    def test_everything_at_once(self, shift, slope, constant, seed):
        shape = (96, 110)
        # The oracle shifts by Fourier phases on a periodic sample, not by splines.
        truth = sample(seed, shape)
        frequencies = np.fft.fftfreq(shape[0])[:, None] * shift[0] + np.fft.fftfreq(shape[1]) * shift[1]
        moved = np.fft.ifft2(np.fft.fft2(truth) * np.exp(-2j * np.pi * frequencies))
        rng = np.random.default_rng(seed)
        moved += 0.02 * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
        inner = (slice(8, -8), slice(8, -8))
        estimate = (1.3 * np.exp(1j * constant) * moved * ramp(shape, slope))[inner]
        result = align(estimate, truth[inner], remove=AMBIGUITIES)
        assert np.allclose(result.removed.shift, shift, atol=0.02)
        assert np.allclose(result.removed.ramp, slope, atol=1e-3)
        assert result.removed.scale == pytest.approx(1.3, rel=0.01)
        middle = (slice(6, -6), slice(6, -6))
        assert np.abs(result.image - truth[inner])[middle].std() < 0.03

    def test_what_is_not_asked_for_stays(self):
        estimate = 1.2 * TRUTH * ramp(SHAPE, (0.01, 0))
        removed = align(estimate, TRUTH).removed
        assert removed.scale == pytest.approx(1)
        assert removed.ramp == removed.shift == (0, 0)

    def test_values_without_weight_do_not_count(self):
        weight = np.ones(SHAPE)
        weight[:20] = 0
        estimate = TRUTH * np.exp(0.7j) * ramp(SHAPE, (0.02, -0.03))
        estimate[:20] = np.nan
        result = align(estimate, TRUTH, weight=weight, remove=("constant", "ramp"))
        assert np.allclose(result.image[20:], TRUTH[20:], atol=1e-5)

    def test_a_shift_is_found_inside_a_ragged_region(self):
        # A shift reads pixels from beyond the region, of which nothing is known: they must not pull.
        shape = (96, 110)
        y, x = np.indices(shape) - np.array([48, 55])[:, None, None]
        rng = np.random.default_rng(0)
        region = (np.hypot(y, x) < 38 + 3 * rng.normal(size=shape)).astype(float)
        truth = sample(7, shape) * np.exp(0.2j * rng.normal(size=shape))
        estimate = np.roll(truth, (2, -1), (0, 1)) * ramp(shape, (0.03, -0.01))
        estimate[region == 0] = np.nan
        removed = align(estimate, truth, weight=region, remove=AMBIGUITIES).removed
        assert np.allclose(removed.shift, (2, -1), atol=0.01)
        assert np.allclose(removed.ramp, (0.03, -0.01), atol=1e-4)
        assert removed.scale == pytest.approx(1, abs=0.002)

    def test_wrapped_phases_do_not_mislead(self):
        # Phases around +-pi, whose plain mean is 0: a mean of wrapped phases would be wrong by pi.
        truth = sample(3) * np.exp(1j * np.pi)
        result = align(sample(3), truth)
        assert np.allclose(result.image, truth)

    def test_a_flat_estimate_has_nothing_to_shift(self):
        result = align(np.ones(SHAPE, complex), TRUTH, remove=("constant", "shift"))
        assert result.removed.shift == (0, 0)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"estimate": TRUTH[1:]}, "cannot be compared"),
            ({"weight": np.zeros(SHAPE)}, "weight"),
            ({"weight": -np.ones(SHAPE)}, "weight"),
            ({"estimate": TRUTH * np.nan}, "estimate: not finite"),
            ({"remove": ("tilt",)}, "unknown.*tilt"),
        ],
    )
    def test_bad_input(self, change, message):
        with pytest.raises(InputError, match=message):
            align(**{"estimate": TRUTH, "reference": TRUTH, **change})


class TestNumbers:
    def test_psnr_of_the_paper(self):
        # Xing et al. 2024, W1 at P1: MSE 0.2427 is printed as 54.28 dB, which fixes the range at 255.
        assert psnr(0.2427, 255) == pytest.approx(54.28, abs=0.005)
        assert psnr(4.00e-5, 1) == pytest.approx(43.98, abs=0.005)
        assert psnr(0, 1) == math.inf

    def test_mse(self):
        a, b, weight = np.random.default_rng(0).normal(size=(3, 5, 7))
        assert mse(a, b) == pytest.approx(((a - b) ** 2).mean())
        assert mse(a, b, weight**2) == pytest.approx((weight**2 * (a - b) ** 2).sum() / (weight**2).sum())

    @given(seeds, st.floats(-0.3, 0.3))
    def test_phase_metrics_against_plain_arrays(self, seed, offset):
        rng = np.random.default_rng(seed)
        truth, error = 0.4 * smooth(SHAPE, seed), 0.1 * rng.normal(size=SHAPE) + offset
        weight = rng.uniform(size=SHAPE)
        found = phase_metrics(np.exp(1j * (truth + error)), 1.1 * np.exp(1j * truth), weight)
        mean = np.average(truth, weights=weight)
        variance = np.average((truth - mean) ** 2, weights=weight)
        expected = np.average(error**2, weights=weight)
        assert found["phase_mse"] == pytest.approx(expected)
        assert found["phase_variance"] == pytest.approx(variance)
        assert found["phase_offset"] == pytest.approx(np.average(error, weights=weight))
        assert found["phase_unexplained_variance"] == pytest.approx(expected / variance)
        assert found["phase_unexplained_variance"] == pytest.approx(
            1 - found["phase_explained_variance"] + found["phase_offset"] ** 2 / variance
        )
        assert found["phase_psnr_2pi"] == pytest.approx(10 * np.log10((2 * np.pi) ** 2 / expected))

    @given(angles, angles)
    def test_image_metrics_do_not_depend_on_either_constant(self, first, second):
        estimate = 1.01 * TRUTH * np.exp(0.1j * smooth(SHAPE, 8))
        plain = image_metrics(estimate, TRUTH)
        turned = image_metrics(estimate * np.exp(1j * first), TRUTH * np.exp(1j * second))
        for name in set(plain) - {"removed_constant"}:
            assert turned[name] == pytest.approx(plain[name], rel=1e-6, abs=1e-9), name

    def test_perfect_and_flat(self):
        perfect = image_metrics(TRUTH * 1j, TRUTH)
        assert perfect["phase_unexplained_variance"] == pytest.approx(0, abs=1e-12)
        assert perfect["phase_explained_variance"] == pytest.approx(1)
        assert [perfect["amplitude_ssim"], perfect["phase_ssim_2pi"]] == pytest.approx([1, 1])
        assert perfect["complex_error"] == pytest.approx(0, abs=1e-12)
        assert perfect["frc_half"] == 0.5
        flat = flat_metrics(TRUTH)
        assert 1 <= flat["phase_unexplained_variance"] < 1.02
        assert flat["phase_explained_variance"] == pytest.approx(0, abs=1e-9)
        assert all(type(value) is float for value in flat.values())

    def test_outside_the_region_nothing_counts(self):
        weight = np.zeros(SHAPE)
        weight[10:60, 10:60] = 1
        estimate = TRUTH * np.exp(0.1j * smooth(SHAPE, 8))
        worse = np.where(weight > 0, estimate, np.nan)
        first, second = (image_metrics(image, TRUTH, weight=weight) for image in (estimate, worse))
        assert first == pytest.approx(second, nan_ok=True)

    def test_ssim_is_scikit_images(self):
        from skimage.metrics import structural_similarity

        a, b = smooth(SHAPE, 1), smooth(SHAPE, 1) + 0.3 * smooth(SHAPE, 2)
        # scikit-image's mean leaves out the rim of half a window, which a weight of 1 inside does too.
        assert ssim(a, b, 4.0, np.ones(SHAPE)) == pytest.approx(structural_similarity(a, b, data_range=4.0))
        assert math.isnan(ssim(a[:5], b[:5], 1.0))

    def test_a_flat_truth_has_no_unexplained_variance(self):
        assert math.isnan(phase_metrics(TRUTH, np.ones(SHAPE))["phase_unexplained_variance"])


class TestFourierRingCorrelation:
    @given(seeds)
    def test_identical_images(self, seed):
        curve = frc(sample(seed), sample(seed))
        assert np.allclose(curve.correlation, 1)
        assert curve.crossing(0.5) == 0.5
        assert curve.frequency[-1] <= 0.5

    def test_independent_noise_does_not_correlate(self):
        rng = np.random.default_rng(0)
        first, second = (rng.normal(size=(128, 128)) + 1j * rng.normal(size=(128, 128)) for _ in range(2))
        curve = frc(first, second)
        # The window couples neighbours: about a fifth of the ring's pixels are independent.
        assert (np.abs(curve.correlation) < 4 / np.sqrt(curve.pixels / 5)).all()
        assert curve.crossing(half_bit(curve.pixels)) < 0.1

    def test_a_low_pass_filter_is_found_at_its_cut_off(self):
        shape = (128, 128)
        rng = np.random.default_rng(1)
        truth, noise = (rng.normal(size=shape) + 1j * rng.normal(size=shape) for _ in range(2))
        radius = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128))
        estimate = np.fft.ifft2(np.where(radius < 0.2, np.fft.fft2(truth), np.fft.fft2(noise)))
        assert frc(estimate, truth).crossing(0.5) == pytest.approx(0.2, abs=0.01)

    @pytest.mark.parametrize("region", ["all", "disc", "corner"])
    def test_the_edge_of_a_region_does_not_correlate(self, region):
        """Two independent noisy pictures of an object without high frequencies agree at none of these."""
        shape = (160, 200)
        rng = np.random.default_rng(2)
        radius = np.hypot(np.fft.fftfreq(160)[:, None], np.fft.fftfreq(200))
        field = np.fft.ifft2(
            np.fft.fft2(rng.normal(size=shape)) * (radius < 0.2) / np.maximum(radius, 0.01) ** 1.5
        ).real
        truth = np.exp(0.5j * field / field.std())
        first, second = (truth + 0.03 * (rng.normal(size=shape) + 1j * rng.normal(size=shape)) for _ in range(2))
        rows, columns = np.indices(shape)
        lit = {
            "all": rows >= 0,
            "disc": np.hypot(rows - 80, columns - 100) < 60,
            "corner": (rows < 90) & (columns > 90),
        }
        curve = frc(np.where(lit[region], first, 1), np.where(lit[region], second, 1), lit[region])
        beyond = curve.frequency > 0.25
        assert abs(np.average(curve.correlation[beyond], weights=curve.pixels[beyond])) < 0.05
        assert curve.correlation[(curve.frequency > 0.05) & (curve.frequency < 0.18)].min() > 0.9
        assert 0.19 < curve.crossing(0.5) < 0.24

    def test_a_window_is_the_weight_inside_and_nothing_at_the_edge(self):
        window = soft_window(np.full((41, 61), 2.0))
        np.testing.assert_allclose(window[20, 11:50], 2)
        assert window[0].max() == pytest.approx(2 * np.sin(np.pi / 21) ** 2) and window.min() > 0
        assert (np.diff(window[:21, 30]) >= 0).all()

    def test_a_resolution_in_words(self):
        assert resolution_text(0.25) == "0.25 cycles/pixel"
        assert "nothing agrees" in resolution_text(0.0, 10e-9) and "nm" not in resolution_text(0.0, 10e-9)
        assert resolution_text(0.25, 10e-9) == "0.25 cycles/pixel (half-period 20 nm)"
        assert resolution_text(0.5, 10e-9) == "> 0.5 cycles/pixel (never crossed)"

    def test_rings_hold_every_pixel_up_to_nyquist(self):
        curve = frc(sample(shape=(32, 32)), sample(shape=(32, 32)))
        radius = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(32)) * 32
        for ring, pixels in zip(range(1, 17), curve.pixels, strict=True):
            assert pixels == (np.abs(radius - ring) < 0.5).sum()

    def test_half_bit(self):
        # By hand for n = 100: (0.2071 + 0.19102) / (1.2071 + 0.09102); 0.1716 for endless rings; 1 for n = 1.
        assert half_bit(np.array([100]))[0] == pytest.approx(0.39812 / 1.29812)
        assert half_bit(np.array([1e12]))[0] == pytest.approx(0.2071 / 1.2071, abs=1e-5)
        assert half_bit(np.array([1]))[0] == pytest.approx(1, abs=1e-4)

    def test_crossing_is_linear_between_rings(self):
        curve = frc(TRUTH, TRUTH)
        falling = type(curve)(np.array([0.1, 0.2, 0.3]), np.array([0.9, 0.6, 0.4]), np.array([8, 16, 24]))
        assert falling.crossing(0.5) == pytest.approx(0.25)
        assert falling.crossing(0.91) == falling.crossing(2.0) == 0


class TestPatches:
    def patches(self, count=11, size=16):
        return np.stack([sample(seed, (size, size)) for seed in range(count)])

    def test_each_patch_loses_its_own_constant(self):
        truth = self.patches()
        turned = truth * np.exp(1j * np.linspace(-3, 3, len(truth)))[:, None, None]
        assert patch_metrics(turned, truth, np.ones((16, 16)))["weighted_phase_mse"] == pytest.approx(0, abs=1e-12)

    def test_against_a_loop(self):
        truth, probe = self.patches(), np.abs(smooth((16, 16), 3))
        rng = np.random.default_rng(0)
        estimate = truth * np.exp(0.3j * rng.normal(size=truth.shape)) * 1.05
        found = patch_metrics(estimate, truth, probe, batch=4)
        squared, variance = [], []
        for e, t in zip(estimate, truth, strict=True):
            turned = e * np.exp(1j * np.angle((probe * np.conj(e) * t).sum()))
            squared.append(np.average(np.angle(turned / t) ** 2, weights=probe))
            phase = np.angle(t * np.exp(-1j * np.angle((probe * t).sum())))
            variance.append(np.average((phase - np.average(phase, weights=probe)) ** 2, weights=probe))
        assert found["weighted_phase_mse"] == pytest.approx(np.mean(squared))
        assert found["weighted_phase_variance"] == pytest.approx(np.mean(variance))
        assert found["weighted_phase_unexplained_variance"] == pytest.approx(np.mean(squared) / np.mean(variance))
        assert found["amplitude_mse"] == pytest.approx(((1.05 - 1) ** 2 * np.abs(truth) ** 2).mean())

    def test_dark_pixels_do_not_count_when_weighted(self):
        truth, probe = self.patches(), np.zeros((16, 16))
        probe[4:12, 4:12] = 1
        estimate = truth.copy()
        estimate[:, :4] *= -1
        found = patch_metrics(estimate, truth, probe)
        assert found["weighted_phase_mse"] == pytest.approx(0, abs=1e-12)
        assert found["phase_mse"] > 1

    def test_flat_patches_score_about_one(self):
        truth = self.patches(40)
        score = patch_metrics(np.ones_like(truth), truth)["phase_unexplained_variance"]
        assert 1 <= score < 1.05

    def test_no_patches(self):
        with pytest.raises(InputError, match="patches"):
            patch_metrics(np.zeros((0, 4, 4), complex), np.zeros((0, 4, 4), complex))


class TestNotebook:
    """The stitched metric of the public notebooks, on patches cut from a known object."""

    LINES, POINTS, SIZE, STEP = 12, 15, 32, 3

    def labels(self, image=None):
        shape = (self.LINES * self.STEP + self.SIZE, self.POINTS * self.STEP + self.SIZE)
        image = sample(5, shape) if image is None else image
        cut = [
            [image[3 * i : 3 * i + self.SIZE, 3 * j : 3 * j + self.SIZE] for j in range(self.POINTS)]
            for i in range(self.LINES)
        ]
        return np.array(cut), image

    def test_stitching_gives_the_object_back(self):
        labels, image = self.labels()
        stitched = stitch_notebook(np.angle(labels))
        half = self.SIZE // 2
        expected = np.angle(image)[half : half + 3 * self.LINES, half : half + 3 * self.POINTS]
        assert stitched.shape == (36, 45)
        assert np.allclose(stitched, expected)
        assert np.allclose(stitched[::3, ::3], np.angle(labels[:, :, half, half]))

    def test_averages_raw_values_against_a_loop(self):
        rng = np.random.default_rng(0)
        patches = rng.normal(size=(4, 5, 16, 16))
        total, count = np.zeros((24, 27)), np.zeros((24, 27))
        for i in range(4):
            for j in range(5):
                total[3 * i : 3 * i + 12, 3 * j : 3 * j + 12] += patches[i, j, 2:14, 2:14]
                count[3 * i : 3 * i + 12, 3 * j : 3 * j + 12] += 1
        assert np.allclose(stitch_notebook(patches), (total / np.maximum(count, 1))[6:18, 6:21])

    def test_perfect_patches_score_the_floor_and_zero_on_the_grid(self):
        labels, _ = self.labels()
        found = notebook_metric(labels, labels)
        assert found["notebook_phase_mse"] == found["notebook_phase_floor"] > 1e-3
        assert found["notebook_amplitude_mse"] == found["notebook_amplitude_floor"] > 0
        assert found["grid_phase_mse"] == pytest.approx(0, abs=1e-12)
        assert found["flat_phase_unexplained_variance"] == pytest.approx(1, abs=0.05)

    def test_paper_numbers_see_a_constant_the_headline_does_not(self):
        labels, _ = self.labels()
        turned = notebook_metric(labels * np.exp(0.5j), labels)
        floor = turned["notebook_phase_floor"]
        assert turned["notebook_phase_mse"] == pytest.approx(floor + 0.25, rel=0.2)
        assert turned["grid_phase_mse"] == pytest.approx(0, abs=1e-9)
        assert turned["grid_removed_constant"] == pytest.approx(0.5)

    def test_a_crop_smaller_than_the_step_leaves_gaps(self):
        with pytest.raises(InputError, match="gaps"):
            stitch_notebook(np.zeros((3, 3, 16, 16)), crop=2)
        with pytest.raises(InputError, match="crop"):
            stitch_notebook(np.zeros((3, 3, 8, 8)), crop=12)
