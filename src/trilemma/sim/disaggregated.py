"""Prefill and decode on replicas of their own: two pools, and the KV cache that moves from one to the other.

Both pools schedule by vLLM's rules (see kernel.py and docs/simulator.md). A request goes to a prefill replica, which
computes its prompt and nothing else; then its KV moves to a decode replica, which generates. Who samples the first
token is an option, and the client gets it after the transfer either way, so TTFT includes the transfer:

- `first_token="decode"`, vLLM with NIXL (`v1/core/sched/scheduler.py: _update_waiting_for_remote_kv`): the decode side
  computes the last prompt token again and samples the first token itself. That step is priced as a decode, which it is
  to the accelerator: one query over a context of the prompt.
- `first_token="prefill"`, SGLang (`disaggregation/decode.py: _commit_transfer_to_req`) and TensorRT-LLM, context first
  (`serve/openai_disagg_service.py`): the prefill side samples it, it travels with the KV and is sent to the client when
  the transfer ends. The decode side goes on with the second one; a request of one token ends with its transfer.

Without back-pressure the pools feed forward: blocks of a prompt are free when it is computed, its KV goes to the link
at once, a request comes to the decode pool when its KV is there (order: end of transfer, then index), and takes seat
and blocks together. In an open loop the prefill pool then runs on the event-skipping kernel, and decode replicas after.

With back-pressure both pools run on one clock:

- A computed prompt is routed to a decode replica and queues there; its prefill seat is free, its blocks stay held.
- The decode scheduler starts transfers where vLLM's does, when it plans a step (an idle engine plans at once): in
  order, while a seat is free (none is held while loading), the step has tokens left and the blocks of the prompt (and
  of its first generated token, where prefill sampled that) are free. They are taken then, and the prompt's KV goes to
  the link. The first that does not fit ends admissions. A step that preempted starts none.
- When the transfer ends, the prefill blocks are free, and the request waits for a seat, before those that were
  preempted and those that have still to load. A step's admissions take, in this order: loaded, preempted, coming ones.
- A preempted request loses its KV and is computed again on its decode replica. Blocks of loading requests are not taken
  from them; an engine that preempted all it had plans again at once.

So a full decode pool holds prefill blocks, and full prefill blocks stop prefill. TensorRT-LLM and SGLang reserve
more or earlier than this (SGLang before prefill starts); that is not played.

A link serves in the order in which it gets KV to send. With `overlap` it gets what a prompt found in the prefix cache
when the prompt's first step begins, every chunk but the last when its step ends, and the last as above.

What happens at one time happens in this order: steps end, transfers end, computed prompts are routed (by index), decode
replicas plan, requests arrive (by index), prefill replicas plan. With asynchronous scheduling a planning knows what had
happened when the step before it began, transfers included. Requests that could never fit either pool are refused before
routing and take no turn.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trilemma.errors import UnsupportedError
from trilemma.metrics.timings import Timings
from trilemma.sim import disaggregated_clock, kernel, layout
from trilemma.sim import disaggregated_layout as names
from trilemma.sim import setup as alone
from trilemma.sim.checks import MOST_TOKENS, flag, whole
from trilemma.sim.disaggregated_setup import Setup, prompts_only, set_up
from trilemma.sim.door import check_arrivals, check_lengths, check_steps, plain, ran_out
from trilemma.sim.engine import EngineLimits
from trilemma.sim.fleet import Fleet
from trilemma.sim.pools import Pool, Pools, Transfer
from trilemma.sim.run import Run, edges_s
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

__all__ = ["DisaggregatedRun", "Pool", "PoolRun", "Pools", "Transfer", "simulate_disaggregated"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
LONGEST_TRANSFER_S = 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRun:
    """One pool's activity, summed over its replicas.

    `prefill_s` and `decode_s` are busy replica-seconds; a decode pool's `prefill_s` went into prompts computed again
    after a preemption. `peak_kv_share` is how full any replica's KV cache got, `mean_running` sequences averaged over
    busy time.
    """

    replicas: int
    steps: int
    prefill_s: float
    decode_s: float
    peak_kv_share: float
    mean_running: float
    preemptions: int

    @property
    def busy_s(self) -> float:
        """Busy replica-seconds."""
        return self.prefill_s + self.decode_s


@dataclass(frozen=True, slots=True, kw_only=True)
class DisaggregatedRun(Run):
    """A run of both pools; what a Run says, of the whole.

    `timings` are the client's: TTFT includes the transfer. `queued_s` and `wait_reason` are of the prefill side,
    `replica` who decoded (numbered within the decode pool; -1: nobody). `replicas`, `steps` and `mean_running` count
    both pools, `prefill_s` is all busy time of the prefill pool and `decode_s` of the decode pool (the pools'
    accelerators may differ: multiply each by its own), `peak_kv_share` is of the fuller pool.

    (n,) each, NaN or -1 where a request never got there: `prefill_replica`, `prefill_done_s` (on the clock of
    `timings`), `transfer_wait_s` from there until its first byte leaves (the last chunk's with overlap), `transfer_s`
    until the last one is there, `decode_wait_s` from then to the first step on the decode side. `transfer_wait_s` is
    the wait for the link and, with back-pressure, for the decode side's blocks; without, that is in `decode_wait_s`.
    """

    prefill_pool: PoolRun
    decode_pool: PoolRun
    prefill_replica: npt.NDArray[np.int16]
    prefill_done_s: FloatArray
    transfer_wait_s: FloatArray
    transfer_s: FloatArray
    decode_wait_s: FloatArray


def simulate_disaggregated(
    requests: Requests, pools: Pools, clients: int = 0, back_pressure: bool = True
) -> DisaggregatedRun:
    """Play `requests` on a prefill pool and a decode pool.

    With `back_pressure` a prompt's prefill blocks stay held until its decode replica has them; without, the pools feed
    forward. Open loop by default; requests with think times follow the answers of their session. With `clients` > 0 the
    loop is closed: all start at 0, each sends its next request when its last one is answered or refused, arrival_s and
    think times are ignored, and clients are shared by all replicas. The same input gives the same bits.

    ValueError for an arrival before 0, a think time without end or a transfer of more than LONGEST_TRANSFER_S;
    UnsupportedError for an arrival after LATEST_ARRIVAL_S (or think times that lead there), a run that goes on beyond
    the clock, requests of 2**31 tokens, steps too long to add up, priorities, or prefix caching without block ids.
    """
    clients = min(whole("clients", clients, least=0, most=MOST_TOKENS), len(requests))
    back_pressure = flag("back_pressure", back_pressure)
    requests = plain(requests)
    _check(requests, pools, clients)
    setup = set_up(requests, pools, clients=clients, hold=back_pressure)
    if back_pressure or clients or requests.think_s is not None or pools.transfer.overlap:
        disaggregated_clock.run_both(
            setup.rules, setup.prefill, setup.decode, setup.load, setup.out, setup.senders, setup.receivers, setup.clock
        )
    else:
        _feed_forward(requests, pools, setup)
    answered = np.count_nonzero(setup.out.seen[:, names.DONE] >= 0)
    if answered + setup.clock.counts[names.REFUSALS] < len(requests):
        raise ran_out(_last_ps(setup))
    return _report(requests, pools, setup)


def _check(requests: Requests, pools: Pools, clients: int) -> None:
    if requests.priority is not None:
        raise UnsupportedError("priorities are not played in disaggregated pools")
    check_arrivals(requests, thinks=not clients)
    longest = 0
    for pool in (pools.prefill, pools.decode):
        lengths = check_lengths(requests.prompt_tokens, requests.output_tokens, pool.limits)
        check_steps(pool.table, pool.limits, lengths)
        longest = max(longest, lengths.whole)
    transfer = pools.transfer
    moved = longest + transfer.block_tokens
    slowest_s = transfer.latency_s + moved * transfer.bytes_per_token / transfer.bytes_per_s
    if slowest_s > LONGEST_TRANSFER_S:
        raise ValueError(f"a transfer of {slowest_s:,.0f} s, at most {LONGEST_TRANSFER_S:,.0f} s: {transfer}")


def _last_ps(setup: Setup) -> int:
    """When the last step ended or the last transfer."""
    ends = [totals[:, layout.END_PS].max() for totals in (setup.out.sender_totals, setup.out.receiver_totals)]
    return int(max(*ends, setup.out.seen[:, names.DONE].max(initial=0)))


def _feed_forward(requests: Requests, pools: Pools, setup: Setup) -> None:
    """The prefill pool on the event-skipping kernel, then the decode pool alone."""
    fits, (seen, notes) = setup.load.fits, (setup.out.seen, setup.out.notes)
    prompts = prompts_only(requests if fits.all() else requests.take(fits))
    fleet = Fleet(replicas=pools.prefill.replicas, routing=pools.prefill.routing)
    prefill = alone.set_up(prompts, pools.prefill.table, pools.prefill.limits, fleet, clients=0, sample_s=0.0)
    while kernel.run(prefill.rules, prefill.prices, prefill.load, prefill.out, prefill.state):
        pass  # here an interruption is noticed
    first = prefill.out
    if (first.done < 0).any():
        raise ran_out(int(first.totals[:, layout.END_PS].max()))
    setup.out.sender_totals[:] = first.totals
    link_ps = setup.load.link_ps[prompts.prompt_tokens]
    sent = _queued(first.done, link_ps, first.replica) if pools.transfer.one_at_a_time else first.done
    for column, times in (
        (names.START, first.start), (names.PREFILLED, first.done), (names.SENT, sent),
        (names.READY, sent + link_ps + pools.transfer.latency_ps),
    ):  # fmt: skip
        seen[fits, column] = times
    for column, values in (
        (names.PREEMPTED, first.preempted), (names.LOST, first.lost), (names.REASON, first.reason),
        (names.SENDER, first.replica), (names.HITS, first.hits if pools.prefill.limits.prefix_caching else 0),
    ):  # fmt: skip
        notes[fits, column] = values
    decoded = fits
    if pools.first_token == "prefill":
        seen[:, names.FIRST] = seen[:, names.READY]
        decoded = fits & (requests.output_tokens > 1)
        seen[~decoded, names.DONE] = seen[~decoded, names.READY]
    order = np.flatnonzero(decoded)
    order = order[np.argsort(seen[order, names.READY], kind="stable")]
    disaggregated_clock.run_receivers(
        setup.rules, setup.decode, setup.load, setup.out, setup.senders, setup.receivers, setup.clock, order
    )
    setup.clock.counts[names.REFUSALS] = len(requests) - int(fits.sum())


def _queued(ready: IntArray, lasts: IntArray, queue: npt.NDArray[np.int16]) -> IntArray:
    """(n,) when each of n begins that is served in its queue, one after the other, in the order of (ready, index)."""
    begins = np.empty_like(ready)
    for which in np.unique(queue):
        own = np.flatnonzero(queue == which)
        own = own[np.argsort(ready[own], kind="stable")]
        before = np.cumsum(lasts[own]) - lasts[own]
        begins[own] = np.maximum.accumulate(ready[own] - before) + before
    return begins


def _seconds(ps: IntArray) -> FloatArray:
    """Picoseconds as seconds, NaN for negative ones."""
    return np.where(ps < 0, np.nan, ps / PS_PER_S)


def _lasted_s(begin: IntArray, end: IntArray) -> FloatArray:
    """Seconds between two times in picoseconds, NaN where one of them never came."""
    return np.where(np.minimum(begin, end) < 0, np.nan, (end - begin) / PS_PER_S)


def _pool_run(totals: IntArray, limits: EngineLimits) -> PoolRun:
    # Of many replicas over weeks these sums leave 64 bits, so they are Python's.
    prefill_ps, decode_ps = (sum(totals[:, column].tolist()) for column in (layout.PREFILL_PS, layout.DECODE_PS))
    busy_us = (prefill_ps + decode_ps) / 1e6
    return PoolRun(
        replicas=totals.shape[0],
        steps=int(totals[:, layout.STEPS].sum()),
        prefill_s=prefill_ps / PS_PER_S,
        decode_s=decode_ps / PS_PER_S,
        peak_kv_share=float(totals[:, layout.PEAK_BLOCKS].max()) / limits.kv_blocks,
        mean_running=sum(totals[:, layout.SEQUENCE_US].tolist()) / busy_us if busy_us else 0.0,
        preemptions=int(totals[:, layout.PREEMPTIONS].sum()),
    )


def _report(requests: Requests, pools: Pools, setup: Setup) -> DisaggregatedRun:
    out, arrival = setup.out, setup.load.arrival
    seen, notes = out.seen, out.notes
    timings = Timings(
        arrival_s=_seconds(arrival),
        first_token_s=_seconds(seen[:, names.FIRST]),
        done_s=_seconds(seen[:, names.DONE]),
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
        preemptions=notes[:, names.PREEMPTED].astype(np.int64),
        recomputed_tokens=notes[:, names.LOST].astype(np.int64),
        itl_edges_s=edges_s(),
        itl_counts=out.histogram,
    )
    prefill = _pool_run(out.sender_totals, pools.prefill.limits)
    decode = _pool_run(out.receiver_totals, pools.decode.limits)
    busy_s = prefill.busy_s + decode.busy_s
    running_s = prefill.mean_running * prefill.busy_s + decode.mean_running * decode.busy_s
    return DisaggregatedRun(
        timings=timings,
        queued_s=_lasted_s(arrival, seen[:, names.START]),
        wait_reason=notes[:, names.REASON].astype(np.int8),
        replica=notes[:, names.RECEIVER].astype(np.int16),
        hit_tokens=notes[:, names.HITS].copy() if pools.prefill.limits.prefix_caching else None,
        replicas=prefill.replicas + decode.replicas,
        steps=prefill.steps + decode.steps,
        prefill_s=prefill.busy_s,
        decode_s=decode.busy_s,
        span_s=_last_ps(setup) / PS_PER_S,
        peak_kv_share=max(prefill.peak_kv_share, decode.peak_kv_share),
        mean_running=running_s / busy_s if busy_s else 0.0,
        refused=int(setup.clock.counts[names.REFUSALS]),
        prefill_pool=prefill,
        decode_pool=decode,
        prefill_replica=notes[:, names.SENDER].astype(np.int16),
        prefill_done_s=_seconds(seen[:, names.PREFILLED]),
        transfer_wait_s=_lasted_s(seen[:, names.PREFILLED], seen[:, names.SENT]),
        transfer_s=_lasted_s(seen[:, names.SENT], seen[:, names.READY]),
        decode_wait_s=_lasted_s(seen[:, names.READY], seen[:, names.BEGUN]),
    )
