"""What the simulator's values are made of: whole numbers, real ones and flags, inside what its arithmetic holds.

Nonsense is a ValueError; what makes sense but exceeds the simulator's 64 bits an UnsupportedError. Both name the field.
Values come back as Python's own types: the kernels are compiled anew for any other.
"""

import math
from enum import IntEnum
from numbers import Integral, Real
from typing import Any

import numpy as np

from trilemma.errors import UnsupportedError

LATEST_ARRIVAL_S = 4e6  # 46 days: the clock ends after 2**62 ps, which are 53, and a run goes on after the last arrival
MOST_TOKENS = 2**31 - 1  # of a request, a step or a limit: they are counted in 32 bits
MOST_REPLICAS = 2**15 - 1  # a request's replica is kept in 16 bits
MOST_SEED = 2**31 - 1  # it is the upper half of a key of 64 bits


def whole(name: str, value: Any, *, least: int, most: int) -> int:  # noqa: ANN401 - whatever the caller was given
    """The value as a whole number. ValueError for another type or one below `least`, UnsupportedError beyond `most`.

    >>> whole("max_num_seqs", np.int32(8), least=1, most=MOST_TOKENS)
    8
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"{name}: expected a whole number, found {value!r}")  # noqa: TRY004 - one kind of error
    number = int(value)
    if number < least:
        wanted = "cannot be negative" if least == 0 else f"must be at least {least}"
        raise ValueError(f"{name} {wanted}, found {number}")
    if number > most:
        raise UnsupportedError(f"{name}: the simulator holds at most {most:,}, found {number:,}")
    return number


def real(name: str, value: Any) -> float:  # noqa: ANN401
    """The value as a number, which may be infinite. ValueError for NaN or another type."""
    if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
        raise ValueError(f"{name}: expected a number, found {value!r}")
    return float(value)


def flag(name: str, value: Any) -> bool:  # noqa: ANN401
    """The value as a bool. ValueError for another type."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}: expected True or False, found {value!r}")  # noqa: TRY004
    return bool(value)


def member(name: str, value: Any, kind: type[IntEnum]) -> None:  # noqa: ANN401
    """ValueError for a value that is none of an enumeration's; its number is not enough, the rules ask who it is."""
    if not isinstance(value, kind):
        known = ", ".join(f"{kind.__name__}.{one.name}" for one in kind)
        raise ValueError(f"{name}: expected one of {known}, found {value!r}")  # noqa: TRY004
