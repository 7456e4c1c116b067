"""Readings of a monitor: every kind of file says the same, and what is no intensity is refused by name."""

import h5py
import numpy as np
import pytest

from ptychow.errors import InputError
from ptychow.formats.monitors import read_monitor

ALL = np.ones(6, bool)
READINGS = np.array([3.5, 4.0, 2.25, 8.0, 1e-3, 7.0])


def written(kind, folder):
    path = folder / f"i0.{kind}"
    if kind == "npy":
        np.save(path, READINGS)
    elif kind == "npz":
        np.savez(path, i0=READINGS, dark=READINGS * 0)
        return f"{path}:i0"
    elif kind == "txt":
        np.savetxt(path, READINGS)
    elif kind == "csv":
        np.savetxt(path, np.column_stack((range(6), READINGS)), delimiter=",", header="point,I0", comments="")
        return f"{path}:I0"
    else:
        with h5py.File(path, "w") as file:
            file["entry/i0"] = READINGS.reshape(2, 3)
        return f"{path}:/entry/i0"
    return str(path)


@pytest.mark.parametrize("kind", ["npy", "npz", "txt", "csv", "h5"])
def test_every_kind_of_file_says_the_same(kind, tmp_path):
    np.testing.assert_array_equal(read_monitor(written(kind, tmp_path), ALL), READINGS)


def test_columns_have_numbers_too(tmp_path):
    name = written("csv", tmp_path).rpartition(":")[0]
    np.testing.assert_array_equal(read_monitor(f"{name}:2", ALL), READINGS)


@pytest.mark.parametrize(
    ("kind", "part", "words"),
    [
        ("csv", "", "which of these are the readings is not said; found 1, 2, point, I0"),
        ("csv", ":i1", "which of these are the readings is not said; found 1, 2, point, I0"),
        ("npz", "", "found i0, dark, expected FILE:COLUMN or FILE:/DATASET"),
        ("h5", "", r"found /entry/i0 \(2, 3\)"),
        ("h5", ":/entry/i1", "/entry/i1: no such dataset"),
        ("npz", ":dark", "--monitor: no intensity; found 0 of frame 0, and 5 more"),
    ],
)
def test_what_is_not_said_or_no_intensity(kind, part, words, tmp_path):
    written(kind, tmp_path)
    with pytest.raises(InputError, match=words):
        read_monitor(f"{tmp_path / 'i0'}.{kind}{part}", ALL)


def test_another_number_of_readings(tmp_path):
    with pytest.raises(InputError, match="--monitor: not as many readings as frames; found 6, expected 7"):
        read_monitor(written("txt", tmp_path), np.ones(7, bool))


@pytest.mark.parametrize("value", [np.nan, -1.0, np.inf])
def test_a_reading_that_is_none(value, tmp_path):
    readings = READINGS.copy()
    readings[4] = value
    np.save(tmp_path / "i0.npy", readings)
    with pytest.raises(InputError, match=r"of frame 4, and 0 more.*--drop 4$"):
        read_monitor(str(tmp_path / "i0.npy"), ALL)
    kept = np.arange(6) != 4
    np.testing.assert_array_equal(read_monitor(str(tmp_path / "i0.npy"), kept), READINGS[kept])
