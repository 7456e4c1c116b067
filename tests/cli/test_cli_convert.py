"""`ptychow convert`: from any format to any that is written, and what is said of what is left out."""

import json

import numpy as np
import pytest

from ptychow.formats import read_scan, recognise, write_scan


def converted(ptychow, *arguments):
    code, shown, complaint = ptychow("convert", *arguments, "--json")
    assert code == 0, complaint
    return json.loads(shown), complaint


def same(one, other):
    assert np.array_equal(one.frames[:], other.frames[:])
    np.testing.assert_allclose(one.positions_px, other.positions_px, atol=1e-9)
    assert np.array_equal(one.probe, other.probe)
    assert np.array_equal(one.object.image, other.object.image)
    np.testing.assert_allclose(one.object.origin, other.object.origin, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("b.cxi", "cxi"), ("b.nxs", "nxcxi"), ("b.h5", "ptychodus"), ("b.hdf5", "ptychodus"), ("b.npz", "ptychodus")],
)
def test_the_ending_says_which_format(ptychow, scan_file, scan, tmp_path, name, kind):
    summary, complaint = converted(ptychow, scan_file, tmp_path / "out" / name)
    assert summary["format"] == kind and summary["frames"] == len(scan)
    assert summary["wrote"] == {"scan": str(tmp_path / "out" / name)}
    assert recognise(tmp_path / "out" / name).name == kind
    same(read_scan(tmp_path / "out" / name), scan)
    assert ("warning: left out" in complaint) == bool(summary["left_out"]) == (kind == "ptychodus")


def test_there_and_back_is_the_same_file(ptychow, scan_file, tmp_path):
    converted(ptychow, scan_file, tmp_path / "b.nxs")
    converted(ptychow, tmp_path / "b.nxs", tmp_path / "c.cxi")
    assert read_scan(tmp_path / "c.cxi").fingerprint() == read_scan(scan_file).fingerprint()
    assert read_scan(tmp_path / "c.cxi").metadata == read_scan(scan_file).metadata


def test_without_a_name_it_is_cxi_beside_the_input(ptychow, scan_file, tmp_path):
    converted(ptychow, scan_file, "--to", "nxcxi")
    assert recognise(tmp_path / "scan.nxs").name == "nxcxi"
    (tmp_path / "sub").mkdir()
    converted(ptychow, tmp_path / "scan.nxs", "--output", tmp_path / "sub")
    assert recognise(tmp_path / "sub" / "scan.cxi").name == "cxi"


def test_positions_of_a_file(ptychow, scan, tmp_path, unlabelled):
    write_scan(tmp_path / "a.cxi", unlabelled)
    np.savez(tmp_path / "xy.npz", y_m=scan.positions[:, 0] + 1e-8, x_m=scan.positions[:, 1])
    converted(ptychow, tmp_path / "a.cxi", tmp_path / "b.nxs", "--positions", tmp_path / "xy.npz")
    found = read_scan(tmp_path / "b.nxs")
    np.testing.assert_allclose(found.positions - scan.positions, np.tile((1e-8, 0), (len(scan), 1)), atol=1e-15)
    np.testing.assert_allclose(found.nominal_positions, scan.positions)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["SCAN"], "would overwrite the input"),
        (["b.cxi", "--to", "tiff"], "--to: unknown; found tiff, expected nxcxi or cxi or ptychodus"),
        (["b.tiff"], "b.tiff: unknown ending; found .tiff, expected .cxi, .nxs"),
        (["b"], "b: unknown ending; found none"),
        (["b.cxi", "--output", "c.cxi"], "OUT and --output: the output is named twice"),
        (["b.nxs", "--positions", "gone.csv"], "gone.csv: positions_file: no such file"),
    ],
)
def test_faults(ptychow, scan_file, monkeypatch, tmp_path, more, words):
    monkeypatch.chdir(tmp_path)
    code, _, complaint = ptychow("convert", scan_file, *(scan_file if part == "SCAN" else part for part in more))
    assert code == 2 and words in complaint and complaint.count("\n") == 1
    assert {item.name for item in tmp_path.iterdir()} == {"scan.cxi"}


def test_a_scan_that_does_not_fit_a_product(ptychow, tmp_path, unlabelled):
    write_scan(tmp_path / "a.cxi", unlabelled)
    code, _, complaint = ptychow("convert", tmp_path / "a.cxi", tmp_path / "b.h5")
    assert code == 2 and "probe, object: a Ptychodus product cannot be without" in complaint
    assert not (tmp_path / "b.h5").exists()


@pytest.mark.parametrize("name", ["again.cxi", "again.nxs", "again.h5"])
def test_an_older_result_is_replaced(scan_file, tmp_path, ptychow, name):
    """What PtychoW wrote may be written again, in every format."""
    for _ in range(2):
        code, _, complaint = ptychow("convert", scan_file, tmp_path / name, "--pixel-size-nm", 10)
        assert code == 0, complaint
