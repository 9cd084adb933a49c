"""Time of an operation and its parts: arrays in and arrays out."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

ACTIVATION_BYTES = 2  # activations between operations stay in BF16


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds (n,) of an operation and the parts a roofline is made of: memory_s, compute_s, link_s and fixed_s."""

    seconds: FloatArray
    memory_s: FloatArray
    compute_s: FloatArray
    link_s: FloatArray
    fixed_s: FloatArray

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            seconds=self.seconds + other.seconds,
            memory_s=self.memory_s + other.memory_s,
            compute_s=self.compute_s + other.compute_s,
            link_s=self.link_s + other.link_s,
            fixed_s=self.fixed_s + other.fixed_s,
        )

    def scaled(self, factor: float) -> "Cost":
        """The same operation `factor` times as long."""
        return self.map(lambda part: part * factor)

    def map(self, change: Callable[[FloatArray], FloatArray]) -> "Cost":
        """The same change to every part."""
        return Cost(
            seconds=change(self.seconds),
            memory_s=change(self.memory_s),
            compute_s=change(self.compute_s),
            link_s=change(self.link_s),
            fixed_s=change(self.fixed_s),
        )

    def stretched(self, ratio: FloatArray) -> "Cost":
        """The same operation, `ratio` (n,) times as long; the parts stay what the data sheet says."""
        return replace(self, seconds=self.seconds * ratio)

    def total(self, calls: FloatArray) -> "Cost":
        """Costs of shape (kernels, n) summed over kernels, each `calls` (kernels,) times: shape (n,)."""
        return self.map(lambda part: calls @ part)

    @property
    def binds(self) -> str:
        """What takes most of the time summed over n: "HBM bandwidth", "FLOPs", "link" or "overhead"."""
        parts = {
            "HBM bandwidth": float(self.memory_s.sum()),
            "FLOPs": float(self.compute_s.sum()),
            "link": float(self.link_s.sum()),
            "overhead": float(self.fixed_s.sum()),
        }
        return max(parts, key=parts.__getitem__)


def nothing(n: int) -> Cost:
    """An operation that takes no time, n times."""
    zero = np.zeros(n)
    return Cost(seconds=zero, memory_s=zero, compute_s=zero, link_s=zero, fixed_s=zero)


def touched_experts(tokens: FloatArray, experts: int, per_token: int) -> FloatArray:
    """Expected distinct experts that `tokens` (n,) tokens reach with even routing: E (1 - (1 - k/E)^T).

    >>> touched_experts(np.array([1.0, 1e6]), 128, 8).round(6).tolist()
    [8.0, 128.0]
    """
    return experts * (1 - (1 - per_token / experts) ** tokens)
