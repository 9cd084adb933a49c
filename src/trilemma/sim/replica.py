"""Requests on a fleet of equal replicas: the arrays in, the timings and activity out."""

import numpy as np
import numpy.typing as npt

from trilemma.latency.table import StepTable
from trilemma.metrics.timings import Timings
from trilemma.sim import kernel, layout
from trilemma.sim.checks import LATEST_ARRIVAL_S, MOST_REPLICAS, MOST_TOKENS, flag, real, whole
from trilemma.sim.door import LONGEST_STEP_PS, check_arrivals, check_lengths, check_steps, check_table, plain, ran_out
from trilemma.sim.engine import EngineLimits
from trilemma.sim.fleet import Fleet
from trilemma.sim.run import Run, WaitReason, edges_s
from trilemma.sim.setup import Setup, set_up
from trilemma.sim.speculation import Speculation
from trilemma.sim.stretch import settle_times
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

__all__ = ["EngineLimits", "Fleet", "Run", "Speculation", "WaitReason", "simulate"]

IntArray = npt.NDArray[np.int64]
SHORTEST_SAMPLE_S = 1 / PS_PER_S
ALONE = Fleet()
LONGEST_SAMPLE_S = 1e5  # so that also the sample after the last one stays inside 63 bits


def _check(
    requests: Requests, table: StepTable, limits: EngineLimits, fleet: Fleet, *, clients: int, sample_s: float
) -> None:
    check_table(table, limits)
    if clients and clients < fleet.replicas:
        raise ValueError(f"{clients} clients cannot keep {fleet.replicas} replicas busy")
    if sample_s != 0 and not SHORTEST_SAMPLE_S <= sample_s <= LONGEST_SAMPLE_S:
        raise ValueError(
            f"sample_s: expected 0 for none or {SHORTEST_SAMPLE_S:g} to {LONGEST_SAMPLE_S:g} s, found {sample_s:g} s"
        )
    check_arrivals(requests, thinks=not clients)


def _check_clock(setup: Setup, last_ps: int, given_up: int) -> None:
    """UnsupportedError for requests left unanswered (but for those `given_up`) where the clock ended."""
    coming_ps = LONGEST_STEP_PS + (round(LATEST_ARRIVAL_S * PS_PER_S) if setup.rules.sessions else 0)  # all thinking
    if last_ps + coming_ps >= layout.FAR and np.count_nonzero(setup.out.done >= 0) + given_up < setup.out.done.size:
        raise ran_out(last_ps)


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
    replicas: int | None = None,
    clients: int = 0,
    fleet: Fleet | None = None,
    sample_s: float = 0.0,
    speculation: Speculation | None = None,
    ranks: int = 1,
    shared_experts: bool = False,
) -> Run:
    """Play `requests` on a fleet of equal replicas: `replicas` (or 1) behind a round-robin router, or any `fleet`.

    Open loop by default; requests with think times follow the answers of their session. With `clients` > 0 the loop is
    closed: all start at 0, each sends its next request when its last one is answered, arrival_s and think times are
    ignored; behind a round-robin router each replica has its own share of the clients and of the requests. With
    `sample_s` the state is sampled so often (more coarsely where a run would take more than 4,096 samples). The same
    input gives the same bits.

    `speculation`, `ranks` > 1 (attention-DP ranks of a replica, each with `limits` of its own; `shared_experts`: their
    experts see the tokens of all), requests with priorities and `long_prefill_token_threshold` are played step
    by step (see explicit.py), which takes about ten times as long.

    ValueError for a table smaller than the limits, fewer clients than replicas, an arrival before 0, a think time
    without end, `replicas` other than the fleet's, no rank, or a sampling time that is none; UnsupportedError for an
    arrival after LATEST_ARRIVAL_S (or think times that lead there), a run that goes on beyond the clock, requests of
    2**31 tokens, steps too long to add up (see door.py), prefix caching without block ids, or what is played step by
    step behind a router that looks at the replicas.
    """
    if fleet is None:
        fleet = ALONE if replicas is None else Fleet(replicas=replicas)
    elif replicas is not None and replicas != fleet.replicas:
        raise ValueError(f"replicas: expected the fleet's {fleet.replicas} or none, found {replicas}")
    clients = whole("clients", clients, least=0, most=MOST_TOKENS)
    ranks = whole("ranks", ranks, least=1, most=MOST_REPLICAS)
    shared_experts, sample_s = flag("shared_experts", shared_experts), real("sample_s", sample_s)
    requests = plain(requests, lent=("prompt_tokens", "output_tokens"))
    _check(requests, table, limits, fleet, clients=clients, sample_s=sample_s)
    if speculation or ranks > 1 or limits.long_prefill_token_threshold or requests.priority is not None:
        from trilemma.sim.stepwise import simulate_stepwise

        return simulate_stepwise(
            plain(requests), table, limits, fleet,
            clients=clients, sample_s=sample_s, speculation=speculation, ranks=ranks, shared_experts=shared_experts,
        )  # fmt: skip
    check_steps(table, limits, check_lengths(requests.prompt_tokens, requests.output_tokens, limits))
    setup = set_up(requests, table, limits, fleet, clients=clients, sample_s=sample_s)
    while kernel.run(setup.rules, setup.prices, setup.load, setup.out, setup.state):
        pass  # here an interruption is noticed
    out = setup.out
    # Of many replicas over weeks sums leave 64 bits, so they are Python's.
    totals = out.totals.T.tolist()
    refused, failed = sum(totals[layout.REFUSED]), sum(totals[layout.FAILED])
    last_ps = max(totals[layout.END_PS])
    _check_clock(setup, last_ps, refused + failed)
    columns = (setup.load.arrival, out.start, out.first, out.done)
    arrival_s, queued_s, first_token_s, done_s = (column.view(np.float64) for column in columns)
    settle_times(*columns, arrival_s, queued_s, first_token_s, done_s)
    timings = Timings(
        arrival_s=arrival_s,
        first_token_s=first_token_s,
        done_s=done_s,
        prompt_tokens=setup.load.prompt,
        output_tokens=setup.load.output,
        preemptions=out.preempted,
        recomputed_tokens=out.lost,
        itl_edges_s=edges_s(),
        itl_counts=out.histogram,
    )
    prefill_ps, decode_ps = sum(totals[layout.PREFILL_PS]), sum(totals[layout.DECODE_PS])
    busy_us = (prefill_ps + decode_ps) / 1e6
    return Run(
        timings=timings,
        queued_s=queued_s,
        wait_reason=out.reason,
        replica=out.replica,
        hit_tokens=out.hits if limits.prefix_caching else None,
        replicas=fleet.replicas,
        steps=sum(totals[layout.STEPS]),
        prefill_s=prefill_ps / PS_PER_S,
        decode_s=decode_ps / PS_PER_S,
        span_s=float(last_ps) / PS_PER_S,
        peak_kv_share=max(totals[layout.PEAK_BLOCKS]) / limits.kv_blocks,
        mean_running=sum(totals[layout.SEQUENCE_US]) / busy_us if busy_us else 0.0,
        refused=refused,
        failed=failed,
        samples=_samples(setup) if sample_s else None,
        sample_s=float(setup.state.scalars[:, layout.SAMPLE_PS].max()) / PS_PER_S if sample_s else 0.0,
    )
