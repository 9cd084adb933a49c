"""What a simulated run reports, whichever kernel played it."""

from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np
import numpy.typing as npt

from trilemma.metrics.timings import Timings
from trilemma.sim import layout
from trilemma.sim.stretch import divide
from trilemma.units import PS_PER_S

IntArray = npt.NDArray[np.int64]


class WaitReason(IntEnum):
    """What kept the head of the queue out when a request was last passed over."""

    NONE = layout.NOTHING
    SEATS = layout.SEATS
    TOKENS = layout.TOKENS
    KV = layout.KV
    NO_REPLICA = layout.NO_REPLICA


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A simulated run, summed over replicas; GPU time is not here: multiply by the GPUs of a replica.

    `prefill_s` and `decode_s` are busy replica-seconds (a step's decode share is what it would have taken without its
    prefill), `span_s` the time from 0 to the last event, `queued_s` (n,) arrival to first scheduling (NaN where
    refused), `peak_kv_share` the fullest any replica's KV cache got, `mean_running` running sequences averaged over
    busy time. `wait_reason` (n,) int8 holds WaitReason values, `replica` (n,) int16 who served (-1: nobody),
    `hit_tokens` (n,) prompt tokens found in the prefix cache, None without one. `refused` requests could never fit,
    `failed` ones were lost with their replica or found none. `samples` (replicas, k, 8) are rows of layout.S_* columns
    every `sample_s` seconds, None where none were asked for.
    """

    timings: Timings
    queued_s: npt.NDArray[np.float64]
    wait_reason: npt.NDArray[np.int8]
    replica: npt.NDArray[np.int16]
    hit_tokens: npt.NDArray[np.int32] | None
    replicas: int
    steps: int
    prefill_s: float
    decode_s: float
    span_s: float
    peak_kv_share: float
    mean_running: float
    refused: int
    failed: int = 0
    samples: IntArray | None = None
    sample_s: float = 0.0

    @property
    def busy_share(self) -> float:
        """Busy time over the span, averaged over replicas."""
        busy_s = self.prefill_s + self.decode_s
        return min(1.0, busy_s / (self.span_s * self.replicas)) if self.span_s > 0 else 0.0


@cache
def edges_s() -> npt.NDArray[np.float64]:
    """(layout.HISTOGRAM_BINS + 1,) lower edges of every histogram bin and the last upper edge, seconds."""
    index = np.arange(layout.HISTOGRAM_BINS + 1)
    exponent, sub = np.divmod(index, layout.HISTOGRAM_SUBBINS)
    edges: npt.NDArray[np.float64] = np.ldexp(0.5 + sub / (2 * layout.HISTOGRAM_SUBBINS), exponent) / PS_PER_S
    edges[0] = 0.0  # tokens of one step come together
    edges.flags.writeable = False
    return edges


def seconds(ps: IntArray) -> npt.NDArray[np.float64]:
    """(n,) picoseconds as seconds, NaN for negative ones; takes the array's memory."""
    in_seconds = ps.view(np.float64)
    divide(ps, in_seconds)
    return in_seconds
