"""How work leaves a search, how it tells what it does, and how it is stopped."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

Progress = Callable[[int, int, str], None]  # done, total, what; may raise Interrupted
T = TypeVar("T")
R = TypeVar("R")


class Interrupted(Exception):  # noqa: N818 - a wish of the user, no error
    """Raised by a Progress to stop the search: what is found so far is then the answer, marked incomplete."""


class Executor(Protocol):
    """Spreads independent work; results come in the order of the items, whoever does them."""

    def map(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterable[R]:
        """function(item) for every item, in order."""
        ...


class Here:
    """Does the work in this process."""

    def map(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterable[R]:
        """function(item) for every item, in order."""
        return map(function, items)


HERE = Here()


def quiet(_done: int, _total: int, _what: str) -> None:
    """Reports no progress."""
