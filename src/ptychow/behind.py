"""One batch is made, or finished, while another is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

import torch

Item = TypeVar("Item")


def thread_beside(name: str) -> ThreadPoolExecutor:
    """A thread that has one of torch's threads for itself: with more it would take those of whoever it works beside."""
    made = ThreadPoolExecutor(1, name)
    # torch's number of threads is each thread's own, but new ones begin with the last number set anywhere.
    threads = torch.get_num_threads()
    made.submit(_take_one_thread).result()
    torch.set_num_threads(threads)
    return made


def _take_one_thread() -> None:
    """Of torch's, for whoever calls."""
    torch.set_num_threads(1)
    torch.get_num_threads()  # a thread takes up the last number set when it first asks


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each made by another thread while the one before it is used. What making raises is raised here.

    The items must not be None.
    """
    with thread_beside("ahead") as worker:
        coming = worker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = worker.submit(next, items, None)
            yield item


class Behind:
    """A thread for what follows a network: the frames after need not wait for it. A context manager.

    Work is done in the order given, one piece at a time; whoever gives more than one ahead waits. What it raises is
    raised where the next piece is given, or at the end.
    """

    def __init__(self) -> None:
        self._thread = thread_beside("behind")
        self._given: Future[None] | None = None

    def do(self, work: Callable[..., None], *arguments: Any) -> None:
        """Have `work(*arguments)` done, after what was given before."""
        self._wait()
        self._given = self._thread.submit(work, *arguments)

    def _wait(self) -> None:
        given, self._given = self._given, None
        if given is not None:
            given.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        """All is done, or, after a failure, given up."""
        try:
            if failure[0] is None:
                self._wait()
        finally:
            self._thread.shutdown(cancel_futures=True)
