"""Published throughput maxima against predictions: TensorRT-LLM's tables, MLPerf Inference offline, static batches.

    python benchmarks/ground/throughput.py THROUGHPUT_MEASURED.csv [--plain] [--json] [--rows ROWS.csv]

Four kinds of rows, each simulated the way it was taken, all requests at time 0:

- tables of TensorRT-LLM 1.0 and 1.2: `trtllm-bench throughput`, fixed lengths, the numbers of requests its pages name,
  max_batch_size and max_num_tokens as trtllm-bench sets them from memory and lengths, 95% of free memory for KV, FP8
  KV for quantised checkpoints. MoE rows of 1.0 ran with attention DP over the GPUs (their
  page says so; EP is not stated), those of 1.2 say DEP.
- tables of TensorRT-LLM 0.9 (April 2024): one static batch; and first-token latencies of one prompt.
- MLPerf 5.1 offline, closed division: TP is not published, so the best of TP 1 to 8; lengths drawn around the mean
  output that the row states and the mean input that MLCommons' task descriptions state.
- Argonne's LLM-Inference-Bench: static batches on engines of 2024, good for shape: compared after dividing by the
  median ratio of the same engine, accelerator and model.

Attention is made affine around each row's mean lengths. Steps are stretched by what measured closed-loop runs of like
deployments say at the row's number of running requests, as predictions are (--plain: they are not).

Rows whose notes say RECONSTRUCTED, assumed, inferred or CHECK_LITTLE are left out.
"""

import math
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from measured import Row, arguments, grouped, number, read_csv, show, write_rows

from trilemma.catalogue.catalogue import Catalogue, load_catalogue
from trilemma.deployment.memory import memory, why_not
from trilemma.deployment.spec import Deployment, Parallelism, SchedulerKnobs
from trilemma.deployment.weights import active_params, total_params
from trilemma.errors import TrilemmaError, UnsupportedError
from trilemma.latency.constants import efficiency_of
from trilemma.latency.formats import compute_format
from trilemma.latency.mixers import Typical
from trilemma.latency.step import StepModel
from trilemma.sim.engine import EngineLimits, Policy
from trilemma.sim.limits import limits_of
from trilemma.sim.neighbours import Traits, load_neighbours, traits_of
from trilemma.sim.replica import simulate
from trilemma.workload.requests import Requests

BROKEN = ("RECONSTRUCTED", "assumed", "inferred", "CHECK_LITTLE")
MOST_SEQS, MOST_TOKENS = 8192, 32_768  # what tables of step times reach
BENCH_SHARE = 0.95  # --kv_cache_free_gpu_mem_fraction of the published runs
# (ISL, OSL) -> requests of a run, as the pages of TensorRT-LLM 1.0 and 1.2 list them.
REQUESTS = {
    (128, 128): 30_000, (128, 2048): 3000, (128, 4096): 1500, (1000, 2000): 1500, (2048, 128): 3000,
    (2048, 2048): 1500, (5000, 500): 1500, (1000, 1000): 3000, (500, 2000): 3000, (20_000, 2000): 1000,
    (1024, 1024): 3000, (8192, 1024): 1500, (1024, 8192): 1500, (32_768, 1024): 1000, (1024, 32_768): 1000,
}  # fmt: skip
PRECISIONS = {"fp16": "bf16", "fp16/bf16": "bf16", "fp8": "fp8", "fp4": "nvfp4", "mxfp4": "mxfp4"}
MODELS = {
    "LLaMA 7B": "meta-llama/Llama-2-7b-hf", "LLaMA 70B": "meta-llama/Llama-2-70b-hf",
    "Mistral 7B": "mistralai/Mistral-7B-v0.1", "Mixtral 8x7B": "mistralai/Mixtral-8x7B-v0.1",
    "llama2-70b-99": "meta-llama/Llama-2-70b-hf", "llama2-70b-99.9": "meta-llama/Llama-2-70b-hf",
    "llama3.1-405b": "meta-llama/Llama-3.1-405B-Instruct", "llama3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
    "mixtral-8x7b": "mistralai/Mixtral-8x7B-v0.1", "deepseek-r1": "deepseek-ai/DeepSeek-R1-0528",
}  # fmt: skip
# Mean prompt and answer (where a row has none), and the longest of each, tokens. Answers as MLCommons' reference
# results state them (llama3.1-8b: 611 characters, cut at 128 tokens); prompts are not stated there: these are about
# what the data sets hold, and 10% more of them costs up to 10% of throughput.
LENGTHS = {
    "llama2-70b-99": (294, 294, 1024, 1024), "llama2-70b-99.9": (294, 294, 1024, 1024),
    "llama3.1-405b": (9400, 680, 20_000, 2000), "llama3.1-8b": (778, 128, 2540, 128),
    "mixtral-8x7b": (506, 145, 2048, 1024), "deepseek-r1": (800, 3880, 3136, 20_000),
}  # fmt: skip
ARGONNE_ENGINES = {"vLLM": "vllm", "TensorRT-LLM": "trtllm"}
ACCELERATORS = (
    ("RTX PRO 6000", "rtx_pro_6000"), ("GB300", "gb300"), ("GB200", "gb200"), ("B200", "b200_sxm"),
    ("H200-SXM", "h200_sxm"), ("H100-SXM", "h100_sxm"), ("MI300X", "mi300x"), ("MI325X", "mi325x"),
    ("MI355X", "mi355x"), ("L40S", "l40s"), ("A100", "a100_sxm"),
)  # fmt: skip
WHOLE_NAMES = {"H200": "h200_sxm", "H100": "h100_sxm", "Nvidia H100 GPU": "h100_sxm"}
NEVER = ("NVL", "GH200", "Virtualized")  # other hardware under a similar name
MLPERF_REQUESTS = 6000
MLPERF_KNOBS = ((2048, 2048), (2048, 8192))  # (seats, tokens a step) of which the better counts, as submitters tune
TENSOR = (1, 2, 4, 8)
PLAIN = "--plain" in sys.argv


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a row ran on; lengths are means. `data` attention-DP ranks."""

    model: str
    accelerator: str
    engine: str
    precision: str
    tensor: int
    data: int = 1
    expert: int = 1
    pipeline: int = 1

    @property
    def gpus(self) -> int:
        return self.tensor * self.data * self.pipeline


@cache
def _catalogue() -> Catalogue:
    return load_catalogue()


def accelerator_of(name: str) -> str:
    """The catalogue's name; UnsupportedError for hardware that it does not have."""
    if name in WHOLE_NAMES:
        return WHOLE_NAMES[name]
    found = {ours for theirs, ours in ACCELERATORS if theirs in name}
    if "GB200" in name or "GB300" in name:
        found -= {"b200_sxm"}
    if any(word in name for word in NEVER) or len(found) != 1:
        raise UnsupportedError(f"accelerator not in the catalogue: {name}")
    return found.pop()


@cache
def deployment_of(case: Case) -> Deployment:
    """The case with the largest scheduler that is tabulated; KV as published runs have it."""
    catalogue = _catalogue()
    model = catalogue.model(case.model)
    chip, engine = catalogue.accelerator(case.accelerator), catalogue.engine(case.engine)
    precision = catalogue.precision(case.precision, model=model)
    # gpt-oss asks for no KV format, and its page sets FP8 on Blackwell only.
    plain = not precision.quantised or ("gpt-oss" in case.model and chip.family == "hopper")
    kv = 2.0 if plain else 1.0
    return Deployment(
        model=model,
        precision=precision.for_model(is_moe=model.is_moe),
        accelerator=chip,
        engine=engine,
        parallelism=Parallelism(tensor=case.tensor, data=case.data, expert=case.expert, pipeline=case.pipeline),
        knobs=SchedulerKnobs(
            max_num_batched_tokens=MOST_TOKENS,
            max_num_seqs=MOST_SEQS,
            block_tokens=engine.block_tokens,
            gpu_memory_utilization=BENCH_SHARE,
        ),
        kv_bytes_per_element=kv,
    )


@cache
def usual_of(case: Case) -> StepModel:
    """The latency model at usual lengths."""
    deployment = deployment_of(case)
    return StepModel(deployment, efficiency_of(deployment))


@cache
def steps_of(case: Case, isl: int, osl: int, running: int = 0) -> StepModel:
    """The latency model around mean lengths; stretched as runs of like deployments are, unless `running`, the requests
    of the whole replica at once, is 0."""
    usual = usual_of(case)
    stretch = 1.0
    if running:
        traits = traits_of(usual.deployment, isl=isl, osl=max(1, osl), concurrency=running)
        stretch = math.exp(load_neighbours().correct(Traits.of([traits]))["tpot"].mean[0])
    typical = Typical(prompt_tokens=max(1, isl), context_tokens=max(1.0, isl + osl / 2))
    return StepModel(usual.deployment, usual.efficiency, typical, stretch=stretch, like=usual)


def limits_for(case: Case, *, seats: int, tokens: int, longest: int) -> EngineLimits:
    """The scheduler with its KV pool. UnsupportedError where the weights or one sequence do not fit."""
    deployment = deployment_of(case)
    knobs = replace(
        deployment.knobs, max_num_seqs=min(seats, tokens), max_num_batched_tokens=tokens, max_model_len=longest
    )
    deployment = replace(deployment, knobs=knobs)
    held = memory(deployment)
    if not held.fits:
        raise UnsupportedError(f"does not fit: {why_not(deployment)}")
    return limits_of(deployment, held.usable_blocks)


def bench_knobs(case: Case, isl: int, osl: int) -> tuple[int, int]:
    """(max_batch_size, max_num_tokens) that trtllm-bench chooses for these lengths.

    Its formula (tensorrt_llm/bench/build/tuning.py): what would fit if KV took 95% of the memory beside the weights,
    rounded up to a multiple of 32, 128 or 256.
    """
    deployment = deployment_of(case)
    model = deployment.model
    attention = next(b.attention for b in model.blocks if b.attention is not None)
    layers = sum(b.count for b in model.blocks if b.attention is not None)
    gpus = case.gpus
    weight_bytes = {"bf16": 2.0, "fp8": 1.0}.get(case.precision, 0.5)
    free_bytes = deployment.accelerator.hbm_bytes * gpus - total_params(model) * weight_bytes
    heads = max(case.tensor * case.data, attention.kv_heads or 1)
    token_bytes = 2 * layers * heads * (attention.head_dim or 128) * deployment.kv_bytes_per_element
    held = BENCH_SHARE * free_bytes / (token_bytes * (isl + osl))
    batch = min(held, 4096) / case.pipeline
    tokens = min(batch * (1 + isl / osl), 32_768)
    unit = 32 if batch < 256 else 128 if batch < 1024 else 256
    seats = unit * math.ceil(batch / unit)
    step = 256 if tokens < 4096 else 512 if tokens < 8192 else 1024
    return max(64, seats) if batch < 256 else seats, max(2048, step * math.ceil(tokens / step))


def play(case: Case, limits: EngineLimits, prompts: np.ndarray, outputs: np.ndarray) -> tuple[float, float]:
    """(output tokens/s/GPU, mean running) of all requests at once, an attention-DP rank with its share for all."""
    requests = Requests(
        arrival_s=np.zeros(prompts.size),
        prompt_tokens=prompts.astype(np.int64),
        output_tokens=outputs.astype(np.int64),
    )
    isl, osl = round(float(prompts.mean())), round(float(outputs.mean()))
    table = steps_of(case, isl, osl).table()
    run = simulate(requests, table, limits)
    done = run.timings.finished
    if not done.all():
        raise UnsupportedError(f"{np.count_nonzero(~done)} of {done.size} requests are refused")
    # A stretch of every step stretches the run alike: nothing arrives later.
    stretch = 1.0 if PLAIN else steps_of(case, isl, osl, max(1, round(run.mean_running * case.data))).stretch
    return float(outputs.sum()) / (run.span_s * stretch) * case.data / case.gpus, run.mean_running


# One function per kind of row: (predicted, measured, what it is, more columns) ---------------------------------------


def trtllm_bench(r: dict[str, str]) -> Row:
    """A row of TensorRT-LLM's tables 1.0 and 1.2."""
    name = MODELS.get(r["model"], r["model"])
    model = _catalogue().model(name)
    gpus, pipeline = int(number(r["gpus"])), int(number(r["pp"]) or 1)
    data, expert = number(r["dp"]), number(r["ep"])
    if math.isnan(expert):  # 1.0: attention DP of MoE models is in the page's options, not in its columns
        data = expert = gpus // pipeline if model.is_moe else 1
    precision = "mxfp4" if "gpt-oss" in name else PRECISIONS[r["precision"]]
    case = Case(
        model=name, accelerator=accelerator_of(r["accelerator"]), engine="trtllm", precision=precision,
        tensor=gpus // pipeline // int(data), data=int(data), expert=int(expert), pipeline=pipeline,
    )  # fmt: skip
    isl, osl = int(number(r["isl"])), int(number(r["osl"]))
    seats, tokens = bench_knobs(case, isl, osl)
    # Prompts are cut: whole ones would wait until no decode takes tokens of a step that holds just one prompt.
    limits = limits_for(case, seats=min(seats, MOST_SEQS), tokens=min(tokens, MOST_TOKENS), longest=isl + osl)
    n = -(-REQUESTS[isl, osl] // case.data)
    value, running = play(case, limits, np.full(n, isl), np.full(n, osl))
    return _row(r, case, value, seats=limits.max_num_seqs, tokens=limits.max_num_batched_tokens, running=running)


def static_batch(r: dict[str, str], engine: str) -> Row:
    """One batch, all of it started together; TP as published."""
    precision = PRECISIONS.get(r["precision"])
    pipeline = number(r["pp"])
    if precision is None or "PP" in r["notes"] or pipeline > 1 or math.isnan(number(r["tp"])):
        raise UnsupportedError(f"not simulated: {r['precision']}, TP {r['tp'] or 'unknown'}, PP {r['pp'] or 'unknown'}")
    tensor = int(number(r["tp"]))
    case = Case(
        model=MODELS.get(r["model"], r["model"]), accelerator=accelerator_of(r["accelerator"]), engine=engine,
        precision=precision, tensor=tensor,
    )  # fmt: skip
    batch = int(r["concurrency_or_rate"].rpartition("=")[2])
    isl, osl = int(number(r["isl"])), int(number(r["osl"]))
    limits = limits_for(case, seats=batch, tokens=min(MOST_TOKENS, max(8192, batch)), longest=isl + osl)
    value, running = play(case, limits, np.full(batch, isl), np.full(batch, osl))
    if osl == 1:
        raise UnsupportedError("first-token rows are compared as latencies")
    return _row(r, case, value, seats=batch, tokens=limits.max_num_batched_tokens, running=running)


def first_token(r: dict[str, str]) -> Row:
    """Milliseconds to the first token of one prompt."""
    case = Case(
        model=MODELS.get(r["model"], r["model"]), accelerator=accelerator_of(r["accelerator"]), engine="trtllm",
        precision=PRECISIONS[r["precision"]], tensor=int(number(r["tp"])),
    )  # fmt: skip
    isl = int(number(r["isl"]))
    steps = steps_of(case, isl, 1, 0 if PLAIN else 1)
    seconds = steps.table().step_ps(
        prefill_tokens=isl, decodes=0, sampling=1, context_sum=0, pair_sum=isl * (isl + 1)
    ) / 1e12  # fmt: skip
    return _about(r, case) | {
        "source": steps.source.label,
        "predicted_first_token_s": seconds,
        "measured_first_token_s": number(r["ttft_mean_ms"]) / 1e3,
    }


def mlperf(r: dict[str, str]) -> Row:
    """An offline result: the best TP and scheduler of those that submitters choose among."""
    if "closed/" not in r["notes"]:
        raise UnsupportedError("open division: other models or accuracies")
    accelerator = accelerator_of(r["accelerator"])
    if r["model"] not in LENGTHS:
        raise UnsupportedError(f"no lengths known of {r['model']}")
    isl, osl, longest_isl, longest_osl = LENGTHS[r["model"]]
    stated = number(r["osl"])
    osl = stated if stated > 0 else osl
    amd = accelerator.startswith("mi")
    vllm = amd or "vLLM" in r["engine"]
    key = (MODELS[r["model"]], accelerator, "vllm" if vllm else "trtllm", r["precision"], isl, round(osl), longest_isl)
    value, case, seats, tokens, running = _best(key, longest_osl, int(number(r["gpus"])))
    return _row(r, case, value, seats=seats, tokens=tokens, running=running)


@cache
def _best(key: tuple, longest_osl: int, gpus: int) -> tuple[float, Case, int, int, float]:
    name, accelerator, engine, precision, isl, osl, longest_isl = key
    random = np.random.default_rng(0)
    prompts = np.clip(random.gamma(2.0, isl / 2, MLPERF_REQUESTS), 8, longest_isl)
    outputs = np.clip(random.gamma(2.0, osl / 2, MLPERF_REQUESTS), 1, longest_osl)
    prompts = np.clip(np.rint(prompts * isl / prompts.mean()), 1, longest_isl)
    outputs = np.clip(np.rint(outputs * osl / outputs.mean()), 1, longest_osl)
    if osl >= longest_osl:
        outputs = np.full(MLPERF_REQUESTS, longest_osl)
    moe = _catalogue().model(name).is_moe
    found, reason = [], "no TP fits"
    for tensor in TENSOR:
        for data in (1, tensor) if moe else (1,):
            if tensor > gpus or (data > 1 and tensor == 1):
                continue
            case = Case(
                model=name, accelerator=accelerator, engine=engine,
                precision="mxfp4" if precision == "fp4" and accelerator.startswith("mi") else PRECISIONS[precision],
                tensor=tensor // data, data=data, expert=data,
            )  # fmt: skip
            for seats, tokens in MLPERF_KNOBS:
                try:
                    limits = limits_for(case, seats=seats, tokens=tokens, longest=longest_isl + longest_osl)
                    if limits.policy is Policy.TRTLLM_NO_EVICT:
                        limits = replace(limits, policy=Policy.TRTLLM_MAX_UTILIZATION)
                    n = MLPERF_REQUESTS // (4 if isl > 4000 or osl > 2000 else 1) // data
                    value, running = play(case, limits, prompts[:n], outputs[:n])
                    found.append((value, case, seats, tokens, running))
                except TrilemmaError as error:
                    reason = str(error)
    if not found:
        raise UnsupportedError(reason)
    return max(found, key=lambda one: one[0])


def _about(r: dict[str, str], case: Case) -> Row:
    parallelism = f"TP{case.tensor}" + "".join(
        f" {word}{count}"
        for word, count in (("DP", case.data), ("EP", case.expert), ("PP", case.pipeline))
        if count > 1
    )
    return {
        "table": r["source"], "model": r["model"], "accelerator": case.accelerator, "engine": r["engine"][:40],
        "precision": r["precision"], "parallelism": parallelism, "isl": r["isl"], "osl": r["osl"],
        "load": r["concurrency_or_rate"], "gpus": case.gpus,
    }  # fmt: skip


def _row(r: dict[str, str], case: Case, value: float, **more: float) -> Row:
    return _about(r, case) | more | {
        "measured_share_of_peak": share_of_peak(r, case),
        "source": usual_of(case).source.label,
        "predicted_tok_s_per_gpu": value,
        "measured_tok_s_per_gpu": number(r["tok_s_per_gpu"]),
    }  # fmt: skip


def share_of_peak(r: dict[str, str], case: Case) -> float:
    """Dense FLOPs of a row's prompts and answers over the data sheet's: what GEMMs reach at least, whatever the model.

    Two per active parameter and token, attention left out.
    """
    deployment = deployment_of(case)
    isl, osl = number(r["isl"]), number(r["osl"])
    if r["model"] in LENGTHS:
        mean_isl, mean_osl, _, _ = LENGTHS[r["model"]]
        isl, osl = mean_isl, osl if osl > 0 else mean_osl
    each = 2 * active_params(deployment.model, count_embedding=False) * (isl + osl) / osl
    peak = deployment.accelerator.flops[compute_format(deployment.precision, deployment.accelerator)]
    return number(r["tok_s_per_gpu"]) * each / peak


def best_shares(rows: list[Row]) -> dict[str, str]:
    """The highest share of the peak that a table shows, by accelerator and precision."""
    best: dict[str, Row] = {}
    for row in rows:
        if math.isfinite(row.get("measured_share_of_peak", math.nan)):
            name = f"{row['accelerator']} {row['precision']}"
            best[name] = max(best.get(name, row), row, key=lambda one: one["measured_share_of_peak"])
    return {
        name: f"{r['measured_share_of_peak']:.2f} ({r['model']} {r['isl']}/{r['osl']}, {r['table']})"
        for name, r in sorted(best.items())
    }


def compare(r: dict[str, str]) -> Row:
    """A row's prediction; TrilemmaError with the reason where there is none."""
    if any(word in r["notes"] for word in BROKEN):
        raise UnsupportedError("notes say that the row is reconstructed or assumed")
    if r["source"].startswith("TensorRT-LLM perf-overview 0.9"):
        return first_token(r) if number(r["osl"]) == 1 else static_batch(r, "trtllm")
    if r["source"].startswith("TensorRT-LLM"):
        return trtllm_bench(r)
    if r["source"].startswith("MLPerf"):
        return mlperf(r)
    if r["engine"] not in ARGONNE_ENGINES:
        raise UnsupportedError(f"engine not in the catalogue: {r['engine']}")
    return static_batch(r, ARGONNE_ENGINES[r["engine"]])


def main() -> None:
    options = arguments(
        "Published throughputs against predictions.",
        plain={"action": "store_true", "help": "without what measured runs of like deployments say"},
    )
    began_s = time.perf_counter()
    rows: list[Row] = []
    reasons: Counter[str] = Counter()
    seen = set()
    for r in read_csv(options.files[0]):
        if r["source"].startswith("MLPerf"):
            if r["load_kind"] != "offline":
                continue
            same = (r["model"][:10], r["accelerator"], r["tok_s_per_gpu"], r["gpus"])  # 99 and 99.9 are one run
            if same in seen:
                continue
            seen.add(same)
        try:
            row = compare(r)
        except TrilemmaError as error:
            reasons[f"{r['source'].rpartition(' ')[0] or r['source']}: {str(error)[:110]}"] += 1
            continue
        rows.append(row)
    argonne = [row for row in rows if row["table"].startswith("Argonne")]
    level(argonne)
    published = [row for row in rows if not row["table"].startswith("Argonne")]
    write_rows(options.rows, rows)
    names = ("tok_s_per_gpu", "first_token_s")
    by = {
        "by table": lambda row: row["table"],
        "by table and accelerator": lambda row: f"{row['table']} {row['accelerator']}",
        "by model": lambda row: row["model"],
        "by precision": lambda row: row["precision"],
        "by lengths": lambda row: f"{row['isl']}/{row['osl']}" if not row["table"].startswith("MLPerf") else "MLPerf",
    }
    tables = grouped(published, names, by)
    shape = grouped(argonne, ("tok_s_per_gpu", "level_tok_s_per_gpu"), {"by engine and accelerator": _stack})
    tables |= {f"Argonne {label}": groups for label, groups in shape.items()}
    more = {
        "highest measured share of the dense peak": best_shares(published),
        "rows without a prediction": dict(reasons.most_common()),
    }
    show(tables, as_json=options.json, more=more)
    print(f"{len(rows)} rows in {time.perf_counter() - began_s:.0f} s", file=sys.stderr)


def _stack(row: Row) -> str:
    return f"{row['engine']} {row['accelerator']}"


def level(rows: list[Row]) -> None:
    """Predictions divided by the median ratio of their engine, accelerator and model: what is left is shape."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((_stack(row), row["model"]), []).append(row)
    for group in groups.values():
        middle = float(np.median([r["predicted_tok_s_per_gpu"] / r["measured_tok_s_per_gpu"] for r in group]))
        for row in group:
            row["predicted_level_tok_s_per_gpu"] = row["predicted_tok_s_per_gpu"] / middle
            row["measured_level_tok_s_per_gpu"] = row["measured_tok_s_per_gpu"]


if __name__ == "__main__":
    main()
