"""The two views are one set of books: for any deployment, offer and traffic they agree, and no cell is negative."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.economics import Economics
from trilemma.catalogue.engine import Engine, SchedulerDefaults
from trilemma.catalogue.figure import Figure, Source
from trilemma.catalogue.model import Model
from trilemma.catalogue.offer import Offer, OfferKind
from trilemma.catalogue.precision import Precision
from trilemma.cost.bill import bill
from trilemma.cost.fleet import CHARGES_ALL_DAY
from trilemma.deployment.spec import Deployment, Parallelism, SchedulerKnobs
from trilemma.metrics.activity import Activity, Capacity, Schedule

MANY = settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SOME = settings(max_examples=200, deadline=None)
ECONOMICS_FIELDS = {
    "discount_rate": (0, 0.3), "residual_share": (0, 1), "capex_uplift": (0, 0.6), "electricity_usd_per_kwh": (0, 0.5),
    "colocation_usd_per_kw_month": (0, 300), "maintenance_share_per_year": (0, 0.1),
    "insurance_share_per_year": (0, 0.1), "operations_fte_per_node": (0, 0.2), "upkeep_fte": (0, 2),
    "engineer_usd_per_year": (0, 6e5), "benchmark_gpu_hours": (0, 5000),
}  # fmt: skip
BF16 = Precision(
    name="bf16", bits_per_weight=16, quantised=frozenset(), compute="bf16", fallback_compute=None,
    kv_bytes_per_element=2, note="", reference="",
)  # fmt: skip


def figure(value):
    return Figure(value=value, low=value, high=value, source=Source.GUESS, as_of="2026-09", reference="drawn")


def engine(weeks):
    return Engine(
        name="vllm", title="vLLM", version="0", block_tokens=16, gpu_memory_utilization=0.9, framework_bytes=0,
        scheduler_defaults=(SchedulerDefaults(min_hbm_bytes=0, max_num_batched_tokens=2048, max_num_seqs=256),),
        tuning_weeks=figure(weeks), tuning_weeks_multi_node=figure(4 * weeks), reference="",
    )  # fmt: skip


def accelerator(rng):
    node = int(rng.choice([4, 8]))
    idle = rng.uniform(20, 150)
    decode = idle + rng.uniform(0, 500)
    return Accelerator(
        name="any", title="any", vendor="any", family="any", hbm_bytes=8e10, hbm_bytes_per_s=3e12, flops={},
        link_bytes_per_s=1e11, link_domain_gpus=int(rng.choice([1, node, 72])), network_bytes_per_s=1e10,
        gpus_per_node=node, purchase_unit_gpus=node, tdp_w=1400, idle_w=idle, decode_w=decode,
        prefill_w=decode + rng.uniform(0, 500), chassis_w=rng.uniform(0, 4000), node_max_w=rng.uniform(2000, 15000),
    )  # fmt: skip


def case(seed):
    """Everything `bill` takes, drawn from one seed: zero loads, overload, late work, unmeasured capacity included."""
    rng = np.random.default_rng(seed)
    kind = list(OfferKind)[rng.integers(4)]
    k = int(rng.integers(1, 7))
    whole = rng.random() < 0.7
    held = rng.integers(0, 40, k).astype(float) if whole else rng.uniform(0, 40, k)
    saturation = float(rng.uniform(0.1, 20))
    requests = int(rng.integers(0, 5000)) * int(rng.random() < 0.95)
    in_limits = int(rng.integers(0, requests + 1)) * int(rng.random() < 0.9)
    chip = accelerator(rng)
    amounts = {name: float(rng.uniform(*span)) * int(rng.random() < 0.8) for name, span in ECONOMICS_FIELDS.items()}
    return {
        "deployment": Deployment(
            model=Model(name="any", hidden=1, vocab=1, blocks=()), precision=BF16, accelerator=chip, engine=engine(2),
            parallelism=Parallelism(tensor=int(rng.choice([1, 2, 3, 4, 8, 12, 16]))), replicas=int(rng.integers(1, 40)),
            knobs=SchedulerKnobs(max_num_batched_tokens=2048, max_num_seqs=256),
        ),
        "offer": Offer(
            name="any", accelerator="any", kind=kind,
            price=figure(float(rng.uniform(0, 4e5 if kind == "owned" else 15))),
            purchase_unit_gpus=int(rng.choice([1, 2, 4, 8, 72])), market="any", term_months=int(rng.integers(1, 60)),
            upfront_share=float(rng.choice([0, 0.25, 1])),
        ),
        "economics": Economics(
            horizon_months=float(rng.uniform(12, 96)), model_life_months=float(rng.uniform(3, 36)),
            pue=float(rng.uniform(1, 2)), **amounts,
        ),
        "engine": engine(float(rng.uniform(0, 10))),
        "activity": Activity(
            span_s=3600, rate_rps=requests / 3600, held_gpu_s=28800, prefill_gpu_s=float(rng.uniform(0, 14400)),
            decode_gpu_s=float(rng.uniform(0, 14400)), useful_tokens=in_limits * 1500,
            late_tokens=(requests - in_limits) * 1500, recomputed_tokens=int(rng.integers(0, 10_000)),
            prompt_tokens_in_limits=in_limits * 1000, output_tokens_in_limits=in_limits * 500,
            requests=requests, requests_in_limits=in_limits,
        ),
        "capacity": Capacity(
            saturation_rps=None if rng.random() < 0.15 else saturation,
            knee_rps=None if rng.random() < 0.15 else saturation * float(rng.choice([0, rng.uniform(0, 1), 1])),
        ),
        "schedule": Schedule(
            seconds=rng.uniform(60, 20_000, k), load_rps=rng.uniform(0, 60 * saturation, k) * (rng.random(k) < 0.9),
            held_replicas=held, asked_replicas=held * rng.choice([0, 0.5, 1, 1, rng.random()]), reason="drawn",
        ),
    }  # fmt: skip


def price(drawn):
    return bill(**drawn)


SEEDS = st.integers(0, 2**32 - 1)


@MANY
@given(seed=SEEDS)
def test_both_views_agree_and_nothing_is_negative(seed):
    priced = price(case(seed))
    cash_usd_per_h = sum(line.usd_per_h for line in priced.lines)  # from prices and whole units
    use_usd_per_h = sum(priced.use_view.values())  # from GPUs and joules by use
    cells = [cell for row in priced.matrix.values() for cell in row.values()]
    scale = {"rel": 1e-9, "abs": 1e-9}
    assert cash_usd_per_h == pytest.approx(use_usd_per_h, **scale)
    assert sum(priced.cash_view.values()) == pytest.approx(use_usd_per_h, **scale)
    assert priced.total_usd_per_h == pytest.approx(cash_usd_per_h, **scale)
    assert round(cash_usd_per_h * 100) == pytest.approx(round(use_usd_per_h * 100), abs=1)
    assert min(cells) >= 0
    assert list(priced.use_view) == ["useful", "waste", "headroom", "idle", "stranded"]
    assert priced.opportunity_usd_per_h <= priced.total_usd_per_h * (1 + 1e-12)
    assert priced.gpus.total == pytest.approx(priced.paid_gpus, rel=1e-9, abs=1e-9)
    assert sum(line.split.total for line in priced.lines) == pytest.approx(priced.total_usd_per_h, **scale)
    if priced.headroom_is_split:
        causes = priced.headroom_latency_usd_per_h + priced.headroom_reserve_usd_per_h
        assert causes == pytest.approx(priced.use_view["headroom"], **scale)


@MANY
@given(seed=SEEDS)
def test_uses_are_zero_where_their_cause_is_absent(seed):
    drawn = case(seed)
    schedule, offer = drawn["schedule"], drawn["offer"]
    size = drawn["deployment"].parallelism.gpus
    held = np.full_like(schedule.held_replicas, np.ceil(schedule.held_replicas.max()))
    if offer.kind not in CHARGES_ALL_DAY:
        held = schedule.held_replicas
    drawn["deployment"] = replace(drawn["deployment"], replicas=int(held.max()))
    drawn["schedule"] = replace(schedule, held_replicas=held, asked_replicas=held)
    drawn["offer"] = replace(offer, purchase_unit_gpus=size)  # every replica is a unit
    priced = price(drawn)
    fuzz = 1e-9 * max(1.0, priced.total_usd_per_h)
    assert priced.use_view["idle"] == pytest.approx(0, abs=fuzz)
    assert priced.use_view["stranded"] == pytest.approx(0, abs=fuzz)


@SOME
@given(seed=SEEDS, factor=st.floats(0, 1))
def test_holding_fewer_is_never_dearer_by_the_hour_and_saves_only_energy_where_the_day_is_paid(seed, factor):
    drawn = case(seed)
    schedule = drawn["schedule"]
    most = int(np.ceil(schedule.held_replicas.max()))
    drawn["deployment"] = replace(drawn["deployment"], replicas=max(1, most))
    fewer = replace(schedule, held_replicas=schedule.held_replicas * factor, asked_replicas=schedule.held_replicas * 0)
    more = replace(schedule, asked_replicas=schedule.held_replicas * 0)
    lean, full = (price({**drawn, "schedule": s}) for s in (fewer, more))
    assert lean.total_usd_per_h <= full.total_usd_per_h * (1 + 1e-9)
    if drawn["offer"].kind in CHARGES_ALL_DAY:
        fixed = [{line.name: line.usd_per_h for line in b.lines if line.name != "energy"} for b in (lean, full)]
        assert fixed[0] == pytest.approx(fixed[1])


@SOME
@given(seed=SEEDS, factor=st.floats(0, 1))
def test_more_load_never_draws_fewer_joules(seed, factor):
    drawn = case(seed)
    less = replace(drawn["schedule"], load_rps=drawn["schedule"].load_rps * factor)
    low, high = price({**drawn, "schedule": less}), price(drawn)
    assert low.it_watts <= high.it_watts * (1 + 1e-9)


@SOME
@given(seed=SEEDS)
def test_the_chassis_of_an_owned_node_is_always_on(seed):
    drawn = case(seed)
    chip = drawn["deployment"].accelerator
    drawn["offer"] = replace(drawn["offer"], kind=OfferKind.OWNED)
    night = replace(
        drawn["schedule"],
        load_rps=drawn["schedule"].load_rps * 0,
        held_replicas=drawn["schedule"].held_replicas * 0,
        asked_replicas=drawn["schedule"].held_replicas * 0,
    )
    priced = price({**drawn, "schedule": night})
    nodes = priced.purchase_units * priced.purchase_unit_gpus / chip.gpus_per_node
    assert priced.purchase_units >= 1
    assert priced.it_watts >= nodes * chip.chassis_w * (1 - 1e-9)
    assert priced.volumes.requests_per_h == 0
    assert priced.usd_per_mtok_output is None
    assert priced.use_view["useful"] == 0


@SOME
@given(seed=SEEDS, rate=st.floats(0.1, 50), output=st.integers(1, 4000), usd=st.floats(0.1, 20))
def test_full_use_at_a_fixed_rate_is_rate_over_throughput(seed, rate, output, usd):
    drawn = case(seed)
    size = drawn["deployment"].parallelism.gpus
    requests = 1000
    drawn["offer"] = replace(drawn["offer"], kind=OfferKind.ON_DEMAND, price=figure(usd), purchase_unit_gpus=size)
    drawn["economics"] = replace(drawn["economics"], upkeep_fte=0, benchmark_gpu_hours=0)
    drawn["engine"] = engine(0)
    drawn["capacity"] = Capacity(saturation_rps=rate, knee_rps=rate)
    drawn["activity"] = replace(
        drawn["activity"], useful_tokens=requests * (100 + output), late_tokens=0, recomputed_tokens=0,
        prompt_tokens_in_limits=requests * 100, output_tokens_in_limits=requests * output, requests=requests,
        requests_in_limits=requests,
    )  # fmt: skip
    replicas = np.ones_like(drawn["schedule"].seconds) * 3
    drawn["schedule"] = replace(
        drawn["schedule"], held_replicas=replicas, asked_replicas=replicas, load_rps=replicas * rate
    )
    priced = price(drawn)
    assert priced.usd_per_mtok_output == pytest.approx(usd * 1e6 / (rate * output / size * 3600), rel=1e-9)
    assert priced.opportunity_usd_per_h == pytest.approx(0, abs=1e-6 * priced.total_usd_per_h)


@SOME
@given(seed=SEEDS)
def test_reclaiming_never_returns_more_than_was_paid(seed):
    priced = price(case(seed))
    for part in priced.reclaimable:
        assert 0 <= part.scale_down_usd_per_h <= priced.operational_usd_per_h * (1 + 1e-9)
        assert 0 <= part.backfill_usd_per_h <= priced.use_view[part.cause] * (1 + 1e-9) + 1e-12
