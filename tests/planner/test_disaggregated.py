"""Prefill and decode on pools of their own: found as exhaustively, priced to the cent, explained, and left alone unless
asked for."""

from dataclasses import replace
from itertools import product
from math import inf

import pytest

from tests.planner.questions import BATCH, CLOSED, DAY, question
from trilemma.api.pool import workers
from trilemma.cost.cash_flow import cash_flow
from trilemma.cost.lines import Dimension
from trilemma.planner import disaggregated
from trilemma.planner.answer import APART, Rejection, describe, with_replicas
from trilemma.planner.disaggregated import look_apart, undominated
from trilemma.planner.disaggregated_bench import PoolsBench, prefilled, share_of_token
from trilemma.planner.disaggregated_price import PoolFloors, priced_pools
from trilemma.planner.disaggregated_size import Pair, Sizing
from trilemma.planner.disaggregated_stages import (
    Stage,
    at_least,
    bound_stages,
    fewest,
    find_stage,
    group_of,
    pool_deployments,
    why_none,
)
from trilemma.planner.keys import key_of
from trilemma.planner.levers import levers
from trilemma.planner.plan import HERE, look, plan, quiet
from trilemma.planner.screening import fitting
from trilemma.planner.subjects import doubt_of, subject_of_plan
from trilemma.planner.trial import MOST_REPLICAS
from trilemma.planner.whynot import why_not

pytestmark = pytest.mark.filterwarnings("ignore")

BOTH = {"space.disaggregated": [False, True]}
APART_ONLY = {"space.disaggregated": [True]}
WINS = BOTH | {"workload.rate_scale": 60, "limits": ["ttft p99 <= 1 s", "itl p99 <= 15 ms"]}
ONE_OF_EACH = {"space.accelerators": ["h100_sxm"], "space.precisions": ["fp8"], "space.tensor_parallel": [1]}


@pytest.fixture(scope="module")
def won():
    asked = question(WINS)
    return asked, plan(asked)


def exhaustive(asked, widest=(40, 40)):
    """The least that any pair of pools of any sizes costs: every pair, every number of prefill replicas beside every
    number of decode replicas that keep the limits, none of them bounded."""
    parts, _ = fitting(pool_deployments(asked), asked)
    stages = [s for part in parts for s in bound_stages(asked, part)]
    alone = {id(s.deployment): s.candidate for s in stages if not isinstance(s, Rejection)}
    best = inf
    for prefill, decode in product(alone.values(), repeat=2):
        if group_of(prefill.deployment) != group_of(decode.deployment):
            continue
        sizing = Sizing(asked, Pair(prefill=prefill, decode=decode))
        least = [at_least(asked.asked_rps, rps) for rps in sizing.saturations]
        smallest = widest[1] + 1
        for p in range(least[0], widest[0]):
            d = next((d for d in range(least[1], smallest) if not sizing.misses(p, d)), None)
            if d is None:
                if smallest <= least[1] or p > 2 * least[0] + 4:
                    break
                continue
            smallest = d
            trial = sizing._fleet(p, d, asked.sizing.spare_replicas)
            if not isinstance(trial, Rejection):
                best = min([best, *(x.usd_per_h for x in priced_pools(trial, asked))])
    return best


SPACES = (
    {"space.tensor_parallel": [1], "limits": ["ttft p99 <= 1 s", "itl p99 <= 15 ms"], "workload.rate_scale": 4},
    {"space.accelerators": ["h100_sxm"], "limits": ["ttft p99 <= 300 ms", "tpot p99 <= 30 ms"],
     "workload.rate_scale": 12},
    {"space.accelerators": ["l40s"], "limits": ["ttft p95 <= 600 ms"], "workload.rate_scale": 4},
    {"space.accelerators": ["h100_sxm"], "limits": ["e2e p90 <= 5 s", "goodput >= 95%"], "workload.rate_scale": 25},
    {"space.accelerators": ["h100_sxm", "a100_sxm"], "space.precisions": ["bf16"], "space.engines": ["sglang"],
     "space.tensor_parallel": [1], "workload.rate_scale": 5, "limits": ["ttft p99 <= 500 ms", "itl p99 <= 20 ms"]},
)  # fmt: skip


@pytest.mark.parametrize("changes", SPACES, ids=range(len(SPACES)))
def test_bounding_loses_nothing(changes, monkeypatch):
    asked = question({"space.precisions": ["fp8"]}, changes, APART_ONLY)
    monkeypatch.setattr(disaggregated, "RIVALS", 0)
    monkeypatch.setattr(disaggregated, "WAVE", 2)
    answer = plan(asked)
    assert answer.chosen.usd_per_h == pytest.approx(exhaustive(asked), abs=0.005)


def test_left_out_unless_asked_for():
    usual, off = plan(question()), plan(question({"space.disaggregated": [False]}))
    assert [p.label for p in usual.plans] == [p.label for p in off.plans]
    assert all(p.trial.deployment.decode is None for p in usual.plans)
    assert not any(APART in r.label for r in usual.rejected)


def test_together_stays_what_it_is_beside_apart(won):
    asked, answer = won
    alone = look(replace(asked, space=replace(asked.space, disaggregated=(False,))), cut=inf)
    labels = {p.label: p.usd_per_h for p in alone.plans}
    together = [p for p in answer.plans if p.trial.deployment.decode is None]
    assert all(labels[p.label] == p.usd_per_h for p in together)


def test_pools_win_where_gaps_are_tight_and_lose_where_the_load_is_small(won):
    _, answer = won
    assert answer.chosen.trial.deployment.decode is not None
    small = plan(question(BOTH))
    assert small.chosen.trial.deployment.decode is None
    pair = next(p for p in small.plans if p.trial.deployment.decode is not None)
    more = pair.bill.engineering_usd_per_h - small.chosen.bill.engineering_usd_per_h
    assert more > 0, "two pools and a router take more people"


def test_every_plan_keeps_its_limits_and_costs_no_less_than_its_bound(won):
    asked, answer = won
    floors = PoolFloors(asked)
    pairs = [p for p in answer.plans if p.trial.deployment.decode is not None]
    assert pairs
    for p in pairs:
        assert not p.trial.misses
        assert p.trial.summary.finished == p.trial.summary.requests
        prefill, decode = p.trial.deployment.pools
        stages = [
            Stage(candidate=Deployed(pool), role=role, fewest=pool.replicas - asked.sizing.spare_replicas)
            for pool, role in ((prefill, "prefill"), (decode, "decode"))
        ]
        assert floors.pair(*stages) <= p.usd_per_h + 1e-9


class Deployed:
    """A candidate as far as a price looks at it."""

    def __init__(self, deployment):
        self.deployment = replace(deployment, replicas=1)


def test_a_bill_of_two_pools(won):
    asked, answer = won
    for p in answer.plans:
        if p.trial.deployment.decode is None:
            continue
        b = p.bill
        assert b.total_usd_per_h == pytest.approx(sum(line.usd_per_h for line in b.lines), abs=0.005)
        assert len({line.title for line in b.lines}) == len(b.lines)
        people = [line for line in b.lines if line.dimension is Dimension.ENGINEERING]
        assert all(not line.pool for line in people)
        assert {line.pool for line in b.lines if line not in people} == {"prefill", "decode"}
        units = [offer.purchase_unit_gpus for offer in (p.offers[0], p.offers[-1])]
        if p.offer.kind.value == "owned":
            whole = [-(-d.gpus // unit) * unit for d, unit in zip(p.trial.deployment.pools, units, strict=True)]
            assert b.paid_gpus == pytest.approx(sum(whole))
        assert subject_of_plan(p, asked).bill(p.offer).total_usd_per_h == pytest.approx(p.usd_per_h, rel=1e-9)
        assert b.use_view["useful"] > 0
        tokens = b.usd_per_mtok_by_gpu_time
        volumes = b.volumes
        again = (tokens.input * volumes.prompt_tokens_per_h + tokens.output * volumes.output_tokens_per_h) / 1e6
        assert again == pytest.approx(b.total_usd_per_h)


def test_cash_buys_the_units_of_both_pools(won):
    asked, answer = won
    bought = [p for p in answer.plans if all(x.kind.value == "owned" for x in p.offers) and p.trial.fleet.decode]
    p = max(bought, key=lambda p: len(p.offers))
    flow = cash_flow(subject_of_plan(p, asked), p.offer)
    rate = asked.economics.discount_rate
    assert flow.levelised_usd_per_h(rate) == pytest.approx(p.usd_per_h, rel=1e-6)


def test_pools_follow_the_day():
    asked = question(WINS, DAY, ONE_OF_EACH)
    p = next(p for p in plan(asked).plans if p.trial.deployment.decode is not None and p.offer.label == "on-demand")
    for fleet in (p.trial.fleet, p.trial.fleet.decode):
        held = fleet.scaled_schedule.held_replicas
        assert held.max() == fleet.deployment.replicas
        assert held.min() < held.max()
        assert fleet.activity.busy_at
    more = subject_of_plan(p, asked).bill(p.offer, load_factor=2.0).total_usd_per_h
    assert p.usd_per_h < more < 2 * p.usd_per_h + 1


def test_the_same_answer_over_processes():
    asked = question(WINS, {"space.precisions": ["fp8"], "space.tensor_parallel": [1]})
    answer = plan(asked)
    with workers(2) as executor:
        spread = plan(asked, executor=executor)
    assert [(p.label, p.usd_per_h) for p in spread.plans] == [(p.label, p.usd_per_h) for p in answer.plans]


def test_words_for_two_pools(won):
    _, answer = won
    d = answer.chosen.trial.deployment
    before, _, after = describe(d).partition(APART)
    assert before == describe(d.pools[0])
    assert after.startswith(d.decode.accelerator.name)
    assert answer.chosen.label.startswith(f"{d.replicas} x {before}{APART}{d.decode.replicas} x {after}")
    assert with_replicas(d.pools[0]) == f"{d.replicas} x {before}"
    assert d.gpus == sum(pool.gpus for pool in d.pools)
    assert "prefill pool: " in answer.chosen.trial.binds
    assert "decode pool: " in answer.chosen.trial.binds


def test_looking_at_one_pair_finds_it_again(won):
    asked, answer = won
    label = describe(answer.chosen.trial.deployment)
    looked = look(asked, only=frozenset({label}), cut=inf)
    assert {describe(p.trial.deployment) for p in looked.plans} == {label}
    assert looked.plans[0].usd_per_h == answer.chosen.usd_per_h


def test_why_not_the_other_form(won):
    asked, answer = won
    found = why_not(asked, answer, "aggregated")
    assert found.reasons
    assert not found.is_chosen
    assert why_not(asked, answer, "disaggregated").is_chosen


@pytest.mark.parametrize("changes", [BATCH, CLOSED])
def test_what_is_planned_together_alone(changes):
    asked = question(changes, BOTH)
    assert why_none(asked)
    answer = plan(asked)
    assert answer.chosen.trial.deployment.decode is None
    assert any(r.reason == why_none(asked) for r in answer.rejected)


def test_too_few_gpus_are_told():
    answer = plan(question(ONE_OF_EACH, APART_ONLY, {"space.max_gpus": 3, "workload.rate_scale": 20}))
    out = [r for r in answer.rejected if r.stage == "size"]
    assert answer.chosen is None
    assert out
    assert all(r.gpus_needed > 3 for r in out)
    assert answer.nearest.plan.trial.deployment.gpus == min(r.gpus_needed for r in out)


def test_the_way_of_the_kv_is_as_slow_as_its_slower_end():
    asked = question(ONE_OF_EACH | {"space.accelerators": ["h100_sxm", "l40s"]})
    named = {c.deployment.accelerator.name: c for c in candidates(asked)}
    h100, l40s = named["h100_sxm"], named["l40s"]
    ways = {
        (a.deployment.accelerator.name, b.deployment.accelerator.name): PoolsBench(asked, a, b).transfer
        for a, b in product((h100, l40s), repeat=2)
    }
    each = {k: w.bytes_per_token / w.bytes_per_s for k, w in ways.items()}
    assert each["h100_sxm", "l40s"] == each["l40s", "h100_sxm"] == each["l40s", "l40s"] > each["h100_sxm", "h100_sxm"]
    prompt, _ = asked.workload.mean_tokens
    # Qwen3-8B: 36 layers x 2 x 8 heads x 128 x 2 bytes = 147,456 bytes a token; 0.7 of 50 GB/s.
    assert share_of_token(h100, prompt) == pytest.approx(147_456)
    assert each["h100_sxm", "h100_sxm"] == pytest.approx(147_456 / (0.7 * 5e10))


def candidates(asked):
    parts, _ = fitting(pool_deployments(asked), asked)
    found = [s for part in parts for s in bound_stages(asked, part) if not isinstance(s, Rejection)]
    return list({id(s.deployment): s.candidate for s in found}.values())


def test_the_bounds_are_optimistic():
    """Prompts alone are there no later than clients see their first token, and pools that were found are no smaller
    than their bounds."""
    asked = question(WINS, ONE_OF_EACH)
    only = candidates(asked)[0]
    bench = PoolsBench(asked, only, only)
    requests = bench.streams.at_sizing_rate
    together = bench.play(requests, 3, 4)
    alone = prefilled(asked, only, requests, 3)
    assert (together.timings.first_token_s >= alone.timings.first_token_s - 1e-9).mean() > 0.99
    parts, _ = fitting(pool_deployments(asked), asked)
    bounded = {s.role: s for part in parts for s in bound_stages(asked, part)}
    p = next(p for p in plan(asked).plans if p.trial.deployment.decode is not None)
    for stage, pool in zip((bounded["prefill"], bounded["decode"]), p.trial.deployment.pools, strict=True):
        found, _ = find_stage(asked, stage)
        assert stage.fewest <= found <= pool.replicas - asked.sizing.spare_replicas


def test_dominated_pools_are_left_out():
    asked = question(ONE_OF_EACH)
    one = Stage(candidate=candidates(asked)[0], role="prefill", fewest=2, statistics=(0.5, 90.0))
    slower, dearer = replace(one, statistics=(0.6, 90.0)), replace(one, fewest=20, statistics=(0.4, 90.0))
    worse = replace(one, fewest=20, statistics=(0.5, 90.0))
    assert undominated([worse, dearer, slower, one], PoolFloors(asked)) == [one, dearer]


@pytest.mark.parametrize(("holding", "start"), [(1, None), (7, 3), (7, 30), (64, 1), (100, 100)])
def test_the_fewest_are_found_from_anywhere(holding, start):
    assert fewest(lambda n: n >= holding, 1, 100, start) == holding
    assert fewest(lambda n: False, 1, 100, start) is None
    assert at_least(10, 0) > MOST_REPLICAS
    assert [at_least(10, rps) for rps in (3, 5, inf)] == [4, 2, 1]


def test_keys_know_both_pools(won):
    asked, answer = won
    d = answer.chosen.trial.deployment
    other = replace(d, decode=replace(d.decode, replicas=d.decode.replicas + 1))
    assert key_of(look_apart, asked, d) != key_of(look_apart, asked, other)


def test_what_explains_a_plan_of_two_pools(won):
    asked, answer = won
    doubt = doubt_of(answer.chosen, asked)
    assert doubt.ttft[0] < 1 < doubt.ttft[1]
    small = question(BOTH, ONE_OF_EACH)
    found = levers(small, plan(small).chosen)
    rows = [x for x in found.rows if x.name == "disaggregation"]
    assert [x.is_chosen for x in rows] == [True, False]
    assert rows[1].plan.trial.deployment.decode is not None


def test_stopped_half_way():
    calls = []

    def stop(done, total, what):
        calls.append(what)
        if what == disaggregated.WHAT:
            from trilemma.planner.plan import Interrupted

            raise Interrupted

    answer = plan(question(WINS, ONE_OF_EACH), progress=stop)
    assert not answer.complete
    assert answer.chosen.trial.deployment.decode is None
    assert look_apart(question(), HERE, quiet, cut=2.0, only=frozenset({"none"})).plans == []
