"""Named random streams: one per purpose, so that adding a draw somewhere never moves the draws elsewhere."""

import numpy as np

from trilemma.errors import InputError


def stream(seed: int, name: str) -> np.random.Generator:
    """The generator of one purpose: equal for equal (seed, name), independent of every other name and seed.

    Raises InputError for a negative seed.

    >>> a, b = stream(0, "arrivals"), stream(0, "arrivals")
    >>> bool(a.random() == b.random()), bool(stream(0, "x").random() == stream(0, "y").random())
    (True, False)
    """
    if seed < 0:
        raise InputError("seed", expected="a whole number that is not negative", found=str(seed))
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(name.encode())))
