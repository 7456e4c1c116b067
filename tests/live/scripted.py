"""A source that says what a test wrote down, and a session around it."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from ptychow.engines import open_engine
from ptychow.live.pipeline import LiveSettings
from ptychow.live.records import End, FrameRecord, PositionRecord, Start, now
from ptychow.live.session import Session


class Script:
    """Gives lists of records one after the other; a number is a pause in seconds, a function is called."""

    overruns = 0

    def __init__(self, steps, waits=True, finishes=True):
        self.name, self.waits, self.finished = "script", waits, False
        self._steps, self._finishes = list(steps), finishes

    def poll(self, timeout):
        if not self._steps:
            self.finished = self._finishes
            time.sleep(0 if self._finishes else timeout)
            return []
        step = self._steps.pop(0)
        if callable(step):
            step()
            return []
        if isinstance(step, float):
            time.sleep(step)
            return []
        return step

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def start_of(scan, series=0, expected=None):
    count = len(scan) if expected is None else expected
    return Start(count, scan.frame_shape, scan.mask, scan.saturation, scan.geometry, series=series)


def frames_of(scan, indices=None, series=0):
    indices = range(len(scan)) if indices is None else indices
    return [FrameRecord(int(i), scan.frames[int(i)], now(), series) for i in indices]


def positions_of(scan, indices=None, series=None):
    indices = range(len(scan)) if indices is None else indices
    return [PositionRecord(int(i), tuple(scan.positions[int(i)]), scan.position_unit, now(), series) for i in indices]


def in_steps(records, size):
    """Lists of at most `size` records."""
    return [records[k : k + size] for k in range(0, len(records), size)]


def whole(scan, series=0, size=16):
    """A scan as it should come: positions with their frames."""
    both = [r for pair in zip(frames_of(scan, series=series), positions_of(scan), strict=True) for r in pair]
    return [[start_of(scan, series)], *in_steps(both, size), [End(len(scan), "end of the scan", series)]]


QUICK = LiveSettings(settle_seconds=0.2, batch_seconds=0.01)


def run(
    model,
    steps,
    *,
    positions=None,
    save=None,
    rescue=lambda scan: None,
    follow_up=(),
    optional=(),
    scans=1,
    finishes=True,
    waits=True,
    started=None,
    **settings,
):
    """A finished Session over scripted sources, and what it saved: (session, [(scan, result)]). Counters balance."""
    saved = []
    session = Session(
        Script(steps, waits, finishes),
        None if positions is None else Script(positions, waits=False),
        model,
        open_engine(model, device="cpu"),
        replace(QUICK, **settings),
        save or (lambda scan, result: saved.append((scan, result))),
        rescue=rescue,
        follow_up=follow_up,
        optional=optional,
        scans=scans,
        name="live scan",
    )
    if started is not None:
        started(session)
    session.run()
    assert all(live.counters.counts().imbalance() is None for live, _ in saved)
    return session, saved


def wait_for(sessions, count, number):
    """Until a count of the session's scan has reached a number."""
    until = time.monotonic() + 20
    while getattr(sessions[0].scan.counters.counts(), count) < number:
        assert time.monotonic() < until, sessions[0].scan.counters.counts()
        time.sleep(0.005)


def difference(found, expected):
    """Largest difference of two Reconstructions' images, as a part of the largest amplitude, where light fell."""
    assert found.image.origin == expected.image.origin
    return np.abs(found.image.image - expected.image.image).max() / np.abs(expected.image.image).max()
