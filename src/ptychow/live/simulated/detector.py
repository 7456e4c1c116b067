"""A scan, as a detector sends it: at its rate, whether or not anybody keeps up, and with faults."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ptychow.errors import InputError
from ptychow.live.simulated.faults import Event, Faults
from ptychow.live.simulated.file import FileWriter
from ptychow.live.simulated.pva import PositionServer, PvaServer
from ptychow.live.simulated.stream2 import Stream2Server

# The system's clock wakes nobody more precisely.
SHORTEST_SLEEP = 5e-4
POSITIONS_SECONDS = 0.05


Server = Stream2Server | PvaServer | FileWriter


def send(
    server: Server,
    count: int,
    rate: float,
    faults: Faults,
    *,
    positions: PositionServer | None = None,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Send `count` frames, `rate` a second, and what befalls them; returns what was sent, by kind.

    `lost` are frames for which the transport had no room: a detector cannot wait. Raises InputError for faults that the
    protocol cannot have.
    """
    if isinstance(server, FileWriter):
        require_of_a_file(faults)
    sent: Counter[str] = Counter()
    late: deque[tuple[float, int]] = deque()
    began = time.perf_counter()
    due = began
    longest = 0.0
    for event in faults.events(count):
        _publish(positions, late)
        if event.kind in ("stall", "vanish"):
            due += _pause(server, event, faults)
        elif event.kind == "start":
            server.start(event.series)
        elif event.kind == "end":
            server.end(event.series)
        elif event.kind == "garbage":
            assert not isinstance(server, FileWriter)
            sent["garbage"] += server.garbage(event.index, event.series)
        else:
            if event.kind != "duplicate":
                due += 1 / rate
                ahead = due - time.perf_counter()
                longest = max(longest, -ahead)
                if ahead > SHORTEST_SLEEP:
                    time.sleep(ahead)
                late.append((time.perf_counter() + faults.late_positions, event.index))
                advance()
            went = event.kind == "drop" or server.frame(event.index, event.series)
            sent[event.kind if went else "lost"] += 1
    while positions is not None and late:
        time.sleep(max(late[-1][0] - time.perf_counter(), 0) + POSITIONS_SECONDS)
        _publish(positions, late)
    seconds = time.perf_counter() - began
    return {
        "frames": sent["frame"],
        "duplicates": sent["duplicate"],
        "dropped": sent["drop"],
        "garbage": sent["garbage"],
        "lost": sent["lost"],
        "seconds": seconds,
        "rate": (sent["frame"] + sent["duplicate"]) / seconds,
        "largest_delay_s": longest,
    }


def require_of_a_file(faults: Faults) -> None:
    """Raise InputError for faults that a detector which writes a file cannot have."""
    if faults != replace(Faults(), stall=faults.stall, seed=faults.seed):
        raise InputError("a detector that writes a file can only --stall", expected="--protocol pva or stream2")


def _pause(server: Server, event: Event, faults: Faults) -> float:
    """Send nothing, or be gone; seconds."""
    if event.kind == "stall":
        time.sleep(faults.stall)
        return faults.stall
    assert not isinstance(server, FileWriter)
    server.vanish()
    time.sleep(faults.vanish)
    server.come_back()
    return faults.vanish


def _publish(positions: PositionServer | None, late: deque[tuple[float, int]]) -> None:
    """Publish the positions whose time has come, some at a time."""
    moment = time.perf_counter()
    if positions is None or not late or moment - late[0][0] < POSITIONS_SECONDS:
        return
    indices = []
    while late and late[0][0] <= moment:
        indices.append(late.popleft()[1])
    positions.publish(indices)
