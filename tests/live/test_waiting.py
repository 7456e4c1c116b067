"""What is waited for: said with its place, its time and, where a source can tell, its cause."""

import json
import socket
import time
from dataclasses import replace
from threading import Thread

import pytest
from p4p.nt import NTScalar
from p4p.server.thread import SharedPV
from scripted import QUICK, frames_of, positions_of, run, start_of, whole

from ptychow.cli import live_waiting
from ptychow.cli.common import Report
from ptychow.cli.live_waiting import Waiting
from ptychow.engines import open_engine
from ptychow.errors import PtychoWError
from ptychow.live import session as session_module
from ptychow.live.records import End, SourceBack, SourceLost, now
from ptychow.live.session import Session
from ptychow.live.simulated.pva import port_of, serve
from ptychow.live.sources import growing, open_sources, pva, stream2
from ptychow.live.waiting import Wait

TABLE = "y,x\n0,0\n1,1\n"


@pytest.fixture
def port():
    """One at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture
def hasty(monkeypatch):
    for module in (growing, pva, stream2):
        monkeypatch.setattr(module, "LOOK_AFTER", 0.2)
        monkeypatch.setattr(module, "LOOK_AGAIN", 0.2)


def told(model, source, positions, words):
    """What a session says that waits for these sources, once it says `words`; it ends with an error that names them."""
    engine = open_engine(model, device="cpu")
    session = Session(*open_sources(source, positions), model, engine, QUICK, lambda *_: None)
    ended = []

    def wait():
        until = time.monotonic() + 20
        while words not in session.snapshot()["message"] and time.monotonic() < until:
            time.sleep(0.02)
        ended.append((session.snapshot(), session.waits()))
        session.stop()

    watching = Thread(target=wait)
    watching.start()
    with pytest.raises(PtychoWError, match="no scan was received") as raised:
        session.run()
    watching.join()
    [(said, waits)] = ended
    assert words in said["message"] and said["state"] == "waiting" and "received: no frames from" in str(raised.value)
    assert json.dumps(said) and any(wait.is_lost for wait in waits) and session.waits() == []
    return said["message"]


def test_a_detector_that_does_not_answer_is_named_with_the_cause(trained, tmp_path, port, hasty):
    table = tmp_path / "positions.csv"
    table.write_text(TABLE)
    source, place = f"stream2://127.0.0.1:{port}", f"{table}?columns=1,2&unit=um"
    message = told(trained.model, source, place, "cannot be reached (Connection refused)")
    assert f"no frames from {source} for " in message
    told(trained.model, f"stream2://nowhere.invalid:{port}", place, "cannot be reached (")
    with socket.create_server(("127.0.0.1", 0)) as other:
        told(trained.model, f"stream2://127.0.0.1:{other.getsockname()[1]}", place, "no stream2")


def test_channels_that_are_not_found_are_named(trained, port, hasty):
    there = serve({"Y": SharedPV(nt=NTScalar("ad"), initial=[0.0])}, 0)
    try:
        server, source = f"127.0.0.1:{port_of(there)}", f"pva://IMAGE?server=127.0.0.1:{port}"
        message = told(trained.model, source, f"pva://Y,X?unit=px&server={server}", "X: ")
        assert f"X: {server} knows no such channel" in message and "Y: " not in message
        assert "no positions from pva://Y,X for " in message
        assert f"IMAGE: 127.0.0.1:{port} cannot be reached (Connection refused)" in message
    finally:
        there.stop()


def test_a_file_that_is_not_there_is_named(trained, tmp_path, hasty):
    missing = tmp_path / "no.h5"
    positions = f"watch:{missing}?datasets=p&unit=px"
    message = told(trained.model, f"watch:{missing}", positions, "nothing is there yet")
    assert f"no frames from {missing} for " in message
    missing.write_bytes(b"not HDF5")
    assert "no.h5" in told(trained.model, f"watch:{missing}", positions, "complete HDF5 file")


def test_what_a_scan_lacks_is_said_and_what_it_has_is_not(trained, scan, monkeypatch):
    """Frames that stall; positions; the detector's own description; and whichever source is lost, that one."""
    monkeypatch.setattr(session_module, "SILENT_AFTER", 0.2)
    sessions, said = [], []

    def look():
        said.append((sessions[0].state, [(wait.part, wait.why) for wait in sessions[0].waits()]))

    lost, back = [SourceLost("gone", now())], [SourceBack(now())]
    frames = [[start_of(scan)], frames_of(scan, range(70)), 0.6, look]
    frames += [lost, 0.2, look, back, 0.5, look, frames_of(scan, range(70, 80)), 0.5, look, 3.0]
    positions = [0.9, lost, 0.1, back, 2.0, positions_of(scan)]
    run(trained.model, frames, positions=positions, started=sessions.append, finishes=False, settle_seconds=0.1)
    both = [("frames", None), ("positions", None)]
    assert said[0] == ("silent", both)
    assert said[1][0] == "silent" and ("frames", "gone") in said[1][1]  # whatever the other source has said
    there = "it is there, but nothing comes"
    assert said[2] == ("silent", [("frames", there), ("positions", there)])
    assert said[3][1] == [("positions", there)]


def test_a_description_that_frames_wait_for_is_said(trained, scan, monkeypatch):
    monkeypatch.setattr(session_module, "SILENT_AFTER", 0.2)
    sessions, said = [], []
    steps = [frames_of(scan) + positions_of(scan), 0.4, lambda: said.extend(sessions[0].waits())]
    run(trained.model, [*steps, [start_of(scan), End(80, "end")]], started=sessions.append, wait_for_start=True)
    assert "description of the frames" in [wait.part for wait in said]


def test_a_scan_that_comes_is_not_waited_for(trained, scan):
    sessions, said = [], []
    steps = [step for records in whole(scan) for step in (records, lambda: said.extend(sessions[0].waits()))]
    run(trained.model, steps, started=sessions.append)
    assert said == [] and sessions[0].snapshot()["message"] == "over: end of the scan"


@pytest.mark.parametrize(("scans", "parts"), [(1, []), (2, ["frames"]), (0, ["frames"])])
def test_a_detector_that_goes_away_after_the_last_scan_is_no_loss(trained, scan, scans, parts):
    sessions, said = [], []
    steps = [*whole(scan), [SourceLost("it closed the connection", now())]]
    steps += [0.1, lambda: said.append([wait.part for wait in sessions[0].waits()])]
    run(trained.model, steps, started=sessions.append, scans=scans)
    assert said == [parts]


def test_a_wait_is_told_once_and_then_rarely(capsys, monkeypatch):
    at = [1000.0]
    monkeypatch.setattr(live_waiting.time, "monotonic", lambda: at[0])
    late, lost = Wait("positions", "pva://Y,X", 12.0), Wait("frames", "stream2://dcu:31001", 3.0, "it is off", True)

    def said(waiting, seconds):
        lines = []
        for _ in range(seconds):
            waiting.tell([replace(late, seconds=2.0), late, lost])
            out, err = capsys.readouterr()
            lines += [*out.splitlines(), *err.splitlines()]
            at[0] += 1.0
        return lines

    waiting = Waiting(Report())
    first = said(waiting, 25)
    assert len(first) == 2 and "no positions from pva://Y,X for 12 s (Ctrl-C" in first[0]
    assert first[1] == "warning: no frames from stream2://dcu:31001 for 3 s: it is off"
    assert 2 <= len(said(waiting, 25)) <= 4 and len(said(waiting, 7200)) < 40
    assert said(Waiting(Report(quiet=True)), 25) == [first[1]]
    assert str(replace(late, seconds=7200.0)) == "no positions from pva://Y,X for 120 min"
