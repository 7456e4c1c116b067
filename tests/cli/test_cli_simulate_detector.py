"""`ptychow simulate-detector`: what it says it sent is what a client receives."""

import json
import socket
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Thread

import h5py
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "live"))
from receiving import frames_of, gathered, of_kind

from ptychow.cli.simulate_detector import PORTS
from ptychow.live.records import PositionRecord
from ptychow.live.sources import open_sources


@pytest.fixture
def port():
    """One that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def received(ptychow, port, source, positions, *arguments):
    """(the command's summary, records) where a client listens."""
    records: list = []
    done = Event()

    def listen():
        # A client of pvAccess that comes too early tries again ten seconds later.
        while not done.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.02)
        with ExitStack() as stack:
            sources = [stack.enter_context(each) for each in open_sources(source, positions)]
            records.extend(gathered(sources, lambda _: done.is_set()))
            records.extend(gathered(sources, lambda _: False, patience=0.3))

    client = Thread(target=listen)
    client.start()
    try:
        code, out, err = ptychow("simulate-detector", *arguments, "--port", port, "--json")
    finally:
        done.set()
        client.join()
    assert code == 0, err
    return json.loads(out), records


def test_stream2(ptychow, scan, scan_file, port):
    sent, records = received(
        ptychow,
        port,
        f"stream2://127.0.0.1:{port}",
        str(scan_file),
        *(scan_file, "--rate", 2000, "--drop", 0.1, "--garbage", 0.1, "--frames", 100),
    )
    assert sent["source"] == f"stream2://127.0.0.1:{port}" and sent["positions"] == str(scan_file)
    assert sent["frames"] + sent["dropped"] == 100 and sent["dropped"] > 0 and sent["garbage"] > 0
    frames = frames_of(records)
    assert len(frames) == sent["frames"]
    for record in frames:
        np.testing.assert_array_equal(record.frame, scan.frames[record.index % len(scan)])


def test_pva(ptychow, scan, scan_file, port):
    sent, records = received(
        ptychow,
        port,
        f"pva://PTYCHOW:SIM:Pva1:Image?server=127.0.0.1:{port}",
        f"attributes:Y,X?unit={scan.position_unit}",
        *(scan_file, "--protocol", "pva", "--rate", 2000, "--codec", "bslz4"),
    )
    assert len(frames_of(records)) == sent["frames"] == len(scan)
    assert len(of_kind(records, PositionRecord)) == len(scan)
    assert sent["source"].endswith(f"server=127.0.0.1:{port}")


def test_file(ptychow, scan, scan_file, tmp_path, monkeypatch):
    monkeypatch.setattr("ptychow.live.sources.growing.SETTLE_SECONDS", 0.5)
    target = tmp_path / "growing.h5"
    code, out, _ = ptychow("simulate-detector", scan_file, "--protocol", "file", "-o", target, "--rate", 5000, "--json")
    sent = json.loads(out)
    sources = open_sources(sent["source"], sent["positions"] + "&idle=1")
    records = gathered(sources, lambda _: all(source.finished for source in sources))
    assert code == 0 and len(frames_of(records)) == len(of_kind(records, PositionRecord)) == len(scan)
    assert ptychow("simulate-detector", scan_file, "--protocol", "file", "-o", target)[0] == 2


OF_NO_FILE = (["--codec", "lz4"], ["--port", "0"], ["--vanish", "1"], ["--drop", "0.1"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--protocol", "carrier-pigeon"],
        ["--rate", "0"],
        ["--drop", "1.5"],
        ["--codec", "zlib"],
        ["--protocol", "pva", "--codec", "jpeg"],
        ["--protocol", "stream2", "--positions", "attributes"],
        ["--late-positions", "1"],
        ["--protocol", "file"],
        ["--output", "new.h5"],
        *(["--protocol", "file", "--output", "new.h5", *more] for more in OF_NO_FILE),
    ],
)
def test_what_makes_no_sense_is_told(ptychow, scan_file, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = ptychow("simulate-detector", scan_file, "--wait", "0.1", *arguments)
    assert code == 2 and err.count("\n") == 1
    assert not Path("new.h5").exists()


@pytest.mark.parametrize("protocol", ["stream2", "pva"])
def test_nobody_listens(ptychow, scan_file, protocol):
    code, out, err = ptychow("simulate-detector", scan_file, "--wait", "0.1", "--port", 0, "--protocol", protocol)
    assert code == 1 and "nobody" in err
    assert f"ptychow live --source '{protocol}://" in out and "127.0.0.1:" in out and "--model MODEL" in out
    assert "--pixel-size-nm 10\n" in out  # which neither tells without wavelength, distance and detector pixel


@pytest.mark.parametrize(("protocol", "told"), [("stream2", True), ("pva", False)])
def test_what_the_detector_does_not_tell_is_in_the_command(ptychow, scan, tmp_path, protocol, told):
    with h5py.File(tmp_path / "home made.h5", "w") as file:
        file["dp"], file["yx"] = scan.frames[:], scan.positions * 10e-9
    pixel = 1.55 * 1.24e-10 / (scan.frame_shape[0] * 10e-9)
    said = ["frames=/dp", "positions=/yx", "position_unit=m", "distance_m=1.55", "wavelength_m=1.24e-10"]
    entries = [part for entry in [*said, f"detector_pixel_m={pixel}"] for part in ("--map", entry)]
    arguments = ["--wait", "0.1", "--port", 0, "--protocol", protocol, "--positions", "none"]
    code, out, _ = ptychow("simulate-detector", tmp_path / "home made.h5", *entries, *arguments)
    assert code == 1 and f"--positions '{tmp_path}/home made.h5' --model MODEL" in out
    assert ("--pixel-size-nm 10 " in out) != told
    assert "--map frames=/dp --map positions=/yx --map position_unit=m --map distance_m=1.55" in out


def test_a_port_that_is_taken(ptychow, scan_file):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        code, _, err = ptychow("simulate-detector", scan_file, "--wait", "0.1", "--port", taken)
    assert code == 1 and f"cannot listen on port {taken}" in err and "Traceback" not in err


def test_it_listens_where_the_readme_looks_for_it():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"--source stream2://127.0.0.1:{PORTS['stream2']} " in readme
