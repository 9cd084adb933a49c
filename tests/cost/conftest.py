"""A small fleet of H100 nodes that the tests of this room change to their need."""

from types import SimpleNamespace

import numpy as np
import pytest

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.economics import Economics
from trilemma.catalogue.engine import Effort, Engine, SchedulerDefaults, Topology
from trilemma.catalogue.figure import Figure, Source
from trilemma.catalogue.model import Model
from trilemma.catalogue.offer import Offer, OfferKind
from trilemma.catalogue.precision import Precision
from trilemma.deployment.spec import Deployment, Parallelism, SchedulerKnobs
from trilemma.metrics.activity import Activity, Capacity, Schedule


def figure(value, source=Source.VENDOR, as_of="2026-09", low=None, high=None):
    return Figure(
        value=value, low=value if low is None else low, high=value if high is None else high, source=source,
        as_of=as_of, reference="test",
    )  # fmt: skip


def effort(*, node, multi_node, single_gpu=None):
    """Weeks by topology, all a guess; a single GPU as a node where nothing is said, upkeep the usual."""
    weeks = {
        Topology.SINGLE_GPU: node if single_gpu is None else single_gpu, Topology.NODE: node,
        Topology.MULTI_NODE: multi_node, Topology.DISAGGREGATED: multi_node,
    }  # fmt: skip
    return {
        topology: Effort(weeks=figure(value, Source.GUESS), upkeep_scale=figure(1, Source.GUESS))
        for topology, value in weeks.items()
    }


@pytest.fixture
def fleet():
    """Keyword arguments of `bill` by attribute: two replicas of 4 H100s on demand, half loaded, tuned in 2 weeks."""
    accelerator = Accelerator(
        name="h100_sxm", title="H100 SXM", vendor="nvidia", family="hopper", hbm_bytes=80e9, hbm_bytes_per_s=3.35e12,
        flops={"bf16": 989e12}, link_bytes_per_s=450e9, link_domain_gpus=8, network_bytes_per_s=50e9, gpus_per_node=8,
        purchase_unit_gpus=8, tdp_w=700, idle_w=110, decode_w=480, prefill_w=660, chassis_w=2200, node_max_w=10_200,
    )  # fmt: skip
    engine = Engine(
        name="vllm", title="vLLM", version="0.33", block_tokens=16, gpu_memory_utilization=0.92, framework_bytes=2e9,
        scheduler_defaults=(SchedulerDefaults(min_hbm_bytes=0, max_num_batched_tokens=8192, max_num_seqs=256),),
        effort=effort(node=2, multi_node=10), reference="test",
    )  # fmt: skip
    economics = Economics(
        horizon_months=36, discount_rate=0.09, residual_share=0.25, capex_uplift=0.25, pue=1.35,
        electricity_usd_per_kwh=0.087, colocation_usd_per_kw_month=184, maintenance_share_per_year=0.05,
        insurance_share_per_year=0.01, operations_fte_per_node=0.02, engineer_usd_per_year=300_000, upkeep_fte=0.2,
        model_life_months=9, benchmark_gpu_hours=200, grid_gco2_per_kwh=380, instance_start_s=420,
        quantisation_weeks=0, checkpoint_check_weeks=0, spot_lost_work_s=0,
    )  # fmt: skip
    bf16 = Precision(
        name="bf16", bits_per_weight=16, quantised=frozenset(), compute="bf16", fallback_compute=None,
        kv_bytes_per_element=2, note="", reference="",
    )  # fmt: skip
    deployment = Deployment(
        model=Model(name="llama-70b", hidden=8192, vocab=128256, blocks=()), precision=bf16, accelerator=accelerator,
        engine=engine, parallelism=Parallelism(tensor=4), replicas=2,
        knobs=SchedulerKnobs(max_num_batched_tokens=8192, max_num_seqs=256),
    )  # fmt: skip
    offer = Offer(
        name="h100-on-demand", accelerator="h100_sxm", kind=OfferKind.ON_DEMAND,
        price=figure(3.29, low=1.99, high=6.16), purchase_unit_gpus=8, market="market median",
    )  # fmt: skip
    activity = Activity(
        span_s=3600, rate_rps=2.0, held_gpu_s=8 * 3600, prefill_gpu_s=3600, decode_gpu_s=4 * 3600,
        useful_tokens=9_900_000, late_tokens=60_000, recomputed_tokens=40_000, prompt_tokens_in_limits=6_600_000,
        output_tokens_in_limits=3_300_000, requests=7200, requests_in_limits=7150,
    )  # fmt: skip
    schedule = Schedule(
        seconds=np.array([12.0, 12.0]) * 3600, load_rps=np.array([2.0, 1.0]), held_replicas=np.array([2.0, 2.0]),
        asked_replicas=np.array([2.0, 1.0]), reason="two halves of a day",
    )  # fmt: skip
    return SimpleNamespace(
        deployment=deployment, offer=offer, economics=economics, engine=engine, activity=activity,
        capacity=Capacity(saturation_rps=2.5, knee_rps=1.8), schedule=schedule,
    )  # fmt: skip
