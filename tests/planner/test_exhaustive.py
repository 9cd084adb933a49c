"""The bounded search gives what simulating everything gives: the choice, its price and the frontier, to the bit."""

from math import inf
from random import Random

import pytest

from tests.planner.questions import BATCH, CLOSED, DAY, question
from trilemma.api.pool import workers
from trilemma.planner import plan as planning
from trilemma.planner.bounds import Bounds
from trilemma.planner.nearness import Nearness
from trilemma.planner.plan import CUT, HERE, frontier, look, plan

SESSIONS = {
    "workload": {
        "arrivals": {"process": "poisson", "rate": "3 req/s", "requests": 400},
        "sessions": {
            "turns": {"distribution": "geometric", "mean": 4},
            "user_tokens": {"distribution": "uniform", "low": 20, "high": 400},
            "output_tokens": {"distribution": "uniform", "low": 10, "high": 300},
            "think_time": {"distribution": "exponential", "mean": "4 s"},
            "system_prompt_tokens": 800,
        },
    },
    "space.prefix_caching": [False, True],
}
LIMITS = (
    ["ttft p99 <= 1 s", "itl p99 <= 40 ms"],
    ["ttft p95 <= 300 ms"],
    ["itl p99 <= 15 ms"],
    ["tpot mean <= 12 ms", "e2e p90 <= 20 s"],
    ["goodput >= 95%", "ttft p50 <= 200 ms"],
    [],
)
WORKLOADS = ({}, {}, DAY, SESSIONS, BATCH, CLOSED)
MOE = {"model": "Qwen/Qwen3-30B-A3B", "space.data_parallel": [1, 2], "space.tensor_parallel": [1, 2]}


def drawn(seed):
    """A small space, workload and limits."""
    draw = Random(seed)
    workload = WORKLOADS[seed % len(WORKLOADS)]
    most = 1 if workload is SESSIONS else 2  # a prefix cache takes long to set up

    def some(values):
        return draw.sample(values, draw.randint(1, most))

    changes = {
        "space.accelerators": some(["h100_sxm", "l40s", "a100_sxm", "b200_sxm", "h200_sxm"]),
        "space.offers": ["owned", "on-demand"],
        "space.precisions": some(["bf16", "fp8"]),
        "space.kv_precisions": ["bf16"] if seed % 2 else some(["bf16", "fp8"]),
        "space.engines": some(["vllm", "trtllm", "sglang"]),
        "space.tensor_parallel": some([1, 2, 4]),
        "space.pipeline_parallel": some([1, 2]),
        "space.max_num_batched_tokens": some([512, 2048, 8192]),
        "space.max_num_seqs": some([64, 256]),
    }
    if seed % 7 == 3:
        changes |= MOE
    if "workload" not in workload:
        changes["workload.rate_scale"] = draw.choice([4, 40, 120])  # a few GPUs, or many: prices lie further apart
    if "limits" not in workload:
        changes["limits"] = draw.choice(LIMITS)
    return question(workload, changes)


seen = set()  # stages of rejections


@pytest.fixture(scope="module")
def two():
    with workers(2) as executor:
        yield executor


def everything(asked, monkeypatch):
    """A space simulated whole, without bounds from limits and without warm starts; and its frontier."""
    saturation_rps = Bounds.capacity_rps
    with monkeypatch.context() as bare:
        bare.setattr(Bounds, "capacity_rps", lambda self, *_: saturation_rps(self))
        bare.setattr(Bounds, "misses", lambda *_: ())
        bare.setattr(Nearness, "share", lambda *_: None)
        looked = look(asked, cut=inf)
    plans = looked.plans
    return looked, frontier(tuple(p for p in plans if p.usd_per_h <= CUT * plans[0].usd_per_h))


def said(p):
    """Which plan, at which price, to nine digits: a product of matrices may differ in the last one. The knee is not
    compared: where limits hold, fail and hold again as load grows, a warm start may end at another of its edges."""
    return p.label, round(p.usd_per_h, 9)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.filterwarnings("ignore")
def test_bounding_loses_nothing(seed, monkeypatch, two):
    asked = drawn(seed)
    looked, front = everything(asked, monkeypatch)
    monkeypatch.setattr(planning, "WAVE", 2)  # so that small spaces have waves to leave something out of
    monkeypatch.setattr(planning, "BLOCK", 2)
    for executor in (HERE, two):
        answer = plan(asked, executor=executor)
        if not looked.plans:
            assert answer.chosen is None
            continue
        assert said(answer.chosen) == said(looked.plans[0])
        assert [said(p) for p in answer.frontier] == [said(p) for p in front]
        assert answer.counts.simulated <= looked.simulated
    seen.update(r.stage for r in answer.rejected)


def test_the_spaces_are_of_every_kind():
    """Some candidates are cut by the bound on their price, some miss limits, others are dearer."""
    assert {"bound", "limits", "cost"} <= seen or not seen  # nothing was drawn where this test runs alone


def test_warm_and_cold_starts_choose_the_same(monkeypatch):
    asked = question({"space.max_num_batched_tokens": [512, 2048, 8192], "space.max_num_seqs": [64, 256]})
    monkeypatch.setattr(planning, "WAVE", 2)
    warm = look(asked, cut=inf)
    monkeypatch.setattr(Nearness, "share", lambda *_: None)
    cold = look(asked, cut=inf)
    assert [said(p) for p in warm.plans] == [said(p) for p in cold.plans]
    assert warm.simulations < cold.simulations
