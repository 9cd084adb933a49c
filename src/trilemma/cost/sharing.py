"""What bills share: a plan prices thousands of them, of few rates, offers and schedules."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
MOST = 512  # results kept of one function: a plan has a dozen rates and offers, a study with draws new ones every time


def made_once(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, called once for the same objects: positional arguments by identity, keyword ones by value.

    By identity, since rates and schedules hold mappings and arrays, which have no hash. They are frozen; what is kept
    holds them, so that no other object gets their ids. Whoever gets a result shares it and must not change it.
    """
    known: dict[tuple[object, ...], tuple[tuple[object, ...], T]] = {}

    @wraps(function)
    def shared(*objects: P.args, **plain: P.kwargs) -> T:
        key = (*map(id, objects), *plain.items())
        found = known.get(key)
        if found is None:
            if len(known) >= MOST:
                known.clear()
            found = known[key] = (objects, function(*objects, **plain))
        return found[1]

    return shared
