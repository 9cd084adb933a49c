"""What happened to each request beside its latencies: where it ran, what its prefix saved, what it waited for."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from trilemma.metrics.timings import FloatArray, IntArray, Timings

# By code. none: nothing but the step under way when the request came.
WAIT_REASONS: Final = ("none", "seats", "tokens", "kv", "cold_start")
STATUSES: Final = ("finished", "refused", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """n requests of one run.

    queued_s (n,) arrival to first scheduling, NaN where there was none; replica (n,) index, -1 where it reached none;
    hit_tokens (n,) prompt tokens found in the prefix cache at the first admission; wait_reason (n,) index into
    WAIT_REASONS: what kept the request out while it queued; lost_s (n,) when it was lost with its replica, NaN where it
    was not (what was neither finished nor lost was refused); session (n,) or None.
    """

    timings: Timings
    queued_s: FloatArray
    replica: IntArray
    hit_tokens: IntArray
    wait_reason: npt.NDArray[np.int8]
    lost_s: FloatArray
    session: IntArray | None = None

    def __post_init__(self) -> None:
        n = len(self.timings)
        for name in ("queued_s", "replica", "hit_tokens", "wait_reason", "lost_s"):
            if getattr(self, name).size != n:
                raise ValueError(f"arrays differ in length: {n} requests, {getattr(self, name).size} of {name}")

    def __len__(self) -> int:
        return len(self.timings)

    @property
    def status(self) -> npt.NDArray[np.int8]:
        """(n,) index into STATUSES."""
        codes = np.where(self.timings.finished, 0, np.where(np.isfinite(self.lost_s), 2, 1))
        return codes.astype(np.int8)

    @property
    def start_s(self) -> FloatArray:
        """(n,) first scheduling; NaN where there was none."""
        return self.timings.arrival_s + self.queued_s

    @property
    def hit_share(self) -> float | None:
        """Prompt tokens found in the prefix cache over all prompt tokens of requests that started; None without any."""
        started = np.isfinite(self.queued_s)
        tokens = int(self.timings.prompt_tokens[started].sum())
        return int(self.hit_tokens[started].sum()) / tokens if tokens else None

    @property
    def wait_shares(self) -> dict[str, float]:
        """Share of all queued time by what was waited for; all 0 where nobody queued.

        >>> zeros = np.zeros(2)
        >>> ones = np.ones(2, dtype=np.int64)
        >>> timings = Timings(arrival_s=zeros, first_token_s=zeros + 9, done_s=zeros + 9, prompt_tokens=ones,
        ...                   output_tokens=ones, preemptions=ones, recomputed_tokens=ones)
        >>> Outcomes(timings=timings, queued_s=np.array([1.0, 3.0]), replica=0 * ones, hit_tokens=0 * ones,
        ...          wait_reason=np.array([1, 3], dtype=np.int8), lost_s=zeros + np.nan).wait_shares
        {'none': 0.0, 'seats': 0.25, 'tokens': 0.0, 'kv': 0.75, 'cold_start': 0.0}
        """
        queued_s = np.nan_to_num(self.queued_s, nan=0.0)
        by_reason = np.bincount(self.wait_reason, weights=queued_s, minlength=len(WAIT_REASONS))
        total = float(by_reason.sum())
        return {name: float(by_reason[code]) / total if total > 0 else 0.0 for code, name in enumerate(WAIT_REASONS)}

    @property
    def wait_counts(self) -> dict[str, int]:
        """Requests by what they waited for."""
        counts = np.bincount(self.wait_reason, minlength=len(WAIT_REASONS))
        return {name: int(counts[code]) for code, name in enumerate(WAIT_REASONS)}
