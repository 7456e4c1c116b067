"""HDF5 files explained by a mapping."""

import h5py
import numpy as np
import pytest

from ptychow.errors import InputError
from ptychow.formats import read_scan
from ptychow.formats.hdf5 import KEYS

RNG = np.random.default_rng(3)
FRAMES = RNG.integers(0, 100, (6, 8, 8)).astype(np.uint16)
XY_UM = RNG.normal(size=(6, 2))
MINIMAL = {"frames": "/raw/frames", "positions": "/raw/xy", "position_unit": "um"}


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "home made.h5", "w") as file:
        file["raw/frames"] = FRAMES
        file["raw/raster"] = FRAMES.reshape(2, 3, 8, 8)
        file["raw/xy"] = XY_UM
        file["raw/grid"] = XY_UM.reshape(2, 3, 2)
        file["raw/down"] = XY_UM[:, 0]
        file["raw/right"] = XY_UM[:, 1]
        file["raw/good"] = np.eye(8, dtype=np.uint8)
        file["raw/probe"] = RNG.normal(size=(8, 8)) + 1j
        file["raw/object"] = RNG.normal(size=(12, 14)) + 1j
        file["raw/origin"] = [-2.0, 3.5]
        file["raw/energy"] = [9000.0]
        file["raw/text"] = "nine"
    return tmp_path / "home made.h5"


def test_minimal(path):
    scan = read_scan(path, mapping=MINIMAL)
    assert np.array_equal(scan.frames[:], FRAMES)
    assert scan.position_unit == "m" and np.array_equal(scan.positions, XY_UM * 1e-6)
    assert scan.mask is scan.probe is scan.object is scan.raster is scan.saturation is None
    assert scan.geometry.pixel_size is None
    assert scan.metadata["mapping frames"] == "/raw/frames"


def test_everything(path):
    scan = read_scan(
        path,
        mapping={
            "frames": "/raw/raster",
            "positions_y": "raw/down",
            "positions_x": "raw/right",
            "position_unit": "px",
            "mask": "/raw/good",
            "saturation": "4095",
            "probe": "/raw/probe",
            "object": "/raw/object",
            "object_origin_px": "/raw/origin",
            "energy_ev": "/raw/energy",
            "distance_m": "2.0",
            "detector_pixel_m": "75e-6",
        },
    )
    assert scan.raster == (2, 3) and scan.frames.shape == (6, 8, 8)
    assert scan.position_unit == "px" and np.array_equal(scan.positions, XY_UM)
    assert np.array_equal(scan.mask, np.eye(8, dtype=bool)) and scan.saturation == 4095
    assert scan.probe.shape == (1, 8, 8) and scan.probe.dtype == np.complex64
    assert scan.object.origin == (-2.0, 3.5) and scan.object.image.shape == (12, 14)
    assert scan.geometry.wavelength == pytest.approx(1.377602e-10, rel=1e-6)
    assert scan.geometry.pixel_size == pytest.approx(1.377602e-10 * 2 / (8 * 75e-6), rel=1e-6)


@pytest.mark.parametrize("positions", ["/raw/xy", "/raw/grid"])
@pytest.mark.parametrize(("unit", "metres"), [("m", 1), ("mm", 1e-3), ("um", 1e-6), ("nm", 1e-9)])
def test_units(path, positions, unit, metres):
    scan = read_scan(path, mapping={"frames": "/raw/frames", "positions": positions, "position_unit": unit})
    assert np.array_equal(scan.positions, XY_UM * metres)


def test_frames_that_are_named_are_those_of_this_file(tmp_path):
    with h5py.File(tmp_path / "dp.h5", "w") as file:  # where PtychoShelves would have rows and columns exchanged
        file["dp"] = FRAMES[:, :, :6]
    np.savetxt(tmp_path / "xy.csv", XY_UM, delimiter=",", header="y_um,x_um", comments="")
    scan = read_scan(tmp_path / "dp.h5", mapping={"frames": "/dp", "positions_file": str(tmp_path / "xy.csv")})
    assert np.array_equal(scan.frames[:], FRAMES[:, :, :6])


def test_units_attributes_count(path):
    with h5py.File(path, "a") as file:
        file["raw/xy"].attrs["units"] = "µm"
        for name, value, unit in (("distance", 1950.0, "mm"), ("kev", 9.0, "keV"), ("pixel", 75.0, b"micron")):
            file[f"raw/{name}"] = value
            file[f"raw/{name}"].attrs["units"] = unit
    numbers = {"distance_m": "/raw/distance", "energy_ev": "/raw/kev", "detector_pixel_m": "/raw/pixel"}
    scan = read_scan(path, mapping={"frames": "/raw/frames", "positions": "/raw/xy"} | numbers)
    assert scan.position_unit == "m" and np.array_equal(scan.positions, XY_UM * 1e-6)
    geometry = scan.geometry
    assert (geometry.distance, geometry.detector_pixel) == pytest.approx((1.95, 75e-6))
    assert geometry.wavelength == pytest.approx(1.377602e-10, rel=1e-6)
    assert np.array_equal(read_scan(path, mapping=MINIMAL).positions, scan.positions)  # said twice, and the same
    with pytest.raises(InputError, match="position_unit: contradicts the file; found mm, expected µm"):
        read_scan(path, mapping=MINIMAL | {"position_unit": "mm"})
    with h5py.File(path, "a") as file:
        file["raw/distance"].attrs["units"] = "furlong"
    with pytest.raises(InputError, match="/raw/distance, attribute units: unknown unit; found furlong"):
        read_scan(path, mapping=MINIMAL | numbers)


def test_a_position_unit_that_nobody_says(path):
    with pytest.raises(InputError, match=r"position_unit: the unit .* not said; found no attribute units at /raw/xy"):
        read_scan(path, mapping={"frames": "/raw/frames", "positions": "/raw/xy"})


def test_columns_in_different_units(path):
    with h5py.File(path, "a") as file:
        file["raw/down"].attrs["units"], file["raw/right"].attrs["units"] = "mm", "um"
    columns = {"frames": "/raw/frames", "positions_y": "/raw/down", "positions_x": "/raw/right"}
    with pytest.raises(InputError, match="/raw/down, /raw/right: in different units; found mm, um"):
        read_scan(path, mapping=columns)


def test_bad_pixels_are_the_reverse_of_mask(path):
    good = read_scan(path, mapping=MINIMAL | {"mask": "/raw/good"}).mask
    bad = read_scan(path, mapping=MINIMAL | {"bad_pixels": "/raw/good"}).mask
    assert np.array_equal(good, ~bad)


def test_origin_written_out(path):
    scan = read_scan(path, mapping=MINIMAL | {"object": "/raw/object", "object_origin_px": "1.5, -4"})
    assert scan.object.origin == (1.5, -4.0)


def test_without_a_mapping_says_what_there_is_and_what_to_say(path):
    with pytest.raises(InputError) as caught:
        read_scan(path)
    for part in (
        "must be explained by a mapping",
        "/raw/frames (6, 8, 8)",
        "--map frames=/raw/frames --positions FILE",
        "--map positions=/raw/xy",
        "position_unit",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("missing", ["frames", "positions"])
def test_missing_keys(path, missing):
    mapping = {key: value for key, value in MINIMAL.items() if key != missing}
    with pytest.raises(InputError, match=f"home made.h5: {missing}.*: not in the mapping"):
        read_scan(path, mapping=mapping)


def test_unknown_key_lists_the_known(path):
    with pytest.raises(InputError) as caught:
        read_scan(path, mapping=MINIMAL | {"frame": "/raw/frames"})
    assert "frame: a mapping this kind of file does not understand" in str(caught.value)
    assert all(key in str(caught.value) for key in KEYS)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"position_unit": "inch"}, "position_unit: unknown unit; found inch, expected m, mm, um, nm, or px"),
        ({"frames": "/raw/nothing"}, "/raw/nothing: no such dataset; found /raw/down"),
        ({"frames": "/raw"}, "/raw: no such dataset"),
        ({"frames": "/raw/xy"}, "/raw/xy: not a stack of images"),
        ({"positions": "/raw/down"}, r"positions: does not fit; found shape \(6,\)"),
        ({"positions": "/raw/text"}, "/raw/text: not numbers"),
        ({"mask": "/raw/xy"}, "mask: does not fit"),
        ({"mask": "/raw/good", "bad_pixels": "/raw/good"}, "mask and bad_pixels: .* same thing twice"),
        ({"positions_x": "/raw/right"}, "positions and positions_x: .* same thing twice"),
        ({"wavelength_m": "1e-10", "energy_ev": "9000"}, "wavelength_m and energy_ev"),
        ({"wavelength_m": "-1e-10"}, "wavelength: not a length"),
        ({"wavelength_m": "nan"}, "wavelength: not a length"),
        ({"wavelength_m": "short"}, "wavelength_m: neither as many numbers nor a dataset"),
        ({"distance_m": "1,2"}, "distance_m: neither as many numbers"),
        ({"probe": "/raw/xy"}, "/raw/xy: not complex"),
        ({"object": "/raw/object"}, "object_origin_px: the mapping leaves out where the object lies"),
    ],
)
def test_faults(path, more, message):
    with pytest.raises(InputError, match=message) as caught:
        read_scan(path, mapping=MINIMAL | more)
    assert "home made.h5" in str(caught.value)


def test_axes_of_different_length(path):
    with h5py.File(path, "a") as file:
        file["raw/short"] = np.zeros(5)
    mapping = {
        "frames": "/raw/frames",
        "positions_y": "/raw/down",
        "positions_x": "/raw/short",
        "position_unit": "m",
    }
    with pytest.raises(InputError, match="of different length; found 6 and 5"):
        read_scan(path, mapping=mapping)
