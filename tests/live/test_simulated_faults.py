"""What a simulated detector does is what was asked for."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychow.errors import InputError
from ptychow.live.simulated.faults import Faults

PARTS = st.floats(0, 1)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), PARTS, PARTS, PARTS, st.integers(0, 30), st.integers(0, 5))
def test_every_frame_meets_one_fate(count, drop, duplicate, garbage, reorder, seed):
    faults = Faults(drop=drop, duplicate=duplicate, garbage=garbage, reorder=reorder, seed=seed)
    events = list(faults.events(count))
    assert events == list(faults.events(count))
    kinds = Counter(event.kind for event in events)
    order = [event.index for event in events if event.kind in ("frame", "drop")]
    assert sorted(order) == list(range(count))
    assert all(place - index <= reorder for place, index in enumerate(order))
    assert (events[0].kind, events[-1].kind) == ("start", "end")
    assert kinds["duplicate"] <= kinds["frame"]
    for kind, part in (("drop", drop), ("garbage", garbage)):
        assert kinds[kind] > 0 or part < 1
        assert kinds[kind] == 0 or part > 0


def test_parts_are_as_large_as_asked_for():
    kinds = Counter(event.kind for event in Faults(drop=0.1, duplicate=0.3, garbage=0.2, seed=1).events(10_000))
    assert kinds["drop"] == pytest.approx(1000, rel=0.1)
    assert kinds["duplicate"] == pytest.approx(2700, rel=0.1)
    assert kinds["garbage"] == pytest.approx(2000, rel=0.1)


def test_a_restart_aborts_without_an_end():
    events = list(Faults(restart=3, stall=1.0, vanish=1.0).events(10))
    told = [(event.series, event.kind) for event in events]
    assert told[:4] == [(0, "start"), *[(0, "frame")] * 3]
    assert told[4:] == [(1, "start"), *[(1, "frame")] * 10, (1, "end")]


def test_it_stalls_and_vanishes_in_the_middle():
    kinds = [event.kind for event in Faults(stall=1.0, vanish=1.0).events(4)]
    assert kinds == ["start", "frame", "frame", "stall", "vanish", "frame", "frame", "end"]


@pytest.mark.parametrize("name", ["drop", "duplicate", "garbage"])
@pytest.mark.parametrize("part", [-0.1, 1.1, float("nan")])
def test_parts_are_parts(name, part):
    with pytest.raises(InputError):
        Faults(**{name: part})
