"""Why not this one: what words pick, and the reason for each of the best that match."""

import re
from dataclasses import replace

import pytest

from tests.planner.questions import BATCH, answer, question
from trilemma.errors import InputError
from trilemma.metrics.limits import Metric
from trilemma.planner.answer import describe
from trilemma.planner.plan import look
from trilemma.planner.whynot import why_not

HARD_FOR_L40S = {"limits": ["ttft p99 <= 1 s", "itl p99 <= 12 ms"]}
TALL = {"model": "meta-llama/Meta-Llama-3.1-70B", "space.precisions": ["fp8"], "limits": ["ttft p99 <= 3 s"]}


def asked(words, changes=()):
    changes = dict(changes)
    return why_not(question(changes), answer(changes), words)


def test_why_not_of_the_chosen_plan_says_it_is_chosen():
    chosen = answer({}).chosen
    d = chosen.trial.deployment
    words = f"{d.accelerator.name},tp{d.parallelism.tensor},{d.precision.name},{d.engine.name},{chosen.offer.label}"
    found = asked(words)
    assert found.is_chosen
    assert found.matched == 1
    assert found.reasons == ()
    assert found.rival is None


def test_the_best_of_those_that_match_comes_first_each_deployment_once():
    found = asked("l40s")
    assert not found.is_chosen
    assert found.matched == 4
    plans = [r.plan for r in found.reasons]
    assert [p.usd_per_h for p in plans] == sorted(p.usd_per_h for p in plans)
    assert len({describe(p.trial.deployment) for p in plans}) == len(plans) == 4
    cheapest = min((p for p in answer({}).plans if p.label.split()[2] == "l40s"), key=lambda p: p.usd_per_h)
    assert found.rival is cheapest


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        ("h100,tp2", r"\d+ x h100_sxm TP2 .*"),
        ("H100-SXM, TP 2", r"\d+ x h100_sxm TP2 .*"),
        ("fp8,l40s,on-demand", r"\d+ x l40s TP\d fp8 .*/on-demand"),
        ("l40s/owned,bf16", r"\d+ x l40s TP\d bf16 .*l40s/owned"),
        ("vllm,kv-bf16,tp1,pp1,dp1,ep1,2048/256,l40s", r"\d+ x l40s TP1 .*"),
    ],
)
def test_every_word_counts(words, pattern):
    found = asked(words)
    assert found.reasons
    assert all(re.fullmatch(pattern, r.label) for r in found.reasons)


def test_two_words_of_a_kind_mean_either():
    assert asked("tp1,tp2").matched == asked("fp8,bf16").matched == len(list(asked("vllm").words)) * 8


def test_a_missed_limit_is_named_with_how_much():
    found = asked("l40s,bf16,tp1", HARD_FOR_L40S)
    (reason,) = found.reasons
    assert reason.rejection.stage == "limits"
    assert reason.rejection.misses[0].limit.metric is Metric.ITL
    assert re.search(r"itl p99 <= 12 ms missed: [\d.]+ ms \(\d+% over\)", reason.rejection.reason)
    assert found.rival is None


def test_too_little_memory_is_the_reason():
    found = asked("l40s,tp1", TALL)
    assert [r.rejection.stage for r in found.reasons] == ["memory"]
    assert "GiB too much" in found.reasons[0].rejection.reason


def test_what_a_bound_cut_off_is_simulated_after_all():
    whole, limits = question(), answer({})
    cut_off = next(p for p in limits.plans if describe(p.trial.deployment).startswith("l40s TP2 bf16"))
    label = describe(cut_off.trial.deployment)
    bound = {"label": label, "stage": "bound", "reason": "at least $9/h", "usd_per_h": 9.0}
    rejection = replace(limits.rejected[0], **bound)
    plans = tuple(p for p in limits.plans if describe(p.trial.deployment) != label)
    blind = replace(limits, plans=plans, rejected=(rejection,))
    found = why_not(whole, blind, "l40s,tp2,bf16")
    assert all(r.after_all and r.cut == "at least $9/h" for r in found.reasons)
    again = look(whole, only=frozenset({label}), cut=float("inf"))
    assert found.reasons[0].plan.usd_per_h == again.plans[0].usd_per_h


def test_jobs_are_asked_alike():
    assert asked("l40s", BATCH).reasons


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("h10", r"--why-not: expected words of the space: h100, .*, found 'h10' \(did you mean 'h100'\?\)"),
        ("h100,tp16", r"found 'tp16' \(did you mean 'tp1'\?\)"),
        ("b200", "found 'b200'"),
        ("spot", "found 'spot'"),
        ("reserved", "found 'reserved'"),
        (" , ", "expected words such as h200,tp4, found none"),
        ("nonsense", "found 'nonsense'$"),
    ],
)
def test_words_that_name_nothing(words, message):
    with pytest.raises(InputError, match=message):
        asked(words)


def test_a_plan_over_the_budget_is_named_with_its_price():
    budget = 1.1 * answer({}).chosen.usd_per_h * 730
    found = asked("l40s,tp2,bf16,owned", {"space.budget_usd_per_month": round(budget)})
    (reason,) = found.reasons
    assert reason.rejection.stage == "cost"
    assert "budget_usd_per_month" in reason.rejection.reason
    assert reason.label.endswith("l40s/owned")
