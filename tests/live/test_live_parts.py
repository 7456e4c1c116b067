"""Counters, join, spool and queue, each by itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import no_file_beyond
from ptychow.live.counters import Counters, Counts, Rate
from ptychow.live.join import DARK, ByIndex, Join, Seen
from ptychow.live.mosaic import TILE, Mosaic, near_enough
from ptychow.live.queue import FrameQueue
from ptychow.live.records import LARGEST_INDEX, FrameRecord, now
from ptychow.live.spool import PatchSpool, SlotFile, SpooledPatches
from ptychow.stitch import Canvas


def test_counters_that_do_not_balance_are_found():
    right = Counts(received=5, corrupt=1, duplicate=1, skipped=1, decoded=2, inferred=1, dark=1, waiting=1)
    assert right.imbalance() is None
    assert "1 received, not 0" in Counts(received=1).imbalance()
    for wrong in (Counts(received=1, decoded=1), Counts(joined=1), Counts(inferred=1, joined=1)):
        assert wrong.imbalance().startswith("the counters do not balance")


def test_lost_is_what_was_expected_and_never_came():
    counters = Counters()
    assert counters.counts().lost is None
    counters.expect(10)
    counters.expect(7)
    counters.add(received=9, duplicate=2, distinct=7)
    assert counters.counts().lost == 3
    assert counters.latency() == {"p50": None, "p99": None}
    counters.took([0.1] * 99 + [1.0])
    assert counters.latency()["p50"] == pytest.approx(0.1)


def test_a_rate_is_that_of_the_last_seconds():
    rate = Rate(window=1.0)
    assert rate(0, 0.0) == 0
    values = [rate(int(100 * t), t) for t in np.arange(0.1, 3, 0.1)]
    values += [rate(290, t) for t in np.arange(3, 6, 0.1)]
    assert values[20] == pytest.approx(100, rel=0.15) and values[-1] == 0


def test_each_scan_has_its_rates():
    """The next scan's begin with nothing, whatever there was before."""
    for _ in range(2):
        counters = Counters()
        assert counters.rates(0.0) == {"received": 0, "stitched": 0}
        counters.add(received=20, stitched=10)
        assert counters.rates(2.0) == {"received": 10, "stitched": 5}


def test_an_index_is_new_once_unless_it_came_damaged():
    seen = Seen()
    assert seen.add(5) and not seen.add(5) and seen.distinct == 1 and seen.largest == 5
    seen.spoilt(5)
    assert seen.add(5) and not seen.add(5) and seen.distinct == 1
    seen.add_damaged(5)  # a second copy; the first is there
    assert not seen.add(5)
    seen.add_damaged(6)
    assert seen.distinct == 2 and seen.add(6) and not seen.add(6) and seen.distinct == 2
    assert seen.add(100_000) and seen.largest == 100_000
    assert seen.first(64) == 2
    for index in (-1, LARGEST_INDEX + 1):
        with pytest.raises(ValueError, match="index"):
            seen.add(index)


@settings(max_examples=50, deadline=None)
@given(order=st.permutations(list(range(20))), dark=st.sets(st.integers(0, 9)))
def test_frames_and_positions_meet_whoever_comes_first(order, dark):
    """0-9 are frames, 10-19 their positions; every bright frame is given out exactly once."""
    join, met = Join(), []
    for each in order:
        index = np.array([each % 10])
        if each < 10:
            placed = join.add_patches(index, np.array([DARK if each in dark else each], np.int32))
        else:
            placed = join.add_positions(index, np.array([[float(each), 0.0]]))
        met += index[placed].tolist()
    assert sorted(met) == sorted(set(range(10)) - dark) and join.waiting == 0
    assert join.placed().tolist() == list(range(10))
    slots, positions = join.find(np.arange(10))
    assert all(slots[k] == (DARK if k in dark else k) for k in range(10))
    np.testing.assert_array_equal(positions[:, 0], np.arange(10, 20))


def test_of_two_positions_the_first_holds():
    join = Join()
    join.add_positions(np.array([3]), np.array([[1.0, 2.0]]))
    assert not join.add_positions(np.array([3]), np.array([[9.0, 9.0]])).any()
    assert join.find(np.array([3]))[1].tolist() == [[1.0, 2.0]] and join.positions == 1


def test_rows_by_index_grow():
    rows = ByIndex(-1, np.int32)
    rows[np.array([5000, 2])] = [7, 8]
    assert rows[np.array([2, 3, 5000, 9000])].tolist() == [8, -1, 7, -1]
    assert rows.where(lambda values: values >= 0).tolist() == [2, 5000]


def test_slots_come_back_and_are_used_again(tmp_path):
    file = SlotFile(tmp_path / "slots", (4, 3), np.uint16, 4 * 3 * 2 * 3)
    arrays = np.random.default_rng(0).integers(0, 60000, (5, 4, 3)).astype(np.uint16)
    slots = [file.put(array) for array in arrays[:3]]
    assert slots == [0, 1, 2] and file.put(arrays[3]) is None
    file.free(1)
    assert file.put(arrays[4]) == 1 and len(file) == 3
    for slot, array in zip((0, 1, 2), (arrays[0], arrays[4], arrays[2]), strict=True):
        np.testing.assert_array_equal(file.get(slot), array)
    file.close()


def test_a_full_disk_is_a_full_file(tmp_path):
    file = SlotFile(tmp_path / "slots", (64, 64), np.float32, 1e9)
    with no_file_beyond(40_000):
        slots = [file.put(np.full((64, 64), k)) for k in range(4)]
    assert slots == [0, 1, None, None]
    assert (file.get(1) == 1).all()
    assert file.put(np.full((64, 64), 7)) == 2 and (file.get(2) == 7).all()


def test_patches_are_kept_to_float16(tmp_path):
    rng = np.random.default_rng(0)
    patches = (rng.normal(size=(6, 8, 8)) + 1j * rng.normal(size=(6, 8, 8))).astype(np.complex64)
    spool = PatchSpool(tmp_path / "patches", 8, 1e6)
    slots = np.array([spool.put(patch) for patch in patches])
    np.testing.assert_array_equal(spool.get(slots), PatchSpool.rounded(patches))
    np.testing.assert_allclose(spool.get(slots), patches, rtol=2**-10)
    order = SpooledPatches(spool, slots[::-1])
    assert len(order) == 6
    np.testing.assert_array_equal(order[1:3], PatchSpool.rounded(patches[[4, 3]]))
    np.testing.assert_array_equal(order[np.array([5, 0])], PatchSpool.rounded(patches[[0, 5]]))


def test_the_queue_goes_to_disk_and_then_by_the_rule(tmp_path):
    frame = np.arange(16, dtype=np.uint16).reshape(4, 4)
    queue = FrameQueue(tmp_path, memory=3 * frame.nbytes, disk=8 * frame.nbytes, every=5)
    taken = [index for index in range(40) if queue.put(FrameRecord(index, frame + index, now()))]
    # Three in memory, four on disk until it is half full, then every fifth until it is full.
    assert taken == [0, 1, 2, 3, 4, 5, 6, 10, 15, 20, 25]
    assert len(queue) == 11 and queue.spooled == 8 and queue.full and queue.ruled
    assert queue.oldest is not None
    back = queue.take(100)
    assert sorted(record.index for record in back) == taken
    for record in back:
        np.testing.assert_array_equal(record.frame, frame + record.index)
    assert len(queue) == 0 and queue.oldest is None and queue.take(5) == []
    assert queue.put(FrameRecord(41, frame, now()))
    queue.close()


def test_a_mosaic_tells_what_changed():
    mosaic = Mosaic(np.ones((16, 16), np.float32), turn=False)
    assert mosaic.changed_since(0, 10) == (0, [])
    positions = np.array([[8.0, 8.0], [100.0, 8.0], [-30.0, -30.0]])
    assert mosaic.fits(positions).all()
    mosaic.add(np.full((3, 16, 16), 2 + 1j, np.complex64), positions)
    version, tiles = mosaic.changed_since(0, 100)
    assert {(tile.row, tile.column) for tile in tiles} == {(0, 0), (1, 0), (-1, -1)}
    for tile in tiles:
        lit = tile.coverage > 0
        np.testing.assert_allclose(tile.image[lit], 2 + 1j)
        corner = np.array([tile.row, tile.column]) * TILE
        rows, columns = np.nonzero(lit)
        inside = ((rows + corner[0])[:, None] - positions[:, 0] + 8 >= 0) & (
            (columns + corner[1])[:, None] - positions[:, 1] + 8 >= 0
        )
        assert inside.any(axis=1).all()
    assert mosaic.changed_since(version, 100) == (version, [])
    mosaic.add(np.ones((1, 16, 16), np.complex64), positions[1:2])
    _, tiles = mosaic.changed_since(version, 100)
    assert [(tile.row, tile.column) for tile in tiles] == [(1, 0)]


def test_a_mosaic_has_an_end():
    mosaic = Mosaic(np.ones((16, 16), np.float32), turn=True, most_pixels=10_000)
    positions = np.array([[0.0, 0.0], [1e9, 0.0], [50.0, 50.0], [50.0, 500.0], [0.0, 60.0]])
    fits = mosaic.fits(positions)
    assert fits.tolist() == [True, False, True, False, True]
    assert mosaic.holds(positions[fits]) and not mosaic.holds(positions)
    assert mosaic.fits(positions[fits]).all()


def test_a_tile_far_from_the_canvas_is_empty():
    """A long canvas takes the place of one that lay far before it: what was there is shown to be gone."""
    mosaic, far = Mosaic(np.ones((16, 16), np.float32), turn=False), np.array([[8.0, -30_000.0]])
    mosaic.add(np.ones((1, 16, 16), np.complex64), far)
    final = Canvas(np.array([[8.0, 8.0], [8.0, 90_000.0]]), np.ones((16, 16), np.float32))
    final.add(np.ones((2, 16, 16), np.complex64), np.array([[8.0, 8.0], [8.0, 90_000.0]]))
    mosaic.show(final)
    _, tiles = mosaic.changed_since(0, 10)
    assert tiles and not any(tile.coverage.any() or tile.image.any() for tile in tiles)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), wrong=st.integers(0, 20), length=st.sampled_from([200.0, 200_000.0]))
def test_the_most_that_lie_together_are_near_enough(seed, wrong, length):
    """Wherever a few wrong positions stand in the order, and however long and narrow the scan is."""
    rng = np.random.default_rng(seed)
    right = rng.uniform(0, 1, (41, 2)) * (100.0, length)
    far = np.column_stack([rng.uniform(1e7, 1e9, wrong) * rng.choice([-1, 1], wrong), rng.uniform(0, length, wrong)])
    order, lit = rng.permutation(41 + wrong), np.ones(41 + wrong, bool)
    near = near_enough(np.concatenate([right, far])[order], 16, lit)
    np.testing.assert_array_equal(near, order < 41)


def test_dark_frames_do_not_say_where_the_scan_is():
    positions = np.array([[0.0, 0.0]] * 9 + [[1e6, 1e6 + 10 * step] for step in range(3)])
    near = near_enough(positions, 16, np.arange(12) >= 9)
    np.testing.assert_array_equal(near, np.arange(12) >= 9)


def test_dark_frames_are_judged_by_the_lit_ones_and_cost_them_nothing():
    """A lit one that is far away costs no dark one its place either."""
    lit = [(0.0, 10.0 * step) for step in range(9)] + [(0.0, 500_000.0), (1e7, 1e7)]
    dark = [(400.0, 40.0), (5.0, 1000.0)]
    near = near_enough(np.array([*lit, *dark]), 16, np.arange(13) < 11)
    assert near.tolist() == [True] * 10 + [False, False, True]
