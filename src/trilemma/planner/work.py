"""How work leaves a search, how it tells what it does, and how it is stopped."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Protocol, TypeVar

THREADS = 8  # that wait for work done elsewhere
Progress = Callable[[int, int, str], None]  # done, total, what; may raise Interrupted
T = TypeVar("T")
R = TypeVar("R")


class Begin(Protocol):
    """Begins work, and gives what waits for its result."""

    def __call__(self, work: Callable[[], R], /) -> Callable[[], R]:
        """What gives work()."""
        ...


class Interrupted(Exception):  # noqa: N818 - a wish of the user, no error
    """Raised by a Progress to stop the search: what is found so far is then the answer, marked incomplete."""


class Executor(Protocol):
    """Spreads independent work; results come in the order of the items, whoever does them."""

    def map(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterable[R]:
        """function(item) for every item, in order."""
        ...


class Stoppable:
    """An executor until it is stopped: whoever waits for its results then gets Interrupted."""

    def __init__(self, executor: Executor) -> None:
        self._executor, self._stopped = executor, Event()
        self.is_shared = is_shared(executor)

    def stop(self) -> None:
        """Ends every map that goes on in any thread, and all to come."""
        self._stopped.set()

    def map(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """function(item) for every item, in order."""
        if self._stopped.is_set():
            raise Interrupted
        for result in self._executor.map(function, items):
            if self._stopped.is_set():
                raise Interrupted
            yield result


class Here:
    """Does the work in this process."""

    def map(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterable[R]:
        """function(item) for every item, in order."""
        return map(function, items)


HERE = Here()


def is_shared(executor: Executor) -> bool:
    """Whether maps of several threads are done sooner at once than one after the other: an executor says so by an
    attribute of that name."""
    return bool(getattr(executor, "is_shared", False))


@contextmanager
def side_by_side(executor: Executor) -> Iterator[Begin]:
    """Gives a function that begins work and gives what waits for its result. With an executor that is shared the work
    begins at once, in a thread of its own, and the block waits for it; otherwise it is done when it is waited for."""
    if not is_shared(executor):
        yield lambda work: work
        return
    with ThreadPoolExecutor(THREADS) as threads:
        try:
            yield lambda work: threads.submit(work).result
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def quiet(_done: int, _total: int, _what: str) -> None:
    """Reports no progress."""
