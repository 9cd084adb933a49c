"""The one table of requests that simulation, measurement and statistics share."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """n requests in arrival order.

    arrival_s (n,) float64 seconds from the start of the table, non-decreasing; prompt_tokens and output_tokens (n,)
    int64, at least 1. block_ids (m,) int64 holds each request's prefix blocks one after the other, request i owning
    block_ids[block_offsets[i]:block_offsets[i + 1]], each block covering `block_tokens` prompt tokens (the last one
    may be partial); all three None/0 where the trace has none. session (n,) int64 or None.
    """

    arrival_s: FloatArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    block_offsets: IntArray | None = None
    block_ids: IntArray | None = None
    block_tokens: int = 0
    session: IntArray | None = None

    def __post_init__(self) -> None:
        n = self.arrival_s.size
        if self.prompt_tokens.size != n or self.output_tokens.size != n:
            raise ValueError(f"arrays differ in length: {n}, {self.prompt_tokens.size}, {self.output_tokens.size}")
        if n and (self.prompt_tokens.min() < 1 or self.output_tokens.min() < 1):
            raise ValueError("a request needs at least one prompt and one output token")
        if n and (not np.isfinite(self.arrival_s).all() or (np.diff(self.arrival_s) < 0).any()):
            raise ValueError("arrivals must be finite and in order")

    def __len__(self) -> int:
        return int(self.arrival_s.size)

    @property
    def duration_s(self) -> float:
        """Span from time 0 to the last arrival, seconds; 0 for an empty table."""
        return float(self.arrival_s[-1]) if len(self) else 0.0

    @property
    def rate_per_s(self) -> float:
        """Mean arrival rate over the span; infinite where everything arrives at once."""
        if not len(self):
            return 0.0
        return len(self) / self.duration_s if self.duration_s > 0 else float("inf")

    def take(self, index: npt.NDArray[Any] | slice) -> "Requests":
        """The requests at `index` (a slice, a mask or increasing positions), arrival times unchanged."""
        where = np.arange(len(self))[index]
        offsets = ids = None
        if self.block_offsets is not None and self.block_ids is not None:
            starts, ends = self.block_offsets[where], self.block_offsets[where + 1]
            counts = ends - starts
            offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            inside = np.arange(int(counts.sum())) - np.repeat(offsets[:-1], counts)
            ids = self.block_ids[np.repeat(starts, counts) + inside]
        return Requests(
            arrival_s=self.arrival_s[where],
            prompt_tokens=self.prompt_tokens[where],
            output_tokens=self.output_tokens[where],
            block_offsets=offsets,
            block_ids=ids,
            block_tokens=self.block_tokens,
            session=None if self.session is None else self.session[where],
        )

    def at_rate(self, factor: float) -> "Requests":
        """The same requests arriving `factor` times as fast."""
        if not factor > 0:
            raise ValueError(f"a rate factor must be positive, found {factor}")
        return replace(self, arrival_s=self.arrival_s / factor)
