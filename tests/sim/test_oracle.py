"""The oracle itself: what holds after every planning, and runs that were worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.cases import (
    ASYNC,
    COMMON,
    EVERY_POLICY,
    FLEET,
    PREFIX,
    PRIORITIES,
    RANKS,
    SESSIONS,
    SPECULATION,
    THRESHOLD,
    constant_table,
    feature_cases,
    random_feature_case,
)
from tests.sim.oracle import Outcome, Reason, play
from tests.sim.oracle_engine import Engine, splitmix64
from trilemma.sim.engine import EngineLimits, Policy
from trilemma.sim.fleet import Fleet, Routing
from trilemma.sim.speculation import Speculation
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

S = 10**9  # a constant step of 1 ms, picoseconds

MANY = settings(max_examples=120, deadline=None)
EVERY_FEATURE = (COMMON, PREFIX, SESSIONS, FLEET, ASYNC, THRESHOLD, PRIORITIES, SPECULATION, RANKS)
features = st.lists(st.sampled_from(EVERY_FEATURE), max_size=4).map(lambda chosen: frozenset().union(*chosen))


# After every planning --------------------------------------------------------------------------------------------


def check(engine: Engine) -> None:
    """Every block is free or held, every unit where its holders are, every seat and every chunk as they may be."""
    cache, limits = engine.cache, engine.limits
    holders = engine.running + engine.leaving
    held = {block for r in holders for block in r.table}
    assert held.isdisjoint(cache.queue)
    assert len(held) + cache.free == limits.kv_blocks
    assert len(holders) <= limits.max_num_seqs
    units = {id(unit): unit for unit in [*cache.named.values(), *(u for r in holders for u in r.units if u)]}
    for unit in units.values():
        assert unit.holders == sum(unit in r.units for r in holders)
        assert len(unit.blocks) == cache.blocks_per_unit
        assert (unit.holders == 0) == all(block in cache.queue for block in unit.blocks)
    shared = sum((u.holders - 1) * len(u.blocks) for u in units.values() if u.holders)
    assert sum(len(r.table) for r in holders) - shared == len(held)
    for r in engine.running:
        assert r.computed <= len(r.table) * cache.page
        assert r.computed + 1 == r.length if r.emitting else r.computed < r.length
    for r in engine.waiting + engine.unseen:
        assert (r.table, r.units, r.computed) == ([], [], 0)
    unfinished = [r for r in engine.running if not r.emitting and r.computed]
    if not limits.long_prefill_token_threshold and not cache.unit_tokens:
        assert len(unfinished) <= 1
    if not limits.chunked_prefill and not cache.unit_tokens:
        assert not unfinished


def check_answers(case, out: Outcome) -> None:
    """Every request is answered, refused or lost; times are in order; every token is counted once."""
    n = len(case.requests)
    arrival, start, first, done = (out.column(name) for name in ("arrival", "start", "first", "done"))
    finished = done >= 0
    assert finished.sum() + out.refused + out.failed == n
    assert ((arrival <= start) & (start < first) & (first <= done))[finished].all()
    assert (first[~finished] == -1).all()
    generated = out.column("generated")
    np.testing.assert_array_equal(generated[finished], case.requests.output_tokens[finished])
    gaps = (case.requests.output_tokens - 1)[finished].sum()
    assert len(out.gaps) >= gaps
    if not out.failed and not case.fleet.retry_failed:
        assert len(out.gaps) == gaps
        assert sum(out.gaps) == (done - first)[finished].sum()
    assert 0 <= out.decode_ps <= out.busy_ps
    assert out.peak_blocks <= case.limits.kv_blocks
    assert all(not r.table for r in out.requests)


@MANY
@given(st.data())
def test_blocks_seats_and_tokens_are_conserved(data):
    case = data.draw(feature_cases(features=data.draw(features)))
    check_answers(case, case.plain(watch=check))


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_the_cases_reach_every_regime(policy):
    counts = dict.fromkeys(("evicted", "hit", "refused", "failed", *Reason), 0)
    for seed in range(60):
        case = random_feature_case(seed, PREFIX | FLEET, (policy,))
        out = case.plain()
        counts["hit"] += bool(out.column("hit_tokens").any())
        counts["refused"] += out.refused > 0
        counts["failed"] += out.failed > 0
        for reason in out.column("reason"):
            counts[Reason(reason)] += 1
        counts["evicted"] += bool(random_feature_case(seed, COMMON, (policy,)).plain().column("preemptions").any())
    least = 3 if policy is not Policy.TRTLLM_NO_EVICT else 0
    assert counts.pop("evicted") >= least, counts
    assert min(counts.values()) >= 3, counts


@MANY
@given(feature_cases(features=SPECULATION))
def test_speculation_without_drafts_is_none(case):
    none = Speculation(draft_tokens=0, acceptance=(1.0,))
    one, other = replace(case, speculation=none).plain(), replace(case, speculation=None).plain()
    assert [vars(r) for r in one.requests] == [vars(r) for r in other.requests]
    assert one.gaps == other.gaps


# Worked by hand: every step takes one unit of time, unless the test says otherwise ---------------------------------


def run(arrival, prompt, output, *, table=None, clients=0, fleet=None, speculation=None, named=None, **limits):
    """Arrivals in steps; `named` = (unit tokens, chain of each request), `session` and so on as columns of requests."""
    columns = {name: np.array(limits.pop(name)) for name in ("session", "priority") if name in limits}
    group = {name: limits.pop(name) for name in ("ranks", "shared_experts") if name in limits}
    if "think" in limits:
        columns["think_s"] = np.array(limits.pop("think"), float) * S / PS_PER_S
    if named:
        unit, chains = named
        columns["block_offsets"] = np.concatenate([[0], np.cumsum([len(c) for c in chains])]).astype(np.int64)
        columns["block_ids"] = np.array([name for c in chains for name in c], np.int64)
        limits |= {"prefix_caching": True}
        columns["block_tokens"] = unit
    requests = Requests(
        arrival_s=np.array(arrival, float) * S / PS_PER_S,
        prompt_tokens=np.array(prompt, np.int64),
        output_tokens=np.array(output, np.int64),
        **columns,
    )
    engine = EngineLimits(**{"max_num_seqs": 4, "block_tokens": 1, "kv_blocks": 1000} | limits)
    table = table or constant_table(S, engine.max_num_batched_tokens, engine.max_num_seqs)
    return play(requests, table, engine, clients=clients, fleet=fleet, speculation=speculation, watch=check, **group)


def steps(out: Outcome, name: str) -> list[float]:
    """A column of times in steps; -1 stays -1."""
    return [t / S if t >= 0 else -1 for t in out.column(name).tolist()]


def test_vllm_preempts_the_last_admitted_and_recomputes_it():
    # 6 blocks of a token. Both run until each holds 3; then the first takes a block of the second, which starts again
    # when the first is done, with its 2 tokens as part of the prompt.
    out = run([0, 0], [2, 2], [3, 3], max_num_batched_tokens=8, kv_blocks=6)
    assert steps(out, "first") == [1, 1]
    assert steps(out, "done") == [3, 4]
    assert out.column("preemptions").tolist() == [0, 1]
    assert out.column("lost").tolist() == [0, 3]
    assert sorted(out.gaps) == [S, S, S, 2 * S]
    assert (out.steps, out.peak_blocks) == (4, 6)


def test_vllm_without_a_reserve_for_the_whole_prompt_admits_early_and_pays():
    # The second prompt has 8 tokens of 10 blocks, and the first request holds 4 to 7. With the reserve it waits for it
    # to end. Without, 3 of its tokens run in step 2, are thrown out in step 3 and run again in step 4.
    load = {"arrival": [0, 0], "prompt": [4, 8], "output": [4, 1], "max_num_batched_tokens": 4, "kv_blocks": 10}
    out = run(**load)
    assert (steps(out, "start"), steps(out, "done")) == ([0, 4], [4, 6])
    assert out.column("reason").tolist() == [Reason.NONE, Reason.BLOCKS]
    out = run(**load, reserve_full_isl=False)
    assert (steps(out, "start"), steps(out, "done")) == ([0, 1], [4, 6])
    assert out.column("lost").tolist() == [0, 3]
    assert out.column("reason").tolist() == [Reason.NONE, Reason.TOKENS]


def test_vllm_threshold_lets_two_prompts_share_the_steps():
    load = {"arrival": [0, 0, 5], "prompt": [8, 8, 8], "output": [1, 1, 1], "max_num_batched_tokens": 10}
    assert steps(run(**load), "done") == [1, 2, 6]
    # 4 tokens of each per step; the third is alone and takes all it can.
    assert steps(run(**load, long_prefill_token_threshold=4), "done") == [2, 2, 6]


@pytest.mark.parametrize("policy", [Policy.VLLM, Policy.TRTLLM_NO_EVICT, Policy.TRTLLM_MAX_UTILIZATION])
def test_whole_prompts_wait_for_a_step_with_room(policy):
    # 10 tokens a step: 6 and the 6 that do not fit beside them; the 3 that would fit wait behind. 11 are refused.
    out = run([0] * 4, [6, 6, 3, 11], [1] * 4, max_num_batched_tokens=10, chunked_prefill=False, policy=policy)
    assert steps(out, "done") == [1, 2, 2, -1]
    assert out.column("reason").tolist() == [0, Reason.TOKENS, Reason.TOKENS, 0]
    assert out.refused == 1


def test_no_evict_reserves_what_may_be_asked_for():
    load = {"arrival": [0, 0], "prompt": [2, 2], "output": [3, 2], "max_num_batched_tokens": 10, "kv_blocks": 10}
    out = run(**load, policy=Policy.TRTLLM_NO_EVICT)  # 5 and 4 blocks
    assert (steps(out, "start"), steps(out, "done"), out.peak_blocks) == ([0, 0], [3, 2], 9)
    out = run(**load, policy=Policy.TRTLLM_NO_EVICT, max_new_tokens=6)  # 8 each
    assert (steps(out, "start"), steps(out, "done"), out.peak_blocks) == ([0, 3], [3, 5], 8)
    assert out.column("reason").tolist() == [Reason.NONE, Reason.BLOCKS]
    assert run(**load, policy=Policy.TRTLLM_NO_EVICT, max_new_tokens=9).refused == 2


@pytest.mark.parametrize("policy", [Policy.TRTLLM_NO_EVICT, Policy.TRTLLM_MAX_UTILIZATION])
def test_trtllm_chunks_are_whole_units_but_for_the_last(policy):
    # 14 tokens: 8 of the 10 in the first step, then 6, beside which the third fits.
    out = run([0, 0], [14, 1], [1, 1], max_num_batched_tokens=10, chunk_unit_tokens=4, policy=policy)
    assert (steps(out, "start"), steps(out, "done")) == ([0, 1], [2, 2])
    assert out.column("reason").tolist() == [Reason.NONE, Reason.TOKENS]


def test_max_utilization_takes_a_prompt_whole_and_pauses_the_last_started():
    long = {"arrival": [0], "prompt": [8], "output": [1], "max_num_batched_tokens": 4}
    assert run(**long, policy=Policy.TRTLLM_MAX_UTILIZATION).peak_blocks == 8
    out = run([0, 0], [2, 2], [3, 3], max_num_batched_tokens=8, kv_blocks=6, policy=Policy.TRTLLM_MAX_UTILIZATION)
    assert steps(out, "done") == [3, 4]
    assert out.column("preemptions").tolist() == [0, 1]


def test_sglang_stops_decodes_for_a_prefill_unless_they_are_mixed():
    load = {"arrival": [0, 0.5], "prompt": [4, 4], "output": [3, 1], "max_num_batched_tokens": 8}
    out = run(**load, policy=Policy.SGLANG)
    assert (steps(out, "first"), steps(out, "done")) == ([1, 2], [4, 2])
    assert sorted(out.gaps) == [S, 2 * S]
    out = run(**load, policy=Policy.SGLANG, mixed_chunk=True)
    assert (steps(out, "first"), steps(out, "done")) == ([1, 2], [3, 2])


def test_sglang_carries_a_long_prompt_on_before_anybody_else():
    # 20 tokens in steps of 8 on pages of 4: 8, 8 and 4; beside the last there is room for 4 of the next one's 6.
    out = run([0, 0], [20, 6], [1, 1], max_num_batched_tokens=8, block_tokens=4, policy=Policy.SGLANG)
    assert (steps(out, "start"), steps(out, "done")) == ([0, 2], [3, 4])
    assert out.column("reason").tolist() == [Reason.NONE, Reason.TOKENS]


def test_sglang_admits_what_fits_beside_all_that_may_still_come():
    # Of 20 tokens the first takes 4 + 5 + 1; the second needs the same and less than 10 are left for good.
    engine = {"max_num_batched_tokens": 20, "kv_blocks": 20, "ignore_eos": True, "policy": Policy.SGLANG}
    out = run([0, 0], [4, 4], [5, 5], **engine)
    assert (steps(out, "start"), steps(out, "done")) == ([0, 5], [5, 10])
    assert out.column("reason").tolist() == [Reason.NONE, Reason.BLOCKS]
    assert steps(run([0, 0], [4, 3], [5, 5], **engine), "start") == [0, 0]


def test_sglang_retracts_the_latest_of_equals_and_grows_cautious():
    # 14 tokens. Prefills in steps 1 and 2, then 5 decode steps fill the memory: 2 x (2 + 5). The second goes, with 6
    # tokens out; the first ends at 9; all of 2 + 6 is computed again in step 10, the eighth token comes in step 11.
    ratios = []
    requests = Requests(
        arrival_s=np.array([0, 1]) * S / PS_PER_S, prompt_tokens=np.full(2, 2), output_tokens=np.full(2, 8)
    )
    limits = EngineLimits(
        max_num_batched_tokens=8,
        max_num_seqs=4,
        block_tokens=1,
        kv_blocks=14,
        policy=Policy.SGLANG,
        conservativeness=0.05,
    )
    out = play(requests, constant_table(S, 8, 4), limits, watch=lambda engine: ratios.append(engine.ratio_ppm))
    assert (steps(out, "first"), steps(out, "done")) == ([1, 2], [9, 11])
    assert out.column("lost").tolist() == [0, 7]
    assert max(out.gaps) == 3 * S
    first, _, fall = limits.new_token_ratio_ppm
    assert ratios[:8] == [first, first, *(first - k * fall for k in range(1, 6)), 10**6]


def test_async_scheduling_sees_an_arrival_a_step_later():
    load = {"arrival": [0, 0.5], "prompt": [1, 1], "output": [2, 1], "max_num_batched_tokens": 8}
    assert steps(run(**load), "done") == [2, 2]
    assert steps(run(**load, async_scheduling=True), "done") == [2, 3]


def test_async_scheduling_frees_a_seat_a_step_later_unless_the_step_would_be_empty():
    load = {"arrival": [0, 0, 0], "prompt": [1, 1, 1], "output": [1, 3, 1], "max_num_batched_tokens": 8}
    assert steps(run(**load, max_num_seqs=2), "done") == [1, 3, 2]
    assert steps(run(**load, max_num_seqs=2, async_scheduling=True), "done") == [1, 3, 3]
    one = {"arrival": [0, 0], "prompt": [1, 1], "output": [1, 1], "max_num_batched_tokens": 8}
    assert steps(run(**one, max_num_seqs=1, async_scheduling=True), "done") == [1, 2]


@pytest.mark.parametrize("policy", [Policy.VLLM, Policy.TRTLLM_MAX_UTILIZATION])
def test_prefixes_are_found_until_their_blocks_are_taken(policy):
    # Units of 2 tokens in 6 blocks, each request alone. Of 4 tokens the last unit is not looked for: one must be
    # computed. The free blocks after each, the first to be taken first, by what they hold:
    #   fresh 2 1 | 2 3 1 | 3 2 1 (2 was forgotten and computed again) |
    #   the rest of 2, the last of the fourth, 3 1 (the fourth found 1 and 3 and took a block of 2): the fifth finds 1.
    chains = [[1, 2], [1, 3], [1, 2], [1, 3], [1, 2]]
    out = run(
        range(5), [4, 4, 4, 5, 5], [1] * 5, max_num_batched_tokens=10, kv_blocks=6, named=(2, chains), policy=policy
    )
    assert steps(out, "done") == [1, 2, 3, 4, 5]
    assert out.column("hit_tokens").tolist() == [0, 2, 2, 4, 2]


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_prompts_of_one_step_share_blocks_under_vllm_alone(policy):
    out = run([0, 0, 1], [5, 5, 5], [1, 1, 1], max_num_batched_tokens=20, named=(2, [[1, 2, 9]] * 3), policy=policy)
    assert out.column("hit_tokens").tolist() == ([0, 4, 4] if policy is Policy.VLLM else [0, 0, 4])
    assert steps(out, "done") == [1, 1, 2]


def test_shared_blocks_are_counted_once():
    # 4 blocks for both prompts and one for the last token of each.
    out = run([0, 0], [5, 5], [1, 2], max_num_batched_tokens=20, named=(2, [[1, 2], [1, 2]]), kv_blocks=7)
    assert out.peak_blocks == 6
    assert steps(out, "done") == [1, 2]


def test_a_conversation_finds_its_own_answers():
    # The turn of 3 + 4 tokens has computed 6 when it ends: 3 units. The next one's 9 tokens begin with them.
    out = run(
        [0, 0],
        [3, 9],
        [4, 1],
        session=[0, 0],
        think=[np.nan, 2],
        named=(2, [[1, 2, 3, 4], [1, 2, 3, 4, 5]]),
        max_num_batched_tokens=20,
    )
    assert (steps(out, "arrival"), steps(out, "done")) == ([0, 6], [4, 7])
    assert out.column("hit_tokens").tolist() == [0, 6]


def test_turns_follow_answers_and_refusals():
    # The first turn is done at 2, the second arrives at 5; the third is refused as it comes, 1 after the answer at 6.
    out = run(
        [0, 0, 0, 0],
        [1, 1, 5000, 1],
        [2, 1, 1, 1],
        session=[7, 7, 7, 7],
        think=[np.nan, 3, 1, 0.5],
        max_num_batched_tokens=8,
    )
    assert steps(out, "arrival") == [0, 5, 7, 7.5]
    assert steps(out, "done") == [2, 6, -1, 8.5]


def test_priorities_go_first_and_are_thrown_out_last():
    out = run([0] * 3, [1] * 3, [1] * 3, max_num_seqs=1, priority=[1, 0, 1], max_num_batched_tokens=8)
    assert steps(out, "done") == [2, 1, 3]
    # As in the first example but with the first one the less urgent: it gives way, though admitted first (the urgent
    # one comes a step later).
    out = run([0, 1], [2, 2], [4, 4], max_num_batched_tokens=8, kv_blocks=7, priority=[1, 0])
    assert out.column("preemptions").tolist() == [1, 0]
    assert steps(out, "done") == [6, 5]


def test_drafts_give_several_tokens_a_step():
    # Always three: tokens at 1, then 3, 3 and the last one.
    out = run([0], [1], [8], max_num_batched_tokens=12, speculation=Speculation(draft_tokens=2, acceptance=(0, 0, 1)))
    assert (steps(out, "first"), steps(out, "done"), out.steps) == ([1], [4], 4)
    assert sorted(out.gaps) == [0] * 4 + [S] * 3
    assert out.peak_blocks == 10  # 1 + 6 computed, the token to compute and 2 drafts
    out = run(
        [0],
        [1],
        [8],
        max_num_batched_tokens=12,
        speculation=Speculation(draft_tokens=2, acceptance=(0, 0, 1), draft_ps=S // 2),
    )
    assert steps(out, "done") == [1 + 3 * 1.5]


def test_the_draws_are_splitmix64():
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    assert splitmix64(0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4  # the second number of the generator seeded with 0


def test_ranks_step_together():
    table = replace(constant_table(S, 8, 4), token_ps=np.arange(9) * S)  # a step takes as long as it has tokens
    load = {"arrival": [0, 0], "prompt": [4, 1], "output": [1, 3], "max_num_batched_tokens": 8, "table": table}
    out = run(**load)  # 5 tokens, then 1 and 1
    assert (steps(out, "done"), out.steps) == ([5, 7], 3)
    out = run(**load, ranks=2)  # 4 beside 1, then 1 and 1
    assert (steps(out, "done"), out.steps, out.busy_ps) == ([4, 6], 3, 6 * S)


def test_shared_experts_see_the_mean_of_the_ranks():
    # The rank with one token is the slow one: its attention takes 10 a token. With its own token 1 + 10, with the mean
    # of 1 and 4 tokens, rounded up, 3 + 10; then it decodes alone beside an idle rank: 1 token again.
    table = replace(constant_table(S, 8, 4), token_ps=np.arange(9) * S, sequence_ps=np.array([0, 0, 0, 0, 0]))
    load = {"arrival": [0, 0], "prompt": [4, 1], "output": [1, 2], "max_num_batched_tokens": 8}
    slow = replace(table, prefill_ps=np.array([0, 10, 0, 0, 0, 0, 0, 0, 0]) * S)
    assert steps(run(**load, table=slow, ranks=2), "done") == [11, 12]
    assert steps(run(**load, table=slow, ranks=2, shared_experts=True), "done") == [13, 14]


def test_clients_send_when_they_are_answered_or_refused():
    out = run([0] * 5, [1, 1, 5000, 1, 1], [2, 3, 1, 1, 1], clients=2, max_num_batched_tokens=8)
    assert steps(out, "arrival") == [0, 0, 2, 2, 3]
    assert steps(out, "done") == [2, 3, -1, 3, 4]


# Fleets ------------------------------------------------------------------------------------------------------------


def test_round_robin_is_every_nth_request():
    for seed in range(20):
        case = random_feature_case(seed, COMMON, clients=(0,))
        together = replace(case, fleet=Fleet(replicas=3)).plain()
        for k in range(3):
            alone = replace(case, requests=case.requests.take(slice(k, None, 3))).plain()
            for name in ("start", "first", "done", "preemptions", "reason"):
                np.testing.assert_array_equal(together.column(name)[k::3], alone.column(name))


def test_least_outstanding_goes_where_fewest_are():
    # Two go to different replicas; the second is done when the third comes, and so both are when the fourth does.
    fleet = Fleet(replicas=2, routing=Routing.LEAST_OUTSTANDING)
    out = run([0, 0, 1, 3], [1] * 4, [3, 1, 1, 1], fleet=fleet, max_num_batched_tokens=8)
    assert out.column("replica").tolist() == [0, 1, 1, 0]


def test_power_of_two_looks_at_two():
    fleet = Fleet(replicas=2, routing=Routing.POWER_OF_TWO, seed=3)
    out = run([0] * 8, [1] * 8, [1] * 8, fleet=fleet, max_num_batched_tokens=8)
    replicas = out.column("replica").tolist()
    for i in range(0, 8, 2):  # of two replicas both are drawn, and a tie goes to the first drawn
        assert replicas[i] == splitmix64(3 * 2**32 + i) % 2
        assert replicas[i + 1] == 1 - replicas[i]


def test_prefix_aware_routing_follows_the_cache_until_it_is_crowded():
    chains = [[1, 2], [5, 6], [5, 6], [1, 2], [1, 2], [1, 2]]
    load = {"arrival": [0, 0, 2, 2, 2, 2], "prompt": [5] * 6, "output": [1] * 6, "named": (2, chains)}
    fleet = Fleet(replicas=2, routing=Routing.PREFIX_AWARE)
    out = run(**load, fleet=fleet, max_num_batched_tokens=40)
    assert out.column("replica").tolist() == [0, 1, 1, 0, 0, 0]
    # The fifth finds one request in each and follows the cache; the sixth finds two and one, which is too many.
    out = run(**load, fleet=replace(fleet, balance_abs=0, balance_rel=1.5), max_num_batched_tokens=40)
    assert out.column("replica").tolist() == [0, 1, 1, 0, 0, 1]


def test_sessions_stay_where_they_began():
    fleet = Fleet(replicas=2, routing=Routing.SESSION_STICKY, drain_s=(np.inf, 3 * S / PS_PER_S))
    out = run([0, 0, 0, 1, 2, 4], [1] * 6, [1] * 6, fleet=fleet, session=[5, 6, -1, 6, 5, 6], max_num_batched_tokens=8)
    assert out.column("replica").tolist() == [0, 1, 0, 1, 0, 0]


def test_a_replica_that_fails_loses_its_requests_or_they_start_again():
    # The first request has one token computed when its replica dies in its second step.
    fleet = Fleet(replicas=2, fail_s=(1.5 * S / PS_PER_S, np.inf))
    load = {"arrival": [0, 0], "prompt": [1, 1], "output": [3, 3], "max_num_batched_tokens": 8}
    out = run(**load, fleet=fleet)
    assert (steps(out, "start"), steps(out, "first"), steps(out, "done")) == ([0, 0], [-1, 1], [-1, 3])
    assert (out.failed, out.steps, out.column("lost").tolist()) == (1, 4, [1, 0])
    out = run(**load, fleet=replace(fleet, retry_failed=True))
    assert (steps(out, "arrival"), steps(out, "first"), steps(out, "done")) == ([0, 0], [3, 1], [5, 3])
    assert (out.failed, out.column("replica").tolist()) == (0, [1, 1])
    # Dying at the end of a step is too late for what ends with it.
    out = run(**load, fleet=replace(fleet, fail_s=(3 * S / PS_PER_S, np.inf)))
    assert steps(out, "done") == [3, 3]


def test_requests_wait_for_a_replica_that_gets_ready_and_for_no_other():
    fleet = Fleet(replicas=2, ready_s=(2 * S / PS_PER_S, 0), fail_s=(5 * S / PS_PER_S, 0))
    out = run([0, 1, 4, 5], [1] * 4, [1] * 4, fleet=fleet, max_num_batched_tokens=8)
    assert steps(out, "start") == [2, 2, 4, -1]
    assert out.column("reason").tolist() == [4, 4, 0, 4]
    assert out.failed == 1
