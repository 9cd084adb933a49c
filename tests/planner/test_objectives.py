"""What the best plan is best in, and explanations as a whole."""

from dataclasses import replace

import pytest

from tests.planner.questions import BATCH, CLOSED, DAY, answer, question, together
from trilemma.errors import InputError
from trilemma.planner.answer import describe
from trilemma.planner.explain import check_wanted, explain
from trilemma.planner.explanation import Wanted
from trilemma.planner.objectives import budget_usd_per_h, load_inside, preferred
from trilemma.planner.plan import Interrupted, plan
from trilemma.planner.question import Objective
from trilemma.units import HOURS_PER_MONTH

SEARCHED = {"steady": {}, "day": DAY}
every_stream = pytest.mark.parametrize("changes", SEARCHED.values(), ids=SEARCHED)


def with_objective(changes, objective, times=None):
    """The question of `changes` with an objective and a budget of `times` its cheapest plan; the cheapest answer."""
    cheapest = answer(changes)
    budget = None if times is None else times * cheapest.chosen.usd_per_h * HOURS_PER_MONTH
    asked = question(changes)
    space = replace(asked.space, budget_usd_per_month=budget)
    return replace(asked, objective=Objective(objective), space=space), cheapest


def best(changes, objective, times=None):
    asked, cheapest = with_objective(changes, objective, times)
    answered, found = preferred(asked, cheapest)
    return asked, answered, found


def test_cost_is_what_a_plan_is_best_in_anyway():
    answered, found = preferred(question(), answer({}))
    assert answered is answer({})
    assert found is None


@every_stream
def test_least_energy_is_the_least_of_all_plans(changes):
    _, answered, found = best(changes, "energy")
    energies = {p.label: p.bill.energy_wh_per_mtok_output for p in answered.plans}
    assert energies[answered.chosen.label] == min(energies.values())
    assert "Wh per million output tokens" in found.sentence


@every_stream
@pytest.mark.parametrize("times", [1.05, 1.5, 3.0])
def test_the_most_goodput_stays_inside_the_budget(changes, times):
    asked, answered, found = best(changes, "goodput", times)
    assert found.load_factor >= 1
    assert answered.chosen.usd_per_h <= budget_usd_per_h(asked) + 1e-9
    load = answered.chosen.trial.fleet.activity.rate_rps
    assert load == pytest.approx(found.load_factor * asked.workload.sizing_rps, rel=1e-6)
    for p in answered.plans:  # no plan serves clearly more
        assert load_inside(p, asked) <= 1.2 * found.load_factor
    assert answered.chosen.trial.misses == ()


@every_stream
@pytest.mark.parametrize("objective", ["goodput", "latency"])
def test_a_larger_budget_never_buys_less(changes, objective):
    found = [best(changes, objective, times) for times in (1.01, 1.4, 2.5, 5.0)]
    if objective == "goodput":
        factors = [b.load_factor for _, _, b in found]
        assert all(more >= less * 0.97 for less, more in zip(factors, factors[1:], strict=False))
        assert factors[-1] > factors[0]
    else:
        seconds = [a.chosen.trial.summary.values["ttft_p99_s"] for _, a, _ in found]
        assert all(more <= less * 1.03 for less, more in zip(seconds, seconds[1:], strict=False))
        assert seconds[-1] < seconds[0]


@every_stream
def test_the_least_latency_stays_inside_the_budget_and_beats_the_plans_inside_it(changes):
    asked, answered, found = best(changes, "latency", 1.6)
    budget = budget_usd_per_h(asked)
    assert answered.chosen.usd_per_h <= budget + 1e-9
    reached = answered.chosen.trial.summary.values["ttft_p99_s"]
    inside = [p for p in answered.plans if p.usd_per_h <= budget]
    assert reached <= min(p.trial.summary.values["ttft_p99_s"] for p in inside)
    assert found.sentence.startswith("least latency inside $")
    assert "ttft p99" in found.sentence


def test_the_first_latency_limit_says_which_latency():
    changes = {"limits": ["itl p99 <= 40 ms", "ttft p99 <= 1 s"]}
    _, answered, found = best(changes, "latency", 2.0)
    assert "itl p99" in found.sentence
    itl = answered.chosen.trial.summary.values["itl_p99_s"]
    assert itl <= min(p.trial.summary.values["itl_p99_s"] for p in answered.plans if p.usd_per_h <= 1e9) * 3


@pytest.mark.parametrize(("objective", "times"), [("energy", None), ("latency", 2.0), ("goodput", 2.0)])
def test_every_other_plan_has_its_reason_in_the_objectives_terms(objective, times):
    _, answered, _ = best({}, objective, times)
    reasons = {r.label: r.reason for r in answered.rejected}
    others = [p for p in answered.plans if p.label != answered.chosen.label]
    assert others
    assert all(reasons[p.label].startswith("meets the limits, ") for p in others)
    assert answered.chosen.label not in reasons
    assert answered.frontier == answer({}).frontier


def test_jobs_and_closed_loops_have_a_least_energy_and_a_least_latency():
    for changes in (BATCH, CLOSED):
        for objective, times in (("energy", None), ("latency", 3.0)):
            asked, answered, found = best(changes, objective, times)
            assert answered.chosen.usd_per_h <= budget_usd_per_h(asked)
            assert found.sentence


@pytest.mark.parametrize(
    ("changes", "objective", "message"),
    [
        ({}, "goodput", "space.budget_usd_per_month: expected a budget, inside which objective goodput is sought"),
        ({}, "latency", "space.budget_usd_per_month: expected a budget"),
        (BATCH, "goodput", "objective: expected cost, latency or energy for a job, found goodput"),
        (CLOSED, "goodput", "objective: expected cost, latency or energy for a closed loop"),
    ],
)
def test_what_cannot_be_sought(changes, objective, message):
    times = None if changes == {} else 2.0
    asked, _ = with_objective(changes, objective, times)
    with pytest.raises(InputError, match=message):
        check_wanted(asked, Wanted())


def test_an_explanation_has_everything_that_was_wanted():
    asked, answered = question(), answer({})
    same, told = explain(asked, answered, wanted=Wanted(why_not="l40s", levers=True))
    assert same == answered
    assert told.limit_prices
    assert told.corners
    assert told.changes is not None
    assert told.certainty is not None
    assert told.why_not.words == ("l40s",)
    assert told.levers.chosen is answered.chosen
    assert told.simulations > 0
    _, short = explain(asked, answered, wanted=Wanted(limit_prices=False))
    assert (short.limit_prices, short.why_not, short.levers, short.simulations) == (None, None, None, 0)


def test_explaining_twice_says_the_same():
    asked, answered = question(DAY), answer(DAY)
    (_, one), (_, two) = explain(asked, answered), explain(asked, answered)
    assert [p.relaxed and p.relaxed.bound for p in one.limit_prices] == [
        p.relaxed and p.relaxed.bound for p in two.limit_prices
    ]
    assert one.certainty.probabilities == two.certainty.probabilities


@pytest.mark.parametrize("after", [0, 1, 2])
def test_stopped_half_way_it_has_the_prices_there_are_and_is_not_complete(after):
    def stop(done, _total, _what):
        if done >= after:
            raise Interrupted

    answered, told = explain(question(), answer({}), progress=stop)
    assert len(told.limit_prices) == after
    assert told.stopped_in == "explanation"
    assert not answered.complete
    assert answered.chosen is answer({}).chosen


def test_the_best_so_far_gets_no_prices_of_limits():
    half = replace(answer({}), complete=False)
    answered, told = explain(question(), half)
    assert told.limit_prices is None
    assert told.stopped_in == "search"
    assert not answered.complete


def test_without_a_plan_there_is_nothing_to_explain():
    hard = {"limits": ["ttft p99 <= 30 ms"]}
    answered, told = explain(question(hard), answer(hard))
    assert answered.chosen is None
    assert told.corners == ()


def test_prices_of_limits_are_those_of_the_cheapest_plan_only():
    asked, cheapest = with_objective({}, "energy")
    _, told = explain(asked, cheapest)
    assert told.limit_prices is told.changes is told.certainty is None
    assert told.sentence.startswith("least energy")


def test_the_goodput_fleet_is_the_one_a_scaled_workload_would_get():
    asked, answered, found = best({}, "goodput", 2.0)
    scaled = question(together({"workload.rate_scale": 4 * found.load_factor}))
    again = plan(scaled)
    label = describe(answered.chosen.trial.deployment)
    same = next(p for p in again.plans if p.label.endswith(f"{label}, {answered.chosen.offer.name}"))
    assert same.trial.deployment.replicas == answered.chosen.trial.deployment.replicas
    assert same.usd_per_h == pytest.approx(answered.chosen.usd_per_h, rel=0.01)
    assert same.usd_per_h <= budget_usd_per_h(asked) * 1.01
