"""Open-loop runs of vLLM replayed on the simulator: percentiles of TTFT and of generation time, run by run.

    python benchmarks/ground/open_loop.py REQUESTS.parquet SUMMARY.csv [--facts] [--plain] [--json] [--rows ROWS.csv]

REQUESTS has one request a row: run, prompt_tokens, generation_tokens, ttft, generation_time, launch_time (seconds).
SUMMARY has one run a row: what it ran on. The same requests arrive at the same times and get the same tokens; nothing
is fitted but facts of the deployments that the tables do not record (`--facts` tries the plausible ones). Attention is
made affine around the run's mean lengths; steps are stretched by what measured closed-loop runs of like deployments say
at the run's mean number of running requests, as predictions are (--plain: they are not).

What the load generator (LMBenchmark) does, as its source and the tables show:

- sharegpt runs: 55 conversations take turns, 252 requests at a fixed rate. Each prompt holds the whole conversation so
  far with the *recorded* answers, so a prompt continues the one before it in its conversation up to that one's end, and
  what the model had generated is of no use to the cache. Conversations end, but those left keep their order. Which
  prompt continues which is inferred (`continued`): the distance to the one before falls as conversations end, and a
  prompt grows by the last answer and a question. Against the prompts' text that is right for 250 of 252.
- Before each run a warm-up sends every conversation's turn before at the same rate, then sleeps 10 s: it is replayed
  first, with prompts shorter by a conversation's mean growth per turn.
- short_input runs: 320 users ask in turns, a row follows that of the same user's turn before; the prompt holds the
  model's own answers, so all of it and the answer can be cached.

Two replicas behind a Kubernetes service get each connection at random: drawn, mean over `SEEDS` draws. LMCache keeps KV
in CPU memory in chunks of 256 tokens: played as a KV pool without bounds (hits cost nothing), whose bounds the seats
keep.
"""

import sys
import time
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from measured import Row, arguments, errors, grouped, number, read_csv, show, write_rows

from trilemma.catalogue.catalogue import Catalogue, load_catalogue
from trilemma.deployment.memory import memory
from trilemma.deployment.spec import Deployment, Parallelism, SchedulerKnobs
from trilemma.latency.constants import efficiency_of
from trilemma.latency.mixers import Typical
from trilemma.latency.step import StepModel
from trilemma.latency.table import StepTable
from trilemma.sim.engine import EngineLimits
from trilemma.sim.fleet import Fleet, Routing
from trilemma.sim.limits import limits_of
from trilemma.sim.neighbours import Traits, load_neighbours, traits_of
from trilemma.sim.replica import Run, simulate
from trilemma.workload.requests import Requests

NAMES = ("ttft_p50_s", "ttft_p90_s", "generation_p50_s", "generation_p90_s")
TARGETS = {"ttft_p50_s": 15, "ttft_p90_s": 25, "generation_p50_s": 15, "generation_p90_s": 25}  # percent, median run
SEEDS = 5
ROUTINGS = ("random", "round-robin", "session-sticky", "prefix-aware")
PAUSE_S = 10.0  # between a warm-up's last answer and the run
CPU_CACHE_CHUNK = 256  # tokens, LMCache's default
CPU_CACHE_BLOCKS = 200_000
LEAST_CONVERSATIONS = 8
REFERENCE_TOKENS = 2048  # KV blocks of windowed layers are counted at this context
LATE_S = 0.012  # a client that sends so late is busy: its stamps are not the engine's
LONG_PREFILL_S = 0.6  # a request whose first token is farther away than this is queueing, on the A100
QUEUED_SAMPLES = 100
ANSWER_SHARE = 0.8  # of an answer's tokens that the next prompt has at least: tokenisers differ


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a deployment ran with where the summary does not say."""

    gpu_memory_utilization: float = 0.95
    max_model_len: int = 20_000
    max_num_batched_tokens: int = 2048
    max_num_seqs: int = 256
    prefix_caching: bool = True
    cpu_cache: bool = False
    kv_tokens: int | None = None  # of the pool, where it can be read off a run; None: by the memory model
    routing: str = "random"  # of two replicas: one of ROUTINGS
    tensor: int | None = None  # None: as the summary says


# The published deployments (llm-d-benchmark, collected/yamls) set memory, length and TP by flag; the rest is what fits
# best of what `--facts` tries. The KV pools of the A100 runs are read off their overloaded runs (`held_tokens`, and
# half a prompt that did not fit): two images with different overheads. The memory model says 44,500 tokens with 256
# seats and 36,900 with 512.
A100_VLLM = Facts(kv_tokens=36_800)
A100_LLM_D = Facts(kv_tokens=42_600)
H100 = Facts(max_model_len=10_000, max_num_batched_tokens=8192, max_num_seqs=1024)
FACTS = {
    "exp-0/vllm-70b": A100_VLLM,
    "exp-2/vllm-70b-2replicas": A100_VLLM,
    "exp-0/baseline-llm-d-70b": A100_LLM_D,
    "exp-0/lmcache-llm-d-70b": replace(A100_LLM_D, kv_tokens=41_400, cpu_cache=True),
    "exp-0/lmcache-indexing-llm-d-70b": replace(A100_LLM_D, kv_tokens=41_400, cpu_cache=True),
    "exp-2/llm-d-70b-2replicas": replace(A100_LLM_D, cpu_cache=True),
    # The pool of 900,000 tokens holds every prefix, so that what LMCache keeps is never asked for.
    "exp-4/vllm-llama4-tp4": H100,
    "exp-4/llm-d-llama4-tp4": H100,
    "exp-4/lmcache-llm-d-llama4-tp4": H100,
}


@dataclass(frozen=True, kw_only=True)
class Load:
    """One measured run: requests in order of launch, the measured times, how many replicas served it."""

    name: str
    kind: str
    summary: dict[str, str]
    arrival_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    ttft_s: np.ndarray
    generation_s: np.ndarray
    missing: bool = False  # requests without an answer were not recorded
    before: np.ndarray  # (n,) the request whose conversation this one continues; -1: of the warm-up, or none

    @property
    def rate_per_s(self) -> float:
        return (self.arrival_s.size - 1) / float(self.arrival_s[-1])

    @property
    def replicas(self) -> int:
        return int(number(self.summary["dp"]))


# The measured runs ---------------------------------------------------------------------------------------------------


def loads(requests: Path, summary: Path) -> list[Load]:
    """Every run that has requests."""
    about = {r["url_or_file"].split("openshift/")[1].split(".csv")[0]: r for r in read_csv(summary)}
    table = pq.read_table(requests)
    names = np.array(table["run"].to_pylist())
    columns = {
        name: table[name].to_numpy().astype(np.float64)
        for name in ("prompt_tokens", "generation_tokens", "ttft", "generation_time", "launch_time")
    }
    found = []
    for name in dict.fromkeys(names.tolist()):
        rows = np.flatnonzero(names == name)
        part = {column: values[rows] for column, values in columns.items()}
        kind = "short_input" if "short_input" in name else "sharegpt"
        order = np.argsort(part["launch_time"], kind="stable")
        before = np.full(rows.size, -1)
        if kind == "short_input":
            # Rows are by user: a prompt that has room for the answer of the row before is the same user's next turn.
            rank = np.empty(rows.size, int)
            rank[order] = np.arange(rows.size)
            grown = np.flatnonzero(np.diff(part["prompt_tokens"]) > part["generation_tokens"][:-1]) + 1
            before[rank[grown]] = rank[grown - 1]
        part = {column: values[order] for column, values in part.items()}
        prompts, outputs = part["prompt_tokens"].astype(np.int64), part["generation_tokens"].astype(np.int64)
        load = Load(
            name=name, kind=kind, summary=about[name],
            arrival_s=part["launch_time"] - part["launch_time"][0],
            prompt_tokens=prompts, output_tokens=np.maximum(outputs, 1),
            ttft_s=part["ttft"], generation_s=part["generation_time"], before=before,
        )  # fmt: skip
        found.append(load)
    return _with_conversations(found)


def _with_conversations(found: list[Load]) -> list[Load]:
    """The sharegpt runs with `before`, inferred from the fullest run of each model."""
    fullest: dict[str, Load] = {}
    for load in found:
        model = load.summary["model"]
        if load.kind == "sharegpt" and load.arrival_s.size > fullest.get(model, load).arrival_s.size - 1:
            fullest[model] = load
    whole = {model: continued(load.prompt_tokens, load.output_tokens) for model, load in fullest.items()}
    return [_continued(load, fullest, whole) if load.kind == "sharegpt" else load for load in found]


def _continued(load: Load, fullest: dict[str, Load], whole: dict[str, np.ndarray]) -> Load:
    """A sharegpt run with `before`."""
    model = load.summary["model"]
    before = whole[model]
    missing = load.arrival_s.size < before.size
    if missing:
        # Some requests have no answer. The others' prompts say which they are: they are in order.
        place = _placed(load.prompt_tokens, fullest[model].prompt_tokens)
        here = {int(p): i for i, p in enumerate(place)}
        before = np.array([here.get(int(before[p]), -1) for p in place])
    return replace(load, before=before, missing=missing)


def _placed(some: np.ndarray, every: np.ndarray) -> np.ndarray:
    """(k,) where `some` are in `every`, in order."""
    place, at = [], 0
    for tokens in some:
        while at < every.size and every[at] != tokens:
            at += 1
        place.append(min(at, every.size - 1))
        at += 1
    return np.array(place)


def continued(prompts: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """(n,) the earlier request that each prompt continues, -1 in the first round, when conversations take turns.

    The number of conversations P is the distance at which most prompts can hold the earlier prompt and its answer.
    After P rounds' worth the distance can only fall, as conversations end: the most likely path, what a prompt grows
    by beside the answer being lognormal as in the second round, and each ended conversation costing one.
    """
    n = prompts.size
    least = prompts + ANSWER_SHARE * outputs

    def possible(distance: int) -> float:
        i = np.arange(distance, min(3 * distance, n))
        return float(np.mean(prompts[i] > least[i - distance]))

    distances = range(LEAST_CONVERSATIONS, n // 3)
    conversations = max(distances, key=possible)
    second = np.arange(conversations, 2 * conversations)
    grown = np.log1p(np.maximum(prompts[second] - least[second - conversations], 1))
    mean, deviation = float(grown.mean()), max(float(grown.std()), 0.1)
    cost = np.full(conversations + 1, np.inf)
    cost[conversations] = 0.0
    back = np.zeros((n, conversations + 1), int)
    for t in range(conversations, n):
        now = np.full(conversations + 1, np.inf)
        for distance in range(1, conversations + 1):
            grows = prompts[t] - least[t - distance]
            come = cost[distance:] + np.arange(conversations - distance + 1)
            best = int(np.argmin(come))
            back[t, distance] = distance + best
            if grows >= 1:
                now[distance] = come[best] + ((np.log1p(grows) - mean) / deviation) ** 2 / 2
        # A prompt that continues none by this rule (its answer was shorter in the next tokeniser's words) keeps paths.
        cost = now if np.isfinite(now).any() else cost + 10.0
    before = np.full(n, -1)
    distance = int(np.argmin(cost))
    for t in range(n - 1, conversations - 1, -1):
        before[t] = t - distance
        distance = back[t, distance]
    return before


def requests_of(load: Load, block_tokens: int) -> tuple[Requests, np.ndarray]:
    """The run with its warm-up before it, prefix blocks named, and (m,) whether a request is the run's."""
    prompts, outputs, before = load.prompt_tokens, load.output_tokens, load.before
    arrival_s = load.arrival_s
    first = np.flatnonzero(before < 0)
    warm = load.kind == "sharegpt"
    k = first.size if warm else 0
    if warm:
        grown = float((prompts - prompts[np.maximum(before, 0)])[before >= 0].mean())
        growth = np.full(prompts.size, grown)
        after = np.flatnonzero(before >= 0)
        growth[before[after]] = prompts[after] - prompts[before[after]]
        earlier = np.maximum(block_tokens, prompts[first] - growth[first]).astype(np.int64)
        gap_s = 1 / load.rate_per_s
        # The run begins PAUSE_S after the warm-up's last answer, whose time is that of the run's own last answers.
        drain_s = float(np.max(arrival_s + load.ttft_s + load.generation_s) - arrival_s[-1])
        start_s = k * gap_s + drain_s + PAUSE_S
        prompts = np.concatenate([earlier, prompts])
        outputs = np.concatenate([np.full(k, round(float(outputs.mean()))), outputs])
        arrival_s = np.concatenate([np.arange(k) * gap_s, arrival_s + start_s])
        before = np.concatenate([np.full(k, -1), before + k])
        before[k + first] = np.arange(k)
    chains: list[list[int]] = []
    named = 0
    session = np.zeros(prompts.size, np.int64)
    for i, (prompt, parent) in enumerate(zip(prompts, before, strict=True)):
        kept: list[int] = []
        session[i] = i if parent < 0 else session[parent]
        if parent >= 0:
            known = int(prompts[parent]) + (0 if load.kind == "sharegpt" else int(outputs[parent]) - 1)
            kept = chains[parent][: min(known, int(prompt)) // block_tokens]
        # Blocks beyond the prompt name those of the answer, which the next turn finds where it holds the answer.
        names = (int(prompt) + (0 if load.kind == "sharegpt" else int(outputs[i]))) // block_tokens - len(kept)
        chains.append(kept + list(range(named, named + max(names, 0))))
        named += max(names, 0)
    counts = np.array([len(chain) for chain in chains])
    requests = Requests(
        arrival_s=arrival_s,
        prompt_tokens=prompts.astype(np.int64),
        output_tokens=outputs.astype(np.int64),
        block_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        block_ids=np.array([name for chain in chains for name in chain], np.int64),
        block_tokens=block_tokens,
        session=session,
    )
    return requests, np.arange(prompts.size) >= k


def lateness_s(load: Load) -> float:
    """By how much the client sent late, 90% quantile, seconds; 0 where the schedule is not known.

    Runs with requests that were never answered have lost their place in it.

    The i-th request of a sharegpt run is due i / rate after the start and stamped when the client's event loop gets to
    it, by which first tokens are stamped too: a client that sends late sees first tokens late, whatever the engine.
    """
    if load.kind != "sharegpt" or load.missing:
        return 0.0
    rate = float(load.name.rpartition("_")[2])
    due_s = np.arange(load.arrival_s.size) / rate
    late_s = load.arrival_s - due_s
    return float(np.percentile(late_s, 90) - np.percentile(late_s, 1))


def held_tokens(load: Load) -> float:
    """Tokens of prompts and answers so far that one replica's running requests hold while others wait; NaN if none do.

    A run that waits for KV says how large the pool is, but for what the first in the queue is short of and for blocks
    that running requests share.
    """
    begin_s = load.arrival_s + load.ttft_s
    end_s = begin_s + load.generation_s
    now_s = np.linspace(0, float(end_s.max()), 2000)[:, None]
    running = (now_s >= begin_s) & (now_s < end_s)
    waiting = (now_s >= load.arrival_s) & (now_s < begin_s - LONG_PREFILL_S)
    so_far = np.clip((now_s - begin_s) / np.maximum(load.generation_s, 1e-9), 0, 1) * load.output_tokens
    held = (running * (load.prompt_tokens + so_far)).sum(axis=1)[waiting.any(axis=1)]
    return float(np.median(held)) / load.replicas if held.size > QUEUED_SAMPLES else float("nan")


# The deployments -----------------------------------------------------------------------------------------------------


def facts_of(load: Load) -> Facts:
    """The facts in use for a run."""
    return FACTS.get(deployment_name(load), Facts())


def accelerator_of(load: Load) -> str:
    return _catalogue().accelerator(load.summary["accelerator"].split("-")[0]).name


@cache
def _catalogue() -> Catalogue:
    return load_catalogue()


@cache
def prepared(model_name: str, accelerator: str, precision: str, tensor: int, facts: Facts) -> tuple[StepModel, int]:
    """The latency model of one replica at usual lengths, and the blocks of its KV pool."""
    catalogue = _catalogue()
    model, chip, engine = catalogue.model(model_name), catalogue.accelerator(accelerator), catalogue.engine("vllm")
    deployment = Deployment(
        model=model,
        precision=catalogue.precision(precision, model=model).for_model(is_moe=model.is_moe),
        accelerator=chip,
        engine=engine,
        parallelism=Parallelism(tensor=tensor),
        knobs=SchedulerKnobs(
            max_num_batched_tokens=facts.max_num_batched_tokens,
            max_num_seqs=facts.max_num_seqs,
            block_tokens=engine.block_tokens,
            gpu_memory_utilization=facts.gpu_memory_utilization,
            max_model_len=facts.max_model_len,
        ),
    )
    held = memory(deployment, reference_tokens=REFERENCE_TOKENS)
    blocks = held.usable_blocks if facts.kv_tokens is None else facts.kv_tokens // engine.block_tokens
    return StepModel(deployment, efficiency_of(deployment)), blocks


def setting(load: Load, facts: Facts, *, plain: bool) -> tuple[StepTable, EngineLimits, float]:
    """Step times at the run's lengths, scheduler, and seconds per request before it."""
    about = load.summary
    tensor = facts.tensor or int(number(about["tp"]))
    usual, blocks = prepared(about["model"], accelerator_of(load), about["precision"], tensor, facts)
    d = usual.deployment
    limits = replace(limits_of(d, blocks), prefix_caching=facts.prefix_caching)
    prompt, output = float(load.prompt_tokens.mean()), float(load.output_tokens.mean())
    cached = cached_tokens(load) if facts.prefix_caching else 0.0
    # Contexts are met as often as they are long in coming: weighted by the tokens of their answers.
    middles = load.prompt_tokens + load.output_tokens / 2
    context = float(np.average(middles, weights=load.output_tokens))
    typical = Typical(prompt_tokens=max(1.0, prompt - cached), prefix_tokens=cached, context_tokens=context)
    stretch = 1.0
    if not plain:
        running = max(1.0, float(load.generation_s.sum()) / float(load.arrival_s[-1]) / load.replicas)
        traits = traits_of(d, isl=prompt, osl=output, concurrency=running)
        stretch = float(np.exp(load_neighbours().correct(Traits.of([traits]))["tpot"].mean[0]))
    steps = StepModel(d, usual.efficiency, typical, stretch=stretch, like=usual)
    return steps.table(), limits, usual.efficiency.engine.request_s


def cached_tokens(load: Load) -> float:
    """Mean tokens of a prompt that its conversation has computed before, if all of them are kept."""
    grows = load.before >= 0
    known = np.zeros(load.prompt_tokens.size)
    known[grows] = load.prompt_tokens[load.before[grows]]
    if load.kind == "short_input":
        known[grows] += load.output_tokens[load.before[grows]]
    return float(np.minimum(known, load.prompt_tokens).mean())


# The comparison ------------------------------------------------------------------------------------------------------


def replay(load: Load, facts: Facts, *, plain: bool = False) -> Row:
    """Percentiles of one run, measured and predicted, and what explains them."""
    table, limits, request_s = setting(load, facts, plain=plain)
    pool = limits.kv_blocks
    unit = limits.block_tokens
    if facts.cpu_cache and facts.prefix_caching:
        unit = CPU_CACHE_CHUNK
        # A request holds its prompt and half of its answer, for as long as it generates.
        tokens = float(np.average(load.prompt_tokens + load.output_tokens / 2, weights=load.output_tokens))
        seats = max(1, min(limits.max_num_seqs, int(pool * limits.block_tokens / tokens)))
        limits = replace(limits, kv_blocks=CPU_CACHE_BLOCKS, max_num_seqs=seats)
    requests, mine = requests_of(load, unit)
    drawn = load.replicas > 1 and facts.routing == "random"
    runs = [
        play(requests, table, limits, replicas=load.replicas, routing=facts.routing, seed=seed)
        for seed in range(SEEDS if drawn else 1)
    ]
    row: Row = {
        "run": load.name,
        "deployment": deployment_name(load),
        "kind": load.kind,
        "requests": load.arrival_s.size,
        "rate_per_s": load.rate_per_s,
        "kv_blocks": pool,
        "chunk": facts.max_num_batched_tokens,
        "hit_share": float(np.mean([hits[mine].sum() for _, _, hits in runs]) / requests.prompt_tokens[mine].sum()),
    }
    measured = (load.ttft_s, load.generation_s)
    for k, name in enumerate(("ttft", "generation")):
        for share in (50, 90):
            values = [np.percentile(run[k][mine] + (request_s if k == 0 else 0), share) for run in runs]
            row[f"measured_{name}_p{share}_s"] = float(np.percentile(measured[k], share))
            row[f"predicted_{name}_p{share}_s"] = float(np.mean(values))
    row["client_late_p90_s"] = lateness_s(load)
    row["held_tokens_while_queueing"] = held_tokens(load)
    # Time per token of requests: the step time, whatever the queue did.
    several = load.output_tokens > 1
    gaps = load.output_tokens[several] - 1
    row["measured_tpot_p50_s"] = float(np.median(load.generation_s[several] / gaps))
    row["predicted_tpot_p50_s"] = float(np.mean([np.median(run[1][mine][several] / gaps) for run in runs]))
    return row


def play(
    requests: Requests, table: StepTable, limits: EngineLimits, *, replicas: int, routing: str, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) TTFT and generation time, seconds, and cached tokens hit."""
    n = len(requests)
    if replicas == 1 or routing != "random":
        kinds = {
            "random": Routing.ROUND_ROBIN, "round-robin": Routing.ROUND_ROBIN,
            "session-sticky": Routing.SESSION_STICKY, "prefix-aware": Routing.PREFIX_AWARE,
            "least-outstanding": Routing.LEAST_OUTSTANDING,
        }  # fmt: skip
        kind = kinds[routing]
        if kind is Routing.PREFIX_AWARE and not limits.prefix_caching:
            kind = Routing.LEAST_OUTSTANDING
        run = simulate(requests, table, limits, fleet=Fleet(replicas=replicas, routing=kind))
        return run.timings.ttft_s, run.timings.done_s - run.timings.first_token_s, _hits(run, n)
    chosen = np.random.default_rng(seed).integers(0, replicas, n)
    ttft_s, generation_s, hits = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n)
    for replica in range(replicas):
        which = np.flatnonzero(chosen == replica)
        run = simulate(requests.take(which), table, limits)
        ttft_s[which] = run.timings.ttft_s
        generation_s[which] = run.timings.done_s - run.timings.first_token_s
        hits[which] = _hits(run, which.size)
    return ttft_s, generation_s, hits


def _hits(run: Run, n: int) -> np.ndarray:
    return np.zeros(n) if run.hit_tokens is None else run.hit_tokens.astype(float)


def deployment_name(load: Load) -> str:
    """Experiment and stack."""
    return "/".join(load.name.split("/")[:-1])


def try_facts(found: list[Load]) -> dict[str, list[Row]]:
    """Errors of every deployment's sharegpt runs under the facts in use and under others, best first.

    Seats decide the KV pool by the memory model (buffers of the sampler); TP only where the summary infers it.
    """
    tables: dict[str, list[Row]] = {}
    for name in dict.fromkeys(deployment_name(load) for load in found):
        mine = [load for load in found if deployment_name(load) == name and load.kind == "sharegpt"]
        if not mine:
            continue
        usual = facts_of(mine[0])
        rows = [{"facts": "in use"} | errors([replay(load, usual) for load in mine], NAMES)]
        routings = ROUTINGS if mine[0].replicas > 1 else ("random",)
        for chunk, seats, caching, routing in product((2048, 8192), (256, 512, 1024), (True, False), routings):
            facts = replace(
                usual, max_num_batched_tokens=chunk, max_num_seqs=seats, kv_tokens=None, prefix_caching=caching,
                routing=routing,
            )  # fmt: skip
            label = f"chunk {chunk}, seats {seats}, caching {'on' if caching else 'off'}, {routing}"
            rows.append({"facts": label} | errors([replay(load, facts) for load in mine], NAMES))
        if mine[0].summary["accelerator"].startswith("A100"):
            four = replace(usual, tensor=4, kv_tokens=None)
            rows.append({"facts": "as in use, TP 4"} | errors([replay(load, four) for load in mine], NAMES))
        rows.sort(key=lambda row: sum(row[f"{n}_median"] / TARGETS[n] for n in NAMES))
        held = [value for load in mine if np.isfinite(value := held_tokens(load))]
        label = f"{name}; held while others wait: {min(held):,.0f} to {max(held):,.0f} tokens" if held else name
        tables[label] = [{name: row[name] for name in row if not name.endswith("_mape")} for row in rows]
    return tables


def main() -> None:
    options = arguments(
        "Open-loop runs replayed on the simulator.",
        facts={"action": "store_true", "help": "try the plausible facts of each deployment instead"},
        plain={"action": "store_true", "help": "without what measured runs of like deployments say"},
    )
    began_s = time.perf_counter()
    requests, summary = sorted(options.files, key=lambda path: path.suffix != ".parquet")[:2]
    found = loads(requests, summary)
    if options.facts:
        show(try_facts(found), as_json=options.json)
        return
    rows = [replay(load, facts_of(load), plain=options.plain) for load in found]
    write_rows(options.rows, rows)
    by = {
        "by client": lambda row: "late" if row["client_late_p90_s"] > LATE_S else "on time",
        "by deployment": lambda row: f"{row['deployment']} {row['kind']}",
    }
    tables = grouped(rows, (*NAMES, "tpot_p50_s"), by)
    show(tables, as_json=options.json, more={"targets, median run, %": TARGETS})
    print(f"{len(rows)} runs in {time.perf_counter() - began_s:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
