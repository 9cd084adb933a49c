"""What each bound costs, held against planning the whole space anew with the bound moved."""

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planner.questions import BATCH, CLOSED, DAY, WORKLOADS, answer, cost, question, together
from trilemma.metrics.limits import Metric, parse_limit
from trilemma.planner.answer import describe
from trilemma.planner.explanation import TOGETHER
from trilemma.planner.gains import Gains, but_knobs
from trilemma.planner.limit_prices import WORTH, Prices
from trilemma.planner.moved_limits import looser, moved, tighter, with_limit
from trilemma.planner.plan import plan
from trilemma.planner.priced import dearer
from trilemma.units import HOURS_PER_YEAR

CENT = 0.01
GOODPUT = {"limits": ["goodput >= 99%", "ttft p50 <= 300 ms", "itl p90 <= 20 ms"]}
ASKED = {name: WORKLOADS[name] for name in WORKLOADS} | {"goodput": GOODPUT, "tight": {"limits": ["itl p99 <= 15 ms"]}}
every_question = pytest.mark.parametrize("name", ASKED)


@cache
def prices(name):
    changes = ASKED[name]
    asked = answer(changes)
    found = Prices(question=question(changes), answer=asked, chosen=asked.chosen)
    return [price() for _, price in found.bounds()]


def cost_with(name, old, new):
    """$/h of the cheapest plan of the whole space with one limit in place of another."""
    texts = [new if x.text == old else x.text for x in question(ASKED[name]).limits]
    return cost(ASKED[name], {"limits": texts})


def cost_with_all(name, texts):
    return cost(ASKED[name], {"limits": texts.split(", ")})


@every_question
def test_every_bound_has_its_price_in_the_order_asked(name):
    texts = [x.text for x in question(ASKED[name]).limits]
    assert [p.bound for p in prices(name)] == texts + ([TOGETHER] if len(texts) > 1 else [])


@every_question
def test_a_relaxed_limit_never_raises_the_price_and_the_whole_space_agrees(name):
    chosen = answer(ASKED[name]).chosen.usd_per_h
    for price in prices(name):
        at = cost_with_all if price.bound == TOGETHER else lambda n, text, b=price.bound: cost_with(n, b, text)
        assert at(name, price.tried) <= chosen + CENT
        if price.relaxed is None:
            assert price.furthest is None
            assert at(name, price.tried) >= (1 - WORTH) * chosen - CENT
            continue
        for step in (price.relaxed, price.furthest):
            assert step.plan.usd_per_h < chosen
            assert step.saves_usd_per_year == pytest.approx((chosen - step.plan.usd_per_h) * HOURS_PER_YEAR)
            assert at(name, step.bound) <= step.plan.usd_per_h + CENT
        assert price.relaxed.saves_usd_per_year <= price.furthest.saves_usd_per_year + 1e-6


@every_question
def test_the_step_before_saves_nothing(name):
    asked, chosen = question(ASKED[name]), answer(ASKED[name]).chosen.usd_per_h
    for limit, price in zip(asked.limits, prices(name), strict=False):
        steps = [step.text for step in looser(limit)]
        if price.relaxed is not None and (before := steps.index(price.relaxed.bound)):
            assert cost_with(name, limit.text, steps[before - 1]) >= (1 - WORTH) * chosen - CENT


@every_question
def test_a_tightened_limit_never_lowers_the_price_and_what_is_free_costs_the_same(name):
    asked, chosen = question(ASKED[name]), answer(ASKED[name]).chosen.usd_per_h
    for limit, price in zip(asked.limits, prices(name), strict=False):
        if price.free is not None:
            assert cost_with(name, limit.text, price.free) == pytest.approx(chosen, abs=CENT)
            new = parse_limit(price.free, where="")
            assert (new.bound > limit.bound) == (limit.metric is Metric.GOODPUT)
        for step in tighter(limit, 0.0)[:3]:
            assert cost_with(name, limit.text, step.text) >= chosen - CENT


def test_something_is_saved_and_something_is_free_somewhere():
    every = [price for name in ASKED for price in prices(name)]
    assert any(price.relaxed is not None for price in every)
    assert any(price.relaxed is None for price in every)
    assert any(price.free is not None for price in every)


def test_it_takes_a_part_of_the_simulations_where_the_plan_took_many():
    asked = answer(ASKED["day"])
    many = replace(asked, counts=replace(asked.counts, simulations=5000, simulated=450))
    few = replace(asked, counts=replace(asked.counts, simulations=80, simulated=8))
    most = [Prices(question=question(DAY), answer=a, chosen=a.chosen).most for a in (few, many)]
    assert 3 <= most[0] <= most[1] <= 12


@pytest.mark.parametrize("changes", [{}, DAY, BATCH, CLOSED], ids=["steady", "day", "batch", "closed loop"])
def test_a_bound_on_gpus_has_a_price_where_a_larger_fleet_is_cheaper(changes):
    """The cheapest of few GPUs may be dearer than the cheapest of many."""
    free = answer(changes)
    least = min(p.trial.deployment.gpus for p in free.plans)
    bounded = together(changes, {"space.max_gpus": least})
    asked = answer(bounded)
    found = Prices(question=question(bounded), answer=asked, chosen=asked.chosen)
    (price,) = [price() for name, price in found.bounds() if name == "max_gpus"]
    saved = (asked.chosen.usd_per_h - free.chosen.usd_per_h) / asked.chosen.usd_per_h
    assert (price.relaxed is None) == (saved < WORTH)
    if price.relaxed is not None:
        assert price.furthest.plan.usd_per_h == pytest.approx(free.chosen.usd_per_h, abs=CENT)
        assert price.relaxed.bound == f"max_gpus {price.relaxed.plan.trial.deployment.gpus}"
    assert price.free is None or price.free == f"max_gpus {asked.chosen.trial.deployment.gpus}"


def test_a_bound_on_accuracy_has_a_price_where_a_smaller_format_is_cheaper():
    changes = {"space.accelerators": ["l40s"], "space.precisions": ["bf16", "nvfp4"], "space.kv_precisions": ["bf16"]}
    free, bounded = answer(changes), together(changes, {"space.max_accuracy_loss_pct": 0})
    asked = answer(bounded)
    assert free.chosen.trial.deployment.precision.name == "nvfp4"
    assert asked.chosen.trial.deployment.precision.name == "bf16"
    found = Prices(question=question(bounded), answer=asked, chosen=asked.chosen)
    (price,) = [price() for name, price in found.bounds() if name == "max_accuracy_loss_pct"]
    assert price.bound == "max_accuracy_loss_pct 0"
    assert price.relaxed.plan.label == free.chosen.label
    assert 0 < float(price.relaxed.bound.removeprefix("max_accuracy_loss_pct ")) < 10


limits = st.builds(
    "{} {} <= {} ms".format,
    st.sampled_from(["ttft", "itl", "tpot", "e2e"]),
    st.sampled_from(["mean", "p50", "p99.9"]),
    st.floats(1e-3, 1e6).map(lambda ms: f"{ms:.9f}".rstrip("0").rstrip(".")),
) | st.builds("goodput >= {:.3f}%".format, st.floats(1, 100))


@given(limits)
def test_steps_move_one_way_and_read_back_as_themselves(text):
    limit = parse_limit(text, where="")
    sign = -1 if limit.metric is Metric.GOODPUT else 1
    for steps, way in ((looser(limit), sign), (tighter(limit, 1.0 if sign < 0 else 0.0), -sign)):
        bounds = [limit.bound, *(step.bound for step in steps)]
        assert all((b - a) * way > 0 for a, b in zip(bounds, bounds[1:], strict=False))
        for step in steps:
            assert (step.metric, step.quantile) == (limit.metric, limit.quantile)
            assert parse_limit(step.text, where="") == step


def test_steps_are_numbers_people_write():
    texts = [x.text for x in looser(parse_limit("ttft p99 <= 1 s", where=""))]
    assert texts[:4] == ["ttft p99 <= 1.1 s", "ttft p99 <= 1.2 s", "ttft p99 <= 1.3 s", "ttft p99 <= 1.4 s"]
    assert texts[-1] == "ttft p99 <= 4 s"
    assert looser(parse_limit("goodput >= 100%", where=""))[0].text == "goodput >= 99.9%"
    assert moved(parse_limit("deadline <= 6 h", where=""), 2).text == "deadline <= 12 h"


def test_moving_a_limit_leaves_the_others():
    asked = question()
    first, second = asked.limits
    assert with_limit(asked, first, moved(first, 2)).limits == (moved(first, 2), second)
    assert plan(with_limit(asked, first, first)).chosen.label == answer({}).chosen.label


def test_what_was_too_dear_to_be_compared_may_come_back():
    """A deployment that a plan sized and then left out of its comparison is looked at where its like has a chance."""
    changes = {"space.max_num_batched_tokens": [512, 2048], "limits": ["ttft p99 <= 1 s", "itl p99 <= 20 ms"]}
    asked, found = question(changes), answer(changes)
    gains = Gains(question=asked, answer=found, chosen=found.chosen, below_usd_per_h=found.chosen.usd_per_h)
    kinds = Counter(map(but_knobs, gains.least_usd_per_h))
    label = next(x for x in gains.least_usd_per_h if kinds[but_knobs(x)] > 1)
    dear = [p for p in found.plans if describe(p.trial.deployment) == label]
    left = replace(
        found,
        plans=tuple(p for p in found.plans if p not in dear),
        rejected=(*found.rejected, *(dearer(p, found.chosen) for p in dear)),
    )
    chances = replace(gains, answer=left).by(asked.limits, 60)
    assert label in {chance.label for chance in chances}
    assert label not in {x.label for x in replace(gains, answer=replace(left, rejected=())).by(asked.limits, 60)}
