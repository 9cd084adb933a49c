"""Runs that the explicit kernel plays, one replica after another, as one `Run`."""

import numpy as np

from trilemma.errors import UnsupportedError
from trilemma.latency.table import StepTable
from trilemma.metrics.timings import Timings
from trilemma.sim import layout
from trilemma.sim.engine import EngineLimits
from trilemma.sim.explicit import ExplicitRun, play_explicit
from trilemma.sim.fleet import Fleet, Routing
from trilemma.sim.run import Run, edges_s, seconds
from trilemma.sim.setup import SAMPLE_ROWS, dealt_replicas, followers, prefix_chains
from trilemma.sim.speculation import Speculation
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests


def _shares(requests: Requests, fleet: Fleet, *, clients: int) -> np.ndarray:
    """(n,) the replica of each request. UnsupportedError where the router would have to look at the replicas."""
    follows = requests.think_s is not None and not clients
    if fleet.replicas == 1 and not fleet.changes:
        return np.zeros(len(requests), np.int16)
    if fleet.changes or fleet.routing > Routing.SESSION_STICKY or (follows and fleet.routing is Routing.ROUND_ROBIN):
        raise UnsupportedError(
            "speculative decoding, priorities, attention-DP ranks and long_prefill_token_threshold are simulated on "
            "replicas that get their requests in turn (sessions: session_sticky) and neither come nor go; found "
            f"{fleet}"
        )
    return dealt_replicas(requests, fleet)


def simulate_stepwise(
    requests: Requests,
    table: StepTable,
    limits: EngineLimits,
    fleet: Fleet,
    *,
    clients: int,
    sample_s: float,
    speculation: Speculation | None,
    ranks: int,
    shared_experts: bool,
) -> Run:
    """As `simulate` says, step by step; arguments are checked there."""
    n = len(requests)
    share = _shares(requests, fleet, clients=clients)
    arrival = np.rint(requests.arrival_s * PS_PER_S).astype(np.int64)
    sessions = requests.think_s is not None and not clients
    successor, think_ps = followers(requests) if sessions else (None, None)
    chains = prefix_chains(requests, limits) if limits.prefix_caching else None
    columns = {name: np.zeros(n, np.int64) for name in ("start_ps", "first_ps", "done_ps", "arrival_ps", "preempted")}
    columns |= {name: np.zeros(n, np.int64) for name in ("lost", "hit_tokens", "reason", "rank")}
    runs: list[ExplicitRun] = []
    for replica in range(fleet.replicas):
        here = np.flatnonzero(share == replica)
        local = None
        if successor is not None:  # a session stays on its replica
            local = np.where(successor[here] >= 0, np.searchsorted(here, successor[here]), -1)
        run = play_explicit(
            arrival[here],
            requests.prompt_tokens[here],
            requests.output_tokens[here],
            table=table,
            limits=limits,
            ranks=ranks,
            moe_tokens_shared=shared_experts,
            clients=(clients - replica + fleet.replicas - 1) // fleet.replicas if clients else 0,
            priority=None if requests.priority is None else requests.priority[here],
            successor=local,
            think_ps=None if think_ps is None else think_ps[here],
            chain_offsets=None if chains is None else chains[0][here],
            chain_ids=None if chains is None else chains[1],
            chain_units=None if chains is None else chains[2][here],
            unit_tokens=0 if chains is None else requests.block_tokens,
            speculation=speculation,
            sample_rows=SAMPLE_ROWS if sample_s else 0,
            sample_ps=round(sample_s * PS_PER_S) if sample_s else PS_PER_S,
        )
        for name, column in columns.items():
            column[here] = getattr(run, name)
        runs.append(run)
    return _merged(requests, limits, runs, columns, share, sampled=bool(sample_s))


def _merged(
    requests: Requests,
    limits: EngineLimits,
    runs: list[ExplicitRun],
    columns: dict[str, np.ndarray],
    share: np.ndarray,
    *,
    sampled: bool,
) -> Run:
    totals = np.array([run.totals for run in runs])
    prefill_ps, decode_ps = (sum(totals[:, column].tolist()) for column in (layout.PREFILL_PS, layout.DECODE_PS))
    busy_us = (prefill_ps + decode_ps) / 1e6
    arrival_s = seconds(columns["arrival_ps"])
    queued_s = seconds(columns["start_ps"]) - arrival_s
    timings = Timings(
        arrival_s=arrival_s,
        first_token_s=seconds(columns["first_ps"]),
        done_s=seconds(columns["done_ps"]),
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
        preemptions=columns["preempted"],
        recomputed_tokens=columns["lost"],
        itl_edges_s=edges_s(),
        itl_counts=np.sum([run.histogram for run in runs], axis=0),
    )
    return Run(
        timings=timings,
        queued_s=queued_s,
        wait_reason=columns["reason"].astype(np.int8),
        replica=share.astype(np.int16),
        hit_tokens=columns["hit_tokens"].astype(np.int32) if limits.prefix_caching else None,
        replicas=len(runs),
        steps=int(totals[:, layout.STEPS].sum()),
        prefill_s=prefill_ps / PS_PER_S,
        decode_s=decode_ps / PS_PER_S,
        span_s=float(totals[:, layout.END_PS].max(initial=0)) / PS_PER_S,
        peak_kv_share=float(totals[:, layout.PEAK_BLOCKS].max(initial=0)) / limits.kv_blocks,
        mean_running=sum(totals[:, layout.SEQUENCE_US].tolist()) / busy_us if busy_us else 0.0,
        refused=int(totals[:, layout.REFUSED].sum()),
        samples=_samples(runs, totals) if sampled else None,
        sample_s=max(run.sample_ps for run in runs) / PS_PER_S if sampled else 0.0,
    )


def _samples(runs: list[ExplicitRun], totals: np.ndarray) -> np.ndarray:
    """(replicas, k, 8) the rows each replica took, and after them its state at the end of its last step."""
    samples = np.zeros((len(runs), max(len(run.samples) for run in runs) + 1, layout.SAMPLE_COLUMNS), np.int64)
    for r, run in enumerate(runs):
        samples[r, : len(run.samples)] = run.samples
        layout.fill_last(samples[r, len(run.samples) :], totals[r])
    return samples
