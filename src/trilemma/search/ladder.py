"""The highest rung of a ladder that a dear predicate holds on, found from wherever one thinks it is."""

from collections.abc import Callable


def highest(
    holds: Callable[[int], bool], *, guess: int, least: int, most: int, stride: int = 1, doubts: int = 2
) -> int | None:
    """The largest rung in [least, most] that holds; None where not even `least` does.

    Walks from `guess` in steps of `stride`, `2 stride`, `4 stride`, ... until it has a rung that holds below one that
    does not, then bisects. After `doubts` steps down `least` is asked, so that a ladder without any rung is left early.
    Where `holds` is monotonic (below one that holds all hold) the answer does not depend on `guess`, `stride` or
    `doubts`; elsewhere it is one of the upper edges. No rung is asked twice. ValueError for an empty ladder or stride.

    >>> [highest(lambda rung: rung <= 17, guess=g, least=0, most=40, stride=s) for g, s in ((0, 1), (40, 8), (17, 2))]
    [17, 17, 17]
    >>> highest(lambda rung: False, guess=3, least=0, most=40) is None
    True
    """
    if least > most or stride < 1:
        raise ValueError(f"expected rungs and a stride of at least 1, found {least} to {most} by {stride}")
    guess = min(max(guess, least), most)
    low, high = (guess, None) if holds(guess) else (None, guess)
    steps = 0
    while high is None and low is not None and low < most:
        rung = min(low + stride, most)
        low, high = (rung, None) if holds(rung) else (low, rung)
        stride *= 2
    while low is None and high is not None and high > least:
        rung = least if steps == doubts else max(high - stride, least)
        if holds(rung):
            low = rung
        elif rung == least:
            return None
        else:
            high, stride, steps = rung, 2 * stride, steps + 1
    if low is None or high is None:
        return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
