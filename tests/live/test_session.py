"""What goes wrong at a beamline: nothing that was received is lost, and the state says what is the matter."""

import time
from dataclasses import replace
from threading import Event, Thread

import h5py
import numpy as np
import pytest
from scripted import Script, difference, frames_of, in_steps, positions_of, run, start_of, whole

from ptychow.cli.common import Report
from ptychow.cli.live_results import Results
from ptychow.engines import open_engine
from ptychow.errors import InputError, PtychoWError
from ptychow.formats import read_scan, write_scan
from ptychow.live import session as session_module
from ptychow.live.pipeline import LiveSettings
from ptychow.live.records import Corrupt, End, FrameRecord, PositionRecord, SourceBack, SourceLost, now
from ptychow.live.result import detectors_scan
from ptychow.live.session import Session
from ptychow.live.spool import SlotFile
from ptychow.reconstruction import reconstruct

FLOAT16 = 2**-10


def counters(result):
    return result.summary["counters"]


def test_an_empty_scan_says_so(trained, scan):
    for steps in ([], [[start_of(scan)], [End(0, "end")]], [[start_of(scan), *positions_of(scan)], [End(80, "abort")]]):
        with pytest.raises(PtychoWError, match=r"no scan was received|no frame"):
            run(trained.model, steps)


def test_one_frame_is_a_scan(trained, scan):
    steps = [[start_of(scan, expected=1)], frames_of(scan, [0]) + positions_of(scan, [0]), [End(1, "end")]]
    _, [(_, found)] = run(trained.model, steps)
    assert found.image.image.shape == (32, 32)
    expected = reconstruct(scan.select(np.array([0])), trained.model, device="cpu")
    assert difference(found, expected) < FLOAT16


def test_an_aborted_scan_is_written_as_far_as_it_came(trained, scan):
    came = np.arange(70)
    steps = [[start_of(scan)], *in_steps(frames_of(scan, came), 10), positions_of(scan), [End(None, "abort")]]
    session, [(_, found)] = run(trained.model, steps)
    assert difference(found, reconstruct(scan.select(came), trained.model, device="cpu")) < FLOAT16
    assert counters(found)["lost"] == 10 and found.summary["ended"] == "abort" and "abort" in session.message
    assert any("10 frames lost" in warning for warning in found.warnings)
    assert found.summary["indices_missing"] == list(range(70, 80))


def test_the_last_partial_batch_is_processed(trained, scan):
    _, [(_, found)] = run(trained.model, whole(scan, size=7), batch_size=64)
    assert counters(found)["stitched"] == 80 and counters(found)["queued"] == 0


@pytest.mark.parametrize("stored", [True, False])
def test_a_restarted_detector_gives_two_scans(trained, scan, stored):
    first = [r for pair in zip(frames_of(scan, range(70)), positions_of(scan, range(70)), strict=True) for r in pair]
    if stored:  # positions from a file hold for both
        first = frames_of(scan, range(70))
        second = [[start_of(scan, 5)], frames_of(scan, series=5), [End(80, "end", 5)]]
        positions = Script([positions_of(scan)])
    else:
        second, positions = whole(scan, series=5), None
    steps = [[start_of(scan)], *in_steps(first, 16), 0.3, *second]
    saved = []
    session = Session(
        Script(steps),
        positions,
        trained.model,
        open_engine(trained.model, device="cpu"),
        LiveSettings(settle_seconds=0.2, batch_seconds=0.01),
        lambda live, result: saved.append(result),
        scans=2,
    )
    session.run()
    begun, complete = saved
    assert counters(begun)["stitched"] == 70 and begun.summary["ended"] == "the detector was started again"
    assert difference(complete, reconstruct(scan, trained.model, device="cpu")) < FLOAT16


def test_a_detector_that_vanishes_comes_back(trained, scan, monkeypatch):
    states = []

    def look():
        states.append((sessions[0].state, sessions[0].snapshot()["message"]))

    steps = whole(scan)
    # As if it were 30 seconds: what counts is that silence is longer than the page's patience.
    monkeypatch.setattr(session_module, "SILENT_AFTER", 0.3)
    steps[3:3] = [[SourceLost("stream2 closed the connection", now())], look, 0.5, look, [SourceBack(now())], look]
    sessions = []
    _, [(_, found)] = run(trained.model, steps, started=sessions.append, waits=False)
    assert [state for state, _ in states[:2]] == ["silent", "silent"]
    assert "closed the connection" in states[0][1] and states[2][1] == ""
    assert counters(found)["stitched"] == 80


def test_silence_is_told_even_where_the_transport_says_nothing(trained, scan, monkeypatch):
    monkeypatch.setattr(session_module, "SILENT_AFTER", 0.2)
    states = []
    steps = whole(scan)
    steps[3:3] = [0.5, lambda: states.append(sessions[0].state)]
    sessions = []
    run(trained.model, steps, started=sessions.append)
    assert states == ["silent"]


def test_a_detector_that_never_says_end_is_over_after_silence(trained, scan):
    records = [[replace(start_of(scan), expected=None)], *whole(scan)[1:-1]]
    _, [(_, found)] = run(trained.model, records, finishes=False, idle_seconds=0.5, settle_seconds=0.1)
    assert counters(found)["expected"] == 80 and "no frame for" in found.summary["ended"]


def test_a_stopped_session_writes_what_it_has(trained, scan):
    steps = whole(scan)[:-2]
    steps.append(lambda: sessions[0].stop())
    sessions = []
    _, [(_, found)] = run(trained.model, steps, finishes=False, started=sessions.append)
    assert found.summary["ended"] == "stopped" and counters(found)["stitched"] == counters(found)["received"] > 0


@pytest.mark.parametrize("stopped", [False, True])
def test_nothing_is_lost_on_a_full_disk(trained, scan, monkeypatch, stopped):
    """Not even after Ctrl-C."""
    monkeypatch.setattr(session_module, "RETRY_SECONDS", 0.05)
    tried, states = [], []

    def save(live, result):
        tried.append(result)
        states.append(sessions[0].state)
        if len(tried) < 3:
            raise PtychoWError("live.cxi: cannot be written (No space left on device)")

    sessions = []
    steps = [*whole(scan), lambda: sessions[0].stop()] if stopped else whole(scan)
    session, _ = run(trained.model, steps, save=save, started=sessions.append, finishes=not stopped)
    assert len(tried) == 3 and all(result is tried[0] for result in tried)
    assert states == ["finishing", "unsaved", "unsaved"] and session.state == "done"


def test_giving_up_on_a_full_disk_is_an_error(trained, scan, monkeypatch):
    monkeypatch.setattr(session_module, "RETRY_SECONDS", 0.05)

    def save(live, result):
        sessions[0].give_up()
        raise PtychoWError("live.cxi: cannot be written (No space left on device)")

    sessions = []
    with pytest.raises(PtychoWError, match="No space left"):
        run(trained.model, whole(scan), save=save, started=sessions.append)


def test_a_disk_that_fills_up_during_the_scan_costs_frames_that_are_counted(trained, scan, monkeypatch):
    real = SlotFile.put
    monkeypatch.setattr(SlotFile, "put", lambda file, array: real(file, array) if len(file) < 70 else None)
    _, [(_, found)] = run(trained.model, whole(scan))
    assert counters(found)["stitched"] == 70 and counters(found)["skipped"] == 10
    assert any("no room on the disk" in warning for warning in found.warnings)


def test_garbage_is_counted_and_a_good_copy_is_welcome(trained, scan):
    wrong = [
        Corrupt(None, "not CBOR", 0),
        Corrupt(3, "damaged", 0),
        FrameRecord(4, np.zeros((7, 7), np.uint16), now(), 0),
        FrameRecord(-1, scan.frames[0], now(), 0),
        FrameRecord(10**12, scan.frames[0], now(), 0),
        PositionRecord(10**12, (0.0, 0.0), "m", now()),
        PositionRecord(2, (float("nan"), 0.0), "m", now()),
        PositionRecord(2, (1.0, 1.0), "px", now()),
    ]
    steps = whole(scan)
    steps.insert(1, positions_of(scan, [0]))
    steps.insert(2, wrong)
    steps.insert(5, frames_of(scan, [4]))
    _, [(_, found)] = run(trained.model, steps)
    counts = counters(found)
    # Frame 4 came damaged, then as it should: it was welcome at its second copy, and the third was a duplicate.
    assert counts["corrupt"] == 5 and counts["stitched"] == 80 and counts["lost"] == 0
    assert counts["received"] == 80 + 5 + 1
    assert difference(found, reconstruct(scan, trained.model, device="cpu")) < FLOAT16


@pytest.mark.parametrize("together", [True, False])
def test_of_two_different_positions_the_first_holds_and_it_is_said(trained, scan, together):
    steps = whole(scan)
    moved = [PositionRecord(3, (1.0, 1.0), "m", now())]
    steps.insert(1, [*positions_of(scan, [3]), *moved] if together else positions_of(scan, [3]))
    if not together:
        steps.append(moved)
    _, [(_, found)] = run(trained.model, steps)
    assert any("different positions came for frame 3" in warning for warning in found.warnings)
    assert difference(found, reconstruct(scan, trained.model, device="cpu")) < FLOAT16


def test_a_damaged_copy_does_not_let_a_whole_frame_in_again(trained, scan):
    steps = whole(scan)
    steps.insert(2, [Corrupt(0, "damaged", 0), *frames_of(scan, [0])])
    _, [(_, found)] = run(trained.model, steps)
    counts = counters(found)
    assert (counts["stitched"], counts["corrupt"], counts["duplicate"]) == (80, 1, 1)
    assert difference(found, reconstruct(scan, trained.model, device="cpu")) < FLOAT16


def test_starts_that_were_broken_off_do_not_take_the_place_of_the_scan(trained, scan):
    """As of an areaDetector, which never says that a scan is over."""
    broken = [
        step
        for series in (0, 1)
        for step in (
            [start_of(scan, series), *frames_of(scan, range(5), series), *positions_of(scan, range(5), series)],
            0.5,
        )
    ]
    session, saved = run(trained.model, [*broken, *whole(scan, series=2)])
    assert counters(saved[-1][1])["stitched"] == 80 and session.astray == 0


def test_a_stage_that_goes_on_talking_holds_no_scan_open(trained, scan):
    talk = [step for number in range(40) for step in (0.1, [PositionRecord(1000 + number, (0.0, 0.0), "m", now())])]
    began = now()
    steps = [[start_of(scan)], frames_of(scan), [End(80, "end", 0)]]
    _, [(_, found)] = run(trained.model, steps, positions=[positions_of(scan, range(79)), *talk])
    assert now() - began < 3.0 and counters(found)["waiting"] == 1


def test_frames_without_any_position_are_kept(trained, scan, tmp_path):
    steps = [[start_of(scan)], frames_of(scan), [End(80, "end", 0)]]
    results = Results(Report(quiet=True), tmp_path / "live scan.cxi", True, None)
    with pytest.raises(PtychoWError, match="no frame with counts and a position"):
        run(trained.model, steps, rescue=results.rescue, keep_frames=True)
    path = tmp_path / "live scan_frames.cxi"
    np.savetxt(tmp_path / "xy.csv", scan.positions, delimiter=",", header="y_m,x_m", comments="")
    found = read_scan(path, mapping={"frames": "/frames", "positions_file": str(tmp_path / "xy.csv")})
    np.testing.assert_array_equal(found.frames[:], scan.frames[:])


def test_a_position_far_away_is_refused_not_drawn(trained, scan):
    steps = whole(scan)
    steps.insert(1, [*positions_of(scan, [0]), PositionRecord(1, (1.0, 1.0), scan.position_unit, now())])
    _, [(_, found)] = run(trained.model, steps)
    assert counters(found)["refused"] == 1 and counters(found)["stitched"] == 79
    assert any("too far" in warning for warning in found.warnings)


def test_a_machine_too_slow_spools_then_skips_by_the_rule(trained, scan):
    """The engine stands still until everything has come: some frames wait in memory, some on disk, some are skipped."""
    arrived = Event()

    class Slow:
        name, precision, device = "torch", "fp32", "cpu"

        def __init__(self):
            self.engine = open_engine(trained.model, device="cpu")

        def predict(self, inputs):
            arrived.wait(10)
            return self.engine.predict(inputs)

    frame_bytes = scan.frames[0].nbytes
    repeated = np.arange(80 * 3)
    many = scan.select(repeated % 80)
    steps = [[start_of(many)], frames_of(many, range(64)), positions_of(many), 0.5]
    steps += [*in_steps(frames_of(many, range(64, 240)), 8), arrived.set, [End(240, "end")]]
    saved = []
    settings = LiveSettings(
        settle_seconds=0.3, batch_seconds=0.01, every=4, memory=10 * frame_bytes, disk=40 * frame_bytes
    )
    session = Session(
        Script(steps, waits=False),
        None,
        trained.model,
        Slow(),
        settings,
        lambda live, result: saved.append((live, result)),
    )
    session.run()
    [(live, found)] = saved
    counts = counters(found)
    assert counts["received"] == 240 and counts["lost"] == 0
    assert counts["skipped"] + counts["stitched"] == 240 and 100 < counts["skipped"] < 170
    assert any("skipped: the machine" in warning for warning in found.warnings)
    kept = live.join.placed()
    spooled = kept[kept >= 64 + 10]
    assert 20 <= len(spooled) <= 40 and (spooled[-10:] % 4 == 0).all()


def test_a_source_that_waits_is_left_alone_while_the_queue_is_full(trained, scan):
    frame_bytes = scan.frames[0].nbytes
    _, [(_, found)] = run(trained.model, whole(scan, size=4), memory=20 * frame_bytes, disk=0, batch_size=8)
    assert counters(found)["skipped"] == 0 or counters(found)["stitched"] == 80


def test_counters_balance_at_any_moment_that_matters(trained, scan):
    """Records from two threads at once: nothing is counted twice, nothing forgotten."""
    records = frames_of(scan) * 2 + positions_of(scan)
    rng = np.random.default_rng(0)
    records = [records[k] for k in rng.permutation(len(records))]
    steps = [[start_of(scan)], *in_steps(records[::2], 3), 0.3, [End(80, "end")]]
    saved = []
    session = Session(
        Script(steps),
        Script(in_steps([r for r in records[1::2] if isinstance(r, PositionRecord)], 3)),
        trained.model,
        open_engine(trained.model, device="cpu"),
        LiveSettings(settle_seconds=0.5, batch_seconds=0.01),
        lambda live, result: saved.append((live, result)),
    )
    extra = [r for r in records[1::2] if isinstance(r, FrameRecord)]

    def also():
        while session.scan is None:
            time.sleep(0.001)
        for record in extra:
            session.scan.intake.receive(record)

    thread = Thread(target=also)
    thread.start()
    session.run()
    thread.join()
    [(_, found)] = saved
    assert counters(found)["received"] == 160 and counters(found)["duplicate"] == 80
    assert counters(found)["stitched"] == 80


def test_what_the_transport_lost_is_told(trained, scan):
    class Losing(Script):
        overruns = 0

        def poll(self, timeout):
            self.overruns = 3 if session.scan is not None else 0
            return super().poll(timeout)

    saved = []
    session = Session(
        Losing(whole(scan)),
        None,
        trained.model,
        open_engine(trained.model, device="cpu"),
        LiveSettings(settle_seconds=0.2),
        lambda live, result: saved.append(result),
    )
    session.run()
    assert counters(saved[0])["overruns"] == 3
    assert any("lost by the transport" in warning for warning in saved[0].warnings)


def test_a_scan_without_counts_is_an_error_not_a_picture(trained, scan):
    with pytest.raises(InputError, match=r"hold no counts|no frame"):
        run(trained.model, whole(replace(scan, frames=0 * scan.frames)))


def test_garbage_does_not_stand_for_a_frame(trained, scan):
    """A message that nobody can read is counted; the scan goes on until its frames have come."""
    garbage = [Corrupt(None, "no message"), Corrupt(None, "no message")]
    steps = [[start_of(scan, expected=80), *positions_of(scan)], frames_of(scan, range(70)) + garbage * 5, 0.3]
    steps += [frames_of(scan, range(70, 80))]
    _, [(_, found)] = run(trained.model, steps)
    assert counters(found)["stitched"] == 80
    assert counters(found)["corrupt"] == 10 and counters(found)["lost"] == 0


def test_a_dark_frame_far_away_does_no_harm(trained, scan):
    frames = scan.frames.copy()
    frames[79] = 0
    positions = [*positions_of(scan, range(79)), PositionRecord(79, (1.0, 1.0), scan.position_unit, now())]
    steps = [[start_of(scan), *positions], *in_steps(frames_of(replace(scan, frames=frames)), 16), [End(80, "end")]]
    _, [(_, found)] = run(trained.model, steps)
    assert difference(found, reconstruct(scan.select(np.arange(79)), trained.model, device="cpu")) < FLOAT16


def test_no_more_scans_are_taken_than_were_asked_for(trained, scan):
    """A series that begins while the last scan asked for is being solved is not begun."""
    steps = [*whole(scan, series=1), *whole(scan, series=2)]
    session, results = run(trained.model, steps)
    assert len(results) == 1 and session.astray >= 80


@pytest.mark.parametrize("own_positions", [True, False])
def test_frames_to_refine_come_from_the_detectors_file(trained, scan, tmp_path, own_positions):
    came = [index for index in range(80) if index != 7]
    steps = [[start_of(scan, expected=80)], frames_of(scan, came) + positions_of(scan), [End(80, "end")]]
    write_scan(tmp_path / "own.cxi", replace(scan, positions=scan.positions[::-1].copy(), object=None))
    with h5py.File(tmp_path / "run_master.h5", "w") as file:
        file["entry/instrument/detector/detectorSpecific/nimages"] = 80
        file["entry/data/data_000001"] = scan.frames
    path = tmp_path / ("own.cxi" if own_positions else "run_master.h5")
    read = []
    run(trained.model, steps, follow_up=[lambda live, result, given_up: read.append(detectors_scan(live, path))])
    np.testing.assert_array_equal(read[0].frames[:], scan.frames[came])
    np.testing.assert_allclose(read[0].to_pixels(read[0].positions), scan.positions_px[came])


def test_a_detectors_file_of_another_length_is_refused(trained, scan, tmp_path):
    write_scan(tmp_path / "short.cxi", scan.select(np.arange(50)))

    def refused(live, result, given_up):
        with pytest.raises(InputError, match=r"short\.cxi"):
            detectors_scan(live, tmp_path / "short.cxi")
        seen.append(True)

    seen = []
    run(trained.model, whole(scan), follow_up=[refused])
    assert seen
