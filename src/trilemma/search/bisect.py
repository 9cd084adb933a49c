"""The largest value a predicate holds at, by bracketing; the predicate is dear, so it is asked few times."""

from collections.abc import Callable
from math import inf


def largest(holds: Callable[[float], bool], *, guess: float, most: float, precision: float, shrinks: int = 6) -> float:
    """The largest x in (0, most] with holds(x), to a relative `precision`; 0.0 if none is found.

    Starts at `guess`, grows or shrinks by doubling until it has a bracket (giving up below guess / 2**`shrinks`), then
    bisects geometrically and returns the lower end, where the predicate held. Where `holds` is not monotonic the
    answer is one of its upper edges. ValueError unless guess, most and precision are above zero.

    >>> round(largest(lambda x: x <= 3.3, guess=1.0, most=100.0, precision=0.01), 1)
    3.3
    >>> largest(lambda x: True, guess=1.0, most=5.0, precision=0.01)
    5.0
    >>> largest(lambda x: False, guess=1.0, most=5.0, precision=0.01)
    0.0
    """
    if not (0 < guess < inf and 0 < most < inf and precision > 0):
        raise ValueError(f"guess, most and precision must be positive, found {guess}, {most} and {precision}")
    guess = min(guess, most)
    if holds(guess):
        if guess == most:
            return most
        low, high = guess, min(2 * guess, most)
        while high < most and holds(high):
            low, high = high, min(2 * high, most)
        if high >= most and holds(most):
            return most
    else:
        low, high = guess / 2, guess
        for _ in range(shrinks):
            if holds(low):
                break
            low, high = low / 2, low
        else:
            return 0.0
    while high / low > 1 + precision:
        middle = (low * high) ** 0.5
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
