"""Where a session's scans begin and end: whose record is whose, and what becomes of a result that is saved."""

import errno
import re
import shutil
import time
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from scripted import QUICK, Script, difference, frames_of, in_steps, positions_of, run, start_of, whole

from ptychow import stitching
from ptychow.cli.common import Report
from ptychow.cli.live_results import Results
from ptychow.engines import open_engine
from ptychow.errors import InputError, PtychoWError, is_out_of_memory
from ptychow.formats import read_scan
from ptychow.formats.cxi import read_object
from ptychow.live import pipeline
from ptychow.live import session as session_module
from ptychow.live.afterwards import MOST_WAITING, Afterwards
from ptychow.live.board import Seen, updates
from ptychow.live.counters import Counters
from ptychow.live.pipeline import LiveScan
from ptychow.live.records import Corrupt, End
from ptychow.live.session import Session
from ptychow.model import Model
from ptychow.reconstruction import reconstruct
from ptychow.stitch import Canvas

FLOAT16 = 2**-10


def wait_for(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)


# --- after a result was saved ----------------------------------------------------------------------------------------


def test_what_fails_after_saving_is_a_warning_and_is_tried_once(trained, scan):
    tried = []

    def refine(live, result, given_up):
        tried.append("refine")
        raise PtychoWError("Pty-Chi is missing")

    def improve(live, result, given_up):
        return replace(result, warnings=("better",))

    def draw(live, result, given_up):
        tried.append("draw")
        assert result.warnings == ("better",)
        raise ValueError

    session, [(_, saved)] = run(trained.model, whole(scan), follow_up=(refine, improve, draw))
    assert tried == ["refine", "draw"] and session.state == "done"
    assert session.warnings == ["live scan: cannot refine: Pty-Chi is missing", "live scan: cannot draw: ValueError"]
    assert session.result.warnings == ("better",) and saved.warnings != ("better",)


def test_the_next_scan_does_not_wait_for_what_follows_the_last(trained, scan):
    """The first scan is refined until the second one is saved; its kept frames are there as long."""
    saved, second_saved, kept = [], Event(), []

    def save(live, result):
        saved.append(live.name)
        if len(saved) == 2:
            second_saved.set()

    def refine(live, result, given_up):
        assert second_saved.wait(20)
        kept.append(live.kept.get(0).shape)

    steps = [*whole(scan), *whole(scan, series=1)]
    session, _ = run(trained.model, steps, save=save, follow_up=(refine,), scans=2, keep_frames=True)
    assert saved == ["live scan", "live scan_2"]
    assert session.warnings == [] and kept == [(32, 32)] * 2


def test_giving_up_ends_what_follows(trained, scan):
    ended, sessions = [], []

    def refine(live, result, given_up):
        sessions[0].give_up()
        ended.append(given_up.wait(20))

    run(trained.model, whole(scan), follow_up=(refine,), started=sessions.append)
    assert ended == [True]


def test_a_scans_spool_goes_when_its_result_is_written(trained, scan):
    folders, gone = [], []

    def look():
        wait_for(lambda: folders and not folders[0].exists())
        gone.append(not folders[0].exists())

    steps = [*whole(scan), look, *whole(scan, series=1)]
    run(trained.model, steps, save=lambda live, result: folders.append(live.folder), scans=2)
    assert gone == [True] and not folders[1].exists()


def test_a_spool_that_somebody_else_deleted_loses_no_result(trained, scan):
    def save(live, result):
        saved.append(result)
        shutil.rmtree(live.folder)

    saved = []
    session, _ = run(trained.model, [*whole(scan), *whole(scan, series=1)], save=save, scans=2)
    assert session.state == "done" and len(saved) == 2 and session.warnings == []


def test_counters_that_do_not_balance_lose_nothing(trained, scan, monkeypatch):
    real, saved = Counters.add, []
    monkeypatch.setattr(Counters, "add", lambda self, **changes: real(self, **changes, corrupt=1))
    session, _ = run(trained.model, whole(scan), save=lambda live, result: saved.append(result))
    assert difference(saved[0], reconstruct(scan, trained.model, device="cpu")) < FLOAT16
    for warnings in (saved[0].warnings, session.snapshot()["warnings"]):
        assert any("counters do not balance" in warning for warning in warnings)


def test_no_room_for_the_final_solve_is_an_error_of_that_scan(trained, scan, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stitching, "SPOOL_LIMIT", 0)
    monkeypatch.setattr(stitching.os, "posix_fallocate", full)
    rescued, sessions = [], []

    def given_up():
        wait_for(lambda: sessions[0].state == "unsaved")
        sessions[0].give_up()

    steps = [*whole(scan), given_up]
    with pytest.raises(PtychoWError, match=r"cannot be written \(No space left on device\)"):
        run(trained.model, steps, rescue=lambda live: rescued.append(live.folder.exists()), started=sessions.append)
    assert rescued == [True] and "Nothing is lost" in sessions[0].warnings[0]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PtychoWError("patches: cannot be written (No space left on device)"), "No space left"),
        (MemoryError("Unable to allocate 2 GiB"), "live scan: out of memory (Unable to allocate 2 GiB): end other"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory"),
    ],
)
def test_the_final_solve_is_tried_again_until_there_is_room(trained, scan, monkeypatch, error, words):
    real, tried = session_module.finish, []

    def finish(live, reason):
        tried.append(reason)
        if len(tried) < 3:
            raise error
        return real(live, reason)

    monkeypatch.setattr(session_module, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(session_module, "finish", finish)
    session, [(_, found)] = run(trained.model, whole(scan))
    assert len(tried) == 3 and session.state == "done"
    assert words in session.warnings[0] and "Nothing is lost: trying again" in session.warnings[0]
    assert difference(found, reconstruct(scan, trained.model, device="cpu")) < FLOAT16


def test_what_waiting_does_not_help_is_not_tried_again(trained, scan, monkeypatch):
    tried = []

    def finish(live, reason):
        tried.append(reason)
        raise InputError("too large an object", field="positions")

    monkeypatch.setattr(session_module, "finish", finish)
    with pytest.raises(InputError, match="too large"):
        run(trained.model, whole(scan))
    assert len(tried) == 1


@pytest.mark.parametrize("worker", [False, True])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("too large an object", field="positions"), "too large"),
        (MemoryError(), "live scan: out of memory: end other programs, or give less to --batch-size"),
        (ZeroDivisionError("a mistake"), "live scan: ZeroDivisionError: a mistake"),
    ],
)
def test_a_scan_without_a_result_leaves_its_frames_and_its_preview(
    trained, scan, monkeypatch, tmp_path, error, words, worker
):
    """What fails: the final solve, tried again until Ctrl-C is pressed twice; or the worker, after 64 frames."""
    sessions = []

    def fail(*_):
        if not worker and is_out_of_memory(error):
            sessions[0].give_up()
        raise error

    def judged(live):
        if live.counters.counts().stitched >= 64:
            raise error

    monkeypatch.setattr(*((LiveScan, "judge", judged) if worker else (session_module, "finish", fail)))
    monkeypatch.setattr(pipeline, "JUDGE_SECONDS", 0.0)
    results = Results(Report(), tmp_path / "live scan.cxi", keep_frames=True, refining=None)
    steps = [[start_of(scan, expected=100)], *whole(scan)[1:-1], 0.5, whole(scan)[-1]]  # not over beforehand
    with pytest.raises(PtychoWError, match=re.escape(words)):
        run(trained.model, steps, rescue=results.rescue, keep_frames=True, started=sessions.append)
    kept = read_scan(tmp_path / "live scan_frames.cxi")
    np.testing.assert_array_equal(kept.frames[:], scan.frames[: len(kept)])
    assert len(kept) >= 64 if worker else len(kept) == 80
    preview = read_object(tmp_path / "live scan_preview.cxi")
    assert "preview" in preview.source and np.abs(preview.image).max() > 0
    assert not (tmp_path / "live scan.cxi").exists()


def test_only_kept_frames_stay_on_the_disk_for_what_follows(trained, scan):
    there = []

    def look(live, result, given_up):
        there.extend(path for path in live.folder.iterdir())

    run(trained.model, whole(scan), follow_up=(look,), keep_frames=True)
    assert len(there) == 1


def test_what_is_optional_gives_way_where_too_many_scans_wait(trained, scan):
    hurried, drawn = [], []

    def refine(live, result, given_up):
        hurried.append(hurried or given_up.wait(20))  # only the first one takes long

    def draw(live, result, given_up):
        drawn.append(live.name)

    scans = MOST_WAITING + 2
    steps = [step for series in range(scans) for step in whole(scan, series=series)]
    run(trained.model, steps, follow_up=(refine, draw), optional=(refine,), scans=scans)
    assert hurried[0] is True and len(drawn) == scans


def test_an_interruption_waits_for_nothing(trained, scan, monkeypatch):
    ended, folders = Event(), []

    def refine(live, result, given_up):
        folders.append(live.folder)
        ended.wait(20)

    def interrupted(later):
        wait_for(lambda: folders)
        raise KeyboardInterrupt

    monkeypatch.setattr(Afterwards, "wait", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(trained.model, whole(scan), follow_up=(refine,))
    assert time.monotonic() - began < 10 and not folders[0].exists()
    ended.set()


def test_an_index_far_beyond_the_scan_takes_no_memory(trained, scan):
    far = 40_000_000
    wrong = [replace(frames_of(scan, [0])[0], index=far), replace(positions_of(scan, [0])[0], index=far)]
    _, [(live, found)] = run(trained.model, [*whole(scan)[:-1], wrong, whole(scan)[-1]])
    assert found.summary["counters"]["corrupt"] == 1 and found.summary["counters"]["stitched"] == len(scan)
    assert found.summary["counters"]["lost"] == 0 and live.intake.largest_index == len(scan) - 1
    assert any("index 40,000,000" in warning for warning in found.warnings)


# --- whose record is whose -------------------------------------------------------------------------------------------


def two_scans(model, steps, positions, settle_seconds):
    """(session, results) of two scans whose positions come from elsewhere. steps, positions: from the session."""
    results = []
    session = Session(
        Script(steps(lambda condition: lambda: wait_for(lambda: condition(session)))),
        Script(positions(lambda condition: lambda: wait_for(lambda: condition(session))), waits=False),
        model,
        open_engine(model, device="cpu"),
        replace(QUICK, settle_seconds=settle_seconds),
        lambda live, result: results.append(result),
        scans=2,
    )
    session.run()
    return session, results


def test_late_positions_are_not_those_of_the_next_scan(trained, scan):
    """They come when the first scan is over, and name none: the second must not be stitched at its places."""
    late = [replace(record, position=(0.0, 0.0)) for record in positions_of(scan, range(40))]
    session, results = two_scans(
        trained.model,
        lambda once: [*whole(scan), once(lambda s: s.astray or s._early), *whole(scan, series=1)],
        lambda once: [once(lambda s: s.finished), late],
        settle_seconds=30.0,
    )
    assert session.astray == 40
    assert difference(results[1], reconstruct(scan, trained.model, device="cpu")) < FLOAT16


def test_positions_that_come_long_before_their_scan_are_used_and_told(trained, scan):
    second = [[start_of(scan, 1)], *in_steps(frames_of(scan, series=1), 16), [End(80, "end", 1)]]
    session, results = two_scans(
        trained.model,
        lambda once: [*whole(scan), once(lambda s: len(s._early) == 80), *second],
        lambda once: [once(lambda s: s.finished), positions_of(scan)],
        settle_seconds=0.0,
    )
    assert session.astray == 0 and results[1].summary["counters"]["stitched"] == 80
    assert any("80 positions came between the last scan and this one" in warning for warning in results[1].warnings)
    assert not any("came between" in warning for warning in results[0].warnings)


def test_only_frames_begin_a_scan(trained, scan):
    """What is damaged, or late, may name any series."""
    nonsense = [Corrupt(3, "a wrong series", 5), End(None, "end", 7), *positions_of(scan, [0], series=9)]
    session, [(_, found)] = run(trained.model, [nonsense, *whole(scan)])
    assert session.begun == 1 and session.astray == 3 and found.summary["counters"]["stitched"] == 80
    assert "a wrong series" in session.warnings and any("series 7" in each for each in session.warnings)


def test_a_source_that_breaks_ends_the_session_with_its_name(trained, scan):
    def broken():
        raise ValueError("no such thing")

    saved = []
    with pytest.raises(PtychoWError, match="script: ValueError: no such thing"):
        run(trained.model, [*whole(scan)[:-2], broken], finishes=False, save=lambda _, result: saved.append(result))
    assert "no such thing" in saved[0].summary["ended"]  # what had come is written


def test_a_model_that_cannot_be_stitched_is_refused_before_anything_is_received(trained):
    model = Model(trained.model.card, trained.model.network, None, trained.model.mean_pattern)
    with pytest.raises(InputError, match="knows no probe"):
        Session(Script([]), None, model, open_engine(model, device="cpu"), QUICK, lambda *_: None)


# --- what the page asks for ------------------------------------------------------------------------------------------


def test_looking_costs_the_worker_nothing(trained, scan, monkeypatch):
    session, _ = run(trained.model, whole(scan))

    def measured(*_):
        raise AssertionError("a browser's look judges patches")

    monkeypatch.setattr(Canvas, "disagreement", measured)
    time.sleep(1.1)
    assert session.snapshot()["light"] == session.scan.verdict.light != "unknown"


def test_a_pattern_is_sent_once_and_the_next_one_always(trained, scan):
    session, _ = run(trained.model, whole(scan))
    seen = Seen()
    assert any(b'"pattern"' in message for message in updates(session, seen) if isinstance(message, bytes))
    assert not any(b'"pattern"' in message for message in updates(session, seen) if isinstance(message, bytes))
    assert seen.latest is session.scan.latest  # kept: another array cannot take its place in memory, and its id
    session.scan.latest = session.scan.latest.copy()
    assert any(b'"pattern"' in message for message in updates(session, seen) if isinstance(message, bytes))
