"""One configuration of a closed-loop benchmark to TTFT, TPOT and tokens/s/GPU with intervals."""

from dataclasses import dataclass

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.efficiency import Efficiency, efficiency_for
from trilemma.catalogue.engine import Engine
from trilemma.catalogue.figure import Source
from trilemma.catalogue.model import Model
from trilemma.catalogue.precision import Precision
from trilemma.deployment.memory import memory, why_not
from trilemma.deployment.spec import Deployment, Parallelism, SchedulerKnobs
from trilemma.errors import UnsupportedError
from trilemma.latency.step import StepModel, StepTerms
from trilemma.sim.benchmark import BenchmarkResult, closed_loop
from trilemma.sim.interval import Estimate, around
from trilemma.sim.replica import EngineLimits

LEAST_SEATS = 256  # measured servers raised max_num_seqs to the concurrency, seldom below this


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One benchmarked configuration: parallelism of one replica, lengths uniform in [ratio_low x L, L]."""

    model: Model
    accelerator: Accelerator
    engine: Engine
    precision: Precision
    isl: int
    osl: int
    concurrency: int
    tp: int = 1
    dp: int = 1
    ep: int = 1
    pp: int = 1
    ratio_low: float = 1.0
    speculative_mtp: bool = False
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Mean TTFT and TPOT in seconds and output tokens per second and GPU of one replica, what a decode and a prefill
    step are made of, where the numbers come from and what a reader should know."""

    ttft_s: Estimate
    tpot_s: Estimate
    tok_s_per_gpu: Estimate
    decode: StepTerms
    prefill: StepTerms
    source: Source
    note: str


def deployment_of(c: Configuration) -> Deployment:
    """The configuration as a deployment: engine defaults for what a benchmark row does not say."""
    precision = c.precision.for_model(is_moe=c.model.is_moe)
    defaults = c.engine.scheduler_for(c.accelerator.hbm_bytes, c.accelerator.family)
    budget = c.max_num_batched_tokens or defaults.max_num_batched_tokens
    per_rank = -(-c.concurrency // c.dp)
    seats = c.max_num_seqs or max(LEAST_SEATS, per_rank)
    return Deployment(
        model=c.model,
        precision=precision,
        accelerator=c.accelerator,
        engine=c.engine,
        parallelism=Parallelism(tensor=c.tp, data=c.dp, expert=c.ep, pipeline=c.pp),
        knobs=SchedulerKnobs(
            max_num_batched_tokens=budget,
            max_num_seqs=min(seats, budget),
            block_tokens=c.engine.block_tokens,
            gpu_memory_utilization=c.engine.gpu_memory_utilization,
            max_model_len=c.isl + c.osl,
        ),
        kv_bytes_per_element=precision.kv_bytes_per_element,
        speculative_mtp=c.speculative_mtp,
    )


def play(c: Configuration, deployment: Deployment, efficiency: Efficiency) -> tuple[BenchmarkResult, StepModel]:
    """Simulate the configuration; UnsupportedError says why it cannot be."""
    if c.speculative_mtp and not c.model.mtp_layers:
        raise UnsupportedError(f"{c.model.name} has no multi-token prediction layers in the catalogue")
    held = memory(deployment)
    if not held.fits:
        raise UnsupportedError(f"does not fit: {why_not(deployment)}")
    steps = StepModel(deployment, efficiency)
    knobs = deployment.knobs
    limits = EngineLimits(
        max_num_batched_tokens=knobs.max_num_batched_tokens,
        max_num_seqs=knobs.max_num_seqs,
        block_tokens=knobs.block_tokens,
        kv_blocks=held.usable_blocks,
    )
    result = closed_loop(
        steps.table(),
        limits,
        efficiency.engine,
        isl=c.isl,
        osl=c.osl,
        concurrency=c.concurrency,
        ratio_low=c.ratio_low,
        ranks=c.dp,
        tokens_per_step=efficiency.engine.mtp_tokens if c.speculative_mtp else 1.0,
    )
    if result.run.refused == len(result.run.timings):
        raise UnsupportedError("no request fits the KV cache")
    return result, steps


def predict(c: Configuration) -> Prediction:
    """Simulate the configuration and put intervals around it; UnsupportedError where it cannot be predicted."""
    efficiency = efficiency_for(c.accelerator, c.engine.name)
    deployment = deployment_of(c)
    result, steps = play(c, deployment, efficiency)
    engine, source = efficiency.engine, efficiency.source
    batch = max(1, round(min(c.concurrency / c.dp, result.run.mean_running)))
    context = round(batch * (c.isl + c.osl / 2) * (1 + c.ratio_low) / 2)
    chunk = min(c.isl, deployment.knobs.max_num_batched_tokens)
    notes = [efficiency.note]
    if c.engine.name != "vllm":
        notes.append(f"scheduled by vLLM's rules with {c.engine.name}'s measured overheads")
    return Prediction(
        ttft_s=around(result.ttft_s, engine.ttft_spread, source),
        tpot_s=around(result.tpot_s, engine.tpot_spread, source),
        tok_s_per_gpu=around(result.output_tokens_per_s / deployment.gpus, engine.throughput_spread, source),
        decode=steps.terms(decodes=batch, context_sum=context, sampling=batch),
        prefill=steps.terms(prefill_tokens=chunk, pair_sum=chunk * (chunk + 1), sampling=1),
        source=source,
        note="; ".join(x for x in notes if x),
    )
