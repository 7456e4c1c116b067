"""Ptychodus products: round trips, frames wherever they are, the object where Ptychodus has it."""

from dataclasses import replace

import h5py
import layouts
import numpy as np
import pytest
from layouts import FRAMES, OBJECT, OBJECT_PIXEL, POSITIONS
from test_cxi import full_scan

from ptychow.errors import InputError
from ptychow.formats import read_scan, recognise, write_scan
from ptychow.formats.ptychodus import leaves_out, write_product
from ptychow.scan import Geometry


@pytest.fixture(params=[".h5", ".npz"])
def suffix(request):
    return request.param


def test_round_trip(tmp_path, suffix):
    scan = full_scan()
    write_scan(tmp_path / "a.cxi", scan)
    path = tmp_path / f"b{suffix}"
    write_product(path, read_scan(tmp_path / "a.cxi"))
    assert recognise(path).name == "ptychodus"
    found = read_scan(path)
    assert np.array_equal(found.frames[:], scan.frames) and found.frames.dtype == scan.frames.dtype
    assert np.array_equal(found.positions, scan.positions) and found.position_unit == "m"
    assert np.array_equal(found.probe, scan.probe) and np.array_equal(found.mask, scan.mask)
    assert np.array_equal(found.object.image, scan.object.image)
    np.testing.assert_allclose(found.object.origin, scan.object.origin, atol=1e-9)
    for part in ("wavelength", "distance", "detector_pixel", "pixel_size"):
        assert getattr(found.geometry, part) == pytest.approx(getattr(scan.geometry, part), rel=1e-12)
    assert leaves_out(scan) == ["saturation", "nominal positions", "label patches", "raster", "metadata"]


def test_positions_in_pixels_become_metres(tmp_path, suffix):
    scan = replace(full_scan(), geometry=Geometry(pixel_size=1e-8), position_unit="px")
    write_product(tmp_path / f"a{suffix}", scan)
    np.testing.assert_allclose(read_scan(tmp_path / f"a{suffix}").positions_px, scan.positions)
    assert read_scan(tmp_path / f"a{suffix}").geometry.wavelength is None


@pytest.mark.parametrize(
    ("lacks", "field"),
    [({"probe": None}, "probe"), ({"object": None}, "object"), ({"geometry": Geometry()}, "object pixel")],
)
def test_what_a_product_cannot_be_without(tmp_path, lacks, field):
    with pytest.raises(InputError, match=f"{field}: a Ptychodus product cannot be without. Reconstruct it first"):
        write_product(tmp_path / "a.h5", replace(full_scan(), **lacks))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["Ptychodus h5", "Ptychodus npz"])
def test_the_object_lies_where_ptychodus_has_it(kind, tmp_path):
    """`map_coordinates_probe_to_object`: index = (position - centre) / pixel + (N - 1) / 2, of the probe's middle."""
    path, mapping = layouts.LAYOUTS[kind][0](tmp_path)
    scan = read_scan(path, mapping=mapping)
    assert np.array_equal(scan.object.image, OBJECT)
    centre = np.array([layouts.OBJECT_FACTS["center_y_m"], layouts.OBJECT_FACTS["center_x_m"]])
    middle = (POSITIONS - centre) / OBJECT_PIXEL + (np.array(OBJECT.shape) - 1) / 2
    corner = middle - (np.array(FRAMES.shape[1:]) - 1) / 2  # of the patch that the probe covers
    found = scan.positions_px - scan.object.origin - np.array(FRAMES.shape[1:]) // 2
    np.testing.assert_allclose(found, corner, atol=1e-9)


def test_only_frames_with_a_position_and_the_reverse(tmp_path):
    path, _ = layouts.ptychodus_h5(tmp_path)
    with h5py.File(path, "a") as file:
        indexes = file["probe_position_indexes"][:]
        indexes[:3] += 100  # of frames that were dropped
        file["probe_position_indexes"][:] = indexes
    scan = read_scan(path)
    assert len(scan) == 9
    assert np.array_equal(scan.frames[:], FRAMES[:9]) and np.allclose(scan.positions, POSITIONS[:9])


def test_frames_that_are_nowhere(tmp_path):
    path, _ = layouts.ptychodus_h5(tmp_path)
    (tmp_path / "diffraction.h5").unlink()
    with pytest.raises(InputError, match=r"product-out\.h5: a Ptychodus product holds no frames; expected diffraction"):
        read_scan(path)
    assert len(read_scan(path, mapping=layouts.ptychodus_npz(tmp_path)[1])) == layouts.COUNT


def change(path, act):
    with h5py.File(path, "a") as file:
        act(file)


FAULTS = {
    "far field": (lambda file: file.attrs.update(far_field=False), "far_field: a near-field scan"),
    "indexes": (lambda file: file["probe_position_indexes"].write_direct(np.arange(50, 62)), "no frame has the index"),
    "object pixels": (lambda file: file["object"].attrs.update(pixel_width_m=1e-9), "object pixels are not square"),
    "text": (lambda file: file.attrs.update(probe_energy_eV="nine"), "probe_energy_eV: not a number"),
    "distance": (lambda file: file.attrs.update(detector_object_distance_m=-1.0), "distance: not a length"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(fault, tmp_path):
    path, _ = layouts.ptychodus_h5(tmp_path)
    act, message = FAULTS[fault]
    change(path, act)
    with pytest.raises(InputError, match=message) as caught:
        read_scan(path)
    assert path.name in str(caught.value)


def test_an_object_of_layers_is_left_out(tmp_path):
    path, _ = layouts.ptychodus_h5(tmp_path)

    def layered(file):
        facts = dict(file["object"].attrs)
        del file["object"]
        file["object"] = np.stack((OBJECT, OBJECT))
        file["object"].attrs.update(facts)

    change(path, layered)
    assert read_scan(path).object is None
