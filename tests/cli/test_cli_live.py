"""`ptychow live`: one command from a source to a file."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ptychow.cli.common import Report
from ptychow.cli.live_results import Results
from ptychow.errors import InputError
from ptychow.formats import read_scan, write_scan
from ptychow.formats.cxi import read_object
from ptychow.reconstruction import reconstruct

pytest.importorskip("starlette")


@pytest.fixture
def apart():
    """`ptychow ARGUMENTS` in a process of its own, as a server deserves: (exit code, output, complaints)."""

    def call(*arguments):
        command = [sys.executable, "-m", "ptychow", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        return done.returncode, done.stdout, done.stderr

    return call


def test_a_replayed_scan_is_written_as_reconstruct_would(apart, scan, scan_file, trained, model_file, tmp_path):
    target = tmp_path / "live.cxi"
    code, out, err = apart(
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


def test_it_says_where_the_page_is_and_what_became_of_the_frames(apart, scan_file, model_file, tmp_path):
    code, out, err = apart(
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
        (("--source", "SCAN", "--precision", "int3"), 2, "--precision"),
        (("--source", "SCAN?rate=-5"), 2, "rate=-5"),
        (("--source", "SCAN", "--idle", "0"), 2, "--idle"),
        (("--source", "SCAN", "--idle", "nan"), 2, "--idle"),
        (("--source", "pva://IMAGE", "--positions", "pva://Y,X?unit=um"), 2, "--pixel-size-nm"),
        (("--source", "pva://IMAGE", "--positions", "attributes:Y,X?unit=um"), 2, "--pixel-size-nm"),
        (("--source", "SCAN", "-o", "SCAN"), 2, "would overwrite the input"),
        (("--source", "watch:SCAN", "--positions", "SCAN", "-o", "SCAN"), 2, "would overwrite the input"),
        (("--source", "SCAN", "--refine-from", "nowhere/scan.cxi"), 2, "no such folder"),
        (("--source", "SCAN", "--refine-from", "MODEL"), 2, "model.safetensors"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(ptychow, scan_file, model_file, tmp_path, options, code, complaint):
    given = [option.replace("SCAN", str(scan_file)).replace("MODEL", str(model_file)) for option in options]
    before = scan_file.read_bytes()
    target = () if "-o" in given else ("-o", tmp_path / "a.cxi")
    found, _, err = ptychow("live", *given, "--model", model_file, *target, "--port", 0)
    assert found == code and complaint in err and "Traceback" not in err
    assert not list(tmp_path.glob("a*")) and scan_file.read_bytes() == before


def test_a_process_that_is_told_to_end_writes_what_it_has(scan_file, model_file, tmp_path):
    target = tmp_path / "live.cxi"
    command = [sys.executable, "-m", "ptychow", "live", "--source", f"replay:{scan_file}?rate=4", "--model"]
    running = subprocess.Popen(
        [*command, model_file, "-o", target, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert any("page:" in line for line in running.stdout)
    time.sleep(2)
    running.send_signal(signal.SIGTERM)
    _, complaints = running.communicate(timeout=100)
    assert running.returncode == 0, complaints
    assert np.count_nonzero(read_object(target).image) > 0


@pytest.mark.parametrize("how", [(), ("--quiet",)])
def test_a_detector_that_is_not_there_is_told_in_the_terminal(scan_file, model_file, tmp_path, how):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        source = f"stream2://127.0.0.1:{taken.getsockname()[1]}"
    command = [sys.executable, "-m", "ptychow", "live", "--source", source, "--positions", scan_file, "--model"]
    running = subprocess.Popen(
        [*command, model_file, "-o", tmp_path / "a.cxi", "--port", "0", *how], stderr=subprocess.PIPE, text=True
    )
    try:
        told = next(line for line in running.stderr if "no frames" in line)
        running.send_signal(signal.SIGINT)
        _, complaints = running.communicate(timeout=100)
    finally:
        running.kill()
    assert told.startswith(f"warning: no frames from {source} for ") and "(Connection refused)" in told
    assert running.returncode == 1
    last = complaints.splitlines()[-1]
    assert last.startswith(f"error: no scan was received: no frames from {source}") and "refused" in last


ENDLESS = """
import sys, torch
from ptychow.cli import main
from ptychow.cli.live_results import Results

def refine(self, scan, result, given_up):
    print("refining", flush=True)
    values = torch.ones(1000, 1000)
    while True:
        values = (values @ values).clamp(-1, 1)

Results.refine = refine
main(sys.argv[1:])
"""


def test_a_third_interruption_ends_what_does_not_listen(scan_file, model_file, tmp_path, monkeypatch):
    spools = tmp_path / "spools"
    spools.mkdir()
    monkeypatch.setenv("TMPDIR", str(spools))
    target = tmp_path / "live.cxi"
    command = [sys.executable, "-c", ENDLESS, "live", "--source", scan_file, "--model", model_file, "-o", target]
    running = subprocess.Popen(
        [*command, "--port", "0", "--keep-frames"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert any("refining" in line for line in running.stdout)
        assert list(spools.iterdir())
        for _ in range(3):
            time.sleep(0.5)
            assert running.poll() is None
            running.send_signal(signal.SIGINT)
        _, complaints = running.communicate(timeout=30)
    finally:
        running.kill()
    assert running.returncode == 1 and complaints.splitlines()[-1] == "error: interrupted"
    assert target.exists() and not list(spools.iterdir())


def test_a_closed_terminal_does_not_lose_the_scan(scan_file, model_file, tmp_path):
    """Whatever is written to it fails from then on."""
    pty = pytest.importorskip("pty")
    ours, its = pty.openpty()
    take_it = (
        "import fcntl, signal, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "signal.signal(signal.SIGHUP, signal.SIG_DFL); "  # under nohup it would be ignored
        "from ptychow.cli import main; main()"
    )
    command = [sys.executable, "-c", take_it, "live", "--source", f"replay:{scan_file}?rate=4", "--model", model_file]
    target = tmp_path / "live.cxi"
    running = subprocess.Popen(
        [*command, "-o", target, "--port", "0"], stdin=its, stdout=its, stderr=its, start_new_session=True
    )
    os.close(its)
    said = b""
    while b"page:" not in said:
        said += os.read(ours, 1000)
    time.sleep(2)
    os.close(ours)
    assert running.wait(100) == 0
    assert np.count_nonzero(read_object(target).image) > 0 and target.with_suffix(".png").exists()


@pytest.mark.parametrize("name", ["result_2.cxi", "result_frames.cxi", "result_3_frames.cxi", "result.cxi"])
def test_no_input_is_overwritten_by_a_later_scan_or_its_frames(tmp_path, name):
    results = Results(Report(), tmp_path / "result.cxi", keep_frames=True, refining=None)
    with pytest.raises(InputError, match="would overwrite the input"):
        results.require_room([tmp_path / "other.cxi", tmp_path / name])
    others = [tmp_path / "result_old.cxi", tmp_path / "result_2.h5", tmp_path / "below" / name]
    results.require_room(others)
    others[0].touch()
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"{name}: --output: an earlier scan would be overwritten"):
        results.require_room(others)


def test_refining_finishes_the_picture(ptychow, unlabelled, model_file, tmp_path):
    """With the frames that were kept, into an existing folder; and with those of the detector's file."""
    folder, scan_file = tmp_path / "results", tmp_path / "unlabelled.cxi"
    folder.mkdir()
    write_scan(scan_file, unlabelled)
    source = ("live", "--source", scan_file, "--model", model_file, "--port", 0, "--refine-epochs", 2, "--json")
    code, out, err = ptychow(*source, "-o", folder)
    assert code == 0, err
    summary = json.loads(out)
    target = Path(summary["wrote"]["refined object"])
    assert target.parent == folder and target.name.startswith("live_") and target.with_suffix(".png").exists()
    assert summary["refinement"]["epochs"] == 2 and "frames" not in summary["wrote"]
    kept = read_object(target)
    code, _, err = ptychow(*source, "-o", tmp_path / "from_file.cxi", "--refine-from", scan_file)
    assert code == 0, err
    found = read_object(tmp_path / "from_file.cxi")
    assert "Pty-Chi" in found.source and found.origin == kept.origin
    np.testing.assert_allclose(found.image, kept.image, atol=1e-3 * np.abs(kept.image).max())


def test_an_empty_scan_is_an_error_and_writes_nothing(ptychow, scan, model_file, tmp_path):
    from dataclasses import replace

    dark = tmp_path / "dark.cxi"
    write_scan(dark, replace(scan, frames=0 * scan.frames))
    code, _, err = ptychow("live", "--source", dark, "--model", model_file, "-o", tmp_path / "a.cxi", "--port", 0)
    assert code == 2 and "no counts" in err and not (tmp_path / "a.cxi").exists()
