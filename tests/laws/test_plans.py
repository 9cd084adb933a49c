"""Laws of a plan: the money adds up, nothing disappears, the bound is a bound, and asking for more never costs less."""

import json
from collections import Counter

import numpy as np
import pytest
from tests.planner.questions import (
    BATCH,
    CLOSED,
    DAY,
    MEAN,
    SMALL,
    STREAMS,
    WORKLOADS,
    answer,
    by_shape,
    cost,
    question,
    together,
)

from trilemma import api
from trilemma.catalogue.offer import OfferKind
from trilemma.cost.fleet import CHARGES_ALL_DAY
from trilemma.metrics.limits import Metric
from trilemma.metrics.summary import judge
from trilemma.planner import plan as planning
from trilemma.planner.answer import Rejection, describe
from trilemma.planner.bench import Bench, saturation_rps
from trilemma.planner.candidates import deployments, screen
from trilemma.planner.floors import Floors
from trilemma.planner.plan import look, plan

CENT = 0.01
DUST = 1e-9
every_workload = pytest.mark.parametrize("changes", WORKLOADS.values(), ids=WORKLOADS)
every_stream = pytest.mark.parametrize("changes", STREAMS.values(), ids=STREAMS)


@every_workload
def test_cash_and_use_are_the_total_to_the_cent(changes):
    asked = answer(changes)
    assert asked.chosen is not None
    for p in asked.plans:
        bill = p.bill
        cash = bill.capital_usd_per_h + bill.operational_usd_per_h + bill.engineering_usd_per_h
        assert round(cash, 2) == round(sum(bill.use_view.values()), 2) == round(bill.total_usd_per_h, 2)
        assert sum(line.usd_per_h for line in bill.lines) == pytest.approx(bill.total_usd_per_h, rel=DUST)
        assert p.usd_per_h == bill.total_usd_per_h
        assert min(bill.use_view.values()) >= 0
        assert sum(bill.gpus.five.values()) == pytest.approx(bill.paid_gpus, rel=DUST)


@every_workload
def test_the_chosen_plan_is_the_cheapest_that_keeps_every_limit(changes):
    asked = answer(changes)
    limits = question(changes).limits
    assert asked.chosen is asked.plans[0]
    assert asked.chosen.usd_per_h < min(p.usd_per_h for p in asked.plans) + CENT
    for p in asked.plans:
        assert judge(p.trial.summary.values, limits, margins=p.trial.margins) == ()
        assert all(p.trial.margins[x.metric] >= 1 for x in limits)  # asked for 80%: never less than the median
    prices = [round(p.usd_per_h, 2) for p in asked.plans]
    assert prices == sorted(prices)


@every_workload
def test_the_whole_workload_was_served(changes):
    requests = question(changes).workload.requests
    n, tokens = len(requests), int(requests.prompt_tokens.sum() + requests.output_tokens.sum())
    for p in answer(changes).plans:
        assert (p.trial.summary.requests, p.trial.summary.finished) == (n, n)
        activity = p.trial.fleet.activity
        assert activity.requests == n
        assert 0 <= activity.requests_in_limits <= n
        assert activity.useful_tokens + activity.late_tokens == tokens


@pytest.mark.parametrize(
    "changes",
    [*WORKLOADS.values(), {"space.max_gpus": 6}, {"space.tensor_parallel": [1, 3, 16]}, {"limits": ["e2e p50 <= 2 s"]}],
    ids=[*WORKLOADS, "few gpus", "odd parallelism", "hard"],
)
def test_every_candidate_is_a_plan_or_has_a_reason(changes):
    asked, looked_at = question(changes), answer(changes)
    wanted = {describe(d): {o.name for o in asked.space.offers_for(d.accelerator)} for d in deployments(asked)}
    assert len(wanted) == len(list(deployments(asked))) == looked_at.counts.shapes
    assert looked_at.counts.candidates == sum(map(len, wanted.values()))
    plans = {shape: {p.offer.name for p in group} for shape, group in by_shape(looked_at.plans).items()}
    dearer = [r.label for r in looked_at.rejected if r.stage == "cost"]
    assert {p.label for p in looked_at.plans[1:]} <= set(dearer)
    far = set(dearer) - {p.label for p in looked_at.plans}  # plans too dear to be kept
    for label in far:
        shape, offer = label.split(" x ", 1)[1].rsplit(", ", 1)
        plans.setdefault(shape, set()).add(offer)
    out = Counter(r.label for r in looked_at.rejected if r.stage != "cost")
    assert set(plans) | set(out) == set(wanted)
    assert not set(plans) & set(out)
    assert set(out.values()) <= {1}
    assert len(dearer) == len(set(dearer))
    assert all(plans[shape] == wanted[shape] for shape in plans)
    assert all(r.reason and "None" not in r.reason and "nan" not in r.reason for r in looked_at.rejected)
    assert len(looked_at.plans) + len(far) == sum(map(len, plans.values()))


@pytest.fixture(params=[*WORKLOADS.values(), DAY | {"sizing.spare_replicas": 0}], ids=[*WORKLOADS, "day, no spare"])
def whole(request):
    """A question and its whole space, nothing cut off; cheap and dear ways to do the same in it."""
    asked = question(request.param, {"space.tensor_parallel": [1, 8], "space.accelerators": ["h200_sxm", "l40s"]})
    return asked, look(asked, cut=float("inf"))


def test_the_bound_never_exceeds_the_price_of_the_real_plan(whole):
    asked, looked = whole
    prices = {shape: min(p.usd_per_h for p in group) for shape, group in by_shape(looked.plans).items()}
    assert prices
    bounded = 0
    for deployment in deployments(asked):
        candidate = screen(deployment, asked)
        if isinstance(candidate, Rejection) or describe(deployment) not in prices:
            continue
        floor = Floors(asked).usd_per_h(candidate, saturation_rps(Bench(candidate, asked)))
        assert 0 <= floor <= prices[describe(deployment)] * (1 + DUST)
        bounded += floor > 0
    assert bounded or asked.workload.clients


def test_cutting_off_by_the_bound_never_changes_the_choice(whole, monkeypatch):
    asked, looked = whole
    monkeypatch.setattr(planning, "WAVE", 2)  # so that the small space has waves to leave out
    cut = look(asked, cut=1.0)  # sharper than any plan is made with
    assert [cut.plans[0].label, cut.plans[0].usd_per_h] == [looked.plans[0].label, looked.plans[0].usd_per_h]
    left_out = [r for r in cut.rejected if r.stage == "bound"]
    assert left_out or asked.workload.clients
    assert all(r.usd_per_h > cut.plans[0].usd_per_h for r in left_out)
    assert cut.simulated + len(left_out) == looked.simulated


def test_one_answer_whoever_does_the_work():
    def document(processes):
        return json.dumps(api.plan(SMALL, processes=processes).to_dict(), allow_nan=False)

    assert document(1) == document(1) == document(2)


@pytest.mark.parametrize("changes", [BATCH, CLOSED], ids=["batch", "closed loop"])
def test_drawn_workloads_are_the_same_for_the_same_seed_and_differ_for_another(changes):
    first, again, other = (plan(question(changes, {"seed": seed})).chosen for seed in (1, 1, 2))
    assert (first.label, first.usd_per_h, first.trial.summary) == (again.label, again.usd_per_h, again.trial.summary)
    assert first.trial.summary != other.trial.summary


@every_workload
def test_the_frontier_holds_what_no_plan_beats(changes):
    asked = answer(changes)

    def point(p):
        exact = (
            -p.trial.output_tokens_per_s_per_gpu,
            p.trial.summary.values["ttft_p99_s"],
            p.bill.usd_per_mtok_output,
        )
        return np.array([float(f"{x:.3g}") for x in exact])  # nobody prefers by a fourth digit

    def beats(a, b):
        return bool((point(a) <= point(b)).all() and (point(a) < point(b)).any())

    assert asked.frontier
    for kept in asked.frontier:
        assert kept is asked.chosen or not any(beats(p, kept) for p in asked.plans)
    assert asked.chosen in asked.frontier
    for p in asked.plans:
        assert any((point(kept) <= point(p)).all() for kept in asked.frontier)
    assert min(point(p)[2] for p in asked.plans) == min(point(p)[2] for p in asked.frontier)
    if not question(changes).workload.clients:  # whose load, and so the price of a token, depends on who serves them
        assert min(p.usd_per_h for p in asked.frontier) < asked.chosen.usd_per_h + CENT


BOUNDS = {
    "ttft p99 <= {} ms": (2000, 1000, 500, 250, 100),
    "itl p99 <= {} ms": (80, 40, 25, 15),
    "e2e p95 <= {} s": (40, 20, 10, 5),
}


@pytest.mark.parametrize("limit", BOUNDS, ids=lambda text: text.split(" <=")[0])
@every_stream
def test_a_tighter_limit_never_costs_less(changes, limit):
    costs = [cost(changes, {"limits": [limit.format(bound)]}) for bound in BOUNDS[limit]]
    assert all(tighter >= looser - CENT for looser, tighter in zip(costs, costs[1:], strict=False))
    assert costs[-1] > costs[0]  # or nothing was tested


@every_workload
def test_a_further_limit_never_costs_less(changes):
    texts = [limit.text for limit in question(changes).limits]
    for further in ("tpot p90 <= 25 ms", "e2e p50 <= 15 s", "goodput >= 99%"):
        assert cost(changes, {"limits": [*texts, further]}) >= cost(changes) - CENT


@every_workload
def test_more_certainty_never_costs_less(changes):
    costs = [cost(changes, {"confidence": c}) for c in (0.5, 0.8, 0.95, 0.99)]
    assert all(surer >= bolder - CENT for bolder, surer in zip(costs, costs[1:], strict=False))
    medians = answer(changes, {"confidence": 0.5}).chosen.trial.margins
    assert set(medians.values()) == {1.0}


@every_workload
def test_a_larger_space_never_costs_more(changes):
    changes = together(changes, {"space.max_num_batched_tokens": [512, 2048]})
    whole_space = cost(changes)
    for key, values in (
        ("space.accelerators", (["h100_sxm"], ["l40s"])),
        ("space.offers", (["owned"], ["on-demand"])),
        ("space.precisions", (["bf16"], ["fp8"])),
        ("space.tensor_parallel", ([1], [2])),
        ("space.max_num_batched_tokens", ([512], [2048])),
    ):
        parts = [cost(changes, {key: part}) for part in values]
        assert whole_space < min(parts) + CENT, key
        assert whole_space > min(parts) - CENT, key  # the whole is the better of its parts


@every_workload
def test_max_gpus_is_kept_and_never_saves(changes):
    free = answer(changes)
    least = min(p.trial.deployment.gpus for p in free.plans)
    for most in (least, least + 1, 64):
        bounded = answer(changes, {"space.max_gpus": most})
        assert all(p.trial.deployment.gpus <= most for p in bounded.plans)
        assert bounded.chosen.usd_per_h >= free.chosen.usd_per_h - CENT
    if least > 1 and not question(changes).workload.batch:  # jobs take what the nodes they need hold anyway
        assert answer(changes, {"space.max_gpus": least - 1}).chosen is None


@every_stream
@pytest.mark.parametrize("key", ["sizing.headroom", "sizing.spare_replicas"])
def test_more_reserve_means_no_fewer_replicas_and_no_less_money(changes, key):
    values = (0.0, 0.25, 0.6) if key.endswith("headroom") else (0, 1, 3)
    answers = [answer(changes, {key: value}) for value in values]
    for less, more in zip(answers, answers[1:], strict=False):
        assert less.chosen.usd_per_h <= more.chosen.usd_per_h + CENT
        small, large = by_shape(less.plans), by_shape(more.plans)
        assert set(large) <= set(small)
        for shape, group in large.items():
            assert group[0].trial.deployment.replicas >= small[shape][0].trial.deployment.replicas
    assert answers[-1].chosen.usd_per_h > answers[0].chosen.usd_per_h


@pytest.mark.parametrize("key", ["sizing.headroom", "sizing.spare_replicas"])
@pytest.mark.parametrize("changes", [BATCH, CLOSED], ids=["batch", "closed loop"])
def test_more_reserve_for_jobs_and_clients_never_saves_where_the_day_is_paid(changes, key):
    owned = {"space.offers": ["owned"]}
    values = (0.0, 0.3, 0.9) if key.endswith("headroom") else (0, 1, 9)
    costs = [cost(changes, owned, {key: value}) for value in values]
    assert costs == sorted(costs)
    assert costs[-1] > costs[0]


def test_spare_replicas_stand_on_top_of_what_the_load_needs():
    few, many = (by_shape(answer({"sizing.spare_replicas": spare}).plans) for spare in (0, 3))
    added = [many[shape][0].trial.deployment.replicas - few[shape][0].trial.deployment.replicas for shape in many]
    assert max(added) == 3  # fewer only where the whole trace asked the lean fleet for more


def test_rented_replicas_follow_the_day_and_owned_ones_do_not():
    asked = question(DAY)
    shape = asked.workload.profile.load_rps(asked.workload.requests.rate_per_s)
    for p in answer(DAY).plans:
        fleet, replicas = p.trial.fleet, p.trial.deployment.replicas
        assert np.allclose(fleet.schedule.load_rps, shape)
        assert (fleet.schedule.held_replicas == replicas).all()
        assert (fleet.schedule.asked_replicas == fleet.scaled_schedule.held_replicas).all()
        assert fleet.scaled_schedule.held_replicas.max() == replicas
        assert fleet.scaled_schedule.held_replicas.min() < replicas
        order = np.argsort(shape)
        assert (np.diff(fleet.scaled_schedule.held_replicas[order]) >= 0).all()
        held = p.bill.held_gpus / p.trial.deployment.parallelism.gpus
        if p.offer.kind in CHARGES_ALL_DAY:
            assert held == pytest.approx(replicas)
        else:
            assert held == pytest.approx(fleet.scaled_schedule.held_replicas.mean())
            assert p.offer.kind is OfferKind.ON_DEMAND


def test_a_trace_of_the_mean_hour_is_sized_for_the_peak():
    peak, mean = (question(day).workload for day in (DAY, MEAN))
    assert peak.sizing_rps == pytest.approx(peak.requests.rate_per_s)
    assert mean.sizing_rps == pytest.approx(mean.requests.rate_per_s * mean.profile.peak_over_mean)
    at_peak, at_mean = by_shape(answer(DAY).plans), by_shape(answer(MEAN).plans)
    both = set(at_mean) & set(at_peak)  # but for those too dear beside the cheapest
    assert both
    for shape in both:
        assert at_mean[shape][0].trial.deployment.replicas > at_peak[shape][0].trial.deployment.replicas
    assert cost(MEAN) >= cost(DAY)
    assert cost({}) >= cost(DAY)  # the same peak, without a night


def test_a_job_ends_before_its_deadline_with_headroom_and_doubt_to_spare():
    for headroom in (0.0, 0.5):
        asked = answer(BATCH, {"sizing.headroom": headroom})
        for p in asked.plans:
            makespan_s = p.trial.summary.values["makespan_s"]
            assert makespan_s * max(1 + headroom, p.trial.margins[Metric.DEADLINE]) <= 60 * (1 + 1e-6)
            assert p.trial.fleet.schedule.period_s == pytest.approx(3600)
            assert p.trial.fleet.scaled_schedule.held_replicas.tolist() == [p.trial.deployment.replicas, 0]


def test_a_job_that_comes_less_often_costs_less_where_the_hour_is_paid_and_the_same_where_the_day_is():
    hourly, daily = (answer(BATCH, {"workload.period": period}) for period in ("1 h", "24 h"))
    often, seldom = ({p.label: p.bill for p in asked.plans} for asked in (hourly, daily))
    both = set(often) & set(seldom)  # but for those too dear beside the cheapest
    assert both
    for label in both:
        bill = often[label]
        if label.endswith("on-demand"):
            rent = bill.operational_usd_per_h
            assert seldom[label].operational_usd_per_h == pytest.approx(rent / 24, rel=1e-6)
        else:
            assert seldom[label].capital_usd_per_h == pytest.approx(bill.capital_usd_per_h)
            assert seldom[label].total_usd_per_h <= bill.total_usd_per_h
        assert seldom[label].engineering_usd_per_h == pytest.approx(bill.engineering_usd_per_h)


def test_no_two_clients_share_a_replica_that_one_would_leave_idle():
    asked = question(CLOSED)
    for p in answer(CLOSED).plans:
        assert 1 <= p.trial.deployment.replicas <= asked.workload.clients
        assert p.trial.fleet.schedule is p.trial.fleet.scaled_schedule  # the clients never leave
    few = answer(CLOSED, {"workload.arrivals.concurrency": 8}).chosen
    assert few.trial.deployment.replicas <= answer(CLOSED).chosen.trial.deployment.replicas
