"""The corners of the trilemma, what would change the answer, and how sure it is."""

from dataclasses import replace
from functools import cache

import pytest

from tests.planner.questions import CLOSED, DAY, STREAMS, WORKLOADS, answer, question, together
from trilemma.planner.certainty import certainty
from trilemma.planner.corners import MEASURES, NAMES, OF_JOBS, OF_REQUESTS, corners
from trilemma.planner.plan import plan
from trilemma.planner.priced import price
from trilemma.planner.subjects import commitment, doubt_of, rivals, subject_of
from trilemma.planner.whatif import CLEARLY, changes, price_up, rival_price, traffic_changes

CENT = 0.01
every_workload = pytest.mark.parametrize("name", WORKLOADS)
every_stream = pytest.mark.parametrize("name", STREAMS)


@every_workload
def test_each_corner_is_the_best_of_all_plans_in_its_one_thing(name):
    plans = answer(WORKLOADS[name]).plans
    found = {corner.name: corner for corner in corners(plans, is_job=name == "batch")}
    assert {NAMES[key] for key in (OF_JOBS if name == "batch" else OF_REQUESTS)} == set(found)
    for key, measure in MEASURES.items():
        if NAMES[key] in found:
            best = min(map(measure, plans))
            assert measure(found[NAMES[key]].plan) == pytest.approx(best, rel=2e-3)
            assert found[NAMES[key]].gives_up[key] == pytest.approx(1, rel=2e-3)


@every_workload
def test_corners_are_on_the_frontier(name):
    """No plan beats a corner in all of cost, TTFT, ITL and throughput: to three digits, as the frontier compares."""
    asked = answer(WORKLOADS[name])

    def point(p):
        return [float(f"{measure(p):.3g}") for measure in MEASURES.values()]

    def beats(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    for corner in corners(asked.plans):
        assert corner.plan is asked.chosen or not any(beats(point(p), point(corner.plan)) for p in asked.plans)
    labels = {p.label for p in asked.frontier}
    for corner in corners(asked.plans):
        if corner.name in {"cheapest", "first token soonest"} and not question(WORKLOADS[name]).workload.clients:
            like = [p for p in asked.frontier if point(p)[:2] == point(corner.plan)[:2]]
            assert corner.plan.label in labels or like


@every_workload
def test_what_a_corner_gives_up_is_counted_from_the_best(name):
    plans = answer(WORKLOADS[name]).plans
    for corner in corners(plans):
        for key, ratio in corner.gives_up.items():
            assert ratio is None or ratio >= 1
            best = min(map(MEASURES[key], plans))
            assert ratio is None or ratio == pytest.approx(MEASURES[key](corner.plan) / best)


def test_without_plans_there_is_no_corner():
    assert corners(()) == ()


@every_stream
def test_above_the_price_another_deployment_is_the_cheapest_and_below_it_is_not(name):
    asked, answered = question(STREAMS[name]), answer(STREAMS[name])
    change = price_up(rivals(answered.plans, answered.chosen), answered.chosen)
    assert change is not None
    assert change.price_usd >= change.price_now_usd
    for factor, stays in ((0.999, True), (1.001, False)):
        new = plan(at_price(asked, change.offer, change.price_usd * factor))
        dearer = next(p for p in new.plans if p.label == answered.chosen.label)
        others = [p for p in new.plans if commitment(p) != commitment(dearer)]
        assert (dearer.usd_per_h <= others[0].usd_per_h + 1e-9) == stays
        assert stays or any(p.label == change.plan.label and p.usd_per_h < dearer.usd_per_h for p in others)


@every_stream
def test_at_its_price_the_rival_costs_what_the_chosen_plan_costs(name):
    asked, answered = question(STREAMS[name]), answer(STREAMS[name])
    change = rival_price(rivals(answered.plans, answered.chosen), answered.chosen)
    assert change is not None
    assert 0 < change.price_usd <= change.price_now_usd
    offer = next(o for o in asked.space.offers if o.name == change.offer)
    cheaper = price(change.plan.trial, with_price(offer, change.price_usd), asked)
    assert cheaper.usd_per_h == pytest.approx(answered.chosen.usd_per_h, abs=CENT)


def with_price(offer, usd):
    return replace(offer, price=replace(offer.price, value=usd, low=0.0, high=max(usd, offer.price.high)))


def at_price(asked, name, usd):
    offers = tuple(with_price(o, usd) if o.name == name else o for o in asked.space.offers)
    return replace(asked, space=replace(asked.space, offers=offers))


@every_stream
def test_at_the_traffic_a_rival_is_clearly_cheaper_and_just_before_it_does_not_last(name):
    asked, answered = question(STREAMS[name]), answer(STREAMS[name])
    others = rivals(answered.plans, answered.chosen)
    less, more = traffic_changes(others, answered.chosen, asked)
    assert less or more
    for change, beyond in ((less, lambda f: f < 1), (more, lambda f: f > 1)):
        if change is None:
            continue
        assert beyond(change.factor)

        def usd(p, factor=change.factor):
            return subject_of(p.trial.fleet, asked).bill(p.offer, load_factor=factor).total_usd_per_h

        assert change.usd_per_h == pytest.approx(usd(change.plan))
        assert change.chosen_usd_per_h == pytest.approx(usd(answered.chosen))
        assert change.usd_per_h < CLEARLY * change.chosen_usd_per_h


def test_at_the_load_itself_a_subject_costs_what_its_plan_costs():
    for name, asked in WORKLOADS.items():
        for p in answer(asked).plans:
            bill = subject_of(p.trial.fleet, question(asked)).bill(p.offer)
            assert bill.total_usd_per_h == pytest.approx(p.usd_per_h, abs=CENT), (name, p.label)


def test_clients_of_a_closed_loop_are_as_many_as_they_are():
    answered = answer(CLOSED)
    found = changes(answered.plans, answered.chosen, question(CLOSED))
    assert found.traffic_down is found.traffic_up is None


def test_a_deployment_without_rivals_is_sure():
    alone = {"space.accelerators": ["l40s"], "space.tensor_parallel": [1], "space.precisions": ["fp8"]}
    answered, asked = answer(alone), question(alone)
    found = changes(answered.plans, answered.chosen, asked)
    assert found.price_up is found.rival_price is found.traffic_down is found.traffic_up is None
    assert certainty(answered.plans, answered.chosen, asked).probabilities == (1.0,)


@cache
def sure(name):
    return certainty(answer(WORKLOADS[name]).plans, answer(WORKLOADS[name]).chosen, question(WORKLOADS[name]))


@every_workload
def test_probabilities_are_of_the_best_few_and_sum_to_one(name):
    found = sure(name)
    assert found.plans[0] is answer(WORKLOADS[name]).chosen
    assert 1 < len(found.plans) <= 6
    assert len({commitment(p) for p in found.plans}) == len(found.plans)
    assert sum(found.probabilities) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in found.probabilities)
    assert found.stays_cheapest == found.probabilities[0]


def test_the_same_question_is_equally_sure():
    again = certainty(answer(DAY).plans, answer(DAY).chosen, question(DAY))
    assert again.probabilities == sure("day").probabilities


def test_a_rival_at_a_third_of_the_price_takes_the_certainty():
    asked, answered = question(DAY), answer(DAY)
    rival = rivals(answered.plans, answered.chosen)[0]
    cheap = with_price(rival.offer, rival.offer.price.value / 3)
    cheap = replace(cheap, name="bargain", price=replace(cheap.price, low=cheap.price.value, high=cheap.price.value))
    bargain = price(rival.trial, cheap, asked)
    found = certainty((bargain, *answered.plans), answered.chosen, asked)
    assert found.stays_cheapest < sure("day").stays_cheapest


@every_workload
def test_doubt_is_around_what_is_predicted(name):
    doubt = doubt_of(answer(WORKLOADS[name]).chosen, question(WORKLOADS[name]))
    for low, high in (doubt.ttft, doubt.tpot):
        assert 0 < low < 1 < high
    assert doubt.capacity[0] < doubt.capacity[1]


def test_knobs_cache_and_offer_are_no_other_deployment():
    changed = together({"space.max_num_batched_tokens": [512, 2048], "space.kv_precisions": ["bf16", "fp8"]})
    answered = answer(changed)
    others = rivals(answered.plans, answered.chosen)
    assert len(others) == len({commitment(p) for p in answered.plans}) - 1
    assert all(commitment(p) != commitment(answered.chosen) for p in others)
