"""Frames without a position, in every format whose readers can leave them out."""

import h5py
import layouts
import numpy as np
import pytest
import tifffile
from layouts import FRAMES
from test_cxi import full_scan

from conftest import small_scan
from ptychow.errors import InputError
from ptychow.formats import read_scan, write_scan
from ptychow.formats.nexus import write_scan as write_nexus

COUNT = len(FRAMES)
KEPT = [index for index in range(COUNT) if index not in (1, COUNT - 1)]
PLACES = np.random.default_rng(4).normal(size=(COUNT, 2)).round(6)


def table(folder, positions):
    np.savetxt(folder / "positions.csv", positions, delimiter=",", header="y_um,x_um")
    return {"positions_file": str(folder / "positions.csv")}


def hdf5(folder):
    with h5py.File(folder / "raw.h5", "w") as file:
        file["frames"] = FRAMES
    return folder / "raw.h5", {"frames": "frames"}


def tiff(folder):
    tifffile.imwrite(folder / "raw.tif", FRAMES)
    return folder / "raw.tif", {}


def dectris(folder):
    return layouts.dectris(folder)[0], {}


@pytest.mark.parametrize("write", [hdf5, tiff, dectris])
@pytest.mark.parametrize("positions", [PLACES, PLACES[KEPT]], ids=["of all", "of those kept"])
def test_frames_are_left_out_before_they_need_a_position(write, positions, tmp_path):
    path, mapping = write(tmp_path)
    mapping |= table(tmp_path, positions)
    if len(positions) < COUNT:
        with pytest.raises(InputError, match=rf"{len(KEPT)} positions for {COUNT} frames.*--map drop={len(KEPT)}:"):
            read_scan(path, mapping=mapping)
    scan = read_scan(path, mapping=mapping | {"drop": "1, -1"})
    np.testing.assert_array_equal(scan.frames[:], FRAMES[KEPT])
    np.testing.assert_allclose(scan.positions, PLACES[KEPT] * 1e-6)
    assert scan.raster is None


@pytest.mark.parametrize("write", [hdf5, tiff, dectris])
@pytest.mark.parametrize("drop", [{}, {"drop": "1,-1"}], ids=["all frames", "some frames"])
def test_positions_of_a_plan_that_was_not_measured_to_its_end(write, drop, tmp_path):
    path, mapping = write(tmp_path)
    mapping |= table(tmp_path, np.concatenate([PLACES, [[7, 7], [8, 8]]])) | drop
    with pytest.raises(InputError, match=rf"{COUNT + 2} positions for .*--map drop_positions="):
        read_scan(path, mapping=mapping)
    kept = KEPT if drop else range(COUNT)
    scan = read_scan(path, mapping=mapping | {"drop_positions": f"{COUNT}:"})
    np.testing.assert_allclose(scan.positions, PLACES[kept] * 1e-6)


@pytest.mark.parametrize("write", [hdf5, tiff, dectris])
def test_a_fly_scan_takes_the_mean_of_the_positions_of_each_frame(write, tmp_path):
    path, mapping = write(tmp_path)
    spread = np.array([[-3.0, 1], [1, 0], [2, -1]])
    recorded = (PLACES[:, None] + spread).reshape(-1, 2)
    mapping |= table(tmp_path, np.vstack((recorded, recorded[-1:]))) | {"positions_per_frame": "3", "drop": "1,-1"}
    with pytest.raises(InputError, match=r"positions_per_frame: not as many .*--map drop_positions=-1:"):
        read_scan(path, mapping=mapping)
    scan = read_scan(path, mapping=mapping | {"drop_positions": "-1:"})
    np.testing.assert_allclose(scan.positions, PLACES[KEPT] * 1e-6)
    for text in ("0", "-3", "two"):
        with pytest.raises(InputError, match="not a number of positions"):
            read_scan(path, mapping=mapping | {"positions_per_frame": text})


@pytest.mark.parametrize("rows", ["of all", "of those kept"])
def test_a_table_goes_with_the_frames_of_a_file_with_positions_of_its_own(rows, tmp_path):
    scan = small_scan(lines=3)
    write_scan(tmp_path / "scan.cxi", scan)
    kept = np.delete(np.arange(len(scan)), 3)
    places = np.arange(2.0 * len(scan)).reshape(-1, 2)
    mapping = table(tmp_path, places if rows == "of all" else places[kept]) | {"drop": "3"}
    found = read_scan(tmp_path / "scan.cxi", mapping=mapping)
    np.testing.assert_array_equal(found.frames[:], scan.frames[kept])
    np.testing.assert_allclose(found.positions, places[kept] * 1e-6)


@pytest.mark.parametrize("said", [{"position_unit": "um"}, {"position_columns": "x,-y"}])
def test_what_is_said_of_a_table_that_is_not_named(said, tmp_path):
    write_scan(tmp_path / "scan.cxi", small_scan(lines=3))
    with pytest.raises(InputError, match=f"{next(iter(said))}: speaks of a table of positions, and none is named"):
        read_scan(tmp_path / "scan.cxi", mapping=said)


def test_a_table_of_a_fly_scan_for_a_file_with_positions_of_its_own(tmp_path):
    scan = small_scan(lines=3)
    write_scan(tmp_path / "scan.cxi", scan)
    recorded = np.arange(4.0 * len(scan)).reshape(-1, 2)
    mapping = table(tmp_path, recorded) | {"positions_per_frame": "2"}
    found = read_scan(tmp_path / "scan.cxi", mapping=mapping)
    np.testing.assert_allclose(found.positions, (recorded[::2] + recorded[1::2]) / 2 * 1e-6)


def test_a_table_of_the_plan_for_a_file_with_positions_of_its_own(tmp_path):
    scan = small_scan(lines=3)
    write_scan(tmp_path / "scan.cxi", scan)
    plan = np.arange(2.0 * len(scan) + 4).reshape(-1, 2)
    mapping = table(tmp_path, plan) | {"drop_positions": "0,-1"}
    found = read_scan(tmp_path / "scan.cxi", mapping=mapping)
    np.testing.assert_allclose(found.positions, plan[1:-1] * 1e-6)


@pytest.mark.parametrize(("write", "name"), [(write_scan, "scan.cxi"), (write_nexus, "scan.nxs")])
def test_all_that_belongs_to_a_frame_goes_with_it(write, name, tmp_path):
    """Also where a file keeps more than frames and positions, and an aborted scan has fewer of these."""
    whole = full_scan()
    write(tmp_path / name, whole)
    kept = [*range(2, len(whole) - 1)]
    found = read_scan(tmp_path / name, mapping={"drop": "0,1,-1"})
    np.testing.assert_array_equal(found.frames[:], whole.frames[kept])
    np.testing.assert_allclose(found.positions, whole.positions[kept])
    np.testing.assert_allclose(found.nominal_positions, whole.nominal_positions[kept])
    np.testing.assert_allclose(found.label_patches[:], whole.label_patches[kept])
    assert found.raster is None and found.object is not None
    place, last = "entry_1/sample_1/geometry_1/translation", len(whole) - 1
    with h5py.File(tmp_path / name, "a") as file:
        few, unit = file[place][:last], file[place].attrs["units"]
        del file[place]
        file[place] = few
        file[place].attrs["units"] = unit
    with pytest.raises(InputError, match=rf"{last} positions for {last + 1} frames.*--map drop={last}:"):
        read_scan(tmp_path / name)
    np.testing.assert_array_equal(
        read_scan(tmp_path / name, mapping={"drop": f"{last}:"}).frames[:], whole.frames[:last]
    )


def test_points_that_an_encoder_lost(tmp_path):
    scan = small_scan(lines=3)
    lost = np.array(scan.positions)
    lost[[2, 5]] = np.nan
    write_scan(tmp_path / "scan.cxi", scan)
    with h5py.File(tmp_path / "scan.cxi", "a") as file:
        file["entry_1/sample_1/geometry_1/translation"][:, :2] = lost[:, ::-1]
    with pytest.raises(InputError, match=r"2 not finite.* --map drop=2,5 "):
        read_scan(tmp_path / "scan.cxi")
    found = read_scan(tmp_path / "scan.cxi", mapping={"drop": "2,5"})
    kept = np.isfinite(lost).all(axis=1)
    np.testing.assert_array_equal(found.frames[:], scan.frames[kept])
    np.testing.assert_array_equal(found.positions, scan.positions[kept])


@pytest.mark.parametrize(("text", "words"), [(":", "leaves no frame"), ("99", "drop: no frames"), ("x", "no frames")])
def test_what_cannot_be_left_out(text, words, tmp_path):
    path, mapping = hdf5(tmp_path)
    with pytest.raises(InputError, match=words):
        read_scan(path, mapping=mapping | table(tmp_path, PLACES) | {"drop": text})


def test_positions_that_are_none(tmp_path):
    path, mapping = hdf5(tmp_path)
    with pytest.raises(InputError, match=rf"drop_positions: no positions; found 99, .* some of {COUNT} positions"):
        read_scan(path, mapping=mapping | table(tmp_path, PLACES) | {"drop_positions": "99"})
