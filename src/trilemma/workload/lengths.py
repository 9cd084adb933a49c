"""How long prompts and outputs are: fixed, uniform, lognormal, geometric, or as observed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from trilemma.errors import InputError
from trilemma.workload.requests import IntArray, Requests
from trilemma.workload.trace_rows import MOST_TOKENS

NORMAL_95: Final = NormalDist().inv_cdf(0.95)
_LOGNORMAL_WAYS = (("median", "p95"), ("median", "sigma"), ("mean", "cv"))


class Lengths(Protocol):
    """A distribution of token counts."""

    @property
    def mean_tokens(self) -> float:
        """Its mean, tokens; before rounding and cutting where those matter."""
        ...

    def draw(self, random: np.random.Generator, n: int) -> IntArray:
        """(n,) token counts, each at least 1. A larger n only adds to the end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """Always `tokens`."""

    tokens: int

    def __post_init__(self) -> None:
        _check_tokens("tokens", self.tokens)

    @property
    def mean_tokens(self) -> float:
        """`tokens`."""
        return float(self.tokens)

    def draw(self, random: np.random.Generator, n: int) -> IntArray:  # noqa: ARG002
        """(n,) times `tokens`."""
        return np.full(n, self.tokens, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """Every whole number from `low` to `high`, both included, equally often."""

    low: int
    high: int

    def __post_init__(self) -> None:
        _check_tokens("low", self.low)
        _check_tokens("high", self.high)
        if self.low > self.high:
            raise InputError("high", expected=f"at least low, {self.low}", found=str(self.high))

    @classmethod
    def of_ratio(cls, length: int, ratio: float) -> "Uniform":
        """From ratio x length (rounded down, at least 1) to length, as serving benchmarks with a range ratio draw.

        >>> Uniform.of_ratio(1024, 0.8)
        Uniform(low=819, high=1024)
        """
        _check_tokens("length", length)
        if not 0 <= ratio <= 1:
            raise InputError("ratio", expected="a number from 0 to 1", found=f"{ratio}")
        return cls(low=max(1, math.floor(length * ratio)), high=length)

    @property
    def mean_tokens(self) -> float:
        """The middle."""
        return (self.low + self.high) / 2

    def draw(self, random: np.random.Generator, n: int) -> IntArray:
        """(n,) whole numbers from low to high."""
        return random.integers(self.low, self.high, size=n, endpoint=True, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lognormal:
    """exp of a normal variable, rounded, then cut to `minimum` .. `maximum`.

    Given by `median` and `p95`, by `median` and `sigma` (standard deviation of the logarithm), or by `mean` and `cv`
    (standard deviation over mean), never a mix.

    >>> Lognormal(median=1000.0, p95=1000.0).mean_tokens
    1000.0
    """

    median: float | None = None
    p95: float | None = None
    sigma: float | None = None
    mean: float | None = None
    cv: float | None = None
    minimum: int = 1
    maximum: int = MOST_TOKENS

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("median", "p95", "sigma", "mean", "cv")}
        given = {name: value for name, value in given.items() if value is not None}
        if tuple(given) not in _LOGNORMAL_WAYS:
            expected = ", or ".join(" and ".join(way) for way in _LOGNORMAL_WAYS)
            raise InputError("lognormal", expected=expected, found=" and ".join(given) or "neither")
        for name, value in given.items():
            least, most = (0, 100) if name in ("cv", "sigma") else (1, MOST_TOKENS)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise InputError(name, expected=f"a number from {least} to {most:,}", found=repr(value))
        if "p95" in given and given["p95"] < given["median"]:
            raise InputError("p95", expected=f"at least the median, {self.median:g}", found=f"{self.p95:g}")
        _check_tokens("minimum", self.minimum)
        _check_tokens("maximum", self.maximum)
        if self.minimum > self.maximum:
            raise InputError("maximum", expected=f"at least minimum, {self.minimum}", found=str(self.maximum))

    @property
    def log_mean_and_deviation(self) -> tuple[float, float]:
        """Mean and standard deviation of the normal variable."""
        if self.median is not None:
            if self.p95 is not None:
                return math.log(self.median), math.log(self.p95 / self.median) / NORMAL_95
            return math.log(self.median), self.sigma or 0.0
        variance = math.log1p((self.cv or 0.0) ** 2)
        return math.log(self.mean or 1.0) - variance / 2, math.sqrt(variance)

    @property
    def mean_tokens(self) -> float:
        """Mean before rounding and cutting."""
        deviation = self.log_mean_and_deviation[1]
        return self.mean if self.mean is not None else (self.median or 1.0) * math.exp(deviation**2 / 2)

    def draw(self, random: np.random.Generator, n: int) -> IntArray:
        """(n,) rounded values from minimum to maximum."""
        center, deviation = self.log_mean_and_deviation
        # exp of at most 700 stays finite; the cut comes long before.
        values = np.exp(np.minimum(center + deviation * random.standard_normal(n), 700.0))
        return np.clip(np.rint(values), self.minimum, self.maximum).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometric:
    """1 with probability 1 / `mean`, else one more, and so on, cut to `maximum`: turns of a session that may end after
    each with the same chance.

    >>> Geometric(mean=1.0).draw(np.random.default_rng(0), 3).tolist()
    [1, 1, 1]
    """

    mean: float
    maximum: int = MOST_TOKENS

    def __post_init__(self) -> None:
        if isinstance(self.mean, bool) or not isinstance(self.mean, int | float) or not 1 <= self.mean <= MOST_TOKENS:
            raise InputError("mean", expected=f"a number from 1 to {MOST_TOKENS:,}", found=repr(self.mean))
        _check_tokens("maximum", self.maximum)

    @property
    def mean_tokens(self) -> float:
        """Mean before cutting."""
        return float(self.mean)

    def draw(self, random: np.random.Generator, n: int) -> IntArray:
        """(n,) whole numbers from 1 to maximum."""
        return np.minimum(random.geometric(1 / self.mean, size=n), self.maximum).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Empirical:
    """Drawn with replacement from `values`, each as likely as the other."""

    values: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise InputError("values", expected="at least one length", found="none")
        for place, value in enumerate(self.values):
            _check_tokens(f"values[{place}]", value)

    @property
    def mean_tokens(self) -> float:
        """Mean of the values."""
        return math.fsum(self.values) / len(self.values)

    def draw(self, random: np.random.Generator, n: int) -> IntArray:
        """(n,) of the values."""
        return np.asarray(self.values, dtype=np.int64)[random.integers(len(self.values), size=n)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthPairs:
    """Prompt and output drawn together with replacement from observed requests, so that they stay correlated.

    prompt_tokens and output_tokens (k,), k at least 1.
    """

    prompt_tokens: IntArray
    output_tokens: IntArray

    def __post_init__(self) -> None:
        if not self.prompt_tokens.size or self.prompt_tokens.size != self.output_tokens.size:
            found = f"{self.prompt_tokens.size} and {self.output_tokens.size}"
            raise InputError("lengths", expected="as many prompt as output lengths, at least one", found=found)

    @classmethod
    def of(cls, requests: Requests) -> "LengthPairs":
        """The lengths of recorded requests."""
        return cls(prompt_tokens=requests.prompt_tokens, output_tokens=requests.output_tokens)

    def draw(self, random: np.random.Generator, n: int) -> tuple[IntArray, IntArray]:
        """(n,), (n,) prompt and output tokens."""
        where: npt.NDArray[np.int64] = random.integers(self.prompt_tokens.size, size=n)
        return self.prompt_tokens[where], self.output_tokens[where]


DISTRIBUTIONS: Final[Mapping[str, type[Fixed | Uniform | Lognormal | Geometric | Empirical]]] = {
    "fixed": Fixed,
    "uniform": Uniform,
    "lognormal": Lognormal,
    "geometric": Geometric,
    "empirical": Empirical,
}


def empirical(values: Sequence[int] | IntArray) -> Empirical:
    """The distribution of given lengths, such as one column of a trace.

    >>> empirical([3, 3, 6]).mean_tokens
    4.0
    """
    return Empirical(values=tuple(int(value) for value in values))


def _check_tokens(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_TOKENS:
        raise InputError(name, expected="a whole number of tokens from 1 to 2^31 - 1", found=repr(value))
