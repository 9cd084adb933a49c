"""Work spread over this machine's cores."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

from trilemma.planner.plan import HERE, Executor

T = TypeVar("T")
R = TypeVar("R")


class Processes:
    """Spreads items over worker processes; results come in the order of the items."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def map(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """function(item) for every item, in order."""
        return self._pool.map(function, items)


def cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


@contextmanager
def workers(count: int | None = None) -> Iterator[Executor]:
    """An executor over `count` processes (default: all cores); with one, the work stays in this process.

    Workers are spawned, not forked, so that they behave the same on every system.
    """
    wanted = cores() if count is None else count
    if wanted <= 1:
        yield HERE
        return
    pool = ProcessPoolExecutor(max_workers=wanted, mp_context=get_context("spawn"))
    try:
        yield Processes(pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
