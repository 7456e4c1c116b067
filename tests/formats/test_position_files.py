"""Positions in files of their own: every kind of file, header and unit; what is not said is asked for."""

import h5py
import layouts
import numpy as np
import pytest
from layouts import DOWN, POSITIONS, RIGHT

from ptychow.errors import InputError
from ptychow.formats import FORMATS, read_scan, write_scan
from ptychow.formats.position_files import read_positions
from ptychow.scan import Scan

UM = POSITIONS * 1e6


def text(rows, header="", separator=", "):
    lines = [header] if header else []
    return "\n".join(lines + [separator.join(map(repr, row)) for row in rows.tolist()]) + "\n"


TEXTS = {
    "commas": (text(UM, "y_um, x_um"), {}),
    "semicolons": (text(UM[:, ::-1], "X [um];Y [um]", ";"), {}),
    "tabs": (text(UM, "y (µm)\tx (µm)", "\t"), {}),
    "blanks": (text(UM, separator="   "), {"position_columns": "1,2", "position_unit": "um"}),
    "comment": (text(UM * 1e3, "# pos_y_nm pos_x_nm", " "), {}),
    "remarks": ("# a scan\n\n" + text(UM, "y, x") + "# the end\n\n", {"position_unit": "um"}),
    "other names": (text(UM, "samz,samy"), {"position_columns": "samz,samy", "position_unit": "um"}),
    "turned": (text(UM * [1, -1], "y_um,x_um"), {"position_columns": "y_um,-x_um"}),
    "more columns": (
        text(np.column_stack((np.arange(12.0), UM, UM)), "i,y,x,y2,x2"),
        {"position_columns": "4,5", "position_unit": "um"},
    ),
    "stage": ("# sample A, 3 May\n# SY (um)  SX (um)\n" + text(UM, separator=" "), {}),
    "one unit for both": (text(UM[:, ::-1], "# sample_x sample_y (um)", " "), {}),
    "prefixes and brackets": (text(np.column_stack((np.arange(12.0), UM)), "index sample_y[um] sample_x[um]", " "), {}),
    "numbers, unit in the header": (
        text(np.column_stack((np.arange(12.0), UM)), "index samz[um] samx[um]", " "),
        {"position_columns": "2,3"},
    ),
    "more than are named": (
        text(np.column_stack((UM, np.ones((12, 70)))), "y_um,x_um" + "".join(f",c{k}" for k in range(70))),
        {},
    ),
    "byte order mark": ("\ufeff" + text(UM, "y_um,x_um"), {}),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_text(tmp_path, kind):
    content, said = TEXTS[kind]
    (tmp_path / "xy.txt").write_text(content, encoding="utf-8")
    positions, unit = read_positions({"positions_file": str(tmp_path / "xy.txt"), **said})
    assert unit == "m"
    np.testing.assert_allclose(positions, POSITIONS, rtol=1e-12)


def test_pixels(tmp_path):
    (tmp_path / "xy.csv").write_text(text(UM, "y_px,x_px"))
    positions, unit = read_positions({"positions_file": str(tmp_path / "xy.csv")})
    assert unit == "px" and np.array_equal(positions, UM)


def arrays(folder):
    """The same positions in every kind of file of arrays, and what must be said."""
    with h5py.File(folder / "xy.h5", "w") as file:
        layouts.write(file, {"stage/y": (DOWN * 1e3, {"units": "mm"}), "stage/x": (RIGHT * 1e3, {"units": "mm"})})
        layouts.write(file, {"xy": (UM.reshape(3, 4, 2), {"units": "micron"})})
    np.save(folder / "xy.npy", UM)
    np.savez(folder / "one.npz", positions=UM)
    np.savez(folder / "two.npz", y_um=UM[:, 0], x_um=UM[:, 1], other=np.ones((3, 3)))
    numbered = {"position_columns": "1,2", "position_unit": "um"}
    return [
        ("xy.h5", {"position_columns": "/stage/y,/stage/x"}),
        ("xy.h5", {"position_columns": "xy"}),
        ("xy.npy", numbered),
        ("one.npz", numbered),
        ("two.npz", {}),
    ]


@pytest.mark.parametrize("case", range(5))
def test_arrays(tmp_path, case):
    name, said = arrays(tmp_path)[case]
    positions, unit = read_positions({"positions_file": str(tmp_path / name), **said})
    assert unit == "m"
    np.testing.assert_allclose(positions, POSITIONS, rtol=1e-12)


@pytest.mark.parametrize(("columns", "signs"), [("1,2", (1, 1)), ("-1,2", (-1, 1)), ("xy", (1, 1)), ("-xy", (-1, -1))])
def test_a_minus_turns_the_sign_of_the_columns_it_names(tmp_path, columns, signs):
    name, _ = arrays(tmp_path)[1 if "xy" in columns else 2]
    said = {"positions_file": str(tmp_path / name), "position_columns": columns, "position_unit": "um"}
    np.testing.assert_allclose(read_positions(said)[0], POSITIONS * signs, rtol=1e-12)


@pytest.mark.parametrize(
    ("content", "said", "message"),
    [
        (text(UM), {"position_unit": "um"}, "position_columns: which columns are down and right is not said; found"),
        (text(UM), {"position_unit": "um"}, "--map position_columns=1,2 --map position_unit=um"),
        (
            text(UM, "x, y"),
            {},
            "the unit of the positions is not said.*--map position_columns=y,x --map position_unit=um",
        ),
        (text(UM, "y_um, x_nm"), {}, "y_um, x_nm: columns in different units; found um, nm"),
        (text(UM, "y_um, x_nm"), {"position_unit": "nm"}, "columns in different units"),
        (text(UM, "y_um, x_um"), {"position_unit": "mm"}, "position_unit: contradicts the file; found mm, expected um"),
        (text(UM, "y, x"), {"position_unit": "furlong"}, "position_unit: unknown unit; found furlong"),
        (text(UM, "y, x"), {"position_unit": "m", "position_columns": "up,x"}, "position_columns: no column up; found"),
        (text(UM, "y, x"), {"position_unit": "m", "position_columns": "1,2,3"}, "which columns are down and right"),
        (
            text(np.column_stack((UM[:, 0], np.arange(12))), "y_um, index"),
            {},
            r"columns 1, 2, y_um, index, header 'y_um, index'\. Say, for example: --pos",
        ),
        (text(UM, "encoder y encoder x", " "), {}, "header 'encoder y encoder x'.*--map position_columns=1,2 --map"),
        (text(np.hstack((UM, UM)), "y_um,x_um,pos_y_um,pos_x_um"), {}, "which columns are down and right"),
        (text(UM[:, :1], "y_um"), {}, "a single column; expected two"),
        ("1,2\n3,4,5\n", {}, "line 2: a line of another length; found 3 columns after 2"),
        (
            "frame,y_um,x_um\n0,1,2\n2,3,4\n1,5,6\n",
            {},
            "frame: the lines are not in the frames' order; found 2 and then 1",
        ),
        ("1,2\nthree,4\n", {}, "line 2: not numbers; found three,4"),
        ("y,x\n", {}, "no line of numbers"),
        ("", {}, "no line of numbers"),
        ("\udcff", {}, "neither text nor HDF5, npy or npz"),
    ],
)
def test_what_is_wrong_or_not_said(tmp_path, content, said, message):
    (tmp_path / "xy.csv").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message) as caught:
        read_positions({"positions_file": str(tmp_path / "xy.csv"), **said})
    assert "xy.csv" in str(caught.value) or "position_unit" in str(caught.value)


def test_hdf5_says_what_there_is(tmp_path):
    arrays(tmp_path)
    with pytest.raises(InputError, match=r"found datasets /stage/x \(12,\), /stage/y \(12,\), /xy \(3, 4, 2\)"):
        read_positions({"positions_file": str(tmp_path / "xy.h5")})


@pytest.mark.parametrize("first", ["", "1;2\n"])
def test_decimal_commas_are_named(first, tmp_path):
    (tmp_path / "excel.csv").write_text(f"y_um;x_um\n{first}1,25;2,50\n1,25;3,50\n")
    with pytest.raises(InputError, match="Write decimal points, not commas"):
        read_positions({"positions_file": str(tmp_path / "excel.csv")})


def test_missing(tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv: positions_file: no such file"):
        read_positions({"positions_file": str(tmp_path / "gone.csv")})


def test_another_number_of_positions_than_frames(tmp_path):
    path, _ = layouts.tiff_pages(tmp_path)
    (tmp_path / "few.csv").write_text(text(UM[:7], "y_um,x_um"))
    with pytest.raises(InputError, match="found 7 positions for 12 frames"):
        read_scan(path, mapping={"positions_file": str(tmp_path / "few.csv")})


@pytest.mark.parametrize("kind", ["TIFF pages", "TIFF folder", "Dectris 1"])
def test_a_file_without_positions_asks_for_them(kind, tmp_path):
    path, _ = layouts.LAYOUTS[kind][0](tmp_path)
    with pytest.raises(InputError, match=r"holds no positions\. Name the file that holds them: --positions FILE"):
        read_scan(path)


def test_they_replace_the_positions_of_any_file_which_become_nominal(tmp_path):
    write_scan(tmp_path / "a.cxi", Scan(layouts.FRAMES, POSITIONS + 1e-7, "m", raster=(3, 4)))
    said = layouts.positions_csv(tmp_path)
    scan = read_scan(tmp_path / "a.cxi", mapping=said)
    np.testing.assert_allclose(scan.positions, POSITIONS)
    assert np.array_equal(scan.nominal_positions, POSITIONS + 1e-7)
    assert scan.metadata["positions"] == "from positions.csv"
    write_scan(tmp_path / "b.cxi", Scan(layouts.FRAMES, UM, "px"))
    assert read_scan(tmp_path / "b.cxi", mapping=said).nominal_positions is None
    mapping = {"frames": "/entry_1/data_1/data", **said}
    np.testing.assert_allclose(read_scan(tmp_path / "b.cxi", mapping=mapping).positions, POSITIONS)


def without(file, names):
    for name in names:
        del file[name]


def too_few(file, names):
    for name in names:
        values = file[name][()]
        attributes = dict(file[name].attrs)
        del file[name]
        axis = int(np.argmax(values.shape))
        file[name] = np.delete(values, -1, axis)
        file[name].attrs.update(attributes)


def without_a_value(file, names):
    for name in names:
        values = file[name][()]
        values.flat[0] = np.nan
        file[name][...] = values


OWN = ("translation", "points", "positions")


def own_positions(folder, kind):
    """A file of the kind with its own positions, 0.1 um off the table's, and where in it they are."""
    if kind == "NSLS-II":
        path, _ = layouts.nsls2(folder, points=(UM[:, ::-1] + 0.1).T)
    elif kind == "ptyd":
        path, _ = layouts.ptyd(folder)
        with h5py.File(path, "r+") as file:
            for chunk in file["chunks"].values():
                chunk["positions"][...] += 1e-7
    else:
        path = folder / ("own" + FORMATS[kind].suffix)
        write_scan(path, Scan(layouts.FRAMES, POSITIONS + 1e-7, "m", raster=(3, 4)))
    names = []
    with h5py.File(path) as file:
        file.visit(lambda name: names.append(name) if name.split("/")[-1] in OWN else None)
    assert names
    return path, names


@pytest.mark.parametrize("kind", ["cxi", "nxcxi", "NSLS-II", "ptyd"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (None, None),
        (without, "none that can be read"),
        (too_few, "do not pair up with its frames"),
        (without_a_value, "do not pair up with its frames"),
    ],
)
def test_they_help_a_file_whose_own_are_of_no_use(kind, damage, said, tmp_path):
    path, names = own_positions(tmp_path, kind)
    mapping = layouts.positions_csv(tmp_path)
    if damage:
        with h5py.File(path, "r+") as file:
            damage(file, names)
        with pytest.raises(InputError, match="--positions FILE" if damage is without else None):
            read_scan(path)
    scan = read_scan(path, mapping=mapping)
    np.testing.assert_allclose(scan.positions, POSITIONS)
    assert scan.metadata["positions"] == "from positions.csv"
    assert scan.metadata.get("positions in the file") == said
    assert scan.raster is None
    if damage:
        assert scan.nominal_positions is None
    else:
        np.testing.assert_allclose(scan.nominal_positions, POSITIONS + 1e-7)
    kept = np.delete(np.arange(len(layouts.FRAMES)), 3)
    fewer = read_scan(path, mapping=mapping | {"drop": "3"})
    np.testing.assert_allclose(fewer.positions, POSITIONS[kept])
    np.testing.assert_array_equal(fewer.frames[:], scan.frames[:][kept])
