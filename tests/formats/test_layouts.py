"""Every layout of another program is recognised, read as it was meant, lazily, and inspected."""

import pickle

import layouts
import numpy as np
import pytest
from layouts import COUNT, FRAMES, GOOD, LAYOUTS, POSITIONS

from ptychow.formats import read_scan, recognise
from ptychow.inspection import inspect_scan

IN_METRES = set(LAYOUTS) - {"PtychoShelves prepared", "mat 5", "mat 7.3", "tike npz", "PtychoNN"}
WITH_MASK = {"cxi of PyNX", "NXcxi_ptycho raster", "ptyd", "PtychoShelves prepared", "Dectris 1", "Dectris 2"}
WITH_MASK |= {"Ptychodus h5", "Ptychodus npz"}
WITH_WAVELENGTH = {"cxi of PyNX", "NXcxi_ptycho raster", "ptyd", "fold_slice pair", "mat 5", "mat 7.3"}
WITH_WAVELENGTH |= {"Ptychodus h5", "Ptychodus npz", "Dectris 1", "Dectris 2", "NSLS-II"}
WITH_DISTANCE = WITH_WAVELENGTH - {"fold_slice pair", "mat 5", "mat 7.3"}
WITH_PROBE = {"mat 5", "mat 7.3", "Ptychodus h5", "Ptychodus npz", "tike npz", "home made"}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return request.param


@pytest.fixture
def stored(layout, tmp_path):
    return LAYOUTS[layout][0](tmp_path)


def test_recognised_by_content(layout, stored, tmp_path):
    path, mapping = stored
    assert recognise(path, mapping).name == LAYOUTS[layout][1]
    if path.is_file():
        renamed = path.rename(path.with_name("scan.dat"))
        assert recognise(renamed, mapping).name == LAYOUTS[layout][1]


def test_the_scan_that_was_meant(layout, stored):
    path, mapping = stored
    scan = read_scan(path, mapping=mapping)
    assert scan.frames.shape == FRAMES.shape and scan.name == path.name
    assert np.array_equal(scan.frames[:], FRAMES)
    assert np.array_equal(scan.frames[[7, 2, 2]], FRAMES[[7, 2, 2]]) and np.array_equal(scan.frames[-1], FRAMES[-1])
    if layout in IN_METRES:
        assert scan.position_unit == "m"
        np.testing.assert_allclose(scan.positions, POSITIONS, rtol=1e-6, atol=1e-15)
    elif layout != "PtychoNN":
        assert scan.position_unit == "px"
        moved = scan.positions - layouts.corners()
        np.testing.assert_allclose(moved, np.broadcast_to(moved[0], moved.shape), atol=1e-9)
    if layout in WITH_MASK:
        assert np.array_equal(scan.mask, GOOD)
    else:
        assert scan.mask is None


def test_geometry(layout, stored):
    path, mapping = stored
    geometry = read_scan(path, mapping=mapping).geometry
    assert geometry.wavelength == (pytest.approx(layouts.WAVELENGTH) if layout in WITH_WAVELENGTH else None)
    assert geometry.distance == (pytest.approx(layouts.DISTANCE) if layout in WITH_DISTANCE else None)
    assert geometry.detector_pixel == (pytest.approx(layouts.DETECTOR_PIXEL) if layout in WITH_DISTANCE else None)


def test_probe_is_the_stored_one_up_to_scale(layout, stored):
    path, mapping = stored
    scan = read_scan(path, mapping=mapping)
    if layout not in WITH_PROBE:
        assert scan.probe is None
        return
    ratio = scan.probe / layouts.PROBE
    assert scan.probe.shape == layouts.PROBE.shape and np.allclose(ratio, ratio[0, 0, 0], rtol=1e-5)


@pytest.mark.parametrize("kind", ["mat 5", "mat 7.3"])
def test_patches_of_the_object_are_where_matlab_takes_them(kind, tmp_path):
    path, mapping = LAYOUTS[kind][0](tmp_path)
    scan = read_scan(path, mapping=mapping)
    assert np.array_equal(scan.object.image, layouts.OBJECT)
    middle = np.array(FRAMES.shape[1:]) // 2
    np.testing.assert_allclose(scan.positions - scan.object.origin - middle, layouts.corners())
    assert scan.geometry.pixel_size == layouts.OBJECT_PIXEL


def test_frames_travel_without_their_values(stored):
    path, mapping = stored
    scan = read_scan(path, mapping=mapping)
    scan.frames[:3]
    content = pickle.dumps(scan.frames)
    assert len(content) < 3000
    assert np.array_equal(pickle.loads(content)[5], FRAMES[5])


@pytest.mark.parametrize("kind", ["ptyd", "Ptychodus npz", "TIFF folder"])
def test_the_command_line_reads_them(kind, ptychow, tmp_path):
    path, mapping = LAYOUTS[kind][0](tmp_path)
    positions = mapping.pop("positions_file", None)
    given = [part for key, value in mapping.items() for part in ("--map", f"{key}={value}")]
    given += ["--positions", positions] if positions else []
    code, shown, complaint = ptychow("inspect", path, *given, "--output", tmp_path / "picture.png")
    assert code == 0, complaint
    assert f"{COUNT} of {FRAMES.shape[1]} x {FRAMES.shape[2]}" in shown
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_a_raster_is_known(tmp_path):
    for kind in ("NXcxi_ptycho raster", "PtychoNN"):
        path, mapping = LAYOUTS[kind][0](tmp_path)
        assert read_scan(path, mapping=mapping).raster == (layouts.LINES, layouts.POINTS)


def test_inspection_works_on_all(stored):
    path, mapping = stored
    found = inspect_scan(read_scan(path, mapping=mapping), format=recognise(path, mapping).title)
    assert np.allclose(found.frames.mean, FRAMES.mean(axis=0), rtol=1e-5)
    assert all(isinstance(words, str) for row in found.describe() for words in row)
