"""The daily or weekly shape of a load: what an hour's trace cannot know of the night."""

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from trilemma.errors import InputError
from trilemma.workload.requests import FloatArray

HOURS: Final = (24, 168)


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyProfile:
    """Relative load of each hour of a day (24) or of a week from Monday on (168), each hour from :00 to :59.

    Only ratios count. `trace_is` says what the trace's rate stands for: the busiest hour ("peak") or the average of
    all hours ("mean"). Raises InputError for another number of hours, a negative or non-finite multiplier, or no load.

    >>> day = DailyProfile(multipliers=(1.0,) * 12 + (3.0,) * 12, trace_is="peak")
    >>> day.load_rps(6.0)[[0, 23]].tolist(), day.peak_over_mean
    ([2.0, 6.0], 1.5)
    """

    multipliers: tuple[float, ...]
    trace_is: Literal["peak", "mean"]

    def __post_init__(self) -> None:
        count = len(self.multipliers)
        if count not in HOURS:
            expected = "24 numbers (a day) or 168 (a week from Monday)"
            raise InputError("profile.multipliers", expected=expected, found=f"{count} number{'s' * (count != 1)}")
        for hour, value in enumerate(self.multipliers):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                where = f"profile.multipliers[{hour}]"
                raise InputError(where, expected="a number that is finite and not negative", found=repr(value))
        if not any(self.multipliers):
            raise InputError("profile.multipliers", expected="at least one hour with load", found="all zero")
        if self.trace_is not in ("peak", "mean"):
            raise InputError("profile.trace_is", expected="peak or mean", found=repr(self.trace_is))

    @property
    def hours(self) -> int:
        """Length of the period, hours: 24 or 168."""
        return len(self.multipliers)

    @property
    def peak_over_mean(self) -> float:
        """The busiest hour over the average one; at least 1."""
        return max(self.multipliers) * self.hours / math.fsum(self.multipliers)

    def load_rps(self, trace_rps: float) -> FloatArray:
        """(hours,) requests per second of each hour, the trace running at `trace_rps`."""
        shape = np.asarray(self.multipliers, dtype=np.float64)
        unit = float(shape.max()) if self.trace_is == "peak" else math.fsum(self.multipliers) / self.hours
        return trace_rps * (shape / unit)
