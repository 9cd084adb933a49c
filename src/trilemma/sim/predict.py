"""One configuration of a closed-loop benchmark to TTFT, TPOT and tokens/s/GPU with intervals."""

from dataclasses import dataclass

import numpy as np

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
from trilemma.sim.benchmark import BenchmarkResult, closed_loop, uniform_lengths
from trilemma.sim.interval import Estimate, around
from trilemma.sim.limits import POLICIES, limits_of
from trilemma.sim.replica import EngineLimits, Run, simulate
from trilemma.workload.requests import Requests
from trilemma.workload.streams import stream

OPEN_LOOP_REQUESTS = 2000
MOST_CLIENTS = 500_000  # ten requests each: about a gigabyte
LEAST_SEATS = 256  # measured servers raised max_num_seqs to the concurrency, seldom below this
# Scripts of published TensorRT-LLM runs set kv_cache_config.dtype: fp8 for FP8 and FP4 checkpoints alike.
MEASURED_KV_BYTES = {"trtllm": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One configuration of one replica: parallelism, lengths uniform in [ratio_low x L, L], closed-loop clients.

    `kv_bytes_per_element` None: what checkpoints of the precision ask for, under TensorRT-LLM what its published runs
    of quantised checkpoints were configured with (FP8). Knobs None: the engine's defaults.
    """

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
    kv_bytes_per_element: float | None = None
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
    ranks = 1 if c.engine.name == "sglang" else c.dp  # SGLang's flag counts the seats of all ranks
    seats = c.max_num_seqs or max(LEAST_SEATS, -(-c.concurrency // ranks))
    kv_bytes = precision.kv_bytes_per_element
    if precision.quantised:
        kv_bytes = MEASURED_KV_BYTES.get(c.engine.name, kv_bytes)
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
        kv_bytes_per_element=c.kv_bytes_per_element or kv_bytes,
        speculative_mtp=c.speculative_mtp,
    )


def prepare(c: Configuration, deployment: Deployment, efficiency: Efficiency) -> tuple[StepModel, EngineLimits]:
    """The latency model and the scheduler of a configuration, output lengths forced as benchmarks do; UnsupportedError
    says why it cannot run."""
    if c.concurrency > MOST_CLIENTS:
        raise UnsupportedError(f"{c.concurrency:,} clients are more than the {MOST_CLIENTS:,} that are simulated")
    if c.speculative_mtp and not c.model.mtp_layers:
        raise UnsupportedError(f"{c.model.name} has no multi-token prediction layers in the catalogue")
    if not c.engine.runs_on(c.accelerator):
        raise UnsupportedError(f"{c.engine.title} does not run on {c.accelerator.vendor}")
    held = memory(deployment)
    if not held.fits:
        raise UnsupportedError(f"does not fit: {why_not(deployment)}")
    return StepModel(deployment, efficiency), limits_of(deployment, held.usable_blocks, ignore_eos=True)


def play(c: Configuration, efficiency: Efficiency, *, seed: int = 0) -> tuple[BenchmarkResult, StepModel]:
    """Simulate the configuration's closed loop."""
    steps, limits = prepare(c, deployment_of(c), efficiency)
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
        seed=seed,
    )
    if not result.run.timings.finished.any():
        raise UnsupportedError("no request fits the KV cache")
    return result, steps


def predict_closed_loop(c: Configuration, *, seed: int = 0) -> Prediction:
    """Simulate `concurrency` clients and put intervals around the means; UnsupportedError where it cannot be."""
    efficiency = efficiency_for(c.accelerator, c.engine.name)
    result, steps = play(c, efficiency, seed=seed)
    return _prediction(c, steps, result.run, (result.ttft_s, result.tpot_s, result.output_tokens_per_s))


def predict_open_loop(c: Configuration, rate_per_s: float, *, seed: int = 0) -> Prediction:
    """Simulate Poisson arrivals at `rate_per_s` requests/s on one replica; the configuration's clients are ignored."""
    efficiency = efficiency_for(c.accelerator, c.engine.name)
    steps, limits = prepare(c, deployment_of(c), efficiency)
    n = OPEN_LOOP_REQUESTS
    requests = Requests(
        arrival_s=np.cumsum(stream(seed, "predict.arrivals").exponential(1 / (rate_per_s / c.dp), n)),
        prompt_tokens=uniform_lengths(c.isl, c.ratio_low, n, seed=seed, name="benchmark.prompt"),
        output_tokens=uniform_lengths(c.osl, c.ratio_low, n, seed=seed, name="benchmark.output"),
    )
    run = simulate(requests, steps.table(), limits)
    timings = run.timings
    done = timings.finished
    if not done.any():
        raise UnsupportedError("no request fits the KV cache")
    tpot = timings.tpot_s[done & (timings.output_tokens > 1)]
    tokens_per_s = float(timings.output_tokens[done].sum()) / float(np.nanmax(timings.done_s)) * c.dp
    ttft_s = float(timings.ttft_s[done].mean()) + efficiency.engine.request_s
    return _prediction(c, steps, run, (ttft_s, float(tpot.mean()) if tpot.size else float("nan"), tokens_per_s))


def _prediction(c: Configuration, steps: StepModel, run: Run, means: tuple[float, float, float]) -> Prediction:
    deployment, efficiency = steps.deployment, steps.efficiency
    engine, source = efficiency.engine, steps.source
    batch = max(1, round(run.mean_running))
    context = round(batch * (c.isl + c.osl / 2) * (1 + c.ratio_low) / 2)
    chunk = min(c.isl, deployment.rank_knobs.max_num_batched_tokens)
    ttft_s, tpot_s, tokens_per_s = means
    return Prediction(
        ttft_s=around(ttft_s, engine.ttft_spread, source),
        tpot_s=around(tpot_s, engine.tpot_spread, source),
        tok_s_per_gpu=around(tokens_per_s / deployment.gpus, engine.throughput_spread, source),
        decode=steps.terms(decodes=batch, context_sum=context, sampling=batch),
        prefill=steps.terms(prefill_tokens=chunk, pair_sum=chunk * (chunk + 1), sampling=1),
        source=source,
        note="; ".join(approximations(steps) + _taken_for_granted(c, deployment)),
    )


def approximations(steps: StepModel) -> tuple[str, ...]:
    """What a reader of simulated latencies should know about where they are not first-hand."""
    engine, model = steps.deployment.engine, steps.deployment.model
    domain = steps.deployment.accelerator.link_domain_gpus
    far = (
        f"collectives cross link domains of {domain} GPUs: their time is not measured" if steps.crosses_domains else ""
    )
    rules = "" if engine.name in POLICIES else f"scheduled by vLLM's rules: those of {engine.name} are not known"
    read = f"{model.name}: {model.note}" if model.note else ""
    return tuple(text for text in (steps.efficiency.note, far, rules, read) if text)


def _taken_for_granted(c: Configuration, deployment: Deployment) -> tuple[str, ...]:
    """What a configuration leaves open and a prediction fills in."""
    quietly_fp8 = c.kv_bytes_per_element is None and deployment.kv_bytes_per_element < c.precision.kv_bytes_per_element
    said = {
        "KV cache in FP8, as in published runs of quantised checkpoints": quietly_fp8,
        "one attention-DP rank with its share of the load stands for all": c.dp > 1,
    }
    return tuple(text for text, holds in said.items() if holds)
