"""Published and hand-checkable bills, priced by the whole room."""

from dataclasses import replace

import numpy as np
import pytest

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.economics import Economics
from trilemma.catalogue.engine import Effort, Engine, SchedulerDefaults, Topology
from trilemma.catalogue.figure import Figure, Source
from trilemma.catalogue.model import Model
from trilemma.catalogue.offer import Offer, OfferKind
from trilemma.catalogue.precision import Precision
from trilemma.cost.bill import bill
from trilemma.cost.sizing import replica_rps, replicas_for
from trilemma.deployment.spec import Deployment, Parallelism, SchedulerKnobs
from trilemma.metrics.activity import Activity, Capacity, Schedule

H = 3600.0


def figure(value, source=Source.VENDOR, as_of="2026-09"):
    return Figure(value=value, low=value, high=value, source=source, as_of=as_of, reference="worked example")


H100 = Accelerator(
    name="h100_sxm", title="H100 SXM", vendor="nvidia", family="hopper", hbm_bytes=80e9, hbm_bytes_per_s=3.35e12,
    flops={"bf16": 989e12}, link_bytes_per_s=450e9, link_domain_gpus=8, network_bytes_per_s=50e9, gpus_per_node=8,
    purchase_unit_gpus=8, tdp_w=700, idle_w=110, decode_w=480, prefill_w=660, chassis_w=2200, node_max_w=10_200,
)  # fmt: skip


def effort(node, multi_node):
    """Weeks by topology, all a guess; a single GPU as a node, upkeep the usual."""
    by_topology = zip(Topology, (node, node, multi_node, multi_node), strict=True)
    return {t: Effort(weeks=figure(weeks, Source.GUESS), upkeep_scale=figure(1)) for t, weeks in by_topology}


ENGINE = Engine(
    name="vllm", title="vLLM", version="0.33", block_tokens=16, gpu_memory_utilization=0.92, framework_bytes=2e9,
    scheduler_defaults=(SchedulerDefaults(min_hbm_bytes=0, max_num_batched_tokens=8192, max_num_seqs=256),),
    effort=effort(2, 10), reference="none",
)  # fmt: skip
FREE = Economics(
    horizon_months=48, discount_rate=0.09, residual_share=0.25, capex_uplift=0.25, pue=1.35,
    electricity_usd_per_kwh=0.087, colocation_usd_per_kw_month=0, maintenance_share_per_year=0,
    insurance_share_per_year=0, operations_fte_per_node=0, engineer_usd_per_year=300_000, upkeep_fte=0,
    model_life_months=9, benchmark_gpu_hours=0, grid_gco2_per_kwh=380, instance_start_s=0, quantisation_weeks=0,
    checkpoint_check_weeks=0, spot_lost_work_s=0,
)  # fmt: skip
NO_WEEKS = replace(ENGINE, effort=effort(0, 0))


def deployment(tensor=8, accelerator=H100, replicas=1):
    bf16 = Precision(
        name="bf16", bits_per_weight=16, quantised=frozenset(), compute="bf16", fallback_compute=None,
        kv_bytes_per_element=2, note="", reference="",
    )  # fmt: skip
    return Deployment(
        model=Model(name="llama-70b", hidden=8192, vocab=128256, blocks=()), precision=bf16, accelerator=accelerator,
        engine=ENGINE, parallelism=Parallelism(tensor=tensor), replicas=replicas,
        knobs=SchedulerKnobs(max_num_batched_tokens=8192, max_num_seqs=256),
    )  # fmt: skip


def offer(kind, price, unit=8, **more):
    return Offer(
        name=f"h100-{kind.value}", accelerator="h100_sxm", kind=kind, price=figure(price), purchase_unit_gpus=unit,
        market="market median", **more,
    )  # fmt: skip


def schedule(held, load=None, asked=None, hours=None):
    held = np.array(held, dtype=float)
    return Schedule(
        seconds=(np.ones_like(held) if hours is None else np.array(hours, dtype=float)) * H,
        load_rps=held.copy() if load is None else np.array(load, dtype=float),
        held_replicas=held,
        asked_replicas=held.copy() if asked is None else np.array(asked, dtype=float),
        reason="a worked example",
    )


def activity(*, gpus=8, rate=1.0, output=500, prompt=1000, late=0, busy=1.0):
    """An hour of one replica of `gpus` GPUs; a quarter of the busy time prefills."""
    requests = round(rate * H)
    return Activity(
        span_s=H, rate_rps=rate, held_gpu_s=gpus * H, prefill_gpu_s=gpus * H * busy / 4,
        decode_gpu_s=gpus * H * busy * 3 / 4, useful_tokens=requests * (prompt + output) - late, late_tokens=late,
        recomputed_tokens=0, prompt_tokens_in_limits=requests * prompt, output_tokens_in_limits=requests * output,
        requests=requests, requests_in_limits=requests,
    )  # fmt: skip


FULL = Capacity(saturation_rps=1.0, knee_rps=1.0)


@pytest.mark.parametrize(("residual", "usd_per_gpu_h"), [(0.0, 1.58), (0.25, 1.36)])
def test_capital_of_an_h100_node(residual, usd_per_gpu_h):
    economics = replace(FREE, discount_rate=0.10, residual_share=residual)
    priced = bill(deployment(), offer(OfferKind.OWNED, 280_000), economics, NO_WEEKS, activity(), FULL, schedule([1]))
    assert priced.capital_usd_per_h / 8 == pytest.approx(usd_per_gpu_h, abs=0.005)
    assert priced.purchase_units == 1


def deepseek(held, asked, hours=(24,)):
    """A replica is a node of load 1; 168 billion output tokens a day on 226.75 nodes' worth of work."""
    day = replace(activity(), output_tokens_in_limits=round(168e9 / 24 / 226.75))
    return bill(
        deployment(), offer(OfferKind.ON_DEMAND, 2.0), FREE, NO_WEEKS, day, FULL,
        schedule(held, load=asked, asked=asked, hours=hours),
    )  # fmt: skip


def test_deepseek_on_average_nodes():
    priced = deepseek([226.75], [226.75])
    assert priced.total_usd_per_h * 24 == pytest.approx(87_072, abs=0.01)
    assert priced.usd_per_mtok_output == pytest.approx(0.52, abs=0.005)
    assert priced.use_view["idle"] == pytest.approx(0.0, abs=1e-9)


def test_deepseek_peak_kept_all_day_is_idle_at_night():
    # 278 nodes for 18 hours and 73 for 6 average 226.75.
    kept = deepseek([278, 278], [278, 73], hours=(18, 6))
    assert kept.total_usd_per_h * 24 == pytest.approx(106_752, abs=0.01)
    assert kept.use_view["idle"] * 24 == pytest.approx(19_680, abs=0.01)
    assert kept.use_view["idle"] / kept.total_usd_per_h == pytest.approx(0.184, abs=0.0005)
    assert kept.usd_per_mtok_output == pytest.approx(0.64, abs=0.005)
    handed_over = deepseek([278, 73], [278, 73], hours=(18, 6))
    assert handed_over.total_usd_per_h * 24 == pytest.approx(87_072, abs=0.01)
    assert handed_over.use_view["idle"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("headroom", "replicas"), [(0.0, 7), (0.20, 8), (0.25, 8), (0.30, 9)])
def test_littles_law_sizing(headroom, replicas):
    assert replicas_for(100, replica_rps(32, 2.0), headroom=headroom) == replicas
    assert replicas_for(100, replica_rps(32, 2.0), headroom=headroom, spare=1) == replicas + 1


@pytest.mark.parametrize("n", [2, 4, 12])
def test_four_hours_at_one_replica(n):
    hours, night = (20, 4), [0.5 * n, 0.5]
    always, down = ([n, n], [n, 1])
    run = activity(busy=0.5)

    def total(kind, held, price):
        return bill(
            deployment(replicas=n), offer(kind, price, term_months=12), FREE, NO_WEEKS, run,
            Capacity(saturation_rps=1.0, knee_rps=0.9), schedule(held, load=night, asked=down, hours=hours),
        )  # fmt: skip

    kept, scaled = (total(OfferKind.ON_DEMAND, held, 3.0) for held in (always, down))
    saved = 1 - scaled.paid_gpus / kept.paid_gpus
    assert saved == pytest.approx(4 / 24 * (n - 1) / n)
    assert saved <= 0.167
    assert 1 - scaled.total_usd_per_h / kept.total_usd_per_h == pytest.approx(saved)
    assert kept.reclaimable[0].scale_down_usd_per_h == pytest.approx(kept.total_usd_per_h - scaled.total_usd_per_h)

    kept, scaled = (total(OfferKind.RESERVED, held, 3.0) for held in (always, down))
    assert scaled.total_usd_per_h == pytest.approx(kept.total_usd_per_h)
    assert kept.reclaimable[0].scale_down_usd_per_h == pytest.approx(0.0)
    assert kept.reclaimable[0].backfill_usd_per_h == pytest.approx(kept.use_view["idle"])

    kept, scaled = (total(OfferKind.OWNED, held, 280_000) for held in (always, down))
    energy = [next(line.usd_per_h for line in b.lines if line.name == "energy") for b in (kept, scaled)]
    assert kept.total_usd_per_h - scaled.total_usd_per_h == pytest.approx(energy[0] - energy[1])
    assert energy[0] > energy[1]
    assert kept.reclaimable[0].scale_down_usd_per_h == pytest.approx(energy[0] - energy[1])
    # The night is idle whether or not the replicas ran: the nodes are paid, and another replica could use them.
    assert scaled.row("capital").idle == pytest.approx(kept.row("capital").idle)
    assert scaled.use_view["stranded"] == 0


def test_four_hours_at_one_replica_pay_for_one_start():
    """Eleven nodes take 7 minutes to answer in the morning: 1.28 of the 44 node-hours that the night saves."""
    priced = bill(
        deployment(replicas=12), offer(OfferKind.ON_DEMAND, 3.0), replace(FREE, instance_start_s=420), NO_WEEKS,
        activity(busy=0.5), Capacity(saturation_rps=1.0, knee_rps=0.9),
        schedule([12, 1], load=[6, 0.5], asked=[12, 1], hours=(20, 4)),
    )  # fmt: skip
    start = next(line for line in priced.lines if line.name == "start-up")
    assert start.usd_per_h * 24 == pytest.approx(11 * 8 * 7 / 60 * 3.0)
    assert start.usd_per_h * 24 / (44 * 8 * 3.0) == pytest.approx(1.283 / 44, rel=1e-3)
    assert start.split.waste == pytest.approx(start.usd_per_h)
    assert any("7 min" in note and "$11" in note for note in priced.notes)


def test_half_a_node_is_stranded_until_a_second_replica_uses_it():
    owned, run = offer(OfferKind.OWNED, 280_000), activity(gpus=4)
    one = bill(deployment(tensor=4), owned, FREE, NO_WEEKS, run, FULL, schedule([1]))
    two = bill(deployment(tensor=4), owned, FREE, NO_WEEKS, run, FULL, schedule([2]))
    assert one.matrix["capital"]["stranded"] == pytest.approx(one.capital_usd_per_h / 2)
    assert two.matrix["capital"]["stranded"] == 0
    assert two.capital_usd_per_h == pytest.approx(one.capital_usd_per_h)


def test_three_gpu_replicas_strand_two_of_a_node():
    priced = bill(
        deployment(tensor=3), offer(OfferKind.OWNED, 280_000), FREE, NO_WEEKS, activity(gpus=3), FULL, schedule([4])
    )
    assert priced.purchase_units == 2
    assert priced.gpus.stranded == pytest.approx(4)


def test_a_year_of_electricity_at_constant_draw():
    constant = replace(H100, idle_w=1000, decode_w=1000, prefill_w=1000)  # 8 kW of GPUs beside 2.2 kW of chassis
    priced = bill(
        deployment(accelerator=constant), offer(OfferKind.OWNED, 280_000), FREE, NO_WEEKS, activity(busy=0.4), FULL,
        schedule([1], load=[0.3]),
    )  # fmt: skip
    energy = next(line.usd_per_h for line in priced.lines if line.name == "energy")
    assert priced.it_watts == pytest.approx(10_200)
    assert energy * 8760 == pytest.approx(10_494, abs=1)
    assert priced.operational_usd_per_h == pytest.approx(energy)


@pytest.mark.parametrize(("peak_to_average", "share"), [(2.8, 0.36), (1.7, 0.59)])
def test_static_peak_sizing_caps_utilisation(peak_to_average, share):
    # Two hours a day at the peak of 100 replicas, the rest level, averaging peak / ratio.
    peak = 100.0
    rest = (24 * peak / peak_to_average - 2 * peak) / 22
    load = [peak, rest]
    priced = bill(
        deployment(), offer(OfferKind.RESERVED, 2.5, term_months=12), FREE, NO_WEEKS, activity(), FULL,
        schedule([100, 100], load=load, asked=load, hours=(2, 22)),
    )  # fmt: skip
    assert priced.use_view["useful"] / priced.total_usd_per_h == pytest.approx(share, abs=0.005)
    assert priced.use_view["idle"] / priced.total_usd_per_h == pytest.approx(1 - share, abs=0.005)


def test_fixed_rate_over_peak_throughput_is_the_special_case():
    """InferenceX: $/Mtoken = $/GPU-h x 1e6 / (output tokens/s/GPU x 3,600); utilisation 1, no engineering."""
    rate, output = 12.0, 340
    tokens_per_s_per_gpu = rate * output / 8
    priced = bill(
        deployment(), offer(OfferKind.ON_DEMAND, 1.73), FREE, NO_WEEKS, activity(rate=rate, output=output),
        Capacity(saturation_rps=rate, knee_rps=rate), schedule([5], load=[5 * rate]),
    )  # fmt: skip
    assert priced.usd_per_mtok_output == pytest.approx(1.73 * 1e6 / (tokens_per_s_per_gpu * 3600), rel=1e-12)
    assert priced.opportunity_usd_per_h == pytest.approx(0.0, abs=1e-9)


def test_input_and_output_prices_times_volumes_return_the_total():
    priced = bill(
        deployment(), offer(OfferKind.ON_DEMAND, 2.0), FREE, ENGINE, activity(rate=3.0), FULL,
        schedule([4], load=[3.0]),
    )  # fmt: skip
    by_token, volumes = priced.usd_per_mtok_by_gpu_time, priced.volumes
    assert by_token.cached is None
    paid = (by_token.input * volumes.prompt_tokens_per_h + by_token.output * volumes.output_tokens_per_h) / 1e6
    assert paid == pytest.approx(priced.total_usd_per_h)
    assert by_token.output * volumes.output_tokens_per_h / 1e6 == pytest.approx(0.75 * priced.total_usd_per_h)


def test_cached_input_is_priced_by_the_time_it_takes_to_attend_to_it():
    half = replace(activity(rate=3.0), cached_prompt_tokens=3 * 3600 * 500, cached_prefill_share=0.1)
    priced = bill(deployment(), offer(OfferKind.ON_DEMAND, 2.0), FREE, ENGINE, half, FULL, schedule([4], load=[3.0]))
    by_token, volumes = priced.usd_per_mtok_by_gpu_time, priced.volumes
    assert volumes.cached_prompt_tokens_per_h == pytest.approx(volumes.prompt_tokens_per_h / 2)
    assert by_token.cached / by_token.input == pytest.approx(0.1 / 0.9)
    new = volumes.prompt_tokens_per_h - volumes.cached_prompt_tokens_per_h
    paid = by_token.input * new + by_token.cached * volumes.cached_prompt_tokens_per_h
    assert paid + by_token.output * volumes.output_tokens_per_h == pytest.approx(priced.total_usd_per_h * 1e6)


def test_reserved_money_paid_upfront_costs_its_interest():
    upfront = offer(OfferKind.RESERVED, 2.0, term_months=36, upfront_share=0.25)
    plain = offer(OfferKind.RESERVED, 2.0, term_months=36)
    paid, unpaid = (bill(deployment(), o, FREE, NO_WEEKS, activity(), FULL, schedule([1])) for o in (upfront, plain))
    # 0.25 x 3 x 0.09 / (1 - 1.09^-3) - 0.25 = 4.63% more
    assert paid.total_usd_per_h / unpaid.total_usd_per_h == pytest.approx(1.0463, abs=5e-5)


def test_headroom_has_two_causes():
    # One replica saturates at 2 requests/s and keeps its limits up to 1; 3 requests/s, 4 + 1 replicas asked for.
    priced = bill(
        deployment(), offer(OfferKind.ON_DEMAND, 1.0), FREE, NO_WEEKS, activity(),
        Capacity(saturation_rps=2.0, knee_rps=1.0), schedule([6], load=[3.0], asked=[5]),
    )  # fmt: skip
    gpus = priced.gpus
    assert gpus.useful == pytest.approx(1.5 * 8)
    assert (gpus.latency, gpus.reserve, gpus.idle) == pytest.approx((1.5 * 8, 2 * 8, 8))
    assert priced.headroom_latency_usd_per_h == pytest.approx(12.0)
    assert priced.headroom_reserve_usd_per_h == pytest.approx(16.0)
