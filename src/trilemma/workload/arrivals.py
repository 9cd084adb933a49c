"""When requests come: Poisson, gamma, constant, all at once, or each after the last answer."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from trilemma.errors import InputError
from trilemma.workload.requests import FloatArray

MOST_REQUESTS: Final = 50_000_000
LEAST_BURSTINESS: Final = 1e-3  # gaps about 32 times as uneven as Poisson's; below, hardly a gap differs from 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """Clients that each send their next request when the last one is answered, as benchmarks do.

    The requests are taken in order by whichever of the `concurrency` clients is free; their arrival times are 0.
    """

    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """How requests arrive; `process` is one of PROCESSES.

    poisson, gamma, constant: gaps of mean 1 / rate_per_s between requests, the first after one gap, until `requests`
    of them or `duration_s` seconds, whichever is first (at least one is given). `burstiness` is the *shape* of the
    gamma gaps, as in `vllm bench serve`: their coefficient of variation is 1 / sqrt(burstiness), so 1 is Poisson,
    less is burstier, more is smoother. batch: `requests` all at 0. closed_loop: `requests` sent by `concurrency`
    clients.

    Raises InputError for what is missing, superfluous or out of range.
    """

    process: str
    rate_per_s: float | None = None
    burstiness: float | None = None
    requests: int | None = None
    duration_s: float | None = None
    concurrency: int | None = None

    def __post_init__(self) -> None:
        if self.process not in PROCESSES:
            raise InputError("arrivals.process", expected=f"one of {', '.join(PROCESSES)}", found=repr(self.process))
        uses = PROCESSES[self.process]
        given = {
            "rate": self.rate_per_s, "burstiness": self.burstiness, "requests": self.requests,
            "duration": self.duration_s, "concurrency": self.concurrency,
        }  # fmt: skip
        for key, value in given.items():
            if value is None and key in uses.needed:
                raise InputError(f"arrivals.{key}", expected=f"a value, for {self.process} arrivals", found="none")
            if value is not None and key not in uses.needed + uses.allowed:
                raise InputError(f"arrivals.{key}", expected=f"no {key} for {self.process} arrivals", found=f"{value}")
            if value is not None:
                _check_number(key, value)
        if self.process == "poisson" and self.burstiness not in (None, 1):
            expected = "1 for poisson arrivals (process gamma takes others)"
            raise InputError("arrivals.burstiness", expected=expected, found=f"{self.burstiness}")
        if self.requests is None and self.duration_s is None:
            raise InputError("arrivals", expected="requests, duration or both", found="neither")
        if self.requests is None and self.duration_s is not None and self.rate_per_s is not None:
            expected_count = self.rate_per_s * self.duration_s
            if expected_count > MOST_REQUESTS:
                expected = f"at most {MOST_REQUESTS:,} requests in all"
                raise InputError("arrivals.duration", expected=expected, found=f"about {expected_count:.3g}")

    @property
    def closed_loop(self) -> ClosedLoop | None:
        """The clients of a closed loop; None for the other processes."""
        return None if self.concurrency is None else ClosedLoop(concurrency=self.concurrency)

    def draw(self, random: np.random.Generator) -> FloatArray:
        """(n,) arrival times in order, seconds. A larger `requests` or `duration_s` only adds to the end."""
        gaps = PROCESSES[self.process].gaps
        if gaps is None or self.rate_per_s is None:
            return np.zeros(self.requests or 0)
        if self.duration_s is None:
            return np.cumsum(gaps(random, self.requests or 0, self.burstiness)) / self.rate_per_s
        mean_count = self.duration_s * self.rate_per_s
        most = MOST_REQUESTS if self.requests is None else self.requests
        chunk = int(min(most, mean_count + 6 * math.sqrt(mean_count) + 64))
        parts = [gaps(random, chunk, self.burstiness)]
        while True:
            times = np.cumsum(np.concatenate(parts)) / self.rate_per_s
            if times.size >= most or times[-1] > self.duration_s:
                return times[:most][times[:most] <= self.duration_s]
            parts.append(gaps(random, chunk, self.burstiness))


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One arrival process: its sampler of n gaps of mean 1 (None: everything at 0) and the keys it takes."""

    gaps: Callable[[np.random.Generator, int, float | None], FloatArray] | None
    needed: tuple[str, ...]
    allowed: tuple[str, ...] = ()


def burstiness_of_cv(cv: float) -> float:
    """The gamma shape whose gaps have the coefficient of variation `cv`.

    >>> burstiness_of_cv(2.0)
    0.25
    """
    return 1.0 / cv**2


def _poisson(random: np.random.Generator, n: int, _burstiness: float | None) -> FloatArray:
    return random.standard_exponential(n)


def _gamma(random: np.random.Generator, n: int, burstiness: float | None) -> FloatArray:
    shape = 1.0 if burstiness is None else burstiness
    return random.standard_gamma(shape, n) / shape


def _constant(_random: np.random.Generator, n: int, _burstiness: float | None) -> FloatArray:
    return np.ones(n)


PROCESSES: Final[Mapping[str, Process]] = {
    "poisson": Process(gaps=_poisson, needed=("rate",), allowed=("burstiness", "requests", "duration")),
    "gamma": Process(gaps=_gamma, needed=("rate", "burstiness"), allowed=("requests", "duration")),
    "constant": Process(gaps=_constant, needed=("rate",), allowed=("requests", "duration")),
    "batch": Process(gaps=None, needed=("requests",)),
    "closed_loop": Process(gaps=None, needed=("requests", "concurrency")),
}


def _check_number(key: str, value: float) -> None:
    where = f"arrivals.{key}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(where, expected="a number above 0", found=repr(value))
    if key == "burstiness" and value < LEAST_BURSTINESS:
        raise InputError(where, expected=f"a gamma shape of at least {LEAST_BURSTINESS:g}", found=f"{value:g}")
    if key in ("requests", "concurrency") and (value != int(value) or value > MOST_REQUESTS):
        raise InputError(where, expected=f"a whole number up to {MOST_REQUESTS:,}", found=repr(value))
