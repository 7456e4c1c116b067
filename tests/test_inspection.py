"""Inspection: every fault that is put in is found and named, and nothing else is."""

from dataclasses import replace

import numpy as np
import pytest

from ptychow.datasets import locate
from ptychow.files import to_json
from ptychow.formats import read_scan
from ptychow.inspection import RULES, inspect_scan
from ptychow.scan import BEAM_CENTRE, Geometry, Scan

RNG = np.random.default_rng(11)
SIDE = 32


def raster(lines: int, points: int, step: float) -> np.ndarray:
    return np.mgrid[:lines, :points].reshape(2, -1).T * step


def clean_scan(**changes) -> Scan:
    """A scan with nothing wrong: a disc of light, a raster, everything known."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    disc = 200 / (1 + np.exp(np.hypot(rows, columns) - 9)) + 2
    probe = np.exp(-(rows**2 + columns**2) / 18.0).astype(complex)[None]
    frames = RNG.poisson(disc, (20, SIDE, SIDE)).astype(np.uint16)
    probe *= np.sqrt(frames.sum() / 20 / np.sum(np.abs(probe) ** 2))
    scan = Scan(
        frames=frames,
        positions=raster(4, 5, 2.0),
        geometry=Geometry(pixel_size=1e-8),
        probe=probe.astype(np.complex64),
        name="clean",
    )
    return replace(scan, **changes)


def test_a_clean_scan_has_no_findings():
    found = inspect_scan(clean_scan())
    assert found.findings == []
    assert found.saturation is None and not found.is_fft_shifted
    assert found.pattern.kind == "raster" and found.pattern.shape == (4, 5)
    assert found.beam_diameter == pytest.approx(2 * np.sqrt(2) * 3 * 1.0, rel=0.05)  # |probe|^2: sigma 3 / sqrt(2)
    assert found.overlap[0] == pytest.approx(1 - 2 / found.beam_diameter)


def with_values(index, value, dtype=np.uint16) -> dict:
    frames = clean_scan().frames.astype(dtype)
    frames[index] = value
    return {"frames": frames}


def off_centre() -> dict:
    return {"frames": np.roll(clean_scan().frames, (3, 0), axis=(1, 2))}


FAULTS = {
    "NaN": (with_values((3, 4, 5), np.nan, np.float32), "1 value of otherwise good pixels, in frames 3. Mask these"),
    "wrapped": (with_values((slice(None), 16, 16), -5, np.int16), "20 values are negative 16-bit integers"),
    "negative": (with_values((slice(None), 16, 16), -5, np.float32), "20 values below zero: background"),
    "empty frames": (with_values(slice(3, 5), 0), "all zero: 2 of 20 frames (first: 3)"),
    "all empty": (with_values(slice(None), 0), "all zero: 20 of 20 frames (first: 0)"),
    "dim": (with_values(7, 1), "less than half the median counts: 1 frame (first: 7)"),
    "bright": (with_values(7, 900), "more than twice the median counts: 1 frame (first: 7)"),
    "NaN pixel": (with_values((slice(None), 15, 15), np.nan, np.float32), "bad pixels that no mask names: 1 marked"),
    "normalised": ({"frames": clean_scan().frames / np.float32(1000)}, "not whole numbers: normalised, or a logarithm"),
    "roots": ({"frames": np.sqrt(clean_scan().frames).astype(np.float32)}, "square roots of whole numbers"),
    "many bad": ({"mask": np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 3 > 0}, "33% of all pixels are bad"),
    "dead": (with_values((slice(None), 15, 15), 0), "bad pixels that no mask names: 1 dead"),
    "marked": (with_values((slice(None), 15, 15), 65535), "1 marked;"),
    "clipped": ({"frames": np.minimum(clean_scan().frames, 150)}, "values look saturated at 150 (the largest value"),
    "saturated": ({"saturation": 200.0}, "(the scan's saturation value)"),
    "shifted": ({"frames": np.fft.fftshift(clean_scan().frames, axes=(1, 2))}, "(fft-shifted): ptychow prepare"),
    "off centre": (off_centre(), "zero frequency (ptychow prepare --centre 19,16 --crop"),
    "near field": ({"frames": RNG.poisson(200, (20, SIDE, SIDE)).astype(np.uint16)}, "lights the detector evenly"),
    "size": ({"frames": clean_scan().frames[:, :30, :30], "probe": None}, "no network takes frames of 30 x 30"),
    "pixel size": ({"geometry": Geometry()}, "pixel size is unknown"),
    "metres only": ({"geometry": Geometry(), "position_unit": "m"}, "positions in metres cannot be used without it"),
    "one point": ({"positions": np.zeros((20, 2))}, "all positions are the same"),
    "repeated": ({"positions": raster(4, 5, 2.0) * [1, 0]}, "16 positions occur more than once"),
    "unit": ({"positions": raster(4, 5, 2e-6)}, "cannot be right: check the unit"),
    "overlap": ({"positions": raster(4, 5, 8.0)}, "little overlap: steps of 8.0 px"),
    "probe size": ({"probe": clean_scan().probe[:, 2:-2, 2:-2]}, "the probe is 28 x 28 pixels, the frames are not"),
    "probe scale": ({"probe": clean_scan().probe * 3}, "far from the mean counts"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found_and_named(fault):
    changes, words = FAULTS[fault]
    found = inspect_scan(clean_scan(**changes))
    assert any(words in finding for finding in found.findings), found.findings
    assert all("\n" not in finding for finding in found.findings)
    to_json(found.summary())
    assert all(isinstance(words, str) for row in found.describe() for words in row)


def test_a_mask_that_names_them_silences_the_finding():
    frames = clean_scan().frames
    frames[:, 15, 15] = 0
    mask = np.ones((SIDE, SIDE), bool)
    mask[15, 15] = False
    found = inspect_scan(clean_scan(frames=frames, mask=mask))
    assert found.findings == []
    assert found.bad_pixels["mask"] == 1 and found.bad_pixels["dead"] == 0 and not found.good[15, 15]


def test_a_pixel_that_is_always_nan_is_a_bad_pixel_and_nothing_else():
    changes, _ = FAULTS["NaN pixel"]
    (finding,) = inspect_scan(clean_scan(**changes)).findings
    assert "1 marked" in finding


def test_an_annulus_that_reaches_the_edge_is_no_near_field():
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    radius = np.hypot(rows, columns)
    ring = 200.0 * ((radius > 8) & (radius < 15)) + 2
    frames = RNG.poisson(ring, (20, SIDE, SIDE)).astype(np.uint16)
    assert not inspect_scan(clean_scan(frames=frames, probe=None)).is_even


def test_where_the_step_cannot_be_right_nothing_is_said_of_overlap():
    found = inspect_scan(clean_scan(positions=raster(4, 5, 4000.0)))
    assert found.overlap is None and dict(found.describe())["overlap"] == "unknown"


def test_every_rule_has_words():
    assert set(inspect_scan(clean_scan()).bad_pixels) == set(RULES)


def test_overlap_without_a_probe_is_only_a_bound():
    found = inspect_scan(clean_scan(probe=None))
    assert found.overlap[0] == 1 - 2 / SIDE and "at most" in found.overlap[1]


def annulus(**changes) -> Scan:
    """As `clean_scan`, with the pattern of a zone plate with a central stop."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    radius = np.hypot(rows, columns)
    ring = np.where((radius > 0.25 * SIDE) & (radius < 0.47 * SIDE), 200, 3)
    return clean_scan(frames=RNG.poisson(ring, (20, SIDE, SIDE)).astype(np.uint16), **changes)


@pytest.mark.parametrize("scan", [clean_scan(), annulus()], ids=["disc", "annulus"])
def test_swapped_quarters_are_told_from_what_only_looks_so(scan):
    assert inspect_scan(replace(scan, frames=np.fft.fftshift(scan.frames, axes=(1, 2)))).is_fft_shifted
    gap = scan.frames.copy()
    gap[:, SIDE // 2 - 2 : SIDE // 2 + 2] = 0  # between two modules of the detector
    moved = [np.roll(scan.frames, shift, axis=(1, 2)) for shift in ((3, 0), (0, -6), (5, 5))]
    for frames in (scan.frames, gap, *moved):
        assert not inspect_scan(replace(scan, frames=frames)).is_fft_shifted


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "kind"), [("siemens-star", "irregular"), ("tungsten-26id", "spiral")])
def test_real_scans(name, kind, tmp_path):
    from ptychow.figures_inspection import inspection_figure

    path = locate(name)
    if path is None:
        pytest.skip(f"{name} is not here: set PTYCHOW_DATA, or run `ptychow fetch {name}`")
    found = inspect_scan(read_scan(path))
    assert found.pattern.kind == kind
    assert found.pattern.step == pytest.approx(9.0 if name == "siemens-star" else 9.6, abs=0.1)
    assert not found.is_fft_shifted
    swapped = np.fft.fftshift(read_scan(path).frames[:], axes=(1, 2))
    assert inspect_scan(replace(read_scan(path), frames=swapped)).is_fft_shifted
    if name == "tungsten-26id":
        assert found.bad_pixels["dead"] >= 5
        assert 0.8 < found.overlap[0] < 0.9
    inspection_figure(tmp_path / "a.png", found)
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_the_centre_that_the_detector_names_is_offered():
    found = inspect_scan(clean_scan(**off_centre(), metadata={BEAM_CENTRE: "19.2,15.8"}))
    assert any("--centre 19,16 --crop" in finding for finding in found.findings)
    assert ("beam centre", "19.2,15.8 (row,column), as the detector says") in found.describe()
