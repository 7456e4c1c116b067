"""Fetching: the same arrays from either source, nothing unpickled but arrays, nothing used unchecked."""

import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ptychow import datasets as module
from ptychow.datasets import DATASETS, fetch, load_arrays, locate
from ptychow.errors import InputError, PtychoWError
from ptychow.formats import read_scan


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PTYCHOW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def nowhere(cache, monkeypatch):
    """No data folder, an empty cache, no network."""
    monkeypatch.delenv("PTYCHOW_DATA", raising=False)

    def refuse(command, **_keywords):
        return subprocess.CompletedProcess(command, 1, "", "looking\nERROR: no network here\n")

    monkeypatch.setattr(subprocess, "run", refuse)


@pytest.mark.real_data
@pytest.mark.parametrize("name", DATASETS)
def test_fetch_converts_without_loss(name, cache):
    source = locate(name)
    if source is None or source.suffix != ".npz":
        pytest.skip("PTYCHOW_DATA does not name a folder with the measured scans")
    path = fetch(name)
    assert path == cache / f"{name}.cxi"
    scan, original = read_scan(path), np.load(source)
    assert np.array_equal(scan.frames[:], original["diffraction"])
    assert np.array_equal(scan.positions, original["positions_px"].astype(float) + 64)
    if "positions_px_nominal" in original:
        assert np.array_equal(scan.nominal_positions, original["positions_px_nominal"].astype(float) + 64)
    scale = np.sqrt(scan.frames[:].sum(dtype=float) / len(scan) / np.sum(np.abs(original["probe"]) ** 2, dtype=float))
    assert np.allclose(scan.probe, original["probe"] * scale, rtol=1e-5)
    assert DATASETS[name].title == scan.metadata["sample"]
    written = path.stat().st_mtime_ns
    assert fetch(name) == path and path.stat().st_mtime_ns == written  # the second time nothing is done


@pytest.mark.real_data
def test_output(tmp_path, cache):
    source = locate("siemens-star")
    if source is None or source.suffix != ".npz":
        pytest.skip("PTYCHOW_DATA does not name a folder with the measured scans")
    (tmp_path / "mine.cxi").write_text("anything but the scan")
    assert fetch("siemens-star", tmp_path / "mine.cxi") == tmp_path / "mine.cxi"
    assert len(read_scan(tmp_path / "mine.cxi")) == 516
    (tmp_path / "folder").mkdir()
    assert fetch("siemens-star", tmp_path / "folder") == tmp_path / "folder" / "siemens-star.cxi"
    assert not cache.exists()


def test_unknown_name(nowhere):
    for function in (fetch, locate):
        with pytest.raises(InputError, match="moon: no such scan to fetch; expected siemens-star or tungsten-26id"):
            function("moon")


def test_no_network_is_one_clear_line(nowhere, cache):
    assert locate("siemens-star") is None
    with pytest.raises(PtychoWError) as caught:
        fetch("siemens-star")
    assert "ERROR: no network here" in str(caught.value) and "PTYCHOW_DATA" in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 1
    assert not cache.exists()


def test_a_changed_local_file_is_refused(nowhere, tmp_path, monkeypatch):
    monkeypatch.setenv("PTYCHOW_DATA", str(tmp_path))
    np.savez(tmp_path / DATASETS["siemens-star"].file, diffraction=np.ones((2, 4, 4)), positions_px=np.ones((2, 2)))
    with pytest.raises(PtychoWError, match=r"SHA-256 is .* changed or damaged, not used"):
        fetch("siemens-star")


def test_a_changed_archive_is_refused(nowhere, monkeypatch):
    def tampered(command, **_keywords):
        Path(command[command.index("--dest") + 1], module.SDIST).write_bytes(b"something else")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", tampered)
    with pytest.raises(PtychoWError, match=r"tike-0\.26\.0\.tar\.gz: SHA-256 is"):
        fetch("tungsten-26id")


@pytest.mark.parametrize("protocol", (3, 4))
def test_arrays_are_unpickled(protocol):
    arrays = [np.arange(6, dtype=np.uint16).reshape(2, 3), np.ones((2, 2), np.complex128)]
    for found, expected in zip(load_arrays(pickle.dumps(arrays, protocol)), arrays, strict=True):
        assert np.array_equal(found, expected) and found.dtype == expected.dtype


class Evil:
    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "call",
    [
        (print, ("run",)),
        (eval, ("1+1",)),
        (getattr, ("text", "upper")),
        (np.load, ("x",)),
        (np.lib.format.open_memmap, ("x",)),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_nothing_else_is_unpickled(call, protocol):
    with pytest.raises(PtychoWError, match=r"pickle asks for .* not opened"):
        load_arrays(pickle.dumps([np.ones(3), Evil(call)], protocol))
