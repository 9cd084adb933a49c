"""Requests on a fleet of equal replicas: the arrays in, the timings and activity out."""

import numpy as np
import numpy.typing as npt

from trilemma.errors import UnsupportedError
from trilemma.latency.table import StepTable
from trilemma.metrics.timings import Timings
from trilemma.sim import kernel, layout
from trilemma.sim.engine import EngineLimits
from trilemma.sim.fleet import Fleet
from trilemma.sim.run import Run, WaitReason, edges_s, seconds
from trilemma.sim.setup import Setup, set_up
from trilemma.sim.speculation import Speculation
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

__all__ = ["EngineLimits", "Fleet", "Run", "Speculation", "WaitReason", "simulate"]

IntArray = npt.NDArray[np.int64]
LATEST_ARRIVAL_S = 8e6  # 92 days: 64 bits hold 106 days of picoseconds, and the run goes on after the last arrival
LONGEST_REQUEST = 2**31  # tokens


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
        layout.fill_last(samples[r, count:], totals)
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
    speculation: Speculation | None = None,
    ranks: int = 1,
    shared_experts: bool = False,
) -> Run:
    """Play `requests` on a fleet of equal replicas: `replicas` behind a round-robin router, or any `fleet`.

    Open loop by default; requests with think times follow the answers of their session. With `clients` > 0 the loop is
    closed: all start at 0, each sends its next request when its last one is answered, arrival_s and think times are
    ignored; behind a round-robin router each replica has its own share of the clients and of the requests. With
    `sample_s` the state is sampled so often (more coarsely where a run would take more than 4,096 samples). The same
    input gives the same bits.

    `speculation`, `ranks` > 1 (attention-DP ranks of a replica, each with `limits` of its own; `shared_experts`: their
    experts see the tokens of all), requests with priorities and `long_prefill_token_threshold` are played step
    by step (see explicit.py), which takes about ten times as long.

    ValueError for a table smaller than the limits, fewer clients than replicas or an arrival before 0;
    UnsupportedError for an arrival after LATEST_ARRIVAL_S, requests of 2**31 tokens, prefix caching without block ids,
    or what is played step by step behind a router that looks at the replicas.
    """
    fleet = fleet or Fleet(replicas=replicas)
    _check(requests, table, limits, fleet, clients)
    if speculation or ranks > 1 or limits.long_prefill_token_threshold or requests.priority is not None:
        from trilemma.sim.stepwise import simulate_stepwise

        return simulate_stepwise(
            requests, table, limits, fleet,
            clients=clients, sample_s=sample_s, speculation=speculation, ranks=ranks, shared_experts=shared_experts,
        )  # fmt: skip
    setup = set_up(requests, table, limits, fleet, clients=clients, sample_s=sample_s)
    while kernel.run(setup.rules, setup.prices, setup.load, setup.out, setup.state):
        pass  # here an interruption is noticed
    out, totals = setup.out, setup.out.totals
    arrival_s = seconds(setup.load.arrival)
    queued_s = seconds(out.start)
    queued_s -= arrival_s
    timings = Timings(
        arrival_s=arrival_s,
        first_token_s=seconds(out.first),
        done_s=seconds(out.done),
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
        preemptions=out.preempted.astype(np.int64),
        recomputed_tokens=out.lost.astype(np.int64),
        itl_edges_s=edges_s(),
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
