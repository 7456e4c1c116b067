"""NXcxi_ptycho: loss-free to CXI and back, readable by h5py alone, and others' ways of laying it out."""

from dataclasses import replace

import h5py
import layouts
import numpy as np
import pytest
from test_cxi import OPTIONAL, assert_same, full_scan

from ptychow.errors import InputError
from ptychow.formats import read_scan, recognise, write_scan
from ptychow.formats.nexus import write_scan as write_nexus
from ptychow.scan import NOT_BELIEVED, Geometry


@pytest.mark.parametrize("absent", [(), *((name,) for name in OPTIONAL), OPTIONAL])
@pytest.mark.parametrize("unit", ["m", "px"])
def test_cxi_to_nexus_to_cxi_loses_nothing(tmp_path, absent, unit):
    scan = replace(full_scan(), **dict.fromkeys(absent), position_unit=unit)
    if unit == "px":
        scan = replace(scan, geometry=Geometry())
    write_scan(tmp_path / "a.cxi", scan)
    write_nexus(tmp_path / "b.nxs", read_scan(tmp_path / "a.cxi"))
    assert recognise(tmp_path / "b.nxs").name == "nxcxi"
    write_scan(tmp_path / "c.cxi", read_scan(tmp_path / "b.nxs"))
    assert recognise(tmp_path / "c.cxi").name == "cxi"
    for name in ("a.cxi", "b.nxs", "c.cxi"):
        assert_same(read_scan(tmp_path / name), scan)


def test_what_the_definition_wants(tmp_path):
    """Read with h5py alone."""
    scan = full_scan()
    write_nexus(tmp_path / "a.nxs", scan)
    with h5py.File(tmp_path / "a.nxs") as file:
        entry = file["entry_1"]
        assert entry["definition"].asstr()[()] == "NXcxi_ptycho" and file["cxi_version"][()] == 160
        kinds = {"instrument_1": "NXinstrument", "instrument_1/detector_1": "NXdetector", "data_1": "NXdata"}
        kinds |= {"instrument_1/beam_1": "NXbeam", "sample_1": "NXsample"}
        assert all(entry[name].attrs["NX_class"] == kind for name, kind in kinds.items())
        assert entry["instrument_1/detector_1/data"].shape == (2, 3, 8, 8)
        assert np.array_equal(entry["instrument_1/detector_1/data"][1, 2], scan.frames[5])
        assert np.array_equal(entry["data_1/data"][:], scan.frames)
        motors = entry["sample_1/transformations"]
        assert np.array_equal(motors["y"][:], scan.positions[:, 0].reshape(2, 3)) and motors["x"].attrs["units"] == "m"
        energy = entry["instrument_1/beam_1/energy"]
        assert energy[()] == pytest.approx(9.004e3 * layouts.EV, rel=1e-3) and energy.attrs["units"] == "J"
        assert "energy" not in entry["instrument_1/source_1"]
        assert entry["instrument_1/detector_1/distance"].attrs["units"] == "m"


def changed(folder, *removed, **added):
    """The raster of `layouts` with other motors or names."""
    path, _ = layouts.nexus_raster(folder)
    with h5py.File(path, "a") as file:
        for name in removed:
            del file[name]
        layouts.write(file, {name.replace("__", "/"): value for name, value in added.items()})
    return path


MOTORS = "entry_1/sample_1/transformations"


def test_the_axes_of_a_raster(tmp_path):
    path = changed(tmp_path, f"{MOTORS}/x", f"{MOTORS}/y")
    with h5py.File(path, "a") as file:
        layouts.write(file, {f"{MOTORS}/x": (np.arange(4.0), {"units": "um"})})
        layouts.write(file, {f"{MOTORS}/y": (np.arange(3.0) * 10, {"units": "um"})})
    scan = read_scan(path)
    np.testing.assert_allclose(scan.positions[[0, 1, 4]], [[0, 0], [0, 1e-6], [1e-5, 0]])


def test_motors_of_any_name_are_told_by_their_vectors(tmp_path):
    path = changed(tmp_path)
    with h5py.File(path, "a") as file:
        for axis, name, vector in (("x", "samx", (-1.0, 0, 0)), ("y", "samy", (0, 1.0, 0))):
            file.move(f"{MOTORS}/{axis}", f"{MOTORS}/{name}")
            file[f"{MOTORS}/{name}"].attrs["vector"] = vector
    # One that counts against its axis is turned round.
    np.testing.assert_allclose(read_scan(path).positions, layouts.POSITIONS * (1, -1))


def as_gda_leaves_it(folder, axes=1):
    """Frames and motors with axes of length 1, motors without units: Diamond's I08-1."""
    path = changed(folder, f"{MOTORS}/x", f"{MOTORS}/y", "entry_1/data_1/data", "entry_1/data_1/x")
    with h5py.File(path, "a") as file:
        detector = file["entry_1/instrument_1/detector_1"]
        del detector["data"]
        detector["data"] = layouts.FRAMES.reshape(layouts.COUNT, *[1] * axes, layouts.HEIGHT, layouts.WIDTH)
        for name, values in (("x", layouts.RIGHT), ("y", layouts.DOWN)):
            file[f"{MOTORS}/{name}"] = values.reshape(-1, 1, 1) * 1e3
    return path


@pytest.mark.parametrize("axes", [0, 1, 2])
def test_axes_of_length_one_and_motors_whose_unit_is_told(tmp_path, axes):
    path = as_gda_leaves_it(tmp_path, axes)
    scan = read_scan(path, mapping={"position_unit": "mm"})
    np.testing.assert_allclose(scan.positions, layouts.POSITIONS)
    assert np.array_equal(scan.frames[:], layouts.FRAMES) and scan.raster is None
    assert np.array_equal(scan.frames[[5, 2]], layouts.FRAMES[[5, 2]])
    with pytest.raises(InputError, match=r"transformations/y, attribute units: unknown unit.*--map position_unit=um"):
        read_scan(path)


def test_a_unit_that_is_told_neither_contradicts_nor_is_idle(tmp_path):
    path, _ = layouts.nexus_raster(tmp_path)
    assert read_scan(path, mapping={"position_unit": "mm"}).position_unit == "m"
    with pytest.raises(InputError, match="contradicts the file; found um, expected mm"):
        read_scan(path, mapping={"position_unit": "um"})
    write_nexus(tmp_path / "own.nxs", full_scan())
    with pytest.raises(InputError, match=r"is said of motors without a unit; found /entry_1/.*translation"):
        read_scan(tmp_path / "own.nxs", mapping={"position_unit": "um"})
    # Said of a table, it says nothing of the file's own.
    np.savetxt(tmp_path / "table.txt", layouts.POSITIONS * 1e6)
    of_table = {"positions_file": str(tmp_path / "table.txt"), "position_columns": "1,2", "position_unit": "um"}
    np.testing.assert_allclose(read_scan(path, mapping=of_table).positions, layouts.POSITIONS)


def test_an_energy_without_a_unit_is_not_used_and_inspect_says_so(tmp_path):
    path = changed(tmp_path, "entry_1/instrument_1/beam_1/energy")
    with h5py.File(path, "a") as file:
        file["entry_1/instrument_1/beam_1/energy"] = 710.0
    scan = read_scan(path)
    assert scan.geometry.wavelength is None
    assert scan.metadata[NOT_BELIEVED] == "entry_1/instrument_1/beam_1/energy has no attribute units"


def test_groups_without_numbers_and_of_any_name(tmp_path):
    path = changed(tmp_path, "entry_1/data_1", entry_1__instrument_1__detector_1__note="x")
    with h5py.File(path, "a") as file:
        file.move("entry_1/instrument_1", "entry_1/beamline")
        file["entry_1/beamline"].attrs["NX_class"] = "NXinstrument"
        file.move("entry_1/beamline/beam_1", "entry_1/beamline/beam")
        file.move("entry_1/sample_1", "entry_1/sample")
        file.move("entry_1", "entry")
        file["entry/definition"][()] = "NXptycho"
    scan = read_scan(path)
    assert np.array_equal(scan.frames[:], layouts.FRAMES) and scan.raster == (3, 4)
    assert scan.geometry.wavelength == pytest.approx(layouts.WAVELENGTH)
    assert np.array_equal(scan.mask, layouts.GOOD)


@pytest.mark.parametrize(
    ("removed", "added", "message"),
    [
        ([f"{MOTORS}/x"], {}, "an NXcxi_ptycho file without positions; found entry_1/sample_1/transformations/y"),
        (["entry_1/instrument_1/detector_1/data"], {}, "detector_1/data: no such dataset"),
        ([f"{MOTORS}/x"], {f"{MOTORS}/x": (np.zeros(5), {"units": "mm"})}, "of different length; found 12, 5"),
        (
            [f"{MOTORS}/x"],
            {f"{MOTORS}/x": (np.zeros((3, 4)), {"units": "m"})},
            "in different units; found m, mm",
        ),
        (
            ["entry_1/instrument_1/beam_1/energy"],
            {"entry_1/instrument_1/beam_1/energy": (1.0, {"units": "parsec"})},
            "beam_1/energy, attribute units: unknown unit; found parsec",
        ),
        (
            ["entry_1/instrument_1/detector_1/distance"],
            {"entry_1/instrument_1/detector_1/distance": (1.0, {"units": "eV"})},
            "detector_1/distance, attribute units: unknown unit; found eV",
        ),
    ],
)
def test_faults_are_named(tmp_path, removed, added, message):
    path = changed(tmp_path, *removed, **added)
    with pytest.raises(InputError, match=message) as caught:
        read_scan(path)
    assert path.name in str(caught.value)
