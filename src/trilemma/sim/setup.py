"""What the compiled kernel reads and writes, made from requests, a step table, an engine's limits and a fleet."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trilemma.errors import UnsupportedError
from trilemma.latency.table import StepTable
from trilemma.sim import blocks, layout
from trilemma.sim.engine import EngineLimits
from trilemma.sim.fleet import Fleet, Routing
from trilemma.sim.stretch import round_to_ps
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

IntArray = npt.NDArray[np.int64]
SAMPLE_ROWS = 4096  # per replica; a finer resolution is made coarser until it fits
LONGEST_RING = 4096  # finish steps; it stays in the processor's cache, and longer answers go round more than once
LONG_WINDOW = 2**16  # tokens
NEVER = float("inf")
NO_SAMPLE = 2**63 - 1  # later than any clock gets: where no samples are asked for none is ever due


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The kernel's arguments: namedtuples of numbers and arrays (see layout.py)."""

    rules: layout.Rules
    prices: layout.Prices
    load: layout.Load
    out: layout.Outcome
    state: layout.State


def prefix_chains(
    requests: Requests, limits: EngineLimits
) -> tuple[IntArray, npt.NDArray[np.uint32], npt.NDArray[np.int32]]:
    """(offsets (n,), ids (m,), usable units (n,)) of the requests' prefix chains, ids as dense ranks.

    A chain is of use up to its first id that it has named before: no hash of a prefix comes twice.

    UnsupportedError where the requests name no prefix blocks, or ones that do not fit the engine's.
    """
    if requests.block_offsets is None or requests.block_ids is None:
        raise UnsupportedError("prefix caching needs requests that name their prefix blocks (a trace with hash_ids)")
    unit = requests.block_tokens
    if unit % limits.block_tokens:
        raise UnsupportedError(
            f"the requests' prefix blocks of {unit} tokens are no multiple of the engine's KV blocks of "
            f"{limits.block_tokens}"
        )
    offsets, ids = requests.block_offsets, requests.block_ids
    tokens = requests.prompt_tokens
    if requests.session is not None:  # a session's chain names the blocks of its answers too
        tokens = tokens + requests.output_tokens
    units = np.minimum(np.diff(offsets), tokens // unit).astype(np.int32)
    if ids.size and (ids.min() < 0 or ids.max() >= 4 * ids.size):
        _, ids = np.unique(ids, return_inverse=True)
    ranks = ids.astype(np.uint32)
    blocks.cut_at_repeats(offsets, ranks, units, np.full(int(ranks.max(initial=0)) + 1, -1, np.int32))
    return offsets[:-1], ranks, units


def followers(requests: Requests) -> tuple[IntArray, IntArray]:
    """(successor (n,), think_ps (n,)): who follows a request's answer (-1: nobody), its user's time to think."""
    n = len(requests)
    successor, think_ps = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    if requests.session is None or requests.think_s is None:
        return successor, think_ps
    order = np.argsort(requests.session, kind="stable")
    same = (requests.session[order[1:]] == requests.session[order[:-1]]) & (requests.session[order[1:]] >= 0)
    follows = same & ~np.isnan(requests.think_s[order[1:]])
    before, after = order[:-1][follows], order[1:][follows]
    successor[before] = after
    think_ps[after] = np.rint(requests.think_s[after] * PS_PER_S).astype(np.int64)
    return successor, think_ps


def in_turn(requests: Requests, fleet: Fleet) -> bool:
    """Whether requests go to one replica after the other, in the order of their arrival."""
    return fleet.routing is Routing.ROUND_ROBIN or requests.session is None


def dealt_replicas(requests: Requests, fleet: Fleet) -> npt.NDArray[np.int16]:
    """(n,) the replica of each request where nobody needs to look at the replicas."""
    n = len(requests)
    if fleet.replicas == 1:
        return np.zeros(n, np.int16)
    if in_turn(requests, fleet) or requests.session is None:
        return np.tile(np.arange(fleet.replicas, dtype=np.int16), -(-n // fleet.replicas))[:n]
    _, first, which = np.unique(requests.session, return_index=True, return_inverse=True)
    alone = requests.session < 0
    draws = alone.copy()
    draws[first] = True
    drawn = np.cumsum(draws) - 1
    number = np.where(alone, drawn, drawn[first][which.reshape(-1)])
    return (number % fleet.replicas).astype(np.int16)


def _queues(replica: npt.NDArray[np.int16], replicas: int, *, in_turn: bool) -> tuple[npt.NDArray[np.int32], IntArray]:
    """(link (n,), first (replicas,)): each replica's requests as a linked list in order of arrival. `in_turn`: the
    replicas follow one another."""
    n = replica.size
    if in_turn or replicas == 1:
        link, first = np.arange(replicas, replicas + n, dtype=np.int32), np.arange(replicas)
        link[max(0, n - replicas) :] = -1
        first[n:] = -1
        return link, first
    link, first = np.full(n, -1, np.int32), np.full(replicas, -1, np.int64)
    order = np.argsort(replica, kind="stable")
    same = replica[order[1:]] == replica[order[:-1]]
    link[order[:-1][same]] = order[1:][same]
    starts = np.concatenate([[True], ~same]) if n else np.zeros(0, bool)
    first[replica[order[starts]]] = order[starts]
    return link, first


def _ps(seconds: tuple[float, ...], replicas: int, otherwise: float) -> IntArray:
    """(replicas,) times in ps, FAR for never."""
    if not seconds:
        return np.full(replicas, layout.FAR if otherwise == NEVER else round(otherwise * PS_PER_S), np.int64)
    times = np.array(seconds, dtype=np.float64)
    whole = np.rint(np.where(np.isfinite(times), times, 0.0) * PS_PER_S).astype(np.int64)
    return np.where(np.isfinite(times), whole, layout.FAR)


def _events(fleet: Fleet) -> tuple[IntArray, int]:
    """((3, k) times, kinds and replicas of what happens to replicas, in order; when the last one gets ready)."""
    ready, drain = _ps(fleet.ready_s, fleet.replicas, 0.0), _ps(fleet.drain_s, fleet.replicas, NEVER)
    fail = _ps(fleet.fail_s, fleet.replicas, NEVER)
    rows: list[tuple[int, int, int]] = []
    last_ready = -1
    for r in range(fleet.replicas):
        if ready[r] < min(drain[r], fail[r]):
            rows.append((int(ready[r]), layout.READY, r))
            last_ready = max(last_ready, int(ready[r]))
        rows += [(int(drain[r]), layout.DRAIN, r)] if drain[r] < layout.FAR else []
        rows += [(int(fail[r]), layout.FAIL, r)] if fail[r] < layout.FAR else []
    return np.array(sorted(rows), dtype=np.int64).reshape(-1, 3).T.copy(), last_ready


def window_in(table: StepTable, requests: Requests) -> int:
    """The table's window, no longer than any request needs: memory grows with it."""
    if table.window_tokens <= LONG_WINDOW:
        return table.window_tokens
    longest = int(requests.prompt_tokens.max(initial=0)) + int(requests.output_tokens.max(initial=0))
    return min(table.window_tokens, max(longest, LONG_WINDOW))


def _own(column: IntArray) -> IntArray:
    """The column, or a copy of one that cannot be written: the kernels would be compiled anew for it."""
    return column if column.flags.carray else np.array(column)


def _power_of_two(at_least: int) -> int:
    return max(int(layout.WORD), 1 << (int(at_least) - 1).bit_length())


def set_up(
    requests: Requests, table: StepTable, limits: EngineLimits, fleet: Fleet, *, clients: int, sample_s: float
) -> Setup:
    """Everything `layout.run` needs; times in integer picoseconds."""
    n, replicas = len(requests), fleet.replicas
    sessions = requests.think_s is not None and not clients
    changes = fleet.changes
    dealt = fleet.routing <= Routing.SESSION_STICKY and not changes and not sessions
    feedback = not dealt and (sessions or clients > 0)
    # One block of memory: the system hands out large ones in large pages.
    arrival, start, first, done = np.full((4, n), -1, np.int64)
    round_to_ps(requests.arrival_s, arrival)
    successor, think_ps = followers(requests) if sessions else (np.zeros(0, np.int64),) * 2
    first_arrivals = np.zeros(0, np.int64)
    if clients:
        arrival[:] = layout.FAR
    if clients and not dealt:
        arrival[:clients] = 0
        first_arrivals = np.arange(min(clients, n))
    elif not dealt:
        follows = np.zeros(n, bool)
        follows[successor[successor >= 0]] = True
        first_arrivals = np.flatnonzero(~follows)
    replica = dealt_replicas(requests, fleet) if dealt else np.full(n, -1, np.int16)
    if dealt:
        link, queue = _queues(replica, replicas, in_turn=in_turn(requests, fleet))
    else:
        link, queue = np.full(n, -1, np.int32), np.full(replicas, -1, np.int64)
    session, home = np.zeros(0, np.int64), np.zeros(0, np.int64)
    if not dealt and fleet.routing is Routing.SESSION_STICKY:
        session = np.full(n, -1, np.int64)
        if requests.session is not None:
            named = requests.session >= 0
            session[named] = np.unique(requests.session[named], return_inverse=True)[1].reshape(-1)
        home = np.full(int(session.max(initial=-1)) + 1, -1, np.int64)
    caching = limits.prefix_caching
    blind = fleet.routing is Routing.PREFIX_AWARE and not caching  # no prefix is longer than another
    routing = Routing.LEAST_OUTSTANDING if blind else fleet.routing
    chain_offsets, chain_ids, chain_units = (
        prefix_chains(requests, limits)
        if caching
        else (np.zeros(0, np.int64), np.zeros(0, np.uint32), np.zeros(0, np.int32))
    )
    ratio_first, ratio_least, ratio_fall = limits.new_token_ratio_ppm
    rules = layout.Rules(
        policy=int(limits.policy), max_tokens=limits.max_num_batched_tokens, max_seqs=limits.max_num_seqs,
        page=limits.block_tokens, blocks=limits.kv_blocks, reserve_full=limits.reserve_full_isl,
        whole_prompts=not limits.chunked_prefill, chunk_unit=limits.chunk_unit_tokens, max_new=limits.max_new_tokens,
        mixed=limits.mixed_chunk, asynchronous=limits.async_scheduling, ratio_first=ratio_first,
        ratio_least=ratio_least, ratio_fall=ratio_fall, keeps_ratio=limits.ignore_eos, caching=caching,
        unit=requests.block_tokens if caching else limits.block_tokens, window=window_in(table, requests),
        clients=clients, sessions=sessions, feedback=feedback, routing=int(routing), retry=fleet.retry_failed,
        balance_abs=fleet.balance_abs, balance_rel=float(fleet.balance_rel), seed=fleet.seed, dynamic=not dealt,
        least_step_ps=table.least_step_ps,
    )  # fmt: skip
    prices = layout.Prices(
        token_ps=table.token_ps, prefill_ps=table.prefill_ps, decode_ps=table.decode_ps,
        sequence_ps=table.sequence_ps, floor_ps=table.floor_ps, context_ps=table.context_ps,
        window_ps=table.window_ps, pair_fp=table.pair_fp,
    )  # fmt: skip
    load = layout.Load(
        arrival=arrival, entry=arrival.copy() if changes else arrival,
        prompt=_own(requests.prompt_tokens), output=_own(requests.output_tokens),
        link=link, successor=successor, think_ps=think_ps, session=session, home=home, chain_offsets=chain_offsets,
        chain_ids=chain_ids, chain_units=chain_units,
    )  # fmt: skip
    out = layout.Outcome(
        start=start, first=first, done=done,
        preempted=np.zeros(n, np.int32), lost=np.zeros(n, np.int32), hits=np.zeros(n if caching else 0, np.int32),
        reason=np.zeros(n, np.int8), replica=replica, histogram=np.zeros(layout.HISTOGRAM_BINS, np.int64),
        totals=np.zeros((replicas, layout.TOTALS), np.int64),
        samples=np.zeros((replicas, SAMPLE_ROWS if sample_s else 0, 8), np.int64),
    )  # fmt: skip
    events, last_ready = _events(fleet) if not dealt else (np.zeros((3, 0), np.int64), 0)
    state = _state(
        requests, limits, fleet,
        rules=rules, queue=queue, units=int(chain_ids.max(initial=0)) + 1, sample_s=sample_s,
        changes=events, last_ready=last_ready, first_arrivals=first_arrivals,
    )  # fmt: skip
    return Setup(rules=rules, prices=prices, load=load, out=out, state=state)


def _state(
    requests: Requests,
    limits: EngineLimits,
    fleet: Fleet,
    *,
    rules: layout.Rules,
    queue: IntArray,
    units: int,
    sample_s: float,
    changes: IntArray,
    last_ready: int,
    first_arrivals: IntArray,
) -> layout.State:
    replicas, n = fleet.replicas, len(requests)
    seats, page = limits.max_num_seqs, limits.block_tokens
    ring = _power_of_two(min(int(requests.output_tokens.max(initial=1)) + 2, LONGEST_RING))
    window_ring = _power_of_two(rules.window + 3)
    scalars = np.zeros((replicas, layout.SCALARS), np.int64)
    for column in (layout.HEAD, layout.TAIL, layout.STACK, layout.STACK_END, layout.PARTIAL):
        scalars[:, column] = -1
    scalars[:, layout.SEATS_LEFT] = seats
    scalars[:, layout.FREE] = limits.kv_blocks
    scalars[:, layout.QUEUE] = queue
    scalars[:, layout.SEEN] = scalars[:, layout.PLANNED_AT] = -1
    scalars[:, layout.RATIO] = rules.ratio_first
    scalars[:, layout.RELEASED] = queue
    scalars[:, layout.SHORTEST] = layout.FAR
    board = np.zeros((layout.BOARD, replicas), np.int64)
    board[layout.NEXT_CHANGE] = layout.FAR
    sample_ps = round(sample_s * PS_PER_S)
    scalars[:, layout.SAMPLE_PS] = sample_ps
    scalars[:, layout.NEXT_SAMPLE] = sample_ps or NO_SAMPLE
    events = np.zeros(layout.EVENTS, np.int64)
    events[layout.HOMELESS] = -1
    events[layout.SENT] = first_arrivals.size
    waiting = first_arrivals.size if rules.feedback else 0  # one a client, or a chain of turns
    all_seats = np.arange(replicas * seats).reshape(replicas, seats)[:, ::-1].reshape(-1).copy()  # the first on top
    caching = bool(rules.caching)
    return layout.State(
        scalars=scalars,
        slots=np.zeros((replicas * seats, 8), np.int64),
        since=np.zeros(replicas * seats, np.int64),
        seats=all_seats,
        late=np.zeros(replicas * seats, np.int64),
        ring=np.full(replicas * ring, -1, np.int32),
        ring_bits=np.zeros(replicas * ring // layout.WORD, np.int64),
        window_ring=np.zeros(replicas * window_ring, np.int64),
        window_bits=np.zeros(replicas * window_ring // layout.WORD, np.int64),
        crossing=np.zeros(replicas * page, np.int64),
        cohort_time=np.zeros(replicas * (seats + 2), np.int64),
        cohort_count=np.zeros(replicas * (seats + 2), np.int64),
        generated=np.zeros(n, np.int32),
        retracted_at=np.zeros(n if rules.policy == layout.SGLANG else 0, np.int64),
        completing=np.zeros(seats, np.int64),
        nodes=blocks.new_nodes(limits.kv_blocks if caching else 1)[np.newaxis].repeat(replicas, axis=0),
        where=np.zeros((replicas, units if caching else 1), np.uint32),
        held=np.zeros(requests.block_ids.size if caching and requests.block_ids is not None else 0, np.uint8),
        board=board,
        fail=_ps(fleet.fail_s, replicas, NEVER),
        heap_time=np.zeros(waiting, np.int64),
        heap_request=np.zeros(waiting, np.int64),
        events=events,
        serving=np.zeros(replicas, np.int64),
        event_ps=changes[0],
        event_kind=changes[1],
        event_replica=changes[2],
        first_arrivals=first_arrivals,
        admitted=np.zeros(replicas * seats if caching else 0, np.int64),
        last_ready=np.array([last_ready], np.int64),
        serves=np.zeros(replicas, np.int64),
        dead=np.zeros(replicas, np.int64),
        inside=np.zeros(n if fleet.changes else 0, np.int64),
    )
