"""What the compiled pools read and write, made from requests and pools."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from trilemma.sim import blocks, layout
from trilemma.sim import disaggregated_layout as names
from trilemma.sim.engine import EngineLimits
from trilemma.sim.pools import Pool, Pools
from trilemma.sim.setup import followers, prefix_chains, window_in
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The arguments of the compiled functions: namedtuples of numbers and arrays (see disaggregated_layout.py)."""

    rules: names.Rules
    prefill: names.Replicas
    decode: names.Replicas
    load: names.Load
    out: names.Out
    senders: names.Senders
    receivers: names.Receivers
    clock: names.Clock


def set_up(requests: Requests, pools: Pools, *, clients: int, hold: bool) -> Setup:
    """Everything `disaggregated_clock` needs; times in integer picoseconds."""
    load = _load(requests, pools, clients)
    return Setup(
        rules=names.Rules(
            hold=hold,
            by_prefill=pools.first_token == "prefill",
            entry=names.PREFILLED if hold else names.READY,
            overlap=pools.transfer.overlap,
            one_at_a_time=pools.transfer.one_at_a_time,
            latency_ps=pools.transfer.latency_ps,
            clients=clients,
            sessions=requests.think_s is not None and not clients,
        ),
        prefill=_replicas(pools.prefill, requests),
        decode=_replicas(pools.decode, requests),
        load=load,
        out=_out(len(requests), pools),
        senders=_senders(pools.prefill, load),
        receivers=_receivers(requests, pools.decode),
        clock=_clock(len(requests), clients),
    )


def prompts_only(requests: Requests) -> Requests:
    """What the prefill pool sees: requests of one output token."""
    return replace(requests, output_tokens=np.ones(len(requests), np.int64), think_s=None)


def _replicas(pool: Pool, requests: Requests) -> names.Replicas:
    table, limits = pool.table, pool.limits
    prices = layout.Prices(
        token_ps=table.token_ps, prefill_ps=table.prefill_ps, decode_ps=table.decode_ps,
        sequence_ps=table.sequence_ps, floor_ps=table.floor_ps, context_ps=table.context_ps,
        window_ps=table.window_ps, pair_fp=table.pair_fp,
    )  # fmt: skip
    return names.Replicas(
        count=pool.replicas, routing=int(pool.routing), max_tokens=limits.max_num_batched_tokens,
        max_seqs=limits.max_num_seqs, page=limits.block_tokens, blocks=limits.kv_blocks,
        reserve_full=limits.reserve_full_isl, whole_prompts=not limits.chunked_prefill,
        asynchronous=limits.async_scheduling, caching=limits.prefix_caching,
        unit=requests.block_tokens if limits.prefix_caching else limits.block_tokens,
        window=window_in(table, requests), prices=prices,
    )  # fmt: skip


def _load(requests: Requests, pools: Pools, clients: int) -> names.Load:
    n = len(requests)
    fits = pools.fits(requests)
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
    offsets, ids, units = none, np.zeros(1, np.uint32), np.zeros(0, np.int32)
    if pools.prefill.limits.prefix_caching:
        offsets, ids, units = prefix_chains(prompts_only(requests), pools.prefill.limits)
    longest = int(requests.prompt_tokens[fits].max(initial=0))
    return names.Load(
        arrival=arrival,
        prompt=np.ascontiguousarray(requests.prompt_tokens),
        output=np.ascontiguousarray(requests.output_tokens),
        fits=fits,
        link_ps=pools.transfer.link_ps(np.arange(longest + 1)),
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


def _senders(pool: Pool, load: names.Load) -> names.Senders:
    limits, replicas = pool.limits, pool.replicas
    nobody = (names.PARTIAL, names.LEAVING, names.SEEN_UNTIL)
    return names.Senders(
        scalars=_scalars(replicas, names.SENDER_SCALARS, limits, nobody),
        completing=np.zeros(limits.max_num_seqs, np.int64),
        nodes=blocks.new_nodes(limits.kv_blocks if limits.prefix_caching else 1)[np.newaxis].repeat(replicas, axis=0),
        where=np.zeros((replicas, int(load.chain_ids.max(initial=0)) + 1), np.uint32),
        held=np.zeros(load.chain_ids.size, np.uint8),
    )


def _power_of_two(at_least: int) -> int:
    return max(int(layout.WORD), 1 << (at_least - 1).bit_length())


def _receivers(requests: Requests, pool: Pool) -> names.Receivers:
    limits, replicas = pool.limits, pool.replicas
    seats = limits.max_num_seqs
    ring = _power_of_two(int(requests.output_tokens.max(initial=1)) + 2)
    window_ring = _power_of_two(window_in(pool.table, requests) + 3)
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
