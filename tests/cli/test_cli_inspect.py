"""`ptychow inspect` and `ptychow fetch`, called as from the shell."""

import json

import h5py
import numpy as np
import pytest

from ptychow.cli import main
from ptychow.formats import write_scan
from ptychow.scan import Scan

FRAMES = np.random.default_rng(0).poisson(50.0, (6, 20, 20)).astype(np.uint16)


@pytest.fixture
def scan_file(tmp_path):
    path = tmp_path / "scan.cxi"
    write_scan(path, Scan(frames=FRAMES, positions=np.mgrid[:2, :3].reshape(2, -1).T * 2.0))
    return path


def run(*arguments: object) -> int:
    """The exit code."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def test_inspect_for_people(scan_file, capsys):
    assert run("inspect", scan_file) == 0
    printed = capsys.readouterr().out
    for words in (
        "6 of 20 x 20, uint16",
        "raster, 2 lines x 3 points",
        "no network takes frames of 20 x 20",
        "wrote picture",
    ):
        assert words in printed
    assert scan_file.with_name("scan_inspection.png").stat().st_size > 10_000


def test_inspect_for_machines(scan_file, tmp_path, capsys):
    assert run("inspect", scan_file, "--json", "--output", tmp_path / "picture.png", "--pixel-size-nm", 10) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["shape"] == [6, 20, 20] and summary["pixel_size_m"] == pytest.approx(1e-8)
    assert summary["counts_per_frame"]["max"] == FRAMES.sum(axis=(1, 2)).max()
    assert summary["wrote"] == {"picture": str(tmp_path / "picture.png")}


def test_inspect_in_silence(scan_file, capsys):
    assert run("inspect", scan_file, "--quiet") == 0
    assert capsys.readouterr().out == ""


def test_inspect_with_a_mapping(tmp_path, capsys):
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["frames"], file["xy"] = FRAMES, np.arange(12.0).reshape(6, 2)
    (tmp_path / "layout.toml").write_text('frames = "/frames"\npositions = "/xy"\n')
    said = ("--map", tmp_path / "layout.toml", "--map", "position_unit=um")
    assert run("inspect", tmp_path / "raw.h5", *said, "--json") == 0
    assert json.loads(capsys.readouterr().out)["format"] == "any HDF5 with a mapping"


@pytest.mark.parametrize("damage", ["truncated", "missing", "folder", "text"])
def test_bad_input_is_one_line_and_code_2(damage, scan_file, tmp_path, capsys):
    if damage == "truncated":
        scan_file.write_bytes(scan_file.read_bytes()[:3000])
    elif damage == "missing":
        scan_file.unlink()
    elif damage == "text":
        scan_file.write_text("no scan")
    assert run("inspect", tmp_path if damage == "folder" else scan_file) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("error: ") and shown.err.count("\n") == 1
    assert not list(tmp_path.glob("*.png"))


def test_fetch_list(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("PTYCHOW_DATA", raising=False)
    monkeypatch.setenv("PTYCHOW_CACHE", str(tmp_path))
    assert run("fetch", "--list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["datasets"]
    assert set(listed) == {"siemens-star", "tungsten-26id"}
    assert all(entry["path"] is None for entry in listed.values())
    assert run("fetch", "--list") == 0
    assert "not fetched" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["moon"]])
def test_fetch_needs_a_known_name(arguments, capsys):
    assert run("fetch", *arguments) == 2
    assert "siemens-star or tungsten-26id" in capsys.readouterr().err
