"""`ptychow label` from file to files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from ptychow.cli import main
from ptychow.formats import read_scan, write_scan
from ptychow.scan import Scan

pytest.importorskip("ptychi")

SIZE = 32


@pytest.fixture
def file(tmp_path):
    """A CXI file of a small scan of a phase step through a Gaussian beam."""
    grid = np.stack(np.meshgrid(np.arange(5), np.arange(5), indexing="ij"), -1).reshape(-1, 2)
    positions = 4.0 * grid + np.random.default_rng(0).integers(-1, 2, grid.shape) + 50
    y, x = np.indices((SIZE, SIZE)) - SIZE // 2
    probe = 100 * np.exp(-(y**2 + x**2) / 30 + 0.03j * (y**2 + x**2))
    rows, columns = np.indices((100, 100))
    truth = np.exp(0.8j * ((rows + 2 * columns) % 40 < 20))
    corners = (positions - SIZE // 2).astype(int)
    patches = np.stack([truth[r : r + SIZE, c : c + SIZE] for r, c in corners])
    far = np.fft.fftshift(np.fft.fft2(probe * patches, norm="ortho"), axes=(1, 2))
    frames = np.random.default_rng(1).poisson(np.abs(far) ** 2).astype(np.uint16)
    path = tmp_path / "step.cxi"
    write_scan(path, Scan(frames, positions, probe=probe[None].astype(np.complex64), name="step.cxi"))
    return path


def run(*arguments):
    """Exit code of the command."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def test_writes_scan_and_picture_beside_the_input(file, capsys):
    assert run("label", file, "--epochs", 3, "--device", "cpu") == 0
    said = capsys.readouterr().out
    assert "3 epochs" in said
    assert "step_labelled.cxi" in said
    labelled, scan = read_scan(file.with_name("step_labelled.cxi")), read_scan(file)
    assert labelled.object.source.startswith("LSQML")
    assert np.array_equal(labelled.frames[:], scan.frames[:])
    assert np.array_equal(labelled.positions, scan.positions)
    assert imread(file.with_name("step_labelled.png")).std() > 0.1


def test_what_inspect_calls_wrong_is_said_first_and_one_epoch_has_one_error(file, tmp_path, capsys):
    scan = read_scan(file)
    write_scan(tmp_path / "corner.cxi", replace(scan, frames=np.fft.fftshift(scan.frames[:], axes=(1, 2))))
    assert run("label", tmp_path / "corner.cxi", "--epochs", 1, "--device", "cpu") == 1  # it diverges
    words = "warning: zero frequency looks to be in the corners (fft-shifted): ptychow prepare --fftshift"
    assert words in capsys.readouterr().err
    assert run("label", file, "--epochs", 1, "--device", "cpu") == 0
    said = capsys.readouterr()
    assert "1 epoch," in said.out and "error 0." in said.out and "->" not in said.out and "corners" not in said.err


def test_json_is_one_object(file, tmp_path, capsys):
    target = tmp_path / "out.cxi"
    assert run("label", file, "--epochs", 2, "--modes", 2, "--device", "cpu", "--output", target, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert len(summary["errors"]) == 2
    assert summary["probe_modes"] == 2
    assert summary["wrote"] == {"labelled scan": str(target), "picture": str(tmp_path / "out.png")}


def test_quiet_says_nothing(file, tmp_path, capsys):
    assert run("label", file, "--epochs", 1, "--device", "cpu", "--output", tmp_path, "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "step_labelled.cxi").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "step.cxi"], "would overwrite the input"),
        (["--epochs", "0"], "epochs"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(file, options, message, capsys, monkeypatch):
    monkeypatch.chdir(file.parent)
    before = sorted(item.name for item in file.parent.iterdir())
    assert run("label", file.name, *options) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert sorted(item.name for item in file.parent.iterdir()) == before
