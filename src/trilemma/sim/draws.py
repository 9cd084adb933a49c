"""Random numbers that depend on nothing but their key: the same draw whatever was drawn before, on every machine.

splitmix64 is a bijection of 64-bit words with well-mixed bits (Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014); all arithmetic is modulo 2**64, in uint64 throughout, because numba makes a float of
the sum of a signed and an unsigned 64-bit number.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trilemma.sim.compiled import compiled

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
_SECOND_FACTOR = np.uint64(0x94D049BB133111EB)
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_TO_53_BITS = np.uint64(11)
_SEED_SHIFT = np.uint64(32)
DRAW_RANGE = 2**53  # draws are whole numbers below this


@compiled
def splitmix64(key):
    """The mixed word of a key, both uint64."""
    z = np.uint64(key) + _GOLDEN
    z = (z ^ (z >> _SHIFTS[0])) * _FIRST_FACTOR
    z = (z ^ (z >> _SHIFTS[1])) * _SECOND_FACTOR
    return z ^ (z >> _SHIFTS[2])


@compiled
def request_key(seed, request):
    """The key of one request's draws: seed below 2**32, request its index."""
    return splitmix64((np.uint64(seed) << _SEED_SHIFT) + np.uint64(request))


@compiled
def accepted_tokens(key, decode_step, thresholds):
    """Tokens emitted by a request's decode step: 1 + the number of thresholds that the draw reaches.

    `key` is the request's, `decode_step` counts its own decode steps from 0, never reset; thresholds as `thresholds_of`
    makes them. The draw is the upper 53 bits of a mixed word.
    """
    draw = np.int64(splitmix64(key + np.uint64(decode_step)) >> _TO_53_BITS)
    tokens = 1
    for i in range(thresholds.size):
        if draw >= thresholds[i]:
            tokens += 1
    return tokens


def thresholds_of(acceptance: Sequence[float]) -> npt.NDArray[np.int64]:
    """(k - 1,) int64 for the probabilities that exactly 1..k tokens are emitted: the first draw that emits more.

    A draw u < 2**53 emits more than j tokens if u / 2**53 reaches the sum of the first j probabilities.
    """
    reached = np.cumsum(np.asarray(acceptance, np.float64))[:-1]
    thresholds: npt.NDArray[np.int64] = np.ceil(np.minimum(reached, 1.0) * DRAW_RANGE).astype(np.int64)
    return thresholds
