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

Without back-pressure the pools feed forward: blocks of a prompt are free when it is computed, its transfer begins at
once, a request comes to the decode pool when its KV is there (order: end of transfer, then index), and takes seat and
blocks together. In an open loop the prefill pool then runs on the event-skipping kernel, and decode replicas after it.

With back-pressure both pools run on one clock:

- A computed prompt is routed to a decode replica and queues there; its prefill seat is free, its blocks stay held.
- The decode scheduler starts transfers where vLLM's does, when it plans a step (an idle engine plans at once): in
  order, while a seat is free (none is held while loading), the step has tokens left and the blocks of the prompt (and
  of its first generated token, where prefill sampled that) are free. They are taken then. The first that does not fit
  ends admissions. A step that preempted starts none.
- When the transfer ends, the prefill blocks are free, and the request waits for a seat, before those that were preempted
  and those that still have to load. A step's admissions take, in this order: loaded, preempted, coming requests.
- A preempted request loses its KV and is computed again on its decode replica. Blocks of loading requests are not taken
  from them; an engine that preempted all it had plans again at once.

So a full decode pool holds prefill blocks, and full prefill blocks stop prefill. TensorRT-LLM and SGLang reserve
more or earlier than this (SGLang before prefill starts); that is not played. What happens at one time happens in this
order: steps end, transfers end, computed prompts are routed (by index), decode replicas plan, requests arrive (by
index), prefill replicas plan. With asynchronous scheduling a planning knows what had happened when the step before it
began, transfers included. Requests that could never fit either pool are refused before routing and take no turn.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from trilemma.errors import UnsupportedError
from trilemma.latency.table import StepTable
from trilemma.metrics.timings import Timings
from trilemma.sim import blocks, disaggregated_clock, kernel, layout
from trilemma.sim import disaggregated_layout as names
from trilemma.sim.engine import EngineLimits, Policy
from trilemma.sim.fleet import Fleet, Routing
from trilemma.sim.replica import LATEST_ARRIVAL_S, LONGEST_REQUEST, Run, _edges_s
from trilemma.sim.setup import followers, prefix_chains, set_up
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

__all__ = ["DisaggregatedRun", "PoolRun", "Pools", "Transfer", "simulate_disaggregated"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
LONGEST_TRANSFER_S = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """The way of a prompt's KV from a prefill replica to a decode replica.

    A transfer takes `latency_s` plus the bytes of the prompt's tokens at `bytes_per_s` (infinity: no time); transfers do
    not slow each other down. With `overlap` the KV of each chunk moves while later ones are computed and only the last
    chunk's is waited for (SGLang; TensorRT-LLM's pipelined transfer); without, all of it moves after prefill (vLLM with
    NIXL). ValueError for negative or not finite latency and bytes, or a bandwidth that is not positive.
    """

    latency_s: float
    bytes_per_s: float
    bytes_per_token: float
    overlap: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite([self.latency_s, self.bytes_per_token]).all() and self.bytes_per_s > 0):
            raise ValueError(f"latency and bytes must be finite and the bandwidth positive, found {self}")
        if min(self.latency_s, self.bytes_per_token) < 0:
            raise ValueError(f"latency and bytes cannot be negative, found {self}")

    def time_ps(self, tokens: IntArray) -> IntArray:
        """(n,) whole picoseconds for the KV of so many tokens.

        >>> Transfer(latency_s=1e-6, bytes_per_s=1e9, bytes_per_token=1000).time_ps(np.array([0, 2])).tolist()
        [1000000, 3000000]
        """
        seconds = self.latency_s + tokens * self.bytes_per_token / self.bytes_per_s
        return np.rint(seconds * PS_PER_S).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """Prefill replicas and decode replicas, which may differ in number, step times and limits, and what lies between.

    `first_token` says which side samples it. UnsupportedError for other rules than vLLM's, other routing than round robin
    and least outstanding, replicas that come and go, a cap on a prompt's tokens per step, and a prefix cache on the
    decode side (the one of the prefill side is played); ValueError for a table smaller than its limits.
    """

    prefill: Fleet
    decode: Fleet
    prefill_table: StepTable
    prefill_limits: EngineLimits
    decode_table: StepTable
    decode_limits: EngineLimits
    transfer: Transfer
    first_token: Literal["prefill", "decode"] = "decode"

    def __post_init__(self) -> None:
        if self.first_token not in ("prefill", "decode"):
            raise ValueError(f"the first token is sampled by 'prefill' or 'decode', found {self.first_token!r}")
        for fleet, table, limits in (
            (self.prefill, self.prefill_table, self.prefill_limits),
            (self.decode, self.decode_table, self.decode_limits),
        ):
            if limits.policy is not Policy.VLLM or limits.long_prefill_token_threshold:
                raise UnsupportedError(f"disaggregated pools schedule by vLLM's rules without a threshold, found {limits}")
            if fleet.routing not in (Routing.ROUND_ROBIN, Routing.LEAST_OUTSTANDING) or fleet.changes:
                raise UnsupportedError(
                    f"disaggregated pools are routed round robin or by least outstanding and do not change, found {fleet}"
                )
            if table.token_ps.size <= limits.max_num_batched_tokens or table.sequence_ps.size <= limits.max_num_seqs:
                raise ValueError(
                    f"a table up to {table.token_ps.size - 1} tokens and {table.sequence_ps.size - 1} sequences "
                    f"cannot price {limits}"
                )
        if self.decode_limits.prefix_caching:
            raise UnsupportedError("the decode pool gets every prompt from the prefill pool: it has no prefix cache")

    def fits(self, requests: Requests) -> npt.NDArray[np.bool_]:
        """(n,) whether a request can run to its end on empty replicas, thrown out of its decode seat at the worst time.

        ValueError for more tokens than a prompt or an answer can have.
        """
        prompt, decode, prefill = requests.prompt_tokens, self.decode_limits, self.prefill_limits
        longest = prompt + requests.output_tokens - 1
        fits = -(-prompt // prefill.block_tokens) <= prefill.kv_blocks
        fits &= -(-longest // decode.block_tokens) <= decode.kv_blocks
        if not prefill.chunked_prefill:
            fits &= prompt <= prefill.max_num_batched_tokens
        if not decode.chunked_prefill:
            fits &= longest <= decode.max_num_batched_tokens
        return fits


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
    `replica` who decoded (numbered within the decode pool; -1: nobody). `replicas`, `steps` and `mean_running` count both
    pools, `prefill_s` is all busy time of the prefill pool and `decode_s` of the decode pool (the pools' accelerators
    may differ: multiply each by its own), `peak_kv_share` is of the fuller pool.

    (n,) each, NaN or -1 where a request never got there: `prefill_replica`, `prefill_done_s` (on the clock of
    `timings`), `transfer_wait_s` from there until the transfer began, `transfer_s`, `decode_wait_s` from its end to the
    first step on the decode side. The wait for blocks or a seat on the decode side is in `transfer_wait_s` with
    back-pressure and in `decode_wait_s` without.
    """

    prefill_pool: PoolRun
    decode_pool: PoolRun
    prefill_replica: npt.NDArray[np.int16]
    prefill_done_s: FloatArray
    transfer_wait_s: FloatArray
    transfer_s: FloatArray
    decode_wait_s: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Played:
    """What the compiled functions wrote."""

    arrival: IntArray
    out: names.Out
    refused: int


def simulate_disaggregated(
    requests: Requests, pools: Pools, clients: int = 0, back_pressure: bool = True
) -> DisaggregatedRun:
    """Play `requests` on a prefill pool and a decode pool.

    Open loop by default; requests with think times follow the answers of their session. With `clients` > 0 the loop is
    closed: all start at 0, each sends its next request when its last one is answered or refused, and arrival_s and think
    times are ignored. Clients are shared by all replicas. The same input gives the same bits.

    ValueError for an arrival before 0 or a transfer of more than LONGEST_TRANSFER_S; UnsupportedError for an arrival
    after LATEST_ARRIVAL_S, requests of 2**31 tokens, priorities, or prefix caching without block ids.
    """
    _check(requests, pools, clients)
    follow = clients > 0 or requests.think_s is not None
    # Without whole prompts fitting, prefills may be thrown out, and the kernel does not say what their last chunk was.
    unknown = pools.transfer.overlap and not pools.prefill_limits.reserve_full_isl
    if back_pressure or follow or unknown:
        played = _play_both(requests, pools, clients, hold=back_pressure)
    else:
        played = _feed_forward(requests, pools)
    return _report(requests, pools, played)


def _check(requests: Requests, pools: Pools, clients: int) -> None:
    if clients < 0:
        raise ValueError(f"the number of clients cannot be negative, found {clients}")
    if requests.priority is not None:
        raise UnsupportedError("priorities are not played in disaggregated pools")
    if not len(requests):
        return
    if requests.arrival_s[0] < 0:
        raise ValueError(f"arrivals count from 0, found {requests.arrival_s[0]} s")
    if requests.arrival_s[-1] > LATEST_ARRIVAL_S:
        raise UnsupportedError(
            f"the simulator's clock holds {LATEST_ARRIVAL_S / 86400:.0f} days, the last request arrives after "
            f"{requests.arrival_s[-1] / 86400:,.0f}: cut a window out of the trace"
        )
    longest = int(requests.prompt_tokens.max()) + int(requests.output_tokens.max())
    if longest >= LONGEST_REQUEST:
        raise UnsupportedError(f"a request of up to {longest:,} tokens; the simulator holds {LONGEST_REQUEST:,}")
    transfer = pools.transfer
    slowest_s = transfer.latency_s + longest * transfer.bytes_per_token / transfer.bytes_per_s
    if slowest_s > LONGEST_TRANSFER_S:
        raise ValueError(f"a transfer of {slowest_s:,.0f} s, at most {LONGEST_TRANSFER_S:,.0f} s: {transfer}")


# What the compiled functions read and write ----------------------------------------------------------------------


def _pool(fleet: Fleet, table: StepTable, limits: EngineLimits, unit: int) -> names.Pool:
    prices = layout.Prices(
        token_ps=table.token_ps, prefill_ps=table.prefill_ps, decode_ps=table.decode_ps,
        sequence_ps=table.sequence_ps, floor_ps=table.floor_ps, context_ps=table.context_ps,
        window_ps=table.window_ps, pair_fp=table.pair_fp,
    )  # fmt: skip
    return names.Pool(
        replicas=fleet.replicas, routing=int(fleet.routing), max_tokens=limits.max_num_batched_tokens,
        max_seqs=limits.max_num_seqs, page=limits.block_tokens, blocks=limits.kv_blocks,
        reserve_full=limits.reserve_full_isl, whole_prompts=not limits.chunked_prefill,
        asynchronous=limits.async_scheduling, caching=limits.prefix_caching,
        unit=unit if limits.prefix_caching else limits.block_tokens, window=table.window_tokens, prices=prices,
    )  # fmt: skip


def _prompts_only(requests: Requests) -> Requests:
    """What the prefill pool sees: requests of one output token."""
    return replace(requests, output_tokens=np.ones(len(requests), np.int64), think_s=None)


def _load(requests: Requests, pools: Pools, fits: npt.NDArray[np.bool_], clients: int) -> names.Load:
    n = len(requests)
    arrival = np.rint(requests.arrival_s * PS_PER_S).astype(np.int64)
    none = np.zeros(0, np.int64)
    successor = think_ps = none
    first = np.arange(n)
    if clients:
        arrival[:] = layout.FAR
        arrival[:clients] = 0
        first = first[:clients]
    elif requests.think_s is not None:
        successor, think_ps = followers(requests)
        first = np.setdiff1d(first, successor)
    offsets, ids, units = none, np.zeros(1, np.uint32), none
    if pools.prefill_limits.prefix_caching:
        offsets, ids, units = prefix_chains(_prompts_only(requests), pools.prefill_limits)  # type: ignore[assignment]
    longest = int(requests.prompt_tokens[fits].max(initial=0))
    return names.Load(
        arrival=arrival,
        prompt=np.ascontiguousarray(requests.prompt_tokens),
        output=np.ascontiguousarray(requests.output_tokens),
        fits=fits,
        transfer_ps=pools.transfer.time_ps(np.arange(longest + 1)),
        overlap=pools.transfer.overlap,
        successor=successor,
        think_ps=think_ps,
        first_arrivals=first,
        chain_offsets=offsets,
        chain_ids=ids,
        chain_units=units.astype(np.int64),
    )


def _out(n: int, pools: Pools) -> names.Out:
    notes = np.zeros((n, names.NOTE_COLUMNS), np.int32)
    notes[:, [names.SENDER, names.RECEIVER]] = -1
    return names.Out(
        seen=np.full((n, names.SEEN_COLUMNS), -1, np.int64),
        notes=notes,
        histogram=np.zeros(layout.HISTOGRAM_BINS, np.int64),
        sender_totals=np.zeros((pools.prefill.replicas, layout.TOTALS), np.int64),
        receiver_totals=np.zeros((pools.decode.replicas, layout.TOTALS), np.int64),
    )


def _scalars(replicas: int, columns: int, limits: EngineLimits, nobody: tuple[int, ...]) -> IntArray:
    """(replicas, columns) of empty, idle replicas."""
    scalars = np.zeros((replicas, columns), np.int64)
    scalars[:, [*nobody, names.QUEUE, names.NOW, names.BEGAN]] = -1
    scalars[:, names.WAKE] = layout.FAR
    scalars[:, names.IDLE] = 1
    scalars[:, names.SEATS_LEFT] = limits.max_num_seqs
    scalars[:, names.FREE] = limits.kv_blocks
    return scalars


def _senders(pools: Pools, load: names.Load) -> names.Senders:
    limits, replicas = pools.prefill_limits, pools.prefill.replicas
    caching = limits.prefix_caching
    return names.Senders(
        scalars=_scalars(
            replicas, names.SENDER_SCALARS, limits, (names.PARTIAL, names.LEAVING, names.SEEN_UNTIL)
        ),
        completing=np.zeros(limits.max_num_seqs, np.int64),
        nodes=np.stack([blocks.new_nodes(limits.kv_blocks if caching else 1) for _ in range(replicas)]),
        where=np.zeros((replicas, int(load.chain_ids.max(initial=0)) + 1), np.uint32),
        held=np.zeros(load.chain_ids.size, np.uint8),
    )


def _power_of_two(at_least: int) -> int:
    return max(int(layout.WORD), 1 << (at_least - 1).bit_length())


def _receivers(requests: Requests, pools: Pools) -> names.Receivers:
    limits, replicas = pools.decode_limits, pools.decode.replicas
    seats = limits.max_num_seqs
    ring = _power_of_two(int(requests.output_tokens.max(initial=1)) + 2)
    window_ring = _power_of_two(pools.decode_table.window_tokens + 3)
    nobody = (names.HEAD, names.TAIL, names.STACK, names.UNFINISHED, names.LOADING, names.LOADING_END)
    return names.Receivers(
        scalars=_scalars(replicas, names.RECEIVER_SCALARS, limits, nobody),
        slots=np.zeros((replicas * seats, 8), np.int64),
        seats=(np.arange(replicas)[:, None] * seats + np.arange(seats - 1, -1, -1)).reshape(-1),
        late=np.zeros(replicas * seats, np.int64),
        ring=np.full(replicas * ring, -1, np.int32),
        ring_bits=np.zeros(replicas * ring // layout.WORD, np.int64),
        window_ring=np.zeros(replicas * window_ring, np.int64),
        window_bits=np.zeros(replicas * window_ring // layout.WORD, np.int64),
        crossing=np.zeros(replicas * limits.block_tokens, np.int64),
        joined=np.zeros(seats, np.int64),
        completing=np.zeros(seats, np.int64),
    )


def _clock(n: int, clients: int) -> names.Clock:
    most = n + clients + 1  # a request is in one place, a client waits for one answer
    counts = np.zeros(names.CLOCK_COUNTS, np.int64)
    counts[names.RELEASED] = min(clients, n)
    return names.Clock(times=np.zeros(most, np.int64), codes=np.zeros(most, np.int64), counts=counts)


def _rules(pools: Pools, *, hold: bool, clients: int = 0, sessions: bool = False) -> names.Rules:
    return names.Rules(
        hold=hold,
        by_prefill=pools.first_token == "prefill",
        entry=names.PREFILLED if hold else names.READY,
        clients=clients,
        sessions=sessions,
    )


# The two ways to play --------------------------------------------------------------------------------------------


def _play_both(requests: Requests, pools: Pools, clients: int, *, hold: bool) -> _Played:
    """Both pools on one clock."""
    n = len(requests)
    load = _load(requests, pools, pools.fits(requests), clients)
    out, clock = _out(n, pools), _clock(n, clients)
    disaggregated_clock.run_both(
        _rules(pools, hold=hold, clients=clients, sessions=requests.think_s is not None and not clients),
        _pool(pools.prefill, pools.prefill_table, pools.prefill_limits, requests.block_tokens),
        _pool(pools.decode, pools.decode_table, pools.decode_limits, 0),
        load,
        out,
        _senders(pools, load),
        _receivers(requests, pools),
        clock,
    )
    return _Played(arrival=load.arrival, out=out, refused=int(clock.counts[names.REFUSALS]))


def _feed_forward(requests: Requests, pools: Pools) -> _Played:
    """The prefill pool on the event-skipping kernel, then the decode pool alone."""
    n = len(requests)
    fits = pools.fits(requests)
    load = _load(requests, pools, fits, 0)
    out = _out(n, pools)
    seen, notes = out.seen, out.notes
    prompts = _prompts_only(requests if fits.all() else requests.take(fits))
    setup = set_up(prompts, pools.prefill_table, pools.prefill_limits, pools.prefill, clients=0, sample_s=0.0)
    kernel.run(setup.rules, setup.prices, setup.load, setup.out, setup.state)
    first = setup.out
    out.sender_totals[:] = first.totals
    hits = first.hits if pools.prefill_limits.prefix_caching else np.zeros(len(prompts), np.int32)
    moved = prompts.prompt_tokens
    if pools.transfer.overlap:
        moved = _last_chunks(pools, moved - hits, first)
    ready = first.done + load.transfer_ps[moved]
    seen[fits, names.START] = first.start
    seen[fits, names.PREFILLED] = seen[fits, names.SENT] = first.done
    seen[fits, names.READY] = ready
    for column, values in (
        (names.PREEMPTED, first.preempted), (names.LOST, first.lost), (names.MOVES, moved), (names.HITS, hits),
        (names.REASON, first.reason), (names.SENDER, first.replica),
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
        _rules(pools, hold=False),
        _pool(pools.decode, pools.decode_table, pools.decode_limits, 0),
        load,
        out,
        _senders(pools, load),
        _receivers(requests, pools),
        _clock(0, 0),
        order,
    )
    return _Played(arrival=load.arrival, out=out, refused=n - int(fits.sum()))


def _last_chunks(pools: Pools, tokens: IntArray, first: layout.Outcome) -> IntArray:
    """(n,) tokens of each prompt's last step."""
    limits, replicas = pools.prefill_limits, pools.prefill.replicas
    if not limits.chunked_prefill:
        return tokens
    chunks = np.zeros(tokens.size, np.int64)
    used, ended = np.zeros(replicas, np.int64), np.zeros(replicas, np.int64)
    disaggregated_clock.last_chunks(
        tokens, first.start, first.done, first.replica, limits.max_num_batched_tokens, used, ended, chunks
    )
    return chunks


# What comes out --------------------------------------------------------------------------------------------------


def _seconds(ps: IntArray) -> FloatArray:
    """Picoseconds as seconds, NaN for negative ones."""
    return np.where(ps < 0, np.nan, ps / PS_PER_S)


def _lasted_s(begin: IntArray, end: IntArray) -> FloatArray:
    """Seconds between two times in picoseconds, NaN where one of them never came."""
    return np.where(np.minimum(begin, end) < 0, np.nan, (end - begin) / PS_PER_S)


def _pool_run(totals: IntArray, limits: EngineLimits) -> PoolRun:
    busy_us = float(totals[:, [layout.PREFILL_PS, layout.DECODE_PS]].sum()) / 1e6
    return PoolRun(
        replicas=totals.shape[0],
        steps=int(totals[:, layout.STEPS].sum()),
        prefill_s=float(totals[:, layout.PREFILL_PS].sum()) / PS_PER_S,
        decode_s=float(totals[:, layout.DECODE_PS].sum()) / PS_PER_S,
        peak_kv_share=float(totals[:, layout.PEAK_BLOCKS].max()) / limits.kv_blocks,
        mean_running=float(totals[:, layout.SEQUENCE_US].sum()) / busy_us if busy_us else 0.0,
        preemptions=int(totals[:, layout.PREEMPTIONS].sum()),
    )


def _report(requests: Requests, pools: Pools, played: _Played) -> DisaggregatedRun:
    out, arrival = played.out, played.arrival
    seen, notes = out.seen, out.notes
    timings = Timings(
        arrival_s=_seconds(arrival),
        first_token_s=_seconds(seen[:, names.FIRST]),
        done_s=_seconds(seen[:, names.DONE]),
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
        preemptions=notes[:, names.PREEMPTED].astype(np.int64),
        recomputed_tokens=notes[:, names.LOST].astype(np.int64),
        itl_edges_s=_edges_s(),
        itl_counts=out.histogram,
    )
    prefill = _pool_run(out.sender_totals, pools.prefill_limits)
    decode = _pool_run(out.receiver_totals, pools.decode_limits)
    busy_s = prefill.busy_s + decode.busy_s
    running_s = prefill.mean_running * prefill.busy_s + decode.mean_running * decode.busy_s
    ends = [totals[:, layout.END_PS].max() for totals in (out.sender_totals, out.receiver_totals)]
    return DisaggregatedRun(
        timings=timings,
        queued_s=_lasted_s(arrival, seen[:, names.START]),
        wait_reason=notes[:, names.REASON].astype(np.int8),
        replica=notes[:, names.RECEIVER].astype(np.int16),
        hit_tokens=notes[:, names.HITS].copy() if pools.prefill_limits.prefix_caching else None,
        replicas=prefill.replicas + decode.replicas,
        steps=prefill.steps + decode.steps,
        prefill_s=prefill.busy_s,
        decode_s=decode.busy_s,
        span_s=float(max(*ends, seen[:, names.DONE].max(initial=0))) / PS_PER_S,
        peak_kv_share=max(prefill.peak_kv_share, decode.peak_kv_share),
        mean_running=running_s / busy_s if busy_s else 0.0,
        refused=played.refused,
        prefill_pool=prefill,
        decode_pool=decode,
        prefill_replica=notes[:, names.SENDER].astype(np.int16),
        prefill_done_s=_seconds(seen[:, names.PREFILLED]),
        transfer_wait_s=_lasted_s(seen[:, names.PREFILLED], seen[:, names.SENT]),
        transfer_s=_lasted_s(seen[:, names.SENT], seen[:, names.READY]),
        decode_wait_s=_lasted_s(seen[:, names.READY], seen[:, names.BEGUN]),
    )
