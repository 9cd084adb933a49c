"""Small accelerators, engines and precisions to deploy the shipped models on."""

import tomllib
from importlib.resources import files

import pytest

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.engine import Effort, Engine, SchedulerDefaults, Topology
from trilemma.catalogue.figure import Figure, Source
from trilemma.catalogue.models import read_model_rows
from trilemma.catalogue.precision import Precision, Role
from trilemma.deployment.spec import Deployment, Parallelism, SchedulerKnobs
from trilemma.units import GIB

LINEAR = frozenset({Role.ATTENTION, Role.MLP, Role.SHARED_EXPERT, Role.EXPERT})


@pytest.fixture(scope="session")
def models():
    """Every shipped model, by name and by alias."""
    text = files("trilemma.catalogue").joinpath("data/models.toml").read_text(encoding="utf-8")
    rows = read_model_rows(tomllib.loads(text)["models"], where="models.toml")
    return {name: model for model in rows.values() for name in (model.name, *model.aliases)}


@pytest.fixture(scope="session")
def precision():
    """A number format by name."""

    def build(name):
        bits, quantised = {
            "bf16": (16.0, frozenset()),
            "fp8": (8.0, LINEAR),
            "int4": (4.125, LINEAR),
            "mxfp4": (4.25, frozenset({Role.EXPERT})),
            "nvfp4": (4.5, frozenset({Role.MLP, Role.EXPERT})),
        }[name]
        return Precision(
            name=name,
            bits_per_weight=bits,
            quantised=quantised,
            compute="bf16",
            fallback_compute=None,
            kv_bytes_per_element=2.0,
            note="",
            reference="",
        )

    return build


def engine(name="vllm", framework_bytes=1.6e9):
    weeks = Figure(value=2, low=1, high=4, source=Source.GUESS, as_of="2026-11", reference="test")
    return Engine(
        name=name,
        title=name,
        version="1",
        block_tokens=16,
        gpu_memory_utilization=0.92,
        framework_bytes=framework_bytes,
        scheduler_defaults=(SchedulerDefaults(min_hbm_bytes=0, max_num_batched_tokens=8192, max_num_seqs=256),),
        effort={topology: Effort(weeks=weeks, upkeep_scale=weeks) for topology in Topology},
        reference="test",
    )


def accelerator(hbm_bytes, link_domain_gpus=8):
    return Accelerator(
        name="gpu",
        title="GPU",
        vendor="test",
        family="hopper",
        hbm_bytes=hbm_bytes,
        hbm_bytes_per_s=3.35e12,
        flops={"bf16": 9.89e14},
        link_bytes_per_s=4.5e11,
        link_domain_gpus=link_domain_gpus,
        network_bytes_per_s=5e10,
        gpus_per_node=8,
        purchase_unit_gpus=8,
        tdp_w=700,
        idle_w=100,
        decode_w=500,
        prefill_w=700,
        chassis_w=4000,
        node_max_w=10000,
    )


@pytest.fixture(scope="session")
def deploy(models, precision):
    """A deployment of a shipped model on GPUs of `gib` GiB; the rest as keywords."""

    def build(name, weights="bf16", gib=79.18, *, engine_name="vllm", framework=1.6e9, kv=2.0, mtp=False, **more):
        knobs = {"max_num_batched_tokens": 8192, "max_num_seqs": 256}
        knobs |= {key: more.pop(key) for key in list(more) if key in SchedulerKnobs.__slots__}
        return Deployment(
            model=models[name],
            precision=precision(weights),
            accelerator=accelerator(gib * GIB),
            engine=engine(engine_name, framework),
            parallelism=Parallelism(**more),
            knobs=SchedulerKnobs(**knobs),
            kv_bytes_per_element=kv,
            speculative_mtp=mtp,
        )

    return build
