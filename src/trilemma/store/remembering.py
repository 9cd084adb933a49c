"""An executor around an executor, which knows what was done before."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, cast

from trilemma.store.trials import Trials

T = TypeVar("T")
R = TypeVar("R")
KeyOf = Callable[[Callable[..., Any], object], str]


class Works(Protocol):
    """What spreads work. One that also has `arrivals` hands results over as they come, which loses fewer when the
    process is killed: (position of the item, result) in batches, in any order, each batch what is there by now."""

    def map(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterable[R]:
        """function(item) for every item, in order."""
        ...


class Remembering:
    """Answers from the store what is known, computes the rest, and keeps each result before it waits for the next.

    Results come in the order of the items and are the same as without a store; equal items are computed once.
    """

    def __init__(self, executor: Works, trials: Trials, key_of: KeyOf) -> None:
        """`key_of(function, item)` is a key of all that the result depends on."""
        self._executor, self._trials, self._key_of = executor, trials, key_of
        self.computed = 0
        self.recalled = 0

    @property
    def is_shared(self) -> bool:
        """Whether maps of several threads are done sooner at once: whether they are by the executor inside."""
        return bool(getattr(self._executor, "is_shared", False))

    def map(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """function(item) for every item, in order."""
        wanted = [(self._key_of(function, item), item) for item in items]
        found = cast(dict[str, R], self._trials.known(key for key, _ in wanted))
        self.recalled += len(found)
        missing = {key: item for key, item in wanted if key not in found}
        arriving = self._computed(function, missing)
        for key, _ in wanted:
            while key not in found:
                found.update(next(arriving))
            yield found[key]

    def _computed(self, function: Callable[[T], R], missing: dict[str, T]) -> Iterator[list[tuple[str, R]]]:
        """(key, result) of what is missing, kept before it is given, batch by batch as it comes."""
        if not missing:
            return
        keys = list(missing)
        for batch in _arrivals(self._executor, function, list(missing.values())):
            results = [(keys[position], result) for position, result in batch]
            self._trials.remember(results)
            self.computed += len(results)
            yield results


def _arrivals(executor: Works, function: Callable[[T], R], items: Sequence[T]) -> Iterator[Sequence[tuple[int, R]]]:
    """Results as they come where the executor tells, otherwise one after the other."""
    arrivals = getattr(executor, "arrivals", None)
    if arrivals is not None:
        yield from arrivals(function, items)
        return
    for result in enumerate(executor.map(function, items)):
        yield [result]
