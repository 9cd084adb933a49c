"""Random replicas and fleets small enough for the oracle, with every regime in them: idle, crowded, out of KV.

`compose` builds every kind of case from a `Chooser`, which is either a seeded generator (`random_*_case`: the same
cases on every machine) or hypothesis (`*_cases`: strategies, which also shrink).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from hypothesis import strategies as st

from tests.sim import oracle
from trilemma.latency.table import FRACTION_BITS, StepTable
from trilemma.sim.engine import EngineLimits, Policy
from trilemma.sim.fleet import Fleet, Routing
from trilemma.sim.speculation import Speculation
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

if TYPE_CHECKING:
    from trilemma.sim.replica import Run

T = TypeVar("T")
PLENTY_OF_BLOCKS = 100_000


@dataclass(frozen=True)
class Case:
    requests: Requests
    table: StepTable
    limits: EngineLimits
    clients: int = 0
    fleet: Fleet = Fleet()
    speculation: Speculation | None = None
    ranks: int = 1
    shared_experts: bool = False  # the ranks' tokens are priced by their mean where that is more

    def play(self, replicas: int = 1) -> "Run":
        from trilemma.sim.replica import simulate

        fleet = self.fleet if self.fleet != Fleet() else Fleet(replicas=replicas)
        return simulate(
            self.requests,
            self.table,
            self.limits,
            clients=self.clients,
            fleet=fleet,
            speculation=self.speculation,
            ranks=self.ranks,
            shared_experts=self.shared_experts,
        )

    def plain(self, watch: Callable[[oracle.Engine], None] | None = None) -> oracle.Outcome:
        return oracle.play(
            self.requests,
            self.table,
            self.limits,
            clients=self.clients,
            fleet=self.fleet,
            speculation=self.speculation,
            ranks=self.ranks,
            shared_experts=self.shared_experts,
            watch=watch,
        )


# Step times ----------------------------------------------------------------------------------------------------


def table_of(rng: np.random.Generator, tokens: int, seqs: int) -> StepTable:
    """A table with no structure beyond more work never being faster; often with a window, a floor or both."""
    prefill_ps = np.sort(rng.integers(0, 10**8, tokens + 1))
    prefill_ps[0] = 0
    table = StepTable(
        token_ps=np.sort(rng.integers(1, 10**9, tokens + 1)),
        prefill_ps=prefill_ps,
        decode_ps=np.sort(rng.integers(0, 10**8, seqs + 1)),
        sequence_ps=np.sort(rng.integers(0, 10**8, seqs + 1)),
        context_ps=int(rng.integers(0, 10**4)),
        pair_fp=int(rng.integers(0, 10**6)),
    )
    if rng.random() < 0.4:
        window = {"window_tokens": int(rng.integers(1, 100)), "window_ps": int(rng.integers(1, 10**6))}
        table = replace(table, context_ps=int(rng.choice([0, table.context_ps])), **window)
    if rng.random() < 0.4:  # around what steps take: in some cases it decides, then no longer
        highest = int(rng.choice([10**8, 10**9, 2 * 10**9]))
        table = replace(table, floor_ps=np.sort(rng.integers(0, highest, seqs + 1)))
    return table


def constant_table(step_ps: int, tokens: int, seqs: int) -> StepTable:
    """Every step takes the same time."""
    return StepTable(
        token_ps=np.full(tokens + 1, step_ps, np.int64),
        prefill_ps=np.zeros(tokens + 1, np.int64),
        decode_ps=np.zeros(seqs + 1, np.int64),
        sequence_ps=np.zeros(seqs + 1, np.int64),
        context_ps=0,
        pair_fp=0,
    )


def whole(table: StepTable) -> StepTable:
    """The table with coefficients in whole picoseconds, so that nothing is rounded."""
    return replace(table, pair_fp=table.pair_fp >> FRACTION_BITS << FRACTION_BITS)


def in_ps(seconds: np.ndarray) -> np.ndarray:
    """Integer picoseconds again; -1 for NaN."""
    return np.where(np.isnan(seconds), -1, np.rint(np.nan_to_num(seconds) * PS_PER_S)).astype(np.int64)


# vLLM, nothing but its limits ------------------------------------------------------------------------------------


def build(
    rng: np.random.Generator,
    *,
    n: int,
    seqs: int,
    spare_tokens: int,
    page: int,
    blocks: int,
    gap_ps: int,
    longest_prompt: int,
    longest_output: int,
    clients: int,
) -> Case:
    limits = EngineLimits(
        max_num_batched_tokens=seqs + spare_tokens, max_num_seqs=seqs, block_tokens=page, kv_blocks=blocks
    )
    arrival_ps = np.zeros(n, np.int64) if clients else np.sort(rng.integers(0, n * gap_ps + 1, n))
    requests = Requests(
        arrival_s=arrival_ps / PS_PER_S,
        prompt_tokens=rng.integers(1, longest_prompt + 1, n),
        output_tokens=rng.integers(1, longest_output + 1, n),
    )
    return Case(requests, table_of(rng, limits.max_num_batched_tokens, seqs), limits, clients)


PAGES = (1, 3, 16)
GAPS_PS = (0, 10**7, 10**9, 10**11)  # from all at once to nearly idle
LONGEST_PROMPTS = (3, 30, 120)
LONGEST_OUTPUTS = (1, 10, 60)
CLIENTS = (0, 0, 1, 5)


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    return build(
        rng,
        n=int(rng.integers(1, 41)),
        seqs=int(rng.integers(1, 13)),
        spare_tokens=int(rng.integers(0, 65)),
        page=int(rng.choice(PAGES)),
        blocks=int(rng.integers(2, 61)),
        gap_ps=int(rng.choice(GAPS_PS)),
        longest_prompt=int(rng.choice(LONGEST_PROMPTS)),
        longest_output=int(rng.choice(LONGEST_OUTPUTS)),
        clients=int(rng.choice(CLIENTS)),
    )


@st.composite
def cases(draw, clients=CLIENTS, fewest_blocks=2, most_blocks=60):
    return build(
        np.random.default_rng(draw(st.integers(0, 2**32 - 1))),
        n=draw(st.integers(1, 40)),
        seqs=draw(st.integers(1, 12)),
        spare_tokens=draw(st.integers(0, 64)),
        page=draw(st.sampled_from(PAGES)),
        blocks=draw(st.integers(fewest_blocks, most_blocks)),
        gap_ps=draw(st.sampled_from(GAPS_PS)),
        longest_prompt=draw(st.sampled_from(LONGEST_PROMPTS)),
        longest_output=draw(st.sampled_from(LONGEST_OUTPUTS)),
        clients=draw(st.sampled_from(clients)),
    )


def open_cases():
    return cases(clients=(0,))


def roomy_cases():
    """Open loop with memory for everyone: nothing is refused or preempted."""
    return cases(clients=(0,), fewest_blocks=PLENTY_OF_BLOCKS, most_blocks=PLENTY_OF_BLOCKS)


# Every engine, option and kind of load ---------------------------------------------------------------------------


class Chooser(Protocol):
    def between(self, least: int, most: int) -> int:
        """A whole number, both ends included."""

    def one_of(self, options: Sequence[T]) -> T: ...


class Seeded:
    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def between(self, least: int, most: int) -> int:
        return int(self.rng.integers(least, most + 1))

    def one_of(self, options: Sequence[T]) -> T:
        return options[int(self.rng.integers(len(options)))]


class Drawn:
    def __init__(self, draw):
        self.draw = draw

    def between(self, least: int, most: int) -> int:
        return self.draw(st.integers(least, most))

    def one_of(self, options: Sequence[T]) -> T:
        return self.draw(st.sampled_from(options))


EVERY_POLICY = tuple(Policy)
COMMON = frozenset()
PREFIX = frozenset({"prefix"})  # the requests name their blocks and the engine keeps them
SESSIONS = frozenset({"sessions"})  # turns follow answers; with prefixes they go on from the turn before
FLEET = frozenset({"fleet"})
ASYNC = frozenset({"async"})
THRESHOLD = frozenset({"threshold"})  # vLLM alone
PRIORITIES = frozenset({"priorities"})
SPECULATION = frozenset({"speculation"})
RANKS = frozenset({"ranks"})
SHARED_EXPERTS = frozenset({"ranks", "shared experts"})
EXPLICIT = (ASYNC, THRESHOLD, PRIORITIES, SPECULATION, RANKS)
MOST_REPLICAS = 4
ROOM = (0.7, 1.0, 1.0, 1.3, 2.0, 3.0, 10.0)  # KV blocks per blocks of the largest request


def compose(
    choose: Chooser,
    rng: np.random.Generator,
    features: frozenset[str],
    policies: Sequence[Policy] = EVERY_POLICY,
    clients: Sequence[int] = CLIENTS,
) -> Case:
    """A case with all of `features`; what they leave open is chosen."""
    policy = Policy.VLLM if "threshold" in features else choose.one_of(policies)
    crowded = choose.between(0, 3) == 0  # long answers, little memory: requests are thrown out of their seats
    n, seqs = choose.between(15 if crowded else 1, 40), choose.between(4 if crowded else 1, 12)
    page = choose.one_of((1, 3, 4) if crowded else (1, 3, 4, 16))
    gap_ps = choose.one_of(GAPS_PS[1:3] if crowded else GAPS_PS)
    requests, unit = lengths(choose, rng, features, n, page, crowded)
    own_clients = 0 if "sessions" in features else choose.one_of(clients)
    if own_clients and "fleet" in features:
        own_clients = max(own_clients, MOST_REPLICAS)
    span_ps = 0 if own_clients else n * gap_ps
    requests = replace(requests, arrival_s=np.sort(rng.integers(0, span_ps + 1, n)) / PS_PER_S)
    if "sessions" in features:
        think_ps = rng.choice([0, 1, max(1, gap_ps), 10 * gap_ps], n)
        requests = replace(requests, think_s=np.where(rng.random(n) < 0.9, think_ps / PS_PER_S, np.nan))
    if "priorities" in features:
        requests = replace(requests, priority=rng.integers(0, choose.between(1, 4), n))
    speculation = draft(choose, rng) if "speculation" in features else None
    limits = engine(choose, features, policy, requests, seqs, page, speculation, crowded)
    if unit:
        limits = replace(limits, prefix_caching=True)
    return Case(
        requests,
        table_of(rng, limits.max_num_batched_tokens, seqs),
        limits,
        own_clients,
        fleet(choose, rng, requests, max(span_ps, n * 10**9), bool(own_clients)) if "fleet" in features else Fleet(),
        speculation,
        choose.between(2, 4) if "ranks" in features else 1,
        "shared experts" in features,
    )


def lengths(
    choose: Chooser, rng: np.random.Generator, features: frozenset[str], n: int, page: int, crowded: bool
) -> tuple[Requests, int]:
    """Requests without their times, and the size of the units they name (0 for none)."""
    output = rng.integers(1, choose.one_of(LONGEST_OUTPUTS[-1:] if crowded else LONGEST_OUTPUTS) + 1, n)
    prompt = rng.integers(1, choose.one_of(LONGEST_PROMPTS[:-1] if crowded else LONGEST_PROMPTS) + 1, n)
    session = rng.integers(-1 if choose.between(0, 1) else 0, choose.between(1, n), n)
    unit = page * choose.one_of((1, 2, 5)) if "prefix" in features else 0
    shared = choose.between(0, 3)  # units that everybody starts with
    chains: list[list[int]] = []
    if unit and "sessions" in features:
        # Each turn's prompt is the whole conversation so far and something new.
        said = np.zeros(n + 1, np.int64)
        for i in range(n):
            if session[i] >= 0:
                prompt[i] += said[session[i]]
                said[session[i]] = prompt[i] + output[i]
            owner = session[i] if session[i] >= 0 else n + i
            count = -(-int(prompt[i] + output[i]) // unit)
            chains.append([k if k < shared else 1000 * int(owner + 1) + k for k in range(count)])
    elif unit:
        # A tree of prefixes: after the common part each unit goes one of two ways, one of them more often.
        prompt += shared * unit * rng.integers(0, 2, n)
        ids: dict[tuple[int, int], int] = {}
        for i in range(n):
            chain, parent = [], -1
            for k in range(-(-int(prompt[i]) // unit)):
                way = 0 if k < shared else int(rng.random() < 0.3)
                parent = ids.setdefault((parent, way), len(ids))
                chain.append(parent)
            chains.append(chain)
    none = np.zeros(n)
    requests = Requests(arrival_s=none, prompt_tokens=prompt, output_tokens=output)
    if "sessions" in features or ("fleet" in features and choose.between(0, 1)):
        requests = replace(requests, session=session)
    if unit:
        offsets = np.concatenate([[0], np.cumsum([len(chain) for chain in chains])]).astype(np.int64)
        ids_of_all = np.array([name for chain in chains for name in chain], np.int64)
        requests = replace(requests, block_offsets=offsets, block_ids=ids_of_all, block_tokens=unit)
    return requests, unit


def draft(choose: Chooser, rng: np.random.Generator) -> Speculation:
    tokens = choose.between(0, 3)
    weights = rng.random(tokens + 1) * rng.integers(0, 2, tokens + 1)
    weights[choose.between(0, tokens)] += 0.1
    return Speculation(
        draft_tokens=tokens,
        acceptance=tuple((weights / weights.sum()).tolist()),
        draft_ps=choose.one_of((0, 10**8)),
        seed=choose.between(0, 3),
    )


def engine(
    choose: Chooser,
    features: frozenset[str],
    policy: Policy,
    requests: Requests,
    seqs: int,
    page: int,
    speculation: Speculation | None,
    crowded: bool,
) -> EngineLimits:
    largest = int((requests.prompt_tokens + requests.output_tokens).max())
    drafts = speculation.draft_tokens if speculation else 0
    options: dict[str, object] = {}
    longest_new = int(requests.output_tokens.max())
    chunked = choose.between(0, 4) > 0
    tokens = seqs * (1 + drafts) + choose.one_of((0, choose.between(0, 64)))
    if not chunked:
        tokens = max(tokens, int(largest * choose.one_of((0.6, 1.0, 1.0, 2.0))))
    if policy is Policy.VLLM:
        options["reserve_full_isl"] = choose.between(0, 2) > 0
        if "threshold" in features:
            options["long_prefill_token_threshold"] = choose.between(1, 40)
    else:
        new = choose.one_of((0, 0, longest_new // 2, longest_new * 2))
        options["max_new_tokens"] = new
        longest_new = max(new, longest_new)
    if policy in (Policy.TRTLLM_NO_EVICT, Policy.TRTLLM_MAX_UTILIZATION):
        unit_tokens = choose.one_of((1, 1, 4, 16))
        options["chunk_unit_tokens"] = unit_tokens
        tokens = max(tokens, unit_tokens)
    if policy is Policy.SGLANG:
        tokens = max(tokens, page)
        options["mixed_chunk"] = choose.between(0, 1) > 0
        options["ignore_eos"] = choose.between(0, 3) == 0
        options["conservativeness"] = choose.one_of((0.05, 0.3, 1.0, 2.0))
        if choose.between(0, 7) == 0:  # more than the engine looks ahead
            options["max_new_tokens"] = longest_new = 5000
        if crowded:  # it holds nothing back
            longest_new = int(requests.output_tokens.max())
            options |= {"max_new_tokens": 0, "ignore_eos": False, "conservativeness": 0.05}
    reserved = (
        largest
        if policy in (Policy.VLLM, Policy.TRTLLM_MAX_UTILIZATION)
        else (int(requests.prompt_tokens.max()) + longest_new + page + 1)
    )
    blocks = max(1, int(-(-(reserved + drafts) // page) * choose.one_of(ROOM[1:-1] if crowded else ROOM)))
    return EngineLimits(
        max_num_batched_tokens=tokens,
        max_num_seqs=seqs,
        block_tokens=page,
        kv_blocks=blocks,
        policy=policy,
        chunked_prefill=chunked,
        async_scheduling="async" in features,
        **options,
    )


def fleet(choose: Chooser, rng: np.random.Generator, requests: Requests, span_ps: int, closed: bool) -> Fleet:
    """Replicas that come and go at any time, some of them just when a request arrives; or that all stay."""
    replicas = choose.between(1, MOST_REPLICAS)
    arrival_ps = in_ps(requests.arrival_s)

    def some_time() -> float:
        at = int(rng.choice(arrival_ps)) if rng.random() < 0.3 else int(rng.integers(0, span_ps + 1))
        return at / PS_PER_S

    def times(often: float, otherwise: float) -> tuple[float, ...]:
        return tuple(some_time() if rng.random() < often else otherwise for _ in range(replicas))

    changes = choose.between(0, 2) > 0
    return Fleet(
        replicas=replicas,
        routing=choose.one_of(tuple(Routing)) if not closed else Routing.LEAST_OUTSTANDING,
        ready_s=times(0.5, 0.0) if changes and choose.between(0, 1) else (),
        drain_s=times(0.3, np.inf) if changes and choose.between(0, 1) else (),
        fail_s=times(0.4, np.inf) if changes and choose.between(0, 1) else (),
        retry_failed=choose.between(0, 1) > 0,
        balance_abs=choose.one_of((64, 0, 2)),
        balance_rel=choose.one_of((1.5, 0.0, 1.1)),
        seed=choose.between(0, 3),
    )


def random_feature_case(
    seed: int,
    features: frozenset[str] = COMMON,
    policies: Sequence[Policy] = EVERY_POLICY,
    clients: Sequence[int] = CLIENTS,
) -> Case:
    """The seed's case with these features (unions of PREFIX, SESSIONS, FLEET, ASYNC, ...), the same everywhere."""
    rng = np.random.default_rng(seed)
    return compose(Seeded(rng), rng, features, policies, clients)


@st.composite
def feature_cases(draw, features=COMMON, policies=EVERY_POLICY, clients=CLIENTS):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return compose(Drawn(draw), rng, features, policies, clients)
