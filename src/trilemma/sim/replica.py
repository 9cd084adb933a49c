"""Requests on a deployment of equal replicas: the arrays in, the timings and activity out."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from trilemma.errors import UnsupportedError
from trilemma.latency.table import StepTable
from trilemma.metrics.timings import Timings
from trilemma.sim import kernel
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

IntArray = npt.NDArray[np.int64]
LATEST_ARRIVAL_S = 8e6  # 92 days: 64 bits hold 106 days of picoseconds, and the run goes on after the last arrival


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What the scheduler may use: tokens a step, sequences, KV blocks of `block_tokens` (usable ones, null block out).

    ValueError for zero capacity or max_num_batched_tokens < max_num_seqs, which vLLM refuses too.
    """

    max_num_batched_tokens: int
    max_num_seqs: int
    block_tokens: int
    kv_blocks: int

    def __post_init__(self) -> None:
        if min(self.max_num_seqs, self.block_tokens, self.kv_blocks) < 1:
            raise ValueError(f"seats, block size and KV blocks must be at least 1, found {self}")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least "
                f"max_num_seqs ({self.max_num_seqs})"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A simulated run, summed over replicas; GPU time is not here: multiply by the GPUs of a replica.

    `prefill_s` and `decode_s` are busy replica-seconds (a step's decode share is what it would have taken without its
    prefill), `span_s` the time from 0 to the last event, `queued_s` (n,) arrival to first scheduling (NaN where
    refused), `peak_kv_share` the fullest any replica's KV cache got, `mean_running` running sequences averaged over
    busy time.
    """

    timings: Timings
    queued_s: npt.NDArray[np.float64]
    replicas: int
    steps: int
    prefill_s: float
    decode_s: float
    span_s: float
    peak_kv_share: float
    mean_running: float
    refused: int

    @property
    def busy_share(self) -> float:
        """Busy time over the span, averaged over replicas."""
        busy_s = self.prefill_s + self.decode_s
        return min(1.0, busy_s / (self.span_s * self.replicas)) if self.span_s > 0 else 0.0


@cache
def _edges_s() -> npt.NDArray[np.float64]:
    """Lower edges of every histogram bin and the last upper edge, seconds."""
    index = np.arange(kernel.HISTOGRAM_BINS + 1)
    exponent, sub = np.divmod(index, kernel.HISTOGRAM_SUBBINS)
    edges: npt.NDArray[np.float64] = np.ldexp(0.5 + sub / (2 * kernel.HISTOGRAM_SUBBINS), exponent) / PS_PER_S
    edges.flags.writeable = False
    return edges


def _seconds(ps: IntArray) -> npt.NDArray[np.float64]:
    return np.where(ps < 0, np.nan, ps / PS_PER_S)


def simulate(requests: Requests, table: StepTable, limits: EngineLimits, *, replicas: int = 1, clients: int = 0) -> Run:
    """Play `requests` on `replicas` equal replicas behind a round-robin router.

    Open loop by default; with `clients` > 0 the loop is closed over the whole deployment: each replica has its share
    of the clients and of the requests, and a client sends its next request when its last one is answered
    (all start at 0; arrival_s is ignored). The same input gives the same bits.

    ValueError for a table smaller than the limits, fewer clients than replicas or an arrival before 0;
    UnsupportedError for an arrival after LATEST_ARRIVAL_S.
    """
    if replicas < 1:
        raise ValueError(f"at least one replica is needed, found {replicas}")
    if table.token_ps.size <= limits.max_num_batched_tokens or table.sequence_ps.size <= limits.max_num_seqs:
        raise ValueError(
            f"a table up to {table.token_ps.size - 1} tokens and {table.sequence_ps.size - 1} sequences "
            f"cannot price {limits}"
        )
    n = len(requests)
    if n and requests.arrival_s[0] < 0:
        raise ValueError(f"arrivals count from 0, found {requests.arrival_s[0]} s")
    if n and requests.arrival_s[-1] > LATEST_ARRIVAL_S:
        raise UnsupportedError(
            f"the simulator's clock holds {LATEST_ARRIVAL_S / 86400:.0f} days, the last request arrives after "
            f"{requests.arrival_s[-1] / 86400:,.0f}: cut a window out of the trace"
        )
    arrival = np.rint(requests.arrival_s * PS_PER_S).astype(np.int64)
    columns = {name: np.full(n, -1, np.int64) for name in ("start", "first", "done")}
    counts = {name: np.zeros(n, np.int64) for name in ("preempted", "lost")}
    histogram = np.zeros(kernel.HISTOGRAM_BINS, np.int64)
    totals = np.zeros((replicas, kernel.TOTALS), np.int64)
    for replica in range(replicas):
        mine = slice(replica, None, replicas)
        own_arrival = np.ascontiguousarray(arrival[mine])
        own = {name: np.ascontiguousarray(values[mine]) for name, values in (columns | counts).items()}
        own_clients = len(range(replica, clients, replicas))
        if clients and not own_clients:
            raise ValueError(f"{clients} clients cannot keep {replicas} replicas busy")
        kernel.run(
            own_arrival,
            np.ascontiguousarray(requests.prompt_tokens[mine]),
            np.ascontiguousarray(requests.output_tokens[mine]),
            own_clients,
            limits.max_num_batched_tokens,
            limits.max_num_seqs,
            limits.block_tokens,
            limits.kv_blocks,
            table.token_ps,
            table.prefill_ps,
            table.decode_ps,
            table.sequence_ps,
            table.context_fp,
            table.pair_fp,
            own["start"],
            own["first"],
            own["done"],
            own["preempted"],
            own["lost"],
            histogram,
            totals[replica],
        )
        arrival[mine] = own_arrival
        for name, values in (columns | counts).items():
            values[mine] = own[name]
    timings = Timings(
        arrival_s=arrival / PS_PER_S,
        first_token_s=_seconds(columns["first"]),
        done_s=_seconds(columns["done"]),
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
        preemptions=counts["preempted"],
        recomputed_tokens=counts["lost"],
        itl_edges_s=_edges_s(),
        itl_counts=histogram,
    )
    busy_ps = totals[:, [kernel.PREFILL_PS, kernel.DECODE_PS]].sum(axis=0)
    busy_us = float(busy_ps.sum()) / 1e6
    return Run(
        timings=timings,
        queued_s=_seconds(columns["start"]) - timings.arrival_s,
        replicas=replicas,
        steps=int(totals[:, kernel.STEPS].sum()),
        prefill_s=float(busy_ps[0]) / PS_PER_S,
        decode_s=float(busy_ps[1]) / PS_PER_S,
        span_s=float(totals[:, kernel.END_PS].max(initial=0)) / PS_PER_S,
        peak_kv_share=float(totals[:, kernel.PEAK_BLOCKS].max(initial=0)) / limits.kv_blocks,
        mean_running=float(totals[:, kernel.SEQUENCE_US].sum()) / busy_us if busy_us else 0.0,
        refused=int(totals[:, kernel.REFUSED].sum()),
    )
