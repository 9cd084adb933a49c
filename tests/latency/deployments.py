"""Deployments of catalogue rows: one of every kind of architecture, on accelerators of every family."""

from functools import cache

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.deployment.spec import Deployment, Parallelism, SchedulerKnobs
from trilemma.latency.columns import Parts, assemble
from trilemma.latency.constants import efficiency_of
from trilemma.latency.mixers import Typical
from trilemma.latency.step import StepModel

CATALOGUE = load_catalogue()

# name: model, accelerator, engine, precision, TP, attention DP, expert groups
KINDS = {
    "dense": ("meta-llama/Meta-Llama-3.1-70B", "h100_sxm", "vllm", "fp8", 4, 1, 1),
    "dense_small": ("Qwen/Qwen3-8B", "l4", "vllm", "bf16", 1, 1, 1),
    "dense_4bit": ("meta-llama/Meta-Llama-3.1-8B", "a100_sxm", "trtllm", "int4", 1, 1, 1),
    "moe": ("Qwen/Qwen3-235B-A22B", "h200_sxm", "trtllm", "fp8", 4, 1, 4),
    "moe_4bit": ("openai/gpt-oss-120b", "h100_sxm", "vllm", "mxfp4", 2, 1, 1),
    "mla": ("deepseek-ai/DeepSeek-V3", "b200_sxm", "sglang", "nvfp4", 8, 1, 8),
    "mla_attention_dp": ("deepseek-ai/DeepSeek-V3", "h200_sxm", "sglang", "fp8", 1, 8, 8),
    "sparse_mla": ("deepseek-ai/DeepSeek-V3.2", "b300_sxm", "vllm", "fp8", 8, 1, 1),
    "compressed": ("deepseek-ai/DeepSeek-V4-Flash", "gb200", "vllm", "mxfp4", 4, 1, 1),
    "window": ("google/gemma-3-27b-it", "mi300x", "vllm", "bf16", 1, 1, 1),
    "window_alone": ("mistralai/Mistral-7B-v0.1", "l40s", "vllm", "fp8", 1, 1, 1),
    "linear": ("Qwen/Qwen3.5-397B-A17B", "b200_sxm", "sglang", "fp8", 8, 1, 1),
    "mamba": ("nvidia/Nemotron-H-56B-Base-8K", "mi355x", "sglang", "bf16", 4, 1, 1),
}


def deployment(
    model: str,
    accelerator: str,
    engine: str = "vllm",
    precision: str = "bf16",
    tp: int = 1,
    dp: int = 1,
    ep: int = 1,
    *,
    pp: int = 1,
    kv_bytes_per_element: float = 2.0,
    budget: int = 2048,
    seqs: int = 64,
    mtp: bool = False,
) -> Deployment:
    architecture = CATALOGUE.model(model)
    return Deployment(
        model=architecture,
        precision=CATALOGUE.precision(precision, model=architecture),
        accelerator=CATALOGUE.accelerator(accelerator),
        engine=CATALOGUE.engine(engine),
        parallelism=Parallelism(tensor=tp, data=dp, expert=ep, pipeline=pp),
        knobs=SchedulerKnobs(max_num_batched_tokens=budget, max_num_seqs=seqs),
        kv_bytes_per_element=kv_bytes_per_element,
        speculative_mtp=mtp,
    )


def model_of(d: Deployment, **typical: float) -> StepModel:
    return StepModel(d, efficiency_of(d), Typical(**typical))


def steps(*args, typical: dict[str, float] | None = None, **kwargs) -> StepModel:
    return model_of(deployment(*args, **kwargs), **(typical or {}))


def parts_of(model: StepModel) -> Parts:
    """What the table is rounded from, before the model's stretch."""
    return assemble(model.columns, model.efficiency.engine)


@cache
def steps_of(kind: str) -> StepModel:
    return steps(*KINDS[kind])


@cache
def table_of(kind: str):
    return steps_of(kind).table()
