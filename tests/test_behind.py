"""Work behind and ahead: in order, one at a time, failures seen."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from ptychow.behind import Behind, ahead


def test_work_is_done_in_order_and_by_the_end():
    done = []
    with Behind() as behind:
        for number in range(20):
            behind.do(done.append, number)
    assert done == list(range(20))


def test_it_is_done_beside():
    reached, let_go = threading.Event(), threading.Event()

    def work():
        reached.set()
        assert let_go.wait(10)

    with Behind() as behind:
        behind.do(work)
        assert reached.wait(10)  # in another thread: this one goes on meanwhile
        let_go.set()


def test_it_takes_one_thread_of_torch_and_leaves_the_others():
    before, found = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        with Behind() as behind:
            behind.do(lambda: found.append(torch.get_num_threads()))
        assert found == [1] and torch.get_num_threads() == 2
        other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert found[1] == 2
    finally:
        torch.set_num_threads(before)


def fail():
    raise ValueError("in the thread")


def test_failures_come_up_with_the_next_piece_or_at_the_end():
    with pytest.raises(ValueError, match="in the thread"), Behind() as behind:
        behind.do(fail)
    done = []
    with pytest.raises(ValueError, match="in the thread"), Behind() as behind:
        behind.do(fail)
        behind.do(done.append, 1)
    assert not done


def test_a_failure_outside_is_the_one_that_is_seen():
    with pytest.raises(KeyError), Behind() as behind:
        behind.do(fail)
        raise KeyError


def test_items_come_in_order_and_are_made_while_the_one_before_is_used():
    made = []

    def items():
        for number in range(5):
            made.append((number, threading.get_ident()))
            yield number

    used = []
    for item in ahead(items()):
        until = time.monotonic() + 10
        while len(made) < min(item + 2, 5) and time.monotonic() < until:
            time.sleep(0.001)
        assert made[-1][0] == min(item + 1, 4)
        used.append(item)
    assert used == list(range(5)) and {thread for _, thread in made} != {threading.get_ident()}


def test_what_making_an_item_raises_comes_up():
    def items():
        yield 1
        fail()

    used = []
    with pytest.raises(ValueError, match="in the thread"):
        used.extend(ahead(items()))


def test_it_can_be_left_early_and_leaves_no_thread():
    before, made = threading.active_count(), []
    items = ahead(made.append(k) or k for k in range(1000))
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    items.close()
    assert threading.active_count() == before and len(made) < 10
