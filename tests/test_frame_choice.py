"""Frames chosen by what a user writes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychow.errors import InputError
from ptychow.frame_choice import chosen_frames

BOUND = st.none() | st.integers(-12, 12)


@given(st.lists(st.tuples(BOUND, BOUND), min_size=1, max_size=4), st.integers(1, 10))
def test_ranges_count_as_python_does(ranges, count):
    text = ", ".join(f"{'' if first is None else first}:{'' if last is None else last}" for first, last in ranges)
    wanted = [range(count)[first:last] for first, last in ranges]
    if not all(wanted):
        with pytest.raises(InputError, match=f"--drop: no frames; .* some of {count} frames"):
            chosen_frames(text, count, "--drop")
    else:
        assert set(np.flatnonzero(chosen_frames(text, count, "--drop"))) == {index for part in wanted for index in part}


def test_single_frames_and_ranges_together():
    np.testing.assert_array_equal(np.flatnonzero(chosen_frames("3,-1, 5:7 ,3", 10, "--drop")), [3, 5, 6, 9])


@pytest.mark.parametrize("text", ["", "3,", "10", "-11", "a", "1:b", "1:2:3", "2.5", "3-5"])
def test_what_is_no_frame_is_refused(text):
    with pytest.raises(InputError, match="expected NUMBER or FIRST:LAST"):
        chosen_frames(text, 10, "--drop")
