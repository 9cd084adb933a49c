"""Requests on a fleet of equal replicas: the arrays in, the timings and activity out."""

from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np
import numpy.typing as npt

from trilemma.errors import UnsupportedError
from trilemma.latency.table import StepTable
from trilemma.metrics.timings import Timings
from trilemma.sim import kernel, layout
from trilemma.sim.engine import EngineLimits
from trilemma.sim.fleet import Fleet
from trilemma.sim.setup import Setup, set_up
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

__all__ = ["EngineLimits", "Run", "WaitReason", "simulate"]

IntArray = npt.NDArray[np.int64]
LATEST_ARRIVAL_S = 8e6  # 92 days: 64 bits hold 106 days of picoseconds, and the run goes on after the last arrival
LONGEST_REQUEST = 2**31  # tokens


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
def _edges_s() -> npt.NDArray[np.float64]:
    """Lower edges of every histogram bin and the last upper edge, seconds."""
    index = np.arange(layout.HISTOGRAM_BINS + 1)
    exponent, sub = np.divmod(index, layout.HISTOGRAM_SUBBINS)
    edges: npt.NDArray[np.float64] = np.ldexp(0.5 + sub / (2 * layout.HISTOGRAM_SUBBINS), exponent) / PS_PER_S
    edges.flags.writeable = False
    return edges


def _seconds(ps: IntArray) -> npt.NDArray[np.float64]:
    """Picoseconds as seconds, NaN for negative ones; takes the array's memory."""
    missing = ps < 0
    seconds: npt.NDArray[np.float64] = np.divide(ps, PS_PER_S, out=ps.view(np.float64))
    seconds[missing] = np.nan
    return seconds


def _check(requests: Requests, table: StepTable, limits: EngineLimits, fleet: Fleet, clients: int) -> None:
    if table.token_ps.size <= limits.max_num_batched_tokens or table.sequence_ps.size <= limits.max_num_seqs:
        raise ValueError(
            f"a table up to {table.token_ps.size - 1} tokens and {table.sequence_ps.size - 1} sequences "
            f"cannot price {limits}"
        )
    if clients and clients < fleet.replicas:
        raise ValueError(f"{clients} clients cannot keep {fleet.replicas} replicas busy")
    n = len(requests)
    if not n:
        return
    if requests.arrival_s[0] < 0:
        raise ValueError(f"arrivals count from 0, found {requests.arrival_s[0]} s")
    longest = int(requests.prompt_tokens.max()) + int(requests.output_tokens.max())
    if longest >= LONGEST_REQUEST:
        raise UnsupportedError(f"a request of up to {longest:,} tokens; the simulator holds {LONGEST_REQUEST:,}")
    if requests.arrival_s[-1] > LATEST_ARRIVAL_S:
        raise UnsupportedError(
            f"the simulator's clock holds {LATEST_ARRIVAL_S / 86400:.0f} days, the last request arrives after "
            f"{requests.arrival_s[-1] / 86400:,.0f}: cut a window out of the trace"
        )


def _samples(setup: Setup) -> IntArray:
    """(replicas, k, 8) the rows each replica took, and after them its state at the end of its last step."""
    counts = setup.state.scalars[:, layout.SAMPLE_ROWS]
    samples = np.zeros((counts.size, int(counts.max()) + 1, 8), np.int64)
    for r, (count, totals) in enumerate(zip(counts, setup.out.totals, strict=True)):
        samples[r, :count] = setup.out.samples[r, :count]
        last = samples[r, count:]
        for column, total in (
            (layout.S_TIME, layout.END_PS),
            (layout.S_PREFILL_TOKENS, layout.PREFILL_TOKENS),
            (layout.S_DECODE_TOKENS, layout.DECODE_TOKENS),
            (layout.S_PREFILL_PS, layout.PREFILL_PS),
            (layout.S_DECODE_PS, layout.DECODE_PS),
        ):
            last[:, column] = totals[total]
    return samples


def simulate(
    requests: Requests,
    table: StepTable,
    limits: EngineLimits,
    *,
    replicas: int = 1,
    clients: int = 0,
    fleet: Fleet | None = None,
    sample_s: float = 0.0,
) -> Run:
    """Play `requests` on a fleet of equal replicas: `replicas` behind a round-robin router, or any `fleet`.

    Open loop by default; requests with think times follow the answers of their session. With `clients` > 0 the loop is
    closed: all start at 0, each sends its next request when its last one is answered, arrival_s and think times are
    ignored; behind a round-robin router each replica has its own share of the clients and of the requests. With
    `sample_s` the state is sampled so often (more coarsely where a run would take more than 4,096 samples). The same
    input gives the same bits.

    ValueError for a table smaller than the limits, fewer clients than replicas or an arrival before 0;
    UnsupportedError for an arrival after LATEST_ARRIVAL_S, requests of 2**31 tokens, or prefix caching without
    block ids.
    """
    fleet = fleet or Fleet(replicas=replicas)
    _check(requests, table, limits, fleet, clients)
    setup = set_up(requests, table, limits, fleet, clients=clients, sample_s=sample_s)
    kernel.run(setup.rules, setup.prices, setup.load, setup.out, setup.state)
    out, totals = setup.out, setup.out.totals
    arrival_s = _seconds(setup.load.arrival)
    queued_s = _seconds(out.start)
    queued_s -= arrival_s
    timings = Timings(
        arrival_s=arrival_s,
        first_token_s=_seconds(out.first),
        done_s=_seconds(out.done),
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
        preemptions=out.preempted.astype(np.int64),
        recomputed_tokens=out.lost.astype(np.int64),
        itl_edges_s=_edges_s(),
        itl_counts=out.histogram,
    )
    busy_ps = totals[:, [layout.PREFILL_PS, layout.DECODE_PS]].sum(axis=0)
    busy_us = float(busy_ps.sum()) / 1e6
    return Run(
        timings=timings,
        queued_s=queued_s,
        wait_reason=out.reason,
        replica=out.replica,
        hit_tokens=out.hits if limits.prefix_caching else None,
        replicas=fleet.replicas,
        steps=int(totals[:, layout.STEPS].sum()),
        prefill_s=float(busy_ps[0]) / PS_PER_S,
        decode_s=float(busy_ps[1]) / PS_PER_S,
        span_s=float(totals[:, layout.END_PS].max(initial=0)) / PS_PER_S,
        peak_kv_share=float(totals[:, layout.PEAK_BLOCKS].max(initial=0)) / limits.kv_blocks,
        mean_running=float(totals[:, layout.SEQUENCE_US].sum()) / busy_us if busy_us else 0.0,
        refused=int(totals[:, layout.REFUSED].sum()),
        failed=int(totals[:, layout.FAILED].sum()),
        samples=_samples(setup) if sample_s else None,
        sample_s=float(setup.state.scalars[:, layout.SAMPLE_PS].max()) / PS_PER_S,
    )
