"""Work behind: in order, one ahead, failures seen."""

from __future__ import annotations

import threading

import pytest
import torch

from ptychow.behind import Behind


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
