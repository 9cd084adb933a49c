"""Engines whose steps do not fit sums, compiled: one step after another, one array entry per running sequence.

`trilemma.sim.kernel` skips steps and is much faster; this module plays what it cannot: several unfinished prompts at
once (`long_prefill_token_threshold`), priorities, speculative decoding, and attention-DP ranks in lockstep, under every
policy, with prefix caching, asynchronous scheduling, closed loops and sessions. `tests/sim/oracle_engine.py` says the
same rules request by request; both agree to the picosecond.

Lockstep: each of R ranks has a scheduler, a queue, seats and KV blocks of its own; ranks start every step together, and
the step takes as long as its slowest rank, a rank with nothing to do taking no time of its own. Where the experts see
the tokens of all ranks (`moe_tokens_shared`), a rank's tokens are priced as the mean over the ranks (rounded up) if
that is more than its own. A request gets its rank on arrival: vLLM takes the rank with the fewest unanswered requests,
looking from a rank that moves on by one with each request; TensorRT-LLM the one with the fewest prompt tokens inside,
then the fewest requests; SGLang one after the other.

A running sequence has a seat, an index into the arrays of its rank. Decodes are kept so that an ordinary step is a few
loops over whole arrays without branches: `room` tokens until a block more is needed, `left` tokens to emit; its context
is `base - left`. Only admissions, finishes, evictions and unfinished prompts are dealt with one by one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trilemma.latency.table import StepTable
from trilemma.sim import blocks as cache
from trilemma.sim.door import check_lengths, check_steps, check_table, ran_out
from trilemma.sim.draws import thresholds_of
from trilemma.sim.engine import EngineLimits, Policy
from trilemma.sim.explicit_layout import (
    BEGAN,
    CHAIN,
    DONE,
    ENDED,
    EVENTS,
    FIRST,
    FOLLOWS,
    FREE,
    FREE_SEATS,
    FRESH,
    GROUP_SCALARS,
    HEAD,
    HITS,
    LOAD_COLUMNS,
    LOOKED,
    LOST,
    NEWS,
    NEWS_END,
    NEXT_SAMPLE,
    NOTES,
    NOW,
    OUTPUT,
    PREEMPTED,
    PRIORITY,
    PROMPT,
    QUEUE,
    QUEUE_END,
    RANK,
    RANK_SCALARS,
    RATIO,
    REASON,
    RELEASED,
    REQUEST,
    SAMPLE_COLUMNS,
    SAMPLE_PS,
    SAMPLES,
    SEAT_ROWS,
    SEATS_LEFT,
    SEEN_COLUMNS,
    START,
    STUCK,
    SUCCESSOR,
    TAIL,
    THINK_PS,
    TOKEN_ROWS,
    UNITS,
    Load,
    Outcome,
    Prices,
    Rules,
    State,
)
from trilemma.sim.explicit_step import run_steps
from trilemma.sim.layout import FAR, HISTOGRAM_BINS, TOTALS
from trilemma.sim.setup import NO_SAMPLE
from trilemma.sim.speculation import Speculation
from trilemma.units import PS_PER_S

IntArray = npt.NDArray[np.int64]
NS_A_CALL = 200_000_000  # roughly, between two looks at whether the user wants to stop
LONGEST_CALL_PS = 2**58  # on the clock: the steps of a call do not lead from before FAR out of 63 bits
NS_A_STEP, NS_A_SEAT = 500, 20  # of a rank, generously


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplicitRun:
    """What `play_explicit` saw, int64 throughout.

    (n,) per request: `arrival_ps` (as it came about in closed loops and sessions), `start_ps`, `first_ps`, `done_ps`
    (-1 where it never was), `preempted`, `lost` computed tokens, `hit_tokens`, `reason` (layout.NOTHING, SEATS, ...),
    `rank` (-1 for refused ones). `histogram` (layout.HISTOGRAM_BINS,) of gaps between tokens; tokens that come together
    have gaps of 0, in bin 0. `totals` (layout.TOTALS,) of the group: steps and times are the group's, PEAK_BLOCKS is of
    the fullest rank. `samples` (rows, 8), columns layout.S_*, sums over ranks, taken every `sample_ps`.
    """

    arrival_ps: IntArray
    start_ps: IntArray
    first_ps: IntArray
    done_ps: IntArray
    preempted: IntArray
    lost: IntArray
    hit_tokens: IntArray
    reason: IntArray
    rank: IntArray
    histogram: IntArray
    totals: IntArray
    samples: IntArray
    sample_ps: int


def play_explicit(
    arrival_ps: IntArray,
    prompt_tokens: IntArray,
    output_tokens: IntArray,
    *,
    table: StepTable,
    limits: EngineLimits,
    ranks: int = 1,
    moe_tokens_shared: bool = False,
    clients: int = 0,
    priority: IntArray | None = None,
    successor: IntArray | None = None,
    think_ps: IntArray | None = None,
    chain_offsets: IntArray | None = None,
    chain_ids: npt.NDArray[np.integer[Any]] | None = None,
    chain_units: npt.NDArray[np.integer[Any]] | None = None,
    unit_tokens: int = 0,
    speculation: Speculation | None = None,
    sample_rows: int = 0,
    sample_ps: int = PS_PER_S,
) -> ExplicitRun:
    """Play requests on one replica of `ranks` attention-DP ranks, each with `limits` of its own.

    (n,) int64 arrays in order of arrival. With `clients` > 0 the loop is closed and arrivals count for nothing.
    `successor` (n,): the request that follows on the answer to this one, after its own `think_ps` (n,); -1 for none.
    `chain_offsets` (n,) or (n + 1,), `chain_ids` (m,) dense ids from 0 without a repetition in a chain, `chain_units`
    (n,) how many of a request's units may be cached, `unit_tokens` their size, a multiple of the KV page. `priority`
    (n,): lower is served first. `sample_rows` > 0 keeps so many rows of what goes on (even), one per `sample_ps` that
    doubles when they are full.

    ValueError for limits that speculation or the table does not fit; UnsupportedError for requests of 2**31 tokens,
    steps too long to add up or a run that goes on beyond the clock. KeyboardInterrupt is answered within a second.
    """
    n = arrival_ps.size
    span = speculation.draft_tokens + 1 if speculation else 1
    _check(table, limits, span=span, ranks=ranks)
    lengths = check_lengths(prompt_tokens, output_tokens, limits, span=span)
    draft_ps = speculation.draft_ps if speculation else 0
    longest_ps = check_steps(table, limits, lengths, span=span, draft_ps=draft_ps)
    caching = bool(limits.prefix_caching and chain_ids is not None and chain_ids.size)
    if caching and (unit_tokens < 1 or unit_tokens % limits.block_tokens):
        raise ValueError(f"units of {unit_tokens} tokens are not whole KV pages of {limits.block_tokens}")
    ratio_first, ratio_least, ratio_fall = limits.new_token_ratio_ppm
    rules = Rules(
        policy=int(limits.policy),
        max_tokens=limits.max_num_batched_tokens,
        max_seqs=limits.max_num_seqs,
        page=limits.block_tokens,
        blocks=limits.kv_blocks,
        reserve_full=int(limits.reserve_full_isl),
        threshold=limits.long_prefill_token_threshold,
        asynchronous=int(limits.async_scheduling),
        whole_prompts=int(not limits.chunked_prefill),
        chunk_unit=limits.chunk_unit_tokens,
        max_new=limits.max_new_tokens,
        mixed=int(limits.mixed_chunk),
        ratio_first=ratio_first,
        ratio_least=ratio_least,
        ratio_fall=ratio_fall,
        keeps_ratio=int(limits.ignore_eos),
        caching=int(caching),
        unit=unit_tokens if caching else limits.block_tokens,
        ranks=ranks,
        shared=int(moe_tokens_shared and ranks > 1),
        by_priority=int(priority is not None),
        clients=clients,
        sessions=int(successor is not None and not clients),
        span=span,
        draft_ps=draft_ps,
        speculating=int(speculation is not None),
        seed=speculation.seed if speculation else 0,
    )
    prices = Prices(
        token_ps=table.token_ps,
        prefill_ps=table.prefill_ps,
        decode_ps=table.decode_ps,
        sequence_ps=table.sequence_ps,
        floor_ps=table.floor_ps,
        context_ps=table.context_ps,
        window_ps=table.window_ps,
        pair_fp=table.pair_fp,
        window=table.window_tokens,
        thresholds=thresholds_of(speculation.acceptance if speculation else (1.0,)),
    )
    columns = np.zeros((n, LOAD_COLUMNS), np.int64)
    columns[:, PROMPT] = prompt_tokens
    columns[:, OUTPUT] = output_tokens
    columns[:, SUCCESSOR] = -1
    if priority is not None:
        columns[:, PRIORITY] = priority
    if successor is not None and think_ps is not None:
        columns[:, SUCCESSOR] = successor
        columns[:, THINK_PS] = think_ps
        columns[successor[successor >= 0], FOLLOWS] = 1
    if caching and chain_offsets is not None and chain_units is not None:
        columns[:, CHAIN] = chain_offsets[:n]
        columns[:, UNITS] = chain_units
    load = Load(
        arrival=np.full(n, FAR, np.int64) if clients else arrival_ps.astype(np.int64),
        table=columns,
        chain_ids=np.ascontiguousarray(chain_ids, np.uint32) if caching else np.zeros(1, np.uint32),
    )
    seen = np.zeros((n, SEEN_COLUMNS), np.int64)
    seen[:, [START, FIRST, DONE, RANK]] = -1
    out = Outcome(
        seen=seen,
        histogram=np.zeros(HISTOGRAM_BINS, np.int64),
        totals=np.zeros(TOTALS, np.int64),
        samples=np.zeros((max(sample_rows, 2), SAMPLE_COLUMNS), np.int64),
    )
    state = _new_state(rules, load, n)
    group = state.group
    group[NEXT_SAMPLE] = group[SAMPLE_PS] = sample_ps if sample_rows else NO_SAMPLE
    if clients:
        group[RELEASED] = min(clients, n)
        load.arrival[:clients] = 0
    most_steps = max(1, NS_A_CALL // (ranks * (NS_A_STEP + NS_A_SEAT * limits.max_num_seqs)))
    most_steps = min(most_steps, LONGEST_CALL_PS // longest_ps)
    while run_steps(rules, prices, load, out, state, most_steps) and group[NOW] <= FAR:
        pass  # here an interruption is noticed
    if group[NOW] > FAR:
        raise ran_out(int(group[NOW]))
    if group[STUCK]:
        raise RuntimeError(f"{group[STUCK]} requests inside and nothing to do for {limits}")
    return ExplicitRun(
        arrival_ps=load.arrival,
        start_ps=seen[:, START],
        first_ps=seen[:, FIRST],
        done_ps=seen[:, DONE],
        preempted=seen[:, PREEMPTED],
        lost=seen[:, LOST],
        hit_tokens=seen[:, HITS],
        reason=seen[:, REASON],
        rank=seen[:, RANK],
        histogram=out.histogram,
        totals=out.totals,
        samples=out.samples[: group[SAMPLES]],
        sample_ps=int(group[SAMPLE_PS]),
    )


def _check(table: StepTable, limits: EngineLimits, *, span: int, ranks: int) -> None:
    """ValueError for what the compiled functions cannot play."""
    if ranks < 1:
        raise ValueError(f"at least one rank is needed, found {ranks}")
    if limits.policy is not Policy.VLLM and limits.max_num_batched_tokens < limits.max_num_seqs * span:
        raise ValueError(f"a step must hold {span} tokens of each sequence, found {limits}")
    check_table(table, limits)


def _new_state(rules: Rules, load: Load, n: int) -> State:
    """Empty ranks."""
    ranks, seats = rules.ranks, rules.max_seqs
    scalars = np.zeros((ranks, RANK_SCALARS), np.int64)
    for name in (HEAD, TAIL, QUEUE, QUEUE_END, NEWS, NEWS_END, LOOKED, BEGAN, ENDED):
        scalars[:, name] = -1
    scalars[:, SEATS_LEFT] = seats
    scalars[:, FREE] = rules.blocks
    scalars[:, RATIO] = rules.ratio_first
    scalars[:, FRESH] = not rules.speculating
    group = np.zeros(GROUP_SCALARS, np.int64)
    group[EVENTS] = -1

    units = int(load.chain_ids.max(initial=0)) + 1 if rules.caching else 1
    lists = np.zeros((ranks, SEAT_ROWS, seats + 1), np.int64)
    lists[:, REQUEST] = -1
    lists[:, FREE_SEATS, :seats] = np.arange(seats - 1, -1, -1)
    nodes = np.empty((ranks, cache.rows_for(rules.blocks if rules.caching else 1), cache.WIDTH), np.uint32)
    for rank in range(ranks):
        cache.clear(nodes[rank], rules.blocks)
    return State(
        group=group,
        scalars=scalars,
        tokens=np.zeros((ranks, TOKEN_ROWS, seats), np.int32),
        seats=lists,
        notes=np.zeros((n, NOTES), np.int32),
        nodes=nodes,
        where=np.zeros((ranks, units), np.uint32),
        held=np.zeros(load.chain_ids.size, np.uint8),
    )
