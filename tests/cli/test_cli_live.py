"""`ptychow live`: one command from a source to a file."""

import json
import subprocess
import sys

import numpy as np
import pytest

from ptychow.formats import read_scan, write_scan
from ptychow.formats.cxi import read_object
from ptychow.reconstruction import reconstruct

pytest.importorskip("starlette")


@pytest.fixture
def ptychow():
    """`ptychow ARGUMENTS` in a process of its own, as a server deserves: (exit code, output, complaints)."""

    def call(*arguments):
        command = [sys.executable, "-m", "ptychow", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        return done.returncode, done.stdout, done.stderr

    return call


def test_a_replayed_scan_is_written_as_reconstruct_would(ptychow, scan, scan_file, trained, model_file, tmp_path):
    target = tmp_path / "live.cxi"
    code, out, err = ptychow(
        "live", "--source", scan_file, "--model", model_file, "-o", target, "--port", 0, "--keep-frames", "--json"
    )
    assert code == 0, err
    summary = json.loads(out)
    assert summary["counters"]["stitched"] == 80 and summary["light"] in ("green", "amber", "red")
    expected = reconstruct(scan, trained.model, device="cpu")
    found = read_object(target)
    assert found.origin == expected.image.origin
    scale = np.abs(expected.image.image).max()
    assert np.abs(found.image - expected.image.image).max() < 2**-10 * scale
    assert target.with_suffix(".png").exists()
    kept = read_scan(summary["wrote"]["frames"])
    np.testing.assert_array_equal(kept.frames[:], scan.frames)
    np.testing.assert_allclose(kept.positions_px, scan.positions_px, atol=1e-9)


def test_it_says_where_the_page_is_and_what_became_of_the_frames(ptychow, scan_file, model_file, tmp_path):
    code, out, err = ptychow(
        "live", "--source", f"replay:{scan_file}?rate=400", "--model", model_file, "-o", tmp_path / "a.cxi", "--port", 0
    )
    assert code == 0, err
    assert "page: http://127.0.0.1:" in out and "stitched" in out and "p99" in out and "wrote object" in out


@pytest.mark.parametrize(
    ("options", "code", "complaint"),
    [
        (("--source", "nowhere.cxi"), 2, "no such file"),
        (("--source", "ftp://x"), 2, "unknown kind of source"),
        (("--source", "stream2://127.0.0.1:1"), 2, "--positions"),
        (("--source", "SCAN", "--address", "example.org"), 2, "not an address"),
        (("--source", "SCAN", "--stitching", "nicely"), 2, "--stitching"),
        (("--source", "SCAN", "--engine", "steam"), 2, "engine"),
        (("--source", "SCAN", "-o", "FOLDER"), 1, "it is a folder"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(ptychow, scan_file, model_file, tmp_path, options, code, complaint):
    given = [{"SCAN": scan_file, "FOLDER": tmp_path}.get(option, option) for option in options]
    target = () if "-o" in given else ("-o", tmp_path / "a.cxi")
    found, _, err = ptychow("live", *given, "--model", model_file, *target, "--port", 0)
    assert found == code and complaint in err and "Traceback" not in err
    assert not list(tmp_path.glob("a*"))


def test_an_empty_scan_is_an_error_and_writes_nothing(ptychow, scan, model_file, tmp_path):
    from dataclasses import replace

    dark = tmp_path / "dark.cxi"
    write_scan(dark, replace(scan, frames=0 * scan.frames))
    code, _, err = ptychow("live", "--source", dark, "--model", model_file, "-o", tmp_path / "a.cxi", "--port", 0)
    assert code == 2 and "no counts" in err and not (tmp_path / "a.cxi").exists()
